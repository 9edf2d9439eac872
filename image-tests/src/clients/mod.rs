//! Programs that use a device's identity, each with its own PKCS#11 stack: GnuTLS's p11tool, OpenSC's pkcs11-tool,
//! OpenSSL with pkcs11-provider, Java's SunPKCS11. All work with an [`Identity`], and with no default of the host. No
//! PIN is in an argument list.

pub mod aws_crt;
pub mod java;
pub mod mosquitto;
pub mod openssl;
pub mod p11tool;
pub mod pkcs11_tool;
pub mod wpa_supplicant;

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::process::bounded;

/// The types of key that a device can have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyType {
    EccP256,
    Rsa2048,
}

impl KeyType {
    pub const BOTH: [Self; 2] = [Self::EccP256, Self::Rsa2048];

    /// Its name in firstboot's settings.
    pub fn name(self) -> &'static str {
        match self {
            Self::EccP256 => "ecc-p256",
            Self::Rsa2048 => "rsa-2048",
        }
    }
}

/// The user that a client runs as, with no supplementary groups.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct User {
    pub uid: u32,
    pub gid: u32,
}

/// One key and certificate in a token, and how a client reaches them.
#[derive(Debug, Clone)]
pub struct Identity {
    pub module: PathBuf,
    pub store: PathBuf,
    pub tcti: String,
    pub token: String,
    pub label: String,
    pub key: KeyType,
    pub pin_file: PathBuf,
    /// Where the library locks for users who cannot write to the store.
    pub lock_directory: Option<PathBuf>,
    /// Who uses it; `None` for the user that runs the tests.
    pub user: Option<User>,
    /// Additional environment variables, such as LD_LIBRARY_PATH for another build of the library.
    pub environment: Vec<(String, String)>,
}

impl Identity {
    /// A program in this identity's environment, and nothing else.
    pub fn command(&self, program: &str) -> Command {
        let mut command = match self.user {
            None => bounded(program),
            Some(User { uid, gid }) => {
                let mut command = bounded("setpriv");
                command.arg(format!("--reuid={uid}"));
                command.arg(format!("--regid={gid}"));
                command.args(["--clear-groups", "--", program]);
                command
            }
        };
        command.env_clear().envs(basic_environment());
        command.env("TPM2_PKCS11_STORE", &self.store);
        command.env("TPM2_PKCS11_TCTI", &self.tcti);
        if let Some(directory) = &self.lock_directory {
            // tpm2-pkcs11 1.9.0, Debian 12's, uses only the first character of PKCS11_SQL_LOCK (1.9.1 fixes it), so an
            // absolute path means the root directory. A single character works in all versions.
            command.current_dir(directory).env("PKCS11_SQL_LOCK", ".");
        }
        let more = self.environment.iter().map(|(name, value)| (name, value));
        command.envs(more);
        command
    }

    pub fn pin(&self) -> Result<String> {
        let pin = std::fs::read_to_string(&self.pin_file)
            .with_context(|| format!("no PIN in {}", self.pin_file.display()))?;
        Ok(pin.trim_end().to_owned())
    }

    /// The URI of its private key (`private`), public key (`public`) or certificate (`cert`).
    pub fn uri(&self, kind: &str) -> String {
        format!(
            "pkcs11:token={};object={};type={kind}",
            self.token, self.label
        )
    }
}

/// Every program's environment: a search path, and messages in the language that this crate reads.
pub fn basic_environment() -> Vec<(&'static str, String)> {
    let path = std::env::var("PATH").unwrap_or_else(|_| "/usr/sbin:/usr/bin:/sbin:/bin".to_owned());
    vec![("PATH", path), ("LC_ALL", "C.UTF-8".to_owned())]
}

/// The environment variable that names another build of libtpm2_pkcs11 for firstboot and all clients.
pub const MODULE_VARIABLE: &str = "FIRSTBOOT_TEST_PKCS11_MODULE";

/// libtpm2_pkcs11: the one that [`MODULE_VARIABLE`] names, or else this host's. Debian's path has the architecture,
/// OpenEmbedded's does not.
pub fn installed_module() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os(MODULE_VARIABLE) {
        return Ok(path.into());
    }
    installed("pkcs11/libtpm2_pkcs11.so").context("libtpm2-pkcs11-1 is not installed")
}

/// This host's pkcs11-provider for OpenSSL.
pub fn installed_provider() -> Result<PathBuf> {
    installed("ossl-modules/pkcs11.so").context("pkcs11-provider is not installed")
}

fn installed(relative: &str) -> Result<PathBuf> {
    let libraries = Path::new("/usr/lib");
    let by_architecture = libraries
        .read_dir()?
        .filter_map(|entry| Some(entry.ok()?.path()));
    let found = std::iter::once(libraries.to_path_buf())
        .chain(by_architecture)
        .map(|directory| directory.join(relative))
        .find(|path| path.exists());
    match found {
        Some(path) => Ok(path),
        None => bail!("no {relative} below /usr/lib: image-tests/host-packages installs it"),
    }
}

/// Makes two tests of a function of the key type, so that a failure names the type.
#[macro_export]
macro_rules! for_both_keys {
    ($($scenario:ident: $ecc:ident, $rsa:ident;)*) => {$(
        #[test]
        fn $ecc() -> ::anyhow::Result<()> {
            $scenario($crate::clients::KeyType::EccP256)
        }
        #[test]
        fn $rsa() -> ::anyhow::Result<()> {
            $scenario($crate::clients::KeyType::Rsa2048)
        }
    )*};
}
