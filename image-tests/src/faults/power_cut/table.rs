//! The table of a sweep's results.

use std::fmt;

use super::Kind;

/// One scenario under one kind of cut.
#[derive(Debug)]
pub struct Row {
    pub scenario: String,
    pub kind: Kind,
    /// The number of points.
    pub of: usize,
    /// How many of them were tried.
    pub tried: usize,
    /// For each point that did not recover, what was wrong.
    pub stuck: Vec<String>,
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "| {:<38} | {:<26} | {:>6} | {:>6} | {:>9} | {:>5} |",
            self.scenario,
            self.kind.to_string(),
            self.of,
            self.tried,
            self.tried - self.stuck.len(),
            self.stuck.len()
        )
    }
}

/// The whole table, followed by the points that are stuck.
pub fn print(rows: &[Row]) -> String {
    let mut text = String::from(
        "| power goes while                       | at                         | points |  tried | recovered | stuck |\n\
         |----------------------------------------|----------------------------|--------|--------|-----------|-------|\n",
    );
    for row in rows {
        text += &format!("{row}\n");
    }
    for row in rows {
        for stuck in &row.stuck {
            text += &format!("\nSTUCK {} / {}: {stuck}", row.scenario, row.kind);
        }
    }
    text
}
