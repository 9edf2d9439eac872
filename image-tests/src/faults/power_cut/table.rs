//! The table that a sweep prints.

use std::fmt;

use super::Kind;

/// One scenario under one kind of cut.
#[derive(Debug)]
pub struct Row {
    pub scenario: String,
    pub kind: Kind,
    /// Points that there are.
    pub of: usize,
    /// Points that were tried.
    pub tried: usize,
    /// What was wrong afterwards, one entry for each point that did not recover.
    pub stuck: Vec<String>,
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "| {:<31} | {:<26} | {:>6} | {:>6} | {:>9} | {:>5} |",
            self.scenario,
            self.kind.to_string(),
            self.of,
            self.tried,
            self.tried - self.stuck.len(),
            self.stuck.len()
        )
    }
}

/// The whole table, and below it what is stuck.
pub fn print(rows: &[Row]) -> String {
    let mut text = String::from(
        "| power goes while                | at                         | points |  tried | recovered | stuck |\n\
         |---------------------------------|----------------------------|--------|--------|-----------|-------|\n",
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
