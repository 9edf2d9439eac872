//! The endorsement key's certificate, by which the manufacturer distinguishes its TPMs.
//!
//! NV indices: TCG EK Credential Profile 2.6, §2.2.1.4 (RSA-2048) and §2.2.1.5.2 (P-256), low range. A nonce or a
//! template beside the certificate means that the key was not made from the profile's own template.

use tss_esapi::constants::CapabilityType;
use tss_esapi::constants::response_code::Tss2ResponseCodeKind as Kind;
use tss_esapi::handles::{NvIndexHandle, NvIndexTpmHandle, TpmHandle};
use tss_esapi::interface_types::resource_handles::NvAuth;
use tss_esapi::interface_types::session_handles::AuthSession;
use tss_esapi::structures::CapabilityData;

use super::{Tpm, failed};
use crate::error::{ErrorKind, Result};

/// The first NV index of the profile's low range, and the number of indices to ask for: the whole range.
const LOW_RANGE: (u32, u32) = (0x01C0_0000, 16);
/// Bytes of one TPM2_NV_Read. An SLB 9670 allows 768 (docs/findings/slb9670.md, "Properties"), others at least this
/// many; EK certificates have 700 to 1,500 bytes.
const PORTION: usize = 512;

/// Where an EK's certificate is, and the indices that mean that the EK has its own nonce or template.
struct Place {
    key: &'static str,
    certificate: u32,
    nonce: u32,
    template: u32,
}

/// The key that is cheaper to make comes first.
const PLACES: [Place; 2] = [
    Place {
        key: "P-256",
        certificate: 0x01C0_000A,
        nonce: 0x01C0_000B,
        template: 0x01C0_000C,
    },
    Place {
        key: "RSA-2048",
        certificate: 0x01C0_0002,
        nonce: 0x01C0_0003,
        template: 0x01C0_0004,
    },
];

impl Tpm {
    /// The DER of the EK certificate: that of the P-256 key, or else that of the RSA key; or why there is none, in
    /// words. One TPM command if there is none; otherwise two, and one more for each 512 bytes.
    pub fn ek_certificate(&mut self) -> Result<std::result::Result<Vec<u8>, String>> {
        let there = self.low_range()?;
        let mut reasons = Vec::new();
        for place in &PLACES {
            if !there.contains(&place.certificate) {
                continue;
            }
            if let Some(special) = [place.nonce, place.template]
                .into_iter()
                .find(|index| there.contains(index))
            {
                reasons.push(format!(
                    "the {} EK has a nonce or template of its own ({special:#010x}), which is not supported",
                    place.key
                ));
                continue;
            }
            let index = place.certificate;
            match self.read_certificate(index) {
                Ok(Some(certificate)) => return Ok(Ok(certificate)),
                Ok(None) => reasons.push(format!("NV index {index:#010x} contains no certificate")),
                Err(e) => {
                    let e = failed(&format!("cannot read NV index {index:#010x}"), e);
                    // A refusal by the TPM is a fact about the TPM.
                    if matches!(e.kind, ErrorKind::NoTpm | ErrorKind::Waiting) {
                        return Err(e);
                    }
                    reasons.push(e.to_string());
                }
            }
        }
        if reasons.is_empty() {
            reasons
                .push("this TPM has no EK certificate (NV indices 0x01c0000a, 0x01c00002)".into());
        }
        Ok(Err(reasons.join("; ")))
    }

    fn low_range(&mut self) -> Result<Vec<u32>> {
        let (first, count) = LOW_RANGE;
        let (found, _more) = self
            .context
            .get_capability(CapabilityType::Handles, first, count)
            .map_err(|e| failed("cannot list the TPM's EK certificates", e))?;
        Ok(match found {
            CapabilityData::Handles(list) => list.into_inner().into_iter().map(u32::from).collect(),
            _ => Vec::new(),
        })
    }

    /// The certificate in an NV index, read with the index's own, empty authorization: the owner's may be set.
    fn read_certificate(&mut self, index: u32) -> tss_esapi::Result<Option<Vec<u8>>> {
        let handle = TpmHandle::NvIndex(NvIndexTpmHandle::new(index)?);
        let mut object = self.context.tr_from_tpm_public(handle)?;
        let content = self.read_der(object.into());
        self.context.tr_close(&mut object)?;
        content
    }

    /// The first bytes tell how much there is to read, which saves asking for the index's size.
    fn read_der(&mut self, index: NvIndexHandle) -> tss_esapi::Result<Option<Vec<u8>>> {
        let mut content = match self.read(index, PORTION, 0) {
            Err(tss_esapi::Error::Tss2Error(code)) if code.kind() == Some(Kind::NvRange) => {
                let (public, _name) = self.context.nv_read_public(index)?;
                self.read(index, public.data_size(), 0)?
            }
            read => read?,
        };
        let Some(length) = der_length(&content) else {
            return Ok(None);
        };
        while content.len() < length {
            let portion = PORTION.min(length - content.len());
            match self.read(index, portion, content.len()) {
                // The certificate claims to be longer than its index.
                Err(tss_esapi::Error::Tss2Error(code)) if code.kind() == Some(Kind::NvRange) => {
                    return Ok(None);
                }
                read => content.extend(read?),
            }
        }
        // The index may be longer than its content.
        content.truncate(length);
        Ok(Some(content))
    }

    fn read(
        &mut self,
        index: NvIndexHandle,
        count: usize,
        offset: usize,
    ) -> tss_esapi::Result<Vec<u8>> {
        // Both are less than 64 KiB: an index is, and so is a length in two bytes.
        let (count, offset) = (count as u16, offset as u16);
        self.context
            .execute_with_session(Some(AuthSession::Password), |context| {
                context.nv_read(NvAuth::NvIndex(index), index, count, offset)
            })
            .map(|data| data.to_vec())
    }
}

/// The length of the DER that begins like this, including its header.
fn der_length(begin: &[u8]) -> Option<usize> {
    // A certificate is a SEQUENCE (0x30) of more than 255 and less than 65536 bytes: the length is in
    // two bytes (X.690 §8.1.3.5).
    let &[0x30, 0x82, high, low, ..] = begin else {
        return None;
    };
    let length = 4 + usize::from(u16::from_be_bytes([high, low]));
    (length <= usize::from(u16::MAX)).then_some(length)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_head_tells_how_long_a_certificate_is() {
        assert_eq!(der_length(&[0x30, 0x82, 0x01, 0x00, 7]), Some(0x104));
        assert_eq!(der_length(&[0x30, 0x82, 0xFF, 0xFF]), None);
        assert_eq!(der_length(&[0xFF; 8]), None);
        assert_eq!(der_length(b""), None);
    }
}
