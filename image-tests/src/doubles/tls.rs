//! The verifying end of a handshake: a TLS server that accepts only clients with a certificate of the operator's
//! authority, and answers each line with its reverse.

use std::io::{self, BufRead, BufReader, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::Result;
use openssl::nid::Nid;
use openssl::ssl::{
    SslAcceptor, SslFiletype, SslMethod, SslRef, SslStream, SslVerifyMode, SslVersion,
};
use openssl::x509::{X509, X509Name};

use super::pki::{Authority, Pair};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    Tls12,
    Tls13,
}

impl Version {
    pub const BOTH: [Self; 2] = [Self::Tls12, Self::Tls13];

    /// Its name in OpenSSL and Java.
    pub fn name(self) -> &'static str {
        match self {
            Self::Tls12 => "TLSv1.2",
            Self::Tls13 => "TLSv1.3",
        }
    }

    /// The option of `openssl s_client`.
    pub fn option(self) -> &'static str {
        match self {
            Self::Tls12 => "-tls1_2",
            Self::Tls13 => "-tls1_3",
        }
    }

    fn protocol(self) -> SslVersion {
        match self {
            Self::Tls12 => SslVersion::TLS1_2,
            Self::Tls13 => SslVersion::TLS1_3,
        }
    }
}

/// What a client sends, and the answer it has to get: proof that data went both ways under the session's keys.
pub const QUESTION: &str = "born in the TPM";
pub const ANSWER: &str = "MPT eht ni nrob";
/// The line at which the server closes the connection.
pub const CLOSE: &str = "CLOSE";

/// A client that is silent for this long hangs.
const PATIENCE: Duration = Duration::from_secs(60);

/// How a handshake ended.
#[derive(Debug)]
enum Handshake {
    /// The client has proved possession of its certificate's key.
    Completed {
        certificate: X509,
        version: &'static str,
    },
    Failed(String),
}

/// A server, which stops accepting connections when it is dropped.
#[derive(Debug)]
pub struct TlsServer {
    port: u16,
    version: Version,
    authority: PathBuf,
    handshakes: Arc<Mutex<Vec<Handshake>>>,
    ended: Arc<AtomicBool>,
    acceptor: Option<JoinHandle<()>>,
}

impl TlsServer {
    /// A server on a free port that speaks one version only. The authority has to outlive it.
    pub fn start(authority: &Authority, version: Version) -> Result<Self> {
        Self::start_for(authority, &authority.certificate_path(), version)
    }

    /// The same for clients with a certificate of the CA in this file, PEM.
    pub fn start_for(authority: &Authority, clients: &Path, version: Version) -> Result<Self> {
        let must = SslVerifyMode::PEER | SslVerifyMode::FAIL_IF_NO_PEER_CERT;
        let tls = acceptor(&authority.server()?, clients, version, must)?;
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let port = listener.local_addr()?.port();
        let (handshakes, ended) = (Arc::default(), Arc::new(AtomicBool::new(false)));
        let acceptor = {
            let (handshakes, ended) = (Arc::clone(&handshakes), Arc::clone(&ended));
            thread::spawn(move || {
                for stream in listener.incoming().flatten() {
                    if ended.load(Ordering::SeqCst) {
                        break;
                    }
                    let (tls, handshakes) = (tls.clone(), Arc::clone(&handshakes));
                    // If a connection breaks, the client notices.
                    thread::spawn(move || drop(serve(&tls, stream, &handshakes)));
                }
            })
        };
        Ok(Self {
            port,
            version,
            authority: authority.certificate_path(),
            handshakes,
            ended,
            acceptor: Some(acceptor),
        })
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn version(&self) -> Version {
        self.version
    }

    /// The CA certificate that clients have to trust.
    pub fn authority(&self) -> &Path {
        &self.authority
    }

    /// Whether a client with this common name has proved possession of its certificate's key. True before the client
    /// gets its first answer.
    pub fn authenticated(&self, common_name: &str) -> bool {
        lock(&self.handshakes).iter().any(|handshake| {
            matches!(handshake, Handshake::Completed { certificate, version }
                if common_name_of(certificate) == common_name && *version == self.version.name())
        })
    }

    /// Whether a client has used this very certificate, PEM, and proved possession of its key.
    pub fn was_shown(&self, pem: &str) -> Result<bool> {
        let wanted = X509::from_pem(pem.as_bytes())?.to_der()?;
        let mut shown = Vec::new();
        for handshake in lock(&self.handshakes).iter() {
            if let Handshake::Completed { certificate, .. } = handshake {
                shown.push(certificate.to_der()?);
            }
        }
        Ok(shown.contains(&wanted))
    }

    /// How the handshakes so far ended, for messages.
    pub fn log(&self) -> String {
        let handshakes = lock(&self.handshakes);
        let lines = handshakes.iter().map(|handshake| match handshake {
            Handshake::Completed {
                certificate,
                version,
            } => format!("{version}: {:?}\n", common_name_of(certificate)),
            Handshake::Failed(why) => format!("{why}\n"),
        });
        lines.collect()
    }
}

impl Drop for TlsServer {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::SeqCst);
        // Wakes the acceptor, so that it ends.
        let _ = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port));
        if let Some(acceptor) = self.acceptor.take() {
            let _ = acceptor.join();
        }
    }
}

