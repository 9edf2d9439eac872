//! A waiting device tries again on schedule, whatever runs in between, and there is always something that will start
//! the next try.
//!
//! Times are by the guest's clock; `Running::haste` makes it run fast while nothing happens.

use std::time::Duration;

use anyhow::{Context, Result};
use image_tests::clients::KeyType;
use image_tests::device::machine::{Machine, Running, Tpm};
use image_tests::doubles::pki::Authority;
use image_tests::faults::network::{CLAIM, Cloud, fleet_settings};
use serde_json::json;

use super::{certificate, flash, is_active, let_in, let_in_as, request, sign};

const ENROLL: &str = "firstboot-enroll.service";
const TIMER: &str = "firstboot-enroll.timer";
const PATH: &str = "firstboot-enroll.path";

/// firstboot-enroll.timer's first five tries, in seconds after the first failure.
const SCHEDULE: [u64; 5] = [10, 30, 60, 120, 300];
const THEN: u64 = 900;
/// How long a try takes in the guest, by its hastened clock.
const LATER: u64 = 25;

/// When enrollment's tries have failed.
fn failures(running: &Running) -> Vec<Duration> {
    let journal = running.journal().of(ENROLL);
    let failed = |result: &str| ["failed", "dependency"].contains(&result);
    journal
        .entries()
        .iter()
        .filter(|entry| entry.started().is_some_and(failed))
        .map(|entry| entry.time())
        .collect()
}

/// Waits until enrollment has failed that many times since the boot.
fn until_failures(running: Running, count: usize) -> Result<Running> {
    let mut left = count - failures(&running).len();
    let mut running = running;
    while left > 0 {
        running = running.until(ENROLL)?;
        left = count.saturating_sub(failures(&running).len());
    }
    Ok(running)
}

/// Timer and path unit are active, and have been since the first failure.
fn somebody_looks(running: &mut Running) -> Result<()> {
    for unit in [TIMER, PATH] {
        assert!(is_active(running, unit)?, "{unit}");
    }
    let journal = running.journal();
    for unit in [
        ENROLL,
        TIMER,
        PATH,
        "firstboot.service",
        "firstboot-again.service",
    ] {
        let of_unit = journal.of(unit);
        for words in ["Stopped", "limit", "start request repeated"] {
            let said = of_unit
                .saying(words)
                .map(|entry| entry.message().to_owned());
            assert_eq!(said, None, "{unit}");
        }
    }
    Ok(())
}

/// A client of ggconfigd's socket that knows nothing of firstboot, such as a component or a person's command. It asks
/// again after so many seconds, and each time makes systemd look at enrollment.
fn a_client_that_does_not_give_up(running: &mut Running, pause: u64) -> Result<()> {
    running
        .succeed(&format!(
            "systemd-run --quiet --unit=client -p Restart=always -p RestartSec={pause} \
             /usr/lib/stand-in/ask-ggconfigd client"
        ))
        .map(drop)
}

#[test]
fn six_tries_follow_the_schedule_and_a_burst_of_files_enrolls() -> Result<()> {
    let authority = Authority::new()?;
    let running = flash("nucleus-lite", &authority)?.boot()?;
    let mut running = running.until("multi-user.target")?;
    a_client_that_does_not_give_up(&mut running, 2)?;
    running.haste(60)?;
    let mut running = until_failures(running, 1 + SCHEDULE.len())?;
    // Every two seconds for a quarter of an hour would be a lot of work for the guest, and show nothing more.
    running.succeed("systemctl stop client.service")?;
    a_client_that_does_not_give_up(&mut running, 60)?;
    let mut running = until_failures(running, 2 + SCHEDULE.len())?;
    running.haste(1)?;

    let tries = failures(&running);
    let first = *tries.first().context("no try")?;
    for (at, due) in tries.iter().skip(1).zip(SCHEDULE) {
        let after = (*at - first).as_secs();
        assert!(
            (due..=due + LATER).contains(&after),
            "{due} s: {after} in {tries:?}"
        );
    }
    let after = (tries[6] - tries[5]).as_secs();
    assert!(
        (THEN..=THEN + LATER).contains(&after),
        "{THEN} s: {after} in {tries:?}"
    );
    eprintln!("tries: {tries:?}");
    somebody_looks(&mut running)?;

    // The certificate is one of thirty files: the first to be created, and the last to be complete.
    let asked = running.succeed(&format!("cat /boot/{}", request()))?;
    let signed = sign(&authority, asked.as_bytes())?;
    let to = format!("/boot/{}", certificate());
    running.succeed(&format!(
        "exec 9>{to}; for i in {{1..29}}; do echo $i >/boot/firstboot/certificates/$i.txt; sleep 0.1; done\n\
         cat >&9 <<'END'\n{signed}END"
    ))?;
    somebody_looks(&mut running)?;
    let mut running = let_in(running)?;
    for unit in ["greengrass-lite.target", "ggl.core.ggconfigd.service"] {
        assert!(is_active(&mut running, unit)?, "{unit}");
    }
    for client in ["client", "TokenExchangeService"] {
        running.wait_for(client, |entry| {
            entry.message() == format!("{client} has its answer")
        })?;
    }
    somebody_looks(&mut running)?;

    // By hand: Greengrass stops and starts again.
    running.succeed("systemctl restart firstboot-enroll.service")?;
    let running = running.until_said("is let in")?;
    running.power_off().map(drop)
}

