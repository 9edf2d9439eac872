//! The request for a certificate's successor, whatever names that certificate has, and the signature by which its key
//! vouches for the next one.

use std::sync::LazyLock;

use anyhow::Result;
use firstboot_formats::countersignature::Countersignature;
use firstboot_formats::error::Error;
use firstboot_formats::public_key::PublicKey;
use firstboot_formats::x509::{Certificate, Request, name};
use image_tests::doubles::pki::p256;
use openssl::asn1::{Asn1Object, Asn1OctetString, Asn1Time};
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::{PKey, Private};
use openssl::sign::Signer;
use openssl::x509::{X509, X509Extension, X509Name, X509Req};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use crate::{Checked, Else, any_text, assert_printable, cases, damage, damaged};

static KEY: LazyLock<Result<PKey<Private>>> = LazyLock::new(p256);

fn sign(message: &[u8]) -> Result<Vec<u8>, Error> {
    let key = KEY.as_ref().map_err(|e| Error::other(e.to_string()))?;
    let signed = Signer::new(MessageDigest::sha256(), key)
        .and_then(|mut signer| signer.sign_oneshot_to_vec(message));
    signed.map_err(|e| Error::other(e.to_string()))
}

fn public_key() -> Checked<PublicKey> {
    let key = KEY.as_ref().or_fail()?;
    Ok(PublicKey::from_spki(key.public_key_to_der()?))
}

/// A certificate with this subject, and with these bytes as its alternative names.
fn certificate(subject: &[(Nid, String)], names: Option<&[u8]>) -> Result<Vec<u8>> {
    let key = p256()?;
    let mut name = X509Name::builder()?;
    for (attribute, value) in subject {
        // Some are of a kind that may not have this value: those are left out.
        let _ = name.append_entry_by_nid(*attribute, value);
    }
    let name = name.build();
    let mut builder = X509::builder()?;
    builder.set_version(2)?;
    builder.set_subject_name(&name)?;
    builder.set_issuer_name(&name)?;
    builder.set_pubkey(&key)?;
    let (from, until) = (Asn1Time::from_unix(0)?, Asn1Time::days_from_now(1)?);
    builder.set_not_before(&from)?;
    builder.set_not_after(&until)?;
    if let Some(names) = names {
        let kind = Asn1Object::from_str("subjectAltName")?;
        let value = Asn1OctetString::new_from_bytes(names)?;
        builder.append_extension(X509Extension::new_from_der(&kind, false, &value)?)?;
    }
    builder.sign(&key, MessageDigest::sha256())?;
    Ok(builder.build().to_der()?)
}

/// The request has the certificate's names byte for byte, as other programs read it, or there is a reason why there is
/// none. Returns whether there is one.
fn judge(certificate: Vec<u8>, names: Option<&[u8]>) -> Checked<bool> {
    // OpenSSL verifies what a device accepts: it has read that.
    let is_read = X509::from_der(&certificate).is_ok();
    let Some(old) = Certificate::parse(certificate) else {
        return Ok(false);
    };
    let made = match Request::renewing(&old, &public_key()?, sign) {
        Ok(made) => made,
        Err(e) => {
            assert_printable(&e.to_string())?;
            return Ok(false);
        }
    };
    let pem = made.pem().or_fail()?;
    if !is_read {
        return Ok(false);
    }
    let read = X509Req::from_pem(pem.as_bytes())?;
    prop_assert!(read.verify(KEY.as_ref().or_fail()?)?);
    prop_assert_eq!(read.subject_name().to_der()?, old.subject_der());
    if let Some(names) = names.filter(|names| !names.is_empty()) {
        let der = read.to_der()?;
        prop_assert!(der.windows(names.len()).any(|window| window == names));
    }
    let again = Request::parse(pem.as_bytes()).or_fail()?;
    prop_assert_eq!(again.der().or_fail()?, made.der().or_fail()?);
    prop_assert_eq!(again.renews(&old), made.renews(&old));
    prop_assert!(!made.renews(&old) || names.is_none());
    Ok(true)
}

fn subjects() -> impl Strategy<Value = Vec<(Nid, String)>> {
    let attribute = select(vec![
        Nid::COMMONNAME,
        Nid::ORGANIZATIONNAME,
        Nid::ORGANIZATIONALUNITNAME,
        Nid::SERIALNUMBER,
        Nid::COUNTRYNAME,
        Nid::DOMAINCOMPONENT,
        Nid::PKCS9_EMAILADDRESS,
    ]);
    vec((attribute, any_text()), 0..6)
}

/// What an X.509 library writes, whatever the names, can be asked for again.
#[test]
fn any_names_are_asked_for_again() -> Checked {
    proptest!(cases(300), |(subject in subjects(), names in proptest::option::of(vec(any::<u8>(), 0..60)))| {
        let certificate = certificate(&subject, names.as_deref()).or_fail()?;
        prop_assert!(judge(certificate, names.as_deref())?);
    });
    Ok(())
}

#[test]
fn damaged_certificates_are_asked_for_again_or_not() -> Checked {
    let subject = [
        (Nid::ORGANIZATIONNAME, "Example".to_owned()),
        (Nid::COMMONNAME, "gateway-1".to_owned()),
    ];
    // dNSName, [2], and a URI, [6] (RFC 5280 §4.2.1.6).
    let names = b"\x30\x0e\x82\x04gw-1\x86\x06urn:gw";
    let valid = certificate(&subject, Some(names)).or_fail()?;
    prop_assert!(judge(valid.clone(), Some(names))?);
    proptest!(cases(1500), |(damage in damage())| {
        judge(damaged(&valid, &damage), None)?;
    });
    Ok(())
}

/// Whatever stands in a record in place of the signature, the key has not signed the request.
#[test]
fn other_countersignatures_are_none() -> Checked {
    let key = public_key()?;
    let subject = name(&[("CN", "gateway-1")]).or_fail()?;
    let request = Request::make(subject, &key, sign).or_fail()?;
    // The request's own signature is by the right key, and over something else.
    let own = sign(&request.der().or_fail()?).or_fail()?;
    let read = |signature: &[u8]| -> Checked<bool> {
        let text = serde_json::to_string(&Countersignature {
            certificate: Vec::new(),
            signature: signature.to_vec(),
        });
        let read: Countersignature = serde_json::from_str(&text.or_fail()?).or_fail()?;
        read.is_by(&key, &request).or_fail()
    };
    let message = [
        b"firstboot countersignature v1\0",
        &request.der().or_fail()?[..],
    ]
    .concat();
    let right = sign(&message).or_fail()?;
    prop_assert!(read(&right)?);
    prop_assert!(!read(&own)?);
    proptest!(cases(300), |(damage in damage(), other in vec(any::<u8>(), 0..100))| {
        let changed = damaged(&right, &damage);
        prop_assert!(changed == right || !read(&changed)?);
        prop_assert!(!read(&other)?);
    });
    Ok(())
}
