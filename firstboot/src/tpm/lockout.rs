//! Ending a dictionary-attack lockout.
//!
//! An orderly shutdown reverts the try that a TPM counts while a protected key is in use; a pulled plug does not
//! (docs/findings/slb9670.md, "Lockout"). A device that is often unplugged therefore locks its own key, unless somebody
//! resets the counter: TPM2_DictionaryAttackLockReset (TPM 2.0 Part 3, §25.2) does so if lockoutAuth is empty, as on a
//! new chip.
//!
//! TPM2_DictionaryAttackParameters is left alone. More tries or a shorter recovery would only postpone the lockout, and
//! protect the owner's other objects less; with the counter reset at each start, the chip's own 32 tries are 32 power
//! cuts between two starts. The parameters, like lockoutAuth itself, are the owner's to set: whoever sets lockoutAuth
//! takes over the resetting, too.
//!
//! tss-esapi 7.7 does not have the command, so this is the crate's only use of the C interface.

use std::ffi::CString;
use std::ptr;

use tss_esapi_sys as c;

use crate::error::{Error, Result};

/// Sets the counter of failed tries to 0. One TPM command.
#[allow(unsafe_code)]
pub fn reset(tcti: &str) -> Result<()> {
    let failed = |what: &str, code: c::TSS2_RC| {
        Error::other(format!(
            "cannot reset the TPM's dictionary-attack lockout: {what}: response code {code:#x}"
        ))
    };
    let name =
        CString::new(tcti).map_err(|_| Error::settings("the TCTI contains a NUL character"))?;
    let mut transport: *mut c::TSS2_TCTI_CONTEXT = ptr::null_mut();
    // SAFETY: `name` outlives the call; the library sets `transport` or returns an error.
    let code = unsafe { c::Tss2_TctiLdr_Initialize(name.as_ptr(), &mut transport) };
    if code != 0 {
        return Err(failed("cannot open the TPM", code));
    }
    let mut esys: *mut c::ESYS_CONTEXT = ptr::null_mut();
    // SAFETY: `transport` was made above and lives until it is finalised below, after `esys`; both
    // are used by this thread alone and finalised once.
    let code = unsafe {
        let mut code = c::Esys_Initialize(&mut esys, transport, ptr::null_mut());
        if code == 0 {
            code = c::Esys_DictionaryAttackLockReset(
                esys,
                c::ESYS_TR_RH_LOCKOUT,
                c::ESYS_TR_PASSWORD,
                c::ESYS_TR_NONE,
                c::ESYS_TR_NONE,
            );
            c::Esys_Finalize(&mut esys);
        }
        c::Tss2_TctiLdr_Finalize(&mut transport);
        code
    };
    match code {
        0 => Ok(()),
        code => Err(failed("TPM2_DictionaryAttackLockReset", code)),
    }
}
