//! The operator's certificate authority, P-256. It signs what a device requests, correctly or in one of the ways that a
//! device has to refuse.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use openssl::nid::Nid;
use openssl::pkey::{HasPublic, PKey, PKeyRef, Private};
use openssl::x509::extension::{ExtendedKeyUsage, SubjectAlternativeName};
use openssl::x509::{X509, X509Builder, X509Name, X509NameRef, X509Req};
use tempfile::TempDir;

use super::{Issuer, Validity, named, p256};
use crate::directory::readable_directory;

/// A certificate and its key in PEM files, which go when the authority is dropped.
#[derive(Debug, Clone)]
pub struct Pair {
    pub certificate: PathBuf,
    pub key: PathBuf,
}

/// What a certificate is for.
#[derive(Clone, Copy)]
enum Purpose {
    Client,
    /// A server at localhost, and under the broker's names in the guest's /etc/hosts.
    Server,
    /// A server with another name.
    Elsewhere,
}

#[derive(Debug)]
pub struct Authority {
    issuer: Issuer,
    directory: TempDir,
}

impl Authority {
    pub fn new() -> Result<Self> {
        let authority = Self {
            issuer: Issuer::root(&*named("Operator Root CA")?, p256()?, None)?,
            directory: readable_directory("authority-")?,
        };
        let Issuer { certificate, key } = &authority.issuer;
        write_pair(&authority.root(), certificate, key)?;
        Ok(authority)
    }

    /// The certificate for a device's request, PEM.
    pub fn sign(&self, request: &Path) -> Result<String> {
        self.sign_valid(request, Validity::Now)
    }

    pub fn sign_valid(&self, request: &Path, validity: Validity) -> Result<String> {
        sign_request(&self.issuer, request, validity)
    }

    /// The same by an intermediate CA: the leaf, then the intermediate, PEM.
    pub fn sign_by_intermediate(&self, request: &Path) -> Result<String> {
        let name = "Operator Issuing CA";
        let intermediate = self.issuer.below(name, Validity::Now, None, true)?;
        let leaf = sign_request(&intermediate, request, Validity::Now)?;
        Ok(leaf + &pem(&intermediate.certificate)?)
    }

    /// A CA that issues for this one: itself, or one below it.
    pub fn issuing(&self, intermediate: bool) -> Result<Issuing> {
        let below = |ca: &Issuer| ca.below("Operator Issuing CA", Validity::Now, None, true);
        Ok(Issuing(match intermediate {
            true => below(&self.issuer)?,
            false => self.issuer.clone(),
        }))
    }

    /// A certificate with this name for another key, PEM.
    pub fn certificate_of_another_key(&self, common_name: &str) -> Result<String> {
        let pair = self.new_pair(common_name, Purpose::Client, Validity::Now)?;
        Ok(fs::read_to_string(pair.certificate)?)
    }

    /// A server certificate for localhost and the guest's broker.
    pub fn server(&self) -> Result<Pair> {
        self.server_valid(Validity::Now)
    }

    /// A server certificate for another name.
    pub fn server_elsewhere(&self) -> Result<Pair> {
        self.new_pair("elsewhere.example", Purpose::Elsewhere, Validity::Now)
    }

    /// A server certificate for localhost with this validity.
    pub fn server_valid(&self, validity: Validity) -> Result<Pair> {
        self.new_pair("localhost", Purpose::Server, validity)
    }

    /// A claim certificate and its key, for fleet provisioning.
    pub fn claim(&self) -> Result<Pair> {
        self.new_pair("claim", Purpose::Client, Validity::Now)
    }

    pub fn certificate_path(&self) -> PathBuf {
        self.root().certificate
    }

    /// The PEM file of its key.
    pub fn key_path(&self) -> PathBuf {
        self.root().key
    }

    pub fn certificate_pem(&self) -> Result<String> {
        pem(&self.issuer.certificate)
    }

    fn root(&self) -> Pair {
        pair_in(self.directory.path())
    }

    /// A new key and its certificate.
    fn new_pair(&self, common_name: &str, purpose: Purpose, validity: Validity) -> Result<Pair> {
        let key = p256()?;
        let name = named(common_name)?;
        let certificate = self.issuer.certify(&name, &key, validity, |builder| {
            extend_for(builder, purpose, &self.issuer)
        })?;
        let pair = pair_in(&tempfile::tempdir_in(self.directory.path())?.keep());
        write_pair(&pair, &certificate, &key)?;
        Ok(pair)
    }
}

