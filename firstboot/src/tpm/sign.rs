//! One signature with the token's key, without the PKCS#11 library.

use firstboot_formats::digest::sha256;
use firstboot_formats::public_key::{KeyFamily, Scheme, ecdsa_der};
use tss_esapi::attributes::SessionAttributesBuilder;
use tss_esapi::constants::tss::{TPM2_RH_NULL, TPM2_ST_HASHCHECK};
use tss_esapi::interface_types::algorithm::HashingAlgorithm;
use tss_esapi::structures::{Digest, HashScheme, HashcheckTicket, Signature, SignatureScheme};
use tss_esapi::tss2_esys::TPMT_TK_HASHCHECK;

use super::activate_credential::{Channel, Stored};
use super::failed;
use crate::error::{Error, ErrorKind, Result, ResultExt};

impl Channel<'_> {
    /// Signs a message with a key of this family (TPM 2.0 Library, Part 3 §20.2). An RSA-PSS signature has whatever salt
    /// the TPM uses (Part 1 §B.7). Four TPM commands including the drop.
    pub fn sign(
        mut self,
        key: Stored<'_>,
        auth: &[u8],
        family: KeyFamily,
        scheme: Scheme,
        message: &[u8],
    ) -> Result<Vec<u8>> {
        let what = "cannot create a signature with the TPM";
        let digest = Digest::try_from(&sha256(message)[..]).map_err(|e| failed(what, e))?;
        let hash_scheme = HashScheme::new(HashingAlgorithm::Sha256);
        let scheme = match (scheme, family) {
            (Scheme::Pss, _) => SignatureScheme::RsaPss { hash_scheme },
            (Scheme::X509, KeyFamily::Rsa) => SignatureScheme::RsaSsa { hash_scheme },
            (Scheme::X509, KeyFamily::Ecc) => SignatureScheme::EcDsa { hash_scheme },
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
            Signature::RsaPss(signature) | Signature::RsaSsa(signature) => {
                Ok(signature.signature().value().to_vec())
            }
            Signature::EcDsa(signature) => {
                let [r, s] = [signature.signature_r(), signature.signature_s()];
                ecdsa_der(r.value(), s.value()).context(ErrorKind::Other, || what.into())
            }
            _ => Err(Error::other(format!(
                "{what}: it returned another kind of signature"
            ))),
        }
    }
}
