//! The PKCS#11 token: made, opened, logged into. Every use of cryptoki on the device is in this folder.
//!
//! `objects` makes and finds what is in it: key pair, certificates. `provider` has the way to it for programs that use
//! OpenSSL. `pss` records that the TPM's RSA-PSS signatures are usable. `stored` reads the key from the store without
//! the library, `tokens` which tokens it has.
//!
//! What tpm2-pkcs11 does in each call is in docs/findings/tpm2-pkcs11.md, "Calls and their cost": C_Initialize costs 11
//! TPM commands a slot, C_Login 4, and each login that is followed by a power cut one dictionary-attack try. So the
//! library is opened once for everything that has to be done.

mod objects;
mod provider;
mod pss;
mod stored;
mod tokens;

use std::path::{Path, PathBuf};

use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::error::Error as Pkcs11Error;
use cryptoki::error::RvError;
use cryptoki::session::{Session, UserType};
use cryptoki::slot::Slot;
use cryptoki::types::AuthPin;
use firstboot_formats::files;
use firstboot_formats::public_key::Scheme;

use crate::error::{Error, ErrorKind, Result, ResultExt};
use crate::secret::Pin;

pub use provider::{key_uri, openssl_configuration};
pub use pss::record as record_pss;
pub use stored::StoredKey;
pub use tokens::Tokens;

/// The token's label: Greengrass v1 and every PKCS#11 URI find the token by it.
pub const TOKEN_LABEL: &str = "greengrass";
/// The file in which tpm2-pkcs11 keeps a store (src/lib/db.c).
pub const DATABASE: &str = "tpm2_pkcs11.sqlite3";
/// CKA_LABEL of the key pair and of the certificate; Greengrass's PKCS#11 consumers need both to have the same
/// (docs/findings/greengrass.md, "Labels and IDs").
pub const OBJECT_LABEL: &str = "greenkey";
/// CKA_LABEL of intermediate certificates, which complete the chain for SunPKCS11.
pub const ISSUER_LABEL: &str = "greenkey-issuer";

/// Where a token is, and how it is reached.
#[derive(Clone, Debug)]
pub struct Store {
    /// The PKCS#11 library, libtpm2_pkcs11.so.
    pub module: PathBuf,
    /// The directory of its database.
    pub directory: PathBuf,
    /// The TPM below it.
    pub tcti: String,
    /// Where the library may create its lock file, which it needs even to read.
    pub locks: PathBuf,
}

/// The library, initialised on one store. Dropping it calls C_Finalize.
pub struct Library {
    pkcs11: Option<Pkcs11>,
}

/// A user's session. Drop it before its [`Library`].
pub struct Login {
    session: Session,
}

/// Our key, ready to sign, with what has to stay open meanwhile. The fields are dropped in this order.
pub struct OpenKey {
    login: Login,
    _library: Library,
}

impl OpenKey {
    /// From a login and its library.
    pub fn new(login: Login, library: Library) -> Self {
        Self {
            login,
            _library: library,
        }
    }

    /// Has the TPM sign `message`.
    pub fn sign(&self, scheme: Scheme, message: &[u8]) -> Result<Vec<u8>> {
        self.login.sign(scheme, message)
    }
}

