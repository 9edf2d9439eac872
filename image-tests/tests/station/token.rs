//! The CA's key in a PKCS#11 token, with SoftHSM for a smart card or an HSM.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use image_tests::device::station::Station;
use image_tests::doubles::forged_request::ForgedRequest;
use image_tests::doubles::pki::p256;
use image_tests::process::{Finished, bounded, finish, succeed};
use openssl::asn1::Asn1Time;
use openssl::bn::BigNum;
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::{PKey, Private};
use openssl::rsa::Rsa;
use openssl::x509::extension::BasicConstraints;
use openssl::x509::{X509, X509Name};

use crate::exit;

/// Where Debian has the library, on any architecture.
fn module() -> Result<PathBuf> {
    let places = ["/usr/lib/softhsm/libsofthsm2.so"];
    let found = places.iter().map(PathBuf::from).find(|path| path.exists());
    found.context("no SoftHSM: image-tests/host-packages installs it")
}

/// A station whose CA key is in a token.
struct Hsm {
    station: Station,
    certificate: PathBuf,
    configuration: PathBuf,
}

impl Hsm {
    fn with(key: &PKey<Private>) -> Result<Self> {
        Self::labelled(key, "Operator CA")
    }

    fn labelled(key: &PKey<Private>, label: &str) -> Result<Self> {
        let station = Station::new()?;
        let [tokens, configuration, pkcs8, certificate] =
            ["tokens", "softhsm2.conf", "key.pkcs8", "ca.pem"].map(|name| station.path(name));
        fs::create_dir(&tokens)?;
        fs::write(
            &configuration,
            format!("directories.tokendir = {}\n", tokens.display()),
        )?;
        fs::write(&pkcs8, key.private_key_to_pem_pkcs8()?)?;
        fs::write(&certificate, authority(key)?.to_pem()?)?;
        let hsm = Self {
            station,
            certificate,
            configuration,
        };
        let pins = ["--pin", "1234", "--label", label];
        succeed(
            hsm.softhsm()
                .args(["--init-token", "--free", "--so-pin", "5678"])
                .args(pins),
        )?;
        succeed(
            hsm.softhsm()
                .args(["--token", label, "--pin", "1234", "--label", "signing"])
                .args(["--id", "0a", "--import"])
                .arg(&pkcs8),
        )?;
        fs::remove_file(pkcs8)?;
        Ok(hsm)
    }

    fn softhsm(&self) -> Command {
        let mut command = bounded("softhsm2-util");
        command.env("SOFTHSM2_CONF", &self.configuration);
        command
    }

    /// The key's URI, as p11tool prints it.
    fn listed(&self) -> Result<String> {
        let mut p11tool = bounded("p11tool");
        p11tool
            .env("SOFTHSM2_CONF", &self.configuration)
            .env("GNUTLS_PIN", "1234");
        p11tool.arg("--provider").arg(module()?);
        let arguments = ["--batch", "--login", "--only-urls", "--list-privkeys"];
        let urls = succeed(p11tool.args(arguments).arg("pkcs11:token=Operator%20CA"))?;
        let mut urls = urls.lines().filter(|line| line.starts_with("pkcs11:"));
        urls.next()
            .map(str::to_owned)
            .context("p11tool lists no key")
    }

    fn issue(&self, requests: &Path, key: &str, pin: &str) -> Result<Finished> {
        let pin_file = self.station.path("pin");
        fs::write(&pin_file, pin)?;
        let mut issue = self.station.command(&["issue", "--days", "30"])?;
        issue.arg(requests).arg("--ca").arg(&self.certificate);
        issue.args(["--key", key]).arg("--pin-file").arg(pin_file);
        issue.arg("--pkcs11-module").arg(module()?);
        issue
            .arg("--vendor-ca")
            .arg(self.station.manufacturer.certificates());
        issue.arg("--out").arg(self.station.out());
        finish(issue.env("SOFTHSM2_CONF", &self.configuration))
    }
}

