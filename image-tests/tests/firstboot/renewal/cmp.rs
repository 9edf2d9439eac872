//! The configuration and commands of docs/renewal-cmp.md renew a device's certificate at OpenSSL's CMP server. Only
//! names, paths and addresses are changed to the test's.

use std::fs;
use std::path::PathBuf;

use ::openssl::asn1::Asn1Time;
use ::openssl::hash::MessageDigest;
use ::openssl::pkey::PKey;
use ::openssl::x509::extension::KeyUsage;
use ::openssl::x509::{X509, X509Builder};
use anyhow::{Context, Result, ensure};
use image_tests::clients::{
    KeyType, basic_environment, installed_module, installed_provider, openssl,
};
use image_tests::device::STORE;
use image_tests::doubles::cmp::CmpServer;
use image_tests::doubles::pki::{Authority, Pair, Validity};
use image_tests::doubles::tls::{TlsServer, Version};
use image_tests::process::{Finished, bounded, finish};

use super::Due;
use crate::thing_name;

const PAGE: &str = include_str!("../../../../docs/renewal-cmp.md");
const CONFIGURATION: &str = "/etc/cmp/renewal.cnf";
const RENEWED: &str = "/run/renewed.pem";

const ENVIRONMENT: &str = "export OPENSSL_CONF=";
const UPDATE: &str = "openssl cmp -cmd kur";
const REQUEST: &str = "openssl cmp -cmd p10cr -csr /boot/firstboot/requests/gateway-1.csr.pem";
const COPY: &str = "cp /run/renewed.pem /boot/firstboot/certificates/gateway-1.pem";
/// Both for a new key.
const NEXT_REQUEST: &str =
    "openssl cmp -cmd p10cr -csr /boot/firstboot/requests/gateway-1.next.csr.pem";
const NEXT_COPY: &str = "cp /run/renewed.pem /boot/firstboot/certificates/gateway-1.next.pem";
const WHETHER: &str = "openssl x509 -noout -checkend";

/// The page's only code block in this language with this start.
fn block(language: &str, start: &str) -> Result<&'static str> {
    let blocks = PAGE.split("```").skip(1).step_by(2);
    let mut found = blocks
        .filter_map(|block| block.strip_prefix(language)?.strip_prefix('\n'))
        .filter(|block| block.starts_with(start));
    let block = found.next().with_context(|| format!("no {start:?}"))?;
    ensure!(found.next().is_none(), "more than one {start:?}");
    Ok(block)
}

/// A device in service, whose first certificate is due for renewal, and the CA.
struct Renewal {
    due: Due,
    key: KeyType,
    old: String,
}

impl Renewal {
    /// With renewals of this key.
    fn new(key: KeyType, renewed: &str) -> Result<Self> {
        let due = Due::new("nucleus-lite", key, renewed)?;
        let ca = due.authority.certificate_pem()?;
        due.device.write("/etc/cmp/ca.pem", ca)?;
        due.device.succeed(&["renew"])?;
        let old = due.accepted()?;
        Ok(Self { due, key, old })
    }

    /// The CA's certificate for the request on the card.
    fn next(&self) -> Result<String> {
        let request = self.due.device.request()?;
        self.due.authority.sign_valid(&request, Validity::YOUNG)
    }

    /// A later certificate with the old one's serial number: OpenSSL 3.0's server answers updates with such.
    fn next_with_the_same_number(&self) -> Result<String> {
        let old = X509::from_pem(self.old.as_bytes())?;
        let key = PKey::private_key_from_pem(&fs::read(self.due.authority.key_path())?)?;
        let mut builder = X509Builder::new()?;
        builder.set_version(2)?;
        builder.set_serial_number(old.serial_number())?;
        builder.set_subject_name(old.subject_name())?;
        builder.set_issuer_name(old.issuer_name())?;
        builder.set_pubkey(&*old.public_key()?)?;
        builder.set_not_before(&*Asn1Time::from_str("20230101000000Z")?)?;
        builder.set_not_after(&*Asn1Time::from_str("20480101000000Z")?)?;
        builder.append_extension(KeyUsage::new().critical().digital_signature().build()?)?;
        builder.sign(&key, MessageDigest::sha256())?;
        Ok(String::from_utf8(builder.build().to_pem()?)?)
    }

    /// A text of the page, with the values of this device and its CA for those of the page's examples.
    fn adapted(&self, text: &str, server: &CmpServer) -> Result<String> {
        let path = |of_device: &str| self.due.device.path(of_device).display().to_string();
        let examples = [
            ("gateway-1", thing_name()),
            ("http://ca.example.com", server.url()),
            ("device:/dev/tpmrm0", self.due.device.tpm.tcti()),
            (
                "/usr/lib/ossl-modules/pkcs11.so",
                installed_provider()?.display().to_string(),
            ),
            (
                "/usr/lib/pkcs11/libtpm2_pkcs11.so",
                installed_module()?.display().to_string(),
            ),
            ("/etc/cmp", path("/etc/cmp")),
            ("/var/lib/tpm2_pkcs11", path("/var/lib/tpm2_pkcs11")),
            ("/boot/firstboot", path("/boot/firstboot")),
            (RENEWED, path(RENEWED)),
        ];
        let mut text = text.to_owned();
        for (example, ours) in examples {
            ensure!(PAGE.contains(example), "{example} is not in the page");
            text = text.replace(example, &ours);
        }
        Ok(text)
    }

    /// Runs these commands of the page in one shell.
    fn run(&self, server: &CmpServer, commands: &[&str]) -> Result<Finished> {
        let configuration = block("ini", "openssl_conf")?;
        let adapted = self.adapted(configuration, server)?;
        self.due.device.write(CONFIGURATION, adapted)?;
        let blocks = commands.iter().map(|start| block("sh", start));
        let script = blocks.collect::<Result<String>>()?;
        let mut shell = bounded("sh");
        shell.env_clear().envs(basic_environment());
        finish(shell.args(["-euc", &self.adapted(&script, server)?]))
    }

