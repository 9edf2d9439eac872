//! Opening what was encrypted for a key in this TPM: TPM2_ActivateCredential (TPM 2.0 Library, Part 1 §24, Part 3
//! §12.5), after unsealing what the key needs.
//!
//! Every secret crosses the bus encrypted, as a parameter in a session that is salted with the storage root key (Part 1
//! §19.6.8, §21), or not at all: authorization values only enter HMACs. Commands without a secret are authorized by the
//! empty password that their objects have. TPM2_PolicySecret has to use a password: in an HMAC session it puts firmware
//! 7.40 of the SLB 9670 into failure mode (docs/findings/slb9670.md, "Commands").
//!
//! At most two transient objects and two sessions are loaded at a time, and all are flushed at the end, even after an
//! error.

use firstboot_formats::public_key::{KeyType, PublicKey};
use tss_esapi::abstraction::AsymmetricAlgorithmSelection;
use tss_esapi::abstraction::ek::create_ek_public_from_default_template_2;
use tss_esapi::attributes::SessionAttributesBuilder;
use tss_esapi::constants::SessionType;
use tss_esapi::handles::{AuthHandle, KeyHandle, ObjectHandle, SessionHandle};
use tss_esapi::interface_types::algorithm::HashingAlgorithm;
use tss_esapi::interface_types::ecc::EccCurve;
use tss_esapi::interface_types::key_bits::RsaKeyBits;
use tss_esapi::interface_types::resource_handles::Hierarchy;
use tss_esapi::interface_types::session_handles::{AuthSession, PolicySession};
use tss_esapi::structures::{
    Auth, Digest, EncryptedSecret, IdObject, Nonce, Private, Public, SymmetricDefinition,
};
use tss_esapi::traits::UnMarshall;
use zeroize::Zeroizing;

use super::{Tpm, failed};
use crate::error::{Error, Result};

/// An object as it is stored outside the TPM, encrypted below the storage root key.
#[derive(Clone, Copy)]
pub struct Stored<'a> {
    /// TPM2B_PUBLIC (TPM 2.0 Library, Part 2 §12.2.5), with its size.
    pub public: &'a [u8],
    /// TPM2B_PRIVATE (Part 2 §12.3.7), with its size.
    pub private: &'a [u8],
}

impl<'a> From<&'a [Vec<u8>; 2]> for Stored<'a> {
    fn from([public, private]: &'a [Vec<u8>; 2]) -> Self {
        Self { public, private }
    }
}

/// The two structures that MakeCredential makes.
#[derive(Clone, Copy)]
pub struct Credential<'a> {
    /// TPM2B_ID_OBJECT (Part 2 §12.4.3), with its size.
    pub blob: &'a [u8],
    /// TPM2B_ENCRYPTED_SECRET (Part 2 §11.4.3), with its size.
    pub secret: &'a [u8],
}

/// A channel to the TPM on which secrets are safe from anybody who listens on the bus. Dropping it flushes what it
/// loaded.
pub struct Channel<'a> {
    pub(super) tpm: &'a mut Tpm,
    srk: KeyHandle,
    pub(super) session: AuthSession,
    loaded: Vec<ObjectHandle>,
}

impl Tpm {
    /// Opens one below the storage root key of this Name: two TPM commands.
    pub fn channel(&mut self, srk_name: &str) -> Result<Channel<'_>> {
        let gone =
            || Error::other("the key at 0x81000001 is no longer the identity's storage root key");
        let srk = self.open_srk()?.ok_or_else(gone)?;
        // Whoever owns the salt's key can decrypt everything, so a key substituted on the bus would reveal it all. This
        // is therefore the Name that the stack computes from the public key to which it encrypts the salt (tpm2-tss,
        // Esys_TR_GetName), not the one that the TPM reports beside it.
        if self.name(srk.into())? != srk_name {
            return Err(gone());
        }
        let opening = |e| failed("cannot start a session with the TPM", e);
        let session = self
            .context
            .start_auth_session(
                Some(srk),
                None,
                None,
                SessionType::Hmac,
                SymmetricDefinition::AES_128_CFB,
                HashingAlgorithm::Sha256,
            )
            .map_err(opening)?
            .ok_or_else(|| Error::other("the TPM started no session"))?;
        Ok(Channel {
            loaded: vec![SessionHandle::from(session).into()],
            tpm: self,
            srk,
            session,
        })
    }
}