#[test]
fn a_network_that_comes_after_minutes_is_enough() -> Result<()> {
    let cloud = Cloud::new()?;
    let mut machine = Machine::flash("nucleus-lite")?;
    machine.hardware.broker = Some(cloud.core.port());
    machine.hardware.plugged_in = false;
    let mut settings = fleet_settings("nucleus-lite", KeyType::EccP256, 8883);
    settings["greengrass"]["iot_data_endpoint"] = json!("broker.test");
    let card = &machine.card;
    card.put("firstboot/firstboot.json", settings.to_string())?;
    card.put("firstboot/root-ca.pem", cloud.root.certificate_pem()?)?;
    for (path, pem) in CLAIM.iter().zip(cloud.core.claim()) {
        card.put(path.trim_start_matches("/boot/"), pem)?;
    }

    let mut running = machine.boot()?.until("multi-user.target")?;
    a_client_that_does_not_give_up(&mut running, 5)?;
    running.haste(60)?;
    let mut running = until_failures(running, 4)?;
    somebody_looks(&mut running)?;
    running.haste(1)?;
    running.plug_in()?;
    running.succeed("timeout 60 /usr/lib/systemd/systemd-networkd-wait-online")?;
    assert_eq!(cloud.core.counts().created, 0);
    running.haste(60)?;
    let (running, _) = running.until_entry("the next try", |entry| {
        entry.unit() == "firstboot.service" && entry.message().starts_with("Starting")
    })?;
    running.haste(1)?;
    let running = let_in_as(running, &format!("core-{}", image_tests::device::SERIAL))?;
    running.power_off()?;
    assert_eq!(cloud.core.counts().created, 1);
    Ok(())
}

#[test]
fn a_tpm_that_was_not_ready_is_bound_before_a_later_try() -> Result<()> {
    let authority = Authority::new()?;
    let mut machine = flash("nucleus-lite", &authority)?;
    machine.hardware.tpm = Tpm::Late;
    let mut running = machine.boot()?.until("multi-user.target")?;
    assert_eq!(
        running.journal().started("firstboot.service"),
        Some("failed")
    );
    assert_eq!(running.journal().started(ENROLL), Some("dependency"));
    somebody_looks(&mut running)?;
    let bind = running.journal().of("firstboot-bind.service");
    assert!(
        bind.saying("No driver has started the TPM at c000000.tpm_tis (attempt 1 ")
            .is_some(),
        "{}",
        bind.text()
    );

    // systemd's configuration is reloaded: the timer still waits for a try, which is due within its first two.
    running.succeed("systemctl daemon-reload")?;
    let shown = running.succeed(&format!("systemctl list-timers --no-legend {TIMER}"))?;
    eprintln!("after a reload: {shown}");
    assert!(
        is_active(&mut running, TIMER)? && !shown.starts_with('-'),
        "{shown}"
    );

    // It is ready, and nothing else would make the driver probe again.
    running.succeed("echo >/sys/bus/platform/devices/c000000.tpm_tis/driver_override")?;
    assert_ne!(running.run("test -e /dev/tpmrm0")?.code, 0);
    let running = running.until_said("The kernel has started the TPM at c000000.tpm_tis")?;
    let running = running.until("firstboot.service")?;
    assert_eq!(running.journal().started("firstboot.service"), Some("done"));
    let machine = running.until(ENROLL)?.power_off()?;
    assert!(machine.card.read(&request())?.is_some());
    Ok(())
}
