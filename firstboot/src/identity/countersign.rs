//! The signature by which the key in service vouches for the next one.

use firstboot_formats::countersignature::Countersignature;
use firstboot_formats::public_key::Scheme;
use firstboot_formats::x509::{Chain, Request};

use super::Identity;
use crate::error::{Error, Result};
use crate::tpm::Tpm;

impl Identity {
    /// Signs the next key's request with its own key, which has this certificate. Without the library: Greengrass may be
    /// using the store. Nine TPM commands.
    pub(super) fn countersign(
        &self,
        tpm: &mut Tpm,
        request: &Request,
        certificate: &Chain,
    ) -> Result<Countersignature> {
        let family = certificate.key().family();
        let family = family
            .ok_or_else(|| Error::other("the certificate in service has an unknown kind of key"))?;
        Countersignature::make(request, certificate, |message| {
            let (channel, stored, auth) = self.unlock(tpm)?;
            channel.sign((&stored.key).into(), &auth, family, Scheme::X509, message)
        })
    }
}
