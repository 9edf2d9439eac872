//! A software TPM that behaves as an Infineon OPTIGA SLB 9670.
//!
//! Source of the values: docs/findings/slb9670.md, from the dumps of 27 real chips in
//! crocs-muni/tpmscan-dataset at 9522a3a (DS for short). Within one firmware build all chips there
//! have the same fixed properties, commands, algorithms and curves.
//!
//! | property | how | source |
//! |---|---|---|
//! | fixed properties, commands, algorithms, curves | answered from the dump | DS `Capability_*.txt` |
//! | PCR banks: SHA-1 and SHA-256 | the other banks are cut out of the list | DS `Capability_pcrread` |
//! | variable properties | swtpm's, with the chip's `*_AVAIL`, counters and curves put in | DS |
//! | a command that the chip lacks: 0x143 | refused | DS, "Commands" |
//! | RSA 1024 and 2048, AES-128-CFB, SHA-1 and SHA-256, P-256 and BN P-256 | others refused; two codes can be chosen, the chip's being unknown | DS, "Commands" |
//! | ECDSA only on P-256, no other ECC scheme but ECDAA and ECDH: 0x2D2 | refused | DS, "Commands" |
//! | longest command | 0x142 above it | DS, Part 2 §6.6 |
//! | GetRandom returns at most 32 bytes | the command is shortened | MAX_DIGEST in DS; wolfTPM |
//! | NV access of at most 768 bytes, index of at most 1664 or 2048 | refused | DS NV_BUFFER_MAX, NV_INDEX_MAX; codes: Part 3 |
//! | seven persistent objects: 0x14B above | refused | DS HR_PERSISTENT_MIN, data sheet |
//! | three loaded sessions (0x903), three transient objects (0x902) | libtpms' own limits | DS HR_LOADED_MIN, HR_TRANSIENT_MIN |
//! | 32 tries, 7200 s, 86400 s | set in swtpm where it still has its own factory values | DS, MAX_AUTH_FAIL … LOCKOUT_RECOVERY |
//! | each hard power-off adds a failed try | `lockout` makes swtpm count it | "Lockout": tpm2-tss #2705, DS |
//!
//! Not modelled:
//!
//! - The fourth transient object of 7.85: the chip reports it, libtpms has three. The kernel's
//!   resource manager gives a file descriptor three in any case (tpm2-space.c, `context_tbl[3]`).
//! - Commands with sessions are never rewritten, their HMAC would not fit: GetRandom above
//!   32 bytes and GetCapability in an audit session show swtpm.
//! - Sizes of contexts and of responses, endorsement key certificates, the field upgrade, the NV
//!   memory as one pool of 6,962 bytes, schemes chosen only when signing, the errata of 7.40,
//!   self-test and failure mode, endurance of the flash.
//! - Response codes of `limits` are those of the specification; only 0x143 and 0x2D2 are
//!   measured on the chip.

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
    /// revision 1.16, no CreateLoaded: tpm2-pkcs11 then takes Create and Load
    V7_63,
    /// revision 1.38, 97 commands
    V7_85,
}

/// The chip to be.
#[derive(Clone, Copy, Debug)]
pub struct Slb9670 {
    pub firmware: Firmware,
    /// Persistent objects: 7 guaranteed by the data sheet, 18 (7.63) or 15 (7.85) on an empty chip.
    pub persistent: u32,
    /// What an unknown curve is answered with: [`RC_CURVE`] or [`RC_VALUE`].
    pub unknown_curve: u32,
    /// What an RSA size other than 1024 and 2048 is answered with: [`RC_VALUE`] or [`RC_KEY_SIZE`].
    pub unknown_rsa_size: u32,
    /// Each hard power-off counts as a failed try, also without an authorisation before it.
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

    /// To be called whenever the software TPM has been started.
    pub(super) fn power_on(&self, tpm: &Upstream) -> Result<()> {
        lockout::adopt_parameters(tpm)?;
        if self.counts_power_cuts {
            lockout::use_protected_object(tpm)?;
        }
        Ok(())
    }

    /// The chip's response to the command, from the software TPM where it knows it.
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
