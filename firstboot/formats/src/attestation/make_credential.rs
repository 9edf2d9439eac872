//! TPM2_MakeCredential in software (TPM 2.0 Library, Part 1 §24, "Credential Protection"): the station has no TPM.
//!
//! For endorsement keys of the templates L-1 and L-2 (TCG EK Credential Profile, Annex B): RSA-2048 or P-256,
//! SHA-256 as the name algorithm, AES-128 in CFB mode.

use openssl::bn::{BigNum, BigNumContext};
use openssl::derive::Deriver;
use openssl::ec::{EcGroup, EcKey, EcKeyRef};
use openssl::encrypt::Encrypter;
use openssl::error::ErrorStack;
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::{HasPublic, Id, PKey, PKeyRef, Private, Public};
use openssl::rand::rand_bytes;
use openssl::rsa::Padding;
use openssl::sha::Sha256;
use openssl::sign::Signer;
use openssl::symm::{Cipher, encrypt};
use zeroize::Zeroizing;

use super::{CREDENTIAL_SIZE, NAME_SIZE};

/// The label by which a seed is exchanged for a credential, with its terminating zero (Part 1 §24.4).
const IDENTITY: &[u8] = b"IDENTITY\0";
/// Bytes of a seed, of an HMAC key (both as long as the EK's name algorithm's digest), and of a P-256 coordinate.
const DIGEST: usize = 32;
/// Bytes of an AES-128 key, and bits of an RSA EK.
const AES_KEY: usize = 16;
const RSA_BITS: u32 = 2048;

/// A secret as long as a digest.
pub(super) type Secret = Zeroizing<[u8; DIGEST]>;

/// The public endorsement key, from its certificate.
#[derive(Clone, Debug)]
pub struct EkPublic(PKey<Public>);

impl EkPublic {
    /// Accepts RSA-2048 and P-256. The error says what the key is instead.
    pub fn new(key: PKey<Public>) -> Result<Self, String> {
        match key.id() {
            Id::RSA if key.bits() == RSA_BITS => Ok(Self(key)),
            Id::RSA => Err(format!(
                "its EK is an RSA key of {} bits, not 2048",
                key.bits()
            )),
            Id::EC => {
                let curve = key.ec_key().ok().and_then(|key| key.group().curve_name());
                match curve {
                    Some(Nid::X9_62_PRIME256V1) => Ok(Self(key)),
                    _ => Err("its EK is on another curve, not P-256".into()),
                }
            }
            _ => Err("its EK is neither RSA nor on P-256".into()),
        }
    }

    /// The key.
    pub fn key(&self) -> &PKeyRef<Public> {
        &self.0
    }
}

/// TPM2B_ID_OBJECT and TPM2B_ENCRYPTED_SECRET, each with its size: the TPM with this EK releases the credential for
/// them, and only while an object with this Name is loaded in it.
pub fn make_credential(
    ek: &EkPublic,
    name: &[u8; NAME_SIZE],
    credential: &[u8; CREDENTIAL_SIZE],
) -> Result<(Vec<u8>, Vec<u8>), String> {
    let attempt = || -> Result<_, ErrorStack> {
        let (seed, secret) = match ek.0.id() {
            Id::RSA => rsa_seed(&ek.0)?,
            _ => ecc_seed(&ek.0, EcKey::generate(ek.0.ec_key()?.group())?)?,
        };
        Ok((id_object(&seed, name, credential)?, tpm2b(&secret)))
    };
    attempt().map_err(|e| format!("cannot make a credential for this EK: {e}"))
}

/// TPM2B_ID_OBJECT, with its size: encrypt, then MAC with the Name (Part 1 §24.4 and §24.5).
pub(super) fn id_object(
    seed: &Secret,
    name: &[u8; NAME_SIZE],
    credential: &[u8; CREDENTIAL_SIZE],
) -> Result<Vec<u8>, ErrorStack> {
    let key = storage_key(seed, name)?;
    let encrypted = encrypt(
        Cipher::aes_128_cfb128(),
        &key[..AES_KEY],
        Some(&[0; 16]),
        &tpm2b(credential),
    )?;
    let integrity = hmac(&integrity_key(seed)?[..], &[&encrypted, name])?;
    Ok(tpm2b(&[tpm2b(&integrity[..]), encrypted].concat()))
}

/// The key that encrypts the credential: an AES key, followed by as many unused bytes.
pub(super) fn storage_key(seed: &Secret, name: &[u8; NAME_SIZE]) -> Result<Secret, ErrorStack> {
    kdfa(seed, b"STORAGE\0", name, 8 * AES_KEY as u32)
}

