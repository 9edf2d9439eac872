//! The renewal of the accepted certificate, with its key or with a new one.
//!
//! | file | what |
//! |---|---|
//! | `due` | when a new certificate is due, and the request for it |
//! | `by_network` | where that request is sent, and what is kept of the answer |
//! | `trial` | whether AWS IoT Core accepts a new certificate, and the way back if it does not |
//! | `next_key` | another key: the next identity, and its steps |
//!
//! No failure here takes a device out of service. It is reported, and not tried again by this process.

mod by_network;
mod due;
mod next_key;
mod trial;

use firstboot_formats::public_key::KeyType;
use firstboot_formats::x509::Chain;
use log::warn;

use super::context::Context;
use super::make_identity;
use crate::enrollment::WrappedReply;
use crate::error::{Error, Result};

pub use due::Renewal;
pub(super) use due::warning;
pub use next_key::{Candidate, Next, Previous};
pub use trial::{Back, Probation};

pub(super) use next_key::{look as next_identity, previous};
pub(super) use trial::{probation, try_opened};

/// A step of a renewal, for a device that has its certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RenewalStep {
    /// Ask for a new certificate in place of this one: publish the request again.
    Ask(Box<Chain>),
    /// Request one in place of this one over the network, and keep what comes.
    Request(Box<Chain>),
    /// Try a certificate at AWS IoT Core.
    Try(Tried, Box<Chain>),
    /// Accept a certificate that could not be tried.
    AcceptUntried(Box<Chain>, Option<String>),
    /// Go back to this certificate: AWS IoT Core refuses its successor.
    TakeBackCertificate(Box<Chain>),
    /// Make the identity with the next key, beside the one in service.
    MakeNext,
    /// Ask for its certificate, in place of this one: publish its request instead of the present one's.
    AskForNext(Box<Chain>),
    /// Request that certificate, in place of this one, over the network, and keep what comes.
    RequestForNext(Box<Chain>),
    /// Remove a next identity that will not be in service; why.
    RemoveNext(String),
    /// Have the TPM open the wrapped reply for the next identity, and accept the certificate in it.
    OpenNextReply(Box<WrappedReply>),
    /// Accept the certificate for the next identity.
    AcceptNext(Box<Chain>, Option<String>),
    /// Store it in the next identity's token.
    FillNextToken(Box<Chain>),
    /// Put the next identity into the place of the one in service.
    ChangeIdentities {
        /// Its certificate.
        certificate: Box<Chain>,
        /// This failed before.
        again: bool,
    },
    /// Keep the identity that was in service before, and tidy up the boot partition.
    KeepPrevious,
    /// Go back to the previous identity: AWS IoT Core refuses the certificate in service.
    TakeBackIdentity {
        /// This failed before.
        again: bool,
    },
    /// Make the identity that was taken out of service the next one again.
    PutBackNext,
    /// Note since when the identity has been in service: that was not known when it came.
    NoteTakenUp,
    /// Remove the identity that was in service before.
    RemovePrevious,
}

/// Which certificate is tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tried {
    /// One that is offered for the key in service.
    Offered,
    /// The next identity's.
    Next,
    /// The one in service, which could not be tried before.
    InService,
}

impl RenewalStep {
    /// Whether Greengrass may be running: the step leaves token, key and configuration alone.
    pub(super) fn is_beside_greengrass(&self) -> bool {
        !matches!(
            self,
            Self::ChangeIdentities { .. } | Self::TakeBackIdentity { .. }
        )
    }

    /// Whether Greengrass has to stop for it; not again for what has failed before.
    pub(super) fn needs_restart(&self) -> bool {
        matches!(
            self,
            Self::ChangeIdentities { again: false, .. } | Self::TakeBackIdentity { again: false }
        )
    }