impl Library {
    /// Loads and initialises the library. 11 TPM commands for each token and for the blank slot.
    pub(crate) fn open(store: &Store) -> Result<Self> {
        point_library_at(store)?;
        let pkcs11 = Pkcs11::new(&store.module).context(ErrorKind::Other, || {
            format!(
                "cannot load the PKCS#11 library {} (package tpm2-pkcs11; another path can be set in the image's settings)",
                store.module.display()
            )
        })?;
        pkcs11
            .initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK))
            .pkcs11_context(|| {
                format!(
                    "cannot open the PKCS#11 token store in {}",
                    store.directory.display()
                )
            })?;
        Ok(Self {
            pkcs11: Some(pkcs11),
        })
    }

    /// The slot of our token, if there is one. Its number is the token's row in the store: look it up, never assume it.
    pub fn token_slot(&self) -> Result<Option<u64>> {
        self.find_slot(|info| info.token_initialized() && info.label().trim_end() == TOKEN_LABEL)
    }

    /// Makes our token with a user PIN in the store's blank slot. The SO PIN is discarded: a token is replaced, not
    /// repaired.
    pub fn make_token(&self, so_pin: &Pin, user_pin: &Pin) -> Result<u64> {
        let slot = self
            .find_slot(|info| !info.token_initialized())?
            .ok_or_else(|| Error::other("the PKCS#11 library offers no slot for a new token"))?;
        let so_pin = auth(so_pin);
        let pkcs11 = self.pkcs11()?;
        pkcs11
            .init_token(cryptoki_slot(slot)?, &so_pin, TOKEN_LABEL)
            .pkcs11_context(|| "cannot create the PKCS#11 token".into())?;
        let session = self.session(slot)?;
        session
            .login(UserType::So, Some(&so_pin))
            .and_then(|()| session.init_pin(&auth(user_pin)))
            .and_then(|()| session.logout())
            .pkcs11_context(|| "cannot set the token's user PIN".into())?;
        Ok(slot)
    }

    /// Logs the user in.
    pub fn login(&self, slot: u64, pin: &Pin) -> Result<Login> {
        let session = self.session(slot)?;
        match session.login(UserType::User, Some(&auth(pin))) {
            Ok(()) => Ok(Login { session }),
            Err(Pkcs11Error::Pkcs11(RvError::PinLocked, _)) => Err(Error::new(
                ErrorKind::Waiting,
                "the TPM is in dictionary-attack lockout: `firstboot tpm` says when it ends",
            )),
            Err(Pkcs11Error::Pkcs11(RvError::PinIncorrect, _)) => Err(Error::other(
                "the token refuses the identity's PIN: somebody has changed one of the two. Start over with `firstboot \
                 reset`",
            )),
            Err(e) => Err(e).context(ErrorKind::Other, || "cannot log in to the token".into()),
        }
    }

    fn session(&self, slot: u64) -> Result<Session> {
        self.pkcs11()?
            .open_rw_session(cryptoki_slot(slot)?)
            .pkcs11_context(|| format!("cannot open a session with the token in slot {slot}"))
    }

    fn find_slot(
        &self,
        wanted: impl Fn(&cryptoki::slot::TokenInfo) -> bool,
    ) -> Result<Option<u64>> {
        let pkcs11 = self.pkcs11()?;
        let what = || "cannot list the PKCS#11 library's slots".to_owned();
        for slot in pkcs11.get_slots_with_token().pkcs11_context(what)? {
            let info = pkcs11.get_token_info(slot).pkcs11_context(what)?;
            if wanted(&info) {
                return Ok(Some(slot.id()));
            }
        }
        Ok(None)
    }

    fn pkcs11(&self) -> Result<&Pkcs11> {
        self.pkcs11
            .as_ref()
            .ok_or_else(|| Error::other("the PKCS#11 library is closed"))
    }
}

impl Drop for Library {
    fn drop(&mut self) {
        if let Some(Err(e)) = self.pkcs11.take().map(Pkcs11::finalize) {
            log::debug!("C_Finalize: {e}");
        }
    }
}

/// Like [`ResultExt::context`], with an explanation of the library's catch-all error.
trait Pkcs11Context<T> {
    fn pkcs11_context(self, what: impl FnOnce() -> String) -> Result<T>;
}

impl<T> Pkcs11Context<T> for std::result::Result<T, Pkcs11Error> {
    fn pkcs11_context(self, what: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|e| {
            let why = match &e {
                Pkcs11Error::Pkcs11(RvError::GeneralError | RvError::FunctionFailed, function) => {
                    format!(
                        "{function} failed, and tpm2-pkcs11 does not say why. Is there room on the disk, \
                         and can the store be written? With TPM2_PKCS11_LOG_LEVEL=2 it says more"
                    )
                }
                e => e.to_string(),
            };
            Error::other(format!("{}: {why}", what())).caused_by(e)
        })
    }
}

/// The library takes its settings from the environment only, at each C_Initialize. Its lock file goes into firstboot's
/// working directory: tpm2-pkcs11 1.9.0 uses only the first character of PKCS11_SQL_LOCK, which is enough for a dot.
#[allow(unsafe_code)]
fn point_library_at(store: &Store) -> Result<()> {
    files::make_directory(&store.locks, 0o700)?;
    std::env::set_current_dir(&store.locks).context(ErrorKind::CannotWrite, || {
        format!("cannot change to the directory {}", store.locks.display())
    })?;
    let settings: [(&str, &Path); 3] = [
        ("TPM2_PKCS11_STORE", &store.directory),
        ("TPM2_PKCS11_TCTI", Path::new(&store.tcti)),
        ("PKCS11_SQL_LOCK", Path::new(".")),
    ];
    for (name, value) in settings {
        // SAFETY: firstboot starts no threads, and the library is not initialised at this moment, so nothing reads the
        // environment meanwhile. Only this crate can open the library.
        unsafe { std::env::set_var(name, value) };
    }
    Ok(())
}

fn cryptoki_slot(id: u64) -> Result<Slot> {
    Slot::try_from(id).context(ErrorKind::Other, || {
        format!("slot number {id} is not valid")
    })
}

fn auth(pin: &Pin) -> AuthPin {
    AuthPin::new(pin.expose().into())
}
