//! Settings that cannot work: a clear error, the documented exit status, and nothing changed.

use std::fs;

use anyhow::Result;
use image_tests::clients::KeyType;
use image_tests::device::{Device, offline_settings};
use serde_json::{Value, json};

use crate::{assert_ends, exit, usual};

/// Runs both commands: they fail with these words, and change neither the disk nor the TPM. Only the lock in /run may
/// appear, and `status.json`, which tells an operator without a console.
#[track_caller]
fn assert_refused(device: &Device, words: &[&str]) -> Result<()> {
    let snapshot = || -> Result<_> {
        Ok(device
            .snapshot()?
            .without("/boot/firstboot/status.json")
            .without("/run"))
    };
    let before = snapshot()?;
    for command in ["provision", "enroll"] {
        let outcome = device.run(&[command])?;
        for words in words {
            assert_ends(&outcome, exit::SETTINGS, words);
        }
    }
    before.assert_same(&snapshot()?);
    assert!(device.tpm.persistent_handles()?.is_empty());
    let status = device.status()?;
    assert_eq!(status["state"], "Error");
    let message = status["message"].as_str().unwrap_or_default();
    assert!(message.contains(words[0]), "{message}");
    Ok(())
}

fn refuses_text(text: impl AsRef<[u8]>, words: &[&str]) -> Result<()> {
    let device = Device::unprovisioned()?;
    device.write("/boot/firstboot/firstboot.json", text)?;
    assert_refused(&device, words)
}

fn refuses(change: impl FnOnce(&mut Value), words: &[&str]) -> Result<()> {
    let mut settings = offline_settings("nucleus-lite", KeyType::EccP256);
    change(&mut settings);
    refuses_text(settings.to_string(), words)
}

#[test]
fn missing_settings_are_refused() -> Result<()> {
    let device = Device::unprovisioned()?;
    device.remove("/usr/lib/firstboot/firstboot.json")?;
    assert_refused(
        &device,
        &["there are no settings", "boot/firstboot/firstboot.json"],
    )
}

#[test]
fn the_images_settings_alone_are_refused() -> Result<()> {
    assert_refused(
        &Device::unprovisioned()?,
        &["greengrass.aws_region is missing"],
    )
}

#[test]
fn broken_json_is_refused_with_line_and_column() -> Result<()> {
    refuses_text(
        "{\n  \"thing_name\": \"gw\",\n  \"key\" \"ecc-p256\"\n}\n",
        &["firstboot.json", "line 3 column 9"],
    )
}

#[test]
fn an_unknown_key_is_named_with_its_position() -> Result<()> {
    refuses_text(
        "{\n  \"thingname\": \"gw\"\n}\n",
        &["unknown field `thingname`", "line 2 column 13"],
    )
}

#[test]
fn an_unknown_nested_key_is_refused() -> Result<()> {
    refuses(
        |s| s["greengrass"]["region"] = json!("eu-central-1"),
        &["unknown field `region`"],
    )
}

#[test]
fn a_wrong_type_is_refused() -> Result<()> {
    refuses(
        |s| s["thing_name"] = json!(7),
        &["invalid type: integer `7`, expected a string"],
    )
}

#[test]
fn an_unknown_key_type_is_refused() -> Result<()> {
    refuses(
        |s| s["key"] = json!("rsa-1024"),
        &["unknown variant `rsa-1024`", "`ecc-p256`"],
    )
}

#[test]
fn an_unknown_edition_is_refused() -> Result<()> {
    refuses(
        |s| s["greengrass"]["edition"] = json!("v3"),
        &["unknown variant `v3`", "`nucleus`"],
    )
}

#[test]
fn an_empty_region_is_refused() -> Result<()> {
    refuses(
        |s| s["greengrass"]["aws_region"] = json!(""),
        &["greengrass.aws_region is missing"],
    )
}

#[test]
fn an_endpoint_that_is_a_url_is_refused() -> Result<()> {
    refuses(
        |s| s["greengrass"]["iot_data_endpoint"] = json!("https://abc.example"),
        &["greengrass.iot_data_endpoint", "a host name alone"],
    )
}

/// Each is well-formed, but they contradict each other.
#[test]
fn addresses_that_contradict_each_other_are_refused() -> Result<()> {
    type Change = fn(&mut Value);
    let cases: [(Change, [&str; 2]); 4] = [
        (
            |s| s["greengrass"]["aws_region"] = json!("eu-central-2"),
            ["greengrass.iot_data_endpoint", "another region"],
        ),
        (
            |s| {
                s["greengrass"]["iot_credential_endpoint"] =
                    json!("data.credentials.iot-fips.us-west-2.amazonaws.com");
            },
            ["greengrass.iot_credential_endpoint", "another region"],
        ),
        (
            |s| {
                s["greengrass"]["iot_data_endpoint"] =
                    s["greengrass"]["iot_credential_endpoint"].clone();
            },
            ["credentials endpoint", "iot:Data-ATS"],
        ),
        (
            |s| {
                s["greengrass"]["iot_data_endpoint"] =
                    json!("greengrass.eu-central-1.amazonaws.com");
            },
            ["greengrass.iot_data_endpoint", "not an AWS IoT endpoint"],
        ),
    ];
    for (change, words) in cases {
        refuses(change, &words)?;
    }
    Ok(())
}

