//! `${name}` in a setting's value.

use crate::error::{Error, Result};

/// Replaces each `${name}` in `text` by the name's `value`, once: placeholders in a value are not replaced. A name that
/// `value` does not know is a mistake in the settings at `path`.
pub fn expand(
    text: &str,
    path: &str,
    mut value: impl FnMut(&str) -> Result<Option<String>>,
) -> Result<String> {
    let mut done = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("${") {
        let unknown = |what: &str| Error::settings(format!("{path}: {text:?} {what}"));
        let (name, after) = after
            .split_once('}')
            .ok_or_else(|| unknown("has a \"${\" without its \"}\""))?;
        done.push_str(before);
        let value = value(name)?;
        done.push_str(&value.ok_or_else(|| {
            unknown(&format!(
                "uses ${{{name}}}, but there is no such placeholder"
            ))
        })?);
        rest = after;
    }
    done.push_str(rest);
    Ok(done)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn expanded(text: &str) -> Result<String> {
        expand(text, "enrollment.template_parameters.X", |name| {
            Ok((name == "serial").then(|| "${serial}7".to_owned()))
        })
    }

    #[test]
    fn each_is_replaced_once() {
        assert_eq!(
            expanded("a-${serial}-${serial}").unwrap(),
            "a-${serial}7-${serial}7"
        );
        assert_eq!(expanded("no $ {serial}").unwrap(), "no $ {serial}");
    }

    #[test]
    fn an_unknown_one_is_named_with_its_path() {
        for (text, what) in [
            ("${nonsense}", "${nonsense}"),
            ("${serial", "without its"),
            ("${}", "${}"),
        ] {
            let error = expanded(text).unwrap_err();
            assert_eq!(error.kind, crate::error::ErrorKind::Settings);
            let error = error.to_string();
            assert!(error.contains(what), "{error}");
            assert!(
                error.starts_with("enrollment.template_parameters.X"),
                "{error}"
            );
        }
    }
}
