//! What Greengrass reads: one file here for each edition, each with a list of configuration files.
//!
//! A configuration file is written whole and atomically. Values that other tools have put into the same file stay; ours
//! win. The state that Greengrass derives from a configuration, such as the record of everything that the cloud has
//! deployed, outlives every change except a change of identity.

mod complete;
mod derived;
mod nucleus;
mod nucleus_lite;
mod set_aside;
mod tlog;
mod tree;
mod v1;

use std::path::{Path, PathBuf};

use firstboot_formats::files::{self, Access};
use log::{info, warn};
use serde_json::Value;
use zeroize::Zeroizing;

use crate::error::{Error, ErrorKind, Result, ResultExt};
use crate::layout::Layout;
use crate::secret::Pin;
use crate::settings::{Edition, Greengrass, Platform};
use crate::token::OBJECT_LABEL;

pub use complete::complete;
pub use set_aside::files_set_aside;

/// Maximum size of an existing configuration file, bytes.
const MAX_SIZE: usize = 1024 * 1024;

/// The values of a configuration.
pub struct ConfigValues<'a> {
    /// The operator's settings.
    pub settings: &'a Greengrass,
    /// The image's libraries.
    pub platform: &'a Platform,
    /// The thing's name.
    pub thing_name: &'a str,
    /// The token's slot ID, for an edition that [reads the certificate from the token](`reads_token_certificate`).
    pub slot: Option<u64>,
    /// The user PIN.
    pub pin: &'a Pin,
    /// The device certificate and its chain.
    pub certificate: &'a str,
    /// The root certificate of the endpoints.
    pub root_ca: &'a [u8],
    /// What this identity was configured as before: an earlier [`ConfigValues::mark`].
    pub configured: Option<String>,
}

impl ConfigValues<'_> {
    /// What an identity is configured as, to be kept with it once the configuration is written: if an update recreates
    /// `/etc`, nothing else tells whose state Greengrass has.
    pub fn mark(&self) -> String {
        format!("{} {}", self.settings.edition, self.thing_name)
    }
}

/// A file of the configuration.
struct ConfigFile {
    path: &'static str,
    access: Access,
    content: Content,
}

impl ConfigFile {
    /// A file for everybody to read, replaced as a whole.
    fn public(path: &'static str, content: impl Into<Vec<u8>>) -> Self {
        Self {
            path,
            access: Access::PUBLIC,
            content: Content::Bytes(content.into()),
        }
    }
}

enum Content {
    /// Merged into the JSON or YAML that is there: `ours` wins, `defaults` fill gaps.
    Tree { ours: Value, defaults: Value },
    /// Replaces what is there.
    Bytes(Vec<u8>),
}

/// An edition's part: where its configuration is, and what goes into it.
struct EditionSpec {
    /// The file that names the key: if it has our URI, the configuration is ours.
    main: &'static str,
    /// The other files of the configuration.
    beside: &'static [&'static str],
    /// JSON pointer to that URI.
    key_uri: &'static str,
    /// JSON pointers to the rest of the identity: with another value there, the state is another device's.
    identity: &'static [&'static str],
    /// Everything to write, the main file last.
    config_files: fn(&ConfigValues<'_>) -> Vec<ConfigFile>,
    /// The state that Greengrass derives from the configuration, and that would override another identity's
    /// configuration.
    derived: &'static [&'static str],
    /// The transaction log that overrides the main file, if there is one.
    log: Option<&'static str>,
    /// Maximum size of the main file, bytes.
    limit: usize,
    /// Whether the certificate has to be in the token. If not, Greengrass gets it as a file, and the token stays as it
    /// was made.
    token_certificate: bool,
}

fn spec(edition: Edition) -> &'static EditionSpec {
    match edition {
        Edition::Nucleus => &nucleus::SPEC,
        Edition::NucleusLite => &nucleus_lite::SPEC,
        Edition::V1 => &v1::SPEC,
    }
}

/// Whether the edition reads the certificate from the token, so that it has to be there.
pub fn reads_token_certificate(edition: Edition) -> bool {
    spec(edition).token_certificate
}

/// The group of the edition's own daemons, if they do not run as root.
pub fn group(edition: Edition) -> Option<&'static str> {
    match edition {
        Edition::Nucleus | Edition::V1 => None,
        Edition::NucleusLite => Some(nucleus_lite::GROUP),
    }
}

