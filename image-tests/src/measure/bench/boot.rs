//! What a boot pays in the guest, by the guest's own clock, which counts its instructions: the first, and a later one
//! with nothing to do.

use std::time::Duration;

use anyhow::{Context, Result};

use super::row::{Aim, Row, Unit};
use crate::clients::KeyType;
use crate::device::machine::{Machine, Running};
use crate::device::{SERIAL, offline_settings};
use crate::doubles::pki::Authority;

const PROVISION: &str = "firstboot.service";
const ENROLL: &str = "firstboot-enroll.service";
const GREENGRASS: &str = "ggl.core.iotcored.service";
/// The units that start before Greengrass.
const UNITS: [&str; 3] = [
    // By the UUID that the guest's fstab has.
    r"firstboot-fsck@dev-disk-by\x2duuid-2661\x2d8777.service",
    PROVISION,
    ENROLL,
];

/// The rows. Needs the files that `guest/build` makes.
pub fn rows() -> Result<Vec<Row>> {
    let authority = Authority::new()?;
    let machine = Machine::flash("nucleus-lite")?;
    let settings = offline_settings("nucleus-lite", KeyType::EccP256);
    machine.card.prepare(&settings, &authority)?;
    let mut running = machine.boot()?.until("multi-user.target")?;
    let requested = running.moment(PROVISION, "ExecMainExit")?;
    let running = certify(running, &authority)?;
    let begin = running.wait_for("the certificate", |entry| {
        entry.unit() == "firstboot-again.service"
    })?;
    let end = running.wait_for("Greengrass", |entry| {
        entry.unit() == GREENGRASS && entry.started() == Some("done")
    })?;
    let started = end.time().saturating_sub(begin.time());

    let mut running = running.power_off()?.boot()?.until("multi-user.target")?;
    let mut rows = vec![
        row(
            "first boot in the guest: power-on to the request",
            requested,
        ),
        row(
            "… certificate on the running device to Greengrass's start",
            started,
        ),
    ];
    let generator = generator(&mut running)?;
    let (mut added, mut processor) = (generator, generator);
    rows.push(row(
        "later boot in the guest: firstboot-generator",
        generator,
    ));
    for unit in UNITS {
        let took = running.start_of(unit)?;
        added += took;
        processor += running.processor_time_of(unit)?;
        let name = unit.split_once('@').map_or(unit, |(name, _)| name);
        rows.push(row(&format!("… {name}"), took));
    }
    rows.push(row("… added, before Greengrass", added).aim(Aim::AtMost(120.0)));
    rows.push(row("… of it, processor time", processor));
    let all = running.moment("multi-user.target", "ActiveEnter")?;
    rows.push(row("… power-on to multi-user.target", all));
    running.power_off()?;
    Ok(rows)
}

fn row(name: &str, took: Duration) -> Row {
    Row::new(name, Unit::Milliseconds, took.as_secs_f64() * 1000.0)
}

/// The operator signs the request, and puts the certificate onto the running device's boot partition.
fn certify(mut running: Running, authority: &Authority) -> Result<Running> {
    let thing = format!("gateway-{SERIAL}");
    let asked = running.succeed(&format!("cat /boot/firstboot/requests/{thing}.csr.pem"))?;
    let request = tempfile::NamedTempFile::new()?;
    std::fs::write(request.path(), asked)?;
    let certificate = authority.sign(request.path())?;
    let path = format!("/boot/firstboot/certificates/{thing}.pem");
    running.put(&path, &certificate)?;
    running.until(GREENGRASS)
}

/// How long the generator takes: the mean of ten runs. It has no unit of its own.
fn generator(running: &mut Running) -> Result<Duration> {
    let microseconds = running.succeed(
        "cd $(mktemp -d); begin=${EPOCHREALTIME/./}; for i in {1..10}; do
         /usr/lib/systemd/system-generators/firstboot-generator $i; done; echo $(((${EPOCHREALTIME/./} - begin) / 10))",
    )?;
    let microseconds = microseconds.trim_end().parse().context("no time")?;
    Ok(Duration::from_micros(microseconds))
}
