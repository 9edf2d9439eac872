//! `make fleet`, in part: many devices are powered on together. DEVICES and SPREAD (seconds) in the environment
//! say how many, and over how long they spread themselves.

use anyhow::{Context, Result};
use image_tests::measure::fleet_load;
use nix::sys::resource::{Resource, getrlimit, setrlimit};

fn main() -> Result<()> {
    // A device has some pipes and sockets here, and 1024 files are a usual limit.
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
