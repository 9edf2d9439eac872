//! Wrapped replies on the boot partition: only this operator's replies for this device reach the TPM.

use std::fs;
use std::sync::LazyLock;
use std::time::Duration;

use anyhow::{Error, Result};
use firstboot::boot_partition::BootPartition;
use firstboot::enrollment::Offer;
use firstboot::enrollment::offline::{Wanted, offer};
use firstboot_formats::attestation::{Contents, EkPublic, Evidence, PublicArea, Reply};
use firstboot_formats::clock::Clock;
use firstboot_formats::digest::Fingerprint;
use firstboot_formats::public_key::PublicKey;
use image_tests::doubles::pki::Authority;
use openssl::ec::{EcGroup, EcKey};
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::PKey;
use openssl::sha::sha256;
use openssl::sign::Signer;
use openssl::x509::X509;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::{Value, json};

use crate::{Checked, Else, Tree, any_json, any_text, assert_printable, cases, damage, damaged};

const THING: &str = "gateway-1";
const FIELDS: [&str; 10] = [
    "version",
    "thing_name",
    "key_name",
    "ek_certificate_sha256",
    "credential_blob",
    "secret",
    "nonce",
    "ciphertext",
    "issuer",
    "signature",
];

/// A device in software, and the reply for it.
struct Fixture {
    evidence: Evidence,
    key: PublicKey,
    issuer: Fingerprint,
    reply: Value,
}

static FIXTURE: LazyLock<Result<Fixture>> = LazyLock::new(|| {
    let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1)?;
    let point = |key: &EcKey<_>| -> Result<Vec<u8>> {
        let context = &mut *openssl::bn::BigNumContext::new()?;
        let form = openssl::ec::PointConversionForm::UNCOMPRESSED;
        Ok(key.public_key().to_bytes(&group, form, context)?)
    };
    let point = point(&EcKey::generate(&group)?)?;
    // TPMT_PUBLIC: ECC, SHA-256, attributes, no policy, no algorithms, the curve, the point.
    let mut area = vec![0, 0x23, 0, 0x0B, 0, 6, 0, 0x72, 0, 0];
    area.extend([0, 0x10, 0, 0x10, 0, 3, 0, 0x10, 0, 32]);
    area.extend([&point[1..33], &[0, 32], &point[33..]].concat());
    let area = PublicArea::parse(&area).map_err(Error::msg)?;

    let ek = PKey::from_ec_key(EcKey::generate(&group)?)?;
    let ek = PKey::public_key_from_der(&ek.public_key_to_der()?)?;
    let evidence = Evidence {
        key_public: area.bytes().to_vec(),
        ek_certificate: Some(b"an EK certificate, which nobody reads here".to_vec()),
        unattested: None,
    };
    let operator = Authority::new()?;
    let issuer = X509::from_pem(operator.certificate_pem()?.as_bytes())?.to_der()?;
    let issuer_key = PKey::private_key_from_pem(&fs::read(operator.key_path())?)?;
    let contents = Contents {
        thing_name: THING,
        key_name: area.name(),
        ek: &EkPublic::new(ek).map_err(Error::msg)?,
        ek_sha256: evidence.ek_sha256().unwrap_or_default(),
        chain: b"a chain",
        issuer: &issuer,
    };
    let sign = |message: &[u8]| {
        let mut signer = Signer::new(MessageDigest::sha256(), &issuer_key)?;
        signer.sign_oneshot_to_vec(message)
    };
    let reply = Reply::seal(&contents, |message| {
        sign(message).map_err(|e| e.to_string())
    });
    Ok(Fixture {
        reply: serde_json::to_value(reply.map_err(Error::msg)?)?,
        key: area.public_key().clone(),
        issuer: sha256(&issuer),
        evidence,
    })
});

fn fixture() -> Checked<&'static Fixture> {
    FIXTURE.as_ref().or_fail()
}

