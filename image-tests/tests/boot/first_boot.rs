//! From the first boot to every later one, with the certificate carried to the card by hand.

use std::time::Duration;

use anyhow::{Context, Result};
use image_tests::device::machine::{Machine, Running};
use image_tests::doubles::pki::Authority;
use image_tests::measure::exposure::{MOST_EXPOSED, exposure};

use super::boot_partition::CHECK;
use super::{certificate, flash, is_active, let_in, request, sign, thing};

const GREENGRASS: &str = "ggl.core.iotcored.service";
const ENROLL: &str = "firstboot-enroll.service";

#[test]
fn a_device_becomes_a_core_device_and_stays_one() -> Result<()> {
    let authority = Authority::new()?;
    let machine = the_first_boot(flash("nucleus-lite", &authority)?)?;
    let request = machine.card.read(&request())?.context("no request")?;
    machine
        .card
        .put(&certificate(), sign(&authority, &request)?)?;
    let machine = the_boot_with_the_certificate(machine)?;
    let machine = a_later_boot(machine)?;
    let machine = a_later_boot(machine)?;
    let tpm = machine.tpm()?;
    assert_eq!(tpm.persistent_handles()?, [0x8100_0001]);
    assert_eq!(tpm.lockout_counter()?, 0);
    Ok(())
}

/// The request is on the card, Greengrass does not start, and both units and the console say what the device waits for.
fn the_first_boot(machine: Machine) -> Result<Machine> {
    let mut running = machine.boot()?.until("multi-user.target")?;
    let journal = running.journal();
    assert_eq!(journal.started("firstboot.service"), Some("done"));
    assert_eq!(journal.started(ENROLL), Some("failed"));
    assert_eq!(journal.started(GREENGRASS), Some("dependency"));
    assert!(!is_active(&mut running, GREENGRASS)?);
    // It would have to be stopped before anything could start it with its daemons.
    assert!(!is_active(&mut running, "greengrass-lite.target")?);
    assert!(journal.of(GREENGRASS).saying("has started").is_none());
    // 75 is the documented status of a device that waits.
    assert_eq!(running.property(ENROLL, "ExecMainStatus")?, "75");
    let failed =
        running.succeed("systemctl list-units --failed --plain --no-legend | cut -d' ' -f1")?;
    assert_eq!(failed, format!("{ENROLL}\n"), "these units have failed");
    let node = running.succeed("stat -c '%a %U:%G' /dev/tpm0 /dev/tpmrm0")?;
    assert_eq!(node, "660 tss:root\n660 tss:tss\n");

    let machine = running.power_off()?;
    let status: serde_json::Value =
        serde_json::from_str(&machine.card.read_text("firstboot/status.json")?)?;
    assert_eq!(status["state"], "AwaitingCertificate");
    let awaited = format!("certificates/{}.pem", thing());
    assert!(
        status["message"]
            .as_str()
            .unwrap_or_default()
            .contains(&awaited),
        "{status}"
    );
    let console = machine.console()?;
    assert!(
        console.contains(&awaited),
        "the console does not say what is awaited:\n{console}"
    );
    Ok(machine)
}

/// First the identity and the configuration, then Greengrass, which the broker accepts.
fn the_boot_with_the_certificate(machine: Machine) -> Result<Machine> {
    let mut running = machine.boot()?.until("multi-user.target")?;
    running = let_in(running)?;
    let journal = running.journal();
    assert_eq!(journal.started(ENROLL), Some("done"));
    assert_eq!(journal.started(GREENGRASS), Some("done"));
    let enrolled = journal
        .of(ENROLL)
        .entries()
        .iter()
        .find(|r| r.started().is_some())
        .map(|r| r.time());
    let started = journal
        .of(GREENGRASS)
        .saying("has started")
        .map(|r| r.time());
    assert!(
        enrolled < started && enrolled.is_some(),
        "{enrolled:?}, then {started:?}"
    );
    files_are_whose_they_should_be(&mut running)?;
    an_ordinary_user_learns_nothing(&mut running)?;
    the_sandbox_is_what_it_was(&mut running)?;
    running.power_off()
}

fn files_are_whose_they_should_be(running: &mut Running) -> Result<()> {
    let found = running.succeed(
        // The library's lock files in /run come and go.
        "find /var/lib/tpm2_pkcs11* /etc/greengrass /run/tpm2_pkcs11/* /run/firstboot /usr/bin/firstboot \
         -not -path '/run/tpm2_pkcs11/*/*' -printf '%m %u:%g %p\\n' | LC_ALL=C sort -k 3",
    )?;
    assert_eq!(found, EXPECTED_FILES);
    Ok(())
}

