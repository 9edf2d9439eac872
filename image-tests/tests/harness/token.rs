//! A token made with pkcs11-tool, and its certificate, for the tests of `clients`. (tpm2_ptool needs a resource
//! manager, so it does not work on a bare software TPM.)

use std::fs::Permissions;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::PathBuf;

use anyhow::Result;
use image_tests::clients::{Identity, KeyType, User, installed_module, openssl};
use image_tests::doubles::pki::Authority;
use image_tests::doubles::software_tpm::SoftwareTpm;
use image_tests::process::succeed;
use tempfile::TempDir;

pub const THING: &str = "harness-0001";
pub const PIN: &str = "0123456789abcdef0123456789abcd";

pub struct Token {
    pub identity: Identity,
    pub authority: Authority,
    directory: TempDir,
    tpm: SoftwareTpm,
}

impl Token {
    pub fn new(key: KeyType) -> Result<Self> {
        let tpm = SoftwareTpm::start()?;
        let directory = tempfile::tempdir()?;
        std::fs::create_dir(directory.path().join("store"))?;
        std::fs::write(directory.path().join("pin"), PIN)?;
        let identity = Identity {
            module: installed_module()?,
            store: directory.path().join("store"),
            tcti: tpm.tcti(),
            token: "greengrass".to_owned(),
            label: "greenkey".to_owned(),
            key,
            pin_file: directory.path().join("pin"),
            lock_directory: None,
            user: None,
            environment: Vec::new(),
        };
        let token = Self {
            identity,
            authority: Authority::new()?,
            directory,
            tpm,
        };
        token.make()?;
        Ok(token)
    }

    fn make(&self) -> Result<()> {
        let key_type = match self.identity.key {
            KeyType::EccP256 => "EC:prime256v1",
            KeyType::Rsa2048 => "rsa:2048",
        };
        self.tpm.occupy_with_systemd_root_key()?;
        self.run("--init-token --slot-index 0 --label greengrass")?;
        self.run("--login --login-type so --init-pin --new-pin env:PIN")?;
        self.run(&format!(
            "--login --pin env:PIN --keypairgen --key-type {key_type} --id 01 --label greenkey"
        ))
    }

    /// Puts a certificate for the key into the token. OpenSSL makes the request, which also tests the provider.
    pub fn certify(&self) -> Result<()> {
        let request = self.directory.path().join("request.pem");
        let mut make = self.identity.command("openssl");
        make.env("OPENSSL_CONF", self.openssl_conf()?);
        make.args(["req", "-new", "-config", "/dev/null", "-subj"]);
        make.arg(format!("/CN={THING}"));
        make.args(["-key", &self.identity.uri("private"), "-out"]);
        succeed(make.arg(&request))?;
        openssl::verify_request(&request)?;

        let certificate = self.directory.path().join("certificate.pem");
        std::fs::write(&certificate, self.authority.sign(&request)?)?;
        self.run(&format!(
            "--login --pin env:PIN --write-object {} --type cert --id 01 --label greenkey",
            certificate.display()
        ))
    }

    pub fn openssl_conf(&self) -> Result<PathBuf> {
        let path = self.directory.path().join("openssl.cnf");
        std::fs::write(&path, openssl::configuration(&self.identity)?)?;
        Ok(path)
    }

    /// Gives a user read access to the store, as firstboot does for nucleus lite's daemons.
    pub fn hand_over(&mut self, user: User) -> Result<()> {
        let modes = [
            ("", 0o755),
            ("store", 0o750),
            ("store/tpm2_pkcs11.sqlite3", 0o440),
            ("pin", 0o440),
            ("openssl.cnf", 0o444),
        ];
        for (name, mode) in modes {
            let path = self.directory.path().join(name);
            chown(&path, Some(0), Some(user.gid))?;
            std::fs::set_permissions(&path, Permissions::from_mode(mode))?;
        }
        let lock = self.directory.path().join("lock");
        std::fs::create_dir(&lock)?;
        chown(&lock, Some(user.uid), Some(user.gid))?;
        self.identity.lock_directory = Some(lock);
        self.identity.user = Some(user);
        Ok(())
    }

    fn run(&self, arguments: &str) -> Result<()> {
        let mut command = self.identity.command("pkcs11-tool");
        command.env("SO_PIN", "discarded").env("PIN", PIN);
        command.arg("--module").arg(&self.identity.module);
        command.args(["--so-pin", "env:SO_PIN"]);
        succeed(command.args(arguments.split(' '))).map(drop)
    }
}
