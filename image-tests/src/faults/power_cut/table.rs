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

impl Row {
    /// The number of points, and how many of them were tried if that is not all.
    fn points(&self) -> String {
        match self.tried {
            all if all == self.of => all.to_string(),
            some => format!("{some} of {}", self.of),
        }
    }
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

/// The whole table, a line a scenario, followed by the points that are stuck.
pub fn print(rows: &[Row]) -> String {
    let mut text = line(
        "power goes while",
        &Kind::ALL.map(|kind| kind.to_string()),
        "stuck",
    );
    text += &line(
        &"-".repeat(SCENARIO),
        &["---:"; 5].map(String::from),
        "---:",
    );
    for of_scenario in rows.chunk_by(|one, other| one.scenario == other.scenario) {
        let points = Kind::ALL.map(|kind| {
            let row = of_scenario.iter().find(|row| row.kind == kind);
            row.map_or("-".to_owned(), Row::points)
        });
        let stuck: usize = of_scenario.iter().map(|row| row.stuck.len()).sum();
        text += &line(&of_scenario[0].scenario, &points, &stuck.to_string());
    }
    for row in rows {
        for stuck in &row.stuck {
            text += &format!("\nSTUCK {} / {}: {stuck}", row.scenario, row.kind);
        }
    }
    text
}

/// The width of the longest scenario's name.
const SCENARIO: usize = 38;

fn line(scenario: &str, cells: &[String], last: &str) -> String {
    format!(
        "| {scenario:<SCENARIO$} | {} | {last} |\n",
        cells.join(" | ")
    )
}
