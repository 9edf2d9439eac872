//! Reading the settings files. If anything in a file is wrong, all of it is refused, with path, line and column, before
//! the TPM or the disk is touched. The boot partition's file is hostile: it cannot say which library is loaded.

use firstboot_formats::text;
use serde_json::{Value, json};

use super::{Platform, Settings};
use crate::error::{Error, ErrorKind, Result, ResultExt};
use crate::json;
use crate::layout::{BOOT, IMAGE_SETTINGS, Layout};

/// Maximum size of a settings file, bytes: it usually has a few hundred.
const MAX_SIZE: usize = 64 * 1024;

impl Settings {
    /// Reads, merges and checks both files.
    pub fn read(layout: &Layout) -> Result<Self> {
        let image = layout.at(IMAGE_SETTINGS);
        let operator = layout.at(BOOT).join("firstboot.json");
        // For a card, look for the libraries on the card, not on this machine.
        let mut merged = if layout.is_card() {
            json!({ "platform": Platform::found(|path| layout.at(path).exists()) })
        } else {
            json!({})
        };
        let (mut found, mut has_operator_file) = (false, false);
        for (path, trusted) in [(&image, true), (&operator, false)] {
            let content = text::read(path, MAX_SIZE).map_err(|e| {
                Error::settings(format!("{e}. A settings file is a small JSON file")).caused_by(e)
            })?;
            let Some(text) = content else { continue };
            found = true;
            has_operator_file |= !trusted;
            let at = || path.display().to_string();
            // Once by itself, so that an error has this file's path, line and column …
            let _: Self = with_path(&text).context(ErrorKind::Settings, at)?;
            // … and once as plain JSON, to override key by key.
            let tree: Value = serde_json::from_slice(&text).context(ErrorKind::Settings, at)?;
            if has_list(&tree, &[]) {
                return Err(Error::settings(format!(
                    "{}: it contains a list ([ ]), but settings have names; only enrollment.issuers and \
                     network.eap_tls are lists",
                    path.display()
                )));
            }
            if !trusted && tree.get("platform").is_some() {
                return Err(Error::settings(format!(
                    "{}: `platform` can only be set by the image, in {IMAGE_SETTINGS}",
                    path.display()
                )));
            }
            json::merge(&mut merged, tree);
        }
        if !found {
            return Err(Error::settings(format!(
                "there are no settings: {} is missing (the folder firstboot/ on the card's boot \
                 partition; the operator's guide, docs/operator.md, shows one)",
                operator.display()
            )));
        }
        let mut settings: Self = serde_json::from_value(merged)
            .context(ErrorKind::Settings, || operator.display().to_string())?;
        settings.has_operator_file = has_operator_file;
        settings.check(layout)?;
        Ok(settings)
    }
}

/// Reads settings; the error has the path of what is wrong.
fn with_path(text: &[u8]) -> std::result::Result<Settings, String> {
    let mut json = serde_json::Deserializer::from_slice(text);
    let settings = serde_path_to_error::deserialize(&mut json).map_err(|e| {
        let path = e.path().to_string();
        let error = e.into_inner();
        match path.as_str() {
            "." | "?" => error.to_string(),
            path => format!("{path}: {error}"),
        }
    })?;
    json.end().map_err(|e| e.to_string())?;
    Ok(settings)
}

/// serde accepts a list as an object, with its items in the order of the fields: this bypasses the names, and
/// everything that is decided by them. Only two settings are lists.
fn has_list(tree: &Value, path: &[&str]) -> bool {
    match tree {
        Value::Array(items) => match path {
            ["enrollment", "issuers"] => false,
            ["network", "eap_tls"] => items
                .iter()
                .any(|item| has_list(item, &[path, &["[]"]].concat())),
            _ => true,
        },
        Value::Object(object) => object
            .iter()
            .any(|(key, value)| has_list(value, &[path, &[key]].concat())),
        _ => false,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn unknown_keys_are_refused_with_line_and_column() {
        let error = serde_json::from_str::<Settings>("{\n  \"thing\": 1\n}").unwrap_err();
        assert!(
            error.to_string().contains("unknown field `thing`"),
            "{error}"
        );
        assert_eq!((error.line(), error.column()), (2, 9));
    }

    #[test]
    fn two_settings_are_lists() {
        let has = |text: &str| has_list(&serde_json::from_str(text).unwrap(), &[]);
        assert!(!has(r#"{"enrollment": {"issuers": ["00"]}}"#));
        assert!(!has(r#"{"network": {"eap_tls": [{"ssid": "a"}, {}]}}"#));
        for text in [
            "[]",
            r#"{"enrollment": []}"#,
            r#"{"enrollment": ["offline", ["00"]]}"#,
            r#"{"issuers": ["00"]}"#,
            r#"{"greengrass": {"enrollment": {"issuers": []}}}"#,
            r#"{"enrollment.issuers": []}"#,
            r#"{"network": ["DE"]}"#,
            r#"{"network": {"eap_tls": [["eth0", ""]]}}"#,
            r#"{"network": {"eap_tls": [{"ssid": ["a"]}]}}"#,
            r#"{"eap_tls": []}"#,
        ] {
            assert!(has(text), "{text}");
        }
    }

    #[test]
    fn a_value_of_the_wrong_kind_is_named_by_its_path() {
        let text = br#"{"enrollment": {"template_parameters": {"A": 1}}}"#;
        let error = with_path(text).unwrap_err();
        assert!(
            error.starts_with("enrollment.template_parameters.A: invalid type: integer `1`"),
            "{error}"
        );
        assert!(error.ends_with("at line 1 column 46"), "{error}");
        assert!(with_path(b"{} x").is_err());
    }
}
