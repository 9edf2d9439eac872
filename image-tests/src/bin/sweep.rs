//! `make sweep`: the power is cut at every point of everything that firstboot does. Prints the table, and fails if
//! anything is stuck. The environment variable EACH limits it to so many points of each row, drawn with SEED; SCENARIO
//! to the rows with this in their name, such as "enroll, rsa".

use anyhow::{Context, Result, ensure};
use image_tests::faults::power_cut::{self, Sample};

fn main() -> Result<()> {
    let variable = |name| std::env::var(name).ok();
    let sample = match variable("EACH") {
        None => Sample::All,
        Some(each) => Sample::Drawn {
            each: each.parse().context("EACH is not a number")?,
            seed: variable("SEED")
                .map_or(Ok(1), |seed| seed.parse())
                .context("SEED is not a number")?,
        },
    };
    let only = variable("SCENARIO").unwrap_or_default();
    let rows = power_cut::run(sample, &only, |row| eprintln!("{row}"))?;
    println!("{}", power_cut::print(&rows));
    let stuck: usize = rows.iter().map(|row| row.stuck.len()).sum();
    ensure!(stuck == 0, "{stuck} points are stuck");
    Ok(())
}