impl Channel<'_> {
    /// Unseals an object with this authorization value. Three TPM commands.
    pub fn unseal(&mut self, object: Stored<'_>, auth: &[u8]) -> Result<Zeroizing<Vec<u8>>> {
        let object = ObjectHandle::from(self.load(object, auth)?);
        // The command has no parameter that could be encrypted.
        self.protect(false)?;
        let session = self.session;
        let data = self
            .tpm
            .context
            .execute_with_session(Some(session), |context| context.unseal(object))
            .map_err(|e| failed("cannot unseal the token's wrapping key", e))?;
        self.flush(object);
        Ok(Zeroizing::new(data.to_vec()))
    }

    /// Returns the credential, if it was made for this TPM's `ek` and for `key`. Nine TPM commands including the drop;
    /// with an RSA EK, which has to be made each time, half a minute on an SLB 9670.
    pub fn activate(
        mut self,
        key: Stored<'_>,
        auth: &[u8],
        ek: &PublicKey,
        credential: Credential<'_>,
    ) -> Result<Zeroizing<Vec<u8>>> {
        let what = "cannot open the certificate with the TPM";
        let blob = IdObject::try_from(content(credential.blob)?).map_err(|e| failed(what, e))?;
        let secret =
            EncryptedSecret::try_from(content(credential.secret)?).map_err(|e| failed(what, e))?;
        // In this order: loading something below the storage root key needs a slot for that key, too.
        let key = self.load(key, auth)?;
        let ek = self.endorsement_key(ek)?;
        let policy = self.endorsement_policy()?;
        self.protect(true)?;
        let sessions = (Some(self.session), Some(policy.into()), None);
        let digest = self
            .tpm
            .context
            .execute_with_sessions(sessions, |context| {
                context.activate_credential(key, ek, blob, secret)
            })
            .map_err(|e| failed(what, e))?;
        Ok(Zeroizing::new(digest.to_vec()))
    }

    pub(super) fn load(&mut self, object: Stored<'_>, auth: &[u8]) -> Result<KeyHandle> {
        let what = "cannot load an object of the token into the TPM";
        let public = Public::unmarshall(content(object.public)?).map_err(|e| failed(what, e))?;
        let private = Private::try_from(content(object.private)?).map_err(|e| failed(what, e))?;
        let auth = Auth::try_from(auth).map_err(|e| failed(what, e))?;
        let srk = self.srk;
        let context = &mut self.tpm.context;
        let key = context
            .execute_with_session(Some(AuthSession::Password), |context| {
                context.load(srk, private, public)
            })
            .map_err(|e| failed(what, e))?;
        self.loaded.push(key.into());
        self.tpm
            .context
            .tr_set_auth(key.into(), auth)
            .map_err(|e| failed(what, e))?;
        Ok(key)
    }

    /// Makes the endorsement key, which is the same each time, and compares it with the certificate's.
    fn endorsement_key(&mut self, wanted: &PublicKey) -> Result<KeyHandle> {
        let what = "cannot create the endorsement key";
        let kind = match wanted.key_type() {
            Some(KeyType::EccP256) => AsymmetricAlgorithmSelection::Ecc(EccCurve::NistP256),
            Some(KeyType::Rsa2048) => AsymmetricAlgorithmSelection::Rsa(RsaKeyBits::Rsa2048),
            None => return Err(Error::other(format!("{what}: its type is not supported"))),
        };
        // Templates L-1 and L-2 of the TCG EK Credential Profile, §B.3.3 and §B.3.4.
        let template =
            create_ek_public_from_default_template_2(kind, None).map_err(|e| failed(what, e))?;
        let made = self
            .tpm
            .context
            .execute_with_session(Some(AuthSession::Password), |context| {
                context.create_primary(Hierarchy::Endorsement, template, None, None, None, None)
            })
            .map_err(|e| failed(what, e))?;
        self.loaded.push(made.key_handle.into());
        if public_key(&made.out_public).as_ref() != Some(wanted) {
            return Err(Error::other(
                "the EK certificate is not for the TPM's endorsement key: was the key created from another template, \
                 or has the endorsement seed been changed?",
            ));
        }
        Ok(made.key_handle)
    }

    /// A session that satisfies the endorsement key's policy: PolicySecret with the endorsement hierarchy's
    /// authorization (TCG EK Credential Profile, §B.2).
    fn endorsement_policy(&mut self) -> Result<PolicySession> {
        let what = "cannot satisfy the endorsement key's policy";
        let session = self
            .tpm
            .context
            .start_auth_session(
                None,
                None,
                None,
                SessionType::Policy,
                SymmetricDefinition::AES_128_CFB,
                HashingAlgorithm::Sha256,
            )
            .map_err(|e| failed(what, e))?
            .ok_or_else(|| Error::other("the TPM started no session"))?;
        self.loaded.push(SessionHandle::from(session).into());
        let policy = PolicySession::try_from(session).map_err(|e| failed(what, e))?;
        self.tpm
            .context
            .execute_with_session(Some(AuthSession::Password), |context| {
                context.policy_secret(
                    policy,
                    AuthHandle::Endorsement,
                    Nonce::default(),
                    Digest::default(),
                    Nonce::default(),
                    None,
                )
            })
            .map_err(|e| failed(what, e))?;
        Ok(policy)
    }

    /// Has the response's first parameter encrypted, and the command's, if it has one.
    fn protect(&mut self, command: bool) -> Result<()> {
        let (attributes, mask) = SessionAttributesBuilder::new()
            .with_decrypt(command)
            .with_encrypt(true)
            .build();
        self.tpm
            .context
            .tr_sess_set_attributes(self.session, attributes, mask)
            .map_err(|e| failed("cannot have the TPM encrypt its responses", e))
    }

    /// Makes room. An object that cannot be flushed is gone already.
    fn flush(&mut self, handle: ObjectHandle) {
        self.loaded.retain(|&loaded| loaded != handle);
        if let Err(e) = self.tpm.context.flush_context(handle) {
            log::debug!("TPM2_FlushContext: {e}");
        }
    }
}

