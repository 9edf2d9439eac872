//! The storage root key that the identity needs: the steps that need an authorization to find out about it, and those
//! that recreate it.
//!
//! Looking never authorizes anything in the TPM. If it does not suffice, these steps find out, and the process
//! remembers.

use firstboot_formats::files::{self, Access};
use log::warn;

use super::context::Context;
use crate::error::{Error, Result};
use crate::layout::{Layout, ROOT_KEY_WITH_AUTH};
use crate::progress;
use crate::tpm::{Srk, Stored, Tpm};

/// Finds out which storage root keys this TPM can create.
pub(super) fn examine_primaries(context: &mut Context) -> Result<()> {
    let what = "asking the TPM which storage root keys it can create";
    let names = progress::with_progress(what, || context.tpm()?.primary_names())?;
    context.memory.primaries = Some(names);
    Ok(())
}

/// Finds out whether the key at 0x81000001 accepts an empty authorization value. If it does not, that has cost a
/// dictionary-attack try, unless the key has noDA: its Name is noted, so that no later start tries again. The note is
/// kept beside the identity, where it lasts as long as the identity would; on the boot partition, anybody with the card
/// could have written it. A power cut before the note is written costs one more try; a note written before the try
/// could condemn a good key.
pub(super) fn try_auth(context: &mut Context, srk: &Srk) -> Result<()> {
    let Srk::Present { name, no_da } = srk else {
        return Ok(());
    };
    let empty = context.tpm()?.srk_has_empty_auth()?;
    if !empty && !no_da {
        let path = context.places.layout.at(ROOT_KEY_WITH_AUTH);
        if let Some(parent) = path.parent() {
            files::make_directory(parent, 0o755)?;
        }
        files::write(&path, name.as_bytes(), Some(Access::PRIVATE))?;
    }
    context.memory.empty_auth = Some((name.clone(), empty));
    Ok(())
}

/// Makes the storage root key. Returns its Name.
pub(super) fn make(context: &mut Context) -> Result<String> {
    forget_with_auth(&context.places.layout)?;
    progress::with_progress("creating the storage root key", || {
        context.tpm()?.make_srk()
    })
}

/// Makes the storage root key of this Name again, and leaves it at 0x81000001.
pub(super) fn restore(context: &mut Context, name: &str) -> Result<()> {
    forget_with_auth(&context.places.layout)?;
    progress::with_progress("recreating the storage root key", || {
        context.tpm()?.restore_srk(name)
    })
}

/// Asks again, over a new connection, whether the identity's storage root key is gone, and has the TPM try to load what
/// is stored below it: a single answer on an open bus never costs an identity.
pub(super) fn confirm_loss(context: &mut Context) -> Result<()> {
    let wanted = context.places.identity.srk_name()?;
    let stored = context.places.identity.stored_key();
    context.connections.close_tpm();
    context.memory.primaries = None;
    let tpm = context.tpm()?;
    if tpm.srk()?.is(&wanted) {
        return Ok(());
    }
    if !tpm.lockout()?.owner_auth_set {
        examine_primaries(context)?;
    }
    let makes_it = |names: &Vec<String>| names.contains(&wanted);
    if context.memory.primaries.as_ref().is_some_and(makes_it) {
        return Ok(());
    }
    match stored {
        Ok(stored) => {
            let tpm = context.tpm()?;
            if loads_any(tpm, &stored.seal, &stored.key)? {
                return Err(Error::other(
                    "the TPM loads the identity's key, but reports another storage root key than the one in srk.name: \
                     one of the two is wrong. Is that file damaged, or is somebody tampering with the SPI bus? Nothing \
                     was changed; `firstboot reset` starts over",
                ));
            }
        }
        Err(e) => warn!("{e}"),
    }
    context.memory.lost = Some(wanted);
    Ok(())
}

/// Whether the key of this Name is noted, by this process or an earlier one, as having an authorization value.
pub(super) fn is_noted_with_auth(layout: &Layout, name: &str) -> bool {
    let noted = files::read(&layout.at(ROOT_KEY_WITH_AUTH), MAX_NAME);
    noted.is_ok_and(|noted| noted.is_some_and(|noted| noted == name.as_bytes()))
}

/// Another key with the same Name may have another authorization value, which is not part of the Name.
fn forget_with_auth(layout: &Layout) -> Result<()> {
    Ok(files::remove(&layout.at(ROOT_KEY_WITH_AUTH))?)
}

/// Hexadecimal digits of a Name: two of the algorithm's bytes, and at most 64 of a digest.
const MAX_NAME: usize = 2 * (2 + 64);

fn loads_any(tpm: &mut Tpm, seal: &[Vec<u8>; 2], key: &[Vec<u8>; 2]) -> Result<bool> {
    for [public, private] in [seal, key] {
        if tpm.loads(Stored { public, private })? {
            return Ok(true);
        }
    }
    Ok(false)
}
