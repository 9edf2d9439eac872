//! The TPM's persistent objects, each explained. Nothing is ever evicted here.

use firstboot_formats::encoding::to_hex;
use serde::Serialize;
use tss_esapi::constants::CapabilityType;
use tss_esapi::constants::tss::TPM2_PERSISTENT_FIRST;
use tss_esapi::handles::{KeyHandle, PersistentTpmHandle, TpmHandle};
use tss_esapi::structures::CapabilityData;

use super::{Tpm, failed, srk};
use crate::error::{Error, Result};

/// Handles to ask for: more than any TPM has room for.
const MANY: u32 = 128;

/// A persistent object.
#[derive(Clone, Debug, Serialize)]
pub struct PersistentHandle {
    /// Such as "0x81000001".
    pub handle: String,
    /// What kind of key it is.
    pub object: String,
    /// Who has probably put it there, by the handle's range.
    pub meaning: &'static str,
    /// The object's Name in hexadecimal.
    pub name: String,
}

impl Tpm {
    /// Every persistent object: one TPM command, and two for each.
    pub fn persistent_handles(&mut self) -> Result<Vec<PersistentHandle>> {
        let (data, _more) = self
            .context
            .get_capability(CapabilityType::Handles, TPM2_PERSISTENT_FIRST, MANY)
            .map_err(|e| failed("cannot list the TPM's persistent objects", e))?;
        let CapabilityData::Handles(list) = data else {
            return Err(Error::other(
                "the TPM returned something other than handles",
            ));
        };
        list.into_inner()
            .into_iter()
            .map(|handle| self.explain(handle.into()))
            .collect()
    }

    fn explain(&mut self, number: u32) -> Result<PersistentHandle> {
        let reading = |e| failed(&format!("cannot read the object at {number:#010x}"), e);
        let handle = PersistentTpmHandle::new(number).map_err(reading)?;
        let object = self
            .context
            .tr_from_tpm_public(TpmHandle::Persistent(handle))
            .map_err(reading)?;
        let (public, name, _) = self
            .context
            .read_public(KeyHandle::from(object))
            .map_err(reading)?;
        let (kind, attributes) = srk::describe(&public);
        let protection = if attributes.no_da() { ", noDA" } else { "" };
        Ok(PersistentHandle {
            handle: format!("{number:#010x}"),
            object: format!("{kind} {}{protection}", srk::purpose(attributes)),
            meaning: meaning(number),
            name: to_hex(name.value()),
        })
    }
}

/// The ranges of the TCG's "Registry of Reserved TPM 2.0 Handles and Localities".
fn meaning(handle: u32) -> &'static str {
    match handle {
        srk::HANDLE => "storage root key: the parent of the PKCS#11 token",
        0x8100_0000..=0x8100_FFFF => {
            "storage hierarchy: not firstboot's; tpm2_ptool 1.9 leaves one here at each init"
        }
        0x8101_0000..=0x8101_FFFF => {
            "endorsement key, from the manufacturer or the operating system"
        }
        0x8102_0000..=0x817F_FFFF => "owner's range: not firstboot's",
        _ => "platform's range: not firstboot's",
    }
}
