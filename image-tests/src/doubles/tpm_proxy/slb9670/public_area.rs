//! The keys that the chip supports, by the public area of a template or of a key to load.
//!
//! Layout: TPM 2.0 Part 2, §12.2 (TPMT_PUBLIC, TPMU_PUBLIC_PARMS), §11.1 (symmetric), §11.2
//! (schemes). Checked in the order in which a TPM unmarshals it.

use super::Slb9670;
use crate::doubles::tpm_proxy::wire::{Command, Fields};

/// TPM_ALG_ID: Part 2, §6.3.
pub const ALG_RSA: u16 = 0x01;
pub const ALG_ECC: u16 = 0x23;
const ALG_SHA1: u16 = 0x04;
const ALG_AES: u16 = 0x06;
const ALG_KEYEDHASH: u16 = 0x08;
const ALG_XOR: u16 = 0x0A;
const ALG_SHA256: u16 = 0x0B;
const ALG_NULL: u16 = 0x10;
const ALG_RSAES: u16 = 0x15;
const ALG_ECDSA: u16 = 0x18;
const ALG_ECDH: u16 = 0x19;
const ALG_ECDAA: u16 = 0x1A;
const ALG_SYMCIPHER: u16 = 0x25;
const ALG_CFB: u16 = 0x43;

/// TPM_ECC_NIST_P256 and TPM_ECC_BN_P256: Part 2, §6.4.
const NIST_P256: u16 = 0x03;
const BN_P256: u16 = 0x10;
const AES_BITS: u16 = 128;
const RSA_BITS: [u16; 2] = [1024, 2048];
/// The chip's hashes, which are also its PCR banks.
pub const HASHES: [u16; 2] = [ALG_SHA1, ALG_SHA256];

/// TPM_RC of Part 2, §6.6.3, format one, without the parameter's number.
pub const RC_HASH: u32 = 0x083;
const RC_KEY_SIZE: u32 = 0x087;
const RC_MODE: u32 = 0x089;
const RC_SCHEME: u32 = 0x092;
const RC_SYMMETRIC: u32 = 0x096;

/// TPMI_ALG_PUBLIC of the public area in the command. That is always the second parameter, after a TPM2B whose size is
/// readable even if its content is encrypted.
pub fn public_type(command: &Command) -> Option<u16> {
    Fields(public_area(command)?).u16()
}

pub fn public_area<'a>(command: &Command<'a>) -> Option<&'a [u8]> {
    let mut parameters = command.parameters;
    parameters.tpm2b()?;
    parameters.tpm2b()
}

/// The response code for an unsupported TPMT_PUBLIC. `None` for a malformed one, which swtpm refuses.
pub fn refused(chip: &Slb9670, public: &[u8]) -> Option<u32> {
    let mut fields = Fields(public);
    let kind = fields.u16()?;
    let name_hash = fields.u16()?;
    let _attributes = fields.u32()?;
    let _policy = fields.tpm2b()?;
    hash(name_hash).or_else(|| refused_parameters(chip, kind, &mut fields))
}

/// The response code for unsupported TPMU_PUBLIC_PARMS of a key of this type.
pub fn refused_parameters(chip: &Slb9670, kind: u16, fields: &mut Fields) -> Option<u32> {
    match kind {
        ALG_RSA => {
            let symmetric = symmetric(fields)?;
            let scheme = scheme(fields)?;
            let bits = fields.u16()?;
            let size = (!RSA_BITS.contains(&bits)).then_some(chip.unknown_rsa_size);
            symmetric.code().or(scheme.hash_refused).or(size)
        }
        ALG_ECC => {
            let symmetric = symmetric(fields)?;
            let scheme = scheme(fields)?;
            let curve = fields.u16()?;
            let unknown = (![NIST_P256, BN_P256].contains(&curve)).then_some(chip.unknown_curve);
            let usable = match scheme.algorithm {
                ALG_ECDSA => curve != BN_P256,
                ALG_NULL | ALG_ECDAA | ALG_ECDH => true,
                _ => false,
            };
            let unusable = (!usable).then_some(RC_SCHEME);
            symmetric
                .code()
                .or(unknown)
                .or(unusable)
                .or(scheme.hash_refused)
        }
        ALG_SYMCIPHER => symmetric(fields)?.code(),
        ALG_KEYEDHASH => scheme(fields)?.hash_refused,
        _ => None,
    }
}

