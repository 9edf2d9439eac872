//! What Greengrass reads: one file here for each edition, each a list of [`Document`]s.
//!
//! A document is written whole and atomically. Where another tool has put something of its own into
//! the same file, that stays; what is ours wins.

mod complete;
mod document;
mod nucleus;
mod nucleus_lite;
mod v1;

use std::path::PathBuf;

use log::{info, warn};
use serde_json::Value;
use zeroize::Zeroizing;

use crate::error::{Doing, Error, Exit, Result};
use crate::files::{self, Access};
use crate::layout::Layout;
use crate::secret::Pin;
use crate::settings::{Edition, Greengrass, Platform};
use crate::token::{OBJECT_LABEL, TOKEN_LABEL};

pub use complete::is_complete;

/// A configuration file of another's making may have this many bytes.
const MAX_SIZE: usize = 1024 * 1024;

/// All that a configuration is made of.
pub struct Facts<'a> {
    /// The operator's wishes.
    pub settings: &'a Greengrass,
    /// The image's libraries.
    pub platform: &'a Platform,
    /// The thing's name.
    pub thing_name: &'a str,
    /// The token's slot ID.
    pub slot: u64,
    /// The user PIN.
    pub pin: &'a Pin,
    /// The device certificate and its chain.
    pub certificate: &'a str,
    /// The root certificate of the endpoints.
    pub root_ca: &'a [u8],
}

/// A file of the configuration.
struct Document {
    path: &'static str,
    access: Access,
    content: Content,
}

impl Document {
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
    /// Takes the place of what is there.
    Bytes(Vec<u8>),
}

/// An edition's part: where its configuration is, and what goes into it.
struct Form {
    /// The file that names the key: where it has our URI, the configuration is ours.
    main: &'static str,
    /// The files that it goes with.
    beside: &'static [&'static str],
    /// JSON pointer to that URI.
    key_uri: &'static str,
    /// Everything to write, the main file last.
    documents: fn(&Facts<'_>) -> Vec<Document>,
    /// What would win over the new configuration: a directory and the beginnings of file names.
    superseded: &'static [(&'static str, &'static [&'static str])],
    /// How large the main file may be.
    limit: usize,
}

fn form(edition: Edition) -> &'static Form {
    match edition {
        Edition::Nucleus => &nucleus::FORM,
        Edition::NucleusLite => &nucleus_lite::FORM,
        Edition::V1 => &v1::FORM,
    }
}

/// The group of the edition's own daemons, where they do not run as root.
pub fn group(edition: Edition) -> Option<&'static str> {
    match edition {
        Edition::Nucleus | Edition::V1 => None,
        Edition::NucleusLite => Some(nucleus_lite::GROUP),
    }
}

/// The PKCS#11 URI (RFC 7512) of our private key, as the editions that name the token take it.
fn key_uri() -> String {
    format!("pkcs11:token={TOKEN_LABEL};object={OBJECT_LABEL};type=private")
}

/// The PKCS#11 URI of our certificate.
fn certificate_uri() -> String {
    format!("pkcs11:token={TOKEN_LABEL};object={OBJECT_LABEL};type=cert")
}