/// A server with this certificate. Clients' certificates have to chain to the CA in this file, PEM.
pub(super) fn acceptor(
    own: &Pair,
    clients: &Path,
    version: Version,
    verify: SslVerifyMode,
) -> Result<SslAcceptor> {
    let mut tls = SslAcceptor::mozilla_intermediate_v5(SslMethod::tls_server())?;
    tls.set_min_proto_version(Some(version.protocol()))?;
    tls.set_max_proto_version(Some(version.protocol()))?;
    tls.set_certificate_file(&own.certificate, SslFiletype::PEM)?;
    tls.set_private_key_file(&own.key, SslFiletype::PEM)?;
    tls.set_ca_file(clients)?;
    tls.set_client_ca_list(X509Name::load_client_ca_file(clients)?);
    tls.set_verify(verify);
    tls.set_session_id_context(b"tls-server")?;
    Ok(tls.build())
}

fn serve(tls: &SslAcceptor, stream: TcpStream, handshakes: &Mutex<Vec<Handshake>>) -> Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    let (handshake, stream) = match tls.accept(stream) {
        Ok(stream) => (completed(stream.ssl()), Some(stream)),
        Err(e) => (Handshake::Failed(e.to_string()), None),
    };
    lock(handshakes).push(handshake);
    if let Some(stream) = stream {
        converse(stream)?;
    }
    Ok(())
}

fn completed(session: &SslRef) -> Handshake {
    match session.peer_certificate() {
        Some(certificate) => Handshake::Completed {
            certificate,
            version: session.version_str(),
        },
        None => Handshake::Failed("a client without a certificate".to_owned()),
    }
}

fn common_name_of(certificate: &X509) -> String {
    let mut names = certificate.subject_name().entries_by_nid(Nid::COMMONNAME);
    let name = names.next().and_then(|name| name.data().to_string().ok());
    name.unwrap_or_default()
}

fn converse(stream: SslStream<TcpStream>) -> io::Result<()> {
    let mut stream = BufReader::new(stream);
    let mut line = String::new();
    while stream.read_line(&mut line)? > 0 && line.trim_end() != CLOSE {
        let answer: String = line.trim_end().chars().rev().collect();
        stream.get_mut().write_all((answer + "\n").as_bytes())?;
        line.clear();
    }
    let _ = stream.get_mut().shutdown();
    Ok(())
}

fn lock(handshakes: &Mutex<Vec<Handshake>>) -> MutexGuard<'_, Vec<Handshake>> {
    handshakes.lock().unwrap_or_else(PoisonError::into_inner)
}
