//! A device's tree, and snapshots that show every kind of change in it.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use anyhow::Result;
use image_tests::clients::KeyType;
use image_tests::device::{Device, offline_settings};

#[test]
fn a_snapshot_shows_what_changed() -> Result<()> {
    let device = Device::unprovisioned()?;
    device.settings(&offline_settings("nucleus-lite", KeyType::EccP256))?;
    let before = device.snapshot()?;
    before.assert_same(&device.snapshot()?);
    assert_eq!(before.files_with(b"eu-central-1").len(), 1);

    device.write("/etc/new", "")?;
    fs::set_permissions(device.path("/etc/group"), fs::Permissions::from_mode(0o640))?;
    fs::remove_file(device.boot_file("firstboot.json"))?;
    // The same content, written again.
    let users = device.read("/etc/passwd")?;
    device.write("/etc/passwd.new", users)?;
    fs::rename(device.path("/etc/passwd.new"), device.path("/etc/passwd"))?;

    let after = device.snapshot()?;
    let difference = before.difference(&after);
    let changes: Vec<_> = difference
        .lines()
        .filter_map(|line| line.split_once("  ").map(|(change, _)| change))
        .filter(|change| !change.is_empty())
        .collect();
    let wanted = [
        "- /boot/firstboot/firstboot.json",
        "~ /etc/group",
        "~ /etc/passwd",
        "+ /etc/new",
    ];
    assert_eq!(changes, wanted, "{difference}");
    before
        .without("/boot")
        .without("/etc")
        .assert_same(&after.without("/boot").without("/etc"));
    Ok(())
}

#[test]
fn the_openssl_configuration_is_made_usable_on_this_host() -> Result<()> {
    let device = Device::unprovisioned()?;
    device.write("/var/lib/tpm2_pkcs11/pin", "0123")?;
    device.write(
        "/etc/greengrass/openssl.cnf",
        "pin = file:/var/lib/tpm2_pkcs11/pin\nmodule = /usr/lib/ossl-modules/pkcs11.so\nactivate = 1\n",
    )?;
    let pin = device.path("/var/lib/tpm2_pkcs11/pin");
    let wanted = format!(
        "pin = file:{}\nmodule = /usr/lib/ossl-modules/pkcs11.so\nactivate = 1\n",
        pin.display()
    );
    assert_eq!(fs::read_to_string(device.openssl_conf()?)?, wanted);
    Ok(())
}
