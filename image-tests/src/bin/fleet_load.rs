//! A part of `make fleet`: many devices are powered on together and enroll; later, all of them renew. The environment
//! variables DEVICES, SPREAD and WINDOW (seconds) say how many, over how long they spread their first connections, and
//! into how long the hour of firstboot-renew.timer is compressed.

use std::time::Duration;

use anyhow::{Context, Result};
use image_tests::measure::fleet_load::{self, Load};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

fn main() -> Result<()> {
    // Each device needs some pipes and sockets, and the usual limit is 1024 files.
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, most, most)?;
    let number = |name: &str, usual: u64| {
        std::env::var(name)
            .map_or(Ok(usual), |text| text.parse())
            .context(name.to_owned())
    };
    let load = Load {
        devices: number("DEVICES", 1000)? as usize,
        spread: number("SPREAD", 400)?,
        spread_later: None,
        window: Duration::from_secs(number("WINDOW", 400)?),
    };
    let figures = fleet_load::run(load)?;
    let [enrolled, renewed] = &figures;
    println!("enrollment, spread over {} s\n\n{enrolled}\n", load.spread);
    println!("renewal, looks within {:?}\n\n{renewed}", load.window);
    fleet_load::check(&figures)
}
