//! Refusing settings that cannot work, and replacing the placeholders in the thing's name.

use super::{Edition, Settings, Subject};
use crate::board;
use crate::error::{Error, Result};
use crate::layout::Layout;

/// A thing name may have this many characters (AWS IoT API reference, CreateThing, thingName).
const MAX_THING_NAME: usize = 128;

/// An attribute of a subject name may have this many characters (RFC 5280 appendix A.1, ub-*: the
/// strictest of them, for the organization).
const MAX_NAME_ATTRIBUTE: usize = 64;

impl Settings {
    /// Replaces the placeholders and refuses what cannot work.
    pub(super) fn check(&mut self, layout: &Layout) -> Result<()> {
        self.thing_name = expand(&self.thing_name, layout)?;
        check_thing_name(&self.thing_name).map_err(Error::settings)?;
        self.enrollment.check(&self.thing_name, layout)?;
        self.subject.check()?;
        let greengrass = &self.greengrass;
        let v1 = greengrass.edition == Edition::V1;
        let host = "-.";
        for (name, value, needed, signs) in [
            ("aws_region", &greengrass.aws_region, true, "-"),
            (
                "iot_data_endpoint",
                &greengrass.iot_data_endpoint,
                true,
                host,
            ),
            (
                "iot_credential_endpoint",
                &greengrass.iot_credential_endpoint,
                !v1,
                host,
            ),
            // AWS IoT API reference, CreateRoleAlias, roleAlias: `[\w=,@-]+`.
            ("iot_role_alias", &greengrass.iot_role_alias, !v1, "_=,@-"),
            ("aws_account_id", &greengrass.aws_account_id, v1, ""),
        ] {
            if value.is_empty() && needed {
                return Err(Error::settings(format!(
                    "greengrass.{name} is missing or empty: set it in firstboot.json on the boot partition"
                )));
            }
            if let Some(odd) = value
                .chars()
                .find(|&c| !c.is_ascii_alphanumeric() && !signs.contains(c))
            {
                return Err(Error::settings(format!(
                    "greengrass.{name}: {value:?} has {odd:?} in it, which cannot be"
                )));
            }
        }
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

fn expand(name: &str, layout: &Layout) -> Result<String> {
    let mut name = name.to_owned();
    type Source = fn(&Layout) -> Option<String>;
    let sources: [(&str, Source); 2] = [
        ("${serial}", board::serial),
        ("${machine_id}", board::machine_id),
    ];
    for (placeholder, source) in sources {
        if name.contains(placeholder) {
            let value = source(layout).ok_or_else(|| {
                Error::settings(format!(
                    "thing_name uses {placeholder}, and this board has none; use another placeholder or a plain name"
                ))
            })?;
            name = name.replace(placeholder, &value);
        }
    }
    Ok(name)
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
