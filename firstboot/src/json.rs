//! JSON trees, laid over one another.

use serde_json::Value;

/// Lays `over` on `under`, object by object; anything else replaces what was there.
pub fn lay_over(under: &mut Value, over: Value) {
    match (under, over) {
        (Value::Object(under), Value::Object(over)) => {
            for (key, value) in over {
                lay_over(under.entry(key).or_insert(Value::Null), value);
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
    fn key_by_key() {
        let mut tree = json!({"a": 1, "b": {"c": 2, "d": 3}, "e": [1, 2]});
        lay_over(&mut tree, json!({"b": {"c": 4}, "e": [3]}));
        assert_eq!(tree, json!({"a": 1, "b": {"c": 4, "d": 3}, "e": [3]}));
    }
}
