//! The key of the networks that want one of their own: an identity beside the device's, in a directory of its own and
//! below the same storage root key, and the steps for it.
//!
//! It has nothing to do with Greengrass, and a renewal of the device's key does not touch it. No failure here keeps a
//! device from being enrolled, or takes it out of service: it is reported, and not tried again by this process.

use firstboot_formats::clock::Clock;
use firstboot_formats::record::Record;
use firstboot_formats::thing_name::eap_name;
use firstboot_formats::x509::Chain;
use log::warn;

use super::context::{Context, Memory, Places};
use super::open_reply::{self, Acceptance};
use super::{make_identity, offer, renewal, request};
use crate::enrollment::{Offer, WrappedReply};
use crate::error::{Error, Result};
use crate::identity::{Contents, Known};
use crate::layout::NETWORK;
use crate::settings::Settings;

/// What is there of it.
#[derive(Clone, Debug, Default)]
pub enum OwnKey {
    /// No network wants one: it was not looked for, and stays if it is there.
    #[default]
    NotWanted,
    /// It has to be made.
    Absent,
    /// Something that could not be looked at; in words.
    Unknown(String),
    /// What is there is not firstboot's; in words.
    Foreign(String),
    /// One that cannot be used; why.
    Useless(String),
    /// tpm2-pkcs11 was interrupted while it upgraded the store.
    StoreUpgradeCut,
    /// It is there.
    Made(Box<Made>),
}

/// The key is there, and this has become of it.
#[derive(Clone, Debug)]
pub struct Made {
    /// The record of its request.
    pub record: Record,
    /// The request asks for the thing and the subject that are wanted now.
    pub request_is_current: bool,
    /// Request and record are on the boot partition.
    pub request_is_published: bool,
    /// The accepted certificate.
    pub certificate: Option<Chain>,
    /// Its end is near, or past; in words.
    pub warning: Option<String>,
    /// What the boot partition has for it.
    pub offer: Offer,
}

/// A step for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OwnKeyStep {
    /// Repair a store whose upgrade was interrupted.
    RepairStore,
    /// Remove one that cannot be used; why.
    Remove(String),
    /// Make it: token, key, request.
    Make,
    /// Sign another request with it.
    RenewRequest,
    /// Publish the request on the boot partition.
    PublishRequest,
    /// Have the TPM open the wrapped reply, and accept the certificate in it.
    OpenReply(Box<WrappedReply>),
    /// Accept the certificate.
    Accept(Box<Chain>, Option<String>),
}

impl OwnKey {
    /// The accepted certificate for it.
    pub fn certificate(&self) -> Option<&Chain> {
        match self {
            Self::Made(made) => made.certificate.as_ref(),
            _ => None,
        }
    }

    /// Why it is not known whether there is a certificate for it, if it is not.
    pub(super) fn unclear(&self) -> Option<&str> {
        match self {
            Self::Unknown(why) => Some(why),
            Self::StoreUpgradeCut => Some(
                "an upgrade of the networks' token store was interrupted: the next boot repairs it",
            ),
            _ => None,
        }
    }

    /// That its certificate's end is near, or past; in words.
    pub fn warning(&self) -> Option<&str> {
        match self {
            Self::Made(made) => made.warning.as_deref(),
            _ => None,
        }
    }

    /// What a network waits for that wants it, if there is no certificate for it; in words.
    pub fn awaited(&self, memory: &Memory) -> Option<String> {
        if self.certificate().is_some()
            || self.unclear().is_some()
            || matches!(self, Self::NotWanted)
        {
            return None;
        }
        let why = match (self, &memory.own_key_stays) {
            (_, Some(why)) | (Self::Foreign(why), None) => why.clone(),
            (Self::Made(made), None) => match &*memory.judge(&made.offer) {
                Offer::Pending(what) => what.clone(),
                Offer::Refused(why) => format!("the one that is there is refused: {why}"),
                _ => "`firstboot enroll` accepts it".into(),
            },
            _ => "`firstboot provision` makes the key".into(),
        };
        Some(format!("needs a certificate of its own: {why}"))
    }

    /// What the operator should know.
    pub(super) fn remarks(&self, memory: &Memory) -> Vec<String> {
        let awaited = self.awaited(memory);
        let awaited = awaited.map(|why| format!("a network {why}"));
        let has_certificate = self.certificate().is_some();
        let stays = memory.own_key_stays.as_ref().filter(|_| has_certificate);
        let stays = stays.map(|why| format!("the networks' own key stays as it is: {why}"));
        let refused = match self {
            Self::Made(made) if has_certificate => match &*memory.judge(&made.offer) {
                Offer::Refused(why) => Some(format!(
                    "a new certificate for the networks' own key is refused: {why}"
                )),
                _ => None,
            },
            _ => None,
        };
        let warning = self.warning().map(str::to_owned);
        [awaited, stays, refused, warning]
            .into_iter()
            .flatten()
            .collect()
    }
}

impl Made {
    /// Whether somebody is to sign the request: there is no certificate for the thing, or not for much longer.
    pub(super) fn asks(&self) -> bool {
        let certificate = self.certificate.as_ref();
        let thing_name = &self.record.thing_name;
        certificate.is_none_or(|chain| !chain.is_of(thing_name)) || self.warning.is_some()
    }
}

