//! A boot with nothing to do: a few TPM commands, no PKCS#11 library, no login, nothing written.

use anyhow::Result;
use image_tests::authority::Authority;
use image_tests::device::Device;
use image_tests::proxy::{Options, Proxy};

use crate::usual;

/// What the design promises, and a third party's programs must not spoil.
const MOST_COMMANDS: usize = 4;

#[track_caller]
fn assert_is_idle(device: &mut Device, command: &str) -> Result<()> {
    let proxy = Proxy::start(device.tpm.upstream(), Options::default())?;
    device.tcti = Some(proxy.tcti());
    let before = device.snapshot()?;
    device.succeed(&[command])?;
    before.assert_same(&device.snapshot()?);
    let commands = proxy.take_journal().names();
    assert!(commands.len() <= MOST_COMMANDS, "{command}: {commands:?}");
    assert!(!commands.is_empty(), "{command}: the proxy saw nothing");
    device.tcti = None;

    let log = tempfile::NamedTempFile::new()?;
    let firstboot = device.firstboot(&[command])?;
    let mut strace = std::process::Command::new("strace");
    strace
        .args(["-f", "-e", "trace=execve,openat,open", "-o"])
        .arg(log.path());
    strace
        .arg(firstboot.get_program())
        .args(firstboot.get_args());
    image_tests::process::succeed(&mut strace)?;
    let opened = std::fs::read_to_string(log.path())?;
    assert!(
        opened.contains("libtss2-esys"),
        "strace shows no libraries: {opened}"
    );
    assert!(
        !opened.contains("libtpm2_pkcs11"),
        "{command} loaded the PKCS#11 library"
    );
    Ok(())
}

#[test]
fn while_the_certificate_is_awaited() -> Result<()> {
    let mut device = usual()?;
    device.succeed(&["provision"])?;
    assert_is_idle(&mut device, "provision")
}

#[test]
fn when_all_is_done() -> Result<()> {
    let mut device = usual()?;
    device.enroll_with(&Authority::new()?)?;
    assert_is_idle(&mut device, "provision")?;
    assert_is_idle(&mut device, "enroll")
}

/// The FAT partition of an unattended device is not written at each boot while it waits.
#[test]
fn waiting_writes_nothing_either() -> Result<()> {
    let device = usual()?;
    device.succeed(&["provision"])?;
    device.run(&["enroll"])?;
    let before = device.snapshot()?;
    for _ in 0..3 {
        device.run(&["provision"])?;
        device.run(&["enroll"])?;
    }
    before.assert_same(&device.snapshot()?);
    Ok(())
}
