//! What distinguishes one board from another: the serial number and the machine ID.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::sys::statfs::{FsType, TMPFS_MAGIC, statfs};

use crate::layout::{IDENTITY, Layout};

/// File systems that do not outlive a boot; RAMFS_MAGIC of linux/magic.h.
const MEMORY: [FsType; 2] = [TMPFS_MAGIC, FsType(0x8584_58f6_u32 as _)];

/// The board's serial number from its device tree (16 hexadecimal digits on a Raspberry Pi;
/// Devicetree Specification 0.4, §2.3, `serial-number`), if it has a usable one.
pub fn serial(layout: &Layout) -> Option<String> {
    if layout.is_card() {
        return recorded_serial(layout);
    }
    // What /proc/device-tree points to; /proc itself is hidden from the unit (ProcSubset=pid).
    identifier(layout, "/sys/firmware/devicetree/base/serial-number")
}

/// The serial number in the record of the board's request.
fn recorded_serial(layout: &Layout) -> Option<String> {
    let record = std::fs::read(layout.at(IDENTITY).join("request.json")).ok()?;
    let record: serde_json::Value = serde_json::from_slice(&record).ok()?;
    let serial = record.get("serial")?.as_str()?;
    is_usable(serial).then(|| serial.to_owned())
}

/// The machine ID (machine-id(5)): 32 lowercase hexadecimal digits, which systemd makes at the first boot. Only one on
/// the disk lasts: with a read-only or volatile /etc, systemd mounts /run/machine-id over the file.
pub fn machine_id(layout: &Layout) -> Option<String> {
    let path = layout.at("/etc/machine-id");
    let id = identifier(layout, "/etc/machine-id")?;
    let is_digit = |c: u8| matches!(c, b'0'..=b'9' | b'a'..=b'f');
    let is_id = id.len() == 32 && id.bytes().all(is_digit);
    (is_id && !is_transient(layout, &path)).then_some(id)
}

/// Whether the file is a link to /run/machine-id, or a file in memory mounted over one in a directory that is
/// not (systemd's src/shared/machine-id-setup.c looks for the same before it commits the ID).
fn is_transient(layout: &Layout, path: &Path) -> bool {
    let canonical = |path: &Path| path.canonicalize().ok();
    let run = canonical(&layout.at("/run/machine-id"));
    if run.is_some() && run == canonical(path) {
        return true;
    }
    let device = |path: &Path| path.metadata().map(|m| m.dev()).ok();
    let is_mounted = device(path) != path.parent().and_then(device);
    let in_memory =
        |path: &Path| statfs(path).is_ok_and(|fs| MEMORY.contains(&fs.filesystem_type()));
    is_mounted && in_memory(path)
}

/// The file's text without NUL and white space at its end, if a thing name may consist of it.
fn identifier(layout: &Layout, path: &str) -> Option<String> {
    let text = std::fs::read_to_string(layout.at(path)).ok()?;
    let text = text.trim_end_matches(['\0', '\n', ' ']);
    is_usable(text).then(|| text.to_owned())
}

fn is_usable(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric())
}
