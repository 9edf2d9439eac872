//! The key as tpm2-pkcs11 stores it: everything needed to load it into the TPM without the library.
//!
//! Layout: tpm2-pkcs11 1.9.0 to 1.10.1 (schema 8 and 9). `sealobjects` has an object, sealed below the storage root
//! key, that holds the token's wrapping key in 64 hexadecimal digits; its authorization value is derived from PIN and
//! salt (src/lib/ssl_util.c, `ssl_util_hash_pass`). `tobjects` has the token's objects as YAML (src/lib/emitter.c); a
//! private key's authorization value is wrapped with that key (src/lib/utils.c, `aes256_gcm_encrypt`).

use std::path::Path;

use firstboot_formats::attestation::PublicArea;
use firstboot_formats::encoding::{from_hex, to_hex};
use firstboot_formats::public_key::PublicKey;
use openssl::sha::Sha256;
use openssl::symm::{Cipher, decrypt_aead};
use rusqlite::{Connection, OpenFlags, params};
use saphyr_parser::{Event, Parser};
use zeroize::Zeroizing;

use super::{DATABASE, OBJECT_LABEL, TOKEN_LABEL};
use crate::error::{Error, ErrorKind, Result, ResultExt};
use crate::secret::Pin;

/// CKA_CLASS and CKA_LABEL (PKCS#11 3.1 §4.4, pkcs11t.h), and tpm2-pkcs11's own (src/lib/attrs.h):
/// CKA_TPM2_OBJAUTH_ENC, CKA_TPM2_PUB_BLOB, CKA_TPM2_PRIV_BLOB.
const CLASS: &str = "0";
const LABEL: &str = "3";
const WRAPPED_AUTH: u32 = 0x8F00_0001;
const PUBLIC: u32 = 0x8F00_0002;
const PRIVATE: u32 = 0x8F00_0003;
/// CKO_PRIVATE_KEY
const PRIVATE_KEY: &str = "3";
/// Bytes of the wrapping key, an AES-256 key.
const WRAPPING_KEY: usize = 32;
/// Bytes of the hash of PIN and salt that are used.
const PIN_HASH: usize = 16;

/// Our key in the store. The objects are TPM2B_PUBLIC and TPM2B_PRIVATE, with their sizes.
pub struct StoredKey {
    /// The sealed wrapping key: its public and its private area.
    pub seal: [Vec<u8>; 2],
    /// The key: its public and its private area.
    pub key: [Vec<u8>; 2],
    salt: String,
    wrapped_auth: String,
}

impl StoredKey {
    /// The key's public half.
    pub fn public_key(&self) -> Result<PublicKey> {
        let [public, _] = &self.key;
        // Without its size.
        let area = PublicArea::parse(public.get(2..).unwrap_or_default());
        let area = area.context(ErrorKind::Other, || {
            "cannot parse the key in the token's store".into()
        })?;
        Ok(area.public_key().clone())
    }

    /// Reads it. Writes nothing, except that SQLite rolls back what a power cut left half-written, as it would for the
    /// library.
    pub fn read(directory: &Path) -> Result<Self> {
        let reading = || "cannot read the key from the token's store".to_owned();
        let store = Connection::open_with_flags(
            directory.join(DATABASE),
            OpenFlags::SQLITE_OPEN_READ_WRITE,
        )
        .and_then(|store| {
            store.pragma_update(None, "query_only", true)?;
            Ok(store)
        })
        .context(ErrorKind::Other, reading)?;
        let (token, seal, salt): (i64, [Vec<u8>; 2], String) = store
            .query_row(
                "SELECT tokens.id, userpub, userpriv, userauthsalt FROM tokens \
                 JOIN sealobjects ON tokid = tokens.id WHERE label = ?1",
                [TOKEN_LABEL],
                |row| Ok((row.get(0)?, [row.get(1)?, row.get(2)?], row.get(3)?)),
            )
            .context(ErrorKind::Other, reading)?;
        let mut objects = store
            .prepare("SELECT attrs FROM tobjects WHERE tokid = ?1")
            .context(ErrorKind::Other, reading)?;
        let objects = objects
            .query_map(params![token], |row| row.get::<_, String>(0))
            .context(ErrorKind::Other, reading)?;
        for object in objects {
            let object = Attributes::parse(&object.context(ErrorKind::Other, reading)?)?;
            if !object.is_our_key() {
                continue;
            }
            return Ok(Self {
                seal,
                key: [object.bytes(PUBLIC)?, object.bytes(PRIVATE)?],
                salt,
                wrapped_auth: String::from_utf8(object.bytes(WRAPPED_AUTH)?)
                    .context(ErrorKind::Other, reading)?,
            });
        }
        Err(Error::other(format!("{}: it is not there", reading())))
    }

    /// The sealed object's authorization value: the first half of SHA-256 of PIN and salt, in hexadecimal digits.
    pub fn seal_auth(&self, pin: &Pin) -> Zeroizing<Vec<u8>> {
        let mut hash = Sha256::new();
        hash.update(pin.expose().as_bytes());
        hash.update(self.salt.as_bytes());
        let digest = Zeroizing::new(hash.finish());
        Zeroizing::new(to_hex(&digest[..PIN_HASH]).into_bytes())
    }