impl Drop for Channel<'_> {
    fn drop(&mut self) {
        for handle in std::mem::take(&mut self.loaded).into_iter().rev() {
            self.flush(handle);
        }
    }
}

/// The bytes of a TPM2B (Part 2 §10.4), which must fill the input.
pub(super) fn content(bytes: &[u8]) -> Result<&[u8]> {
    match bytes {
        [high, low, rest @ ..] if rest.len() == usize::from(u16::from_be_bytes([*high, *low])) => {
            Ok(rest)
        }
        _ => Err(Error::other(
            "the token's store or a reply contains a TPM object of the wrong size",
        )),
    }
}

fn public_key(public: &Public) -> Option<PublicKey> {
    /// Bytes of a coordinate on P-256.
    const COORDINATE: usize = 32;
    match public {
        Public::Ecc { unique, .. } => {
            let mut point = vec![4]; // uncompressed (SEC 1 §2.3.3)
            for coordinate in [unique.x().value(), unique.y().value()] {
                let zeros = COORDINATE.checked_sub(coordinate.len())?;
                point.resize(point.len() + zeros, 0);
                point.extend(coordinate);
            }
            PublicKey::from_p256_point(&point).ok()
        }
        // An exponent of 0 in the template is 65537.
        Public::Rsa { unique, .. } => PublicKey::from_rsa(unique.value(), &[1, 0, 1]).ok(),
        _ => None,
    }
}