#[test]
fn a_city_is_not_a_region() -> Result<()> {
    refuses(
        |s| s["greengrass"]["aws_region"] = json!("Frankfurt"),
        &["greengrass.aws_region", "eu-central-1"],
    )
}

#[test]
fn v1_without_an_account_is_refused() -> Result<()> {
    refuses(
        |s| s["greengrass"]["edition"] = json!("v1"),
        &["greengrass.aws_account_id is missing"],
    )
}

#[test]
fn invalid_thing_names_are_refused() -> Result<()> {
    for (name, words) in [
        ("a/b", "'/'"),
        ("..", "'.'"),
        ("", "thing_name is missing or empty"),
        ("a\u{7}b", "'\\u{7}'"),
        ("ü", "'ü'"),
        ("$(reboot)", "'$'"),
        ("${mac}", "there is no such placeholder"),
        ("gw-${serial", "without its"),
    ] {
        refuses(|s| s["thing_name"] = json!(name), &["thing_name", words])?;
    }
    refuses(
        |s| s["thing_name"] = json!("x".repeat(129)),
        &["129 characters"],
    )
}

#[test]
fn a_thing_name_that_is_not_a_string_is_refused() -> Result<()> {
    refuses_text(
        b"{\"thing_name\": \"a\xFF\xFEb\"}",
        &["invalid unicode code point", "line 1"],
    )
}

#[test]
fn a_serial_number_that_the_board_lacks_is_refused() -> Result<()> {
    let device = usual()?;
    device.remove("/sys/firmware/devicetree/base/serial-number")?;
    assert_refused(&device, &["${serial}", "this board has none"])
}

/// The serial number comes from the device tree, which the same FAT partition may change.
#[test]
fn a_serial_number_with_a_path_is_refused() -> Result<()> {
    let device = usual()?;
    device.write("/sys/firmware/devicetree/base/serial-number", "../../etc\0")?;
    assert_refused(&device, &["${serial}"])
}

#[test]
fn settings_of_ten_mebibytes_are_refused() -> Result<()> {
    refuses_text(
        vec![b' '; 10 * 1024 * 1024],
        &["is larger than 65536 bytes"],
    )
}

#[test]
fn a_directory_instead_of_the_settings_is_refused() -> Result<()> {
    let device = Device::unprovisioned()?;
    fs::create_dir(device.boot_file("firstboot.json"))?;
    assert_refused(&device, &["is not a regular file"])
}

#[test]
fn a_symbolic_link_is_not_followed() -> Result<()> {
    let device = usual()?;
    let settings = device.boot_file("firstboot.json");
    fs::rename(&settings, device.path("/etc/elsewhere.json"))?;
    std::os::unix::fs::symlink("/etc/elsewhere.json", &settings)?;
    assert_refused(&device, &["is a symbolic link"])
}

#[test]
fn a_pipe_does_not_block_the_boot() -> Result<()> {
    let device = Device::unprovisioned()?;
    nix::unistd::mkfifo(
        &device.boot_file("firstboot.json"),
        nix::sys::stat::Mode::S_IRWXU,
    )?;
    assert_refused(&device, &["is not a regular file"])
}

/// Root would load a library that is named on the FAT partition.
#[test]
fn the_boot_partition_cannot_name_a_library() -> Result<()> {
    refuses(
        |s| s["platform"] = json!({ "pkcs11_module": "/boot/evil.so" }),
        &["`platform` can only be set by the image"],
    )
}

#[test]
fn an_invalid_subject_is_refused() -> Result<()> {
    refuses(|s| s["subject"] = json!({ "C": "Germany" }), &["subject.C"])?;
    refuses(
        |s| s["subject"] = json!({ "O": "x".repeat(65) }),
        &["subject.O"],
    )
}

#[test]
fn an_invalid_root_certificate_is_refused() -> Result<()> {
    let device = usual()?;
    device.write("/boot/firstboot/root-ca.pem", "not a certificate")?;
    assert_refused(
        &device,
        &["root-ca.pem: it contains no certificate: it is text without PEM"],
    )
}

#[test]
fn an_edition_whose_group_does_not_exist_is_refused() -> Result<()> {
    let device = usual()?;
    device.write("/etc/group", "root:x:0:\n")?;
    assert_refused(&device, &["there is no group ggcore"])
}

/// Windows' Notepad writes them.
#[test]
fn byte_order_mark_and_crlf_are_read() -> Result<()> {
    let device = usual()?;
    let text = device.read("/boot/firstboot/firstboot.json")?;
    device.write(
        "/boot/firstboot/firstboot.json",
        format!("\u{FEFF}{}", text.replace('\n', "\r\n")),
    )?;
    device.succeed(&["provision"])?;
    Ok(())
}
