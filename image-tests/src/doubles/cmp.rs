//! A certificate authority that speaks CMP (RFC 4210): `openssl cmp` as OpenSSL's own mock server, which checks who
//! asks, and issues the one certificate that it was started with.
//!
//! OpenSSL 3.0's answers a key update only with a certificate of the issuer and serial number that are to be updated
//! (`process_cert_request` in apps/lib/cmp_mock_srv.c), and listens on all addresses of the host.

use std::fs::File;
use std::process::Command;

use anyhow::{Context, Result};
use tempfile::TempDir;

use super::pki::{Authority, Pair};
use crate::process::Background;

#[derive(Debug)]
pub struct CmpServer {
    _server: Background,
    port: u16,
    files: TempDir,
}

impl CmpServer {
    /// A server on a free port. It signs as `signer`, trusts clients that the authority has certified, and issues this
    /// certificate, PEM.
    pub fn start(signer: &Pair, authority: &Authority, issues: &str) -> Result<Self> {
        let files = tempfile::Builder::new().prefix("cmp-server-").tempdir()?;
        let certificate = files.path().join("issued.pem");
        std::fs::write(&certificate, issues)?;
        let log = files.path().join("log");
        let mut command = Command::new("openssl");
        // Empty configurations, so that the host's does not apply.
        command.env("OPENSSL_CONF", "/dev/null");
        command.args(["cmp", "-config", "", "-port", "0"]);
        command.arg("-srv_cert").arg(&signer.certificate);
        command.arg("-srv_key").arg(&signer.key);
        command
            .arg("-srv_trusted")
            .arg(authority.certificate_path());
        command.arg("-rsp_cert").arg(&certificate);
        let (server, port) = Background::start_until(
            &mut command,
            "openssl cmp to listen",
            File::create(&log)?,
            listening_port,
        )
        .with_context(|| std::fs::read_to_string(&log).unwrap_or_default())?;
        Ok(Self {
            _server: server,
            port,
            files,
        })
    }

    /// Its URL: scheme, host and port.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Its output so far.
    pub fn log(&self) -> Result<String> {
        Ok(std::fs::read_to_string(self.files.path().join("log"))?)
    }
}

/// "ACCEPT [::]:41271 PID=20849"
fn listening_port(line: &str) -> Option<u16> {
    let address = line.strip_prefix("ACCEPT ")?.split_whitespace().next()?;
    address.rsplit_once(':')?.1.parse().ok()
}
