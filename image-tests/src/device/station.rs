//! The provisioning station: firstboot-station with an operator's CA and a TPM manufacturer's certificates.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, ensure};
use openssl::hash::MessageDigest;
use openssl::x509::X509;
use tempfile::TempDir;

use super::{Device, built};
use crate::doubles::pki::{Authority, Manufacturer};
use crate::process::{Finished, bounded, finish};

#[derive(Debug)]
pub struct Station {
    pub manufacturer: Manufacturer,
    pub operator: Authority,
    directory: TempDir,
}

impl Station {
    pub fn new() -> Result<Self> {
        Ok(Self {
            manufacturer: Manufacturer::new()?,
            operator: Authority::new()?,
            directory: tempfile::Builder::new().prefix("station-").tempdir()?,
        })
    }

    /// A path in the station's directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// The directory for replies.
    pub fn out(&self) -> PathBuf {
        self.path("out")
    }

    /// SHA-256 of the CA certificate, in the format of `openssl x509 -fingerprint -sha256`.
    pub fn fingerprint(&self) -> Result<String> {
        let certificate = X509::from_pem(self.operator.certificate_pem()?.as_bytes())?;
        let digest = certificate.digest(MessageDigest::sha256())?;
        let bytes: Vec<_> = digest.iter().map(|b| format!("{b:02X}")).collect();
        Ok(bytes.join(":"))
    }

    /// The program with these arguments, in a minimal environment.
    pub fn command(&self, arguments: &[&str]) -> Result<Command> {
        let mut command = bounded(program()?);
        command.env_clear().env("PATH", "/usr/bin:/bin");
        command.env("TMPDIR", self.directory.path());
        command.args(arguments);
        Ok(command)
    }

    /// `issue` with the CA's key from its file, valid for a year.
    pub fn issuing(&self, requests: &Path) -> Result<Command> {
        let mut command = self.answering("issue", requests)?;
        command.args(["--days", "365"]);
        Ok(command)
    }

    /// `issue` or `wrap` with the options that both need.
    pub fn answering(&self, subcommand: &str, requests: &Path) -> Result<Command> {
        let mut command = self.answering_with_another_key(subcommand, requests)?;
        command.arg("--key").arg(self.operator.key_path());
        Ok(command)
    }

    /// The same without `--key`.
    pub fn answering_with_another_key(&self, subcommand: &str, requests: &Path) -> Result<Command> {
        let mut command = self.command(&[subcommand])?;
        command.arg(requests);
        command.arg("--ca").arg(self.operator.certificate_path());
        command
            .arg("--vendor-ca")
            .arg(self.manufacturer.certificates());
        command.arg("--out").arg(self.out());
        Ok(command)
    }

    /// `reissue` with certificates that are valid for a year.
    pub fn reissuing(&self, requests: &Path) -> Result<Command> {
        let mut command = self.command(&["reissue", "--days", "365"])?;
        command.arg(requests);
        command.arg("--ca").arg(self.operator.certificate_path());
        command.arg("--key").arg(self.operator.key_path());
        command.arg("--out").arg(self.out());
        Ok(command)
    }

    /// Runs `issue` for these requests.
    pub fn issue(&self, requests: &Path) -> Result<Finished> {
        finish(&mut self.issuing(requests)?)
    }

    /// Answers the request on a device's card, as an operator does: issues a certificate, and puts the reply onto the
    /// card.
    pub fn answer(&self, device: &Device) -> Result<()> {
        let done = self.issue(&device.path("/boot/firstboot/requests"))?;
        ensure!(done.code == 0, "firstboot-station: {done:?}");
        self.put_replies(device)
    }

    /// Puts all replies onto a device's card.
    pub fn put_replies(&self, device: &Device) -> Result<()> {
        for entry in self.out().read_dir()? {
            let entry = entry?;
            let certificates = device.path("/boot/firstboot/certificates");
            std::fs::copy(entry.path(), certificates.join(entry.file_name()))?;
        }
        Ok(())
    }
}

/// The program under test: `FIRSTBOOT_STATION`, or else the newest build in this checkout.
pub fn program() -> Result<PathBuf> {
    built("firstboot-station", "FIRSTBOOT_STATION")
}
