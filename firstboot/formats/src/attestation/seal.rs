//! Making a reply: the station's side of `reply`.

use openssl::rand::rand_bytes;
use openssl::symm::{Cipher, encrypt_aead};
use zeroize::Zeroizing;

use super::reply::{NONCE, TAG, VERSION};
use super::{CREDENTIAL_SIZE, EkPublic, NAME_SIZE, Reply, make_credential};
use crate::digest::{Fingerprint, sha256};

/// The contents of a reply.
pub struct Contents<'a> {
    /// Whom it is for.
    pub thing_name: &'a str,
    /// The Name of the key that it is for.
    pub key_name: [u8; NAME_SIZE],
    /// The TPM that it is for.
    pub ek: &'a EkPublic,
    /// SHA-256 of the EK's certificate.
    pub ek_sha256: Fingerprint,
    /// The certificate, and those of its issuers: leaf first, PEM.
    pub chain: &'a [u8],
    /// DER of the certificate whose key signs the reply.
    pub issuer: &'a [u8],
}

impl Reply {
    /// Makes a reply with a new credential; `sign` signs with SHA-256 and the issuer's key. Finally applies the
    /// device's own check.
    pub fn seal(
        contents: &Contents<'_>,
        sign: impl FnOnce(&[u8]) -> Result<Vec<u8>, String>,
    ) -> Result<Self, String> {
        let mut credential = Zeroizing::new([0; CREDENTIAL_SIZE]);
        let mut nonce = [0; NONCE];
        rand_bytes(&mut credential[..])
            .and_then(|()| rand_bytes(&mut nonce))
            .map_err(|e| format!("cannot get random bytes: {e}"))?;
        let (credential_blob, secret) =
            make_credential(contents.ek, &contents.key_name, &credential)?;
        let mut reply = Self {
            version: VERSION,
            thing_name: contents.thing_name.to_owned(),
            key_name: contents.key_name,
            ek_certificate_sha256: contents.ek_sha256,
            credential_blob,
            secret,
            nonce: nonce.to_vec(),
            ciphertext: Vec::new(),
            issuer: contents.issuer.to_vec(),
            signature: Vec::new(),
        };
        let mut tag = [0; TAG];
        reply.ciphertext = encrypt_aead(
            Cipher::aes_256_gcm(),
            &credential[..],
            Some(&nonce),
            reply.additional().bytes(),
            contents.chain,
            &mut tag,
        )
        .map_err(|e| format!("cannot encrypt the certificate: {e}"))?;
        reply.ciphertext.extend(tag);
        reply.signature = sign(&reply.signed())?;
        reply.check(
            &[sha256(contents.issuer)],
            contents.thing_name,
            &contents.key_name,
            &contents.ek_sha256,
        )?;
        if reply.json()?.len() > super::MAX_REPLY {
            return Err("the certificate's chain is too large for a reply".into());
        }
        Ok(reply)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use openssl::asn1::Asn1Time;
    use openssl::bn::BigNum;
    use openssl::ec::{EcGroup, EcKey};
    use openssl::hash::MessageDigest;
    use openssl::nid::Nid;
    use openssl::pkey::{PKey, Private};
    use openssl::rsa::Rsa;
    use openssl::sign::Signer;
    use openssl::x509::{X509, X509Name};

    use super::super::make_credential::tests::{activate, ek};
    use super::*;

    const CHAIN: &[u8] = b"-----BEGIN CERTIFICATE-----\n";
    const NAME: [u8; NAME_SIZE] = [7; NAME_SIZE];
    const EK: Fingerprint = [8; 32];

    fn authority(key: &PKey<Private>) -> Vec<u8> {
        let mut name = X509Name::builder().unwrap();
        name.append_entry_by_text("CN", "Operator").unwrap();
        let name = name.build();
        let mut builder = X509::builder().unwrap();
        builder.set_version(2).unwrap();
        let serial = BigNum::from_u32(1).unwrap().to_asn1_integer().unwrap();
        builder.set_serial_number(&serial).unwrap();
        builder.set_subject_name(&name).unwrap();
        builder.set_issuer_name(&name).unwrap();
        builder.set_pubkey(key).unwrap();
        let (start, end) = (Asn1Time::days_from_now(0), Asn1Time::days_from_now(1));
        builder.set_not_before(&start.unwrap()).unwrap();
        builder.set_not_after(&end.unwrap()).unwrap();
        builder.sign(key, MessageDigest::sha256()).unwrap();
        builder.build().to_der().unwrap()
    }

    fn p256() -> PKey<Private> {
        let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1).unwrap();
        PKey::from_ec_key(EcKey::generate(&group).unwrap()).unwrap()
    }

    fn keys() -> [PKey<Private>; 2] {
        [
            p256(),
            PKey::from_rsa(Rsa::generate(2048).unwrap()).unwrap(),
        ]
    }

    fn signature(key: &PKey<Private>, message: &[u8]) -> Vec<u8> {
        let mut signer = Signer::new(MessageDigest::sha256(), key).unwrap();
        signer.sign_oneshot_to_vec(message).unwrap()
    }

    /// A reply for the device with this EK.
    fn seal(
        ek_key: &PKey<Private>,
        issuer: &[u8],
        signer: &PKey<Private>,
    ) -> Result<Reply, String> {
        let contents = Contents {
            thing_name: "gw-1",
            key_name: NAME,
            ek: &ek(ek_key),
            ek_sha256: EK,
            chain: CHAIN,
            issuer,
        };
        Reply::seal(&contents, |message| Ok(signature(signer, message)))
    }