/// The key that authenticates it.
pub(super) fn integrity_key(seed: &Secret) -> Result<Secret, ErrorStack> {
    kdfa(seed, b"INTEGRITY\0", b"", 8 * DIGEST as u32)
}

/// A random seed, encrypted to the EK: RSAES-OAEP with SHA-256 (Part 1 §B.10.3).
fn rsa_seed(ek: &PKeyRef<Public>) -> Result<(Secret, Vec<u8>), ErrorStack> {
    let mut seed = Secret::default();
    rand_bytes(&mut seed[..])?;
    let mut encrypter = Encrypter::new(ek)?;
    encrypter.set_rsa_padding(Padding::PKCS1_OAEP)?;
    encrypter.set_rsa_oaep_md(MessageDigest::sha256())?;
    encrypter.set_rsa_mgf1_md(MessageDigest::sha256())?;
    encrypter.set_rsa_oaep_label(IDENTITY)?;
    let mut secret = vec![0; encrypter.encrypt_len(&seed[..])?];
    let length = encrypter.encrypt(&seed[..], &mut secret)?;
    secret.truncate(length);
    Ok((seed, secret))
}

/// A seed from an ephemeral key and the EK: one-pass ECDH (Part 1 §C.6.1). The ephemeral key's point is sent along as a
/// TPMS_ECC_POINT.
pub(super) fn ecc_seed(
    ek: &PKeyRef<Public>,
    ephemeral: EcKey<Private>,
) -> Result<(Secret, Vec<u8>), ErrorStack> {
    let [x, y] = coordinates(&ephemeral)?;
    let ek_point = ek.ec_key()?;
    let [ek_x, _] = coordinates(&ek_point)?;
    let seed = kdfe(&agree(PKey::from_ec_key(ephemeral)?, ek)?, &x, &ek_x);
    Ok((seed, [tpm2b(&x), tpm2b(&y)].concat()))
}

/// The x-coordinate of the shared point, in 32 bytes.
fn agree(own: PKey<Private>, other: &PKeyRef<Public>) -> Result<Zeroizing<Vec<u8>>, ErrorStack> {
    let mut deriver = Deriver::new(&own)?;
    deriver.set_peer(other)?;
    deriver.derive_to_vec().map(Zeroizing::new)
}

fn coordinates<T: HasPublic>(key: &EcKeyRef<T>) -> Result<[Vec<u8>; 2], ErrorStack> {
    let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1)?;
    let (mut x, mut y) = (BigNum::new()?, BigNum::new()?);
    let context = &mut *BigNumContext::new()?;
    key.public_key()
        .affine_coordinates(&group, &mut x, &mut y, context)?;
    // A coordinate on P-256 always fits into 32 bytes.
    Ok([
        x.to_vec_padded(DIGEST as i32)?,
        y.to_vec_padded(DIGEST as i32)?,
    ])
}

/// KDFe with SHA-256 (Part 1 §11.4.10.3, after SP 800-56A): a seed of 256 bits needs one round.
fn kdfe(z: &[u8], party_u: &[u8], party_v: &[u8]) -> Secret {
    let mut hash = Sha256::new();
    for part in [&1u32.to_be_bytes(), z, IDENTITY, party_u, party_v] {
        hash.update(part);
    }
    Zeroizing::new(hash.finish())
}

/// KDFa with SHA-256 (Part 1 §11.4.10.2, after SP 800-108 in counter mode) for at most 256 bits, the first of one
/// round. The label is given with its terminating zero; contextV is empty here.
fn kdfa(key: &Secret, label: &[u8], context: &[u8], bits: u32) -> Result<Secret, ErrorStack> {
    let counter = 1u32.to_be_bytes();
    hmac(&key[..], &[&counter, label, context, &bits.to_be_bytes()])
}

fn hmac(key: &[u8], parts: &[&[u8]]) -> Result<Secret, ErrorStack> {
    let key = PKey::hmac(key)?;
    let mut signer = Signer::new(MessageDigest::sha256(), &key)?;
    for part in parts {
        signer.update(part)?;
    }
    let mut digest = Secret::default();
    signer.sign(&mut digest[..])?;
    Ok(digest)
}

