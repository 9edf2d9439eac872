//! What a card brings: `<thing>.json`, and `<thing>.csr.pem` beside it. Anybody who had the card may have written
//! either.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use firstboot_formats::attestation::Evidence;
use firstboot_formats::record::Record;
use firstboot_formats::text;
use firstboot_formats::thing_name::{check_thing_name, eap_name, file_name, next_name};
use zeroize::Zeroizing;

use crate::error::{Context, Error, Exit, Result};

/// Maximum size of a record or a CSR, bytes: with an RSA key and its EK certificate, a record has some 4,000.
const MAX_FILE: usize = 64 * 1024;
/// The record's name, the CSR's, the reply's and the certificate's: their extensions after the thing's name.
const RECORD: &str = ".json";
const CSR: &str = ".csr.pem";
pub(crate) const REPLY: &str = ".reply.json";
pub(crate) const CERTIFICATE: &str = ".pem";

/// What the key of a request is for; its file's name says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// The thing.
    Present,
    /// To take the place of the thing's key in service.
    Next,
    /// The thing's networks, beside its key in service.
    Networks,
}

/// A request.
#[derive(Debug)]
pub(crate) struct Request {
    /// The record.
    pub(crate) record: Record,
    /// What it says about the TPM.
    pub(crate) evidence: Evidence,
    /// The CSR, PEM.
    pub(crate) csr: Vec<u8>,
    /// What its key is for.
    pub(crate) purpose: Purpose,
}

impl Request {
    /// Reads a request, given the path of its record. The error says why it is not one.
    pub(crate) fn read(record: &Path) -> std::result::Result<Self, String> {
        let text = match text::read(record, MAX_FILE) {
            Ok(Some(text)) => text,
            Ok(None) => return Err("there is no such file".into()),
            Err(e) => return Err(e.to_string()),
        };
        let no_record = |e| format!("it is not the record of a request: {e}");
        let parsed: Record = serde_json::from_slice(&text).map_err(no_record)?;
        check_thing_name(&parsed.thing_name)?;
        let evidence: Evidence = serde_json::from_slice(&text).map_err(|e| {
            format!("it says nothing about its TPM (was it made by an older firstboot, or by another program?): {e}")
        })?;
        let path = csr_path(record);
        let csr = match text::read(&path, MAX_FILE) {
            Ok(Some(csr)) => csr,
            Ok(None) => return Err(format!("{} is missing beside it", path.display())),
            Err(e) => return Err(e.to_string()),
        };
        let is_named =
            |name: String| record.file_name() == Some(OsStr::new(&(file_name(&name) + RECORD)));
        let purpose = if is_named(next_name(&parsed.thing_name)) {
            Purpose::Next
        } else if is_named(eap_name(&parsed.thing_name)) {
            Purpose::Networks
        } else {
            Purpose::Present
        };
        Ok(Self {
            purpose,
            record: parsed,
            evidence,
            csr,
        })
    }

    /// Whether it is for the thing's next key.
    pub(crate) fn is_next(&self) -> bool {
        self.purpose == Purpose::Next
    }

    /// Whether its key is one that the thing has for networks alone.
    pub(crate) fn is_for_networks(&self) -> bool {
        self.purpose == Purpose::Networks
    }

    /// Who holds the certificate, as the inventory calls it: the thing, with its key in service or its next one, or the
    /// thing in its networks.
    pub(crate) fn holder(&self) -> String {
        holder(&self.record.thing_name, self.is_for_networks())
    }

    /// The other one, which has to be in the same TPM.
    pub(crate) fn other_holder(&self) -> String {
        holder(&self.record.thing_name, !self.is_for_networks())
    }

    /// The name of a file about this request, as FAT allows it and the device looks for it.
    pub(crate) fn file_name(&self, end: &str) -> String {
        self.file_name_of(self.purpose, end)
    }

    /// The name of a file about another key of the same thing.
    pub(crate) fn file_name_of(&self, purpose: Purpose, end: &str) -> String {
        let thing_name = &self.record.thing_name;
        let name = match purpose {
            Purpose::Present => file_name(thing_name),
            Purpose::Next => file_name(&next_name(thing_name)),
            Purpose::Networks => file_name(&eap_name(thing_name)),
        };
        name + end
    }
}

fn holder(thing_name: &str, is_for_networks: bool) -> String {
    match is_for_networks {
        true => eap_name(thing_name),
        false => thing_name.to_owned(),
    }
}

fn csr_path(record: &Path) -> PathBuf {
    let name = record.file_name().unwrap_or_default().to_string_lossy();
    let thing = name.strip_suffix(RECORD).unwrap_or(&name);
    record.with_file_name(format!("{thing}{CSR}"))
}

/// The records among these files and in these directories, sorted by name, each once.
pub(crate) fn records(paths: &[PathBuf]) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for path in paths {
        if !path.is_dir() {
            found.push(path.clone());
            continue;
        }
        let mut in_it = directory(path, |name| {
            name.ends_with(RECORD) && !name.ends_with(REPLY)
        })?;
        if in_it.is_empty() {
            return Err(Error::new(
                Exit::NoInput,
                format!("there are no requests (*{RECORD}) in {}", path.display()),
            ));
        }
        found.append(&mut in_it);
    }
    let mut known = BTreeSet::new();
    found.retain(|path| {
        // Only the folder's path is resolved: a link inside it stays one, and is refused.
        let folder = path.parent().and_then(|folder| folder.canonicalize().ok());
        folder.is_none_or(|folder| known.insert((folder, path.file_name().map(OsStr::to_owned))))
    });
    Ok(found)
}

/// The files of a directory with wanted names, sorted. Hidden ones are skipped: macOS puts `._name` beside each file on
/// FAT.
pub(crate) fn directory(path: &Path, wanted: impl Fn(&str) -> bool) -> Result<Vec<PathBuf>> {
    let reading = || format!("cannot read {}", path.display());
    let mut found = Vec::new();
    for entry in path.read_dir().context(Exit::NoInput, reading)? {
        let entry = entry.context(Exit::NoInput, reading)?;
        let name = entry.file_name();
        if name
            .to_str()
            .is_some_and(|name| !name.starts_with('.') && wanted(name))
        {
            found.push(entry.path());
        }
    }
    found.sort();
    Ok(found)
}

/// A file that the operator named on the command line, which has to exist; text as UTF-8.
pub(crate) fn file(path: &Path, limit: usize) -> Result<Vec<u8>> {
    let no_input = |why: &str| {
        Error::new(
            Exit::NoInput,
            format!("cannot read {}: {why}", path.display()),
        )
    };
    let metadata = path.metadata().map_err(|e| no_input(&e.to_string()))?;
    if metadata.len() > limit as u64 {
        return Err(no_input(&format!("it is larger than {limit} bytes")));
    }
    let mut content = Zeroizing::new(std::fs::read(path).map_err(|e| no_input(&e.to_string()))?);
    Ok(match text::decode(&content) {
        Cow::Owned(text) => text,
        // Most files need no decoding: these are not copied.
        Cow::Borrowed(text) if text.len() == content.len() => std::mem::take(&mut *content),
        Cow::Borrowed(text) => text.to_vec(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_csr_lies_beside_the_record() {
        let csr = |record: &str| csr_path(Path::new(record));
        assert_eq!(csr("/card/gw-1.json"), Path::new("/card/gw-1.csr.pem"));
        assert_eq!(csr("gw.1.json"), Path::new("gw.1.csr.pem"));
    }
}
