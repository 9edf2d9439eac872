//! Refuses settings that cannot work, and replaces the placeholders in the thing's name.

use firstboot_formats::thing_name::check_thing_name;

use super::{Settings, Subject, expand};
use crate::board;
use crate::error::{Error, Result};
use crate::layout::Layout;

/// Maximum length of an attribute of a subject name, characters (RFC 5280 appendix A.1, ub-*: the strictest, for
/// organization and common name).
const MAX_NAME_ATTRIBUTE: usize = 64;
/// Maximum lengths of a host name and of a label in it, characters (RFC 1123 §2.1; RFC 1035 §2.3.4).
const MAX_HOST: (usize, usize) = (253, 63);

impl Settings {
    /// Replaces the placeholders and refuses what cannot work.
    pub(super) fn check(&mut self, layout: &Layout) -> Result<()> {
        self.thing_name = expand(&self.thing_name, "thing_name", |placeholder| {
            board_value(placeholder, "thing_name", layout)
        })?;
        check_thing_name(&self.thing_name).map_err(Error::settings)?;
        if self.thing_name.len() > MAX_NAME_ATTRIBUTE {
            self.remarks.push(format!(
                "thing_name has {} characters; the request's common name should have at most {MAX_NAME_ATTRIBUTE} (RFC \
                 5280), and a CA may refuse it: choose a shorter name",
                self.thing_name.len()
            ));
        }
        self.enrollment.check(&self.thing_name, layout)?;
        self.subject.check()?;
        self.remarks.extend(self.greengrass.check()?);
        self.network.check(&self.thing_name, layout)?;
        Ok(())
    }
}

impl Subject {
    fn check(&self) -> Result<()> {
        for (key, value) in self.with_common_name("") {
            let limit = if key == "C" { 2 } else { MAX_NAME_ATTRIBUTE };
            if value.chars().count() > limit || value.chars().any(char::is_control) {
                return Err(Error::settings(format!(
                    "subject.{key}: {value:?} is longer than {limit} characters or contains control characters"
                )));
            }
        }
        let letters = self
            .country
            .chars()
            .filter(char::is_ascii_uppercase)
            .count();
        if !self.country.is_empty() && letters != 2 {
            return Err(Error::settings(format!(
                "subject.C: {:?} is not a country code of two upper-case letters",
                self.country
            )));
        }
        Ok(())
    }
}

/// The board's value for a placeholder in the setting at `path`; `None` for a placeholder that is not about the board.
pub(super) fn board_value(name: &str, path: &str, layout: &Layout) -> Result<Option<String>> {
    let value = match name {
        "serial" => board::serial(layout),
        "machine_id" => board::machine_id(layout),
        _ => return Ok(None),
    };
    value.map(Some).ok_or_else(|| {
        Error::settings(format!(
            "{path} uses ${{{name}}}, but this board has none: use another placeholder or a plain value"
        ))
    })
}

/// RFC 1123 §2.1: labels of letters, digits and inner hyphens. A trailing dot is for resolvers, not for TLS (RFC 6066
/// §3).
pub(super) fn is_host(text: &str) -> bool {
    let (most, most_of_label) = MAX_HOST;
    let is_label = |label: &str| {
        !label.is_empty()
            && label.len() <= most_of_label
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-')
    };
    text.len() <= most && text.split('.').all(is_label)
}
