//! The steps, and what people are told about each.

use std::mem::discriminant;
use std::path::PathBuf;

use firstboot_formats::x509::Chain;

use super::State;
use super::own_key::OwnKeyStep;
use super::renewal::RenewalStep;
use crate::enrollment::WrappedReply;
use crate::error::ErrorKind;

/// What to do next. One of these at a time.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Stop: firstboot cannot fix this.
    Stop(State, ErrorKind, String),
    /// Stop for now: somebody else, or time, will fix this.
    Wait(State, String),
    /// Leave the device in service as it is, although something is wrong or missing.
    Serve(State, String),
    /// Remove an unfinished identity.
    RemoveStaging,
    /// Repair a store whose upgrade was interrupted.
    RepairStore,
    /// Reset the counter of failed tries.
    ResetLockout,
    /// Ask the TPM which storage root keys it can create.
    ExaminePrimaries,
    /// Check whether the storage root key takes an empty authorization value.
    TryRootKey,
    /// Recreate the storage root key of this Name.
    RestoreRootKey(String),
    /// Check once more whether the identity's storage root key is gone.
    ConfirmLoss,
    /// Restore an identity that was set aside here.
    TakeBack(PathBuf),
    /// Set aside an identity that this TPM cannot serve.
    SetAside(String),
    /// Remove a configuration that belongs to no identity.
    RemoveConfiguration,
    /// Create the identity, and the storage root key above it if there is none.
    MakeIdentity,
    /// Fix owner and permissions.
    SetAccess,
    /// Sign another request with the same key.
    RenewRequest,
    /// Publish the request on the boot partition.
    PublishRequest,
    /// Have an EST server issue a certificate, and accept it.
    RequestCertificate,
    /// Have AWS IoT Core create a certificate, and keep it with its ownership token.
    CreateCertificate,
    /// Have AWS IoT Core register the thing with the kept certificate.
    RegisterThing,
    /// Remove an ownership token that has been used.
    ForgetOwnership,
    /// Have the TPM open a wrapped reply, and accept the certificate in it.
    OpenReply(Box<WrappedReply>),
    /// Accept the offered certificate.
    Accept(Box<Chain>, Option<String>),
    /// Store the accepted certificate in the token.
    FillToken(Box<Chain>),
    /// Write Greengrass's configuration.
    WriteConfiguration(Box<Chain>),
    /// A step for the networks' own key.
    OwnKey(OwnKeyStep, State),
    /// Write what wpa_supplicant reads, as far as there are certificates for it, and remove what is not wanted any more.
    WriteNetwork(State),
    /// A step of a renewal.
    Renewal(RenewalStep),
    /// Remove the fleet's claim from the boot partition.
    RemoveClaim,
    /// Nothing left to do; perhaps with something that the operator should know.
    Done(Option<String>),
}

impl Step {
    /// Whether the step comes after the request: for `firstboot enroll`, not for `provision`.
    pub(super) fn is_enrollment(&self) -> bool {
        match self {
            Self::Wait(state, _) => *state == State::AwaitingCertificate,
            Self::RequestCertificate
            | Self::CreateCertificate
            | Self::RegisterThing
            | Self::ForgetOwnership
            | Self::OpenReply(_)
            | Self::Accept(..)
            | Self::FillToken(_)
            | Self::WriteConfiguration(_)
            | Self::WriteNetwork(_)
            | Self::RemoveClaim
            | Self::Renewal(_) => true,
            Self::OwnKey(step, _) => step.is_enrollment(),
            _ => false,
        }
    }

    /// Whether the step asks for a new certificate or takes it, or prepares that, or is for networks, and leaves alone
    /// what a running Greengrass uses: token, key and configuration.
    pub(super) fn is_renewal(&self) -> bool {
        match self {
            Self::Renewal(step) => step.is_beside_greengrass(),
            Self::OwnKey(step, _) => step.is_beside_wpa_supplicant(),
            Self::RemoveStaging
            | Self::ResetLockout
            | Self::ForgetOwnership
            | Self::OpenReply(_)
            | Self::Accept(..)
            | Self::WriteNetwork(_)
            | Self::RemoveClaim => true,
            _ => false,
        }
    }

    /// Whether Greengrass must not be running meanwhile, if it ever was: the step changes what Greengrass uses.
    pub(super) fn changes_service(&self) -> bool {
        match self {
            Self::Renewal(step) => !step.is_beside_greengrass(),
            Self::FillToken(_) | Self::WriteConfiguration(_) => true,
            _ => false,
        }
    }

