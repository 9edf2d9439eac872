//! The endorsement key's certificate, by which the TPM's maker tells one TPM from another.

use tss_esapi::abstraction::AsymmetricAlgorithmSelection;
use tss_esapi::abstraction::ek::retrieve_ek_pubcert;
use tss_esapi::constants::CapabilityType;
use tss_esapi::interface_types::ecc::EccCurve;
use tss_esapi::interface_types::key_bits::RsaKeyBits;
use tss_esapi::structures::CapabilityData;

use super::{Tpm, failed};
use crate::error::{Error, Result};

/// NV indices of EK certificates (TCG EK Credential Profile 2.6, §2.2.1.4 and §2.2.1.5.2), the cheaper
/// key's first.
const PLACES: [(u32, AsymmetricAlgorithmSelection); 2] = [
    (
        0x01C0_000A,
        AsymmetricAlgorithmSelection::Ecc(EccCurve::NistP256),
    ),
    (
        0x01C0_0002,
        AsymmetricAlgorithmSelection::Rsa(RsaKeyBits::Rsa2048),
    ),
];

impl Tpm {
    /// The DER of the EK certificate: that of the P-256 key, else that of the RSA key. Some ten TPM
    /// commands.
    pub fn ek_certificate(&mut self) -> Result<Vec<u8>> {
        let what = "cannot read the TPM's EK certificate";
        for (index, algorithm) in PLACES {
            let (found, _more) = self
                .context
                .get_capability(CapabilityType::Handles, index, 1)
                .map_err(|e| failed(what, e))?;
            let CapabilityData::Handles(handles) = found else {
                continue;
            };
            if handles.into_inner().first().map(|&h| u32::from(h)) != Some(index) {
                continue;
            }
            let content =
                retrieve_ek_pubcert(&mut self.context, algorithm).map_err(|e| failed(what, e))?;
            return der_in(&content)
                .map(<[u8]>::to_vec)
                .ok_or_else(|| Error::other(format!("{what}: {index:#010x} holds none")));
        }
        Err(Error::settings(
            "enrollment.template_parameters uses ${ek_sha256}, and this TPM has no EK certificate \
             (0x01C0000A, 0x01C00002)",
        ))
    }
}

/// The DER at the beginning of an NV index, which may be longer than what it holds.
fn der_in(content: &[u8]) -> Option<&[u8]> {
    // A certificate is a SEQUENCE (0x30) of more than 255 and less than 65536 bytes: the length is in
    // two bytes (X.690 §8.1.3.5).
    let &[0x30, 0x82, high, low, ..] = content else {
        return None;
    };
    content.get(..4 + usize::from(u16::from_be_bytes([high, low])))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn padding_is_no_part_of_the_certificate() {
        let mut content = vec![0x30, 0x82, 0x01, 0x00];
        content.extend([7; 0x100]);
        let length = content.len();
        content.extend([0xFF; 20]);
        assert_eq!(der_in(&content).map(<[u8]>::len), Some(length));
        assert!(der_in(&content[..100]).is_none());
        assert!(der_in(b"").is_none());
    }
}
