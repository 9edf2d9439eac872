//! `make bench`: firstboot's cost compared with the recipe that people follow today. Prints one table, and writes
//! target/bench.json. The environment variables PAIRS and CYCLES change the defaults of 7 and 1000; PARTS selects
//! parts, such as PARTS="idle growth".

use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result};
use image_tests::clients::KeyType;
use image_tests::device::firstboot;
use image_tests::measure::bench::{Row, boot, footprint, growth, idle, pairs, row};

type Part = Box<dyn Fn() -> Result<Vec<Row>>>;

fn main() -> Result<()> {
    let number = |name, default: usize| match std::env::var(name) {
        Ok(text) => text
            .parse()
            .with_context(|| format!("{name} is not a number")),
        Err(_) => Ok(default),
    };
    let (count, cycles) = (number("PAIRS", 7)?, number("CYCLES", 1000)?);
    let parts: [(&str, Part); 7] = [
        (
            "ecc",
            Box::new(move || pairs::rows(KeyType::EccP256, count, 1.0 / 20.0)),
        ),
        (
            "rsa",
            Box::new(move || pairs::rows(KeyType::Rsa2048, count, 1.0 / 12.0)),
        ),
        ("idle", Box::new(|| idle::rows(100))),
        ("boot", Box::new(boot::rows)),
        ("footprint", Box::new(footprint_rows)),
        ("growth", Box::new(move || growth::provisioning(cycles))),
        ("status", Box::new(|| growth::status(20))),
    ];
    let wanted = std::env::var("PARTS").ok();
    let is_wanted = |name: &str| match &wanted {
        Some(names) => names.split_whitespace().any(|wanted| wanted == name),
        None => true,
    };
    let mut rows: Vec<Row> = Vec::new();
    for (name, part) in parts {
        if is_wanted(name) {
            let start = Instant::now();
            rows.extend(part()?);
            eprintln!("bench: {name}, {:.0} s", start.elapsed().as_secs_f64());
        }
    }
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

fn footprint_rows() -> Result<Vec<Row>> {
    let aarch64 = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/guest/firstboot");
    footprint::rows(
        &firstboot()?,
        Some(aarch64.as_path()).filter(|p| p.exists()),
    )
}