    /// The CA's own CMP server.
    fn server(&self, issues: &str) -> Result<CmpServer> {
        let authority = &self.due.authority;
        CmpServer::start(&authority.server()?, authority, issues)
    }

    /// nucleus lite's client presents this certificate to a TLS server, and not the other.
    fn shows(&self, this: &str, other: &str) -> Result<()> {
        let server = TlsServer::start(&self.due.authority, Version::Tls13)?;
        let device = &self.due.device;
        let identity = device.identity_of_greengrass(self.key)?;
        let certificate = device.lite_certificate()?;
        openssl::connect(&identity, &certificate, &device.openssl_conf()?, &server)?;
        assert!(server.authenticated(&thing_name()), "{}", server.log());
        assert!(server.was_shown(this)?);
        assert!(!server.was_shown(other)?);
        Ok(())
    }

    fn renewed(&self) -> PathBuf {
        self.due.device.path(RENEWED)
    }
}

#[track_caller]
fn assert_succeeded(finished: &Finished, server: &CmpServer) -> Result<()> {
    let log = server.log()?;
    assert_eq!(finished.code, 0, "{}\nserver: {log}", finished.stdout);
    // The CA knows that it has arrived (RFC 4210 §5.3.18).
    assert!(finished.stdout.contains("received PKICONF"), "{finished:?}");
    Ok(())
}

/// With firstboot's request, up to the TLS server.
fn a_request_renews(key: KeyType) -> Result<()> {
    let renewal = Renewal::new(key, "keep")?;
    let new = renewal.next()?;
    let number = |pem: &str| {
        Ok::<_, anyhow::Error>(X509::from_pem(pem.as_bytes())?.serial_number().to_bn()?)
    };
    assert_ne!(number(&renewal.old)?, number(&new)?);
    renewal.shows(&renewal.old, &new)?;

    let server = renewal.server(&new)?;
    // The certificate has 50 days left.
    let whether = renewal.run(&server, &[ENVIRONMENT, WHETHER])?;
    assert_eq!(whether.code, 0, "{whether:?}");
    let finished = renewal.run(&server, &[ENVIRONMENT, REQUEST, COPY])?;
    assert_succeeded(&finished, &server)?;
    // Before firstboot's next start nothing has changed.
    renewal.shows(&renewal.old, &new)?;

    assert!(!renewal.due.renew()?);
    renewal.shows(&new, &renewal.old)?;
    assert_eq!(renewal.due.device.tpm.lockout_counter()?, 0);
    Ok(())
}

/// With firstboot's request for the next key, which the present one vouches for, up to the TLS server.
fn a_request_for_a_new_key_renews(key: KeyType) -> Result<()> {
    let renewal = Renewal::new(key, "new")?;
    let due = &renewal.due;
    let key_in_service = due.key(STORE)?;
    let new = renewal.next()?;
    renewal.shows(&renewal.old, &new)?;

    let server = renewal.server(&new)?;
    let finished = renewal.run(&server, &[ENVIRONMENT, NEXT_REQUEST, NEXT_COPY])?;
    assert_succeeded(&finished, &server)?;
    due.device.succeed(&["renew"])?;
    // It is in service as soon as Greengrass has stopped for it.
    renewal.shows(&renewal.old, &new)?;
    assert!(due.renew()?);
    assert_ne!(due.key(STORE)?, key_in_service);
    renewal.shows(&new, &renewal.old)?;
    assert_eq!(due.result()?, "renewed");
    assert_eq!(due.device.tpm.lockout_counter()?, 0);
    Ok(())
}

/// The update names the certificate that it replaces, which OpenSSL's server checks.
fn an_update_brings_a_certificate(key: KeyType) -> Result<()> {
    let renewal = Renewal::new(key, "keep")?;
    let new = renewal.next_with_the_same_number()?;
    let server = renewal.server(&new)?;
    let finished = renewal.run(&server, &[ENVIRONMENT, UPDATE])?;
    assert_succeeded(&finished, &server)?;
    assert_eq!(fs::read_to_string(renewal.renewed())?, new);
    Ok(())
}

image_tests::for_both_keys! {
    a_request_renews: a_request_renews_with_ecc, a_request_renews_with_rsa;
    a_request_for_a_new_key_renews: a_request_for_a_new_ecc_key_renews, a_request_for_a_new_rsa_key_renews;
    an_update_brings_a_certificate: an_update_brings_a_certificate_with_ecc, an_update_brings_a_certificate_with_rsa;
}

/// Neither an answer from another CA, nor another CA's certificate in the CA's answer.
#[test]
fn nothing_from_a_stranger_is_kept() -> Result<()> {
    let renewal = Renewal::new(KeyType::EccP256, "keep")?;
    let stranger = Authority::new()?;
    let refuses = |signer: &Pair, issues: &str| -> Result<()> {
        let server = CmpServer::start(signer, &renewal.due.authority, issues)?;
        let finished = renewal.run(&server, &[ENVIRONMENT, REQUEST, COPY])?;
        assert_ne!(finished.code, 0, "{finished:?}");
        assert!(finished.stdout.contains("received CP"), "{finished:?}");
        assert!(!renewal.renewed().exists(), "{finished:?}");
        Ok(())
    };
    refuses(&stranger.server()?, &renewal.next()?)?;
    let theirs = stranger.sign_valid(&renewal.due.device.request()?, Validity::YOUNG)?;
    refuses(&renewal.due.authority.server()?, &theirs)?;
    renewal.shows(&renewal.old, &theirs)
}
