//! The chip's dictionary-attack protection.
//!
//! TPM 2.0 Part 1, §19.8: failed tries are counted. If the power goes without TPM2_Shutdown after a protected object
//! was authorized, one more is counted, as the cut may have hidden a failed try. The chip keeps its counter one higher
//! while it is in use, and TPM2_Shutdown sets it back (Andreas Fuchs, tpm2-tss #2705); idle servers with old chips were
//! found at 32 of 32 tries (docs/findings/slb9670.md, "Lockout"). So a hard power-off counts whether or not an object
//! was used; swtpm counts it only after a use. The proxy therefore uses a protected object after each start of the TPM,
//! with the right password, and leaves the counting to swtpm: there is no offset that could get out of step.
//!
//! Not modelled: a hard power-off after TPM2_Shutdown and further commands; the chip's clock running on across a
//! power-off, and the counter's recovery with it.

use anyhow::{Context, Result, bail};

use crate::doubles::tpm_proxy::upstream::Upstream;
use crate::doubles::tpm_proxy::{codes, wire};

/// TPM_PT: Part 2, §6.13.
const PERMANENT: u32 = 0x200;
const LOCKOUT_AUTH_SET: u32 = 1 << 2;
const MAX_AUTH_FAIL: u32 = 0x20F;
const LOCKOUT_INTERVAL: u32 = 0x210;
const LOCKOUT_RECOVERY: u32 = 0x211;

/// Maximum tries, recovery time (s), lockout recovery (s): libtpms 0.9.2, DA.c, DAPreInstall_Init().
const FACTORY_SWTPM: [u32; 3] = [3, 1000, 1000];
/// The same of every unprovisioned chip in crocs-muni/tpmscan-dataset: docs/findings/slb9670.md, "Properties".
const FACTORY_CHIP: [u32; 3] = [32, 7200, 86400];

/// TPM_RH_LOCKOUT, TPM_RH_NULL: Part 2, §7.4.
const LOCKOUT: u32 = 0x4000_000A;
const NULL_HIERARCHY: u32 = 0x4000_0007;
/// TPM_RC_LOCKOUT, TPM_RC_RETRY: Part 2, §6.6.3.
const RC_LOCKOUT: u32 = 0x921;
const RC_RETRY: u32 = 0x922;

/// Sets the chip's parameters, if the software TPM still has its defaults.
pub fn adopt_parameters(tpm: &Upstream) -> Result<()> {
    let mut current = [0; 3];
    for (value, property) in
        current
            .iter_mut()
            .zip([MAX_AUTH_FAIL, LOCKOUT_INTERVAL, LOCKOUT_RECOVERY])
    {
        *value = tpm.property(property)?;
    }
    if current != FACTORY_SWTPM || tpm.property(PERMANENT)? & LOCKOUT_AUTH_SET != 0 {
        return Ok(());
    }
    let parameters = FACTORY_CHIP.map(u32::to_be_bytes).concat();
    let code = codes::DICTIONARY_ATTACK_PARAMETERS;
    tpm.run(
        code,
        &wire::command(code, &[LOCKOUT], Some(b""), &parameters),
    )?;
    Ok(())
}

/// Makes the next hard power-off count. The object is in the null hierarchy, which needs no authorization and leaves
/// nothing behind.
pub fn use_protected_object(tpm: &Upstream) -> Result<()> {
    let created = tpm.run(codes::CREATE_PRIMARY, &protected_object())?;
    let handle = wire::Fields(&created)
        .u32()
        .context("CreatePrimary without a handle")?;
    let unseal = wire::command(codes::UNSEAL, &[handle], Some(PASSWORD), &[]);
    let mut used = tpm.exchange(&unseal)?;
    if wire::response_code(&used) == Some(RC_RETRY) {
        // libtpms says so when it has recorded the first use since the start.
        used = tpm.exchange(&unseal)?;
    }
    tpm.run(
        codes::FLUSH_CONTEXT,
        &wire::command(codes::FLUSH_CONTEXT, &[], None, &handle.to_be_bytes()),
    )?;
    match wire::response_code(&used) {
        // In lockout, nothing counts any more.
        Some(0 | RC_LOCKOUT) => Ok(()),
        other => bail!("Unseal of the proxy's own object: {other:#X?}"),
    }
}

const PASSWORD: &[u8] = b"proxy";

/// CreatePrimary of one sealed byte in the null hierarchy: TPM2B_SENSITIVE_CREATE (Part 2, §11.1.16),
/// TPM2B_PUBLIC (§12.2.5), no outside info, no PCRs.
pub fn protected_object() -> Vec<u8> {
    /// TPM_ALG_KEYEDHASH, TPM_ALG_SHA256, TPM_ALG_NULL: Part 2, §6.3.
    const KEYEDHASH: [u8; 2] = [0, 0x08];
    const SHA256: [u8; 2] = [0, 0x0B];
    const NULL: [u8; 2] = [0, 0x10];
    /// fixedTPM, fixedParent, userWithAuth, and not noDA: §8.3.
    const ATTRIBUTES: [u8; 4] = 0x0000_0052_u32.to_be_bytes();
    let sensitive = [wire::tpm2b(PASSWORD), wire::tpm2b(&[0])].concat();
    let public = [
        &KEYEDHASH[..],
        &SHA256,
        &ATTRIBUTES,
        &[0, 0],
        &NULL,
        &[0, 0],
    ]
    .concat();
    let nothing = [0; 2 + 4];
    let parameters = [
        wire::tpm2b(&sensitive),
        wire::tpm2b(&public),
        nothing.to_vec(),
    ]
    .concat();
    wire::command(
        codes::CREATE_PRIMARY,
        &[NULL_HIERARCHY],
        Some(b""),
        &parameters,
    )
}
