//! The storage root key at 0x8100_0001, below which tpm2-pkcs11 keeps everything.
//!
//! The handle is the one that the TCG reserves for it (TCG TPM v2.0 Provisioning Guidance, reserved
//! handles). tpm2-pkcs11 takes whatever lies there, unseen, and makes one of its own only
//! where there is none; firstboot makes it first, with noDA set, so that neither its use nor a
//! power cut after its use adds a dictionary-attack try (facts/tpm2-pkcs11.md §4).

use tss_esapi::attributes::ObjectAttributes;
use tss_esapi::constants::response_code::Tss2ResponseCodeKind as Kind;
use tss_esapi::constants::tss::TPM2_PERSISTENT_FIRST;
use tss_esapi::handles::{KeyHandle, ObjectHandle, PersistentTpmHandle, TpmHandle};
use tss_esapi::interface_types::algorithm::{HashingAlgorithm, PublicAlgorithm};
use tss_esapi::interface_types::dynamic_handles::Persistent;
use tss_esapi::interface_types::ecc::EccCurve;
use tss_esapi::interface_types::resource_handles::{Hierarchy, Provision};
use tss_esapi::interface_types::session_handles::AuthSession;
use tss_esapi::structures::{
    EccPoint, EccScheme, KeyDerivationFunctionScheme, Private, Public, PublicBuilder,
    PublicEccParametersBuilder, SymmetricDefinitionObject,
};

use super::{Tpm, failed};
use crate::error::{Error, Exit, Result};
use crate::public_key::hexadecimal;

/// Where the storage root key lies.
pub const HANDLE: u32 = TPM2_PERSISTENT_FIRST + 1;

/// What is at [`HANDLE`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Srk {
    /// Nothing.
    Absent,
    /// An object with this Name (TPM 2.0 Part 1, §16), in hexadecimal.
    Present {
        /// nameAlg and digest of the public area: another key, another Name.
        name: String,
    },
    /// Something that cannot serve as the parent of an identity, in words.
    Foreign(String),
}

impl Tpm {
    /// Whether there is a key, and its Name: two TPM commands, or one where there is none.
    pub fn srk(&mut self) -> Result<Srk> {
        Ok(match self.read_srk()? {
            Some((_, _, name)) => Srk::Present { name },
            None => Srk::Absent,
        })
    }

    /// The Name of an open object, computed from its public area.
    pub(super) fn name(&mut self, object: ObjectHandle) -> Result<String> {
        let name = self
            .context
            .tr_get_name(object)
            .map_err(|e| failed("cannot read the storage root key's Name", e))?;
        Ok(hexadecimal(name.value()))
    }

    /// As [`Tpm::srk`], and also whether the object can be the parent of an identity: a restricted
    /// decryption key that cannot leave the TPM, with an empty authorization value. One TPM
    /// command more; and where the object is protected against dictionary attacks and has an
    /// authorization value, one try of those.
    pub fn examined_srk(&mut self) -> Result<Srk> {
        let Some((key, public, name)) = self.read_srk()? else {
            return Ok(Srk::Absent);
        };
        if let Some(objection) = objection(&public) {
            return Ok(Srk::Foreign(objection));
        }
        if !self.has_empty_auth(key, public)? {
            return Ok(Srk::Foreign(
                "a storage key with an authorization value".into(),
            ));
        }
        Ok(Srk::Present { name })
    }

    /// The object, its public area, and its Name as the TPM says it. Esys_TR_GetName would save a command, but
    /// computes the Name, and a process's first digest takes OpenSSL 3 million instructions.
    fn read_srk(&mut self) -> Result<Option<(KeyHandle, Public, String)>> {
        let Some(object) = self.open_srk()? else {
            return Ok(None);
        };
        let (public, name, _) = self
            .context
            .read_public(object)
            .map_err(|e| failed("cannot read the object at 0x81000001", e))?;
        Ok(Some((object, public, hexadecimal(name.value()))))
    }

    /// The object, if there is one: one TPM command.
    pub(super) fn open_srk(&mut self) -> Result<Option<KeyHandle>> {
        let handle = TpmHandle::Persistent(handle()?);
        match self.context.tr_from_tpm_public(handle) {
            Ok(object) => Ok(Some(object.into())),
            // TPM_RC_HANDLE (Part 3, §5.4): there is no such object
            Err(tss_esapi::Error::Tss2Error(code)) if code.kind() == Some(Kind::Handle) => Ok(None),
            Err(e) => Err(failed("cannot read the object at 0x81000001", e)),
        }
    }

    /// Makes the storage root key and leaves it at [`HANDLE`]. Its Name.
    ///
    /// The template is the one that systemd uses for its own (src/shared/tpm2-util.c,
    /// `tpm2_get_best_srk_template`): both get the same key from the same TPM, whoever comes first.
    pub fn make_srk(&mut self) -> Result<String> {
        self.context
            .set_sessions((Some(AuthSession::Password), None, None));
        let made = self.make_srk_with_session();
        self.context.clear_sessions();
        made
    }

