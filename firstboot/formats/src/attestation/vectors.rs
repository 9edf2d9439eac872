//! The test vectors of docs/attestation.md, which another implementation made: every intermediate value of a reply is
//! the same here, the replies open, and no changed one does.

use openssl::bn::{BigNum, BigNumContext, BigNumRef};
use openssl::ec::{EcGroup, EcKey, EcPoint};
use openssl::nid::Nid;
use openssl::pkey::{PKey, Private};
use openssl::rsa::RsaPrivateKeyBuilder;
use serde::Deserialize;
use serde_json::Value;

use super::make_credential::tests::{activate, ek};
use super::make_credential::{Secret, ecc_seed, id_object, integrity_key, storage_key, tpm2b};
use super::{CREDENTIAL_SIZE, KEY_ATTRIBUTES, NAME_SIZE, PublicArea, Reply};
use crate::digest::sha256;
use crate::encoding::{from_base64, from_hex};
use crate::public_key::KeyType;

const VECTORS: &str = include_str!("../../vectors/reply-v1.json");

#[derive(Deserialize)]
struct Vectors {
    cases: Vec<Case>,
    refusals: Vec<Refusal>,
}

/// A reply and its intermediate values; binary values in hexadecimal digits.
#[derive(Deserialize)]
struct Case {
    title: String,
    labels: Labels,
    key_public: String,
    credential: String,
    seed: String,
    secret: String,
    storage_key: String,
    integrity_key: String,
    encrypted: String,
    credential_blob: String,
    additional_data: String,
    signed: String,
    chain: String,
    reply: Value,
}

/// The labels from which the private keys are derived.
#[derive(Deserialize)]
struct Labels {
    key: String,
    ek: String,
    ephemeral: String,
}

/// Changes to the first case's reply, and the check that refuses the result.
#[derive(Deserialize)]
struct Refusal {
    refused_by: String,
    what: String,
    change: serde_json::Map<String, Value>,
}

fn vectors() -> Vectors {
    serde_json::from_str(VECTORS).unwrap()
}

fn bytes(hex: &str) -> Vec<u8> {
    from_hex(hex).unwrap()
}

fn array<const N: usize>(hex: &str) -> [u8; N] {
    bytes(hex).try_into().unwrap()
}

impl Case {
    fn reply(&self) -> Reply {
        Reply::parse(self.reply.to_string().as_bytes()).unwrap()
    }

    fn public_area(&self) -> PublicArea {
        PublicArea::parse(&bytes(&self.key_public)).unwrap()
    }

    /// If the secret is a point, the EK is on P-256.
    fn ek(&self) -> PKey<Private> {
        private_key(&self.labels.ek, self.secret.len() == 2 * 70)
    }

    /// The check that refuses a reply to this case's device.
    fn refused_by(&self, text: &str) -> Option<&'static str> {
        let Ok(reply) = Reply::parse(text.as_bytes()) else {
            return Some("form");
        };
        let own = self.reply();
        let issuers = [sha256(&own.issuer)];
        let (name, ek) = (&own.key_name, &own.ek_certificate_sha256);
        if let Err(why) = reply.check(&issuers, &own.thing_name, name, ek) {
            let checks = [
                ("enrollment.issuers", "issuer"),
                ("not signed", "signature"),
                ("thing's name", "thing_name"),
                ("another key", "key_name"),
                ("another TPM", "ek_certificate_sha256"),
            ];
            let check = checks.into_iter().find(|(words, _)| why.contains(words));
            return Some(check.expect(&why).1);
        }
        let credential = activate(&self.ek(), name, &reply.credential_blob, &reply.secret);
        let Some(credential) = credential else {
            return Some("tpm");
        };
        match reply.open(&credential.try_into().unwrap()) {
            Ok(_) => None,
            Err(_) => Some("ciphertext"),
        }
    }
}

/// The private key of a label.
fn private_key(label: &str, is_p256: bool) -> PKey<Private> {
    if is_p256 {
        PKey::from_ec_key(p256(label)).unwrap()
    } else {
        rsa2048(label)
    }
}

fn block(label: &str, number: usize) -> [u8; 32] {
    sha256(format!("{label} {number}").as_bytes())
}

fn p256(label: &str) -> EcKey<Private> {
    let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1).unwrap();
    let context = &mut *BigNumContext::new().unwrap();
    let mut below_order = BigNum::new().unwrap();
    group.order(&mut below_order, context).unwrap();
    below_order.sub_word(1).unwrap();
    let number = BigNum::from_slice(&block(label, 0)).unwrap();
    let mut scalar = &number % &below_order;
    scalar.add_word(1).unwrap();
    let mut point = EcPoint::new(&group).unwrap();
    point.mul_generator2(&group, &scalar, context).unwrap();
    EcKey::from_private_components(&group, &scalar, &point).unwrap()
}

