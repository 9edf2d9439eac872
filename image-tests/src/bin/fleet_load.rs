//! A part of `make fleet`: many devices are powered on together. The environment variables DEVICES and SPREAD (seconds)
//! say how many, and over how long they spread their connections.

use anyhow::{Context, Result};
use image_tests::measure::fleet_load;
use nix::sys::resource::{Resource, getrlimit, setrlimit};

fn main() -> Result<()> {
    // Each device needs some pipes and sockets, and the usual limit is 1024 files.
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, most, most)?;
    let number = |name: &str, usual: usize| {
        std::env::var(name)
            .map_or(Ok(usual), |text| text.parse())
            .context(name.to_owned())
    };
    let figures = fleet_load::run(number("DEVICES", 1000)?, number("SPREAD", 400)? as u64)?;
    println!("{figures}");
    figures.check()
}
