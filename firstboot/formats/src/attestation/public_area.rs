//! The public area of the device's key, TPMT_PUBLIC (TPM 2.0 Library, Part 2 §12.2.4): the key's Name is a hash of it,
//! and so commits to all of it.
//!
//! It is parsed strictly: only the two forms that firstboot makes, and nothing after them.

use crate::digest::sha256;
use crate::public_key::{KeyType, PublicKey};

/// TPM_ALG_ID (TPM 2.0 Library, Part 2 §6.3).
const ALG_RSA: u16 = 0x0001;
const ALG_SHA256: u16 = 0x000B;
const ALG_NULL: u16 = 0x0010;
const ALG_ECC: u16 = 0x0023;
/// TPM_ECC_NIST_P256 (Part 2 §6.4).
const CURVE_P256: u16 = 0x0003;
/// Bytes of a P-256 coordinate and of an RSA-2048 modulus.
const COORDINATE: usize = 32;
const MODULUS: usize = 256;
/// What a public exponent of 0 stands for (Part 2 §12.2.3.5, TPMS_RSA_PARMS).
const USUAL_EXPONENT: u32 = 0x1_0001;

/// TPMA_OBJECT (Part 2 §8.3) of a key that the TPM generated and never exports: fixedTPM, fixedParent,
/// sensitiveDataOrigin, userWithAuth, decrypt and sign, as tpm2-pkcs11 asks for. With fixedTPM clear, the private key
/// may be known elsewhere; restricted keys cannot sign for TLS.
pub const KEY_ATTRIBUTES: u32 = 1 << 1 | 1 << 4 | 1 << 5 | 1 << 6 | 1 << 17 | 1 << 18;

/// Bytes of a Name with SHA-256: the algorithm, and the hash of the public area (Part 1 §16).
pub const NAME_SIZE: usize = 2 + 32;

/// A key's public area.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicArea {
    bytes: Vec<u8>,
    attributes: u32,
    auth_policy: Vec<u8>,
    key_type: KeyType,
    public_key: PublicKey,
}

impl PublicArea {
    /// Reads a TPMT_PUBLIC, without the size that a TPM2B_PUBLIC has before it. The error says what is wrong.
    pub fn parse(bytes: &[u8]) -> Result<Self, String> {
        let rest = &mut Reader(bytes);
        let kind = rest.number()?;
        let name_algorithm = rest.number()?;
        if name_algorithm != ALG_SHA256 {
            return Err(format!(
                "its name algorithm is {name_algorithm:#06x}, not SHA-256 (0x000b)"
            ));
        }
        let attributes = u32::from(rest.number()?) << 16 | u32::from(rest.number()?);
        let auth_policy = rest.tpm2b()?.to_vec();
        rest.expect(ALG_NULL, "symmetric algorithm")?;
        rest.expect(ALG_NULL, "scheme")?;
        let (key_type, public_key) = match kind {
            ALG_ECC => (KeyType::EccP256, rest.ecc()?),
            ALG_RSA => (KeyType::Rsa2048, rest.rsa()?),
            other => return Err(format!("its type, {other:#06x}, is neither ECC nor RSA")),
        };
        if !rest.0.is_empty() {
            return Err(format!("it has trailing bytes: {}", rest.0.len()));
        }
        Ok(Self {
            bytes: bytes.to_vec(),
            attributes,
            auth_policy,
            key_type,
            public_key,
        })
    }

    /// The TPM's Name of the key: 0x000B (SHA-256) and the hash of the public area.
    pub fn name(&self) -> [u8; NAME_SIZE] {
        let mut name = [0; NAME_SIZE];
        let (algorithm, digest) = name.split_at_mut(2);
        algorithm.copy_from_slice(&ALG_SHA256.to_be_bytes());
        digest.copy_from_slice(&sha256(&self.bytes));
        name
    }

    /// TPMA_OBJECT; it has to be [`KEY_ATTRIBUTES`].
    pub fn attributes(&self) -> u32 {
        self.attributes
    }

    /// The digest of the policy under which the key can be used; empty if there is none.
    pub fn auth_policy(&self) -> &[u8] {
        &self.auth_policy
    }

    /// RSA or ECC.
    pub fn key_type(&self) -> KeyType {
        self.key_type
    }

    /// The key itself, as in a certificate.
    pub fn public_key(&self) -> &PublicKey {
        &self.public_key
    }

