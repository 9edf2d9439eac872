//! What the TPM is, and its state: TPM2_GetCapability of its fixed and its variable properties.
//!
//! Properties: TPM 2.0 Library Part 2, §6.13 (TPM_PT); attributes: §8.6 (TPMA_PERMANENT).

use firstboot_formats::public_key::KeyType;
use serde::Serialize;
use tss_esapi::constants::{CapabilityType, PropertyTag};
use tss_esapi::structures::CapabilityData;

use super::{Tpm, failed};
use crate::error::{Error, ErrorKind, Result};

/// TPMA_PERMANENT, bit 0: the owner hierarchy has an authorization value.
const OWNER_AUTH_SET: u32 = 1 << 0;
/// TPMA_PERMANENT, bit 2: the lockout hierarchy has an authorization value.
const LOCKOUT_AUTH_SET: u32 = 1 << 2;
/// TPMA_PERMANENT, bit 9: the TPM is in dictionary-attack lockout.
const IN_LOCKOUT: u32 = 1 << 9;
/// TPM_PT_PERMANENT to TPM_PT_LOCKOUT_RECOVERY. The list ends with the last tag that tss-esapi knows: an unknown one
/// would spoil the whole answer.
const VARIABLE: (u32, u32) = (0x200, 0x212 - 0x200);
/// TPM_PT_FAMILY_INDICATOR to TPM_PT_HR_LOADED_MIN, likewise.
const FIXED: (u32, u32) = (0x100, 0x111 - 0x100);

/// The TPM's manufacturer, model and firmware.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Identification {
    /// The TCG's vendor ID: "IFX" is Infineon.
    pub manufacturer: String,
    /// The vendor's string, such as "SLB9670".
    pub model: String,
    /// Major and minor version: upper and lower half of TPM_PT_FIRMWARE_VERSION_1.
    pub firmware: (u16, u16),
    /// TPM_PT_FIRMWARE_VERSION_2: the manufacturer's build number.
    pub firmware_build: u32,
    /// The library specification's revision × 100, such as 138.
    pub revision: u32,
}

impl Identification {
    /// Whether RSA keys made by this firmware can be factored (ROCA, CVE-2017-15361). Infineon
    /// fixed it in 7.62 (SLB 9670) and 5.62 (SLB 9665); published keys of 7.40 and 7.61 are all
    /// weak, those of 7.62 and later are not (docs/findings/attestation.md, "ROCA").
    pub fn has_roca_flaw(&self) -> bool {
        self.manufacturer == "IFX" && matches!(self.firmware, (5 | 7, 0..62) | (4 | 6, _))
    }

    /// Why this TPM is not to make such a key.
    pub fn weak_key(&self, key: KeyType) -> Option<String> {
        (key == KeyType::Rsa2048 && self.has_roca_flaw()).then(|| {
            format!(
                "this TPM ({self}) makes RSA keys that can be factored (ROCA, CVE-2017-15361): set \"key\": \
                 \"ecc-p256\", which is not affected, or update the firmware to 7.62 or later"
            )
        })
    }
}

impl std::fmt::Display for Identification {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (major, minor) = self.firmware;
        let vendor = match self.manufacturer.as_str() {
            "IFX" => "Infineon",
            other => other,
        };
        write!(f, "{vendor} {}, firmware {major}.{minor}", self.model)?;
        write!(f, " (build {:#x})", self.firmware_build)
    }
}

/// How much the TPM holds: objects and sessions, used, free and guaranteed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Limits {
    /// Number of persistent objects.
    pub persistent: u32,
    /// Persistent objects for which there is room, as the TPM estimates it.
    pub persistent_available: u32,
    /// Persistent objects that are guaranteed to fit: 7 on an SLB 9670.
    pub persistent_minimum: u32,
    /// Transient objects for which there is room.
    pub transient_available: u32,
    /// Transient objects that are guaranteed to fit.
    pub transient_minimum: u32,
    /// Sessions that are guaranteed to fit.
    pub sessions_minimum: u32,
}

/// The dictionary-attack protection, and which hierarchies have an authorization value.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Lockout {
    /// Failed tries that count at the moment.
    pub counter: u32,
    /// The number of tries at which the TPM locks.
    pub max_tries: u32,
    /// Seconds until one try is forgotten.
    pub interval_seconds: u32,
    /// Seconds until lockoutAuth may be used again after a failure of its own.
    pub recovery_seconds: u32,
    /// Whether the TPM is in lockout.
    pub locked: bool,
    /// Whether the lockout hierarchy has an authorization value: then only its owner can reset.
    pub lockout_auth_set: bool,
    /// Whether the owner hierarchy has an authorization value: then only its owner can make keys
    /// persistent.
    pub owner_auth_set: bool,
}

