//! The TPMs that were bought, by the SHA-256 of their EK certificates, from goods-in. A genuine TPM need not be ours.

use std::collections::BTreeMap;
use std::path::Path;

use firstboot_formats::digest::{Fingerprint, fingerprint};

use crate::error::{Error, Result};

/// Maximum size of a list, bytes: a million TPMs with long names.
const MAX_LIST: usize = 256 * 1024 * 1024;

/// The list, with the thing's name if one is set.
pub(crate) struct AllowList(BTreeMap<Fingerprint, Option<String>>);

impl AllowList {
    /// Reads a list: a line for each TPM with its EK certificate's SHA-256 and, after white space, the name that its
    /// thing has to have, if any. Empty lines and text after a `#` are skipped.
    pub(crate) fn read(path: &Path) -> Result<Self> {
        let text = crate::request::file(path, MAX_LIST)?;
        Self::parse(&String::from_utf8_lossy(&text))
            .map_err(|e| Error::settings(format!("{}: {e}", path.display())))
    }

    fn parse(text: &str) -> std::result::Result<Self, String> {
        let mut list = BTreeMap::new();
        for (line, number) in text.lines().zip(1..) {
            let line = line.split('#').next().unwrap_or_default();
            let mut words = line.split_whitespace();
            let Some(first) = words.next() else { continue };
            let wrong = || {
                format!(
                    "line {number}: expected the SHA-256 of an EK certificate, alone or followed by a thing name"
                )
            };
            let ek = fingerprint(first).ok_or_else(wrong)?;
            let thing = words.next().map(str::to_owned);
            if words.next().is_some() {
                return Err(wrong());
            }
            if list.insert(ek, thing).is_some() {
                return Err(format!(
                    "line {number}: this EK certificate is already listed"
                ));
            }
        }
        Ok(Self(list))
    }

    /// Whether a TPM is ours, and may be this thing.
    pub(crate) fn check(
        &self,
        ek: &Fingerprint,
        thing_name: &str,
    ) -> std::result::Result<(), String> {
        match self.0.get(ek) {
            None => {
                Err("its EK certificate is not in the allow-list: it is not one of our TPMs".into())
            }
            Some(Some(wanted)) if wanted != thing_name => {
                Err(format!("the allow-list assigns its TPM to \"{wanted}\""))
            }
            Some(_) => Ok(()),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_listed_and_only_as_what_is_listed() {
        let text = format!(
            "# goods-in\n{}\n\n{} gw-2 # a note\n",
            "aa".repeat(32),
            ["BB"; 32].join(":")
        );
        let list = AllowList::parse(&text).unwrap();
        list.check(&[0xAA; 32], "gw-1").unwrap();
        list.check(&[0xBB; 32], "gw-2").unwrap();
        assert!(
            list.check(&[0xBB; 32], "gw-1")
                .unwrap_err()
                .contains("gw-2")
        );
        assert!(
            list.check(&[0xCC; 32], "gw-1")
                .unwrap_err()
                .contains("not in the allow-list")
        );
    }

    #[test]
    fn a_mistake_is_named_with_its_line() {
        let refused = |text: &str| AllowList::parse(text).err().unwrap_or_default();
        let one = "aa".repeat(32);
        assert!(refused("aa").contains("line 1"));
        assert!(refused(&format!("{one} a b")).contains("line 1"));
        assert!(refused(&format!("{one}\n{one} gw")).contains("line 2"));
    }
}
