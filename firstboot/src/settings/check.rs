//! Refusing settings that cannot work, and replacing the placeholders in the thing's name.

use super::{Settings, Subject, expand};
use crate::board;
use crate::error::{Error, Result};
use crate::layout::Layout;

/// A thing name may have this many characters (AWS IoT API reference, CreateThing, thingName).
const MAX_THING_NAME: usize = 128;

/// An attribute of a subject name may have this many characters (RFC 5280 appendix A.1, ub-*: the
/// strictest of them, for the organization and for the common name).
const MAX_NAME_ATTRIBUTE: usize = 64;

impl Settings {
    /// Replaces the placeholders and refuses what cannot work.
    pub(super) fn check(&mut self, layout: &Layout) -> Result<()> {
        self.thing_name = expand(&self.thing_name, "thing_name", |placeholder| {
            board_value(placeholder, "thing_name", layout)
        })?;
        check_thing_name(&self.thing_name).map_err(Error::settings)?;
        if self.thing_name.len() > MAX_NAME_ATTRIBUTE {
            self.remarks.push(format!(
                "thing_name has {} characters; as the common name of the request it should have {MAX_NAME_ATTRIBUTE} at \
                 most (RFC 5280), and a CA may refuse it: take a shorter one",
                self.thing_name.len()
            ));
        }
        self.enrollment.check(&self.thing_name, layout)?;
        self.subject.check()?;
        self.remarks.extend(self.greengrass.check()?);
        Ok(())
    }
}

impl Subject {
    fn check(&self) -> Result<()> {
        for (key, value) in self.with_common_name("") {
            let limit = if key == "C" { 2 } else { MAX_NAME_ATTRIBUTE };
            if value.chars().count() > limit || value.chars().any(char::is_control) {
                return Err(Error::settings(format!(
                    "subject.{key}: {value:?} has more than {limit} characters, or control characters"
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
                "subject.C: {:?} is no country's two capital letters",
                self.country
            )));
        }
        Ok(())
    }
}

/// AWS IoT API reference, CreateThing, thingName: `[a-zA-Z0-9:_-]+`, 1 to 128 characters. The error
/// says what is wrong.
pub fn check_thing_name(name: &str) -> std::result::Result<(), String> {
    if name.is_empty() {
        return Err("thing_name is missing or empty; \"gateway-${serial}\" is a good one".into());
    }
    if name.len() > MAX_THING_NAME {
        return Err(format!(
            "thing_name has {} characters; AWS IoT allows {MAX_THING_NAME}",
            name.len()
        ));
    }
    match name
        .chars()
        .find(|c| !(c.is_ascii_alphanumeric() || ":_-".contains(*c)))
    {
        None => Ok(()),
        Some(odd) => Err(format!(
            "thing_name {name:?} has {odd:?} in it; AWS IoT allows letters, digits, ':', '_' and '-'"
        )),
    }
}

/// What the board has for a placeholder in the setting at `path`; `None` for one that the board knows nothing of.
pub(super) fn board_value(name: &str, path: &str, layout: &Layout) -> Result<Option<String>> {
    let value = match name {
        "serial" => board::serial(layout),
        "machine_id" => board::machine_id(layout),
        _ => return Ok(None),
    };
    value.map(Some).ok_or_else(|| {
        Error::settings(format!(
            "{path} uses ${{{name}}}, and this board has none; use another placeholder or a plain value"
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thing_names_are_those_of_aws() {
        for good in ["gateway-1", "a", "A:b_c-9"] {
            assert!(check_thing_name(good).is_ok(), "{good}");
        }
        let long = "x".repeat(MAX_THING_NAME + 1);
        for bad in ["", "a/b", "..", "a b", "a\u{7}", "ä", "${serial}", &long] {
            assert!(check_thing_name(bad).is_err(), "{bad}");
        }
    }
}
