//! The identity directory `S`: built complete beside its place, tested, and committed by one rename.
//!
//! | file | what |
//! |---|---|
//! | `tpm2_pkcs11.sqlite3` | the token store of tpm2-pkcs11 |
//! | `pin` | the user PIN |
//! | `device.csr.pem`, `request.json` | the certificate request, and its record for the operator |
//! | `srk.name` | the Name of the storage root key that everything hangs on |
//! | `certificate.pem` | the accepted certificate and its chain; the token is made to hold it where Greengrass reads it there |
//! | `ownership.json` | fleet provisioning: an issued certificate and its ownership token, for root alone |
//! | `registration.json` | fleet provisioning: the thing's name as the template made it, and the certificate |
//! | `est.json` | EST: what was asked for last, what came, and when it may be asked for again |
//! | `opened.json` | which wrapped reply the certificate came in, and which held a lesser one: saves opening them at each boot |
//! | `asked.json` | when a new certificate was asked for, in place of which |
//! | `configured` | which edition and thing Greengrass was configured for |
//! | `verified.json` | what the token was last seen to hold, if Greengrass reads the certificate there: saves opening it at each boot |
//! | `generation` | how many identities have had this PIN before; none is 0 |
//! | `taken-up` | when it took the place of the one before (seconds since the epoch), by a synchronised clock |
//! | `tried.json` | what came of a connection to AWS IoT Core with which certificate |
//! | `probation`, `former.pem` | which certificate (its SHA-256) was put into service without one, and the one before it for the same key |
//! | `reset`, `reset-keep` | given up, by `firstboot reset` or because it is of no use: never restored |

mod asked;
mod certificate;
mod configured;
mod contents;
mod countersign;
mod est_state;
mod fleet_state;
mod known;
mod make;
mod network;
mod next;
mod opened_replies;
mod orphans;
mod store_upgrade;
mod trial;
mod unlock;

use std::fs;
use std::path::{Path, PathBuf};

use firstboot_formats::files::{self, Access};
use firstboot_formats::record::Record;

use crate::error::{Error, Result};
use crate::layout::{IDENTITY, Layout, RUN, STAGING, TOKEN_BUILD};
use crate::secret::Pin;
use crate::token::{DATABASE, Library, OpenKey, Store, StoredKey};

pub use asked::Asked;
pub use certificate::Verified;
pub use contents::Contents;
pub use est_state::{EstAnswer, EstNote};
pub use fleet_state::{Ownership, Registration};
pub use known::Known;
pub use make::{Pins, Plan};
pub use opened_replies::{OpenedReplies, Superseded};
pub use trial::Trial;

/// Files without which an identity cannot be used. Request and record can be signed again.
const ESSENTIAL: [&str; 3] = [DATABASE, PIN, SRK_NAME];
const PIN: &str = "pin";
const REQUEST: &str = "device.csr.pem";
const RECORD: &str = "request.json";
const SRK_NAME: &str = "srk.name";
const CERTIFICATE: &str = "certificate.pem";
const VERIFIED: &str = "verified.json";
const OWNERSHIP: &str = "ownership.json";
const REGISTRATION: &str = "registration.json";
const EST: &str = "est.json";
const OPENED: &str = "opened.json";
const CONFIGURED: &str = "configured";
const ASKED: &str = "asked.json";
const GENERATION: &str = "generation";
const TAKEN_UP: &str = "taken-up";
const TRIED: &str = "tried.json";
const PROBATION: &str = "probation";
const FORMER: &str = "former.pem";
/// Maximum size of a file, bytes. Nothing in an identity directory comes near it, except the store.
const MAX_FILE: usize = 64 * 1024;

/// The identity directory, there or not.
#[derive(Clone, Debug)]
pub struct Identity {
    directory: PathBuf,
    staging: PathBuf,
    token_build: PathBuf,
    store: Store,
    group: Option<u32>,
}

impl Identity {
    /// The device's identity, reached through this PKCS#11 module and TPM; readable by `group`
    /// beside root.
    pub fn new(layout: &Layout, module: PathBuf, tcti: &str, group: Option<u32>) -> Self {
        let directory = layout.at(IDENTITY);
        Self {
            store: Store {
                module,
                directory: directory.clone(),
                tcti: tcti.to_owned(),
                locks: layout.at(RUN),
            },
            staging: layout.at(STAGING),
            token_build: layout.at(TOKEN_BUILD),
            directory,
            group,
        }
    }

    /// An identity in another place of the same device, where none of Greengrass's groups may read it.
    pub fn at(&self, layout: &Layout, place: &str) -> Self {
        let mut other = self.clone();
        other.directory = layout.at(place);
        other.store.directory.clone_from(&other.directory);
        other.group = Some(0);
        other
    }

    /// Whether there is a directory, whatever is in it. Not being able to look is an error.
    pub fn exists(&self) -> Result<bool> {
        match self.directory.symlink_metadata() {
            Ok(_) => Ok(true),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(false),
            Err(e) => Err(cannot_look_at(&self.directory, e)),
        }
    }

