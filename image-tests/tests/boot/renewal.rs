//! A running device accepts a new certificate as soon as it is there. The time that this costs Greengrass is by the
//! guest's own clock.

use anyhow::{Context, Result};
use image_tests::device::machine::Running;
use image_tests::doubles::pki::Authority;

use super::{certificate, certify, flash, let_in, request, sign, thing};

const RENEW: &str = "firstboot-renew.service";
const ACCEPTED: &str = "/var/lib/tpm2_pkcs11/certificate.pem";

/// Enrolled, and with Greengrass at its broker.
fn in_service(edition: &str, authority: &Authority) -> Result<Running> {
    let mut running = flash(edition, authority)?
        .boot()?
        .until("multi-user.target")?;
    certify(&mut running, authority)?;
    let_in(running)
}

/// The ID of a unit's current start.
fn invocation(running: &mut Running, unit: &str) -> Result<String> {
    running.succeed(&format!("systemctl show --value -p InvocationID {unit}"))
}

/// A certificate for another key is refused, and the device keeps running as it is.
fn refuses_anothers(running: &mut Running, authority: &Authority, daemon: &str) -> Result<()> {
    let before = invocation(running, daemon)?;
    let accepted = running.succeed(&format!("cat {ACCEPTED}"))?;
    let another = authority.certificate_of_another_key(&thing())?;
    running.put(&format!("/boot/{}", certificate()), &another)?;
    running.wait_for("the refusal", |record| {
        record.unit() == RENEW && record.message().contains("a new certificate is refused")
    })?;
    assert_eq!(running.succeed(&format!("cat {ACCEPTED}"))?, accepted);
    assert_eq!(invocation(running, daemon)?, before);
    Ok(())
}

/// The new certificate is the last of thirty files, made first and complete when the others are.
fn renew(running: &mut Running, authority: &Authority) -> Result<()> {
    let asked = running.succeed(&format!("cat /boot/{}", request()))?;
    let signed = sign(authority, asked.as_bytes())?;
    let to = format!("/boot/{}", certificate());
    running.succeed(&format!(
        "exec 9>{to}; for i in {{1..29}}; do echo $i >/boot/firstboot/certificates/$i.txt; sleep 0.1; done\n\
         cat >&9 <<'END'\n{signed}END"
    ))?;
    running.succeed(&format!(
        "timeout 60 bash -c 'until [ \"$(cat {to})\" = \"$(cat {ACCEPTED})\" ]; do sleep 0.2; done'"
    ))?;
    Ok(())
}

#[track_caller]
fn assert_nothing_failed(running: &mut Running) -> Result<()> {
    let failed = running.succeed("systemctl list-units --failed --no-legend 'firstboot*'")?;
    assert_eq!(failed.trim(), "");
    Ok(())
}

/// The file is replaced, and no unit restarts.
#[test]
fn nucleus_lite_keeps_running() -> Result<()> {
    const DAEMON: &str = "ggl.core.iotcored.service";
    const ENROLL: &str = "firstboot-enroll.service";
    let authority = Authority::new()?;
    let mut running = in_service("nucleus-lite", &authority)?;
    refuses_anothers(&mut running, &authority, DAEMON)?;
    let mut before = Vec::new();
    for unit in [DAEMON, ENROLL] {
        before.push(invocation(&mut running, unit)?);
    }
    renew(&mut running, &authority)?;
    // The unit has finished, and had nothing more to do.
    running.succeed(&format!("systemctl start {RENEW}"))?;
    for (unit, before) in [DAEMON, ENROLL].into_iter().zip(before) {
        assert_eq!(invocation(&mut running, unit)?, before, "{unit}");
    }
    // Its next connection.
    running.succeed(&format!("systemctl restart {DAEMON}"))?;
    let mut running = let_in(running)?;
    assert_nothing_failed(&mut running)?;
    running.power_off().map(drop)
}

/// Greengrass stops, the token is written, Greengrass starts.
#[test]
fn the_nucleus_is_restarted() -> Result<()> {
    const DAEMON: &str = "greengrass.service";
    let authority = Authority::new()?;
    let mut running = in_service("nucleus", &authority)?;
    refuses_anothers(&mut running, &authority, DAEMON)?;
    let before = invocation(&mut running, DAEMON)?;
    renew(&mut running, &authority)?;
    let mut running = let_in(running)?;
    assert_ne!(invocation(&mut running, DAEMON)?, before);

    let journal = running.journal();
    let time_of = |unit: &str, words: &str| {
        let of_unit = journal.of(unit);
        let mut latest = of_unit.entries().iter().rev();
        let found = latest.find(|record| record.message().contains(words));
        found
            .map(|record| record.time())
            .with_context(|| format!("{unit}: {words}"))
    };
    let stops = time_of(DAEMON, "Stopping")?;
    let stopped = time_of(DAEMON, "Stopped")?;
    let filled = time_of("firstboot-enroll.service", "storing the certificate")?;
    let starts = time_of(DAEMON, "greengrass has started")?;
    let back = time_of(DAEMON, "is let in")?;
    assert!(stopped < filled && filled < starts, "{}", journal.text());
    eprintln!(
        "without Greengrass: {:.2} s; of this, until it starts: {:.2} s",
        (back - stops).as_secs_f64(),
        (starts - stops).as_secs_f64()
    );
    assert_nothing_failed(&mut running)?;
    running.power_off().map(drop)
}