impl Lockout {
    /// A warning for the owner before it is too late: tries that count and that firstboot cannot reset.
    pub fn warning(&self) -> Option<String> {
        if self.counter == 0 || !self.lockout_auth_set {
            return None;
        }
        let forgotten = match self.interval_seconds {
            0 => "none is forgotten".to_owned(),
            seconds => format!("one is forgotten every {seconds} s"),
        };
        Some(format!(
            "the TPM has counted {} of {} failed tries before its dictionary-attack lockout ({forgotten}). Its lockout \
             authorization is set, so firstboot cannot reset the count: reset it with `tpm2_dictionarylockout -c -p \
             …`",
            self.counter, self.max_tries
        ))
    }
}

impl Tpm {
    /// The fixed properties: one TPM command.
    pub fn identification(&mut self) -> Result<Identification> {
        let fixed = self.properties(FIXED)?;
        let get = |tag| fixed.get(tag);
        let version = get(PropertyTag::FirmwareVersion1);
        Ok(Identification {
            manufacturer: text(&[get(PropertyTag::Manufacturer)]),
            model: text(&[
                get(PropertyTag::VendorString1),
                get(PropertyTag::VendorString2),
                get(PropertyTag::VendorString3),
                get(PropertyTag::VendorString4),
            ]),
            firmware: ((version >> 16) as u16, version as u16),
            firmware_build: get(PropertyTag::FirmwareVersion2),
            revision: get(PropertyTag::Revision),
        })
    }

    /// The dictionary-attack state: one TPM command.
    pub fn lockout(&mut self) -> Result<Lockout> {
        Ok(lockout(&self.properties(VARIABLE)?))
    }

    /// Limits and dictionary-attack state: two TPM commands.
    pub fn limits(&mut self) -> Result<(Limits, Lockout)> {
        let fixed = self.properties(FIXED)?;
        let variable = self.properties(VARIABLE)?;
        let limits = Limits {
            persistent: variable.get(PropertyTag::HrPersistent),
            persistent_available: variable.get(PropertyTag::HrPersistentAvail),
            persistent_minimum: fixed.get(PropertyTag::HrPersistentMin),
            transient_available: variable.get(PropertyTag::HrTransientAvail),
            transient_minimum: fixed.get(PropertyTag::HrTransientMin),
            sessions_minimum: fixed.get(PropertyTag::HrLoadedMin),
        };
        Ok((limits, lockout(&variable)))
    }

    fn properties(&mut self, (first, count): (u32, u32)) -> Result<Properties> {
        let (data, _more) = self
            .context
            .get_capability(CapabilityType::TpmProperties, first, count)
            .map_err(|e| failed("cannot read the TPM's properties", e))?;
        match data {
            CapabilityData::TpmProperties(list) => Ok(Properties(
                list.into_iter()
                    .map(|p| (p.property(), p.value()))
                    .collect(),
            )),
            _ => Err(Error::new(
                ErrorKind::NoTpm,
                "the TPM answered TPM2_GetCapability with something other than properties",
            )),
        }
    }
}

struct Properties(Vec<(PropertyTag, u32)>);

impl Properties {
    /// The property's value; 0 if the TPM does not report it, as the specification says.
    fn get(&self, tag: PropertyTag) -> u32 {
        self.0
            .iter()
            .find_map(|&(t, value)| (t == tag).then_some(value))
            .unwrap_or(0)
    }
}

fn lockout(variable: &Properties) -> Lockout {
    let permanent = variable.get(PropertyTag::Permanent);
    Lockout {
        counter: variable.get(PropertyTag::LockoutCounter),
        max_tries: variable.get(PropertyTag::MaxAuthFail),
        interval_seconds: variable.get(PropertyTag::LockoutInterval),
        recovery_seconds: variable.get(PropertyTag::LockoutRecovery),
        locked: permanent & IN_LOCKOUT != 0,
        lockout_auth_set: permanent & LOCKOUT_AUTH_SET != 0,
        owner_auth_set: permanent & OWNER_AUTH_SET != 0,
    }
}

/// Four characters per word, most significant first, padded with NUL or space.
fn text(words: &[u32]) -> String {
    let bytes: Vec<u8> = words.iter().flat_map(|w| w.to_be_bytes()).collect();
    String::from_utf8_lossy(&bytes)
        .chars()
        .filter(|c| c.is_ascii_graphic())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn infineon(major: u16, minor: u16) -> Identification {
        Identification {
            manufacturer: "IFX".into(),
            model: "SLB9670".into(),
            firmware: (major, minor),
            firmware_build: 0,
            revision: 116,
        }
    }

    #[test]
    fn the_roca_flaw_ends_with_7_62() {
        assert!(infineon(7, 40).has_roca_flaw());
        assert!(infineon(7, 61).has_roca_flaw());
        assert!(!infineon(7, 62).has_roca_flaw());
        assert!(!infineon(7, 85).has_roca_flaw());
        assert!(!infineon(13, 11).has_roca_flaw());
        let mut other = infineon(7, 40);
        other.manufacturer = "IBM".into();
        assert!(!other.has_roca_flaw());
    }

    #[test]
    fn vendor_strings_are_joined_without_padding() {
        assert_eq!(text(&[0x4946_5800]), "IFX");
        assert_eq!(text(&[0x534C_4239, 0x3637_3000, 0, 0]), "SLB9670");
    }
}
