//! The thing gets another name: the request under the old name is removed.

use std::fs;

use anyhow::Result;
use image_tests::clients::KeyType;
use image_tests::device::{Device, offline_settings};
use image_tests::doubles::pki::Authority;
use serde_json::json;

use crate::usual;

fn rename(device: &Device, name: &str) -> Result<()> {
    let mut settings = offline_settings("nucleus-lite", KeyType::EccP256);
    settings["thing_name"] = json!(name);
    device.settings(&settings)
}

fn requests(device: &Device) -> Result<Vec<String>> {
    let mut names: Vec<_> = fs::read_dir(device.boot_file("requests"))?
        .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
        .collect::<Result<_>>()?;
    names.sort();
    Ok(names)
}

#[test]
fn the_old_request_is_removed_and_other_files_stay() -> Result<()> {
    let device = usual()?;
    device.succeed(&["provision"])?;
    device.write("/boot/firstboot/requests/another.csr.pem", "theirs")?;
    for name in ["pump-1", "pump:2"] {
        rename(&device, name)?;
        device.succeed(&["provision"])?;
        let file = name.replace(':', "_");
        let expected = [
            "another.csr.pem".to_owned(),
            format!("{file}.csr.pem"),
            format!("{file}.json"),
        ];
        assert_eq!(requests(&device)?, expected);
    }
    Ok(())
}

/// The operator has changed the file under the old name: it is no longer the published one.
#[test]
fn a_changed_request_stays() -> Result<()> {
    let device = usual()?;
    rename(&device, "pump-1")?;
    device.succeed(&["provision"])?;
    device.write("/boot/firstboot/requests/pump-1.json", "edited")?;
    rename(&device, "pump-2")?;
    device.succeed(&["provision"])?;
    let expected = ["pump-1.json", "pump-2.csr.pem", "pump-2.json"];
    assert_eq!(requests(&device)?, expected);
    Ok(())
}

/// Nobody should certify a key that is given up.
#[test]
fn a_reset_removes_the_request() -> Result<()> {
    let device = usual()?;
    device.succeed(&["provision"])?;
    device.succeed(&["reset"])?;
    assert!(requests(&device)?.is_empty());
    rename(&device, "pump-1")?;
    device.enroll_with(&Authority::new()?)?;
    assert_eq!(requests(&device)?, ["pump-1.csr.pem", "pump-1.json"]);
    Ok(())
}

/// The power fails after the new request is published, or after the old one is removed: the identity still has the old
/// record, and everything is done again.
#[test]
fn a_power_cut_in_between_leaves_no_old_request() -> Result<()> {
    let device = usual()?;
    rename(&device, "pump-1")?;
    device.succeed(&["provision"])?;
    let identity = device.path("/var/lib/tpm2_pkcs11");
    let old = ["device.csr.pem", "request.json"].map(|name| (name, fs::read(identity.join(name))));
    let published = fs::read(device.boot_file("requests/pump-1.json"))?;
    rename(&device, "pump-2")?;
    device.succeed(&["provision"])?;
    for (name, content) in old {
        fs::write(identity.join(name), content?)?;
    }
    device.write("/boot/firstboot/requests/pump-1.json", published)?;
    device.succeed(&["provision"])?;
    assert_eq!(requests(&device)?, ["pump-2.csr.pem", "pump-2.json"]);
    Ok(())
}
