//! The storage root key, as the identity needs it: what takes an authorization to find out about it, and what puts it
//! back.
//!
//! Looking never authorizes anything in the TPM. Where it does not suffice, these steps find out, and the next look
//! has their findings.

use firstboot_formats::files::{self, Access};
use log::warn;

use crate::device::Device;
use crate::error::{Error, Result};
use crate::layout::ROOT_KEY_WITH_AUTH;
use crate::progress;
use crate::tpm::{Srk, Stored, Tpm};

/// What this process has found out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Findings {
    /// The Names of the storage root keys that this TPM can make; `None` before that was tried.
    pub primaries: Option<Vec<String>>,
    /// The Name of the key at 0x81000001 that was tried, and whether it takes an empty authorization value.
    pub empty_auth: Option<(String, bool)>,
    /// The Name that an identity needs, and which the TPM, asked again, neither has nor makes; nor does it load the
    /// identity's key.
    pub lost: Option<String>,
}

impl Findings {
    /// Whether the key of this Name takes an empty authorization value, as far as that is known.
    pub fn has_empty_auth(&self, wanted: &str) -> Option<bool> {
        let (name, empty) = self.empty_auth.as_ref()?;
        (name == wanted).then_some(*empty)
    }
}

impl Device {
    /// What was found out: by this process, or by an earlier one, where asking again would cost a
    /// dictionary-attack try.
    pub fn findings(&self, srk: Option<&Srk>) -> Findings {
        let mut findings = self.findings.clone();
        if let Some(Srk::Present { name, .. }) = srk
            && findings.has_empty_auth(name).is_none()
            && self.is_known_with_auth(name)
        {
            findings.empty_auth = Some((name.clone(), false));
        }
        findings
    }

    /// Finds out which storage root keys this TPM can make.
    pub fn examine_primaries(&mut self) -> Result<()> {
        let what = "asking the TPM which storage root key it makes";
        let names = progress::during(what, || self.tpm()?.primary_names())?;
        self.findings.primaries = Some(names);
        Ok(())
    }

    /// Finds out whether the key at 0x81000001 takes an empty authorization value. Where it does not, that has cost a
    /// dictionary-attack try, unless the key has noDA: its Name is written down, so that no later start tries again.
    /// It is kept beside the identity: what would not last there, the identity would not either; and on the boot
    /// partition, whoever has had the card could have written it. A power cut before it is written costs one more
    /// try; written before the try, it could condemn a key that is good.
    pub fn try_root_key(&mut self, srk: &Srk) -> Result<()> {
        let Srk::Present { name, no_da } = srk else {
            return Ok(());
        };
        let empty = self.tpm()?.srk_has_empty_auth()?;
        if !empty && !no_da {
            let path = self.layout.at(ROOT_KEY_WITH_AUTH);
            if let Some(parent) = path.parent() {
                files::make_directory(parent, 0o755)?;
            }
            files::write(&path, name.as_bytes(), Some(Access::PRIVATE))?;
        }
        self.findings.empty_auth = Some((name.clone(), empty));
        Ok(())
    }

    /// Makes the storage root key; its Name.
    pub fn make_root_key(&mut self) -> Result<String> {
        self.forget_with_auth()?;
        progress::during("making the storage root key", || self.tpm()?.make_srk())
    }

    /// Makes the storage root key of this Name again, and leaves it at 0x81000001.
    pub fn restore_root_key(&mut self, name: &str) -> Result<()> {
        self.forget_with_auth()?;
        progress::during("making the storage root key again", || {
            self.tpm()?.restore_srk(name)
        })
    }

    /// Asks again, over a new connection, whether the identity's storage root key is gone, and has the TPM try to load
    /// what is stored below it: a single answer on an open bus does not take an identity away.
    pub fn confirm_loss(&mut self) -> Result<()> {
        let wanted = self.identity.srk_name()?;
        let stored = self.identity.stored_key();
        self.reconnect();
        self.findings.primaries = None;
        let tpm = self.tpm()?;
        if tpm.srk()?.is(&wanted) {
            return Ok(());
        }
        if !tpm.lockout()?.owner_auth_set {
            self.examine_primaries()?;
        }
        if self
            .findings
            .primaries
            .iter()
            .flatten()
            .any(|n| *n == wanted)
        {
            return Ok(());
        }
        match stored {
            Ok(stored) => {
                let tpm = self.tpm()?;
                if loads_any(tpm, &stored.seal, &stored.key)? {
                    return Err(Error::other(
                        "the TPM loads the identity's key, and yet says that it has another storage root key than the one \
                         in srk.name: one of these is false. Is that file damaged, or does somebody meddle with the \
                         SPI bus? Nothing was changed; `firstboot reset` starts over",
                    ));
                }
            }
            Err(e) => warn!("{e}"),
        }
        self.findings.lost = Some(wanted);
        Ok(())
    }

    fn is_known_with_auth(&self, name: &str) -> bool {
        let noted = files::read(&self.layout.at(ROOT_KEY_WITH_AUTH), MAX_NAME);
        noted.is_ok_and(|noted| noted.is_some_and(|noted| noted == name.as_bytes()))
    }

    /// Another key under the same Name may have another authorization value, which is no part of the Name.
    fn forget_with_auth(&self) -> Result<()> {
        Ok(files::remove(&self.layout.at(ROOT_KEY_WITH_AUTH))?)
    }
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
