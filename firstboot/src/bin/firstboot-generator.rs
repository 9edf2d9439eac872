//! Has the boot partition checked before it is mounted, unless it was unmounted cleanly: a systemd generator
//! (systemd.generator(7)), because starting a service would cost a later boot more than the check saves.
//!
//! It pulls `firstboot-fsck@.service` into the mount of the FAT partition that fstab has for /boot, then looks at that
//! partition. Anybody with access to the card may have written what is read there, so it looks last: by then the
//! process can only read and write what it has open, and exit (seccomp(2), `SECCOMP_SET_MODE_STRICT`). If the partition
//! is clean, it writes a condition that skips the check. Whatever goes wrong, the check runs.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use nix::libc;

const BOOT: &str = "/boot";
const CHECK: &str = "/usr/lib/systemd/system/firstboot-fsck@.service";
/// The condition that skips the check. systemd shows the path when it reports that the unit was skipped.
const CLEAN: &[u8] = b"[Unit]\nConditionPathExists=/boot-was-not-unmounted\n";

fn main() -> ExitCode {
    let Some(units) = std::env::args_os().nth(1) else {
        return ExitCode::FAILURE;
    };
    // systemd's own generator of mounts has this variable, too.
    let fstab = std::env::var_os("SYSTEMD_FSTAB").unwrap_or_else(|| "/etc/fstab".into());
    let fstab = fs::read_to_string(fstab).unwrap_or_default();
    let Some(source) = fstab.lines().find_map(Source::of_boot) else {
        return ExitCode::SUCCESS;
    };
    match pull_in(Path::new(&units), &source) {
        Ok(condition) => look(&source, &source.partitions(), &condition),
        Err(_) => ExitCode::FAILURE,
    }
}

/// Makes the mount want the check. Returns the file for the check's condition, still empty.
fn pull_in(units: &Path, source: &Source) -> io::Result<File> {
    let wants = units.join("boot.mount.wants");
    fs::create_dir_all(&wants)?;
    let instance = escaped(source.path.as_os_str().as_bytes());
    let link = wants.join(format!("firstboot-fsck@{instance}.service"));
    std::os::unix::fs::symlink(CHECK, link)?;
    let drop_ins = units.join("firstboot-fsck@.service.d");
    fs::create_dir_all(&drop_ins)?;
    File::create_new(drop_ins.join("clean.conf"))
}

/// Reads the partitions' boot sectors. It does not return if it could give up its rights: a return would need them.
#[allow(unsafe_code)]
fn look(source: &Source, partitions: &[File], condition: &File) -> ExitCode {
    // SAFETY: takes no pointers. From here on, no memory is allocated and nothing is dropped.
    if unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_STRICT) } != 0 {
        return ExitCode::FAILURE;
    }
    let mut sector = [0u8; SECTOR];
    let mut clean = 0;
    for partition in partitions {
        // SAFETY: the buffer has this many bytes.
        let read = unsafe {
            libc::read(
                partition.as_raw_fd(),
                sector.as_mut_ptr().cast(),
                sector.len(),
            )
        };
        if usize::try_from(read) != Ok(sector.len()) || !source.is(&sector) {
            continue;
        }
        if !was_unmounted(&sector) {
            clean = 0;
            break;
        }
        clean += 1;
    }
    if clean > 0 {
        // SAFETY: the buffer has this many bytes.
        unsafe { libc::write(condition.as_raw_fd(), CLEAN.as_ptr().cast(), CLEAN.len()) };
    }
    // SAFETY: ends the only thread. exit_group(2), which std would call, is forbidden by now.
    unsafe { libc::syscall(libc::SYS_exit, 0) };
    ExitCode::FAILURE
}

/// A device, as fstab(5) names it.
#[derive(Debug, PartialEq)]
struct Source {
    /// Its node, or udev's link to that.
    path: PathBuf,
    /// The volume's serial number, if it is named by that.
    serial: Option<u32>,
}

impl Source {
    /// The source of /boot, if this line of fstab has it and it may be FAT.
    fn of_boot(line: &str) -> Option<Self> {
        let mut fields = line.split_whitespace();
        let (spec, place, kind) = (fields.next()?, fields.next()?, fields.next()?);
        if place != BOOT || spec.starts_with('#') || !["vfat", "msdos", "auto"].contains(&kind) {
            return None;
        }
        if spec.starts_with('/') {
            let path = PathBuf::from(spec);
            return Some(Self { path, serial: None });
        }
        let (tag, value) = spec.split_once('=')?;
        let value = value.trim_matches('"');
        Some(Self {
            path: Path::new("/dev/disk")
                .join(format!("by-{}", tag.to_ascii_lowercase()))
                .join(OsStr::from_bytes(&encoded(value.as_bytes()))),
            serial: (tag == "UUID").then(|| serial(value)).flatten(),
        })
    }

    /// The partitions that it may be. udev has not made its links yet, so a serial number is looked for on each
    /// partition.
    fn partitions(&self) -> Vec<File> {
        if self.serial.is_none() {
            return File::open(&self.path).into_iter().collect();
        }
        let all = fs::read_dir("/sys/class/block").into_iter().flatten();
        all.flatten()
            .filter(|entry| entry.path().join("partition").exists())
            .filter_map(|entry| File::open(Path::new("/dev").join(entry.file_name())).ok())
            .collect()
    }

