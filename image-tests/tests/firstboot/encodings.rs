//! Certificates that are not strictly DER, or whose name is in an old string type: OpenSSL verifies them, and they
//! reach the token byte for byte.

use anyhow::{Context, Result};
use image_tests::device::Device;
use image_tests::doubles::pki::Authority;
use openssl::asn1::{Asn1Integer, Asn1Time, Asn1Type};
use openssl::bn::BigNum;
use openssl::hash::MessageDigest;
use openssl::pkey::{PKey, Private};
use openssl::sign::Signer;
use openssl::x509::extension::BasicConstraints;
use openssl::x509::{X509, X509Builder, X509Name, X509Req};

use crate::{assert_ends, exit, thing_name, usual};

const KEPT: &str = "/var/lib/tpm2_pkcs11/certificate.pem";

struct Issuing {
    device: Device,
    authority: Authority,
    key: PKey<Private>,
}

impl Issuing {
    fn new() -> Result<Self> {
        let device = usual()?;
        device.succeed(&["provision"])?;
        let authority = Authority::new()?;
        let key = PKey::private_key_from_pem(&std::fs::read(authority.key_path())?)?;
        Ok(Self {
            device,
            authority,
            key,
        })
    }

    /// A certificate for the device, whose common name is these octets in a string of this type.
    fn issue(&self, kind: Asn1Type, common_name: &str) -> Result<X509> {
        let request = X509Req::from_pem(&std::fs::read(self.device.request()?)?)?;
        let issuer = X509::from_pem(self.authority.certificate_pem()?.as_bytes())?;
        let mut name = X509Name::builder()?;
        name.append_entry_by_text_with_type("CN", common_name, kind)?;
        let mut builder = X509Builder::new()?;
        builder.set_version(2)?;
        let serial = BigNum::from_u32(0x1234_5678)?;
        builder.set_serial_number(&*Asn1Integer::from_bn(&serial)?)?;
        builder.set_subject_name(&name.build())?;
        builder.set_issuer_name(issuer.subject_name())?;
        builder.set_pubkey(&*request.public_key()?)?;
        builder.set_not_before(&*Asn1Time::from_str("20200101000000Z")?)?;
        builder.set_not_after(&*Asn1Time::from_str("20480101000000Z")?)?;
        builder.append_extension(BasicConstraints::new().critical().build()?)?;
        builder.sign(&self.key, MessageDigest::sha256())?;
        Ok(builder.build())
    }

    /// The usual one with other signed bytes, and a new signature.
    fn issue_as(&self, change: impl FnOnce(Vec<u8>) -> Result<Vec<u8>>) -> Result<Vec<u8>> {
        let der = self.issue(Asn1Type::UTF8STRING, &thing_name())?.to_der()?;
        let (tbs, after) = element(content(&der)?)?;
        let (algorithm, _) = element(after)?;
        let tbs = change(tbs.to_vec())?;
        let signature =
            Signer::new(MessageDigest::sha256(), &self.key)?.sign_oneshot_to_vec(&tbs)?;
        let signature = encode(0x03, &[&[0], &*signature].concat());
        Ok(encode(0x30, &[&tbs, algorithm, &signature].concat()))
    }

    /// The device accepts this and keeps it byte for byte.
    #[track_caller]
    fn accepts(&self, der: &[u8]) -> Result<()> {
        let verifies = X509::from_der(der)?.verify(&self.key)?;
        assert!(verifies, "OpenSSL does not verify it");
        let path = format!("/boot/firstboot/certificates/{}.pem", thing_name());
        self.device.write(path, der)?;
        assert_ends(&self.device.run(&["enroll"])?, exit::DONE, "");
        let kept = self.device.read(KEPT)?;
        let body: String = kept.lines().filter(|l| !l.starts_with('-')).collect();
        assert_eq!(openssl::base64::decode_block(&body)?, der, "other bytes");
        Ok(())
    }
}

/// Splits a DER element from what follows it. Lengths have up to two octets.
fn element(der: &[u8]) -> Result<(&[u8], &[u8])> {
    anyhow::ensure!(der.len() > 4, "it ends");
    let length = match der[1] {
        0x81 => 3 + usize::from(der[2]),
        0x82 => 4 + usize::from(u16::from_be_bytes([der[2], der[3]])),
        length => 2 + usize::from(length),
    };
    der.split_at_checked(length).context("it ends")
}

