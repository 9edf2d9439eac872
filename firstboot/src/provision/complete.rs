//! What a survey says about a complete identity.

use firstboot_formats::record::Record;
use firstboot_formats::x509::Chain;

use super::own_key::OwnKey;
use super::renewal::{Next, Previous, Probation, Renewal};
use crate::eap_tls;
use crate::enrollment::Offer;
use crate::identity::Trial;
use crate::settings::Settings;

/// A complete identity, and its progress.
#[derive(Clone, Debug)]
pub struct Complete {
    /// The Name of the storage root key that it needs.
    pub srk_name: String,
    /// Owner, group and modes are right.
    pub access_is_right: bool,
    /// The request asks for the thing and the subject that are wanted now.
    pub request_is_current: bool,
    /// Request and record are on the boot partition.
    pub request_is_published: bool,
    /// The record of the request.
    pub record: Record,
    /// The accepted certificate.
    pub certificate: Option<Chain>,
    /// The certificate's age, and what comes of it.
    pub renewal: Renewal,
    /// What is in the place of the next identity.
    pub next: Next,
    /// What is in the place of the previous identity.
    pub previous: Previous,
    /// The accepted certificate is in service untried, and there is a way back.
    pub probation: Option<Probation>,
    /// What enrollment offers.
    pub offer: Offer,
    /// What came of trying the certificate that it offers.
    pub offer_trial: Option<Trial>,
    /// The token was seen to hold the accepted certificate, or the edition does not read it there.
    pub token_is_ready: bool,
    /// A used ownership token is still kept.
    pub ownership_is_spent: bool,
    /// The name that the accepted certificate is for, if that is no longer the thing's.
    pub is_for_another_name: Option<String>,
    /// The configuration is what it should be; if that is unknown, some edition's is complete.
    pub configuration_is_written: bool,
    /// The key of the networks that want their own.
    pub own_key: OwnKey,
    /// What wpa_supplicant reads, compared with what it should.
    pub network: eap_tls::Found,
    /// The fleet's claim, or a part of it, is on the boot partition, and no longer needed.
    pub claim_is_spent: bool,
}

impl Complete {
    /// Whether a new certificate has to be tried before it takes the accepted one's place, which is still good.
    pub(super) fn needs_trial(&self, settings: &Settings) -> bool {
        settings.renew.is_some()
            && self.certificate.is_some()
            && !self.renewal.is_over
            && self.is_for_another_name.is_none()
    }
}
