//! The states of a device: one list, for `status`, for `status.json` and for the help text.

use std::fmt;

use serde::Serialize;

macro_rules! states {
    ($($name:ident => $meaning:literal,)*) => {
        /// How a device stands. The names are published, and stay.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
        pub enum State {
            $(#[doc = $meaning] $name,)*
        }

        impl State {
            /// Every state.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// What it means, and what to do about it.
            pub fn meaning(self) -> &'static str {
                match self {
                    $(Self::$name => $meaning,)*
                }
            }
        }
    };
}

states! {
    Blank => "no identity yet: `firstboot provision` creates one, or says what prevents that",
    Interrupted => "creating the identity was interrupted: the next start cleans up and tries again",
    AwaitingCertificate => "have the request signed, unless the certificate comes over the network; if the certificate or the request was refused, the message says why",
    Unconfigured => "the certificate is accepted: `firstboot enroll` configures Greengrass with it",
    Done => "Greengrass is configured; the message may add a remark",
    NoTpm => "no TPM responds: check the overlay, SPI, and how the board is seated; each try has the kernel probe again",
    LockedOut => "too many failed tries, and somebody else has set the TPM's lockout authorization: wait, or reset the lockout with it",
    ForeignPrimary => "another program's object is where the storage root key belongs: remove it if nothing needs it",
    ForeignStore => "/var/lib/tpm2_pkcs11 holds another program's token, which firstboot leaves alone: move that store elsewhere",
    VolatileStorage => "the identity would not survive a power cut: the message says what to mount",
    Orphaned => "the TPM does not have the identity's storage root key: the next start recreates it, restores this TPM's own identity, or creates a new one; or the message says what prevents that",
    StoreUpgradeCut => "an upgrade of the token store was interrupted: the next start repairs it",
    Error => "the message says what is wrong and what to do: usually a mistake in firstboot.json, with line and column",
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}