/// Mode, owner and path of everything that firstboot has created, and of firstboot.
const EXPECTED_FILES: &str = "\
755 root:root /etc/greengrass
755 root:root /etc/greengrass/config.d
644 root:root /etc/greengrass/config.yaml
644 root:root /etc/greengrass/openssl.cnf
644 root:root /etc/greengrass/root-ca.pem
700 root:root /run/firstboot
600 root:root /run/firstboot/lock
700 ggcore:ggcore /run/tpm2_pkcs11/ggcore
700 root:root /run/tpm2_pkcs11/root
755 root:root /usr/bin/firstboot
750 root:ggcore /var/lib/tpm2_pkcs11
440 root:ggcore /var/lib/tpm2_pkcs11/certificate.pem
440 root:ggcore /var/lib/tpm2_pkcs11/configured
440 root:ggcore /var/lib/tpm2_pkcs11/device.csr.pem
440 root:ggcore /var/lib/tpm2_pkcs11/pin
440 root:ggcore /var/lib/tpm2_pkcs11/request.json
440 root:ggcore /var/lib/tpm2_pkcs11/srk.name
440 root:ggcore /var/lib/tpm2_pkcs11/tpm2_pkcs11.sqlite3
";

fn an_ordinary_user_learns_nothing(running: &mut Running) -> Result<()> {
    let as_operator = "setpriv --reuid=visitor --regid=visitor --clear-groups --";
    for secret in [
        "/var/lib/tpm2_pkcs11/pin",
        "/var/lib/tpm2_pkcs11/tpm2_pkcs11.sqlite3",
    ] {
        assert_eq!(
            running.run(&format!("test -s {secret}"))?.code,
            0,
            "{secret} is there"
        );
        let read = running.run(&format!("{as_operator} cat {secret}"))?;
        assert_ne!(read.code, 0);
        assert!(read.stdout.contains("Permission denied"), "{}", read.stdout);
    }
    // The PIN is not in the journal either, part of which is on the console.
    let pin = running.succeed("cat /var/lib/tpm2_pkcs11/pin")?;
    assert!(pin.trim_end().len() >= 22, "a PIN is there");
    assert!(running.journal().saying(pin.trim_end()).is_none());
    Ok(())
}

/// As systemd sees it in the running guest.
fn the_sandbox_is_what_it_was(running: &mut Running) -> Result<()> {
    for (unit, most) in MOST_EXPOSED {
        let report = running.succeed(&format!("systemd-analyze security --no-pager {unit}"))?;
        let level = exposure(&report)?;
        eprintln!("systemd-analyze security {unit}: {level}");
        assert!(level <= most, "{unit}: {level}");
    }
    Ok(())
}

/// Greengrass starts, nothing is written, and only Greengrass logs into the token. firstboot runs once.
fn a_later_boot(machine: Machine) -> Result<Machine> {
    assert!(!machine.card.is_fat_marked()?);
    let before = Written::on(&machine)?;
    let mut running = machine.boot()?.until("multi-user.target")?;
    running = let_in(running)?;
    let journal = running.journal();
    for unit in [ENROLL, GREENGRASS] {
        assert_eq!(journal.started(unit), Some("done"), "{unit}");
    }
    for unit in ["firstboot.service", CHECK] {
        let started = running.moment(unit, "InactiveExit")?;
        assert_eq!(started, Duration::ZERO, "{unit} was started");
        let skipped = running.property(unit, "ConditionResult")?;
        assert_eq!(skipped, "no", "{unit} was not asked for");
    }
    let boot = running.moment("multi-user.target", "ActiveEnter")?;
    let took = running.start_of(ENROLL)?;
    let share = took.as_secs_f64() / boot.as_secs_f64();
    eprintln!("{ENROLL}: {took:?} of a boot of {boot:?}");
    assert!(share < 0.25, "{ENROLL} takes {share} of the boot");
    let machine = running.power_off()?;
    assert_eq!(Written::on(&machine)?, before);
    Ok(machine)
}

/// Everything that firstboot writes, with inodes and times, as the card has it.
#[derive(Debug, PartialEq)]
struct Written(Vec<String>);

impl Written {
    fn on(machine: &Machine) -> Result<Self> {
        let places = ["/var/lib/tpm2_pkcs11", "/var/lib", "/etc/greengrass"];
        let lists = places.map(|place| machine.card.list_ext4(place));
        let mut all: Vec<String> = lists.into_iter().collect::<Result<_>>()?;
        all.push(machine.card.list_fat("firstboot")?);
        Ok(Self(all))
    }
}
