//! Whose the identity directory is, if it is not an identity: tpm2-pkcs11 has one store for a whole system, and other
//! programs may have come first, or added a token to ours.
//!
//! One rule: a token is ours if it has our label and is beside files of ours. Everything else belongs to another
//! program, and is neither moved nor removed.

use std::fs;
use std::path::Path;

use super::{CERTIFICATE, Identity, PIN, RECORD, REQUEST, SRK_NAME, cannot_look_at};
use crate::error::Result;
use crate::token::{DATABASE, TOKEN_LABEL, Tokens};

/// Files that only an identity has.
const OURS: [&str; 5] = [PIN, REQUEST, RECORD, SRK_NAME, CERTIFICATE];

/// What is in the directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Contents {
    /// Nothing: the same as no directory. Packages and tmpfiles.d create empty ones.
    Nothing,
    /// Only what is ours, or a store without tokens: the library creates one as soon as anybody looks.
    Ours,
    /// Only what is not ours; in words.
    Others(String),
    /// Ours, and tokens that are not; in words.
    Both(String),
}

impl Identity {
    /// Whose the directory is.
    pub fn contents(&self) -> Result<Contents> {
        let entries = fs::read_dir(&self.directory);
        let Ok(entries) = entries else {
            // A file, or a dangling link.
            return Ok(Contents::Ours);
        };
        let mut names = Vec::new();
        for entry in entries {
            let entry = entry.map_err(|e| cannot_look_at(&self.directory, e))?;
            names.push(entry.file_name().to_string_lossy().into_owned());
        }
        // mkfs makes this one.
        names.retain(|name| name != "lost+found");
        let others = other_tokens(&self.directory);
        if has_files_of_ours(&self.directory) {
            // An unreadable store blocks nothing: it is set aside, and kept.
            return Ok(match others.unwrap_or_default().as_slice() {
                [] => Contents::Ours,
                others => Contents::Both(format!(
                    "{} contains {}, which firstboot did not create",
                    self.directory.display(),
                    in_words(others)
                )),
            });
        }
        if names.is_empty() {
            return Ok(Contents::Nothing);
        }
        if names.iter().all(|name| name.starts_with(DATABASE)) && is_without_tokens(&self.directory)
        {
            return Ok(Contents::Ours);
        }
        let what = match others.unwrap_or_default().as_slice() {
            [] => "files".to_owned(),
            others => in_words(others),
        };
        Ok(Contents::Others(format!(
            "{} contains {what} of another program, but no identity of firstboot's",
            self.directory.display()
        )))
    }

    /// The labels of tokens in the store that are not ours.
    pub fn other_tokens(&self) -> Result<Vec<String>> {
        other_tokens(&self.directory)
    }

    pub(super) fn has_files_of_ours(&self) -> bool {
        has_files_of_ours(&self.directory)
    }
}

/// The labels of the tokens in a directory that are not ours: all except one with our label beside files of ours.
pub(super) fn other_tokens(directory: &Path) -> Result<Vec<String>> {
    let mut labels = Tokens::read(directory)?.labels;
    if has_files_of_ours(directory)
        && let Some(ours) = labels.iter().position(|label| label == TOKEN_LABEL)
    {
        labels.remove(ours);
    }
    Ok(labels)
}

fn has_files_of_ours(directory: &Path) -> bool {
    OURS.iter()
        .any(|name| directory.join(name).symlink_metadata().is_ok())
}

fn is_without_tokens(directory: &Path) -> bool {
    Tokens::read(directory).is_ok_and(|tokens| tokens == Tokens::default())
}

/// `the token "vpn"`, `the tokens "vpn", "disk"`
pub(super) fn in_words(labels: &[String]) -> String {
    let quoted: Vec<_> = labels.iter().map(|label| format!("{label:?}")).collect();
    let plural = if labels.len() == 1 { "" } else { "s" };
    format!("the token{plural} {}", quoted.join(", "))
}
