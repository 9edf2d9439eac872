//! Which certificates replace an accepted one, and which issuers `enrollment.issuers` allows.

use anyhow::{Context, Result};
use image_tests::device::Device;
use image_tests::doubles::pki::{Authority, Validity};
use openssl::asn1::{Asn1Integer, Asn1Time};
use openssl::bn::BigNum;
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::{PKey, Private};
use openssl::x509::extension::BasicConstraints;
use openssl::x509::{X509, X509Builder, X509Name, X509Req};
use serde_json::json;

use crate::{assert_ends, exit, thing_name, usual};

const KEPT: &str = "/var/lib/tpm2_pkcs11/certificate.pem";

/// A device with its request, and an operator's CA.
fn requested() -> Result<(Device, Authority)> {
    let device = usual()?;
    device.succeed(&["provision"])?;
    Ok((device, Authority::new()?))
}

/// The device accepts this, and keeps only it.
#[track_caller]
fn accepts(device: &Device, pem: &str) -> Result<()> {
    device.drop_certificate(pem)?;
    assert_ends(&device.run(&["enroll"])?, exit::DONE, "");
    assert_eq!(device.read(KEPT)?, pem);
    Ok(())
}

/// The device refuses this with these words, and keeps the accepted one.
#[track_caller]
fn refuses(device: &Device, content: &[u8], words: &str) -> Result<()> {
    let before = device.snapshot()?.without("/boot");
    let path = format!("/boot/firstboot/certificates/{}.pem", thing_name());
    device.write(path, content)?;
    let outcome = device.run(&["enroll"])?;
    assert_ends(&outcome, exit::DONE, "a new certificate is refused");
    assert!(outcome.stderr.contains(words), "no {words:?}: {outcome:?}");
    before.assert_same(&device.snapshot()?.without("/boot"));
    Ok(())
}

/// Damage on the card: single bits all over the certificate.
#[test]
fn a_damaged_copy_never_replaces_the_certificate() -> Result<()> {
    let (device, authority) = requested()?;
    let pem = authority.sign(&device.request()?)?;
    accepts(&device, &pem)?;
    let der = X509::from_pem(pem.as_bytes())?.to_der()?;
    for at in (1..der.len()).step_by(9) {
        let mut damaged = der.clone();
        damaged[at] ^= 0x04;
        refuses(&device, &damaged, "")?;
    }
    // In the signature's last octet, and in the end of the validity.
    let mut damaged = der.clone();
    *damaged.last_mut().context("empty")? ^= 1;
    refuses(
        &device,
        &damaged,
        "a damaged copy of the accepted certificate",
    )?;
    accepts(&device, &pem)
}

/// If the issuer's certificate is there, a forgery is found, too.
#[test]
fn the_issuers_certificate_reveals_a_forgery() -> Result<()> {
    let (device, authority) = requested()?;
    let ca = authority.certificate_pem()?;
    let chain = authority.sign(&device.request()?)? + &ca;
    accepts(&device, &chain)?;
    let mut der = X509::from_pem(authority.sign(&device.request()?)?.as_bytes())?.to_der()?;
    *der.last_mut().context("empty")? ^= 1;
    refuses(&device, &der, "did not sign it")?;
    // The accepted one without its issuer is not better than with it.
    let leaf = &chain[..chain.rfind("-----BEGIN").context("no chain")?];
    refuses(&device, leaf.as_bytes(), "with fewer of its issuers")?;
    accepts(&device, &(authority.sign(&device.request()?)? + &ca))
}

#[test]
fn an_older_one_is_refused_while_the_accepted_one_is_good() -> Result<()> {
    let (device, authority) = requested()?;
    let old = authority.sign(&device.request()?)?;
    let new = authority.sign_valid(&device.request()?, Validity::Recent)?;
    accepts(&device, &new)?;
    refuses(
        &device,
        old.as_bytes(),
        "it is older (valid from 2020-01-01T00:00:00Z)",
    )?;

    // For another name the accepted one is no longer good, and its successor may be older.
    let mut settings: serde_json::Value =
        serde_json::from_str(&device.read("/boot/firstboot/firstboot.json")?)?;
    settings["thing_name"] = json!("renamed");
    device.settings(&settings)?;
    device.succeed(&["provision"])?;
    let pem = authority.sign(&device.boot_file("requests/renamed.csr.pem"))?;
    device.write("/boot/firstboot/certificates/renamed.pem", &pem)?;
    device.succeed(&["enroll"])?;
    assert_eq!(device.read(KEPT)?, pem);
    Ok(())
}

