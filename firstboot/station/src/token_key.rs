//! The CA's key in a PKCS#11 token: a smart card, an HSM, SoftHSM.

use std::path::Path;

use cryptoki::context::{CInitializeArgs, CInitializeFlags, Info, Pkcs11};
use cryptoki::mechanism::Mechanism;
use cryptoki::object::{Attribute, ObjectClass, ObjectHandle};
use cryptoki::session::{Session, UserType};
use cryptoki::slot::{Slot, SlotInfo, TokenInfo};
use cryptoki::types::AuthPin;
use firstboot_formats::digest::sha256;
use firstboot_formats::public_key::{KeyFamily, ecdsa_der};

use crate::error::{Context, Error, Exit, Result};
use crate::pkcs11_uri::Pkcs11Uri;

/// The key, with the session that uses it. The fields are dropped in this order.
pub(crate) struct TokenKey {
    key: ObjectHandle,
    session: Session,
    _library: Pkcs11,
}

impl TokenKey {
    /// Opens the token and finds the key. `module` is the library if the URI names none.
    pub(crate) fn open(uri: &Pkcs11Uri, module: Option<&Path>, pin: Option<&str>) -> Result<Self> {
        let module = uri.module.as_deref().or(module).ok_or_else(|| {
            Error::settings(
                "--key: no PKCS#11 library is named: use --pkcs11-module, or module-path in the URI",
            )
        })?;
        let opening = || format!("--key: cannot open the token ({})", module.display());
        let library = Pkcs11::new(module).context(Exit::Settings, opening)?;
        library
            .initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK))
            .context(Exit::Settings, opening)?;
        let slot = slot(&library, uri)?;
        let session = library
            .open_ro_session(slot)
            .context(Exit::Settings, opening)?;
        let pin = pin.map(|pin| AuthPin::new(pin.into()));
        session
            .login(UserType::User, pin.as_ref())
            .context(Exit::Settings, || {
                "--key: cannot log in to the token (--pin-file)".into()
            })?;
        let mut wanted = vec![Attribute::Class(ObjectClass::PRIVATE_KEY)];
        wanted.extend(
            uri.object
                .as_ref()
                .map(|label| Attribute::Label(label.as_bytes().to_vec())),
        );
        wanted.extend(uri.id.clone().map(Attribute::Id));
        let keys = session
            .find_objects(&wanted)
            .context(Exit::Settings, || "--key: cannot look for the key".into())?;
        match keys[..] {
            [key] => Ok(Self {
                key,
                session,
                _library: library,
            }),
            _ => Err(Error::settings(format!(
                "--key: {} private keys in the token match the URI, not one",
                keys.len()
            ))),
        }
    }

    /// Has the token sign with SHA-256, in X.509's form.
    pub(crate) fn sign(&self, family: KeyFamily, message: &[u8]) -> Result<Vec<u8>> {
        let signing = || "the token cannot sign".to_owned();
        let sign = |mechanism: &Mechanism<'_>, data: &[u8]| {
            self.session
                .sign(mechanism, self.key, data)
                .context(Exit::Other, signing)
        };
        match family {
            KeyFamily::Rsa => sign(&Mechanism::Sha256RsaPkcs, message),
            KeyFamily::Ecc => {
                let signature = sign(&Mechanism::Ecdsa, &sha256(message))?;
                // PKCS#11 3.1 §6.3.1
                let (r, s) = signature.split_at(signature.len() / 2);
                ecdsa_der(r, s).context(Exit::Other, signing)
            }
        }
    }
}

/// The slot of the token that the URI names, or of the only token if it names none.
fn slot(library: &Pkcs11, uri: &Pkcs11Uri) -> Result<Slot> {
    let listing = || "--key: cannot list the tokens".to_owned();
    let mut found = Vec::new();
    let mut there = Vec::new();
    let slots = library.get_slots_with_initialized_token();
    for slot in slots.context(Exit::Settings, listing)? {
        let token = Described::new(library, slot).context(Exit::Settings, listing)?;
        if uri.token.iter().all(|(name, value)| token.is(name, value)) {
            found.push(slot);
        }
        there.push(format!(
            "token={};serial={}",
            token.info.label(),
            token.info.serial_number()
        ));
    }
    match found[..] {
        [slot] => Ok(slot),
        _ => Err(Error::settings(format!(
            "--key: {} tokens match the URI (token=…;serial=…), not one. Available: {}",
            found.len(),
            match there.is_empty() {
                true => "none".into(),
                false => there.join(", "),
            }
        ))),
    }
}

/// A token with its slot and its library, as URIs describe them.
struct Described {
    slot: Slot,
    info: TokenInfo,
    slot_info: SlotInfo,
    library: Info,
}

impl Described {
    fn new(library: &Pkcs11, slot: Slot) -> cryptoki::error::Result<Self> {
        Ok(Self {
            slot,
            info: library.get_token_info(slot)?,
            slot_info: library.get_slot_info(slot)?,
            library: library.get_library_info()?,
        })
    }

    /// Whether this attribute (RFC 7512 §2.3) has this value. PKCS#11 pads texts with blanks.
    fn is(&self, attribute: &str, wanted: &str) -> bool {
        let (info, slot, library) = (&self.info, &self.slot_info, &self.library);
        let version = library.library_version();
        let value = match attribute {
            "token" => info.label(),
            "manufacturer" => info.manufacturer_id(),
            "serial" => info.serial_number(),
            "model" => info.model(),
            "slot-description" => slot.slot_description(),
            "slot-manufacturer" => slot.manufacturer_id(),
            "library-description" => library.library_description(),
            "library-manufacturer" => library.manufacturer_id(),
            "slot-id" => return wanted.parse() == Ok(self.slot.id()),
            "library-version" => {
                let (major, minor) = wanted.split_once('.').unwrap_or((wanted, "0"));
                return major.parse() == Ok(version.major())
                    && minor.parse() == Ok(version.minor());
            }
            _ => return false,
        };
        value.trim_end() == wanted
    }
}
