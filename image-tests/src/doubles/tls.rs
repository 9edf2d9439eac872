//! The verifying end of a handshake: `openssl s_server`, which takes no client without a certificate of
//! the operator's authority and answers each line with its reverse. The clients connect to it.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use openssl::x509::X509;
use tempfile::TempDir;

use crate::doubles::pki::Authority;
use crate::process::{Background, wait_for};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    Tls12,
    Tls13,
}

impl Version {
    pub const BOTH: [Self; 2] = [Self::Tls12, Self::Tls13];

    /// As OpenSSL's log and Java name it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Tls12 => "TLSv1.2",
            Self::Tls13 => "TLSv1.3",
        }
    }

    /// The option of `openssl s_client` and `s_server`.
    pub fn option(self) -> &'static str {
        match self {
            Self::Tls12 => "-tls1_2",
            Self::Tls13 => "-tls1_3",
        }
    }
}

/// What a client says, and what it has to hear: proof that data went both ways under the session's keys.
pub const QUESTION: &str = "born in the TPM";
pub const ANSWER: &str = "MPT eht ni nrob";

/// The handshakes' messages, decrypted.
const MESSAGES: &str = "messages";

#[derive(Debug)]
pub struct TlsServer {
    server: Background,
    port: u16,
    version: Version,
    authority: PathBuf,
    files: TempDir,
}

impl TlsServer {
    /// A server at a free port that speaks one version only. The authority has to outlive it.
    pub fn start(authority: &Authority, version: Version) -> Result<Self> {
        let own = authority.server()?;
        let files = tempfile::Builder::new().prefix("tls-server-").tempdir()?;
        // To a file, not through a pipe: what a client has caused is there once the client has its answer.
        let log = std::fs::File::create(files.path().join("log"))?;
        let mut command = Command::new("openssl");
        // -Verify demands a certificate; its number is how long a chain may be.
        command
            .args(["s_server", "-accept", "127.0.0.1:0", "-rev", "-Verify", "3"])
            .args(["-verify_return_error", version.option(), "-msg", "-msgfile"])
            .arg(files.path().join(MESSAGES));
        command.arg("-CAfile").arg(authority.certificate_path());
        command.arg("-cert").arg(&own.certificate);
        command.arg("-key").arg(&own.key);
        // An empty configuration: the machine's own has no say.
        command.env("OPENSSL_CONF", "/dev/null");
        let mut server =
            Background::start(command.stdout(log.try_clone()?).stderr(log.try_clone()?))?;
        let port = wait_for("openssl s_server to listen", || {
            let log = std::fs::read_to_string(files.path().join("log"))?;
            if server.has_ended()? {
                bail!("openssl s_server ended: {log}");
            }
            Ok(listening_port(&log))
        })?;
        Ok(Self {
            server,
            port,
            version,
            authority: authority.certificate_path(),
            files,
        })
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn version(&self) -> Version {
        self.version
    }

    /// The certificate that its own is signed by: what clients trust.
    pub fn authority(&self) -> &Path {
        &self.authority
    }

    pub fn log(&self) -> Result<String> {
        std::fs::read_to_string(self.files.path().join("log")).context("the TLS server has no log")
    }

    /// Whether a client of that common name has shown its certificate and proved to hold the key.
    pub fn authenticated(&self, common_name: &str) -> Result<bool> {
        // OpenSSL 3.0 writes "CN = name", later ones "CN=name".
        let log = self.log()?.replace(" = ", "=");
        let version = format!("Protocol version: {}", self.version.name());
        let subject = format!("CN={common_name}");
        Ok(log
            .split("CONNECTION ESTABLISHED")
            .skip(1)
            .any(|connection| {
                let has = |wanted: &str| connection.lines().any(|line| line.trim() == wanted);
                has(&version) && has("Verification: OK") && {
                    let peer = connection
                        .lines()
                        .find_map(|line| line.strip_prefix("Peer certificate: "));
                    peer.is_some_and(|peer| peer.split(", ").any(|part| part == subject))
                }
            }))
    }

    /// Whether a client has sent this certificate, PEM: all of it, and so also its serial number.
    pub fn was_sent(&self, certificate: &str) -> Result<bool> {
        let der = X509::from_pem(certificate.as_bytes())?.to_der()?;
        let wanted: String = der.iter().map(|byte| format!(" {byte:02x}")).collect();
        let messages = std::fs::read_to_string(self.files.path().join(MESSAGES))?;
        // "<<<" is what came in: a line about the message, then its octets, 16 a line.
        Ok(messages.split("<<< ").skip(1).any(|message| {
            let lines = message.lines().skip(1);
            let octets = lines.take_while(|line| line.starts_with("    "));
            octets
                .map(|line| &line[3..])
                .collect::<String>()
                .contains(&wanted)
        }))
    }

    /// Ends it before its time: a server that went away.
    pub fn stop(self) -> Result<()> {
        self.server.terminate()
    }
}

fn listening_port(log: &str) -> Option<u16> {
    let address = log.lines().find_map(|line| line.strip_prefix("ACCEPT "))?;
    address.rsplit_once(':')?.1.trim().parse().ok()
}