    /// Whether creating an identity was interrupted.
    pub fn has_staging(&self) -> bool {
        self.staging.symlink_metadata().is_ok()
    }

    /// Removes what an interruption left.
    pub fn remove_staging(&self) -> Result<()> {
        Ok(files::remove_tree(&self.staging)?)
    }

    /// Where the accepted certificate is kept.
    pub fn certificate_path(&self) -> PathBuf {
        self.directory.join(CERTIFICATE)
    }

    /// The first essential file that is missing or empty, if any. A file that cannot be accessed is an error, not a
    /// defect: I/O and permission errors never discard an identity.
    pub fn defect(&self) -> Result<Option<String>> {
        if orphans::is_given_up(&self.directory) {
            return Ok(Some("giving it up was interrupted".into()));
        }
        for name in ESSENTIAL {
            let path = self.directory.join(name);
            match fs::metadata(&path) {
                Ok(metadata) if metadata.is_file() && metadata.len() > 0 => {}
                Ok(_) => {
                    return Ok(Some(format!(
                        "{} is empty or not a regular file",
                        path.display()
                    )));
                }
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                    return Ok(Some(format!("{} is missing", path.display())));
                }
                Err(e) => return Err(cannot_look_at(&path, e)),
            }
        }
        Ok(None)
    }

    /// Whether owner, group and modes are as they should be: the group changes with the edition.
    pub fn access_is_right(&self) -> bool {
        self.accesses()
            .iter()
            .all(|(path, access)| files::has_access(path, *access))
    }

    /// Fixes owner, group and modes.
    pub fn set_access(&self) -> Result<()> {
        for (path, access) in self.accesses() {
            files::set_access(&path, access)?;
        }
        Ok(())
    }

    fn accesses(&self) -> Vec<(PathBuf, Access)> {
        let files = ESSENTIAL.iter().chain(&[
            REQUEST,
            RECORD,
            CERTIFICATE,
            VERIFIED,
            REGISTRATION,
            EST,
            OPENED,
            CONFIGURED,
            ASKED,
            GENERATION,
            TAKEN_UP,
            TRIED,
            PROBATION,
            FORMER,
        ]);
        std::iter::once((self.directory.clone(), self.access(0o750)))
            .chain(files.map(|name| (self.directory.join(name), self.access(0o440))))
            .chain([(self.directory.join(OWNERSHIP), Access::PRIVATE)])
            .filter(|(path, _)| path.exists())
            .collect()
    }

    /// The Name of the storage root key below which the identity was made.
    pub fn srk_name(&self) -> Result<String> {
        Ok(String::from_utf8_lossy(&self.read(SRK_NAME)?).into_owned())
    }

    /// The request and its record; empty if they are gone.
    pub fn request_files(&self) -> Result<[Vec<u8>; 2]> {
        let read = |name| files::read(&self.directory.join(name), MAX_FILE);
        Ok([
            read(REQUEST)?.unwrap_or_default(),
            read(RECORD)?.unwrap_or_default(),
        ])
    }

    /// The record of the request, if there is one that can be read.
    pub fn record(&self) -> Option<Record> {
        serde_json::from_slice(&self.read(RECORD).ok()?).ok()
    }

    /// The user PIN.
    pub fn pin(&self) -> Result<Pin> {
        Pin::parse(self.read(PIN)?).ok_or_else(|| {
            Error::other(format!(
                "{}/{PIN} does not contain a PIN",
                self.directory.display()
            ))
        })
    }

    /// The key, for more than one signature. Costs opening the library and a login.
    pub fn open_key(&self) -> Result<OpenKey> {
        let library = Library::open(&self.store)?;
        let login = library.login(token_slot(&library)?, &self.pin()?)?;
        Ok(OpenKey::new(login, library))
    }

    /// The key as stored in the token's store.
    pub fn stored_key(&self) -> Result<StoredKey> {
        StoredKey::read(&self.directory)
    }

    fn read(&self, name: &str) -> Result<Vec<u8>> {
        let path = self.directory.join(name);
        files::read(&path, MAX_FILE)?
            .ok_or_else(|| Error::other(format!("{} is missing", path.display())))
    }

    fn write(&self, name: &str, content: &[u8]) -> Result<()> {
        let path = self.directory.join(name);
        Ok(files::write(&path, content, Some(self.access(0o440)))?)
    }

    /// The store, or a file that SQLite or the library keeps beside it.
    fn database(&self, suffix: &str) -> PathBuf {
        self.directory.join(format!("{DATABASE}{suffix}"))
    }

    fn access(&self, mode: u32) -> Access {
        Access {
            mode,
            group: self.group,
        }
    }
}

fn cannot_look_at(path: &Path, e: std::io::Error) -> Error {
    Error::other(format!("cannot access {}: {e}", path.display())).caused_by(e)
}

fn token_slot(library: &Library) -> Result<u64> {
    library.token_slot()?.ok_or_else(|| {
        Error::other(
            "firstboot's token is missing from the PKCS#11 store, which somebody has changed. Start over with \
             `firstboot reset`",
        )
    })
}
