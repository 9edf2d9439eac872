//! Merging JSON trees.

use serde_json::Value;

/// Merges `over` into `under`, object by object; anything else replaces what was there.
pub fn merge(under: &mut Value, over: Value) {
    match (under, over) {
        (Value::Object(under), Value::Object(over)) => {
            for (key, value) in over {
                merge(under.entry(key).or_insert(Value::Null), value);
            }
        }
        (under, over) => *under = over,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn trees_are_merged_key_by_key() {
        let mut tree = json!({"a": 1, "b": {"c": 2, "d": 3}, "e": [1, 2]});
        merge(&mut tree, json!({"b": {"c": 4}, "e": [3]}));
        assert_eq!(tree, json!({"a": 1, "b": {"c": 4, "d": 3}, "e": [3]}));
    }
}
