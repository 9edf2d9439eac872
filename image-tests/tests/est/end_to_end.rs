//! From what is on the card to the edition's own client, which authenticates with the TPM's key.

use anyhow::{Context, Result};
use image_tests::clients::{KeyType, openssl, pkcs11_tool};
use image_tests::doubles::est::Options;
use image_tests::doubles::tls::{TlsServer, Version};

use crate::{CERTIFICATE, EST, Enrolling, Shows, exit, thing};

/// nucleus lite's client is accepted with the certificate, and a later start asks for nothing.
fn nucleus_lite(key: KeyType, version: Version, shows: Shows, options: Options) -> Result<()> {
    let what = format!("{key:?} {version:?} {shows:?} {options:?}");
    let enrolling = Enrolling::at(key, version, shows, options, "nucleus-lite")?;
    let device = &enrolling.device;
    assert_eq!(device.status()?["state"], "AwaitingCertificate");
    assert_eq!(
        device.status()?["enrollment"]["claim_on_boot_partition"],
        true
    );
    enrolling.ends_done().context(what)?;
    let status = device.status()?;
    assert_eq!(status["enrollment"]["claim_on_boot_partition"], false);
    assert_eq!(status["certificate"]["subject"], format!("CN={}", thing()));

    let chain = device.read(CERTIFICATE)?.matches("-----BEGIN").count();
    assert_eq!(chain, if options.intermediate { 3 } else { 2 });
    // A client shows the leaf alone, and this server knows no intermediate CA.
    if !options.intermediate {
        let server = TlsServer::start(&enrolling.authority, version)?;
        openssl::connect(
            &device.identity_of_greengrass(key)?,
            &device.lite_certificate()?,
            &device.openssl_conf()?,
            &server,
        )?;
        assert!(server.authenticated(&thing()), "{}", server.log());
    }

    let before = enrolling.server.counts();
    assert_eq!((before.enrolls, before.reenrolls, before.issued), (1, 0, 1));
    enrolling.ends_done()?;
    assert_eq!(enrolling.server.counts(), before);
    Ok(())
}

fn with_each_version(key: KeyType) -> Result<()> {
    for version in Version::BOTH {
        for shows in [Shows::Password, Shows::Pair] {
            nucleus_lite(key, version, shows, Options::default())?;
        }
    }
    Ok(())
}

image_tests::for_both_keys! {
    with_each_version: with_each_version_and_ecc, with_each_version_and_rsa;
}

/// Whatever a server may choose of the protocol.
#[test]
fn each_way_to_answer() -> Result<()> {
    for (intermediate, closes, chunked, label) in [
        (true, false, false, None),
        (false, true, true, Some("gateways")),
        (true, true, false, Some("a.b~c_d-1")),
        (false, false, true, None),
    ] {
        let options = Options {
            label,
            intermediate,
            closes,
            chunked,
            ..Options::default()
        };
        let (key, version) = (KeyType::EccP256, Version::Tls13);
        nucleus_lite(key, version, Shows::Password, options)?;
    }
    Ok(())
}

/// The nucleus has its certificate in the token: the leaf under the key's label.
#[test]
fn the_nucleus_finds_it_in_the_token() -> Result<()> {
    let options = Options {
        intermediate: true,
        ..Options::default()
    };
    let (key, version) = (KeyType::EccP256, Version::Tls12);
    let enrolling = Enrolling::at(key, version, Shows::Password, options, "nucleus")?;
    enrolling.ends_done()?;
    let certificate = tempfile::NamedTempFile::new()?;
    pkcs11_tool::read_certificate(&enrolling.device.identity(key)?, certificate.path())?;
    let found = openssl_x509(certificate.path())?;
    assert_eq!(found, enrolling.server.issued()[0]);
    Ok(())
}

fn openssl_x509(path: &std::path::Path) -> Result<String> {
    let content = std::fs::read(path)?;
    let certificate = ::openssl::x509::X509::from_der(&content)
        .or_else(|_| ::openssl::x509::X509::from_pem(&content))?;
    Ok(String::from_utf8(certificate.to_pem()?)?)
}

/// A password and a pair may lie there together: both are shown, and both are removed.
#[test]
fn a_password_and_a_pair() -> Result<()> {
    let enrolling = Enrolling::new()?;
    enrolling.put_claim(Shows::Pair)?;
    enrolling.ends_done()
}

/// The request on the wire is the one on the boot partition, to the last bit.
#[test]
fn the_request_is_the_published_one() -> Result<()> {
    let enrolling = Enrolling::new()?;
    enrolling.ends_done()?;
    let published = std::fs::read_to_string(enrolling.device.request()?)?;
    let digits: Vec<&str> = published.lines().filter(|l| !l.starts_with('-')).collect();
    let sent = enrolling.server.requests();
    let sent: Vec<&str> = str::from_utf8(&sent[0])?.lines().collect();
    assert_eq!(sent, digits);
    Ok(())
}

/// On an unprovisioned device, `enroll` provisions first.
#[test]
fn enroll_alone_does_everything() -> Result<()> {
    let enrolling = Enrolling::new()?;
    enrolling.device.succeed(&["reset"])?;
    let outcome = enrolling.enroll()?;
    assert_eq!(outcome.code, exit::DONE, "{}", outcome.stderr);
    enrolling.ends_done()
}

/// A damaged certificate file: what was received is still there. Without that, the operator puts the password onto the
/// card again.
#[test]
fn a_damaged_certificate_is_taken_again_or_asked_for_again() -> Result<()> {
    let enrolling = Enrolling::new()?;
    enrolling.ends_done()?;
    enrolling.device.write(CERTIFICATE, "hello")?;
    enrolling.ends_done()?;
    enrolling.assert_issued(1);
    enrolling.device.write(CERTIFICATE, "hello")?;
    enrolling.device.remove(EST)?;
    let outcome = enrolling.enroll()?;
    assert_eq!(outcome.code, exit::WAITING, "{}", outcome.stderr);
    assert!(
        outcome.stderr.contains("claim.password"),
        "{}",
        outcome.stderr
    );
    enrolling.put_claim(Shows::Password)?;
    enrolling.ends_done()?;
    enrolling.assert_issued(2);
    Ok(())
}
