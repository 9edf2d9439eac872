//! Full and read-only disks as real file systems, mounted where only these tests see them.

use std::fs;

use anyhow::{Result, ensure};
use image_tests::clients::{KeyType, pkcs11_tool};
use image_tests::device::{Device, NEXT, Outcome, STORE};
use image_tests::doubles::pki::Authority;
use serde_json::{Value, json};

use crate::mounts::in_memory;
use crate::{scenario, usual, wrong_after_start};
use image_tests::namespaces::{among_private_mounts, mount};

const SETTINGS: &str = "/boot/firstboot/firstboot.json";

/// Mounts a tmpfs of this size at a path of the device.
fn small(device: &Device, path: &str, size: &str) -> Result<()> {
    let here = device.path(path);
    fs::create_dir_all(&here)?;
    let options = format!("size={size},mode=755");
    mount(&[
        "-t",
        "tmpfs",
        "-o",
        &options,
        "none",
        &here.display().to_string(),
    ])
}

/// Fills the file system but for this many bytes.
fn fill_up(device: &Device, path: &str, leave: u64) -> Result<()> {
    let ballast = device.path(path).join("ballast");
    let _ = fs::remove_file(&ballast);
    let (mut size, page) = (0u64, vec![0; 4096]);
    let mut file = fs::File::create(&ballast)?;
    while std::io::Write::write_all(&mut file, &page).is_ok() {
        size += page.len() as u64;
    }
    Ok(file.set_len(size.saturating_sub(leave))?)
}

fn assert_ends(outcome: &Outcome, codes: &[i32], words: &[&str]) -> Result<()> {
    let Outcome { code, stderr, .. } = outcome;
    ensure!(codes.contains(code), "ended with {code}: {stderr}");
    let last = stderr.lines().last().unwrap_or_default();
    let all = words.iter().all(|words| last.contains(words));
    ensure!(all, "no {words:?} in the last of: {stderr}");
    Ok(())
}

fn assert_starts_well(device: Device, name: &str) -> Result<()> {
    let wrong = wrong_after_start(device, scenario(name)?)?;
    assert!(wrong.is_empty(), "{wrong:?}");
    Ok(())
}

/// The identity's disk has more and more space, from none to enough: each start gets a bit further, and the last one is
/// not disturbed by what the others left.
#[test]
fn a_full_disk_disturbs_no_later_start() -> Result<()> {
    let device = usual()?;
    among_private_mounts(|| {
        // The whole tree, as firstboot refuses to work if only /var/lib is in memory.
        let _memory = in_memory(&device)?;
        small(&device, "/var/lib", "512k")?;
        // With what the previous starts have left: 0, 4, 8, 16, 28, 40 KiB of the 44 that an identity needs.
        for leave in [0, 4, 4, 8, 12, 12] {
            fill_up(&device, "/var/lib", leave * 1024)?;
            let outcome = device.run(&["provision"])?;
            assert_ends(&outcome, &[70, 73], &["cannot "])?;
            assert!(!device.exists("/var/lib/tpm2_pkcs11"), "with {leave} KiB");
            assert_eq!(device.status()?["state"], "Error");
        }
        device.remove("/var/lib/ballast")?;
        device.succeed(&["provision"])?;
        assert_eq!(names(&device, "/var/lib")?, ["tpm2_pkcs11"]);
        assert_eq!(device.tpm.persistent_handles()?, [0x8100_0001]);
        pkcs11_tool::sign_and_verify(&device.identity(KeyType::EccP256)?)
    })
}

/// The boot partition is full: there is no request, the console says so, and nothing is made twice.
#[test]
fn a_full_boot_partition_is_reported() -> Result<()> {
    let device = usual()?;
    let settings = device.read("/boot/firstboot/firstboot.json")?;
    among_private_mounts(|| {
        small(&device, "/boot", "64k")?;
        device.write("/boot/firstboot/firstboot.json", &settings)?;
        fill_up(&device, "/boot", 0)?;
        let words = ["cannot write", "/boot/firstboot/requests/", "No space left"];
        assert_ends(&device.run(&["provision"])?, &[73], &words)?;
        let made = device.snapshot()?.without("/boot");
        assert_ends(&device.run(&["provision"])?, &[73], &words)?;
        made.assert_same(&device.snapshot()?.without("/boot"));
        device.remove("/boot/ballast")?;
        device.succeed(&["provision"])?;
        made.assert_same(&device.snapshot()?.without("/boot"));
        assert_eq!(names(&device, "/boot/firstboot/requests")?.len(), 2);
        Ok(())
    })?;
    assert_starts_well(device, "provision")
}

