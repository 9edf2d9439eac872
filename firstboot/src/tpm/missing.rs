//! Why there is no TPM to open, by the kernel's view of the board.
//!
//! The overlay adds a node to the device tree, below an SPI controller's (memory-mapped, as in QEMU, below a bus). The
//! controller's driver creates a device for it, if its chip select is free; the TPM's driver starts the chip, and is
//! then linked there as `driver` (Linux, Documentation/ABI/testing/sysfs-bus-*, sysfs-firmware-ofw and sysfs-class-tpm,
//! and Documentation/devicetree/bindings/tpm/). The first link of that chain that is missing is the cause.

use std::fs;
use std::path::{Path, PathBuf};

use crate::layout::Layout;

const TREE: &str = "/sys/firmware/devicetree/base";
const SPI_DEVICES: &str = "/sys/bus/spi/devices";
const PLATFORM_DEVICES: &str = "/sys/bus/platform/devices";
const TPM_CLASS: &str = "/sys/class/tpm";
/// What the supported drivers accept: SPI, and memory-mapped (tcg,tpm_tis-spi.yaml, tcg,tpm-tis-mmio.yaml).
const KNOWN: [&str; 3] = ["infineon,slb9670", "tcg,tpm_tis-spi", "tcg,tpm-tis-mmio"];
/// A Raspberry Pi 5's SPI controllers are six nodes deep.
const DEEPEST: usize = 12;

/// What the operator should check first.
pub fn advice(layout: &Layout) -> String {
    let spi = devices(layout, SPI_DEVICES);
    let platform = devices(layout, PLATFORM_DEVICES);
    if let Some(device) = spi.iter().chain(&platform).find(|device| device.is_tpm()) {
        return advice_on_device(layout, device);
    }
    let mut nodes = Vec::new();
    find_tpms(&layout.at(TREE), DEEPEST, &mut nodes);
    // An enabled one, if any.
    nodes.sort_by_key(|node| is_disabled(node));
    match nodes.first() {
        None => "The device tree has no TPM: does config.txt load the overlay (dtoverlay=tpm-slb9670), and is SPI enabled?".into(),
        Some(node) => advice_on_node(layout, node, &spi, &platform),
    }
}

/// The kernel has created a device for the node.
fn advice_on_device(layout: &Layout, device: &Device) -> String {
    let compatible = device.compatible.join(", ");
    if device.driver.is_some() {
        return if is_version_1(layout) {
            format!(
                "The kernel identified it as a TPM 1.2 ({compatible}), but firstboot needs a TPM 2.0. If the chip is one, it \
                 answered wrongly when the driver probed it: switch the power off and on"
            )
        } else {
            format!(
                "The kernel's driver has started it ({compatible}): is there a /dev/tpmrm0, and may firstboot open it?"
            )
        };
    }
    if !device
        .compatible
        .iter()
        .any(|name| KNOWN.contains(&name.as_str()))
    {
        return format!(
            "The device tree has a TPM without a driver ({compatible}): for an SLB, SLI or SLM 9670, use the overlay \
             tpm-slb9670 in config.txt"
        );
    }
    format!(
        "The overlay is loaded, but no driver has started the chip ({compatible}). Is the board seated on the header, and \
         is the module loaded (modprobe tpm_tis_spi)? If so, the chip did not respond: is it on the other chip select \
         (tpm-slb9670 is CE1, tpm-slb9670-ce0 is CE0), clocked too fast for the wiring (try speed=10000000), or held in \
         reset by a pin that another overlay uses? It may be in failure mode: switch the power off and on; a reboot does \
         not reset it. `dmesg | grep -i tpm` shows what the driver says"
    )
}