/// A CA that issues what is requested, or something else.
#[derive(Clone, Debug)]
pub struct Issuing(Issuer);

impl Issuing {
    /// The certificate for a request.
    pub fn issue(&self, request: &X509Req, validity: Validity) -> Result<X509> {
        let key = request.public_key()?;
        self.certify(request.subject_name(), &key, validity)
    }

    /// The certificate for a request, with an organization and an alternative name that nobody asked for.
    pub fn issue_renamed(&self, request: &X509Req, validity: Validity) -> Result<X509> {
        let mut name = X509Name::builder()?;
        name.append_entry_by_text("O", "Operator")?;
        let names = request.subject_name();
        let common_name = names.entries_by_nid(Nid::COMMONNAME).next();
        let common_name = common_name.context("no common name")?.data();
        name.append_entry_by_nid(Nid::COMMONNAME, &common_name.to_string()?)?;
        let issuer = &self.0;
        let key = request.public_key()?;
        let subject = name.build();
        issuer.certify(&subject, &*key, validity, |builder| {
            extend_for(builder, Purpose::Client, issuer)?;
            let names = SubjectAlternativeName::new()
                .dns("gateway.example")
                .build(&builder.x509v3_context(None, None))?;
            Ok(builder.append_extension(names)?)
        })
    }

    /// A certificate for the request's key under another name.
    pub fn issue_for_another_name(&self, request: &X509Req, name: &str) -> Result<X509> {
        let key = request.public_key()?;
        self.certify(&*named(name)?, &key, Validity::Now)
    }

    /// A certificate for the request's name and another key.
    pub fn issue_for_another_key(&self, request: &X509Req) -> Result<X509> {
        self.certify(request.subject_name(), &*p256()?, Validity::Now)
    }

    /// Its own certificate.
    pub fn certificate(&self) -> &X509 {
        &self.0.certificate
    }

    fn certify<K: HasPublic>(
        &self,
        subject: &X509NameRef,
        key: &PKeyRef<K>,
        validity: Validity,
    ) -> Result<X509> {
        let issuer = &self.0;
        issuer.certify(subject, key, validity, |builder| {
            extend_for(builder, Purpose::Client, issuer)
        })
    }
}

fn extend_for(builder: &mut X509Builder, purpose: Purpose, issuer: &Issuer) -> Result<()> {
    issuer.extend_leaf(builder)?;
    let mut names = SubjectAlternativeName::new();
    match purpose {
        Purpose::Client => {
            builder.append_extension(ExtendedKeyUsage::new().client_auth().build()?)?;
            return Ok(());
        }
        Purpose::Server => names
            .dns("localhost")
            .dns("broker.test")
            .dns("*.iot.eu-central-1.amazonaws.com")
            .ip("127.0.0.1"),
        Purpose::Elsewhere => names.dns("elsewhere.example"),
    };
    builder.append_extension(ExtendedKeyUsage::new().server_auth().build()?)?;
    let names = names.build(&builder.x509v3_context(None, None))?;
    Ok(builder.append_extension(names)?)
}

/// Signs a request, with its subject and its key as they are.
fn sign_request(issuer: &Issuer, request: &Path, validity: Validity) -> Result<String> {
    let why = || format!("the authority cannot sign {}", request.display());
    let request = X509Req::from_pem(&fs::read(request).with_context(why)?).with_context(why)?;
    let key = request.public_key().with_context(why)?;
    ensure!(
        request.verify(&key).with_context(why)?,
        "the request's signature is wrong"
    );
    let subject = request.subject_name();
    ensure!(
        subject.entries_by_nid(Nid::COMMONNAME).next().is_some(),
        "the request has no common name"
    );
    pem(&Issuing(issuer.clone()).issue(&request, validity)?)
}

fn pem(certificate: &X509) -> Result<String> {
    Ok(String::from_utf8(certificate.to_pem()?)?)
}

fn pair_in(directory: &Path) -> Pair {
    Pair {
        certificate: directory.join("certificate.pem"),
        key: directory.join("key.pem"),
    }
}

fn write_pair(pair: &Pair, certificate: &X509, key: &PKey<Private>) -> Result<()> {
    fs::write(&pair.certificate, certificate.to_pem()?)?;
    // Clients that run as other users have to read it, whatever this process's umask.
    fs::set_permissions(&pair.certificate, Permissions::from_mode(0o644))?;
    fs::write(&pair.key, key.private_key_to_pem_pkcs8()?)?;
    fs::set_permissions(&pair.key, Permissions::from_mode(0o600))?;
    Ok(())
}
