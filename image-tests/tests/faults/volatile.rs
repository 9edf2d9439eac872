//! Storage that does not survive a power cut: nothing is made there, and an enrolled device stays in service.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::Result;
use image_tests::device::{Device, assert_ends};
use image_tests::doubles::pki::Authority;
use image_tests::process::succeed;

use crate::mounts::{in_memory, on_disk, text};
use crate::usual;
use image_tests::namespaces::{among_private_mounts, mount};

const CANNOT_WRITE: i32 = 73;

/// Mounts something at a path of a device whose root is on a disk: nothing is made, neither on the disk nor in the TPM.
fn refuses(at: &str, words: &str, mount_at: impl FnOnce(&Path) -> Result<()> + Send) -> Result<()> {
    let device = usual()?;
    among_private_mounts(|| {
        let _disk = on_disk(&device)?;
        let point = device.path(at);
        fs::create_dir_all(&point)?;
        mount_at(&point)?;
        let before = device.snapshot()?.without("/boot").without("/run");
        for command in ["provision", "enroll"] {
            let outcome = device.run(&[command])?;
            assert_ends(&outcome, CANNOT_WRITE, words);
            assert_ends(&outcome, CANNOT_WRITE, "at /var/lib");
        }
        before.assert_same(&device.snapshot()?.without("/boot").without("/run"));
        assert_eq!(device.status()?["state"], "VolatileStorage");
        assert!(device.tpm.persistent_handles()?.is_empty());
        Ok(())
    })
}

/// Mounts an overlay over a directory on a disk, with the upper directory on the disk or in memory.
fn overlay(at: &Path, upper: &Path, options: &str) -> Result<()> {
    for directory in ["upper", "work"] {
        fs::create_dir_all(upper.join(directory))?;
    }
    let (lower, upper) = (text(at)?, text(upper)?);
    let options = format!("lowerdir={lower},upperdir={upper}/upper,workdir={upper}/work{options}");
    mount(&["-t", "overlay", "-o", &options, "none", lower])
}

#[test]
fn in_a_tmpfs_nothing_is_made() -> Result<()> {
    refuses("/var", "is in memory (tmpfs)", |at| {
        mount(&["-t", "tmpfs", "none", text(at)?])
    })
}

#[test]
fn in_a_ramfs_nothing_is_made() -> Result<()> {
    refuses("/var/lib", "is in memory (ramfs)", |at| {
        mount(&["-t", "ramfs", "none", text(at)?])
    })
}

/// As volatile-binds does: a directory of a tmpfs, bind-mounted.
#[test]
fn in_a_volatile_bind_nothing_is_made() -> Result<()> {
    refuses("/var/lib", "is in memory (tmpfs)", |at| {
        let elsewhere = at.with_file_name("volatile");
        fs::create_dir_all(&elsewhere)?;
        mount(&["-t", "tmpfs", "none", text(&elsewhere)?])?;
        fs::create_dir(elsewhere.join("lib"))?;
        mount(&["--bind", text(&elsewhere.join("lib"))?, text(at)?])
    })
}

#[test]
fn in_an_overlay_of_memory_nothing_is_made() -> Result<()> {
    let words = "an overlay, with its upper directory in tmpfs";
    refuses("/var/lib", words, |at| {
        let memory = at.with_file_name("memory");
        fs::create_dir_all(&memory)?;
        mount(&["-t", "tmpfs", "none", text(&memory)?])?;
        overlay(at, &memory, "")
    })
}

#[test]
fn in_a_volatile_overlay_nothing_is_made() -> Result<()> {
    refuses("/var/lib", "the option volatile", |at| {
        overlay(at, &at.with_file_name("upper"), ",volatile")
    })
}

/// ext4, but on a file in memory.
#[test]
fn on_a_disk_in_memory_nothing_is_made() -> Result<()> {
    refuses("/var/lib", "a file in tmpfs", |at| {
        let memory = at.with_file_name("memory");
        fs::create_dir_all(&memory)?;
        mount(&["-t", "tmpfs", "none", text(&memory)?])?;
        let image = memory.join("image");
        fs::File::create(&image)?.set_len(4 << 20)?;
        succeed(Command::new("mkfs.ext4").arg("-q").arg(&image))?;
        mount(&["-o", "loop", text(&image)?, text(at)?])
    })
}

#[test]
fn storage_for_the_identity_alone_is_explained() -> Result<()> {
    refuses("/var/lib/tpm2_pkcs11", "is a mount point", |at| {
        mount(&["-t", "tmpfs", "none", text(at)?])
    })
}

fn provisions(device: &Device) -> Result<()> {
    device.succeed(&["provision"])?;
    assert_eq!(device.status()?["state"], "AwaitingCertificate");
    Ok(())
}

/// An overlay on a disk over a read-only root is used; and so is a whole tree in memory, which is somebody's copy.
#[test]
fn durable_storage_is_used_and_so_is_a_copy() -> Result<()> {
    let device = usual()?;
    among_private_mounts(|| {
        let _disk = on_disk(&device)?;
        overlay(&device.path("/var/lib"), &device.path("/upper"), "")?;
        provisions(&device)
    })?;
    let device = usual()?;
    among_private_mounts(|| {
        let _memory = in_memory(&device)?;
        provisions(&device)
    })
}

/// If somebody copies an enrolled device's state into memory at each boot, that is their decision.
#[test]
fn an_enrolled_device_stays_in_service() -> Result<()> {
    let device = usual()?;
    among_private_mounts(|| {
        let _disk = on_disk(&device)?;
        device.enroll_with(&Authority::new()?)?;
        let (there, aside) = (device.path("/var/lib"), device.path("/aside"));
        fs::rename(&there, &aside)?;
        fs::create_dir(&there)?;
        mount(&["-t", "tmpfs", "none", text(&there)?])?;
        succeed(
            Command::new("cp")
                .arg("-a")
                .arg(aside.join("."))
                .arg(&there),
        )?;
        for command in ["provision", "enroll"] {
            device.succeed(&[command])?;
        }
        assert_eq!(device.status()?["state"], "Done");
        Ok(())
    })
}
