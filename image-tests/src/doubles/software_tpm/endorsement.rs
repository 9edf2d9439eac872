//! The endorsement keys of a software TPM, and their certificates, stored where a factory stores them.

use anyhow::{Context, Result};
use openssl::pkey::{PKey, Public};

use super::SoftwareTpm;

/// The endorsement keys that have certificates, by the templates L-2 and L-1 (TCG EK Credential Profile).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ek {
    P256,
    Rsa2048,
}

impl Ek {
    pub const BOTH: [Self; 2] = [Self::P256, Self::Rsa2048];

    /// Its name for `tpm2_createek -G`.
    pub fn algorithm(self) -> &'static str {
        match self {
            Self::P256 => "ecc",
            Self::Rsa2048 => "rsa",
        }
    }

    /// The NV index of its certificate (TCG EK Credential Profile 2.6, §2.2.1.4 and §2.2.1.5.2).
    pub fn index(self) -> &'static str {
        match self {
            Self::P256 => "0x01C0000A",
            Self::Rsa2048 => "0x01C00002",
        }
    }
}

/// Attributes of the NV index as the factory sets them: readable with the owner's authorization or the index's own,
/// writable by the platform alone.
const FACTORY: &str = "ppwrite|ppread|ownerread|authread|no_da|platformcreate";

impl SoftwareTpm {
    /// The public endorsement key. Leaves nothing in the TPM.
    pub fn endorsement_key(&self, ek: Ek) -> Result<PKey<Public>> {
        self.run(&[
            "tpm2_createek",
            "-G",
            ek.algorithm(),
            "-c",
            "ek.ctx",
            "-u",
            "ek.pem",
            "-f",
            "pem",
        ])?;
        self.flush()?;
        let pem = std::fs::read(self.file("ek.pem")).context("tpm2_createek wrote no key")?;
        Ok(PKey::public_key_from_pem(&pem)?)
    }

    /// Writes this, whatever it is, to the NV index of the endorsement key's certificate.
    pub fn set_ek_certificate(&self, ek: Ek, content: &[u8]) -> Result<()> {
        std::fs::write(self.file("ek.der"), content)?;
        let size = content.len().to_string();
        let index = ek.index();
        self.run(&[
            "tpm2_nvdefine",
            index,
            "-C",
            "p",
            "-s",
            &size,
            "-a",
            FACTORY,
        ])?;
        self.run(&["tpm2_nvwrite", index, "-C", "p", "-i", "ek.der"])?;
        Ok(())
    }

    /// Removes that NV index.
    pub fn remove_ek_certificate(&self, ek: Ek) -> Result<()> {
        self.run(&["tpm2_nvundefine", ek.index(), "-C", "p"])
            .map(drop)
    }

    /// A file in the working directory of [`SoftwareTpm::run`]'s tools.
    pub fn file(&self, name: &str) -> std::path::PathBuf {
        self.workspace.path().join(name)
    }
}
