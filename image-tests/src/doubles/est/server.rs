//! The running double.

use std::io::{self, BufReader, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Result;
use openssl::ssl::{Ssl, SslAcceptor, SslVerifyMode};

use super::http;
use super::service::{Counts, Headers, Memory, Misbehaviour, Options, Reaction, Service};
use crate::doubles::pki::{Authority, Pair, Validity};
use crate::doubles::tls::{Version, acceptor};

/// A client that is silent for this long hangs.
const PATIENCE: Duration = Duration::from_secs(60);

/// A server, which stops accepting connections when it is dropped.
#[derive(Debug)]
pub struct EstServer {
    port: u16,
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<()>>,
}

struct Shared {
    tls: SslAcceptor,
    /// What clients have to call it: a relay's address, if there is one before it.
    host: Mutex<String>,
    service: Mutex<Service>,
    ended: AtomicBool,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}

impl EstServer {
    /// A server on a free port that speaks one version of TLS only. The authority certifies it, its clients and the
    /// devices.
    pub fn start(authority: &Arc<Authority>, version: Version, options: Options) -> Result<Self> {
        Self::resume(authority, version, Memory::new(authority, options)?)
    }

    /// A server that continues from the state of another one.
    pub fn resume(authority: &Arc<Authority>, version: Version, memory: Memory) -> Result<Self> {
        Self::serve(&authority.server()?, authority, version, memory)
    }

    /// The same with another certificate of its own.
    pub fn start_as(
        own: &Pair,
        authority: &Arc<Authority>,
        version: Version,
        options: Options,
    ) -> Result<Self> {
        Self::serve(own, authority, version, Memory::new(authority, options)?)
    }

    fn serve(
        own: &Pair,
        authority: &Authority,
        version: Version,
        Memory(service): Memory,
    ) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let port = listener.local_addr()?.port();
        let shared = Arc::new(Shared {
            tls: acceptor(
                own,
                &authority.certificate_path(),
                version,
                SslVerifyMode::PEER,
            )?,
            host: Mutex::new(format!("localhost:{port}")),
            service: Mutex::new(service),
            ended: AtomicBool::new(false),
        });
        let serving = Arc::clone(&shared);
        let acceptor = thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if serving.ended.load(Ordering::SeqCst) {
                    break;
                }
                let serving = Arc::clone(&serving);
                // If a connection breaks, the client notices.
                thread::spawn(move || drop(serve(&serving, stream)));
            }
        });
        Ok(Self {
            port,
            shared,
            acceptor: Some(acceptor),
        })
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// Clients reach it at another port of this host.
    pub fn is_behind(&self, port: u16) {
        let mut host = self
            .shared
            .host
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        *host = format!("localhost:{port}");
    }

    /// Misbehaves in this way at the next request for a certificate for which nothing else is ordered.
    pub fn misbehave(&self, misbehaviour: Misbehaviour) {
        self.service().orders.push_back(misbehaviour);
    }

    /// Answers the next request for the CA's certificates with this status and these headers.
    pub fn refuse_cacerts(&self, status: u16, headers: Headers) {
        self.service().refusals.push_back((status, headers));
    }

    /// Advances the server's clock: it lets nobody in whose certificate has ended.
    pub fn advance(&self, by: Duration) {
        self.service().ahead += by;
    }

    /// Certificates are valid then from now on.
    pub fn set_validity(&self, validity: Validity) {
        self.service().validity = validity;
    }

    pub fn memory(&self) -> Memory {
        Memory(self.service().clone())
    }

    pub fn counts(&self) -> Counts {
        self.service().counts
    }

    /// What clients have sent that RFC 7030 does not have.
    pub fn complaints(&self) -> Vec<String> {
        self.service().complaints.clone()
    }

    /// The certificates issued, PEM, in order.
    pub fn issued(&self) -> Vec<String> {
        self.service().issued.clone()
    }

    /// The serial numbers of the certificates shown for a renewal, in hexadecimal digits.
    pub fn shown(&self) -> Vec<String> {
        self.service().shown.clone()
    }

    /// The bodies of all requests for a certificate.
    pub fn requests(&self) -> Vec<Vec<u8>> {
        self.service().requests.clone()
    }

    fn service(&self) -> MutexGuard<'_, Service> {
        self.shared.service()
    }
}

impl Shared {
    fn service(&self) -> MutexGuard<'_, Service> {
        self.service.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for EstServer {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::SeqCst);
        // Wakes the acceptor, so that it ends.
        let _ = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port));
        if let Some(acceptor) = self.acceptor.take() {
            let _ = acceptor.join();
        }
    }
}

fn serve(shared: &Shared, stream: TcpStream) -> Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut raw = stream.try_clone()?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH)? + shared.service().ahead;
    let mut session = Ssl::new(shared.tls.context())?;
    session.param_mut().set_time(now.as_secs().try_into()?);
    let stream = match session.accept(stream) {
        Ok(stream) => stream,
        Err(e) => {
            // What the client has sent is read to its end: else closing would overtake the alert, and discard it.
            raw.shutdown(Shutdown::Write)?;
            io::copy(&mut raw, &mut io::sink())?;
            return Err(e.into());
        }
    };
    let mut stream = BufReader::new(stream);
    let client = stream.get_ref().ssl().peer_certificate();
    while let Some(request) = http::read(&mut stream)? {
        let host = shared
            .host
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let reaction = shared.service().handle(&request, &host, client.as_ref());
        match reaction {
            Reaction::Answer(answer) => {
                answer.write(stream.get_mut())?;
                if answer.closes {
                    let _ = stream.get_mut().shutdown();
                    return Ok(());
                }
            }
            Reaction::Part(answer) => {
                let mut bytes = Vec::new();
                answer.write(&mut bytes)?;
                stream.get_mut().write_all(&bytes[..bytes.len() / 2])?;
                return Ok(());
            }
            Reaction::Close => return Ok(()),
        }
    }
    let _ = stream.get_mut().shutdown();
    Ok(())
}