/// The same for a session's symmetric algorithm: as a key's, or XOR with a hash.
pub fn refused_session_cipher(fields: &mut Fields) -> Option<u32> {
    let mut ahead = *fields;
    if ahead.u16()? == ALG_XOR {
        let hash_id = ahead.u16()?;
        *fields = ahead;
        return hash(hash_id);
    }
    symmetric(fields)?.code()
}

pub fn hash(id: u16) -> Option<u32> {
    (!HASHES.contains(&id) && id != ALG_NULL).then_some(RC_HASH)
}

/// The response code for a symmetric definition; zero if it is supported.
struct Symmetric(u32);

impl Symmetric {
    fn code(&self) -> Option<u32> {
        (self.0 != 0).then_some(self.0)
    }
}

fn symmetric(fields: &mut Fields) -> Option<Symmetric> {
    let algorithm = fields.u16()?;
    if algorithm == ALG_NULL {
        return Some(Symmetric(0));
    }
    let bits = fields.u16()?;
    let mode = fields.u16()?;
    Some(Symmetric(match (algorithm, bits, mode) {
        (ALG_AES, AES_BITS, ALG_CFB | ALG_NULL) => 0,
        (ALG_AES, AES_BITS, _) => RC_MODE,
        (ALG_AES, ..) => RC_KEY_SIZE,
        _ => RC_SYMMETRIC,
    }))
}

struct Scheme {
    algorithm: u16,
    hash_refused: Option<u32>,
}

/// TPMT_RSA_SCHEME, TPMT_ECC_SCHEME or TPMT_KEYEDHASH_SCHEME.
fn scheme(fields: &mut Fields) -> Option<Scheme> {
    let algorithm = fields.u16()?;
    let hash_refused = match algorithm {
        ALG_NULL | ALG_RSAES => None,
        _ => hash(fields.u16()?),
    };
    if algorithm == ALG_ECDAA {
        let _count = fields.u16()?;
    }
    Some(Scheme {
        algorithm,
        hash_refused,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doubles::tpm_proxy::slb9670::{Firmware, RC_CURVE, RC_VALUE};

    fn verdict(kind: u16, words: &[u16]) -> Option<u32> {
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_be_bytes()).collect();
        refused_parameters(&Slb9670::new(Firmware::V7_85), kind, &mut Fields(&bytes))
    }

    #[test]
    fn keys_of_the_chip_pass_and_others_do_not() {
        let cases: &[(u16, &[u16], Option<u32>)] = &[
            (ALG_ECC, &[ALG_NULL, ALG_NULL, NIST_P256, ALG_NULL], None),
            (
                ALG_ECC,
                &[ALG_AES, 128, ALG_CFB, ALG_NULL, NIST_P256, ALG_NULL],
                None,
            ),
            (
                ALG_ECC,
                &[ALG_AES, 256, ALG_CFB, ALG_NULL, NIST_P256, ALG_NULL],
                Some(RC_KEY_SIZE),
            ),
            (ALG_ECC, &[ALG_NULL, ALG_NULL, 4, ALG_NULL], Some(RC_CURVE)),
            (
                ALG_ECC,
                &[ALG_NULL, ALG_ECDSA, ALG_SHA256, BN_P256, ALG_NULL],
                Some(RC_SCHEME),
            ),
            (
                ALG_ECC,
                &[ALG_NULL, ALG_ECDSA, 0x0C, NIST_P256, ALG_NULL],
                Some(RC_HASH),
            ),
            (ALG_RSA, &[ALG_NULL, ALG_NULL, 2048, 0, 0], None),
            (ALG_RSA, &[ALG_NULL, ALG_NULL, 3072, 0, 0], Some(RC_VALUE)),
            (ALG_KEYEDHASH, &[ALG_NULL], None),
            (ALG_SYMCIPHER, &[ALG_AES, 128, ALG_CFB], None),
            (ALG_SYMCIPHER, &[ALG_AES, 128, 0x42], Some(RC_MODE)),
        ];
        for (kind, words, expected) in cases {
            assert_eq!(verdict(*kind, words), *expected, "{kind:#x} {words:x?}");
        }
    }
}