/// A TPM2B: the size in two bytes, then the bytes. Nothing here is longer than an RSA modulus.
pub(super) fn tpm2b(bytes: &[u8]) -> Vec<u8> {
    [&(bytes.len() as u16).to_be_bytes()[..], bytes].concat()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
pub(super) mod tests {
    use openssl::ec::EcPoint;
    use openssl::encrypt::Decrypter;
    use openssl::rsa::Rsa;
    use openssl::symm::decrypt;

    use super::*;

    /// The public half of an EK.
    pub(in super::super) fn ek(key: &PKey<Private>) -> EkPublic {
        let spki = key.public_key_to_der().unwrap();
        EkPublic::new(PKey::public_key_from_der(&spki).unwrap()).unwrap()
    }

    /// TPM2_ActivateCredential in software; `None` where the TPM returns TPM_RC_INTEGRITY. image-tests (tests/station)
    /// checks the code above against a TPM.
    pub(in super::super) fn activate(
        ek: &PKey<Private>,
        name: &[u8],
        blob: &[u8],
        secret: &[u8],
    ) -> Option<Vec<u8>> {
        let seed = match ek.id() {
            Id::RSA => {
                let mut decrypter = Decrypter::new(ek).unwrap();
                decrypter.set_rsa_padding(Padding::PKCS1_OAEP).unwrap();
                decrypter.set_rsa_oaep_md(MessageDigest::sha256()).unwrap();
                decrypter.set_rsa_mgf1_md(MessageDigest::sha256()).unwrap();
                decrypter.set_rsa_oaep_label(IDENTITY).unwrap();
                let mut seed = vec![0; decrypter.decrypt_len(&secret[2..]).unwrap()];
                assert_eq!(decrypter.decrypt(&secret[2..], &mut seed).unwrap(), DIGEST);
                Zeroizing::new(seed[..DIGEST].try_into().unwrap())
            }
            _ => {
                let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1).unwrap();
                let point = [&[4], &secret[4..36], &secret[38..]].concat();
                let context = &mut *BigNumContext::new().unwrap();
                let point = EcPoint::from_bytes(&group, &point, context).ok()?;
                let ephemeral = EcKey::from_public_key(&group, &point).unwrap();
                let [ek_x, _] = coordinates(&ek.ec_key().unwrap()).unwrap();
                let ephemeral = PKey::from_ec_key(ephemeral).unwrap();
                let z = agree(ek.clone(), &ephemeral).unwrap();
                kdfe(&z, &secret[4..36], &ek_x)
            }
        };
        let (integrity, encrypted) = blob[4..].split_at(DIGEST);
        let key = kdfa(&seed, b"INTEGRITY\0", b"", 256).unwrap();
        if hmac(&key[..], &[encrypted, name]).unwrap()[..] != *integrity {
            return None;
        }
        let key = kdfa(&seed, b"STORAGE\0", name, 128).unwrap();
        let iv = Some(&[0; 16][..]);
        let clear = decrypt(Cipher::aes_128_cfb128(), &key[..16], iv, encrypted).unwrap();
        Some(clear[2..].to_vec())
    }

    #[test]
    fn only_this_ek_and_this_name_give_the_credential() {
        let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1).unwrap();
        let p256 = || PKey::from_ec_key(EcKey::generate(&group).unwrap()).unwrap();
        let rsa = PKey::from_rsa(Rsa::generate(2048).unwrap()).unwrap();
        for (key, size) in [(p256(), 70), (rsa, 258)] {
            let (blob, secret) = make_credential(&ek(&key), &[7; NAME_SIZE], &[9; 32]).unwrap();
            assert_eq!((blob.len(), secret.len()), (70, size));
            assert_eq!(blob[..2], 68u16.to_be_bytes());
            let activated = activate(&key, &[7; NAME_SIZE], &blob, &secret);
            assert_eq!(activated.unwrap(), [9; 32]);
            assert!(activate(&key, &[8; NAME_SIZE], &blob, &secret).is_none());
            if size == 70 {
                assert!(activate(&p256(), &[7; NAME_SIZE], &blob, &secret).is_none());
            }
        }
    }

    #[test]
    fn other_endorsement_keys_are_refused_with_the_reason() {
        let refused = |key: PKey<Private>| {
            let spki = key.public_key_to_der().unwrap();
            EkPublic::new(PKey::public_key_from_der(&spki).unwrap()).unwrap_err()
        };
        let rsa = Rsa::generate(1024).unwrap();
        assert!(refused(PKey::from_rsa(rsa).unwrap()).contains("1024 bits"));
        let group = EcGroup::from_curve_name(Nid::SECP384R1).unwrap();
        let p384 = EcKey::generate(&group).unwrap();
        assert!(refused(PKey::from_ec_key(p384).unwrap()).contains("another curve"));
        assert!(refused(PKey::generate_ed25519().unwrap()).contains("neither"));
    }
}