#[test]
fn the_issuers_certificate_may_come_later() -> Result<()> {
    let (device, authority) = requested()?;
    let leaf = authority.sign(&device.request()?)?;
    accepts(&device, &leaf)?;
    accepts(&device, &(leaf + &authority.certificate_pem()?))
}

/// Of duplicates and a second certificate of the same CA, one path is chosen.
#[test]
fn one_path_of_a_bundle_is_chosen() -> Result<()> {
    let (device, authority) = requested()?;
    let chain = authority.sign_by_intermediate(&device.request()?)?;
    let root = authority.certificate_pem()?;
    device.drop_certificate(&format!("{root}{chain}{chain}{root}"))?;
    device.succeed(&["enroll"])?;
    assert_eq!(device.read(KEPT)?, format!("{chain}{root}"));
    Ok(())
}

/// The image names the CA: a plain certificate has to lead to it.
#[test]
fn only_named_issuers_count_for_a_plain_certificate_too() -> Result<()> {
    let (device, authority) = requested()?;
    let ca = X509::from_pem(authority.certificate_pem()?.as_bytes())?;
    let digest = ca.digest(MessageDigest::sha256())?;
    let fingerprint: String = digest.iter().map(|b| format!("{b:02x}")).collect();
    let mut image: serde_json::Value =
        serde_json::from_str(&device.read("/usr/lib/firstboot/firstboot.json")?)?;
    image["enrollment"] = json!({ "issuers": [fingerprint] });
    device.write("/usr/lib/firstboot/firstboot.json", image.to_string())?;
    let request = device.request()?;
    let refuses = |pem: &str, words: &str| -> Result<()> {
        device.drop_certificate(pem)?;
        let outcome = device.run(&["enroll"])?;
        assert_ends(&outcome, exit::WAITING, words);
        Ok(())
    };

    let stranger = Authority::new()?;
    let theirs = stranger.sign(&request)?;
    refuses(&theirs, "CA in the setting enrollment.issuers")?;
    refuses(
        &(theirs.clone() + &stranger.certificate_pem()?),
        "CA in the setting enrollment.issuers",
    )?;
    // The CA's certificate is public: next to a stranger's certificate it proves nothing.
    refuses(
        &(theirs + &authority.certificate_pem()?),
        "CA in the setting enrollment.issuers",
    )?;
    // Another device of the same CA is not a CA.
    let (neighbour, key) = neighbour(&authority)?;
    let forged = issued_by(&neighbour, &key, &std::fs::read(&request)?)?;
    let between = String::from_utf8(neighbour.to_pem()?)?;
    refuses(
        &(forged + &between + &authority.certificate_pem()?),
        "CA in the setting enrollment.issuers",
    )?;

    let leaf = authority.sign(&request)?;
    refuses(&leaf, "add the CA's certificate to the file")?;
    accepts(&device, &(leaf + &authority.certificate_pem()?))
}

/// A device certificate by this CA, and its key.
fn neighbour(authority: &Authority) -> Result<(X509, PKey<Private>)> {
    let curve = openssl::ec::EcGroup::from_curve_name(Nid::X9_62_PRIME256V1)?;
    let key = PKey::from_ec_key(openssl::ec::EcKey::generate(&curve)?)?;
    let mut name = X509Name::builder()?;
    name.append_entry_by_nid(Nid::COMMONNAME, "gateway-2")?;
    let mut request = X509Req::builder()?;
    request.set_subject_name(&name.build())?;
    request.set_pubkey(&key)?;
    request.sign(&key, MessageDigest::sha256())?;
    let file = tempfile::NamedTempFile::new()?;
    std::fs::write(file.path(), request.build().to_pem()?)?;
    let certificate = X509::from_pem(authority.sign(file.path())?.as_bytes())?;
    Ok((certificate, key))
}

fn issued_by(issuer: &X509, key: &PKey<Private>, request: &[u8]) -> Result<String> {
    let request = X509Req::from_pem(request)?;
    let mut builder = X509Builder::new()?;
    builder.set_version(2)?;
    builder.set_serial_number(&*Asn1Integer::from_bn(&*BigNum::from_u32(7)?)?)?;
    builder.set_subject_name(request.subject_name())?;
    builder.set_issuer_name(issuer.subject_name())?;
    builder.set_pubkey(&*request.public_key()?)?;
    builder.set_not_before(&*Asn1Time::from_str("20200101000000Z")?)?;
    builder.set_not_after(&*Asn1Time::from_str("20480101000000Z")?)?;
    builder.append_extension(BasicConstraints::new().critical().build()?)?;
    builder.sign(key, MessageDigest::sha256())?;
    Ok(String::from_utf8(builder.build().to_pem()?)?)
}
