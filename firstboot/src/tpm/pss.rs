//! One RSA-PSS signature: does the TPM's salt have the length that TLS 1.3 requires?

use tss_esapi::attributes::SessionAttributesBuilder;
use tss_esapi::constants::tss::{TPM2_RH_NULL, TPM2_ST_HASHCHECK};
use tss_esapi::interface_types::algorithm::HashingAlgorithm;
use tss_esapi::structures::{Digest, HashScheme, HashcheckTicket, Signature, SignatureScheme};
use tss_esapi::tss2_esys::TPMT_TK_HASHCHECK;

use super::activate_credential::{Channel, Stored};
use super::failed;
use crate::error::{Error, Result};

impl Channel<'_> {
    /// Signs a SHA-256 digest with an RSA key: RSASSA-PSS with SHA-256 and whatever salt the TPM uses (TPM 2.0 Library,
    /// Part 1 §B.7, Part 3 §20.2). Four TPM commands including the drop.
    pub fn sign_pss(mut self, key: Stored<'_>, auth: &[u8], digest: &[u8]) -> Result<Vec<u8>> {
        let what = "cannot create an RSA-PSS signature with the TPM";
        let digest = Digest::try_from(digest).map_err(|e| failed(what, e))?;
        let scheme = SignatureScheme::RsaPss {
            hash_scheme: HashScheme::new(HashingAlgorithm::Sha256),
        };
        // The key is not restricted: no ticket has to prove where the digest comes from.
        let no_ticket = HashcheckTicket::try_from(TPMT_TK_HASHCHECK {
            tag: TPM2_ST_HASHCHECK,
            hierarchy: TPM2_RH_NULL,
            digest: Default::default(),
        })
        .map_err(|e| failed(what, e))?;
        let key = self.load(key, auth)?;
        let session = self.session;
        // The digest is not secret, and the signature cannot be encrypted.
        let (attributes, mask) = SessionAttributesBuilder::new()
            .with_decrypt(false)
            .with_encrypt(false)
            .build();
        let context = &mut self.tpm.context;
        context
            .tr_sess_set_attributes(session, attributes, mask)
            .map_err(|e| failed(what, e))?;
        let signature = context
            .execute_with_session(Some(session), |context| {
                context.sign(key, digest, scheme, no_ticket)
            })
            .map_err(|e| failed(what, e))?;
        match signature {
            Signature::RsaPss(signature) => Ok(signature.signature().value().to_vec()),
            _ => Err(Error::other(format!(
                "{what}: it returned another kind of signature"
            ))),
        }
    }
}
