//! Trees of settings: read from JSON or YAML, merged, subtracted.

use saphyr::{LoadableYamlNode, Scalar, Yaml};
use saphyr_parser::{Event, Parser};
use serde_json::{Map, Value};

use crate::error::{Error, ErrorKind, Result, ResultExt};
use crate::json;

/// Maximum depth of a tree: Greengrass's own have 7. Reading and dropping one is recursive.
const MAX_DEPTH: usize = 100;

/// Parses JSON or YAML 1.2: one mapping with plain keys, or nothing.
///
/// JSON is parsed as JSON, because it is not quite YAML: surrogate pairs in `\u` (RFC 8259 §7), integers above 2⁶³.
pub fn parse(content: &[u8]) -> Result<Value> {
    let tree = match serde_json::from_slice(content) {
        Ok(tree) => tree,
        Err(_) => parse_yaml(content)?,
    };
    match tree {
        Value::Null | Value::Object(_) => Ok(tree),
        _ => Err(Error::other("it is not a mapping")),
    }
}

fn parse_yaml(content: &[u8]) -> Result<Value> {
    let text = std::str::from_utf8(content).map_err(|_| Error::other("it is not UTF-8 text"))?;
    let mut depth = 0;
    for event in Parser::new_from_str(text) {
        match event.of_kind(ErrorKind::Other)?.0 {
            Event::MappingStart(..) | Event::SequenceStart(..) => depth += 1,
            Event::MappingEnd | Event::SequenceEnd => depth -= 1,
            _ => {}
        }
        if depth > MAX_DEPTH {
            return Err(Error::other(format!(
                "it is nested more than {MAX_DEPTH} levels deep"
            )));
        }
    }
    let documents = Yaml::load_from_str(text).of_kind(ErrorKind::Other)?;
    match documents.as_slice() {
        [] => Ok(Value::Null),
        [one] => tree(one),
        many => Err(Error::other(format!(
            "it contains {} YAML documents, not one",
            many.len()
        ))),
    }
}

fn tree(node: &Yaml<'_>) -> Result<Value> {
    match node {
        Yaml::Value(Scalar::Null) => Ok(Value::Null),
        Yaml::Value(Scalar::Boolean(b)) => Ok(Value::Bool(*b)),
        Yaml::Value(Scalar::Integer(i)) => Ok(Value::from(*i)),
        Yaml::Value(Scalar::FloatingPoint(f)) => Ok(Value::from(f.into_inner())),
        Yaml::Value(Scalar::String(s)) => Ok(Value::from(s.as_ref())),
        Yaml::Sequence(items) => items.iter().map(tree).collect(),
        Yaml::Mapping(entries) => {
            let mut object = Map::new();
            for (key, value) in entries {
                let key = match tree(key)? {
                    Value::String(s) => s,
                    Value::Object(_) | Value::Array(_) => {
                        return Err(Error::other("it has a key that is not plain text"));
                    }
                    plain => plain.to_string(),
                };
                object.insert(key, tree(value)?);
            }
            Ok(Value::Object(object))
        }
        Yaml::Tagged(_, inner) => tree(inner),
        _ => Err(Error::other(
            "it contains anchors or aliases, which are not supported",
        )),
    }
}

/// `ours` over what is `there`, and that over `defaults`: in this order, so that a second merge changes nothing, even
/// if something other than a mapping was in the way of ours.
pub fn merge(mut there: Value, ours: Value, defaults: Value) -> Value {
    json::merge(&mut there, ours);
    let mut result = defaults;
    json::merge(&mut result, there);
    result
}

/// What remains of `tree` without the leaves of `places`, whatever their values; `None` if nothing does.
pub fn subtract(tree: Value, places: &Value) -> Option<Value> {
    prune(tree, places, &|_, _| true)
}

/// What remains of `tree` without the leaves whose values are those of `defaults`: a different value is somebody
/// else's.
pub fn subtract_defaults(tree: Value, defaults: &Value) -> Option<Value> {
    prune(tree, defaults, &|there, default| there == default)
}

