//! A report on standard output.

use firstboot_formats::output;
use serde_json::{Map, Value};

use crate::error::Result;

/// Prints a report on standard output, for a program or for a person.
pub fn print(report: &Value, as_json: bool) -> Result<()> {
    if as_json {
        return Ok(output::print_json(report)?);
    }
    let mut lines = Vec::new();
    if let Value::Object(object) = report {
        render(object, 0, &mut lines);
    }
    Ok(output::print_lines(lines)?)
}

fn render(object: &Map<String, Value>, depth: usize, lines: &mut Vec<String>) {
    let width = object.keys().map(String::len).max().unwrap_or(0);
    let indent = "  ".repeat(depth);
    for (key, value) in object {
        let label = key.replace('_', " ");
        match value {
            Value::Object(inner) => {
                lines.push(format!("{indent}{label}"));
                render(inner, depth + 1, lines);
            }
            Value::Array(items) => {
                lines.push(format!("{indent}{label}"));
                for item in items {
                    lines.push(format!("{indent}  {}", inline(item)));
                }
            }
            plain => lines.push(format!("{indent}{label:width$}  {}", inline(plain))),
        }
    }
}

fn inline(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Object(object) => object.values().map(inline).collect::<Vec<_>>().join("  "),
        other => other.to_string(),
    }
}