/// There is only the node, and no device.
fn advice_on_node(layout: &Layout, node: &Path, spi: &[Device], platform: &[Device]) -> String {
    let name = node.strip_prefix(layout.at(TREE)).unwrap_or(node).display();
    if is_disabled(node) {
        return format!(
            "The device tree disables the TPM (/{name} has status \"disabled\"): load the overlay after whatever disables \
             it, or remove that from config.txt"
        );
    }
    let Some(controller) = node.parent() else {
        return format!("The kernel has created no device for /{name} of the device tree");
    };
    let select = number(&node.join("reg"));
    let is_neighbour = |device: &&Device| {
        device.node.parent() == Some(controller) && select.is_some() && device.select() == select
    };
    if let Some(holder) = spi.iter().find(is_neighbour) {
        return format!(
            "The TPM's chip select (CE{} of its SPI controller) is used by another device, {} ({}): remove that \
             device's overlay from config.txt, or move one of the two to the other chip select (tpm-slb9670 is CE1, \
             tpm-slb9670-ce0 is CE0)",
            select.unwrap_or_default(),
            holder.name,
            holder.compatible.join(", ")
        );
    }
    let file_name = controller.file_name().unwrap_or_default().to_string_lossy();
    if !file_name.starts_with("spi") {
        return format!(
            "The device tree has the TPM (/{name}), but the kernel has created no device for it: `dmesg | grep -i tpm` may say \
             why"
        );
    }
    if is_disabled(controller) {
        return format!(
            "The TPM's SPI controller ({file_name}) is disabled: add dtparam=spi=on to config.txt"
        );
    }
    let its_device = platform.iter().find(|device| device.node == controller);
    let has_bus = spi
        .iter()
        .any(|device| device.node.parent() == Some(controller))
        || its_device.is_some_and(|device| device.driver.is_some());
    if has_bus {
        return format!(
            "The TPM's SPI controller ({file_name}) is running, but has created no device for /{name} of the device tree: \
             `dmesg | grep -i spi` says why"
        );
    }
    format!(
        "The device tree has the TPM, but its SPI controller ({file_name}) is not running: does the kernel have its driver \
         (CONFIG_SPI_BCM2835; on a Pi 5 CONFIG_SPI_DW_MMIO), or does another overlay use its pins? `dmesg | grep -i \
         -e spi -e pinctrl` says which"
    )
}

/// A kernel device with a node in the device tree.
struct Device {
    /// Such as spi0.1.
    name: String,
    node: PathBuf,
    /// Its `compatible` strings, the most specific first.
    compatible: Vec<String>,
    /// The driver that has started it.
    driver: Option<PathBuf>,
}

impl Device {
    fn is_tpm(&self) -> bool {
        is_tpm(&self.compatible)
    }

    /// The chip select on its bus.
    fn select(&self) -> Option<u32> {
        number(&self.node.join("reg"))
    }
}

fn devices(layout: &Layout, bus: &str) -> Vec<Device> {
    let entries = fs::read_dir(layout.at(bus)).into_iter().flatten();
    let mut found: Vec<_> = entries
        .filter_map(|entry| {
            let entry = entry.ok()?;
            let node = fs::canonicalize(entry.path().join("of_node")).ok()?;
            Some(Device {
                name: entry.file_name().to_string_lossy().into_owned(),
                compatible: compatible(&node)?,
                driver: fs::canonicalize(entry.path().join("driver")).ok(),
                node,
            })
        })
        .collect();
    found.sort_by(|a, b| a.name.cmp(&b.name));
    found
}

/// Adds every TPM's node at or below `node`.
fn find_tpms(node: &Path, depth: usize, found: &mut Vec<PathBuf>) {
    if compatible(node).is_some_and(|names| is_tpm(&names)) {
        // The same form as in `devices`.
        found.extend(fs::canonicalize(node));
    }
    let Some(depth) = depth.checked_sub(1) else {
        return;
    };
    for entry in fs::read_dir(node).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            find_tpms(&entry.path(), depth, found);
        }
    }
}

/// A node's `compatible`: a list of NUL-terminated strings (Devicetree Specification 0.4, §2.3.1).
fn compatible(node: &Path) -> Option<Vec<String>> {
    let list = fs::read(node.join("compatible")).ok()?;
    let list = String::from_utf8_lossy(&list);
    let names = list.split('\0').filter(|name| !name.is_empty());
    Some(names.map(str::to_owned).collect())
}

fn is_tpm(compatible: &[String]) -> bool {
    let words = ["tpm", "slb96"];
    compatible
        .iter()
        .any(|name| words.iter().any(|word| name.contains(word)))
}

/// Whether a node is disabled: any status except "okay" and its older form (Devicetree Specification 0.4, §2.3.4).
fn is_disabled(node: &Path) -> bool {
    let status = fs::read_to_string(node.join("status"));
    status.is_ok_and(|status| !matches!(status.trim_end_matches('\0'), "okay" | "ok"))
}

/// A property's first cell: 32 bits, big-endian (Devicetree Specification 0.4, §2.2.4).
fn number(property: &Path) -> Option<u32> {
    let cells = fs::read(property).ok()?;
    Some(u32::from_be_bytes(cells.get(..4)?.try_into().ok()?))
}

/// Whether the kernel has TPMs, but none of version 2.
fn is_version_1(layout: &Layout) -> bool {
    let tpms = fs::read_dir(layout.at(TPM_CLASS)).into_iter().flatten();
    let versions: Vec<_> = tpms
        .flatten()
        .filter_map(|tpm| fs::read_to_string(tpm.path().join("tpm_version_major")).ok())
        .collect();
    !versions.is_empty() && versions.iter().all(|version| version.trim() == "1")
}
