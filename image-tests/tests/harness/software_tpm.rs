//! The software TPM survives power cuts, and can be put into the states that tests need.

use anyhow::Result;
use image_tests::doubles::software_tpm::SoftwareTpm;

const STORAGE_ROOT_KEY: u32 = 0x8100_0001;

#[test]
fn persistent_objects_survive_a_power_cut() -> Result<()> {
    let mut tpm = SoftwareTpm::start()?;
    assert!(tpm.persistent_handles()?.is_empty());
    tpm.occupy_with_systemd_root_key()?;
    let tcti = tpm.tcti();

    tpm.pull_the_plug();
    assert!(tpm.persistent_handles().is_err());
    tpm.power_on()?;
    assert_eq!(tpm.persistent_handles()?, [STORAGE_ROOT_KEY]);

    tpm.shut_down()?;
    tpm.power_on()?;
    assert_eq!(tpm.persistent_handles()?, [STORAGE_ROOT_KEY]);
    assert_eq!(tpm.tcti(), tcti);
    assert!(tpm.transient_handles()?.is_empty());

    tpm.clear()?;
    assert!(tpm.persistent_handles()?.is_empty());
    Ok(())
}

#[test]
fn its_state_can_be_kept_in_a_directory() -> Result<()> {
    let state = tempfile::tempdir()?;
    SoftwareTpm::start_in(state.path())?.occupy_with_signing_key()?;
    let again = SoftwareTpm::start_in(state.path())?;
    assert_eq!(again.persistent_handles()?, [STORAGE_ROOT_KEY]);
    Ok(())
}

#[test]
fn wrong_auth_values_lead_to_a_lockout_that_survives_a_power_cycle() -> Result<()> {
    let mut tpm = SoftwareTpm::start()?;
    tpm.set_max_tries(5)?;
    assert_eq!(tpm.lockout_counter()?, 0);
    tpm.use_up_tries()?;
    assert_eq!((tpm.lockout_counter()?, tpm.in_lockout()?), (5, true));

    tpm.pull_the_plug();
    tpm.power_on()?;
    assert!(tpm.in_lockout()?);
    tpm.run(&["tpm2_dictionarylockout", "-c"])?;
    assert_eq!((tpm.lockout_counter()?, tpm.in_lockout()?), (0, false));
    Ok(())
}

#[test]
fn auth_values_are_required_once_set() -> Result<()> {
    let tpm = SoftwareTpm::start()?;
    tpm.set_owner_auth("owner")?;
    assert!(tpm.occupy_with_storage_key("").is_err());
    tpm.set_lockout_auth("lockout")?;
    assert!(tpm.set_max_tries(7).is_err());

    // Clearing resets them.
    tpm.clear()?;
    tpm.set_max_tries(7)?;
    assert_eq!(tpm.max_tries()?, 7);
    tpm.occupy_with_storage_key("secret")?;
    assert_eq!(tpm.persistent_handles()?, [STORAGE_ROOT_KEY]);
    let use_it = ["tpm2_create", "-C", "0x81000001"];
    assert_ne!(tpm.attempt(&use_it)?.code, 0);
    tpm.run(&[&use_it[..], &["-P", "secret"]].concat())?;
    Ok(())
}
