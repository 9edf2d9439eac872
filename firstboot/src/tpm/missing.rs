//! Why there is no TPM to open, as far as the kernel's picture of the board tells it.
//!
//! The overlay adds a node to the device tree, from which the kernel makes a device on the SPI bus (on the platform
//! bus where the TPM is memory-mapped, as in QEMU); a driver that has started the chip is then linked there as
//! `driver` (Linux, Documentation/ABI/testing/sysfs-bus-*, and Documentation/devicetree/bindings/tpm/).

use std::fs;
use std::path::PathBuf;

use crate::layout::Layout;

const BUSES: [&str; 2] = ["/sys/bus/spi/devices", "/sys/bus/platform/devices"];
/// What the drivers that firstboot is used with take: SPI, and memory-mapped (tcg,tpm_tis-spi.yaml,
/// tcg,tpm-tis-mmio.yaml).
const KNOWN: [&str; 3] = ["infineon,slb9670", "tcg,tpm_tis-spi", "tcg,tpm-tis-mmio"];

/// What the operator should look at first.
pub fn advice(layout: &Layout) -> String {
    match node(layout) {
        None => "The device tree has no TPM: is the overlay in config.txt (dtoverlay=tpm-slb9670), and is SPI on?".into(),
        Some(Node { compatible, driven: true }) => format!(
            "The kernel's driver runs it ({compatible}): is there a /dev/tpmrm0, and who may open it?"
        ),
        Some(Node { compatible, .. }) if !KNOWN.iter().any(|known| compatible.contains(known)) => format!(
            "The device tree has a TPM for which no driver is loaded ({compatible}): for an SLB, SLI or SLM 9670 \
             the overlay in config.txt is tpm-slb9670"
        ),
        Some(Node { compatible, .. }) => format!(
            "The overlay is loaded, and no driver has started the chip ({compatible}): does the board sit on the \
             header, is the module loaded (modprobe tpm_tis_spi)? The TPM may be in failure mode: switch the \
             power off and on. `dmesg | grep -i tpm` has the driver's words"
        ),
    }
}

/// A TPM as the device tree has it.
struct Node {
    /// What drivers know it by, the most specific first.
    compatible: String,
    /// A driver has started it.
    driven: bool,
}

fn node(layout: &Layout) -> Option<Node> {
    BUSES
        .iter()
        .filter_map(|bus| fs::read_dir(layout.at(bus)).ok())
        .flatten()
        .filter_map(|entry| described(entry.ok()?.path()))
        .next()
}

fn described(device: PathBuf) -> Option<Node> {
    let compatible = fs::read(device.join("of_node/compatible")).ok()?;
    // A list of strings, each with its NUL (Devicetree Specification 0.4, §2.3.1).
    let compatible = String::from_utf8_lossy(&compatible);
    let compatible = compatible.trim_end_matches('\0').replace('\0', ", ");
    let is_tpm = ["tpm", "slb9670"]
        .iter()
        .any(|word| compatible.contains(word));
    is_tpm.then(|| Node {
        compatible,
        driven: device.join("driver").exists(),
    })
}
