//! Hard power-offs after logins add up to a dictionary-attack lockout; firstboot prevents that at each start.

use anyhow::Result;
use image_tests::clients::{KeyType, p11tool};
use image_tests::device::{Device, offline_settings};
use image_tests::doubles::pki::Authority;
use image_tests::doubles::tpm_proxy::{Firmware, Options, Proxy, Slb9670};

/// More in `make sweep`; each costs two starts of a TPM.
fn cycles() -> usize {
    if std::env::var_os("SWEEP").is_some() {
        100
    } else {
        15
    }
}

fn enrolled() -> Result<Device> {
    let device = Device::unprovisioned()?;
    device.settings(&offline_settings("nucleus-lite", KeyType::EccP256))?;
    device.enroll_with(&Authority::new()?)?;
    Ok(device)
}

/// With a maximum of one try, a single failed one is a lockout.
#[test]
fn a_device_that_is_always_unplugged_after_a_login_never_locks() -> Result<()> {
    let mut device = enrolled()?;
    device.tpm.set_max_tries(1)?;
    let identity = device.identity(KeyType::EccP256)?;
    let mut counted = 0;
    for _ in 0..cycles() {
        device.tpm.pull_the_plug();
        device.tpm.power_on()?;
        counted += device.tpm.lockout_counter()?;
        device.succeed(&["provision"])?;
        device.succeed(&["enroll"])?;
        assert!(!device.tpm.in_lockout()?);
        p11tool::test_sign(&identity)?;
    }
    assert!(
        counted > 0,
        "no power cut was counted: this TPM tests nothing"
    );
    Ok(())
}

/// The same without firstboot at the start, as on the tutorial's device.
#[test]
fn without_firstboot_such_a_device_locks_its_own_key() -> Result<()> {
    let mut device = enrolled()?;
    let identity = device.identity(KeyType::EccP256)?;
    let most = device.tpm.max_tries()? + 2;
    for _ in 0..most {
        if p11tool::test_sign(&identity).is_err() {
            assert!(device.tpm.in_lockout()?);
            return Ok(());
        }
        device.tpm.pull_the_plug();
        device.tpm.power_on()?;
    }
    panic!("{most} power cuts after logins, and no lockout");
}

/// Each start reads the counter, in the same TPM command as lockoutAuth's state.
#[test]
fn reading_the_counter_costs_one_command_and_resetting_it_another() -> Result<()> {
    let mut device = enrolled()?;
    let options = Options {
        chip: Some(Slb9670::new(Firmware::V7_85)),
        latency: None,
    };
    let proxy = Proxy::start(device.tpm.upstream(), options)?;
    device.tcti = Some(proxy.tcti());
    let idle = {
        device.succeed(&["provision"])?;
        proxy.take_commands()
    };
    assert_eq!(idle.count("GetCapability"), 1, "{:?}", idle.names());
    assert_eq!(idle.count("DictionaryAttackLockReset"), 0);

    device.tcti = None;
    p11tool::test_sign(&device.identity(KeyType::EccP256)?)?;
    device.tpm.pull_the_plug();
    device.tpm.power_on()?;
    proxy.power_on()?;
    assert!(device.tpm.lockout_counter()? > 0);
    device.tcti = Some(proxy.tcti());
    proxy.take_commands();
    device.succeed(&["provision"])?;
    let reset = proxy.take_commands();
    assert_eq!(
        reset.count("DictionaryAttackLockReset"),
        1,
        "{:?}",
        reset.names()
    );
    Ok(())
}