/// There is no space for Greengrass's configuration: certificate and old configuration, if any, are kept.
#[test]
fn without_space_for_the_configuration_the_old_one_stays() -> Result<()> {
    let device = usual()?;
    let authority = Authority::new()?;
    device.succeed(&["provision"])?;
    device.drop_certificate(&authority.sign(&device.request()?)?)?;
    among_private_mounts(|| {
        small(&device, "/etc/greengrass", "64k")?;
        for leave in [0, 4] {
            fill_up(&device, "/etc/greengrass", leave * 1024)?;
            let words = ["cannot write", "/etc/greengrass/", "No space left"];
            assert_ends(&device.run(&["enroll"])?, &[73], &words)?;
            assert!(!device.exists("/etc/greengrass/config.yaml"));
        }
        device.remove("/etc/greengrass/ballast")?;
        device.succeed(&["enroll"])?;
        let written = names(&device, "/etc/greengrass")?;
        assert_eq!(written, ["config.yaml", "openssl.cnf", "root-ca.pem"]);
        Ok(())
    })?;
    // Without the mount, the configuration is missing: it is written again.
    assert_starts_well(device, "enroll")
}

/// The whole device but /run, as after a file system error (errors=remount-ro).
#[test]
fn a_read_only_disk_leaves_the_device_in_service() -> Result<()> {
    let device = usual()?;
    among_private_mounts(|| {
        let root = device.root().display().to_string();
        mount(&["--bind", &root, &root])?;
        small(&device, "/run", "64k")?;
        mount(&["-o", "remount,bind,ro", &root])?;
        for command in ["provision", "enroll"] {
            let words = ["cannot ", "/var/lib/tpm2_pkcs11", "Read-only file system"];
            assert_ends(&device.run(&[command])?, &[73], &words)?;
        }
        mount(&["-o", "remount,bind,rw", &root])?;
        device.enroll_with(&Authority::new()?)?;

        // With nothing to do, nothing is written: such a device starts.
        mount(&["-o", "remount,bind,ro", &root])?;
        let done = device.snapshot()?.without("/run");
        for command in ["provision", "enroll"] {
            device.succeed(&[command])?;
        }
        done.assert_same(&device.snapshot()?.without("/run"));

        // It also stays in service if there is something to write: a newer certificate, another setting.
        for change in [a_newer_certificate, another_role_alias] {
            mount(&["-o", "remount,bind,rw", &root])?;
            change(&device)?;
            mount(&["-o", "remount,bind,ro", &root])?;
            let done = device.snapshot()?.without("/run");
            let words = ["cannot write", "Read-only file system", "keeps running"];
            assert_ends(&device.run(&["enroll"])?, &[0], &words)?;
            done.assert_same(&device.snapshot()?.without("/run"));
        }
        mount(&["-o", "remount,bind,rw", &root])
    })?;
    assert_starts_well(device, "replace certificate")
}

fn a_newer_certificate(device: &Device) -> Result<()> {
    let certificate = Authority::new()?.sign(&device.request()?)?;
    device.drop_certificate(&certificate).map(drop)
}

fn another_role_alias(device: &Device) -> Result<()> {
    // Carry out the first change.
    device.succeed(&["enroll"])?;
    let settings = device.read("/boot/firstboot/firstboot.json")?;
    let mut settings: Value = serde_json::from_str(&settings)?;
    settings["greengrass"]["iot_role_alias"] = "AnotherAlias".into();
    device.settings(&settings)
}

fn names(device: &Device, path: &str) -> Result<Vec<String>> {
    let mut names: Vec<String> = fs::read_dir(device.path(path))?
        .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
        .collect::<Result<_>>()?;
    names.sort();
    Ok(names)
}

/// What a power cut has left of a next identity cannot be removed: a device in service stays there, and makes no key.
#[test]
fn leftovers_of_a_renewal_do_not_end_the_service() -> Result<()> {
    let device = usual()?;
    device.enroll_with(&Authority::new()?)?;
    let mut settings: Value = serde_json::from_str(&device.read(SETTINGS)?)?;
    settings["renew"] = json!({ "key": "new", "at": "3650 days" });
    settings["enrollment"]["trust_clock"] = json!(true);
    device.settings(&settings)?;
    let staging = format!("{STORE}.new");
    among_private_mounts(|| {
        small(&device, &staging, "64k")?;
        for command in ["provision", "enroll", "renew"] {
            let outcome = device.run(&[command])?;
            let words: &[&str] = match command {
                "provision" => &[],
                _ => &["the renewal cannot go on", "tpm2_pkcs11.new"],
            };
            assert_ends(&outcome, &[0], words)?;
        }
        assert_eq!(device.status()?["in_service"], true);
        Ok(())
    })?;
    device.succeed(&["renew"])?;
    assert!(!device.exists(&staging) && !device.exists(NEXT));
    Ok(())
}
