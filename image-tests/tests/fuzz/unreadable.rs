//! Something on the disk cannot be read: that is no reason to give it up, as the next start may succeed.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use firstboot::error::Error;
use firstboot::provision::Step;
use image_tests::device::STORE;
use image_tests::process::succeed;
use nix::unistd::{Gid, Uid, setfsgid, setfsuid};

use crate::identity::{ESSENTIAL, Enrolled, REPLACEABLE};

/// Looks at a device of which one path cannot be read, by its permissions. Except for the error number, that is the
/// same as on a failing disk.
fn look_without(enrolled: &Enrolled, path: &Path) -> Result<std::result::Result<Step, Error>> {
    let mode = fs::metadata(path)?.permissions();
    fs::set_permissions(path, Permissions::from_mode(0o000))?;
    let step = std::thread::scope(|scope| {
        let looking = scope.spawn(|| {
            // For this thread only (setfsuid(2)): root may read everything, nobody may not.
            setfsgid(Gid::from_raw(65_534));
            setfsuid(Uid::from_raw(65_534));
            enrolled.look()
        });
        looking.join()
    });
    fs::set_permissions(path, mode)?;
    step.ok().context("firstboot has panicked")
}

fn readable() -> Result<Enrolled> {
    let enrolled = Enrolled::new()?;
    let mut all = Command::new("chmod");
    succeed(all.args(["-R", "a+rX"]).arg(enrolled.device.root()))?;
    Ok(enrolled)
}

fn assert_not_given_up(step: std::result::Result<Step, Error>, path: &str) {
    let given_up = matches!(
        step,
        Ok(Step::SetAside(_) | Step::MakeIdentity | Step::RemoveConfiguration | Step::RepairStore)
    );
    assert!(
        !given_up,
        "{path} cannot be read, and the next step is {step:?}"
    );
    if let Err(e) = step {
        let words = e.to_string();
        assert!(words.contains("Permission denied"), "{path}: {words}");
    }
}

#[test]
fn an_identity_is_not_given_up_for_one_file() -> Result<()> {
    let enrolled = readable()?;
    for name in ESSENTIAL.iter().chain(&REPLACEABLE) {
        let path = format!("{STORE}/{name}");
        let step = look_without(&enrolled, &enrolled.device.path(&path))?;
        assert_not_given_up(step, &path);
    }
    Ok(())
}

#[test]
fn an_identity_is_not_given_up_for_a_directory() -> Result<()> {
    let enrolled = readable()?;
    for path in [
        STORE,
        "/var/lib",
        "/var",
        "/greengrass",
        "/boot",
        "/boot/firstboot/certificates",
    ] {
        let step = look_without(&enrolled, &enrolled.device.path(path))?;
        assert_not_given_up(step, path);
    }
    Ok(())
}

/// The accepted certificate may no longer be on the card: the configuration made with it stays.
#[test]
fn a_configuration_is_not_removed_for_an_unreadable_certificate() -> Result<()> {
    let enrolled = readable()?;
    fs::remove_dir_all(enrolled.device.boot_file("certificates"))?;
    let path = format!("{STORE}/certificate.pem");
    let step = look_without(&enrolled, &enrolled.device.path(&path))?;
    assert_not_given_up(step, &path);
    Ok(())
}