    /// What is about to happen, in words.
    pub(super) fn describe(&self) -> String {
        match self {
            Self::Ask(_) => "asking for a new certificate: publishing the request again".into(),
            Self::Request(_) => "requesting a new certificate over the network".into(),
            Self::RequestForNext(_) => {
                "requesting a certificate for the new key over the network".into()
            }
            Self::Try(Tried::Offered, _) => "trying the new certificate".into(),
            Self::Try(Tried::Next, _) => "trying the certificate for the new key".into(),
            Self::Try(Tried::InService, _) => "trying the certificate in service".into(),
            Self::AcceptUntried(..) => "accepting the certificate without having tried it".into(),
            Self::TakeBackCertificate(_) => "going back to the previous certificate".into(),
            Self::MakeNext => "creating the next identity: token, key, request".into(),
            Self::AskForNext(_) => "asking for a certificate for the new key".into(),
            Self::RemoveNext(why) => format!("removing the next identity: {why}"),
            Self::OpenNextReply(_) => {
                "opening the wrapped certificate for the new key with the TPM".into()
            }
            Self::AcceptNext(..) => "accepting the certificate for the new key".into(),
            Self::FillNextToken(_) => "storing the certificate in the next identity's token".into(),
            Self::ChangeIdentities { .. } => "putting the next identity into service".into(),
            Self::KeepPrevious => "keeping the previous identity".into(),
            Self::TakeBackIdentity { .. } => "going back to the previous identity".into(),
            Self::PutBackNext => "making the refused identity the next one again".into(),
            Self::NoteTakenUp => "noting since when the identity has been in service".into(),
            Self::RemovePrevious => "removing the previous identity".into(),
        }
    }
}

/// Takes the step. A failure is reported and remembered.
pub(super) fn take(context: &mut Context, step: &RenewalStep, renewal: &Renewal, next: &Next) {
    if let Err(e) = attempt(context, step, renewal, next) {
        warn!("{e}");
        context.memory.renewal_stays = Some(e.to_string());
    }
}

fn attempt(
    context: &mut Context,
    step: &RenewalStep,
    renewal: &Renewal,
    next: &Next,
) -> Result<()> {
    let places = &context.places;
    match step {
        RenewalStep::Ask(accepted) => due::ask(context, renewal, accepted),
        RenewalStep::Request(accepted) => {
            let identity = places.identity.clone();
            by_network::request(context, &identity, accepted)
        }
        RenewalStep::RequestForNext(accepted) => {
            let next = places.next.clone();
            by_network::request(context, &next, accepted)
        }
        RenewalStep::Try(which, chain) => trial::take(context, *which, chain),
        RenewalStep::AcceptUntried(chain, remark) => {
            warn_of(remark.as_deref());
            trial::accept_untried(&places.identity, chain)
        }
        RenewalStep::TakeBackCertificate(former) => {
            places.identity.accept(former)?;
            places.identity.end_probation()
        }
        RenewalStep::MakeNext => make_identity::make_next(context),
        RenewalStep::AskForNext(accepted) => due::ask_for_next(context, renewal, accepted),
        RenewalStep::RemoveNext(_) => next_key::remove(places),
        RenewalStep::OpenNextReply(wrapped) => match next {
            Next::Candidate(candidate) => next_key::open_reply(context, wrapped, candidate),
            _ => Err(Error::other("there is no next identity")),
        },
        RenewalStep::AcceptNext(chain, remark) => {
            warn_of(remark.as_deref());
            places.next.accept(chain)
        }
        RenewalStep::FillNextToken(chain) => places.next.fill_token(chain),
        RenewalStep::ChangeIdentities { certificate, .. } => {
            next_key::change_identities(context, certificate)
        }
        RenewalStep::KeepPrevious => next_key::keep_previous(context),
        RenewalStep::TakeBackIdentity { .. } => next_key::take_back(context),
        RenewalStep::PutBackNext => next_key::put_back(context),
        RenewalStep::NoteTakenUp => {
            let now = context.settings()?.enrollment.clock().now;
            context.places.identity.note_taken_up(now)
        }
        RenewalStep::RemovePrevious => places.previous.discard(),
    }
}

/// The key of this certificate.
fn kind_of(chain: &Chain) -> Result<KeyType> {
    chain
        .key()
        .key_type()
        .ok_or_else(|| Error::other("the certificate has an unknown kind of key"))
}

fn warn_of(remark: Option<&str>) {
    if let Some(remark) = remark {
        warn!("{remark}");
    }
}
