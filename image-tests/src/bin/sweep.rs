//! `make sweep`: the power is cut at every point of everything that firstboot does. Prints the table, and
//! exits non-zero if anything is stuck. `sweep EACH [SEED]` tries only so many points of each row.

use anyhow::{Result, ensure};
use image_tests::sweep::{self, Sample};

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let sample = match arguments.next() {
        None => Sample::All,
        Some(each) => Sample::Drawn {
            each: each.parse()?,
            seed: arguments.next().map_or(Ok(1), |seed| seed.parse())?,
        },
    };
    let rows = sweep::run(sample, |row| eprintln!("{row}"))?;
    println!("{}", sweep::print(&rows));
    let stuck: usize = rows.iter().map(|row| row.stuck.len()).sum();
    ensure!(stuck == 0, "{stuck} points are stuck");
    Ok(())
}