impl OwnKeyStep {
    /// Whether it comes after the request.
    pub(super) fn is_enrollment(&self) -> bool {
        matches!(self, Self::OpenReply(_) | Self::Accept(..))
    }

    /// Whether it leaves the store alone: wpa_supplicant may have that open while the device runs.
    pub(super) fn is_beside_wpa_supplicant(&self) -> bool {
        !matches!(self, Self::RepairStore)
    }

    /// What is about to happen, in words.
    pub(super) fn describe(&self) -> String {
        match self {
            Self::RepairStore => {
                "repairing the networks' token store after an interrupted upgrade".into()
            }
            Self::Remove(why) => format!("removing the networks' own key: {why}"),
            Self::Make => "creating the networks' own key: token, key, request".into(),
            Self::RenewRequest => "signing a new request with the networks' own key".into(),
            Self::PublishRequest => {
                "publishing the request for the networks' own key on the boot partition".into()
            }
            Self::OpenReply(_) => {
                "opening the wrapped certificate for the networks' own key with the TPM".into()
            }
            Self::Accept(..) => "accepting the certificate for the networks' own key".into(),
        }
    }
}

/// Looks, for a device whose storage root key has this Name.
pub(super) fn look(settings: &Settings, places: &Places, srk_name: &str) -> OwnKey {
    if !settings.network.wants_own_key() {
        return OwnKey::NotWanted;
    }
    examine(settings, places, srk_name).unwrap_or_else(|e| OwnKey::Unknown(e.to_string()))
}

fn examine(settings: &Settings, places: &Places, srk_name: &str) -> Result<OwnKey> {
    let Places { network, boot, .. } = places;
    if !network.exists()? {
        return Ok(OwnKey::Absent);
    }
    if network.has_cut_upgrade() {
        return Ok(OwnKey::StoreUpgradeCut);
    }
    if let Some(defect) = network.defect()? {
        return Ok(match network.contents()? {
            Contents::Nothing => OwnKey::Absent,
            Contents::Ours => OwnKey::Useless(defect),
            Contents::Others(what) | Contents::Both(what) => OwnKey::Foreign(what),
        });
    }
    if network.srk_name()? != srk_name {
        // It serves again with that one, and its certificate cannot be had here.
        return Ok(OwnKey::Foreign(format!(
            "{NETWORK} belongs to another TPM. Put that one back, or remove the directory to have a key made in this one"
        )));
    }
    // A store that cannot be read may be readable tomorrow: nothing is removed for it.
    let Known {
        key,
        request,
        request_files: [request_pem, record_json],
        record,
        certificate,
    } = network.known()??;
    let file_name = eap_name(&settings.thing_name);
    let accepted = certificate.as_ref();
    Ok(OwnKey::Made(Box::new(Made {
        request_is_current: request.is_some_and(|request| {
            request::is_current(settings, &request, &request_pem, &record, &key)
        }),
        request_is_published: boot.request_is_published(&file_name, [&request_pem, &record_json]),
        offer: offer::offline(
            settings, places, network, &file_name, &key, &record, accepted,
        )?,
        warning: accepted.and_then(|chain| {
            let what = "the certificate for the networks' own key";
            let then = "networks do not let the device in";
            renewal::warning(what, then, chain.lifetime(), Clock::read())
        }),
        certificate,
        record,
    })))
}

/// Takes the step. A failure is reported and remembered.
pub(super) fn take(context: &mut Context, step: &OwnKeyStep, own: &OwnKey) {
    if let Err(e) = attempt(context, step, own) {
        warn!("the networks' own key: {e}");
        context.memory.own_key_stays = Some(e.to_string());
    }
}

fn attempt(context: &mut Context, step: &OwnKeyStep, own: &OwnKey) -> Result<()> {
    let network = context.places.network.clone();
    let record = || match own {
        OwnKey::Made(made) => Ok(&made.record),
        _ => Err(Error::other("there is no such key")),
    };
    match step {
        OwnKeyStep::RepairStore => network.repair_upgrade(),
        OwnKeyStep::Remove(_) => {
            request::withdraw_own(&context.places);
            network.destroy_if_ours().map(drop)
        }
        OwnKeyStep::Make => make_identity::make_for_networks(context),
        OwnKeyStep::RenewRequest => request::renew_own(context, record()?),
        OwnKeyStep::PublishRequest => {
            let [request, record] = network.request_files()?;
            let file_name = eap_name(&context.settings()?.thing_name);
            request::publish_as(context, true, &file_name, [&request, &record])
        }
        OwnKeyStep::OpenReply(wrapped) => {
            let record = record()?;
            let file = context
                .places
                .boot
                .reply_path(&eap_name(&record.thing_name));
            open_reply::open(
                context,
                &network,
                file,
                wrapped,
                record,
                |context, chain| {
                    context.places.network.accept(chain)?;
                    Ok(Acceptance::Accepted)
                },
            )
        }
        OwnKeyStep::Accept(chain, remark) => {
            if let Some(remark) = remark {
                warn!("{remark}");
            }
            network.accept(chain)
        }
    }
}