fn prime(label: &str) -> BigNum {
    const EXPONENT: u32 = 65537;
    let number: Vec<u8> = (0..4).flat_map(|number| block(label, number)).collect();
    let mut candidate = BigNum::from_slice(&number).unwrap();
    for bit in [1023, 1022, 0] {
        candidate.set_bit(bit).unwrap();
    }
    let context = &mut *BigNumContext::new().unwrap();
    let is_possible = |p: &BigNumRef| p.mod_word(EXPONENT).unwrap() != 1;
    while !(is_possible(&candidate) && candidate.is_prime(20, context).unwrap()) {
        candidate.add_word(2).unwrap();
    }
    candidate
}

fn rsa2048(label: &str) -> PKey<Private> {
    let [p, q] = ["p", "q"].map(|which| prime(&format!("{label} {which}")));
    let one = BigNum::from_u32(1).unwrap();
    let order = &(&p - &one) * &(&q - &one);
    let exponent = BigNum::from_u32(65537).unwrap();
    let mut private = BigNum::new().unwrap();
    let context = &mut *BigNumContext::new().unwrap();
    private.mod_inverse(&exponent, &order, context).unwrap();
    let key = RsaPrivateKeyBuilder::new(&p * &q, exponent, private).unwrap();
    PKey::from_rsa(key.build()).unwrap()
}

#[test]
fn names_are_those_of_the_keys() {
    for case in vectors().cases {
        let area = case.public_area();
        assert_eq!(area.attributes(), KEY_ATTRIBUTES, "{}", case.title);
        let is_p256 = area.key_type() == KeyType::EccP256;
        let key = private_key(&case.labels.key, is_p256);
        let spki = key.public_key_to_der().unwrap();
        assert_eq!(area.public_key().spki(), spki, "{}", case.title);
        assert_eq!(area.name(), case.reply().key_name, "{}", case.title);
    }
}

#[test]
fn credentials_are_made_alike() {
    for case in vectors().cases {
        let name: [u8; NAME_SIZE] = case.public_area().name();
        let credential: [u8; CREDENTIAL_SIZE] = array(&case.credential);
        let seed = Secret::new(array(&case.seed));
        let storage = storage_key(&seed, &name).unwrap();
        assert_eq!(storage[..16], array::<16>(&case.storage_key));
        let integrity = integrity_key(&seed).unwrap();
        assert_eq!(integrity[..], array::<32>(&case.integrity_key));
        let blob = id_object(&seed, &name, &credential).unwrap();
        assert!(blob.ends_with(&bytes(&case.encrypted)), "{}", case.title);
        assert_eq!(blob, bytes(&case.credential_blob), "{}", case.title);
        let (ek_key, secret) = (case.ek(), bytes(&case.secret));
        if ek_key.ec_key().is_ok() {
            let ephemeral = p256(&case.labels.ephemeral);
            let made = ecc_seed(ek(&ek_key).key(), ephemeral).unwrap();
            assert_eq!((made.0, tpm2b(&made.1)), (seed, secret.clone()));
        }
        // RSA's encryption of the seed is randomized, so it is decrypted instead of compared.
        let activated = activate(&ek_key, &name, &blob, &secret).unwrap();
        assert_eq!(activated, credential, "{}", case.title);
    }
}

#[test]
fn replies_are_read_checked_and_opened() {
    for case in vectors().cases {
        let reply = case.reply();
        assert_eq!(serde_json::to_value(&reply).unwrap(), case.reply);
        assert_eq!(case.refused_by(&case.reply.to_string()), None);
        assert_eq!(reply.additional().bytes(), bytes(&case.additional_data));
        assert_eq!(reply.signed(), bytes(&case.signed));
        let chain = reply.open(&array(&case.credential)).unwrap();
        assert_eq!(chain[..], *case.chain.as_bytes(), "{}", case.title);
    }
}

#[test]
fn changed_replies_are_refused() {
    let Vectors { cases, refusals } = vectors();
    let mut checks = Vec::new();
    for refusal in refusals {
        let mut reply = cases[0].reply.as_object().unwrap().clone();
        reply.extend(refusal.change);
        let found = cases[0].refused_by(&Value::Object(reply).to_string());
        assert_eq!(found, Some(&*refusal.refused_by), "{}", refusal.what);
        checks.push(refusal.refused_by);
    }
    checks.dedup();
    assert_eq!(checks.len(), 8, "{checks:?}");
}

/// Some software leaves out leading zeros.
#[test]
fn one_case_has_coordinates_that_begin_with_zeros() {
    let case = &vectors().cases[2];
    let secret = from_base64(case.reply["secret"].as_str().unwrap()).unwrap();
    // TPM2B(TPM2B(x) TPM2B(y))
    assert_eq!(secret[2..5], [0, 32, 0]);
}
