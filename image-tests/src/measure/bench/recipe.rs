//! The peer: AWS's tutorial for Greengrass with a TPM, step by step, as people follow it today, with Debian's packages.
//!
//! Source: AWS IoT Greengrass developer guide, "Hardware security integration", and
//! docs/findings/greengrass.md, "The manual recipe": `tpm2_ptool init`, `addtoken`, `addkey`, list the URLs, a
//! request, the certificate. The request is made through pkcs11-provider, because the tutorial's libp11 engine does not
//! work with tpm2-pkcs11 on Debian 12 (docs/findings/tpm2-pkcs11.md, "Clients"). Not included: copying the URLs into
//! Greengrass's configuration, which firstboot does, too.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use tempfile::TempDir;

use super::meter::Reached;
use crate::clients::{Identity, KeyType, basic_environment, installed_module, openssl};
use crate::doubles::pki::Authority;

/// The tutorial's PIN.
const PIN: &str = "123456";

/// The recipe for one TPM, and its files.
pub struct Recipe {
    directory: TempDir,
    identity: Identity,
}

impl Recipe {
    pub fn new(key: KeyType) -> Result<Self> {
        let directory = tempfile::tempdir()?;
        let store = directory.path().join("store");
        fs::create_dir(&store)?;
        let pin_file = directory.path().join("pin");
        fs::write(&pin_file, PIN)?;
        let identity = Identity {
            module: installed_module()?,
            store,
            tcti: String::new(),
            token: "greengrass".to_owned(),
            label: "greenkey".to_owned(),
            key,
            pin_file,
            lock_directory: None,
            user: None,
            environment: Vec::new(),
        };
        let recipe = Self {
            directory,
            identity,
        };
        fs::write(
            recipe.file("openssl.cnf"),
            openssl::configuration(&recipe.identity)?,
        )?;
        Ok(recipe)
    }

    /// The directory of everything that it writes.
    pub fn root(&self) -> &Path {
        self.directory.path()
    }

    fn file(&self, name: &str) -> PathBuf {
        self.root().join(name)
    }

    /// The programs up to the request, in order.
    pub fn to_request(&self) -> Vec<Step> {
        let algorithm = match self.identity.key {
            KeyType::EccP256 => "ecc256",
            KeyType::Rsa2048 => "rsa2048",
        };
        let pin = format!("--userpin={PIN}");
        let algorithm = format!("--algorithm={algorithm}");
        vec![
            self.ptool(&["init"]),
            self.ptool(&[
                "addtoken",
                "--pid=1",
                "--label=greengrass",
                "--sopin=123456",
                &pin,
            ]),
            self.ptool(&[
                "addkey",
                "--label=greengrass",
                "--key-label=greenkey",
                &pin,
                &algorithm,
            ]),
            self.step("p11tool", |command| {
                command.arg("--provider").arg(&self.identity.module);
                command.args(["--batch", "--list-token-urls"]);
            }),
            self.step("p11tool", |command| {
                command.env("GNUTLS_PIN", PIN);
                command.arg("--provider").arg(&self.identity.module);
                command.args(["--batch", "--login", "--list-all"]);
                command.arg(format!("pkcs11:token={}", self.identity.token));
            }),
            self.step("openssl", |command| {
                command.env("OPENSSL_CONF", self.file("openssl.cnf"));
                command.args(["req", "-new", "-subj", "/CN=gateway", "-key"]);
                command.arg(self.identity.uri("private"));
                command.arg("-out").arg(self.file("request.pem"));
            }),
        ]
    }

    /// The operator's signature, which costs the device nothing.
    pub fn sign(&self, authority: &Authority) -> Result<()> {
        let certificate = authority.sign(&self.file("request.pem"))?;
        fs::write(self.file("certificate.pem"), certificate).context("the peer's certificate")
    }

    /// The programs that put the certificate into the token.
    pub fn to_certificate(&self) -> Vec<Step> {
        let certificate = self.file("certificate.pem").display().to_string();
        vec![self.ptool(&[
            "addcert",
            "--label=greengrass",
            "--key-label=greenkey",
            &certificate,
        ])]
    }

    fn ptool(&self, arguments: &[&str]) -> Step {
        self.step("tpm2_ptool", |command| {
            command.args(arguments);
            command.arg("--path").arg(&self.identity.store);
        })
    }

    fn step(&self, program: &str, complete: impl FnOnce(&mut Command)) -> Step {
        let mut command = Command::new(program);
        command.env_clear().envs(basic_environment());
        command.env("TPM2_PKCS11_STORE", &self.identity.store);
        complete(&mut command);
        Step(command)
    }
}

/// One of the recipe's programs.
pub struct Step(Command);

impl Step {
    /// The program's command for this TPM. tpm2_ptool starts a tpm2 tool for each command, and each opens /dev/tpmrm0;
    /// the library stays in one process.
    pub fn at(mut self, tpm: &Reached) -> Command {
        self.0.env("TPM2_PKCS11_TCTI", &tpm.by_one);
        self.0.env("TPM2TOOLS_TCTI", &tpm.by_each);
        self.0
    }
}
