//! The boot partition's check is pulled in, and skipped only if the partition was unmounted cleanly.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use image_tests::device::firstboot;
use image_tests::process::{finish, succeed};
use tempfile::TempDir;

/// A FAT partition in a file, an fstab, and the directory for a generator's units.
struct Card(TempDir);

/// mkfs.vfat's arguments for FAT32 and FAT16, and the offset of BS_Reserved1, whose bit 0 means "is mounted" to Linux
/// and fsck.fat.
const KINDS: [([&str; 4], u64); 2] = [(["-F", "32", "-s", "1"], 65), (["-F", "16", "-s", "4"], 37)];

impl Card {
    fn new(kind: [&str; 4]) -> Result<Self> {
        let card = Self(TempDir::new()?);
        File::create(card.partition())?.set_len(64 << 20)?;
        succeed(Command::new("mkfs.vfat").args(kind).arg(card.partition()))?;
        Ok(card)
    }

    fn partition(&self) -> PathBuf {
        self.0.path().join("partition")
    }

    fn units(&self) -> PathBuf {
        self.0.path().join("units")
    }

    /// Runs the generator. Returns the name of the check's unit, if there is one, and whether it will be skipped.
    fn generate(&self, fstab: &str) -> Result<(Option<String>, bool)> {
        let path = self.0.path().join("fstab");
        fs::write(&path, fstab)?;
        let mut generator = Command::new(firstboot()?.with_file_name("firstboot-generator"));
        generator.env("SYSTEMD_FSTAB", path).arg(self.units());
        let finished = finish(&mut generator)?;
        assert_eq!((finished.code, finished.stderr.as_str()), (0, ""));
        let wants = self.units().join("boot.mount.wants");
        if !wants.exists() {
            return Ok((None, false));
        }
        let link = fs::read_dir(wants)?.next().context("no link")??;
        let unit = "/usr/lib/systemd/system/firstboot-fsck@.service";
        assert_eq!(fs::read_link(link.path())?, Path::new(unit));
        let condition = self.units().join("firstboot-fsck@.service.d/clean.conf");
        let condition = fs::read_to_string(condition)?;
        let skipped = condition == "[Unit]\nConditionPathExists=/boot-was-not-unmounted\n";
        assert!(skipped || condition.is_empty(), "{condition}");
        fs::remove_dir_all(self.units())?;
        Ok((Some(link.file_name().to_string_lossy().into()), skipped))
    }
}

#[test]
fn a_partition_is_checked_unless_it_was_unmounted() -> Result<()> {
    for (kind, state) in KINDS {
        let card = Card::new(kind)?;
        let fstab = format!("{} /boot vfat defaults 0 0\n", card.partition().display());
        assert!(card.generate(&fstab)?.1, "{kind:?}, as it was made");
        let partition = File::options().write(true).open(card.partition())?;
        partition.write_all_at(&[1], state)?;
        let (check, skipped) = card.generate(&fstab)?;
        assert!(check.is_some() && !skipped, "{kind:?}, mounted");
        partition.write_all_at(&[0], state)?;
        assert!(card.generate(&fstab)?.1, "{kind:?}, unmounted");
        partition.write_all_at(&[0], 510)?;
        assert!(!card.generate(&fstab)?.1, "{kind:?}, no boot sector");
        partition.set_len(100)?;
        assert!(!card.generate(&fstab)?.1, "{kind:?}, cut short");
    }
    Ok(())
}

#[test]
fn a_partition_that_does_not_exist_yet_is_checked() -> Result<()> {
    let card = Card::new(KINDS[0].0)?;
    let check = |name: &str| Some(format!("firstboot-fsck@{name}.service"));
    let path = card.generate("/dev/nowhere /boot vfat defaults\n")?;
    assert_eq!(path, (check("dev-nowhere"), false));
    let uuid = card.generate("UUID=0123-CDEF /boot vfat defaults\n")?;
    let name = r"dev-disk-by\x2duuid-0123\x2dCDEF";
    assert_eq!(uuid, (check(name), false));
    Ok(())
}

#[test]
fn without_a_fat_boot_partition_there_is_no_check() -> Result<()> {
    let card = Card::new(KINDS[0].0)?;
    for fstab in [
        "",
        "/dev/sda1 / ext4 defaults\n",
        "/dev/sda2 /boot ext4 ro\n",
    ] {
        assert_eq!(card.generate(fstab)?.0, None, "{fstab}");
    }
    Ok(())
}
