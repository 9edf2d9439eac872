//! The storage root key at 0x8100_0001, below which tpm2-pkcs11 keeps everything.
//!
//! The handle is the one that the TCG reserves for it (TCG TPM v2.0 Provisioning Guidance, reserved handles).
//! tpm2-pkcs11 uses whatever is there, without a look, and makes its own only if there is none. firstboot makes the key
//! first, with noDA, so that neither its use nor a power cut afterwards adds a dictionary-attack try.

use firstboot_formats::encoding::to_hex;
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
    EccPoint, EccScheme, KeyDerivationFunctionScheme, Public, PublicBuilder,
    PublicEccParametersBuilder, SymmetricDefinitionObject,
};

use super::{Tpm, failed};
use crate::error::{Error, ErrorKind, Result, ResultExt};

/// The storage root key's handle.
pub const HANDLE: u32 = TPM2_PERSISTENT_FIRST + 1;

/// The templates of storage root keys that can be recreated, by their noDA. With it: ours, which is also systemd's
/// (src/shared/tpm2-util.c, `tpm2_get_best_srk_template`), so that both get the same key from the same TPM, whoever
/// comes first. Without it: tpm2-pkcs11's own (src/lib/tpm.c), which it makes if there is none.
pub(super) const TEMPLATES: [bool; 2] = [true, false];

/// What is at [`HANDLE`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Srk {
    /// Nothing.
    Absent,
    /// A storage key that cannot leave the TPM.
    Present {
        /// Its Name (TPM 2.0 Part 1, §16), in hexadecimal: nameAlg and digest of the public area. Another key has
        /// another Name.
        name: String,
        /// noDA: a wrong authorization value costs no dictionary-attack try.
        no_da: bool,
    },
    /// Something that cannot serve as the parent of an identity, in words.
    Foreign(String),
}

impl Srk {
    /// Whether it is the key of this Name.
    pub fn is(&self, wanted: &str) -> bool {
        matches!(self, Self::Present { name, .. } if name == wanted)
    }
}

impl Tpm {
    /// What is there: two TPM commands, or one if there is nothing. Whether the key has an authorization value cannot
    /// be seen; [`Tpm::srk_has_empty_auth`] tries.
    pub fn srk(&mut self) -> Result<Srk> {
        let Some(object) = self.open_srk()? else {
            return Ok(Srk::Absent);
        };
        // The Name as the TPM reports it. Esys_TR_GetName would save a command, but computes the Name, and a process's
        // first digest costs 3 million instructions in OpenSSL.
        let (public, name, _) = self
            .context
            .read_public(object)
            .map_err(|e| failed("cannot read the object at 0x81000001", e))?;
        Ok(match objection(&public) {
            Some(objection) => Srk::Foreign(objection),
            None => Srk::Present {
                name: to_hex(name.value()),
                no_da: describe(&public).1.no_da(),
            },
        })
    }

    /// The Name of an open object, computed from its public area.
    pub(super) fn name(&mut self, object: ObjectHandle) -> Result<String> {
        let name = self
            .context
            .tr_get_name(object)
            .map_err(|e| failed("cannot read the storage root key's Name", e))?;
        Ok(to_hex(name.value()))
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

    /// The Names of the storage root keys that this TPM makes, ours first. A primary key is derived from the
    /// hierarchy's seed and its template (Part 1, §27.2): until the TPM is cleared, the same template makes the same
    /// key. Nothing stays in the TPM. Two TPM commands for each, with the owner hierarchy's empty authorization value.
    pub fn primary_names(&mut self) -> Result<Vec<String>> {
        TEMPLATES
            .into_iter()
            .map(|no_da| self.with_primary(no_da, |tpm, primary| tpm.name(primary.into())))
            .collect()
    }

    /// Makes the storage root key and leaves it at [`HANDLE`]. Returns its Name.
    pub fn make_srk(&mut self) -> Result<String> {
        self.with_primary(true, Self::persist)
    }

    /// Recreates the storage root key of this Name and leaves it at [`HANDLE`].
    pub fn restore_srk(&mut self, wanted: &str) -> Result<()> {
        for no_da in TEMPLATES {
            let found = self.with_primary(no_da, |tpm, primary| {
                let found = tpm.name(primary.into())? == wanted;
                if found {
                    tpm.persist(primary)?;
                }
                Ok(found)
            })?;
            if found {
                return Ok(());
            }
        }
        Err(Error::other(
            "the TPM no longer creates the storage root key that it created a moment ago",
        ))
    }

    /// Calls `work` with a primary key, which is flushed afterwards.
    pub(super) fn with_primary<T>(
        &mut self,
        no_da: bool,
        work: impl FnOnce(&mut Self, KeyHandle) -> Result<T>,
    ) -> Result<T> {
        let public = template(no_da).context(ErrorKind::Other, || {
            "cannot build the storage root key's template".into()
        })?;
        let primary = self
            .context
            .execute_with_session(Some(AuthSession::Password), |context| {
                context.create_primary(Hierarchy::Owner, public, None, None, None, None)
            })
            .map_err(|e| failed("cannot create the storage root key", e))?
            .key_handle;
        let done = work(self, primary);
        // With or without success: transient memory is scarce without a resource manager.
        let _ = self.context.flush_context(primary.into());
        done
    }

    fn persist(&mut self, primary: KeyHandle) -> Result<String> {
        let handle = Persistent::Persistent(handle()?);
        let persistent = self
            .context
            .execute_with_session(Some(AuthSession::Password), |context| {
                context.evict_control(Provision::Owner, primary.into(), handle)
            })
            .map_err(|e| failed("cannot make the storage root key persistent", e))?;
        self.name(persistent)
    }
}

/// Why an object cannot be the parent of an identity, if it cannot.
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

/// ECC P-256 with AES-128-CFB, fixedTPM | fixedParent | sensitiveDataOrigin | userWithAuth | restricted | decrypt
/// and, by [`TEMPLATES`], noDA; everything else empty.
pub(super) fn template(no_da: bool) -> tss_esapi::Result<Public> {
    let attributes = ObjectAttributes::builder()
        .with_fixed_tpm(true)
        .with_fixed_parent(true)
        .with_sensitive_data_origin(true)
        .with_user_with_auth(true)
        .with_no_da(no_da)
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
    PersistentTpmHandle::new(HANDLE).context(ErrorKind::Other, || {
        "cannot use the handle 0x81000001".into()
    })
}