    /// Whether Greengrass has to stop before a renewal can go on.
    pub fn needs_restart(&self) -> bool {
        match self {
            Self::Renewal(step) => step.needs_restart(),
            Self::FillToken(_) => true,
            _ => false,
        }
    }

    /// Whether the two are of one kind, whatever they are about.
    pub(super) fn is_like(&self, other: &Self) -> bool {
        match (self, other) {
            (
                Self::Renewal(RenewalStep::Try(one, _)),
                Self::Renewal(RenewalStep::Try(other, _)),
            ) => one == other,
            (Self::Renewal(one), Self::Renewal(other)) => discriminant(one) == discriminant(other),
            (Self::OwnKey(one, _), Self::OwnKey(other, _)) => {
                discriminant(one) == discriminant(other)
            }
            (one, other) => discriminant(one) == discriminant(other),
        }
    }

    /// Whether the walk ends here.
    pub(super) fn is_end(&self) -> bool {
        matches!(
            self,
            Self::Stop(..) | Self::Wait(..) | Self::Serve(..) | Self::Done(_)
        )
    }

    /// The state in which this step is due.
    pub fn state(&self) -> State {
        match self {
            Self::Stop(state, ..)
            | Self::Wait(state, _)
            | Self::Serve(state, _)
            | Self::OwnKey(_, state)
            | Self::WriteNetwork(state) => *state,
            Self::RemoveStaging => State::Interrupted,
            Self::RepairStore => State::StoreUpgradeCut,
            Self::ResetLockout => State::LockedOut,
            Self::ExaminePrimaries
            | Self::RestoreRootKey(_)
            | Self::ConfirmLoss
            | Self::TakeBack(_)
            | Self::SetAside(_) => State::Orphaned,
            Self::TryRootKey | Self::RemoveConfiguration | Self::MakeIdentity => State::Blank,
            Self::SetAccess
            | Self::RenewRequest
            | Self::PublishRequest
            | Self::RequestCertificate
            | Self::CreateCertificate
            | Self::RegisterThing
            | Self::ForgetOwnership
            | Self::OpenReply(_)
            | Self::Accept(..) => State::AwaitingCertificate,
            Self::FillToken(_) | Self::WriteConfiguration(_) => State::Unconfigured,
            Self::Renewal(_) | Self::RemoveClaim | Self::Done(_) => State::Done,
        }
    }

    /// What the step does, or what it waits for.
    pub fn describe(&self) -> String {
        match self {
            Self::Stop(_, _, why) | Self::Wait(_, why) | Self::Serve(_, why) => why.clone(),
            Self::RemoveStaging => "removing an unfinished identity".into(),
            Self::RepairStore => "repairing the token store after an interrupted upgrade".into(),
            Self::ResetLockout => "resetting the TPM's count of failed tries".into(),
            Self::ExaminePrimaries => "asking the TPM which storage root keys it can create".into(),
            Self::TryRootKey => {
                "checking whether the storage root key has an authorization value".into()
            }
            Self::RestoreRootKey(_) => "recreating the identity's storage root key".into(),
            Self::ConfirmLoss => "checking once more for the identity's storage root key".into(),
            Self::TakeBack(path) => {
                format!("restoring this TPM's identity from {}", path.display())
            }
            Self::SetAside(why) => format!("setting the identity aside: {why}"),
            Self::RemoveConfiguration => "removing the configuration of an earlier identity".into(),
            Self::MakeIdentity => "creating the identity: token, key, request".into(),
            Self::SetAccess => "fixing the identity's owner and permissions".into(),
            Self::RenewRequest => "signing a new request with the same key".into(),
            Self::PublishRequest => "publishing the request on the boot partition".into(),
            Self::RequestCertificate => "requesting a certificate from the EST server".into(),
            Self::CreateCertificate => "requesting a certificate from AWS IoT Core".into(),
            Self::RegisterThing => "registering the thing with AWS IoT Core".into(),
            Self::ForgetOwnership => "removing the used ownership token".into(),
            Self::OpenReply(_) => "opening the wrapped certificate with the TPM".into(),
            Self::Accept(..) => "accepting the certificate".into(),
            Self::FillToken(_) => "storing the certificate in the token".into(),
            Self::WriteConfiguration(_) => "writing Greengrass's configuration".into(),
            Self::OwnKey(step, _) => step.describe(),
            Self::WriteNetwork(_) => "writing wpa_supplicant's configuration".into(),
            Self::Renewal(step) => step.describe(),
            Self::RemoveClaim => "removing the fleet's claim from the boot partition".into(),
            Self::Done(None) => "nothing left to do".into(),
            Self::Done(Some(remark)) => format!("nothing left to do, but: {remark}"),
        }
    }
}
