//! Greengrass's configuration files in which others have written: their values stay, and a file that cannot be read is
//! kept beside the new one.

use firstboot::error::ErrorKind;
use firstboot::greengrass::{self, ConfigValues};
use firstboot::secret::Pin;
use firstboot::settings::{Edition, Greengrass, Platform};
use proptest::prelude::*;
use serde_json::Value;

use crate::documents::{forms, leaves, rounded, text, theirs};
use crate::{Checked, Else, Tree, cases, damage, damaged};

fn main_file(edition: Edition) -> &'static str {
    match edition {
        Edition::Nucleus => "/greengrass/v2/config/config.yaml",
        Edition::NucleusLite => "/etc/greengrass/config.yaml",
        Edition::V1 => "/greengrass/config/config.json",
    }
}

struct Configured {
    tree: Tree,
    settings: Greengrass,
    platform: Platform,
    pin: Pin,
    /// Everything that firstboot writes if there is no file.
    ours: Value,
}

impl Configured {
    fn new(edition: Edition) -> Checked<Self> {
        let mut configured = Self {
            tree: Tree::new()?,
            settings: Greengrass {
                edition,
                aws_region: "eu-central-1".into(),
                ..Greengrass::default()
            },
            platform: Platform::default(),
            pin: Pin::parse(b"0123".to_vec()).ok_or("a PIN").or_fail()?,
            ours: Value::Null,
        };
        greengrass::write(&configured.tree.layout, &configured.values())?;
        configured.ours = configured
            .written()
            .ok_or("nothing was written")
            .or_fail()?;
        Ok(configured)
    }

    fn values(&self) -> ConfigValues<'_> {
        ConfigValues {
            settings: &self.settings,
            platform: &self.platform,
            thing_name: "gateway-1",
            slot: Some(1),
            pin: &self.pin,
            certificate: "certificate",
            root_ca: b"root",
            configured: None,
        }
    }

    fn path(&self) -> &'static str {
        main_file(self.settings.edition)
    }

    fn written(&self) -> Option<Value> {
        serde_json::from_slice(&self.tree.read(self.path())?).ok()
    }

    fn aside(&self) -> Option<Vec<u8>> {
        self.tree.read(&format!("{}.unreadable", self.path()))
    }

    /// Lets firstboot write over this file. Returns whether it did: a file that would become too large is left alone.
    fn write_over(&self, theirs: &[u8]) -> Checked<bool> {
        let layout = &self.tree.layout;
        let _ = std::fs::remove_file(layout.at(format!("{}.unreadable", self.path())));
        self.tree.write(self.path(), theirs)?;
        let values = self.values();
        match greengrass::write(layout, &values) {
            Ok(()) => {}
            Err(e) => {
                prop_assert_eq!(e.kind, ErrorKind::Settings, "{}", e);
                let after = self.tree.read(self.path());
                prop_assert_eq!(after.as_deref(), Some(theirs));
                return Ok(false);
            }
        }
        // The written configuration is the wanted one: another start would have nothing to do.
        prop_assert!(greengrass::is_written(layout, &values).or_fail()?);
        prop_assert!(greengrass::is_ours(layout, self.settings.edition));
        Ok(true)
    }

    fn assert_kept(&self, theirs: &Value, now: Option<&Value>) -> Checked {
        let ours = leaves(&self.ours);
        for (path, value) in leaves(theirs) {
            let is_ours = |(place, _): &(Vec<&str>, &Value)| {
                place.starts_with(&path) || path.starts_with(place)
            };
            if !ours.iter().any(is_ours) {
                let kept = path
                    .iter()
                    .try_fold(now.unwrap_or(&Value::Null), |tree, key| tree.get(key));
                prop_assert_eq!(kept.map(rounded), Some(rounded(value)), "{:?}", path);
            }
        }
        Ok(())
    }
}

#[test]
fn the_values_of_others_stay() -> Checked {
    for edition in Edition::ALL {
        let configured = Configured::new(edition)?;
        proptest!(cases(150), |(theirs in theirs(), form in forms())| {
            if !configured.write_over(text(&theirs, form).as_bytes())? {
                return Ok(());
            }
            prop_assert_eq!(configured.aside(), None, "was not understood");
            configured.assert_kept(&theirs, configured.written().as_ref())?;

            greengrass::remove(&configured.tree.layout, edition).or_fail()?;
            prop_assert!(!greengrass::is_ours(&configured.tree.layout, edition));
            configured.assert_kept(&theirs, configured.written().as_ref())?;
        });
    }
    Ok(())
}

/// Another program's tree, damaged: it is either understood or kept as it is.
#[test]
fn damaged_files_are_kept() -> Checked {
    let configured = Configured::new(Edition::Nucleus)?;
    proptest!(cases(250), |(theirs in theirs(), form in forms(), damage in damage())| {
        let content = damaged(text(&theirs, form).as_bytes(), &damage);
        if configured.write_over(&content)? {
            match (configured.aside(), serde_json::from_slice(&content)) {
                (Some(aside), _) => prop_assert_eq!(aside, content),
                (None, Ok(theirs @ Value::Object(_))) => {
                    configured.assert_kept(&theirs, configured.written().as_ref())?;
                }
                // YAML, but not JSON.
                (None, _) => {}
            }
        }
    });
    Ok(())
}

/// None of these is a tree that firstboot's values could be merged into.
#[test]
fn files_that_are_not_trees_are_kept() -> Checked {
    let configured = Configured::new(Edition::Nucleus)?;
    for content in [
        "just a note",
        "7",
        "[1, 2]",
        "- a\n- b\n",
        "a: 1\n---\nb: 2\n",
        "\u{0}\u{1}",
    ] {
        configured.write_over(content.as_bytes())?;
        let aside = configured.aside().unwrap_or_default();
        assert_eq!(String::from_utf8_lossy(&aside), content);
    }
    Ok(())
}

/// No data is lost because there is more of it than firstboot reads, or it is not a file.
#[test]
fn files_that_are_too_large_are_kept() -> Checked {
    let configured = Configured::new(Edition::Nucleus)?;
    let large = format!("{{\"a\": \"{}\"}}", "x".repeat(2 * 1024 * 1024));
    configured.write_over(large.as_bytes())?;
    assert_eq!(configured.aside().map(|a| a.len()), Some(large.len()));
    Ok(())
}

/// As large and as deep as the limit allows: refused or kept, without a crash.
#[test]
fn the_worst_files_within_the_limit_get_a_verdict() -> Checked {
    let configured = Configured::new(Edition::Nucleus)?;
    // Ten anchors that each refer to the previous one ten times: 10^10 nodes when expanded.
    let laughs: String = (0..10)
        .map(|n| match n {
            0 => "a0: &a0 lol\n".to_owned(),
            n => format!(
                "a{n}: &a{n} [{}*a{}]\n",
                format!("*a{}, ", n - 1).repeat(9),
                n - 1
            ),
        })
        .collect();
    configured.write_over(laughs.as_bytes())?;
    for unit in [
        "[", "{\"a\":", "- ", "? ", "a: &a ", "!!str ", "\"", "a:\n", "{", "*a ", "# ",
    ] {
        let content = unit.repeat(1024 * 1024 / unit.len());
        configured.write_over(content.as_bytes())?;
    }
    let steps: String = (0..1000)
        .map(|n| format!("{}a:\n", " ".repeat(n)))
        .collect();
    configured.write_over(steps.as_bytes())?;
    Ok(())
}
