//! A software TPM that behaves as an Infineon OPTIGA SLB 9670.
//!
//! Source of the values: docs/findings/slb9670.md, from the dumps of 27 real chips in crocs-muni/tpmscan-dataset at
//! 9522a3a (DS for short). All chips of a firmware build have the same fixed properties, commands, algorithms and
//! curves there.
//!
//! | property | how | source |
//! |---|---|---|
//! | fixed properties, commands, algorithms, curves | answered from the dump | DS `Capability_*.txt` |
//! | PCR banks: SHA-1 and SHA-256 | other banks are removed from the list | DS `Capability_pcrread` |
//! | variable properties | swtpm's, with the chip's `*_AVAIL`, counters and curves | DS |
//! | a command that the chip lacks: 0x143 | refused | DS, "Commands" |
//! | RSA 1024 and 2048, AES-128-CFB, SHA-1 and SHA-256, P-256 and BN P-256 | others refused; two of the codes can be chosen, as the chip's are unknown | DS, "Commands" |
//! | ECDSA on P-256 only, and no ECC schemes but ECDAA and ECDH: 0x2D2 | refused | DS, "Commands" |
//! | longest command | 0x142 above it | DS, Part 2 §6.6 |
//! | GetRandom returns at most 32 bytes | the command is shortened | MAX_DIGEST in DS; wolfTPM |
//! | NV access of at most 768 bytes, index of at most 1664 or 2048 | refused | DS NV_BUFFER_MAX, NV_INDEX_MAX; codes: Part 3 |
//! | seven persistent objects: 0x14B above | refused | DS HR_PERSISTENT_MIN, data sheet |
//! | three loaded sessions (0x903), three transient objects (0x902) | libtpms' own limits | DS HR_LOADED_MIN, HR_TRANSIENT_MIN |
//! | 32 tries, 7200 s, 86400 s | set in swtpm while it has its own defaults | DS, MAX_AUTH_FAIL … LOCKOUT_RECOVERY |
//! | each hard power-off adds a failed try | `lockout` makes swtpm count it | "Lockout": tpm2-tss #2705, DS |
//!
//! Not modelled:
//!
//! - The fourth transient object of 7.85: the chip reports it, libtpms has three. The kernel's resource manager allows
//!   three per file descriptor in any case (tpm2-space.c, `context_tbl[3]`).
//! - Commands with sessions are never rewritten, because their HMAC would no longer match: GetRandom for more than 32
//!   bytes and GetCapability in an audit session show swtpm.
//! - Sizes of contexts and responses, endorsement key certificates, the field upgrade, the NV memory as one pool of
//!   6,962 bytes, schemes chosen only when signing, the errata of 7.40, self-test and failure mode, the flash's
//!   endurance.
//! - Response codes in `limits` follow the specification; only 0x143 and 0x2D2 were seen on a chip.

mod capability;
mod dump;
mod limits;
mod lockout;
mod public_area;

use anyhow::Result;

use super::codes;
use super::upstream::Upstream;
use super::wire::{self, Command};
use limits::refusal;
pub use lockout::protected_object;
pub use public_area::{ALG_ECC, ALG_RSA, public_type};

/// TPM_RC_CURVE, TPM_RC_VALUE, TPM_RC_KEY_SIZE: TPM 2.0 Part 2, §6.6.3, table "TPM_RC".
pub const RC_CURVE: u32 = 0x0A6;
pub const RC_VALUE: u32 = 0x084;
pub const RC_KEY_SIZE: u32 = 0x087;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Firmware {
    /// Revision 1.16, without CreateLoaded: tpm2-pkcs11 then uses Create and Load.
    V7_63,
    /// Revision 1.38, 97 commands.
    V7_85,
}

/// The chip to behave as.
#[derive(Clone, Copy, Debug)]
pub struct Slb9670 {
    pub firmware: Firmware,
    /// Number of persistent objects: the data sheet guarantees 7; an empty chip has room for 18 (7.63) or 15 (7.85).
    pub persistent: u32,
    /// The response code for an unknown curve: [`RC_CURVE`] or [`RC_VALUE`].
    pub unknown_curve: u32,
    /// The response code for an RSA size other than 1024 and 2048: [`RC_VALUE`] or [`RC_KEY_SIZE`].
    pub unknown_rsa_size: u32,
    /// Count each hard power-off as a failed try, even without an authorization before it.
    pub counts_power_cuts: bool,
}

impl Slb9670 {
    pub fn new(firmware: Firmware) -> Self {
        Self {
            firmware,
            persistent: 7,
            unknown_curve: RC_CURVE,
            unknown_rsa_size: RC_VALUE,
            counts_power_cuts: true,
        }
    }

    /// Call this after each start of the software TPM.
    pub(super) fn power_on(&self, tpm: &Upstream) -> Result<()> {
        lockout::adopt_parameters(tpm)?;
        if self.counts_power_cuts {
            lockout::use_protected_object(tpm)?;
        }
        Ok(())
    }

    /// The chip's response to a command, from the software TPM where that is the same.
    pub(super) fn answer(&self, command: &Command, tpm: &Upstream) -> Result<Vec<u8>> {
        if let Some(code) = refusal(self, command, tpm)? {
            return Ok(wire::response(code, &[]));
        }
        if let Some(response) = capability::answer(self, command, tpm)? {
            return Ok(response);
        }
        let response = match limits::shortened(self, command) {
            Some(shorter) => tpm.exchange(&shorter)?,
            None => tpm.exchange(command.bytes)?,
        };
        if command.code == codes::CLEAR && wire::response_code(&response) == Some(0) {
            lockout::adopt_parameters(tpm)?;
        }
        Ok(response)
    }

    fn property(&self, property: u32) -> u32 {
        let fixed = dump::fixed_properties(self.firmware);
        let found = fixed.iter().find(|(known, _)| *known == property);
        found.map_or(0, |&(_, value)| value)
    }
}
