//! The chip's responses to TPM2_GetCapability.
//!
//! TPM 2.0 Part 3, "TPM2_GetCapability": a list that starts at the given property, at most as many as
//! asked for and as fit, with moreData if some are left. Properties stop at the end of their group.

use anyhow::Result;

use super::dump::{self, HR_TRANSIENT_MIN};
use super::{Firmware, Slb9670};
use crate::doubles::tpm_proxy::codes;
use crate::doubles::tpm_proxy::upstream::Upstream;
use crate::doubles::tpm_proxy::wire::{self, Command, Fields};

/// TPM_CAP: Part 2, §6.12.
const ALGS: u32 = 0;
const COMMANDS: u32 = 2;
const PCRS: u32 = 5;
const TPM_PROPERTIES: u32 = 6;
const ECC_CURVES: u32 = 8;
/// MAX_CAP_DATA: the room for the list in the 1024 bytes of a capability: Part 2, annex.
const CAPABILITY_BYTES: usize = 1024 - 4 - 4;

/// TPM_PT: Part 2, §6.13.
const PT_VAR: u32 = 0x200;
const PT_GROUP: u32 = 0x100;
const PERMANENT: u32 = 0x200;
const TPM_GENERATED_EPS: u32 = 1 << 10;
const HR_TRANSIENT_AVAIL: u32 = 0x207;
const HR_PERSISTENT: u32 = 0x208;
const HR_PERSISTENT_AVAIL: u32 = 0x209;
const NV_COUNTERS: u32 = 0x20A;
const NV_COUNTERS_AVAIL: u32 = 0x20B;
const LOADED_CURVES: u32 = 0x20D;
const NV_WRITE_RECOVERY: u32 = 0x212;
/// NV_COUNTERS_AVAIL of a chip without counters: docs/findings/slb9670.md, "Properties".
const COUNTERS: u32 = 0xD;
/// The first transient handle: Part 2, §7.2, table "TPM_HT".
const TRANSIENT: u32 = 0x8000_0000;

/// `None` if the software TPM has to answer.
pub fn answer(chip: &Slb9670, command: &Command, tpm: &Upstream) -> Result<Option<Vec<u8>>> {
    if command.code != codes::GET_CAPABILITY || command.has_sessions {
        return Ok(None);
    }
    let mut asked = command.parameters;
    let (Some(capability), Some(first), Some(count)) = (asked.u32(), asked.u32(), asked.u32())
    else {
        return Ok(None);
    };
    let firmware = chip.firmware;
    let items: Vec<Item> = match capability {
        ALGS => dump::ALGORITHMS
            .iter()
            .map(|&(id, attributes)| algorithm_item(id, attributes))
            .collect(),
        COMMANDS => dump::commands(firmware).map(command_item).collect(),
        ECC_CURVES => dump::CURVES
            .iter()
            .map(|&curve| item(curve.into(), &curve.to_be_bytes()))
            .collect(),
        TPM_PROPERTIES if first < PT_VAR => properties(dump::fixed_properties(firmware)),
        TPM_PROPERTIES => properties(&variable(chip, tpm)?),
        PCRS => return pcr_banks(command, tpm),
        _ => return Ok(None),
    };
    Ok(Some(list(capability, first, count as usize, &items)))
}

/// A list's item: its key, and its bytes.
type Item = (u32, Vec<u8>);

fn item(key: u32, bytes: &[u8]) -> Item {
    (key, bytes.to_vec())
}

fn algorithm_item(id: u16, attributes: u32) -> Item {
    let bytes = [&id.to_be_bytes()[..], &attributes.to_be_bytes()].concat();
    (id.into(), bytes)
}

/// The key is TPM_CC, whose vendor bit is not where TPMA_CC has it (Part 2, §6.5.1, §8.9).
fn command_item(attributes: u32) -> Item {
    item(attributes & 0x2000_FFFF, &attributes.to_be_bytes())
}

fn properties(values: &[(u32, u32)]) -> Vec<Item> {
    let pair = |&(property, value): &(u32, u32)| {
        (property, [property, value].map(u32::to_be_bytes).concat())
    };
    values.iter().map(pair).collect()
}

fn list(capability: u32, first: u32, count: usize, items: &[Item]) -> Vec<u8> {
    let size = items.first().map_or(1, |(_, bytes)| bytes.len());
    let fitting = count.min(CAPABILITY_BYTES / size);
    let asked: Vec<_> = items.iter().filter(|(key, _)| *key >= first).collect();
    let given = &asked[..fitting.min(asked.len())];
    let more = u8::from(given.len() < asked.len());
    let mut parameters = vec![more];
    parameters.extend(capability.to_be_bytes());
    parameters.extend((given.len() as u32).to_be_bytes());
    parameters.extend(given.iter().flat_map(|(_, bytes)| bytes));
    wire::response(0, &parameters)
}

/// The software TPM's variable properties, with the chip's numbers.
fn variable(chip: &Slb9670, tpm: &Upstream) -> Result<Vec<(u32, u32)>> {
    let mut values = tpm.properties(PT_VAR, PT_GROUP)?;
    let persistent = tpm.property(HR_PERSISTENT)?;
    let counters = tpm.property(NV_COUNTERS)?;
    let transient = tpm.handles(TRANSIENT)?.len() as u32;
    if chip.firmware == Firmware::V7_63 {
        values.retain(|(property, _)| *property != NV_WRITE_RECOVERY);
    }
    for (property, value) in &mut values {
        match *property {
            // The chips' endorsement seeds were injected.
            PERMANENT => *value &= !TPM_GENERATED_EPS,
            HR_TRANSIENT_AVAIL => {
                *value = chip.property(HR_TRANSIENT_MIN).saturating_sub(transient);
            }
            HR_PERSISTENT_AVAIL => {
                let slots = chip
                    .persistent
                    .min(dump::empty_persistent_slots(chip.firmware));
                *value = slots.saturating_sub(persistent);
            }
            NV_COUNTERS_AVAIL => *value = COUNTERS.saturating_sub(counters),
            LOADED_CURVES => *value = dump::CURVES.len() as u32,
            _ => {}
        }
    }
    Ok(values)
}

/// The software TPM's PCR banks without the hashes that the chip lacks.
fn pcr_banks(command: &Command, tpm: &Upstream) -> Result<Option<Vec<u8>>> {
    let response = tpm.exchange(command.bytes)?;
    Ok(Some(known_banks(&response).unwrap_or(response)))
}

fn known_banks(response: &[u8]) -> Option<Vec<u8>> {
    let mut fields = Fields(response.get(10..)?);
    let head = fields.take(5)?;
    let count = fields.u32()?;
    let mut banks = 0_u32;
    let mut kept = Vec::new();
    for _ in 0..count {
        let bank = fields.0;
        let hash = fields.u16()?;
        let size = fields.u8()?;
        fields.take(size.into())?;
        if super::public_area::HASHES.contains(&hash) {
            banks += 1;
            kept.extend(&bank[..bank.len() - fields.0.len()]);
        }
    }
    let parameters = [head, &banks.to_be_bytes(), &kept].concat();
    Some(wire::response(0, &parameters))
}