/// Whether everything is written as it should be.
pub fn is_written(layout: &Layout, values: &ConfigValues<'_>) -> Result<bool> {
    for file in (spec(values.settings.edition).config_files)(values) {
        let path = layout.at(file.path);
        let same = match file.content {
            Content::Bytes(wanted) => files::is_written(&path, &wanted, file.access),
            Content::Tree { ours, defaults } => {
                files::has_access(&path, file.access)
                    && matches!(files::read(&path, MAX_SIZE), Ok(Some(there)) if tree::parse(&there)
                        .is_ok_and(|there| there == tree::merge(there.clone(), ours, defaults)))
            }
        };
        if !same {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Writes what differs, after removing what was written for another edition: it may have the PIN in it.
///
/// State that Greengrass derived from another identity's configuration is removed before the first file of this one is
/// written, and the main file comes last: wherever the power is cut, the next start finds the old main file, or none,
/// and does the same again. A transaction log is updated before the main file: until that is written, the difference
/// remains visible.
pub fn write(layout: &Layout, values: &ConfigValues<'_>) -> Result<()> {
    for other in Edition::ALL {
        if other != values.settings.edition && is_ours(layout, other) {
            info!("removing the configuration for {other}");
            remove(layout, other)?;
        }
    }
    let spec = spec(values.settings.edition);
    let mut writes = Vec::new();
    let mut changes = Vec::new();
    let mut whose = Whose::Unknown;
    for file in (spec.config_files)(values) {
        let path = layout.at(file.path);
        let is_main = file.path == spec.main;
        let content = match file.content {
            Content::Bytes(bytes) if matches!(files::read(&path, bytes.len()), Ok(Some(there)) if there == bytes) => {
                None
            }
            Content::Bytes(bytes) => Some(Zeroizing::new(bytes)),
            Content::Tree { ours, defaults } => {
                let there = existing(&path)?;
                if is_main {
                    whose = Whose::of(spec, values, &there, &ours);
                    changes = tree::changes(&there, &ours);
                }
                let wanted = tree::merge(there.clone(), ours, defaults);
                if wanted == there {
                    None
                } else {
                    Some(encode(&wanted)?)
                }
            }
        };
        if let Some(content) = content.as_ref().filter(|_| is_main)
            && content.len() > spec.limit
        {
            return Err(Error::settings(format!(
                "{} would have {} bytes, but this edition reads only {}. Move what is not firstboot's into a file of \
                 its own",
                path.display(),
                content.len(),
                spec.limit
            )));
        }
        writes.push((path, file.access, content));
    }
    match (whose, spec.log) {
        (Whose::This, Some(log)) => tlog::amend(&layout.at(log), &changes)?,
        (Whose::This, None) => {}
        (Whose::Earlier, _) => {
            derived::remove(layout, spec.derived)?;
            remove_unreadable(&layout.at(spec.main))?;
        }
        (Whose::Unknown, _) => derived::set_aside(layout, spec.derived)?,
    }
    for (path, access, content) in writes {
        if let Some(parent) = path.parent() {
            files::make_directory(parent, 0o755)?;
        }
        match content {
            Some(content) => {
                files::write(&path, &content, Some(access))?;
                info!("wrote {}", path.display());
            }
            None if files::has_access(&path, access) => {}
            None => {
                files::set_access(&path, access)?;
                info!("set owner and mode of {}", path.display());
            }
        }
    }
    Ok(())
}

/// Whose state Greengrass has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Whose {
    /// It belongs to the identity that is being configured.
    This,
    /// It belongs to an earlier identity of ours.
    Earlier,
    /// It belongs to somebody else, or cannot be told.
    Unknown,
}

impl Whose {
    /// The main file tells, before it is written. If it is missing or names no identity (the image's template does
    /// not), the answer is in what this identity was configured as before.
    fn of(spec: &EditionSpec, values: &ConfigValues<'_>, there: &Value, wanted: &Value) -> Self {
        let is_this = match identity(spec, there) {
            Some(named) => Some(named) == identity(spec, wanted),
            None => match &values.configured {
                Some(mark) => *mark == values.mark(),
                None => return Self::Unknown,
            },
        };
        if is_this {
            Self::This
        } else if identity(spec, there).is_none() || names_our_key(spec, there) {
            Self::Earlier
        } else {
            Self::Unknown
        }
    }
}

/// The identity that a main file names, if it does.
fn identity<'a>(spec: &EditionSpec, tree: &'a Value) -> Option<Vec<&'a Value>> {
    std::iter::once(&spec.key_uri)
        .chain(spec.identity)
        .map(|place| tree.pointer(place).filter(|value| **value != ""))
        .collect()
}

