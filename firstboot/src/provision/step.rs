//! The steps, and what people are told about each.

use std::path::PathBuf;

use firstboot_formats::x509::Chain;

use super::State;
use crate::enrollment::WrappedReply;
use crate::error::ErrorKind;

/// What to do next. One of these at a time.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Stop: this cannot be put right here.
    Stop(State, ErrorKind, String),
    /// Stop for now: this will be put right by somebody else, or by time.
    Wait(State, String),
    /// Leave the device in service as it is, although something is wrong or awaited.
    Serve(State, String),
    /// Remove an interrupted identity.
    RemoveStaging,
    /// Repair a store whose upgrade was interrupted.
    RepairStore,
    /// Reset the counter of failed tries.
    ResetLockout,
    /// Ask the TPM which storage root keys it can make.
    ExaminePrimaries,
    /// Try whether the storage root key takes an empty authorization value.
    TryRootKey,
    /// Make the storage root key of this Name again.
    RestoreRootKey(String),
    /// Ask again whether the identity's storage root key is gone.
    ConfirmLoss,
    /// Take an identity back that was set aside here.
    TakeBack(PathBuf),
    /// Set an identity aside that this TPM cannot serve.
    SetAside(String),
    /// Take a configuration away that belongs to no identity.
    RemoveConfiguration,
    /// Make the identity, and the storage root key below it if there is none.
    MakeIdentity,
    /// Put owner and modes right.
    SetAccess,
    /// Sign another request with the same key.
    RenewRequest,
    /// Put the request onto the boot partition.
    PublishRequest,
    /// Have AWS IoT Core create a certificate, and keep it with its ownership token.
    CreateCertificate,
    /// Have AWS IoT Core register the thing with the certificate that is kept.
    RegisterThing,
    /// Remove an ownership token that has done its service.
    ForgetOwnership,
    /// Have the TPM open a wrapped reply, and accept the certificate in it.
    OpenReply(Box<WrappedReply>),
    /// Accept the offered certificate.
    Accept(Box<Chain>, Option<String>),
    /// Make the token hold the accepted certificate.
    FillToken(Box<Chain>),
    /// Write Greengrass's configuration.
    WriteConfiguration(Box<Chain>),
    /// Remove the fleet's claim certificate and key from the boot partition.
    RemoveClaim,
    /// Nothing is left to do; with what the operator should know.
    Done(Option<String>),
}

impl Step {
    /// Whether the step comes after the request: for `firstboot enroll`, not for `provision`.
    pub(super) fn is_enrollment(&self) -> bool {
        match self {
            Self::Wait(state, _) => *state == State::AwaitingCertificate,
            Self::CreateCertificate
            | Self::RegisterThing
            | Self::ForgetOwnership
            | Self::OpenReply(_)
            | Self::Accept(..)
            | Self::FillToken(_)
            | Self::WriteConfiguration(_)
            | Self::RemoveClaim => true,
            _ => false,
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
            Self::Stop(state, ..) | Self::Wait(state, _) | Self::Serve(state, _) => *state,
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
            | Self::CreateCertificate
            | Self::RegisterThing
            | Self::ForgetOwnership
            | Self::OpenReply(_)
            | Self::Accept(..) => State::AwaitingCertificate,
            Self::FillToken(_) | Self::WriteConfiguration(_) => State::Unconfigured,
            Self::RemoveClaim | Self::Done(_) => State::Done,
        }
    }

    /// What the step does, or what it waits for.
    pub fn describe(&self) -> String {
        match self {
            Self::Stop(_, _, why) | Self::Wait(_, why) | Self::Serve(_, why) => why.clone(),
            Self::RemoveStaging => "removing an identity whose making was interrupted".into(),
            Self::RepairStore => "repairing a token store whose upgrade was interrupted".into(),
            Self::ResetLockout => "resetting the TPM's count of failed tries".into(),
            Self::ExaminePrimaries => "asking the TPM which storage root key it makes".into(),
            Self::TryRootKey => {
                "trying whether the storage root key has an authorization value".into()
            }
            Self::RestoreRootKey(_) => "making the identity's storage root key again".into(),
            Self::ConfirmLoss => "asking the TPM again for the identity's storage root key".into(),
            Self::TakeBack(path) => {
                format!("taking back the identity of this TPM, {}", path.display())
            }
            Self::SetAside(why) => format!("setting the identity aside: {why}"),
            Self::RemoveConfiguration => "removing the configuration of an earlier identity".into(),
            Self::MakeIdentity => "making the identity: token, key, request".into(),
            Self::SetAccess => "putting the identity's owner and modes right".into(),
            Self::RenewRequest => "writing the request anew, with the same key".into(),
            Self::PublishRequest => "putting the request onto the boot partition".into(),
            Self::CreateCertificate => "asking AWS IoT Core for the certificate".into(),
            Self::RegisterThing => "registering the thing with AWS IoT Core".into(),
            Self::ForgetOwnership => "removing the certificate's ownership token".into(),
            Self::OpenReply(_) => "opening the wrapped certificate with the TPM".into(),
            Self::Accept(..) => "accepting the certificate".into(),
            Self::FillToken(_) => "putting the certificate into the token".into(),
            Self::WriteConfiguration(_) => "writing Greengrass's configuration".into(),
            Self::RemoveClaim => "removing the fleet's claim pair from the boot partition".into(),
            Self::Done(None) => "everything is as it should be".into(),
            Self::Done(Some(remark)) => format!("everything is as it should be, but: {remark}"),
        }
    }
}