    fn make_srk_with_session(&mut self) -> Result<String> {
        let public = template()
            .map_err(|e| Error::other(format!("the storage root key's template: {e}")))?;
        let primary = self
            .context
            .create_primary(Hierarchy::Owner, public, None, None, None, None)
            .map_err(|e| failed("cannot make the storage root key", e))?
            .key_handle;
        let persistent = self
            .context
            .evict_control(
                Provision::Owner,
                primary.into(),
                Persistent::Persistent(handle()?),
            )
            .map_err(|e| failed("cannot make the storage root key persistent", e));
        // With or without success: transient memory is scarce where there is no resource manager.
        let _ = self.context.flush_context(primary.into());
        self.name(persistent?)
    }

    /// Whether the key can be used with an empty authorization value: tries to load an object that
    /// is none. The TPM checks the authorization (Part 3, §5.6) before it looks at the parameters
    /// (§5.8), so what it complains about tells.
    fn has_empty_auth(&mut self, key: KeyHandle, public: Public) -> Result<bool> {
        let nothing = Private::try_from(vec![0; 64])
            .map_err(|e| Error::other(format!("cannot make an empty private area: {e}")))?;
        let refused = self
            .context
            .execute_with_session(Some(AuthSession::Password), |context| {
                context.load(key, nothing, public)
            });
        match refused {
            Err(tss_esapi::Error::Tss2Error(code)) => match code.kind() {
                Some(Kind::AuthFail | Kind::BadAuth) => Ok(false),
                Some(Kind::Lockout | Kind::Failure) => Err(failed(
                    "cannot test the storage root key's authorization value",
                    tss_esapi::Error::Tss2Error(code),
                )),
                _ => Ok(true),
            },
            Err(other) => Err(failed("cannot test the storage root key", other)),
            Ok(_) => Err(Error::new(
                Exit::NoTpm,
                "the TPM loaded an object that is none: it cannot be trusted with a key",
            )),
        }
    }
}

/// What keeps an object from being the parent of an identity, if anything.
fn objection(public: &Public) -> Option<String> {
    let (kind, attributes) = describe(public);
    let suitable = matches!(kind, "an ECC" | "an RSA")
        && attributes.restricted()
        && attributes.decrypt()
        && !attributes.sign_encrypt()
        && attributes.fixed_tpm()
        && attributes.user_with_auth();
    (!suitable).then(|| format!("{kind} {}", purpose(attributes)))
}

pub(super) fn describe(public: &Public) -> (&'static str, ObjectAttributes) {
    match public {
        Public::Rsa {
            object_attributes, ..
        } => ("an RSA", *object_attributes),
        Public::Ecc {
            object_attributes, ..
        } => ("an ECC", *object_attributes),
        Public::KeyedHash {
            object_attributes, ..
        } => ("a keyed-hash", *object_attributes),
        Public::SymCipher {
            object_attributes, ..
        } => ("a symmetric", *object_attributes),
    }
}

pub(super) fn purpose(attributes: ObjectAttributes) -> &'static str {
    match (
        attributes.restricted(),
        attributes.decrypt(),
        attributes.sign_encrypt(),
    ) {
        (true, true, false) => "storage key",
        (true, false, true) => "attestation key",
        (false, false, true) => "signing key",
        (false, true, false) => "decryption key",
        _ => "object",
    }
}

/// ECC P-256 with AES-128-CFB, fixedTPM | fixedParent | sensitiveDataOrigin | userWithAuth | noDA |
/// restricted | decrypt, everything else empty.
fn template() -> tss_esapi::Result<Public> {
    let attributes = ObjectAttributes::builder()
        .with_fixed_tpm(true)
        .with_fixed_parent(true)
        .with_sensitive_data_origin(true)
        .with_user_with_auth(true)
        .with_no_da(true)
        .with_restricted(true)
        .with_decrypt(true)
        .build()?;
    let parameters = PublicEccParametersBuilder::new()
        .with_symmetric(SymmetricDefinitionObject::AES_128_CFB)
        .with_ecc_scheme(EccScheme::Null)
        .with_curve(EccCurve::NistP256)
        .with_key_derivation_function_scheme(KeyDerivationFunctionScheme::Null)
        .with_is_decryption_key(true)
        .with_restricted(true)
        .build()?;
    PublicBuilder::new()
        .with_public_algorithm(PublicAlgorithm::Ecc)
        .with_name_hashing_algorithm(HashingAlgorithm::Sha256)
        .with_object_attributes(attributes)
        .with_ecc_parameters(parameters)
        .with_ecc_unique_identifier(EccPoint::default())
        .build()
}

fn handle() -> Result<PersistentTpmHandle> {
    PersistentTpmHandle::new(HANDLE).map_err(|e| Error::other(format!("0x81000001: {e}")))
}
