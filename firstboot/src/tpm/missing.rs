//! Why there is no TPM to open, as far as the kernel's picture of the board tells it.
//!
//! The overlay adds a node to the device tree, below an SPI controller's (memory-mapped, as in QEMU, below a bus). The
//! controller's driver makes a device of it, if its chip select is free; the TPM's driver starts the chip, and is then
//! linked there as `driver` (Linux, Documentation/ABI/testing/sysfs-bus-*, sysfs-firmware-ofw and sysfs-class-tpm,
//! and Documentation/devicetree/bindings/tpm/). The first link of that chain that is missing is the cause.

use std::fs;
use std::path::{Path, PathBuf};

use crate::layout::Layout;

const TREE: &str = "/sys/firmware/devicetree/base";
const SPI_DEVICES: &str = "/sys/bus/spi/devices";
const PLATFORM_DEVICES: &str = "/sys/bus/platform/devices";
const TPM_CLASS: &str = "/sys/class/tpm";
/// What the drivers that firstboot is used with take: SPI, and memory-mapped (tcg,tpm_tis-spi.yaml,
/// tcg,tpm-tis-mmio.yaml).
const KNOWN: [&str; 3] = ["infineon,slb9670", "tcg,tpm_tis-spi", "tcg,tpm-tis-mmio"];
/// A Raspberry Pi 5's SPI controllers are six nodes deep.
const DEEPEST: usize = 12;

/// What the operator should look at first.
pub fn advice(layout: &Layout) -> String {
    let spi = devices(layout, SPI_DEVICES);
    let platform = devices(layout, PLATFORM_DEVICES);
    if let Some(device) = spi.iter().chain(&platform).find(|device| device.is_tpm()) {
        return advice_on_device(layout, device);
    }
    let mut nodes = Vec::new();
    find_tpms(&layout.at(TREE), DEEPEST, &mut nodes);
    // One that is switched on, if there is any.
    nodes.sort_by_key(|node| is_disabled(node));
    match nodes.first() {
        None => "The device tree has no TPM: is the overlay in config.txt (dtoverlay=tpm-slb9670), and is SPI on?".into(),
        Some(node) => advice_on_node(layout, node, &spi, &platform),
    }
}

/// The kernel has made a device of the node.
fn advice_on_device(layout: &Layout, device: &Device) -> String {
    let compatible = device.compatible.join(", ");
    if device.driver.is_some() {
        return if is_version_1(layout) {
            format!(
                "The kernel takes it for a TPM 1.2 ({compatible}), and firstboot needs a TPM 2.0: is the chip one of \
                 those? Where it is not, it answered wrongly when the driver started: switch the power off and on"
            )
        } else {
            format!(
                "The kernel's driver runs it ({compatible}): is there a /dev/tpmrm0, and who may open it?"
            )
        };
    }
    if !device
        .compatible
        .iter()
        .any(|name| KNOWN.contains(&name.as_str()))
    {
        return format!(
            "The device tree has a TPM for which no driver is loaded ({compatible}): for an SLB, SLI or SLM 9670 the \
             overlay in config.txt is tpm-slb9670"
        );
    }
    format!(
        "The overlay is loaded, and no driver has started the chip ({compatible}): does the board sit on the header, is \
         the module loaded (modprobe tpm_tis_spi)? Then the chip did not answer: is it on the other chip select \
         (tpm-slb9670 is CE1, tpm-slb9670-ce0 is CE0), too fast for the wiring (speed=10000000), or held in reset by a \
         line that another overlay has? It may be in failure mode: switch the power off and on, a reboot does not \
         reset it. `dmesg | grep -i tpm` has the driver's words"
    )
}

/// There is only the node.
fn advice_on_node(layout: &Layout, node: &Path, spi: &[Device], platform: &[Device]) -> String {
    let name = node.strip_prefix(layout.at(TREE)).unwrap_or(node).display();
    if is_disabled(node) {
        return format!(
            "The device tree's TPM is switched off (/{name} has status \"disabled\"): load the overlay after what \
             does that, or take it out of config.txt"
        );
    }
    let Some(controller) = node.parent() else {
        return format!("The kernel has made no device of the device tree's /{name}");
    };
    let select = number(&node.join("reg"));
    let is_neighbour = |device: &&Device| {
        device.node.parent() == Some(controller) && select.is_some() && device.select() == select
    };
    if let Some(holder) = spi.iter().find(is_neighbour) {
        return format!(
            "The chip select of the TPM (CE{} of that SPI controller) is taken by another device, {} ({}): take its \
             overlay out of config.txt, or move one of them to the other chip select (tpm-slb9670 is CE1, \
             tpm-slb9670-ce0 is CE0)",
            select.unwrap_or_default(),
            holder.name,
            holder.compatible.join(", ")
        );
    }
    let file_name = controller.file_name().unwrap_or_default().to_string_lossy();
    if !file_name.starts_with("spi") {
        return format!(
            "The device tree has the TPM (/{name}), and the kernel has made no device of it: `dmesg | grep -i tpm`"
        );
    }
    if is_disabled(controller) {
        return format!(
            "The SPI controller of the TPM ({file_name}) is switched off: dtparam=spi=on in config.txt"
        );
    }
    let its_device = platform.iter().find(|device| device.node == controller);
    let has_bus = spi
        .iter()
        .any(|device| device.node.parent() == Some(controller))
        || its_device.is_some_and(|device| device.driver.is_some());
    if has_bus {
        return format!(
            "The SPI controller of the TPM ({file_name}) runs, and has made no device of the device tree's /{name}: \
             `dmesg | grep -i spi` says why"
        );
    }
    format!(
        "The device tree has the TPM, and its SPI controller ({file_name}) does not run: is its driver in the kernel \
         (CONFIG_SPI_BCM2835; on a Pi 5 CONFIG_SPI_DW_MMIO), or are its pins taken by another overlay? `dmesg | grep \
         -i -e spi -e pinctrl` says which"
    )
}

/// A device of the kernel's that has a node in the device tree.
struct Device {
    /// Such as spi0.1.
    name: String,
    node: PathBuf,
    /// What drivers know it by, the most specific first.
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

/// Every node of a TPM at or below one.
fn find_tpms(node: &Path, depth: usize, found: &mut Vec<PathBuf>) {
    if compatible(node).is_some_and(|names| is_tpm(&names)) {
        // As `devices` has it.
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

/// A node's `compatible`: a list of strings, each with its NUL (Devicetree Specification 0.4, §2.3.1).
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

/// Whether a node is switched off: all but "okay" and its older form (Devicetree Specification 0.4, §2.3.4).
fn is_disabled(node: &Path) -> bool {
    let status = fs::read_to_string(node.join("status"));
    status.is_ok_and(|status| !matches!(status.trim_end_matches('\0'), "okay" | "ok"))
}

/// A property's first cell: 32 bits, big-endian (Devicetree Specification 0.4, §2.2.4).
fn number(property: &Path) -> Option<u32> {
    let cells = fs::read(property).ok()?;
    Some(u32::from_be_bytes(cells.get(..4)?.try_into().ok()?))
}

/// Whether the kernel has a TPM, and none of version 2.
fn is_version_1(layout: &Layout) -> bool {
    let tpms = fs::read_dir(layout.at(TPM_CLASS)).into_iter().flatten();
    let versions: Vec<_> = tpms
        .flatten()
        .filter_map(|tpm| fs::read_to_string(tpm.path().join("tpm_version_major")).ok())
        .collect();
    !versions.is_empty() && versions.iter().all(|version| version.trim() == "1")
}