fn authority(key: &PKey<Private>) -> Result<X509> {
    let mut name = X509Name::builder()?;
    name.append_entry_by_nid(Nid::COMMONNAME, "Operator in a token")?;
    let name = name.build();
    let mut builder = X509::builder()?;
    builder.set_version(2)?;
    builder.set_serial_number(BigNum::from_u32(1)?.to_asn1_integer()?.as_ref())?;
    builder.set_subject_name(&name)?;
    builder.set_issuer_name(&name)?;
    builder.set_pubkey(key)?;
    builder.set_not_before(Asn1Time::days_from_now(0)?.as_ref())?;
    builder.set_not_after(Asn1Time::days_from_now(100)?.as_ref())?;
    builder.append_extension(BasicConstraints::new().critical().ca().build()?)?;
    builder.sign(key, MessageDigest::sha256())?;
    Ok(builder.build())
}

#[test]
fn the_key_never_leaves_its_token() -> Result<()> {
    for key in [p256()?, PKey::from_rsa(Rsa::generate(2048)?)?] {
        let hsm = Hsm::with(&key)?;
        let requests = hsm.station.path("requests");
        let record = ForgedRequest::new("gw-1", &hsm.station.manufacturer)?.write(&requests)?;
        let token = "pkcs11:token=Operator%20CA";
        for (uri, pin, words) in [
            (format!("{token};object=nothing"), "1234", "0 private keys"),
            (
                "pkcs11:token=Other;object=signing".into(),
                "1234",
                "0 tokens",
            ),
            (format!("{token};object=signing"), "4321", "cannot log in"),
            (
                format!("{token};object=signing?pin-value=1234"),
                "1234",
                "--pin-file",
            ),
        ] {
            let done = hsm.issue(&requests, &uri, pin)?;
            assert_eq!(done.code, exit::SETTINGS, "{done:?}");
            assert!(done.stderr.contains(words), "no {words:?}: {done:?}");
        }
        for uri in [
            format!("{token};object=signing;type=private"),
            format!("{token};id=%0A"),
        ] {
            let done = hsm.issue(&requests, &uri, "1234\n")?;
            assert_eq!(done.code, exit::DONE, "{done:?}");
        }
        // The URI as p11tool prints it, and parts of it.
        let listed = hsm.listed()?;
        let done = hsm.issue(&requests, &listed, "1234")?;
        assert_eq!(done.code, exit::DONE, "{done:?}");
        for attribute in [
            "serial=0",
            "model=SoftHSM%20v3",
            "library-version=9.9",
            "slot-id=1",
        ] {
            let done = hsm.issue(&requests, &format!("pkcs11:{attribute};id=%0A"), "1234")?;
            assert_eq!(done.code, exit::SETTINGS, "{done:?}");
            assert!(
                done.stderr.contains("0 tokens") && done.stderr.contains("token=Operator"),
                "{done:?}"
            );
        }
        // The station verifies its own signatures; this is an independent check.
        let mut inspect = hsm.station.command(&["inspect"])?;
        inspect
            .arg(&record)
            .arg(hsm.station.out().join("gw-1.reply.json"));
        let shown = finish(&mut inspect)?;
        assert_eq!(shown.code, exit::DONE, "{shown:?}");
    }
    Ok(())
}

/// A name with the characters that separate a query's attributes, and that begin a query.
#[test]
fn a_token_with_an_odd_name_is_found() -> Result<()> {
    let hsm = Hsm::labelled(&p256()?, "R&D; CA?")?;
    let requests = hsm.station.path("requests");
    ForgedRequest::new("gw-1", &hsm.station.manufacturer)?.write(&requests)?;
    let module = module()?.display().to_string();
    for uri in [
        "pkcs11:token=R&D%3B%20CA%3F;id=%0A".to_owned(),
        format!("pkcs11:token=R&D%3B%20CA%3F;object=signing?module-path={module}&x-vendor=1"),
    ] {
        let done = hsm.issue(&requests, &uri, "1234")?;
        assert_eq!(done.code, exit::DONE, "{done:?}");
    }
    Ok(())
}