fn prune(tree: Value, places: &Value, goes: &dyn Fn(&Value, &Value) -> bool) -> Option<Value> {
    match (tree, places) {
        (Value::Object(tree), Value::Object(places)) => {
            let rest: Map<String, Value> = tree
                .into_iter()
                .filter_map(|(key, value)| {
                    let value = match places.get(&key) {
                        Some(places) => prune(value, places, goes)?,
                        None => value,
                    };
                    Some((key, value))
                })
                .collect();
            (!rest.is_empty()).then_some(Value::Object(rest))
        }
        (leaf, place) => (!leaf.is_null() && !goes(&leaf, place)).then_some(leaf),
    }
}

/// The leaves of `wanted` that are missing or different in `there`: path and wanted value.
pub fn changes(there: &Value, wanted: &Value) -> Vec<(Vec<String>, Value)> {
    match wanted {
        Value::Object(wanted) => wanted
            .iter()
            .flat_map(|(key, wanted)| {
                let mut below = changes(there.get(key).unwrap_or(&Value::Null), wanted);
                for (path, _) in &mut below {
                    path.insert(0, key.clone());
                }
                below
            })
            .collect(),
        leaf if leaf == there => Vec::new(),
        leaf => vec![(Vec::new(), leaf.clone())],
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn yaml_and_json_are_read_alike() {
        let yaml = b"---\nsystem:\n  rootpath: \"/greengrass/v2\"\n  n: 1\nlist: [a, true]\n";
        let wanted = json!({"system": {"rootpath": "/greengrass/v2", "n": 1}, "list": ["a", true]});
        assert_eq!(parse(yaml).unwrap(), wanted);
        assert_eq!(parse(wanted.to_string().as_bytes()).unwrap(), wanted);
        assert_eq!(parse(b"").unwrap(), Value::Null);
    }

    #[test]
    fn a_quoted_number_stays_text() {
        assert_eq!(
            parse(b"userPin: \"0123\"").unwrap(),
            json!({"userPin": "0123"})
        );
    }

    #[test]
    fn what_is_not_a_tree_is_refused() {
        assert!(parse(b"a: [").is_err());
        assert!(parse(b"\xFF\xFE").is_err());
        assert!(parse(b"? [a, b]\n: c\n").is_err());
    }

    #[test]
    fn ours_wins_and_the_rest_stays() {
        let there = json!({"a": 1, "b": {"c": 2, "d": 3}});
        let result = merge(there, json!({"b": {"c": 9}}), json!({"a": 7, "e": 5}));
        assert_eq!(result, json!({"a": 1, "b": {"c": 9, "d": 3}, "e": 5}));
    }

    #[test]
    fn subtracting_leaves_no_empty_shells() {
        let tree = json!({"a": {"b": 1}, "c": {"d": 2, "e": 3}});
        let places = json!({"a": {"b": 0}, "c": {"d": 0}});
        assert_eq!(subtract(tree, &places), Some(json!({"c": {"e": 3}})));
        assert_eq!(subtract(json!({"a": {"b": 1}}), &places), None);
    }

    #[test]
    fn a_default_that_was_changed_stays() {
        let tree = json!({"a": {"b": 1, "c": 2}, "d": 3});
        let defaults = json!({"a": {"b": 1, "c": 7}, "e": 5});
        let rest = subtract_defaults(tree, &defaults);
        assert_eq!(rest, Some(json!({"a": {"c": 2}, "d": 3})));
    }

    #[test]
    fn changes_have_their_paths() {
        let there = json!({"a": {"b": 1, "c": 2}});
        let wanted = json!({"a": {"b": 1, "c": 3, "d": 4}});
        let found = changes(&there, &wanted);
        let path = |key: &str| vec!["a".to_owned(), key.to_owned()];
        assert_eq!(found, [(path("c"), json!(3)), (path("d"), json!(4))]);
    }
}
