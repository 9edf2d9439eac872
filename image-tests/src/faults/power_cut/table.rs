//! The table of a sweep's results.

use std::fmt;

use super::Kind;
use crate::clients::KeyType;

/// One scenario with one key under one kind of cut.
#[derive(Debug)]
pub struct Row {
    pub scenario: &'static str,
    pub key: KeyType,
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

/// A line of progress.
impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            scenario,
            key,
            kind,
            ..
        } = self;
        let (points, key, stuck) = (self.points(), key.name(), self.stuck.len());
        write!(
            f,
            "{scenario}, {key}, {kind}: {points} points, {stuck} stuck"
        )
    }
}

/// The whole table, a line a scenario with a number for each of its keys, followed by the points that are stuck.
pub fn print(rows: &[Row]) -> String {
    let mut text = line("power goes while", &Kind::ALL.map(|kind| kind.to_string()));
    text += &line("---", &Kind::ALL.map(|_| "---".to_owned()));
    for of_scenario in rows.chunk_by(|one, other| one.scenario == other.scenario) {
        let points = Kind::ALL.map(|kind| {
            let of_kind = of_scenario.iter().filter(|row| row.kind == kind);
            of_kind.map(Row::points).collect::<Vec<_>>().join(" / ")
        });
        text += &line(of_scenario[0].scenario, &points);
    }
    for row in rows {
        for stuck in &row.stuck {
            let Row { scenario, kind, .. } = row;
            text += &format!("\nSTUCK {scenario}, {}, {kind}: {stuck}", row.key.name());
        }
    }
    text
}

fn line(scenario: &str, cells: &[String]) -> String {
    format!("| {scenario} | {} |\n", cells.join(" | "))
}