    /// Whether a partition with this boot sector is this one.
    fn is(&self, sector: &[u8; SECTOR]) -> bool {
        self.serial
            .is_none_or(|serial| sector[extended(sector) + 3..].starts_with(&serial.to_le_bytes()))
    }
}

/// Bytes of a FAT partition's boot sector (Microsoft, FAT: General Overview of On-Disk Format, 1.03, "Boot Sector and
/// BPB") that are read.
const SECTOR: usize = 512;

/// Where the boot sector's extended part begins, with BS_DrvNum: at 64 on FAT32, which has no BPB_FATSz16, otherwise at
/// 36. The byte after that is BS_Reserved1, and BS_VolID begins two bytes later.
fn extended(sector: &[u8; SECTOR]) -> usize {
    if sector[22..24] == [0, 0] { 64 } else { 36 }
}

/// Whether it is a boot sector, and of a partition that is not marked as mounted: bit 0 of BS_Reserved1, as Linux and
/// fsck.fat use it (Linux, include/uapi/linux/msdos_fs.h, FAT_STATE_DIRTY).
fn was_unmounted(sector: &[u8; SECTOR]) -> bool {
    sector[510..] == [0x55, 0xAA] && sector[extended(sector) + 1] & 1 == 0
}

/// A FAT volume's serial number as udev shows it: 2661-8777.
fn serial(uuid: &str) -> Option<u32> {
    let (high, low) = uuid.split_once('-')?;
    let half = |digits| u16::from_str_radix(digits, 16).ok().map(u32::from);
    Some(half(high)? << 16 | half(low)?)
}

/// A value as udev encodes it in the name of a link (systemd, src/basic/string-util.c and device-nodes.c,
/// `encode_devnode_name`).
fn encoded(value: &[u8]) -> Vec<u8> {
    let kept = |b: u8| b.is_ascii_alphanumeric() || b"#+-.:=@_".contains(&b) || !b.is_ascii();
    let bytes = value.iter();
    bytes
        .flat_map(|&b| {
            if kept(b) {
                vec![b]
            } else {
                format!("\\x{b:02x}").into_bytes()
            }
        })
        .collect()
}

/// A path as part of a unit's name (systemd.unit(5), "String escaping for inclusion in unit names").
fn escaped(path: &[u8]) -> String {
    let path = path.strip_prefix(b"/").unwrap_or(path);
    let part = |(place, &b): (usize, &u8)| match b {
        b'/' => "-".to_owned(),
        b'.' if place == 0 => "\\x2e".to_owned(),
        b if b.is_ascii_alphanumeric() || b":_.".contains(&b) => char::from(b).to_string(),
        b => format!("\\x{b:02x}"),
    };
    path.iter().enumerate().map(part).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn source(line: &str) -> (String, Option<u32>) {
        let source = Source::of_boot(line).unwrap();
        (source.path.to_str().unwrap().to_owned(), source.serial)
    }

    #[test]
    fn fstab_says_what_boot_is() {
        let path = "/dev/mmcblk0p1\t/boot\tvfat\tdefaults\t0\t0";
        assert_eq!(source(path), ("/dev/mmcblk0p1".into(), None));
        let uuid = ("/dev/disk/by-uuid/2661-8777".into(), Some(0x2661_8777));
        assert_eq!(source("UUID=2661-8777 /boot vfat defaults"), uuid);
        assert_eq!(source("UUID=\"2661-8777\" /boot auto"), uuid);
        let label = "/dev/disk/by-label/my\\x2fcard".into();
        assert_eq!(source("LABEL=my/card /boot vfat"), (label, None));
        for other in [
            "",
            "# /dev/mmcblk0p1 /boot vfat",
            "#/dev/mmcblk0p1 /boot vfat",
            "/dev/mmcblk0p2 / ext4 defaults",
            "/dev/mmcblk0p3 /boot ext4 defaults",
            "/dev/mmcblk0p1 /boot",
            "tmpfs /boot vfat",
        ] {
            assert_eq!(Source::of_boot(other), None, "{other}");
        }
    }

    /// By `systemd-escape --path`.
    #[test]
    fn names_are_escaped_as_systemd_does() {
        assert_eq!(escaped(b"/dev/mmcblk0p1"), "dev-mmcblk0p1");
        let uuid = "dev-disk-by\\x2duuid-2661\\x2d8777";
        assert_eq!(escaped(b"/dev/disk/by-uuid/2661-8777"), uuid);
        let label = "dev-disk-by\\x2dlabel-my\\x5cx2fcard";
        assert_eq!(escaped(br"/dev/disk/by-label/my\x2fcard"), label);
    }

    /// FAT32's fields are not where FAT16's are.
    #[test]
    fn a_boot_sector_says_whether_it_was_unmounted() {
        for (fat_size, state) in [(0, 65), (64, 37)] {
            let mut sector = [0; SECTOR];
            sector[22] = fat_size;
            assert!(!was_unmounted(&sector), "no boot sector");
            sector[510..].copy_from_slice(&[0x55, 0xAA]);
            assert!(was_unmounted(&sector));
            sector[state] = 1;
            assert!(!was_unmounted(&sector));
            sector[state + 2..state + 6].copy_from_slice(&[0x77, 0x87, 0x61, 0x26]);
            let named = |line| Source::of_boot(line).unwrap();
            assert!(named("UUID=2661-8777 /boot vfat").is(&sector));
            assert!(!named("UUID=2661-8778 /boot vfat").is(&sector));
            assert!(named("/dev/mmcblk0p1 /boot vfat").is(&sector));
        }
    }
}
