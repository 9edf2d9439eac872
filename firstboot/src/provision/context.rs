//! What a walk works with: inputs, places, memory, and open connections.

use std::borrow::Cow;

use firstboot_formats::digest::Fingerprint;
use firstboot_formats::x509::Chain;

use super::inputs::Inputs;
use crate::boot_partition::BootPartition;
use crate::enrollment::fleet::Session;
use crate::enrollment::{Offer, Refusal};
use crate::error::{Error, Result};
use crate::identity::Identity;
use crate::layout::{Layout, NETWORK, NEXT, PREVIOUS};
use crate::settings::{Platform, Settings};
use crate::tpm::Tpm;

/// One device, and one process that provisions it.
pub struct Context {
    /// What operator and image want, or why that is unknown.
    pub inputs: Result<Inputs>,
    /// Where things are.
    pub places: Places,
    /// What this process remembers.
    pub memory: Memory,
    /// What it has open.
    pub(super) connections: Connections,
}

/// Where things are.
pub struct Places {
    /// The device's files.
    pub layout: Layout,
    /// Its identity directory.
    pub identity: Identity,
    /// The one with the next key, if there is one.
    pub next: Identity,
    /// The one that was in service before, if it is still there.
    pub previous: Identity,
    /// The one with the key for networks that want their own.
    pub network: Identity,
    /// Its boot partition.
    pub boot: BootPartition,
    /// The TCTI of its TPM, if the TPM is to be looked at.
    pub tcti: Option<String>,
}

/// What steps have tried or found out and no file records: it ends with the process.
#[derive(Clone, Debug, Default)]
pub struct Memory {
    /// The Names of the storage root keys that this TPM can create; `None` until it is asked.
    pub primaries: Option<Vec<String>>,
    /// The Name of the key at 0x81000001 that was tried, and whether it accepts an empty authorization value.
    pub empty_auth: Option<(String, bool)>,
    /// The Name of the storage root key that an identity needs, if the TPM, asked again, neither has nor makes it, and
    /// does not load the identity's key.
    pub lost: Option<String>,
    /// AWS IoT Core has created a certificate.
    pub has_created: bool,
    /// The replies that were opened in vain, or could not be.
    pub refused_replies: Vec<RefusedReply>,
    /// Why the request could not be published on the boot partition, although the device is in service.
    pub request_stays: Option<String>,
    /// The certificates that were tried at AWS IoT Core, by their SHA-256, and what came of it, in words.
    pub tried: Vec<(Fingerprint, String)>,
    /// This process leaves it to `firstboot renew` to try certificates and to make another key: it keeps Greengrass
    /// waiting.
    pub leaves_trials: bool,
    /// Greengrass waits for this process, so that it tries again to exchange identities where that has failed before:
    /// Greengrass is not stopped again for it.
    pub repeats_changes: bool,
    /// Why a renewal could not go on: what is in service is none the worse for it, and this process leaves it at that.
    pub renewal_stays: Option<String>,
    /// Why nothing more can be done about the networks' own key: only they depend on it.
    pub own_key_stays: Option<String>,
    /// Why what wpa_supplicant reads could not be written or removed: nothing else depends on it.
    pub network_stays: Option<String>,
    /// Why the claim could not be removed from the boot partition.
    pub claim_stays: Option<String>,
}

/// A reply that could not be opened, or whose certificate was not accepted.
#[derive(Clone, Debug)]
pub struct RefusedReply {
    /// SHA-256 of its file, hexadecimal.
    pub sha256: String,
    /// The file, and why it is refused.
    pub refusal: Refusal,
    /// Its certificate has to be tried first, and nobody has answered.
    pub is_for_now: bool,
}

/// Connections, each opened at its first use.
#[derive(Default)]
pub(super) struct Connections {
    tpm: Option<Tpm>,
    /// To AWS IoT Core, with the claim certificate.
    pub session: Option<Session>,
}