/// Whether everything is written as it should be.
pub fn is_written(layout: &Layout, facts: &Facts<'_>) -> Result<bool> {
    for document in (form(facts.settings.edition).documents)(facts) {
        let path = layout.at(document.path);
        if !files::has_access(&path, document.access) {
            return Ok(false);
        }
        let Ok(Some(there)) = files::read(&path, MAX_SIZE) else {
            return Ok(false);
        };
        let same = match document.content {
            Content::Bytes(wanted) => there == wanted,
            Content::Tree { ours, defaults } => document::parse(&there)
                .is_ok_and(|there| there == document::lay_over(there.clone(), ours, defaults)),
        };
        if !same {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Writes everything, after removing what would win over it, and what was written for another
/// edition: it may have the PIN in it.
pub fn write(layout: &Layout, facts: &Facts<'_>) -> Result<()> {
    for other in Edition::ALL {
        if other != facts.settings.edition && is_ours(layout, other) {
            info!("removing the configuration for {other}");
            remove(layout, other)?;
        }
    }
    let form = form(facts.settings.edition);
    for path in superseded(layout, form) {
        info!(
            "removing {}, which belongs to an earlier identity",
            path.display()
        );
        files::remove(&path)?;
    }
    for document in (form.documents)(facts) {
        let path = layout.at(document.path);
        if let Some(parent) = path.parent() {
            files::make_directory(parent, 0o755)?;
        }
        let content = match document.content {
            Content::Bytes(bytes) => Zeroizing::new(bytes),
            Content::Tree { ours, defaults } => {
                encode(&document::lay_over(existing(&path)?, ours, defaults))?
            }
        };
        if document.path == form.main && content.len() > form.limit {
            return Err(Error::settings(format!(
                "{} would have {} bytes; this edition reads only {}. Move what is not firstboot's \
                 into a file of its own",
                path.display(),
                content.len(),
                form.limit
            )));
        }
        files::write(&path, &content, Some(document.access))?;
        info!("wrote {}", path.display());
    }
    Ok(())
}

/// Whether the edition's configuration names our key.
pub fn is_ours(layout: &Layout, edition: Edition) -> bool {
    let form = form(edition);
    files::read(&layout.at(form.main), MAX_SIZE)
        .ok()
        .flatten()
        .and_then(|content| document::parse(&content).ok())
        .and_then(|tree| Some(tree.pointer(form.key_uri)?.as_str()?.to_owned()))
        .is_some_and(|uri| {
            uri.starts_with("pkcs11:") && uri.contains(&format!("object={OBJECT_LABEL}"))
        })
}

/// Takes out of the configuration what [`write`] put in, and what has been derived from it since.
pub fn remove(layout: &Layout, edition: Edition) -> Result<()> {
    let form = form(edition);
    for path in superseded(layout, form) {
        files::remove(&path)?;
    }
    // The values do not matter here, only their places.
    let pin = Pin::parse(b"-".to_vec()).ok_or_else(|| Error::other("a PIN of one character"))?;
    let settings = Greengrass {
        edition,
        ..Greengrass::default()
    };
    let facts = Facts {
        settings: &settings,
        platform: &Platform::default(),
        thing_name: "",
        slot: 0,
        pin: &pin,
        certificate: "",
        root_ca: &[],
    };
    // The main file goes first: without it, the rest is not read.
    for document in (form.documents)(&facts).into_iter().rev() {
        let path = layout.at(document.path);
        files::remove(&files::neighbour(&path))?;
        let rest = match document.content {
            Content::Bytes(_) => None,
            Content::Tree { ours, defaults } => {
                let places = document::lay_over(Value::Null, ours, defaults);
                document::without(existing(&path)?, &places)
            }
        };
        match rest {
            None => files::remove(&path)?,
            Some(rest) => files::write(&path, &encode(&rest)?, Some(document.access))?,
        }
    }
    Ok(())
}

/// What is in the file now. What cannot be read is kept beside it, not lost.
fn existing(path: &std::path::Path) -> Result<Value> {
    let tree = match files::read(path, MAX_SIZE) {
        Ok(None) => return Ok(Value::Null),
        Ok(Some(content)) => {
            document::parse(&content).doing(Exit::Other, || path.display().to_string())
        }
        Err(e) => Err(e),
    };
    tree.or_else(|e| {
        let mut aside = path.as_os_str().to_owned();
        aside.push(".unreadable");
        warn!("{e}; it is kept as {}", aside.to_string_lossy());
        files::rename(path, std::path::Path::new(&aside))?;
        Ok(Value::Null)
    })
}

/// JSON with two spaces of indentation and no escaped solidus is YAML, too: libyaml's and
/// Jackson's parsers read it alike (facts/greengrass.md §1e).
fn encode(tree: &Value) -> Result<Zeroizing<Vec<u8>>> {
    let mut text = serde_json::to_vec_pretty(tree)
        .doing(Exit::Other, || "cannot encode a configuration".into())?;
    text.push(b'\n');
    Ok(Zeroizing::new(text))
}

fn superseded(layout: &Layout, form: &Form) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for (directory, prefixes) in form.superseded {
        for entry in std::fs::read_dir(layout.at(directory))
            .into_iter()
            .flatten()
            .flatten()
        {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            if prefixes.iter().any(|prefix| name.starts_with(prefix)) {
                found.push(entry.path());
            }
        }
    }
    found
}
