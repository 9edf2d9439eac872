//! Trees of settings as other programs write them, and the values that have to stay.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::{Map, Value};

use crate::{any_json, any_text};

/// With floating-point numbers rounded by their last digits. YAML has no others above 2^63.
pub fn rounded(value: &Value) -> Value {
    match value {
        Value::Number(n) if !n.is_i64() => format!("{:.12e}", n.as_f64().unwrap_or(0.0)).into(),
        Value::Array(items) => items.iter().map(rounded).collect(),
        Value::Object(object) => object
            .iter()
            .map(|(key, value)| (key.clone(), rounded(value)))
            .collect(),
        other => other.clone(),
    }
}

/// The leaves of a tree, including empty objects, and their paths.
pub fn leaves(tree: &Value) -> Vec<(Vec<&str>, &Value)> {
    match tree {
        Value::Object(object) if !object.is_empty() => object
            .iter()
            .flat_map(|(key, value)| {
                leaves(value).into_iter().map(move |(mut path, leaf)| {
                    path.insert(0, key);
                    (path, leaf)
                })
            })
            .collect(),
        leaf => vec![(Vec::new(), leaf)],
    }
}

/// Trees that share some branches with ours.
pub fn theirs() -> impl Strategy<Value = Value> {
    let keys = || {
        prop_oneof![
            select(vec![
                "system",
                "services",
                "aws.greengrass.Nucleus",
                "aws.greengrass.NucleusLite",
                "configuration",
                "runWithDefault",
                "rootpath",
                "privateKeyPath",
                "mqtt",
                "coreThing",
                "crypto",
                "principals",
                "runtime",
            ])
            .prop_map(str::to_owned),
            any_text(),
        ]
    };
    let object = move |values: BoxedStrategy<Value>| {
        vec((keys(), values), 0..4).prop_map(|entries| Value::Object(Map::from_iter(entries)))
    };
    let inner = any_json()
        .boxed()
        .prop_recursive(4, 24, 4, move |inner| object(inner).boxed());
    vec(
        (
            select(vec!["system", "services", "crypto", "coreThing", "other"]),
            inner,
        ),
        0..4,
    )
    .prop_map(|entries| {
        let entries = entries.into_iter().map(|(k, v)| (k.to_owned(), v));
        Value::Object(entries.collect())
    })
}

/// The forms in which programs write the same tree.
#[derive(Clone, Copy, Debug)]
pub enum Form {
    Compact,
    Pretty,
    Tabs,
    /// Like Python's json module by default.
    Ascii,
    Yaml,
}

pub fn text(tree: &Value, form: Form) -> String {
    match form {
        Form::Compact => tree.to_string(),
        Form::Pretty => format!("{tree:#}"),
        Form::Tabs => format!("{tree:#}").replace("\n  ", "\n\t"),
        Form::Ascii => tree
            .to_string()
            .chars()
            .flat_map(|c| {
                if c.is_ascii() {
                    vec![c.to_string()]
                } else {
                    let mut units = [0; 2];
                    let units = c.encode_utf16(&mut units).iter();
                    units.map(|unit| format!("\\u{unit:04x}")).collect()
                }
            })
            .collect(),
        Form::Yaml => format!("# a comment\n---\n{}", yaml(tree, 0)),
    }
}

fn yaml(tree: &Value, depth: usize) -> String {
    let indent = "  ".repeat(depth);
    match tree {
        Value::Object(object) if !object.is_empty() => object
            .iter()
            .map(|(key, value)| {
                let key = Value::from(key.as_str());
                format!("\n{indent}{key}: {}", yaml(value, depth + 1))
            })
            .collect(),
        Value::Array(items) if !items.is_empty() => items
            .iter()
            .map(|item| format!("\n{indent}- {}", yaml(item, depth + 1)))
            .collect(),
        leaf => leaf.to_string(),
    }
}

pub fn forms() -> impl Strategy<Value = Form> {
    select(vec![
        Form::Compact,
        Form::Pretty,
        Form::Tabs,
        Form::Ascii,
        Form::Yaml,
    ])
}