    /// A reply, the EK that opens it, the issuer's key and the issuer.
    fn sealed() -> (Reply, PKey<Private>, PKey<Private>, Fingerprint) {
        let (authority_key, ek_key) = (p256(), p256());
        let issuer = authority(&authority_key);
        let reply = seal(&ek_key, &issuer, &authority_key).unwrap();
        (reply, ek_key, authority_key, sha256(&issuer))
    }

    #[test]
    fn what_is_sealed_is_read_checked_and_opened() {
        for authority_key in keys() {
            let issuer = authority(&authority_key);
            for ek_key in keys() {
                let made = seal(&ek_key, &issuer, &authority_key).unwrap();
                let read = Reply::parse(made.json().unwrap().as_bytes()).unwrap();
                assert_eq!(read, made);
                read.check(&[sha256(&issuer)], "gw-1", &NAME, &EK).unwrap();
                let credential = activate(&ek_key, &NAME, &read.credential_blob, &read.secret);
                let credential = credential.unwrap().try_into().unwrap();
                assert_eq!(read.open(&credential).unwrap()[..], *CHAIN);
                assert!(read.open(&[0; 32]).is_err());
            }
        }
    }

    #[test]
    fn a_key_that_is_not_the_issuers_is_noticed_at_once() {
        let refused = seal(&p256(), &authority(&p256()), &p256()).unwrap_err();
        assert!(refused.contains("not signed"), "{refused}");
    }

    #[test]
    fn a_reply_for_others_or_from_others_is_refused_with_the_reason() {
        let (reply, _, _, issuer) = sealed();
        let refused = |issuers: &[Fingerprint], thing: &str, name, ek| {
            reply.check(issuers, thing, &name, &ek).unwrap_err()
        };
        assert!(refused(&[], "gw-1", NAME, EK).contains("enrollment.issuers"));
        assert!(refused(&[EK], "gw-1", NAME, EK).contains("enrollment.issuers"));
        let issuers = [EK, issuer];
        assert!(refused(&issuers, "gw-2", NAME, EK).contains("\"gw-1\""));
        assert!(refused(&issuers, "gw-1", [6; NAME_SIZE], EK).contains("another key"));
        assert!(refused(&issuers, "gw-1", NAME, [9; 32]).contains("another TPM"));
        reply.check(&issuers, "gw-1", &NAME, &EK).unwrap();
    }

    #[test]
    fn every_changed_field_is_noticed() {
        type Change = fn(&mut Reply);
        let changes: [Change; 8] = [
            |r| r.version = 2,
            |r| r.thing_name.push('x'),
            |r| r.key_name[33] ^= 1,
            |r| r.ek_certificate_sha256[0] ^= 1,
            |r| r.credential_blob[40] ^= 1,
            |r| r.secret[40] ^= 1,
            |r| r.nonce[0] ^= 1,
            |r| r.ciphertext[0] ^= 1,
        ];
        let (reply, ek_key, authority_key, issuer) = sealed();
        let credential = activate(&ek_key, &NAME, &reply.credential_blob, &reply.secret);
        let credential = credential.unwrap().try_into().unwrap();
        for (number, change) in changes.iter().enumerate() {
            let mut changed = reply.clone();
            change(&mut changed);
            let thing = changed.thing_name.clone();
            let (name, ek) = (changed.key_name, changed.ek_certificate_sha256);
            let refused = changed.check(&[issuer], &thing, &name, &ek).unwrap_err();
            assert!(refused.contains("not signed"), "{number}: {refused}");
            // Even if the issuer signs it, it cannot be opened.
            changed.signature = signature(&authority_key, &changed.signed());
            changed.check(&[issuer], &thing, &name, &ek).unwrap();
            assert!(changed.open(&credential).is_err(), "{number}");
        }
    }

    #[test]
    fn files_of_another_form_are_refused_with_the_reason() {
        let (reply, ..) = sealed();
        let json = serde_json::to_value(&reply).unwrap();
        let refused =
            |json: &serde_json::Value| Reply::parse(json.to_string().as_bytes()).unwrap_err();
        let changed = |field: &str, value: serde_json::Value| {
            let mut json = json.clone();
            json[field] = value;
            refused(&json)
        };
        assert!(changed("version", 2.into()).contains("version 2"));
        assert!(changed("mode", 1.into()).contains("unknown field `mode`"));
        assert!(changed("key_name", "00".into()).contains("68 hexadecimal digits"));
        assert!(changed("nonce", "AA==".into()).contains("nonce has the wrong size"));
        assert!(changed("ciphertext", "AA==".into()).contains("ciphertext"));
        assert!(changed("secret", "ACA=".into()).contains("secret has the wrong size"));
        assert!(changed("credential_blob", "!".into()).contains("base64"));
        assert!(changed("thing_name", "\u{7}".repeat(MAX).into()).contains("larger than"));
        let mut fewer = json.clone();
        fewer.as_object_mut().unwrap().remove("issuer");
        assert!(refused(&fewer).contains("missing field `issuer`"));
        let twice = json.to_string().replacen('{', r#"{"thing_name":"x","#, 1);
        assert!(
            Reply::parse(twice.as_bytes())
                .unwrap_err()
                .contains("duplicate")
        );
        assert!(Reply::parse(b"").is_err());
    }

    const MAX: usize = super::super::MAX_REPLY;
}
