//! The registry: certificates, ownership tokens and things. Only tests advance its clock.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Result;
use openssl::hash::MessageDigest;
use openssl::x509::X509;

use crate::doubles::pki::hex;

/// "The certificateOwnershipToken … expires after one hour" (AWS IoT Core developer guide, "Device
/// provisioning MQTT API"). If it was not activated by then, the certificate is deleted, too.
pub const TOKEN_LIFETIME: Duration = Duration::from_secs(60 * 60);

/// AWS IoT API reference, UpdateCertificate, newStatus.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    PendingActivation,
    Active,
    Inactive,
    /// Never activated, and its token has expired.
    Deleted,
}

/// AWS's certificateId: SHA-256 of the certificate's DER, in hexadecimal.
pub fn certificate_id(pem: &str) -> Result<String> {
    let digest = X509::from_pem(pem.as_bytes())?.digest(MessageDigest::sha256())?;
    Ok(hex(&digest))
}

#[derive(Clone, Debug)]
pub struct Certificate {
    /// As [`certificate_id`] has it.
    pub id: String,
    pub pem: String,
    /// SHA-256 of the public key's DER.
    pub key_sha256: String,
    pub token: String,
    pub token_used: bool,
    pub created: Duration,
    pub status: Status,
    pub thing: Option<String>,
}

/// Totals over all certificates ever created.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub created: usize,
    pub active: usize,
    /// Created and never activated: orphans, which AWS deletes after an hour.
    pub orphaned: usize,
    pub things: usize,
    /// RegisterThing calls, successful or not.
    pub register_calls: usize,
    /// Successful ones, repetitions included.
    pub registered: usize,
}

#[derive(Clone, Debug, Default)]
pub struct Registry {
    certificates: BTreeMap<String, Certificate>,
    /// Just-in-time provisioning: certificates of a registered CA that have connected once, and their things.
    just_in_time: BTreeMap<String, String>,
    now: Duration,
    pub(super) register_calls: usize,
    pub(super) registered: usize,
}

impl Registry {
    pub fn certificates(&self) -> impl Iterator<Item = &Certificate> {
        self.certificates.values()
    }

    pub fn certificate(&self, id: &str) -> Option<&Certificate> {
        self.certificates.get(id)
    }

    pub fn certificate_mut(&mut self, id: &str) -> Option<&mut Certificate> {
        self.certificates.get_mut(id)
    }

    pub fn by_token(&mut self, token: &str) -> Option<&mut Certificate> {
        self.certificates.values_mut().find(|c| c.token == token)
    }

    /// The active certificates of a thing.
    pub fn active_of(&self, thing: &str) -> Vec<&Certificate> {
        let of_thing = |c: &&Certificate| c.thing.as_deref() == Some(thing);
        self.certificates()
            .filter(of_thing)
            .filter(|c| c.status == Status::Active)
            .collect()
    }

    pub fn now(&self) -> Duration {
        self.now
    }

    pub(super) fn add(&mut self, certificate: Certificate) {
        self.certificates
            .insert(certificate.id.clone(), certificate);
    }

    /// The thing of a certificate that a registered CA signed, if it has connected before.
    pub fn just_in_time(&self, id: &str) -> Option<&str> {
        self.just_in_time.get(id).map(String::as_str)
    }

    pub(super) fn provision_just_in_time(&mut self, id: &str, thing: &str) {
        self.just_in_time.insert(id.to_owned(), thing.to_owned());
    }

    /// Advances the clock. Certificates that were not registered within the hour are deleted.
    pub fn advance(&mut self, by: Duration) {
        self.now += by;
        for certificate in self.certificates.values_mut() {
            let expired = self.now.saturating_sub(certificate.created) >= TOKEN_LIFETIME;
            if certificate.status == Status::PendingActivation && expired {
                certificate.status = Status::Deleted;
            }
        }
    }

    pub fn counts(&self) -> Counts {
        let with = |wanted: &[Status]| {
            let having = |c: &&Certificate| wanted.contains(&c.status);
            self.certificates().filter(having).count()
        };
        let mut things: Vec<_> = self
            .certificates()
            .filter_map(|c| c.thing.as_ref())
            .collect();
        things.sort();
        things.dedup();
        Counts {
            created: self.certificates.len(),
            active: with(&[Status::Active]),
            orphaned: with(&[Status::PendingActivation, Status::Deleted]),
            things: things.len(),
            register_calls: self.register_calls,
            registered: self.registered,
        }
    }
}
