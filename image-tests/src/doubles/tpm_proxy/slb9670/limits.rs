//! Commands that the chip refuses and the software TPM would run.
//!
//! Response codes: TPM 2.0 Part 2, §6.6.3, table "TPM_RC"; which code belongs to which parameter: Part 3, at
//! the command.

use anyhow::Result;

use super::dump::{self, MAX_COMMAND_SIZE, MAX_DIGEST, NV_BUFFER_MAX, NV_INDEX_MAX};
use super::public_area::{self, RC_HASH};
use super::{RC_VALUE, Slb9670};
use crate::doubles::tpm_proxy::codes;
use crate::doubles::tpm_proxy::upstream::Upstream;
use crate::doubles::tpm_proxy::wire::{self, Command, Fields};

const RC_COMMAND_SIZE: u32 = 0x142;
const RC_COMMAND_CODE: u32 = 0x143;
const RC_NV_SPACE: u32 = 0x14B;
const RC_SIZE: u32 = 0x095;
/// RC_P: the code is about a parameter, whose number is in bits 8 to 11 (Part 2, §6.6.2).
const PARAMETER: u32 = 0x40;
/// The first persistent handle: Part 2, §7.2, table "TPM_HT".
const PERSISTENT: u32 = 0x8100_0000;

/// The response code, if the chip refuses the command.
pub fn refusal(chip: &Slb9670, command: &Command, tpm: &Upstream) -> Result<Option<u32>> {
    if command.bytes.len() as u32 > chip.property(MAX_COMMAND_SIZE) {
        return Ok(Some(RC_COMMAND_SIZE));
    }
    if !dump::commands(chip.firmware).any(|attributes| attributes & 0x2000_FFFF == command.code) {
        return Ok(Some(RC_COMMAND_CODE));
    }
    if command.code == codes::EVICT_CONTROL && makes_persistent(command) {
        let full = tpm.handles(PERSISTENT)?.len() as u32 >= chip.persistent;
        return Ok(full.then_some(RC_NV_SPACE));
    }
    Ok(refused_parameter(chip, command))
}

/// GetRandom for as many bytes as the chip returns at once; `None` if the command can stay as it is.
pub fn shortened(chip: &Slb9670, command: &Command) -> Option<Vec<u8>> {
    let most = chip.property(MAX_DIGEST) as u16;
    let mut parameters = command.parameters;
    let rewritable = command.code == codes::GET_RANDOM && !command.has_sessions;
    let too_long = rewritable && parameters.u16()? > most;
    too_long.then(|| wire::command(codes::GET_RANDOM, &[], None, &most.to_be_bytes()))
}

/// Whether EvictControl has a transient object: with a persistent one, it removes it.
fn makes_persistent(command: &Command) -> bool {
    command
        .handles
        .get(1)
        .is_some_and(|object| object >> 24 != PERSISTENT >> 24)
}

fn refused_parameter(chip: &Slb9670, command: &Command) -> Option<u32> {
    let mut parameters = command.parameters;
    let (number, code) = match command.code {
        codes::CREATE
        | codes::CREATE_PRIMARY
        | codes::CREATE_LOADED
        | codes::IMPORT
        | codes::LOAD
        | codes::LOAD_EXTERNAL => (
            2,
            public_area::refused(chip, public_area::public_area(command)?)?,
        ),
        codes::TEST_PARMS => {
            let kind = parameters.u16()?;
            (
                1,
                public_area::refused_parameters(chip, kind, &mut parameters)?,
            )
        }
        codes::START_AUTH_SESSION => refused_session(&mut parameters)?,
        codes::HASH | codes::HASH_SEQUENCE_START | codes::HMAC_START => {
            parameters.tpm2b()?;
            (2, public_area::hash(parameters.u16()?)?)
        }
        codes::NV_READ => (1, oversize(chip, parameters.u16()?, RC_VALUE)?),
        codes::NV_WRITE | codes::NV_EXTEND => (1, oversize(chip, parameters.u16()?, RC_SIZE)?),
        codes::NV_DEFINE_SPACE => {
            parameters.tpm2b()?;
            (2, refused_index(chip, parameters.tpm2b()?)?)
        }
        _ => return None,
    };
    Some(code | PARAMETER | number << 8)
}

/// StartAuthSession: nonce, salt, type; the fourth parameter is the cipher, the fifth the hash.
fn refused_session(parameters: &mut Fields) -> Option<(u32, u32)> {
    parameters.tpm2b()?;
    parameters.tpm2b()?;
    parameters.u8()?;
    if let Some(code) = public_area::refused_session_cipher(parameters) {
        return Some((4, code));
    }
    Some((5, public_area::hash(parameters.u16()?)?))
}

fn oversize(chip: &Slb9670, size: u16, code: u32) -> Option<u32> {
    (u32::from(size) > chip.property(NV_BUFFER_MAX)).then_some(code)
}

/// TPMS_NV_PUBLIC: Part 2, §13.5.
fn refused_index(chip: &Slb9670, public: &[u8]) -> Option<u32> {
    let mut fields = Fields(public);
    let _index = fields.u32()?;
    let hash = fields.u16()?;
    let _attributes = fields.u32()?;
    let _policy = fields.tpm2b()?;
    let size = fields.u16()?;
    if public_area::hash(hash).is_some() {
        return Some(RC_HASH);
    }
    (u32::from(size) > chip.property(NV_INDEX_MAX)).then_some(RC_SIZE)
}