impl Context {
    /// Reads everything that is wanted before anything is touched. If something is wrong with it, the device can still
    /// be looked at.
    pub fn open(layout: Layout, tcti: Option<&str>) -> Self {
        let boot = BootPartition::new(&layout);
        let mut inputs = Inputs::read(&layout, &boot);
        let (module, group) = match &inputs {
            Ok(inputs) => (inputs.settings.platform.pkcs11_module.clone(), inputs.group),
            Err(_) => (Platform::default().pkcs11_module, None),
        };
        let identity = Identity::new(&layout, module, tcti.unwrap_or_default(), group);
        // With fleet provisioning, the thing's name is not a setting.
        if inputs.as_ref().is_ok_and(Inputs::is_fleet)
            && let Err(e) = identity.registration()
        {
            inputs = Err(e);
        }
        Self {
            inputs,
            places: Places {
                next: identity.at(&layout, NEXT),
                previous: identity.at(&layout, PREVIOUS),
                network: identity.at(&layout, NETWORK),
                layout,
                identity,
                boot,
                tcti: tcti.map(str::to_owned),
            },
            memory: Memory::default(),
            connections: Connections::default(),
        }
    }

    /// What is wanted, or why that is unknown: for [`super::next()`].
    pub fn wanted(&self) -> std::result::Result<&Settings, &Error> {
        self.inputs.as_ref().map(|inputs| &inputs.settings)
    }

    /// What is wanted: for the steps, none of which is taken if that is unknown.
    pub(super) fn inputs(&self) -> Result<&Inputs> {
        self.inputs.as_ref().map_err(Clone::clone)
    }

    /// The settings, for the steps.
    pub(super) fn settings(&self) -> Result<&Settings> {
        Ok(&self.inputs()?.settings)
    }

    /// The TPM.
    pub(super) fn tpm(&mut self) -> Result<&mut Tpm> {
        self.connections.tpm(&self.places)
    }
}

impl Places {
    /// The TPM's TCTI.
    pub(super) fn tcti(&self) -> Result<&str> {
        self.tcti
            .as_deref()
            .ok_or_else(|| Error::other("no TPM was named"))
    }
}

impl Memory {
    /// Whether the key of this Name accepts an empty authorization value, if that was tried.
    pub(super) fn has_empty_auth(&self, wanted: &str) -> Option<bool> {
        let (name, empty) = self.empty_auth.as_ref()?;
        (name == wanted).then_some(*empty)
    }

    /// The offer, except that a reply that could not be opened is refused, and one whose certificate could not be tried
    /// is awaited.
    pub fn judge<'a>(&self, offer: &'a Offer) -> Cow<'a, Offer> {
        let mut refused = self.refused_replies.iter();
        if let Offer::Reply(wrapped) = offer
            && let Some(refused) = refused.find(|refused| refused.sha256 == wrapped.sha256)
        {
            let refusal = refused.refusal.clone();
            return Cow::Owned(match refused.is_for_now {
                true => Offer::Pending(refusal.reason),
                false => Offer::Refused(refusal),
            });
        }
        Cow::Borrowed(offer)
    }

    /// What came of trying this certificate in this process, in words.
    pub fn tried(&self, chain: &Chain) -> Option<&str> {
        let fingerprint = chain.fingerprint();
        let mut tried = self.tried.iter();
        tried
            .find(|(tried, _)| *tried == fingerprint)
            .map(|(_, why)| why.as_str())
    }

    /// Whether it is for this process to try a certificate, and it has not done so yet.
    pub(super) fn has_to_try(&self, chain: &Chain) -> bool {
        !self.leaves_trials && self.tried(chain).is_none()
    }

    /// Remembers what came of it.
    pub(super) fn note_tried(&mut self, chain: &Chain, why: String) {
        self.tried.push((chain.fingerprint(), why));
    }
}

impl Connections {
    /// The TPM.
    pub fn tpm(&mut self, places: &Places) -> Result<&mut Tpm> {
        if self.tpm.is_none() {
            self.tpm = Some(Tpm::connect(places.tcti()?, &places.layout)?);
        }
        self.tpm
            .as_mut()
            .ok_or_else(|| Error::other("the TPM is not open"))
    }

    /// Closes the connection to the TPM: the next use opens a new one.
    pub fn close_tpm(&mut self) {
        self.tpm = None;
    }
}