fn content(der: &[u8]) -> Result<&[u8]> {
    let (whole, _) = element(der)?;
    Ok(&whole[match whole[1] {
        0x81 => 3,
        0x82 => 4,
        _ => 2,
    }..])
}

fn encode(tag: u8, content: &[u8]) -> Vec<u8> {
    let [high, low] = (content.len() as u16).to_be_bytes();
    let header: &[u8] = match content.len() {
        0..0x80 => &[tag, low],
        0x80..0x100 => &[tag, 0x81, low],
        _ => &[tag, 0x82, high, low],
    };
    [header, content].concat()
}

fn replace(bytes: &[u8], from: &[u8], to: &[u8]) -> Result<Vec<u8>> {
    let at = bytes.windows(from.len()).position(|w| w == from);
    let at = at.context("it is not there")?;
    Ok([&bytes[..at], to, &bytes[at + from.len()..]].concat())
}

#[test]
fn a_name_is_accepted_in_each_string_type() -> Result<()> {
    let wide: String = thing_name().chars().map(|c| format!("\0{c}")).collect();
    for (kind, name) in [
        (Asn1Type::PRINTABLESTRING, thing_name()),
        (Asn1Type::T61STRING, thing_name()),
        (Asn1Type::BMPSTRING, wide),
    ] {
        let issuing = Issuing::new()?;
        issuing.accepts(&issuing.issue(kind, &name)?.to_der()?)?;
    }
    Ok(())
}

/// The string type does not make a wrong name right.
#[test]
fn another_name_is_refused_in_each_string_type() -> Result<()> {
    let issuing = Issuing::new()?;
    let wide: String = "another".chars().map(|c| format!("\0{c}")).collect();
    for (kind, name) in [
        (Asn1Type::T61STRING, "another".to_owned()),
        (Asn1Type::BMPSTRING, wide),
    ] {
        let der = issuing.issue(kind, &name)?.to_der()?;
        let path = format!("/boot/firstboot/certificates/{}.pem", thing_name());
        issuing.device.write(path, der)?;
        let outcome = issuing.device.run(&["enroll"])?;
        assert_ends(&outcome, exit::WAITING, "it is for \"another\"");
    }
    Ok(())
}

#[test]
fn a_boolean_encoded_as_one_is_accepted() -> Result<()> {
    let issuing = Issuing::new()?;
    let critical = [0x06, 0x03, 0x55, 0x1D, 0x13, 0x01, 0x01];
    let der = issuing.issue_as(|tbs| {
        let [from, to] = [0xFF, 0x01].map(|value| [&critical[..], &[value]].concat());
        replace(&tbs, &from, &to)
    })?;
    issuing.accepts(&der)
}

#[test]
fn a_negative_serial_number_is_accepted() -> Result<()> {
    let issuing = Issuing::new()?;
    let der = issuing.issue_as(|tbs| replace(&tbs, &[2, 4, 0x12, 0x34], &[2, 4, 0x92, 0x34]))?;
    issuing.accepts(&der)
}

#[test]
fn a_short_length_in_the_long_form_is_accepted() -> Result<()> {
    let issuing = Issuing::new()?;
    let der = issuing.issue_as(|tbs| {
        let changed = replace(
            content(&tbs)?,
            &[0x30, 0x22, 0x18],
            &[0x30, 0x81, 0x22, 0x18],
        )?;
        Ok(encode(0x30, &changed))
    })?;
    issuing.accepts(&der)
}

/// A certificate whose signature no longer matches is refused if the issuer's certificate is there.
#[test]
fn a_chain_that_openssl_does_not_verify_is_refused() -> Result<()> {
    let issuing = Issuing::new()?;
    let mut der = issuing
        .issue(Asn1Type::UTF8STRING, &thing_name())?
        .to_der()?;
    let last = der.len() - 1;
    der[last] ^= 1;
    let ca = X509::from_pem(issuing.authority.certificate_pem()?.as_bytes())?.to_der()?;
    let path = format!("/boot/firstboot/certificates/{}.pem", thing_name());
    issuing.device.write(path, [der, ca].concat())?;
    let outcome = issuing.device.run(&["enroll"])?;
    assert_ends(
        &outcome,
        exit::WAITING,
        "its issuer, CN=Operator Root CA, is in the file, but did not sign it",
    );
    Ok(())
}
