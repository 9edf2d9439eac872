//! The operator's certificate authority: P-256, made for the test, run with the openssl command. Signs what
//! a device requests, well or in one of the ways that a device has to refuse. Used by tests, `tls`, the demo.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use tempfile::TempDir;

use crate::directory::readable_directory;
use crate::process::{bounded, succeed};

/// One configuration for every openssl command here, so that the machine's own has no say.
const CONFIGURATION: &str = "\
[ca]
default_ca = operator
[operator]
database = index
new_certs_dir = .
rand_serial = yes
default_md = sha256
policy = any_subject
[any_subject]
commonName = supplied
[req]
distinguished_name = subject
[subject]
[authority]
basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
[client]
basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature
extendedKeyUsage = clientAuth
[server]
basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature
extendedKeyUsage = serverAuth
subjectAltName = DNS:localhost, DNS:broker.test, DNS:*.iot.eu-central-1.amazonaws.com, IP:127.0.0.1
[elsewhere]
basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature
extendedKeyUsage = serverAuth
subjectAltName = DNS:elsewhere.example
";

/// When a certificate is valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Validity {
    Now,
    /// Since later than `Now`'s beginning.
    Recent,
    Expired,
    NotYet,
}

impl Validity {
    fn arguments(self) -> &'static [&'static str] {
        match self {
            // Since long ago, as a device without a clock may believe in an old date.
            Self::Now => &["-startdate", "20200101000000Z", "-days", "3650"],
            Self::Recent => &["-startdate", "20230101000000Z", "-days", "3650"],
            Self::Expired => &[
                "-startdate",
                "20200101000000Z",
                "-enddate",
                "20210101000000Z",
            ],
            Self::NotYet => &[
                "-startdate",
                "20700101000000Z",
                "-enddate",
                "20710101000000Z",
            ],
        }
    }
}

/// A certificate and its key as PEM files, for as long as the authority lives.
#[derive(Debug, Clone)]
pub struct Pair {
    pub certificate: PathBuf,
    pub key: PathBuf,
}

#[derive(Debug)]
pub struct Authority {
    directory: TempDir,
}

impl Authority {
    pub fn new() -> Result<Self> {
        let directory = readable_directory("authority-")?;
        fs::write(directory.path().join("openssl.cnf"), CONFIGURATION)?;
        let authority = Self { directory };
        let root = authority.root();
        authority.make_key(&root.key)?;
        succeed(
            authority
                .openssl("req")
                .args(["-new", "-x509", "-days", "3650", "-extensions", "authority"])
                .args(["-subj", "/CN=Operator Root CA", "-key"])
                .arg(&root.key)
                .arg("-out")
                .arg(&root.certificate),
        )?;
        // Clients of other users trust it, whatever the umask of the tests.
        fs::set_permissions(&root.certificate, Permissions::from_mode(0o644))?;
        Ok(authority)
    }

    /// Signs a device's request: the certificate, PEM.
    pub fn sign(&self, request: &Path) -> Result<String> {
        self.sign_valid(request, Validity::Now)
    }

    pub fn sign_valid(&self, request: &Path, validity: Validity) -> Result<String> {
        self.issue(&self.root(), request, "client", validity)
    }

    /// Signs by an intermediate authority: the leaf, then the intermediate, PEM.
    pub fn sign_by_intermediate(&self, request: &Path) -> Result<String> {
        let (intermediate, certificate) = self.new_pair("Operator Issuing CA", "authority")?;
        let leaf = self.issue(&intermediate, request, "client", Validity::Now)?;
        Ok(leaf + &certificate)
    }

    /// A certificate with the right name and the wrong key, PEM.
    pub fn certificate_of_another_key(&self, common_name: &str) -> Result<String> {
        let (_, certificate) = self.new_pair(common_name, "client")?;
        Ok(certificate)
    }

    /// A server's certificate for localhost, and for the names that the guest's /etc/hosts has for its broker.
    pub fn server(&self) -> Result<Pair> {
        Ok(self.new_pair("localhost", "server")?.0)
    }

    /// A server's certificate for another name.
    pub fn server_elsewhere(&self) -> Result<Pair> {
        Ok(self.new_pair("elsewhere.example", "elsewhere")?.0)
    }

    /// A server's certificate for localhost, out of its time.
    pub fn server_valid(&self, validity: Validity) -> Result<Pair> {
        Ok(self.new_valid_pair("localhost", "server", validity)?.0)
    }

    /// A claim certificate and its key, as fleet provisioning takes them.
    pub fn claim(&self) -> Result<Pair> {
        Ok(self.new_pair("claim", "client")?.0)
    }

    pub fn certificate_path(&self) -> PathBuf {
        self.root().certificate
    }

    /// Its key, PEM.
    pub fn key_path(&self) -> PathBuf {
        self.root().key
    }

    pub fn certificate_pem(&self) -> Result<String> {
        Ok(fs::read_to_string(self.certificate_path())?)
    }

    fn root(&self) -> Pair {
        pair_in(self.directory.path())
    }

    /// A new key and its certificate, signed by the root; also as text.
    fn new_pair(&self, common_name: &str, extensions: &str) -> Result<(Pair, String)> {
        self.new_valid_pair(common_name, extensions, Validity::Now)
    }

    fn new_valid_pair(
        &self,
        common_name: &str,
        extensions: &str,
        validity: Validity,
    ) -> Result<(Pair, String)> {
        let directory = self.fresh_directory()?;
        let pair = pair_in(&directory);
        let request = directory.join("request.pem");
        self.make_key(&pair.key)?;
        succeed(
            self.openssl("req")
                .args(["-new", "-subj", &format!("/CN={common_name}"), "-key"])
                .arg(&pair.key)
                .arg("-out")
                .arg(&request),
        )?;
        let pem = self.issue(&self.root(), &request, extensions, validity)?;
        fs::write(&pair.certificate, &pem)?;
        Ok((pair, pem))
    }

    fn make_key(&self, path: &Path) -> Result<()> {
        let mut command = self.openssl("genpkey");
        command.args([
            "-algorithm",
            "EC",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-out",
        ]);
        succeed(command.arg(path)).map(drop)
    }

    fn issue(&self, issuer: &Pair, request: &Path, kind: &str, when: Validity) -> Result<String> {
        // `openssl ca` keeps a register in its directory, and wants it to itself.
        let register = self.fresh_directory()?;
        fs::write(register.join("index"), "")?;
        let request = std::path::absolute(request)?;
        let mut command = self.openssl("ca");
        command
            .current_dir(register)
            .args(["-batch", "-notext", "-preserveDN", "-extensions", kind])
            .args(when.arguments());
        command.arg("-cert").arg(&issuer.certificate);
        command.arg("-keyfile").arg(&issuer.key);
        command.arg("-in").arg(request);
        succeed(&mut command).context("the authority cannot sign this request")
    }

    fn fresh_directory(&self) -> Result<PathBuf> {
        Ok(tempfile::tempdir_in(self.directory.path())?.keep())
    }

    fn openssl(&self, subcommand: &str) -> Command {
        let mut command = bounded("openssl");
        command.arg(subcommand).env(
            "OPENSSL_CONF",
            self.directory.path().join("openssl.cnf").as_os_str(),
        );
        command
    }
}

fn pair_in(directory: &Path) -> Pair {
    Pair {
        certificate: directory.join("certificate.pem"),
        key: directory.join("key.pem"),
    }
}
