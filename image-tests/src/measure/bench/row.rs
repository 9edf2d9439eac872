//! The rows of the table, and the table as Markdown and JSON.

use serde_json::{Value, json};

/// The unit of a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    Milliseconds,
    Commands,
    Processes,
    Kibibytes,
    Calls,
    Instructions,
    Percent,
}

impl Unit {
    fn name(self) -> &'static str {
        match self {
            Self::Milliseconds => "ms",
            Self::Commands => "TPM commands",
            Self::Processes => "processes",
            Self::Kibibytes => "KiB",
            Self::Calls => "calls",
            Self::Instructions => "instructions",
            Self::Percent => "%",
        }
    }
}

/// What a row should be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Aim {
    /// Ours is at most this.
    AtMost(f64),
    /// Ours is at most this fraction of the peer's.
    Share(f64),
}

/// One of our numbers, and the peer's if there is one.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    pub name: String,
    pub unit: Unit,
    pub ours: f64,
    pub peer: Option<f64>,
    pub aim: Option<Aim>,
}

impl Row {
    pub fn new(name: impl Into<String>, unit: Unit, ours: f64) -> Self {
        Self {
            name: name.into(),
            unit,
            ours,
            peer: None,
            aim: None,
        }
    }

    pub fn beside(self, peer: f64) -> Self {
        Self {
            peer: Some(peer),
            ..self
        }
    }

    pub fn aim(self, aim: Aim) -> Self {
        Self {
            aim: Some(aim),
            ..self
        }
    }

    /// The peer's number as a multiple of ours; `None` if ours is zero.
    fn ratio(&self) -> Option<f64> {
        self.peer
            .map(|peer| peer / self.ours)
            .filter(|ratio| ratio.is_finite())
    }

    /// Whether the aim is met; `None` if there is no aim.
    pub fn is_met(&self) -> Option<bool> {
        Some(match self.aim? {
            Aim::AtMost(most) => self.ours <= most,
            Aim::Share(share) => self.ours <= share * self.peer?,
        })
    }

    pub fn json(&self) -> Value {
        json!({
            "name": self.name,
            "unit": self.unit.name(),
            "ours": self.ours,
            "peer": self.peer,
            "ratio": self.ratio(),
            "aim_met": self.is_met(),
        })
    }
}

/// The table, as Markdown.
pub fn print(rows: &[Row]) -> String {
    let mut lines = vec![
        "| what | unit | firstboot | today's recipe | ratio | aim |".to_owned(),
        "|---|---|---|---|---|---|".to_owned(),
    ];
    for row in rows {
        let aim = match (row.aim, row.is_met()) {
            (Some(Aim::AtMost(most)), Some(met)) => {
                format!("≤ {} {}", number(most), verdict(met))
            }
            (Some(Aim::Share(share)), Some(met)) => {
                format!("≤ 1/{} {}", number(1.0 / share), verdict(met))
            }
            _ => String::new(),
        };
        lines.push(format!(
            "| {} | {} | {} | {} | {} | {aim} |",
            row.name,
            row.unit.name(),
            number(row.ours),
            row.peer.map_or_else(String::new, number),
            row.ratio()
                .map_or_else(String::new, |ratio| format!("1 : {}", number(ratio))),
        ));
    }
    lines.join("\n")
}

fn verdict(met: bool) -> &'static str {
    if met { "✓" } else { "**missed**" }
}

/// With three significant digits.
fn number(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 || value.fract() == 0.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

/// The median; of an even number of values, the lower of the two middle ones.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[(values.len() - 1) / 2]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn aims_are_met_or_missed() {
        let row = Row::new("x", Unit::Commands, 50.0).beside(1000.0);
        assert_eq!(row.is_met(), None);
        assert_eq!(row.clone().aim(Aim::AtMost(50.0)).is_met(), Some(true));
        assert_eq!(row.clone().aim(Aim::AtMost(48.0)).is_met(), Some(false));
        assert_eq!(row.clone().aim(Aim::Share(1.0 / 20.0)).is_met(), Some(true));
        assert_eq!(row.aim(Aim::Share(1.0 / 21.0)).is_met(), Some(false));
    }

    #[test]
    fn a_median_is_one_of_the_values() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), 2.0);
    }

    #[test]
    fn the_table_says_what_was_missed() {
        let rows = [Row::new("commands", Unit::Commands, 54.0)
            .beside(146.0)
            .aim(Aim::AtMost(48.0))];
        let table = print(&rows);
        assert!(
            table.ends_with("| commands | TPM commands | 54 | 146 | 1 : 2.70 | ≤ 48 **missed** |"),
            "{table}"
        );
    }
}