    /// The key's authorization value, decrypted with the unsealed wrapping key.
    pub fn key_auth(&self, unsealed: &[u8]) -> Result<Zeroizing<Vec<u8>>> {
        let wrong =
            || Error::other("the key's authorization value in the token's store is damaged");
        let wrapping_key = std::str::from_utf8(unsealed)
            .ok()
            .and_then(from_hex)
            .map(Zeroizing::new)
            .filter(|key| key.len() == WRAPPING_KEY)
            .ok_or_else(wrong)?;
        let mut parts = self.wrapped_auth.split(':').map(from_hex);
        let (Some(Some(nonce)), Some(Some(tag)), Some(Some(wrapped)), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(wrong());
        };
        // OpenSSL would accept a truncated tag.
        if (nonce.len(), tag.len()) != (12, 16) {
            return Err(wrong());
        }
        let cipher = Cipher::aes_256_gcm();
        decrypt_aead(cipher, &wrapping_key, Some(&nonce), &[], &wrapped, &tag)
            .map(Zeroizing::new)
            .map_err(|_| wrong())
    }
}

/// An object's attributes: numbers and their values, binary ones as hexadecimal digits. Lists are left out.
struct Attributes(Vec<(String, String)>);

impl Attributes {
    fn parse(yaml: &str) -> Result<Self> {
        let mut attributes = Vec::new();
        let (mut depth, mut key) = (0, None);
        for event in Parser::new_from_str(yaml) {
            let event = event.context(ErrorKind::Other, || {
                "cannot read an object of the token's store".to_owned()
            })?;
            match event.0 {
                Event::MappingStart(..) | Event::SequenceStart(..) => depth += 1,
                Event::MappingEnd | Event::SequenceEnd => {
                    depth -= 1;
                    // A list was the value.
                    key = None;
                }
                Event::Scalar(text, ..) if depth == 1 => match key.take() {
                    None => key = Some(text.into_owned()),
                    Some(key) => attributes.push((key, text.into_owned())),
                },
                _ => {}
            }
        }
        Ok(Self(attributes))
    }

    fn is_our_key(&self) -> bool {
        self.get(CLASS) == Some(PRIVATE_KEY)
            && self.get(LABEL) == Some(&to_hex(OBJECT_LABEL.as_bytes()))
    }

    fn get(&self, attribute: &str) -> Option<&str> {
        let mut all = self.0.iter();
        all.find_map(|(name, value)| (name == attribute).then_some(value.as_str()))
    }

    fn bytes(&self, attribute: u32) -> Result<Vec<u8>> {
        self.get(&attribute.to_string())
            .and_then(from_hex)
            .filter(|bytes| !bytes.is_empty())
            .ok_or_else(|| {
                Error::other(format!(
                    "the key in the token's store has no attribute {attribute:#x}: was it created by another library?"
                ))
            })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use openssl::symm::encrypt_aead;

    use super::*;

    /// As emitter.c writes it, canonical.
    const OBJECT: &str = "%YAML 1.1\n---\n!!map {\n    ? !!int \"0\"\n    : !!int \"3\",\n    ? !!int \"1073741861\"\n    \
        : !!seq [\n        !!int \"4161\",\n    ],\n    ? !!int \"3\"\n    : !!str \"677265656e6b6579\",\n    \
        ? !!int \"2399141889\"\n    : !!str \"6162\",\n    ? !!int \"2399141890\"\n    : !!str \"\",\n}\n...\n";

    #[test]
    fn an_object_of_the_store_is_read() {
        let object = Attributes::parse(OBJECT).unwrap();
        assert!(object.is_our_key());
        assert_eq!(object.bytes(WRAPPED_AUTH).unwrap(), b"ab");
        let missing = object.bytes(PUBLIC).unwrap_err().to_string();
        assert!(missing.contains("0x8f000002"), "{missing}");
        let other = OBJECT.replace("677265656e6b6579", "00");
        assert!(!Attributes::parse(&other).unwrap().is_our_key());
        assert!(Attributes::parse("{ a: [").is_err());
    }

    #[test]
    fn the_authorization_value_is_unwrapped_or_refused() {
        let (key, mut tag) = ([7; WRAPPING_KEY], [0; 16]);
        let cipher = Cipher::aes_256_gcm();
        let wrapped = encrypt_aead(cipher, &key, Some(&[1; 12]), &[], b"value", &mut tag).unwrap();
        let [nonce, tag, wrapped] = [&[1; 12][..], &tag, &wrapped].map(to_hex);
        let stored = |wrapped_auth: String| StoredKey {
            seal: Default::default(),
            key: Default::default(),
            salt: "00".into(),
            wrapped_auth,
        };
        let unsealed = to_hex(&key).into_bytes();
        let good = stored(format!("{nonce}:{tag}:{wrapped}"));
        assert_eq!(good.key_auth(&unsealed).unwrap()[..], *b"value");
        assert!(good.key_auth(&unsealed[2..]).is_err());
        assert!(good.key_auth(b"\xFF").is_err());
        for bad in [
            format!("{nonce}:{tag}"),
            format!("{nonce}:{}:{wrapped}", &tag[2..]),
            format!("{nonce}::{wrapped}"),
            format!("{nonce}:{tag}:{wrapped}:"),
            format!("{nonce}:{tag}:00{wrapped}"),
        ] {
            assert!(stored(bad.clone()).key_auth(&unsealed).is_err(), "{bad}");
        }
    }

    /// SHA-256 of "0123" and the salt "00", by sha256sum.
    #[test]
    fn pin_and_salt_make_the_sealed_objects_authorization_value() {
        let stored = StoredKey {
            seal: Default::default(),
            key: Default::default(),
            salt: "00".into(),
            wrapped_auth: String::new(),
        };
        let pin = Pin::parse(b"0123".to_vec()).unwrap();
        assert_eq!(
            stored.seal_auth(&pin)[..],
            *b"6eabb596c29881eb737353e3efa53c53"
        );
    }
}
