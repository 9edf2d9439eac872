//! What tells one board from another: the serial number and the machine ID.

use crate::layout::Layout;

/// The board's serial number from its device tree (16 hexadecimal digits on a Raspberry Pi;
/// Devicetree Specification 0.4, §2.3, `serial-number`), if it has a usable one.
pub fn serial(layout: &Layout) -> Option<String> {
    // What /proc/device-tree points to; /proc itself is hidden from the unit (ProcSubset=pid).
    identifier(layout, "/sys/firmware/devicetree/base/serial-number")
}

/// The machine ID (machine-id(5)): made by systemd at the first boot, unlike the serial number.
pub fn machine_id(layout: &Layout) -> Option<String> {
    identifier(layout, "/etc/machine-id")
}

/// The file's text without NUL and white space at its end, if a thing name may consist of it.
fn identifier(layout: &Layout, path: &str) -> Option<String> {
    let text = std::fs::read_to_string(layout.at(path)).ok()?;
    let text = text.trim_end_matches(['\0', '\n', ' ']);
    let usable = !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric());
    usable.then(|| text.to_owned())
}
