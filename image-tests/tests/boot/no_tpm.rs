//! Machines whose TPM is missing, not found or broken boot all the same, and say what is wrong.

use anyhow::Result;
use image_tests::device::machine::{Hardware, Machine, Overlay, Running, Tpm};
use image_tests::doubles::pki::Authority;

use super::flash;

/// EX_UNAVAILABLE: no TPM.
const NO_TPM: &str = "69";

/// Boots, and checks what is the same for all of them. Returns firstboot's messages, on the console and on the card.
fn boot(machine: Machine) -> Result<(Running, String)> {
    let mut running = machine.boot()?.until("multi-user.target")?;
    let journal = running.journal();
    assert_eq!(journal.started("firstboot.service"), Some("failed"));
    assert_eq!(
        journal.started("firstboot-enroll.service"),
        Some("dependency")
    );
    assert_eq!(
        journal.started("ggl.core.iotcored.service"),
        Some("dependency")
    );
    let status = running.succeed("systemctl show --value -p ExecMainStatus firstboot.service")?;
    assert_eq!(status.trim_end(), NO_TPM);
    let said = running.succeed("jq -r .message /boot/firstboot/status.json")?;
    let on_console = running.machine().console()?;
    let beginning = said.split(':').next().unwrap_or_default();
    assert!(
        on_console.contains(beginning),
        "the console does not say {beginning:?}:\n{on_console}"
    );
    Ok((running, said))
}

/// There is no device node, and the messages have these words.
fn without_device_node(change: impl FnOnce(&mut Hardware), words: &str) -> Result<()> {
    let mut machine = flash("nucleus-lite", &Authority::new()?)?;
    change(&mut machine.hardware);
    let (mut running, said) = boot(machine)?;
    assert_ne!(running.run("test -e /dev/tpmrm0")?.code, 0);
    assert!(said.contains(words), "{said}");
    running.power_off()?;
    Ok(())
}

#[test]
fn without_a_tpm_it_boots_and_says_so() -> Result<()> {
    let words = "does config.txt load the overlay";
    without_device_node(|board| board.tpm = Tpm::Absent, words)
}

#[test]
fn with_the_wrong_overlay_it_boots_and_says_so() -> Result<()> {
    let words = "a TPM without a driver (atmel,attpm20p)";
    without_device_node(|board| board.overlay = Overlay::Wrong, words)
}

/// The kernel's driver gives up on such a TPM.
#[test]
fn with_a_tpm_in_failure_mode_it_boots_and_says_so() -> Result<()> {
    let words = "It may be in failure mode";
    without_device_node(|board| board.tpm = Tpm::Broken, words)
}
