//! Thing names, which become part of paths, of a certificate's subject and of Greengrass's configuration.

use firstboot::boot_partition::BootPartition;
use firstboot::settings::Settings;
use proptest::prelude::*;
use serde_json::json;

use crate::{Checked, Tree, any_text, cases};

/// Valid by the AWS IoT API reference (CreateThing, thingName), and files named after it stay in their directory.
pub fn assert_is_a_thing_name(tree: &Tree, name: &str) -> Checked {
    prop_assert!((1..=128).contains(&name.len()), "{:?}", name);
    let allowed = |c: char| c.is_ascii_alphanumeric() || ":_-".contains(c);
    prop_assert!(name.chars().all(allowed), "{:?}", name);

    let boot = BootPartition::new(&tree.layout);
    let [request, record] = boot.request_paths(name);
    for (path, folder) in [
        (boot.certificate_path(name), "certificates"),
        (request, "requests"),
        (record, "requests"),
    ] {
        let folder = tree.boot().join(folder);
        prop_assert_eq!(path.parent(), Some(folder.as_path()));
        // Linux's limit of a file name, with room for ".new"; FAT has no colon.
        let file = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        prop_assert!(file.len() < 250 && !file.contains(':'), "{}", file);
    }
    Ok(())
}

fn read(tree: &Tree, name: &str) -> Checked<Option<String>> {
    let settings = json!({
        "thing_name": name,
        "greengrass": {
            "iot_data_endpoint": "a", "iot_credential_endpoint": "b", "iot_role_alias": "c"
        }
    });
    let path = "/boot/firstboot/firstboot.json";
    tree.write(path, settings.to_string().as_bytes())?;
    Ok(Settings::read(&tree.layout).ok().map(|s| s.thing_name))
}

#[test]
fn any_name_gets_a_verdict() -> Checked {
    let tree = Tree::new()?;
    proptest!(cases(1000), |(name in any_text())| {
        if let Some(accepted) = read(&tree, &name)? {
            assert_is_a_thing_name(&tree, &accepted)?;
        }
    });
    Ok(())
}

/// All names that AWS allows are accepted unchanged.
#[test]
fn every_name_that_aws_allows_is_accepted() -> Checked {
    let tree = Tree::new()?;
    proptest!(cases(300), |(name in "[a-zA-Z0-9:_-]{1,128}")| {
        prop_assert_eq!(read(&tree, &name)?, Some(name));
    });
    Ok(())
}

/// The serial number comes from the device tree, which the same FAT partition may change.
#[test]
fn any_serial_number_gets_a_verdict() -> Checked {
    let tree = Tree::new()?;
    proptest!(cases(500), |(serial in any_text(), tail in any::<Vec<u8>>())| {
        let serial = [serial.as_bytes(), &tail].concat();
        tree.write("/sys/firmware/devicetree/base/serial-number", &serial)?;
        if let Some(accepted) = read(&tree, "gateway-${serial}-${machine_id}")? {
            assert_is_a_thing_name(&tree, &accepted)?;
        }
    });
    Ok(())
}