    /// The TPMT_PUBLIC, as it was read.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

/// The unread rest. Numbers are big endian (Part 1 §5.4).
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], String> {
        let (taken, rest) = self
            .0
            .split_at_checked(count)
            .ok_or("it ends too early: is it a TPMT_PUBLIC, without TPM2B_PUBLIC's size?")?;
        self.0 = rest;
        Ok(taken)
    }

    fn number(&mut self) -> Result<u16, String> {
        let bytes = self.take(2)?;
        Ok(bytes.iter().fold(0, |n, &b| n << 8 | u16::from(b)))
    }

    /// A TPM2B: its size in two bytes, then its bytes.
    fn tpm2b(&mut self) -> Result<&'a [u8], String> {
        let size = self.number()?;
        self.take(size.into())
    }

    fn expect(&mut self, wanted: u16, what: &str) -> Result<(), String> {
        match self.number()? {
            found if found == wanted => Ok(()),
            found => Err(format!("its {what} is {found:#06x}, not {wanted:#06x}")),
        }
    }

    /// The rest of TPMS_ECC_PARMS (§12.2.3.6), and TPMS_ECC_POINT (§11.2.5.2).
    fn ecc(&mut self) -> Result<PublicKey, String> {
        self.expect(CURVE_P256, "curve")?;
        self.expect(ALG_NULL, "key derivation")?;
        let mut point = vec![4]; // uncompressed (SEC 1 §2.3.3)
        for _ in 0..2 {
            let coordinate = self.tpm2b()?;
            let zeros = COORDINATE
                .checked_sub(coordinate.len())
                .ok_or("a coordinate is longer than 32 bytes")?;
            point.resize(point.len() + zeros, 0);
            point.extend(coordinate);
        }
        PublicKey::from_p256_point(&point).map_err(|_| "its point is not on P-256".into())
    }

    /// The rest of TPMS_RSA_PARMS (§12.2.3.5), and TPM2B_PUBLIC_KEY_RSA (§11.2.4.5).
    fn rsa(&mut self) -> Result<PublicKey, String> {
        self.expect(8 * MODULUS as u16, "key size")?;
        let exponent = match u32::from(self.number()?) << 16 | u32::from(self.number()?) {
            0 | USUAL_EXPONENT => USUAL_EXPONENT.to_be_bytes(),
            other => return Err(format!("its public exponent is {other}, not 65537")),
        };
        let modulus = self.tpm2b()?;
        if modulus.len() != MODULUS || modulus.first().is_none_or(|&b| b < 0x80) {
            return Err("its modulus is not 2048 bits long".into());
        }
        PublicKey::from_rsa(modulus, &exponent).map_err(|e| e.to_string())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use openssl::bn::{BigNum, BigNumContext};
    use openssl::ec::{EcGroup, EcKey};
    use openssl::nid::Nid;
    use openssl::rsa::Rsa;

    use super::*;

    /// Public areas of new keys, as tpm2-pkcs11 has the TPM make them.
    fn ecc() -> Vec<u8> {
        let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1).unwrap();
        let key = EcKey::generate(&group).unwrap();
        let (mut x, mut y) = (BigNum::new().unwrap(), BigNum::new().unwrap());
        key.public_key()
            .affine_coordinates(&group, &mut x, &mut y, &mut BigNumContext::new().unwrap())
            .unwrap();
        let head = "0023000b00060072 0000 0010 0010 0003 0010";
        let mut area = digits(head);
        for coordinate in [x, y] {
            area.extend([0, 32]);
            area.extend(coordinate.to_vec_padded(32).unwrap());
        }
        area
    }

    fn rsa() -> Vec<u8> {
        let mut area = digits("0001000b00060072 0000 0010 0010 0800 00000000 0100");
        area.extend(Rsa::generate(2048).unwrap().n().to_vec());
        area
    }

    fn digits(text: &str) -> Vec<u8> {
        super::super::encoding::from_hex(&text.replace(' ', "")).unwrap()
    }

    #[test]
    fn both_shapes_are_read() {
        for (area, key) in [(ecc(), KeyType::EccP256), (rsa(), KeyType::Rsa2048)] {
            let read = PublicArea::parse(&area).unwrap();
            assert_eq!(read.attributes(), KEY_ATTRIBUTES);
            assert_eq!(read.attributes(), 0x60072);
            assert!(read.auth_policy().is_empty());
            assert_eq!(read.key_type(), key);
            assert_eq!(read.public_key().key_type(), Some(key));
            assert_eq!(read.name()[..2], [0, 0x0B]);
            assert_eq!(read.name()[2..], sha256(&area));
        }
    }

    #[test]
    fn attributes_and_policy_are_told() {
        let area = ecc();
        let mut exportable = area.clone();
        exportable[7] &= !2;
        assert_eq!(
            PublicArea::parse(&exportable).unwrap().attributes(),
            0x60070
        );
        let mut with_policy = area[..8].to_vec();
        with_policy.extend([0, 32]);
        with_policy.extend([7; 32]);
        with_policy.extend(&area[10..]);
        assert_eq!(
            PublicArea::parse(&with_policy).unwrap().auth_policy(),
            [7; 32]
        );
    }

    #[test]
    fn anything_else_is_refused_with_the_reason() {
        let refused = |area: &[u8]| PublicArea::parse(area).unwrap_err();
        for area in [ecc(), rsa()] {
            for length in 0..area.len() {
                assert!(refused(&area[..length]).contains("too early"), "{length}");
            }
            let longer = [&area[..], &[0]].concat();
            assert!(refused(&longer).contains("trailing bytes: 1"));
            let with_size = [&(area.len() as u16).to_be_bytes()[..], &area].concat();
            PublicArea::parse(&with_size).unwrap_err();
            let changed = |at: usize, to: u8| {
                let mut area = area.clone();
                area[at] = to;
                refused(&area)
            };
            assert!(changed(1, 0x08).contains("neither ECC nor RSA"));
            assert!(changed(3, 0x04).contains("SHA-256"));
            assert!(changed(11, 0x06).contains("symmetric"));
            assert!(changed(13, 0x18).contains("scheme"));
        }
        let mut elsewhere = ecc();
        let last = elsewhere.len() - 1;
        elsewhere[last] ^= 1;
        assert!(refused(&elsewhere).contains("not on P-256"));
        let mut p384 = ecc();
        p384[15] = 4;
        assert!(refused(&p384).contains("curve"));
        let mut cubed = rsa();
        cubed[19] = 3;
        assert!(refused(&cubed).contains("exponent"));
        let mut short = rsa();
        short[22] = 0x7F;
        assert!(refused(&short).contains("2048 bits"));
    }
}
