//! `make bench`: what firstboot costs, beside the recipe that people follow today; one table, and
//! target/bench.json. PAIRS and CYCLES in the environment for other numbers than 7 and 1000.

use std::path::Path;

use anyhow::{Context, Result};
use image_tests::bench::{Row, footprint, growth, idle, pairs, row};
use image_tests::clients::KeyType;
use image_tests::device::firstboot;

fn main() -> Result<()> {
    let number = |name, default: usize| match std::env::var(name) {
        Ok(text) => text.parse().with_context(|| format!("{name} is no number")),
        Err(_) => Ok(default),
    };
    let (count, cycles) = (number("PAIRS", 7)?, number("CYCLES", 1000)?);
    let mut rows: Vec<Row> = Vec::new();
    let mut add = |what: &str, part: Vec<Row>| {
        eprintln!("bench: {what}");
        rows.extend(part);
    };
    add(
        "first boots, ECC",
        pairs::rows(KeyType::EccP256, count, 1.0 / 20.0)?,
    );
    add(
        "first boots, RSA",
        pairs::rows(KeyType::Rsa2048, count, 1.0 / 12.0)?,
    );
    add("nothing to do", idle::rows(50)?);
    let aarch64 = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/guest/firstboot");
    add(
        "footprint",
        footprint::rows(
            &firstboot()?,
            Some(aarch64.as_path()).filter(|p| p.exists()),
        )?,
    );
    add("growth", growth::provisioning(cycles)?);
    add("status", growth::status(20)?);
    println!("{}", row::print(&rows));
    let json: Vec<_> = rows.iter().map(Row::json).collect();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/bench.json");
    std::fs::write(&path, serde_json::to_string_pretty(&json)? + "\n")
        .with_context(|| format!("cannot write {}", path.display()))?;
    let missed: Vec<&str> = rows
        .iter()
        .filter(|row| row.is_met() == Some(false))
        .map(|row| row.name.as_str())
        .collect();
    eprintln!(
        "bench: aims missed: {}",
        if missed.is_empty() {
            "none".into()
        } else {
            missed.join("; ")
        }
    );
    Ok(())
}