/// Whether the edition's configuration names our key. A file that cannot be parsed as a tree any more is searched as
/// text.
pub fn is_ours(layout: &Layout, edition: Edition) -> bool {
    let spec = spec(edition);
    let content = files::read(&layout.at(spec.main), MAX_SIZE).ok().flatten();
    content.is_some_and(|content| match tree::parse(&content) {
        Ok(tree) => names_our_key(spec, &tree),
        Err(_) => has_words_of_ours(&content),
    })
}

fn names_our_key(spec: &EditionSpec, tree: &Value) -> bool {
    let uri = tree.pointer(spec.key_uri).and_then(Value::as_str);
    uri.is_some_and(|uri| {
        uri.starts_with("pkcs11:") && uri.contains(&format!("object={OBJECT_LABEL}"))
    })
}

fn has_words_of_ours(content: &[u8]) -> bool {
    let words = format!("object={OBJECT_LABEL}");
    content
        .windows(words.len())
        .any(|window| window == words.as_bytes())
}

/// Removes from the configuration what [`write()`] put in, and what has been derived from it since.
pub fn remove(layout: &Layout, edition: Edition) -> Result<()> {
    let spec = spec(edition);
    derived::remove(layout, spec.derived)?;
    // The values do not matter here, only their places.
    let pin = Pin::parse(b"-".to_vec()).ok_or_else(|| Error::other("a PIN of one character"))?;
    let settings = Greengrass {
        edition,
        ..Greengrass::default()
    };
    let values = ConfigValues {
        settings: &settings,
        platform: &Platform::default(),
        thing_name: "",
        slot: None,
        pin: &pin,
        certificate: "",
        root_ca: &[],
        configured: None,
    };
    // The main file goes first: without it, the rest is not read.
    for file in (spec.config_files)(&values).into_iter().rev() {
        let path = layout.at(file.path);
        files::remove(&files::temp_path(&path))?;
        let rest = match file.content {
            Content::Bytes(_) => None,
            Content::Tree { ours, defaults } => tree::subtract(existing(&path)?, &ours)
                .and_then(|rest| tree::subtract_defaults(rest, &defaults)),
        };
        match rest {
            None => files::remove(&path)?,
            Some(rest) => files::write(&path, &encode(&rest)?, Some(file.access))?,
        }
    }
    remove_unreadable(&layout.at(spec.main))
}

/// Removes what [`existing`] has set aside, if it was ours: the PIN is in it.
fn remove_unreadable(main: &Path) -> Result<()> {
    let aside = unreadable(main);
    match files::read(&aside, MAX_SIZE) {
        Ok(Some(content)) if has_words_of_ours(&content) => Ok(files::remove(&aside)?),
        _ => Ok(()),
    }
}

/// The path under which an unreadable file is set aside.
fn unreadable(path: &Path) -> PathBuf {
    let mut aside = path.as_os_str().to_owned();
    aside.push(".unreadable");
    aside.into()
}

/// The file's present content. An unreadable file is set aside.
fn existing(path: &Path) -> Result<Value> {
    let tree = match files::read(path, MAX_SIZE) {
        Ok(None) => return Ok(Value::Null),
        Ok(Some(content)) => tree::parse(&content).context(ErrorKind::Other, || {
            format!("cannot read {}", path.display())
        }),
        Err(e) => Err(e.into()),
    };
    tree.or_else(|e| {
        let aside = unreadable(path);
        warn!("{e}: setting it aside as {}", aside.display());
        files::rename(path, &aside)?;
        Ok(Value::Null)
    })
}

/// JSON with two spaces of indentation and no escaped solidus is YAML, too: libyaml's and
/// Jackson's parsers read it alike.
fn encode(tree: &Value) -> Result<Zeroizing<Vec<u8>>> {
    let mut text = serde_json::to_vec_pretty(tree).context(ErrorKind::Other, || {
        "cannot encode the configuration".into()
    })?;
    text.push(b'\n');
    Ok(Zeroizing::new(text))
}