/// Looks at this file on the boot partition. Returns whether it may go to the TPM.
fn judge(tree: &Tree, text: &[u8]) -> Checked<bool> {
    let fixture = fixture()?;
    let path = format!("/boot/firstboot/certificates/{THING}.reply.json");
    tree.write(&path, text)?;
    let wanted = Wanted {
        accepted: None,
        thing_name: THING,
        file_name: THING,
        key: &fixture.key,
        evidence: Some(&fixture.evidence),
        issuers: &[fixture.issuer],
        opened: None,
        superseded: None,
    };
    let clock = Clock {
        now: Duration::from_secs(1_704_067_200),
        synchronised: true,
    };
    match offer(&BootPartition::new(&tree.layout), &wanted, clock) {
        Offer::Reply(wrapped) => {
            // All but the signature, which has more than one encoding, is what the operator signed.
            let mut taken = serde_json::to_value(&wrapped.reply).or_fail()?;
            taken["signature"] = fixture.reply["signature"].clone();
            prop_assert_eq!(&taken, &fixture.reply);
            Ok(true)
        }
        Offer::Refused(why) => {
            assert_printable(&why.to_string())?;
            Ok(false)
        }
        other => Err(TestCaseError::fail(format!("{other:?}"))),
    }
}

#[test]
fn the_right_one_is_accepted() -> Checked {
    let tree = Tree::new()?;
    assert!(judge(&tree, fixture()?.reply.to_string().as_bytes())?);
    Ok(())
}

#[test]
fn any_bytes_get_a_verdict() -> Checked {
    let tree = Tree::new()?;
    proptest!(cases(300), |(content in vec(any::<u8>(), 0..200))| {
        prop_assert!(!judge(&tree, &content)?);
    });
    Ok(())
}

#[test]
fn damaged_files_get_a_verdict() -> Checked {
    let tree = Tree::new()?;
    let text = fixture()?.reply.to_string();
    proptest!(cases(1500), |(damage in damage())| {
        judge(&tree, &damaged(text.as_bytes(), &damage))?;
    });
    Ok(())
}

/// In every field: other values, other fields' values, other lengths, and none; and unknown fields.
#[test]
fn fields_with_other_values_get_a_verdict() -> Checked {
    let tree = Tree::new()?;
    let reply = &fixture()?.reply;
    let of_others: Vec<Value> = FIELDS.iter().map(|field| reply[field].clone()).collect();
    let value = prop_oneof![
        any_json(),
        any_text().prop_map(Value::from),
        select(of_others),
        "[A-Za-z0-9+/]{0,400}={0,2}".prop_map(Value::from),
        "([0-9a-f]{2}){30,36}".prop_map(Value::from),
        select(vec![
            json!(0),
            json!(2),
            json!(u64::MAX),
            json!(1.0),
            json!([])
        ]),
    ];
    let field = prop_oneof![9 => select(FIELDS.map(String::from).to_vec()), 1 => any_text()];
    let changes = vec((field, proptest::option::weighted(0.9, value)), 1..4);
    proptest!(cases(1500), |(changes in changes)| {
        let mut reply = reply.clone();
        for (field, value) in changes {
            match value {
                Some(value) => reply[field] = value,
                None => drop(reply.as_object_mut().and_then(|r| r.remove(&field))),
            }
        }
        judge(&tree, reply.to_string().as_bytes())?;
    });
    Ok(())
}

/// As large and as deep as the limit allows.
#[test]
fn the_worst_files_within_the_limit_get_a_verdict() -> Checked {
    let tree = Tree::new()?;
    let reply = &fixture()?.reply;
    for unit in ["[", "{\"a\":", "{\"version\":1,", "\"", "A", "9"] {
        let many = unit.repeat(60 * 1024 / unit.len());
        assert!(!judge(&tree, many.as_bytes())?);
        for field in FIELDS {
            let mut reply = reply.clone();
            reply[field] = json!(many);
            assert!(!judge(&tree, reply.to_string().as_bytes())?, "{field}");
        }
    }
    Ok(())
}
