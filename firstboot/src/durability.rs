//! Whether what is written to a path survives a power cut: an identity in memory would be a new one at each boot, and
//! each would request a certificate.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::layout::{IDENTITY, Layout};

/// Maximum depth of overlays on overlays and loop devices on those: more than anybody builds.
const MOST_LAYERS: usize = 8;

/// Why an identity would not survive a power cut on this device, and what to do about it.
///
/// A tree under `--root` that is in memory as a whole is a copy, and not what a device boots from.
pub fn objection(layout: &Layout) -> Option<String> {
    let identity = layout.at(IDENTITY);
    let beside = identity.parent()?;
    let there = beside.ancestors().find(|path| path.is_dir())?;
    let root = layout.at("/");
    if let Some(why) = lies_in_memory(there, MOST_LAYERS)
        && (root == Path::new("/") || lies_in_memory(&root, MOST_LAYERS).is_none())
    {
        return Some(format!(
            "{} is in memory ({why}): an identity created there would be lost with the power, and each boot would \
             create another. Mount persistent storage at /var/lib before firstboot.service starts; with a read-only \
             root, remove /var/lib from VOLATILE_BINDS",
            beside.display()
        ));
    }
    let device = |path: &Path| fs::metadata(path).ok().map(|metadata| metadata.dev());
    let separate = identity.is_dir() && device(&identity) != device(beside);
    separate.then(|| {
        format!(
            "{} is a mount point: firstboot builds an identity beside it and renames it, which does not work across \
             file systems. Mount that storage at /var/lib",
            identity.display()
        )
    })
}

/// Why a path does not survive a power cut, as far as the kernel tells (proc(5), /proc/pid/mountinfo).
fn lies_in_memory(path: &Path, layers: usize) -> Option<String> {
    let layers = layers.checked_sub(1)?;
    let mount = Mount::of(path)?;
    match mount.kind.as_str() {
        // rootfs is an initramfs.
        "tmpfs" | "ramfs" | "rootfs" => Some(mount.kind),
        // Linux, Documentation/filesystems/overlayfs.rst: writes go to the upper directory.
        "overlay" => {
            // Linux 6.18 shows it as fsync=volatile.
            if mount.option("volatile").is_some() || mount.option("fsync") == Some("volatile") {
                return Some("an overlay mounted with the option volatile".into());
            }
            // If an initramfs has mounted it, its name may mean nothing here: then it is unknown.
            let why = lies_in_memory(Path::new(mount.option("upperdir")?), layers)?;
            Some(format!("an overlay, with its upper directory in {why}"))
        }
        _ => block_device_in_memory(&mount.block_device()?, layers),
    }
}

/// Why a block device, by its directory in sysfs, does not survive a power cut: zram and brd (the kernel's modules for
/// disks in memory), or devices on top of them.
fn block_device_in_memory(device: &Path, layers: usize) -> Option<String> {
    let layers = layers.checked_sub(1)?;
    let mut device = device.to_path_buf();
    if device.join("partition").exists() {
        device.pop();
    }
    let name = device.file_name()?.to_str()?;
    let is_numbered = |prefix| {
        let number = name.strip_prefix(prefix);
        number.is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()))
    };
    if is_numbered("zram") || is_numbered("ram") {
        return Some(format!("the block device {name}"));
    }
    if let Ok(file) = fs::read_to_string(device.join("loop/backing_file")) {
        let why = lies_in_memory(Path::new(file.trim_end()).parent()?, layers)?;
        return Some(format!("{name}, a file in {why}"));
    }
    // dm-crypt, LVM, RAID
    let below = fs::read_dir(device.join("slaves")).into_iter().flatten();
    let mut below = below.filter_map(|entry| fs::canonicalize(entry.ok()?.path()).ok());
    below.find_map(|device| block_device_in_memory(&device, layers))
}

/// A line of /proc/self/mountinfo.
struct Mount {
    /// "major:minor"
    device: String,
    point: PathBuf,
    kind: String,
    source: PathBuf,
    options: String,
}

impl Mount {
    /// The mount that a path is on: of several at the same point, the last is on top.
    fn of(path: &Path) -> Option<Self> {
        let path = fs::canonicalize(path).ok()?;
        fs::read_to_string("/proc/self/mountinfo")
            .ok()?
            .lines()
            .filter_map(Self::parse)
            .filter(|mount| path.starts_with(&mount.point))
            .max_by_key(|mount| mount.point.components().count())
    }

    fn parse(line: &str) -> Option<Self> {
        // 36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue
        let (before, after) = line.split_once(" - ")?;
        let mut before = before.split(' ').skip(2);
        let (device, point) = (before.next()?, before.nth(1)?);
        let mut after = after.splitn(3, ' ');
        Some(Self {
            device: device.to_owned(),
            point: unescaped(point).into(),
            kind: after.next()?.to_owned(),
            source: unescaped(after.next()?).into(),
            options: unescaped(after.next()?),
        })
    }

    fn option(&self, wanted: &str) -> Option<&str> {
        self.options.split(',').find_map(|option| {
            let (name, value) = option.split_once('=').unwrap_or((option, ""));
            (name == wanted).then_some(value)
        })
    }

    /// Its directory in sysfs, if it is on one: by its number or, if that is the file system's own (btrfs), by its
    /// name.
    fn block_device(&self) -> Option<PathBuf> {
        let by_number = Path::new("/sys/dev/block").join(&self.device);
        fs::canonicalize(by_number).ok().or_else(|| {
            let source = fs::canonicalize(&self.source).ok()?;
            let name = source.strip_prefix("/dev").ok()?.file_name()?;
            fs::canonicalize(Path::new("/sys/class/block").join(name)).ok()
        })
    }
}

/// Spaces, tabs, newlines and backslashes are written as three octal digits (proc(5)).
fn unescaped(field: &str) -> String {
    [
        ("\\040", " "),
        ("\\011", "\t"),
        ("\\012", "\n"),
        ("\\134", "\\"),
    ]
    .iter()
    .fold(field.to_owned(), |text, (code, c)| text.replace(code, c))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_mountinfo_is_read() {
        let line = "31 24 0:28 / /var/my\\040lib rw,relatime shared:5 master:2 - overlay overlay \
                    rw,lowerdir=/a:/b,upperdir=/run/up,workdir=/run/work";
        let mount = Mount::parse(line).unwrap();
        assert_eq!(mount.point, Path::new("/var/my lib"));
        assert_eq!(
            (mount.device.as_str(), mount.kind.as_str()),
            ("0:28", "overlay")
        );
        assert_eq!(mount.option("upperdir"), Some("/run/up"));
        assert_eq!(mount.option("volatile"), None);
        assert!(Mount::parse("nothing of the kind").is_none());
    }

    #[test]
    fn this_machines_own_memory_is_known() {
        assert!(lies_in_memory(Path::new("/dev/shm"), MOST_LAYERS).is_some());
        assert!(lies_in_memory(Path::new("/proc"), MOST_LAYERS).is_none());
    }
}
