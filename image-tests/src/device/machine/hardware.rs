//! The hardware: QEMU's `virt` board, a TPM, and the device tree that describes them.

use std::path::Path;
use std::process::Command;

use anyhow::Result;

use super::built;
use crate::device::SERIAL;
use crate::process::{bounded, succeed};

/// What the device tree says about the TPM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overlay {
    /// A node for the TPM that is there.
    Right,
    /// A node for another chip, for which the kernel has no driver.
    Wrong,
}

/// The TPM on the board.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tpm {
    Present,
    /// Not fitted, and not in the device tree.
    Absent,
    /// No driver matches it until `late-tpm.service` clears its `driver_override` and the kernel probes again.
    Late,
    /// Its storage breaks before the kernel's first command, which puts it into failure mode.
    Broken,
}

#[derive(Clone, Debug)]
pub struct Hardware {
    pub tpm: Tpm,
    pub overlay: Overlay,
    /// The loopback port of a test's broker on this host. The guest reaches it, and nothing else, as broker.test:8883;
    /// otherwise it has no network.
    pub broker: Option<u16>,
    /// In place of the broker's network, an interface of this host at the other end of the cable (TAP). The guest's is
    /// eth0 then, with the address 10.0.2.15/24.
    pub tap: Option<&'static str>,
    /// Whether that network's cable is plugged in; see [`Running::plug_in`](super::Running::plug_in).
    pub plugged_in: bool,
}

impl Default for Hardware {
    fn default() -> Self {
        Self {
            tpm: Tpm::Present,
            overlay: Overlay::Right,
            broker: None,
            tap: None,
            plugged_in: true,
        }
    }
}

/// Always TCG: even if there is KVM, a stock kernel may not boot on it.
const MACHINE: [&str; 8] = [
    "-accel",
    "tcg",
    "-cpu",
    "cortex-a72",
    "-smp",
    "1",
    "-m",
    "512",
];

/// The guest's clock advances by two nanoseconds per instruction, and by itself only while the guest is idle: on a busy
/// host, its systemd's time limits allow as much work as on an idle one.
const CLOCK: [&str; 2] = ["-icount", "shift=1,sleep=on"];

/// Switches off what is not tested here and slow under translation: the Meltdown mitigation's page tables, which flush
/// the TLB at each system call (a boot with them takes half as long again), and unused initializations.
const FASTER: &str = "nokaslr mitigations=off \
    initcall_blacklist=jent_mod_init,init_kprobe_trace,bpf_tcp_ca_kfunc_init,bpf_dummy_struct_ops_init";

const COMMAND_LINE: &str =
    "root=/dev/nvme0n1p2 rw console=ttyAMA0 panic=-1 systemd.show_status=yes";

impl Hardware {
    /// QEMU with everything but the TPM, the card and the channels.
    pub(super) fn qemu(&self, device_tree: &Path) -> Result<Command> {
        let mut qemu = Command::new("qemu-system-aarch64");
        qemu.args(["-M", "virt"]).args(MACHINE).args(CLOCK);
        qemu.args(["-nodefaults", "-display", "none", "-no-reboot"]);
        qemu.arg("-kernel").arg(built("kernel")?);
        qemu.arg("-dtb").arg(device_tree);
        let mut line = format!("{COMMAND_LINE} {FASTER}");
        let network = match (self.broker, self.tap) {
            // A command for each connection: QEMU itself would make a single one, at once.
            (Some(port), _) => Some(format!(
                "user,id=broker,restrict=on,guestfwd=tcp:10.0.2.100:8883-cmd:nc 127.0.0.1 {port}"
            )),
            (None, Some(tap)) => Some(format!(
                "tap,id=broker,ifname={tap},script=no,downscript=no"
            )),
            (None, None) => None,
        };
        if let Some(network) = network {
            // The guest configures its network only if its command line says so.
            line.push_str(" broker");
            qemu.arg("-netdev").arg(network);
            // Nothing boots from it, and its ROM is in a separate package.
            qemu.args(["-device", "virtio-net-pci,netdev=broker,romfile="]);
        }
        if self.tap.is_some() {
            // Names by the kernel: settings name the interface.
            line.push_str(" net.ifnames=0");
        }
        if self.tpm == Tpm::Late {
            line.push_str(" late-tpm");
        }
        qemu.args(["-append", &line]);
        Ok(qemu)
    }

    /// Writes the device tree that the firmware would pass to the kernel: QEMU's own with the serial number, and the
    /// TPM on the platform bus (Documentation/devicetree/bindings/tpm/tcg,tpm-tis-mmio.yaml).
    pub(super) fn device_tree(&self, path: &Path) -> Result<()> {
        let mut dump = bounded("qemu-system-aarch64");
        dump.arg("-M")
            .arg(format!("virt,dumpdtb={}", path.display()));
        succeed(dump.args(MACHINE).args(["-nodefaults", "-display", "none"]))?;
        let put = |arguments: &[&str]| {
            let mut fdtput = bounded("fdtput");
            succeed(
                fdtput
                    .arg("-t")
                    .arg(arguments[0])
                    .arg(path)
                    .args(&arguments[1..]),
            )
        };
        put(&["s", "/", "serial-number", SERIAL])?;
        if self.tpm == Tpm::Absent {
            return Ok(());
        }
        const NODE: &str = "/platform-bus@c000000/tpm_tis@0";
        succeed(bounded("fdtput").arg("-c").arg(path).arg(NODE))?;
        let compatible = match self.overlay {
            Overlay::Right => "tcg,tpm-tis-mmio",
            Overlay::Wrong => "atmel,attpm20p",
        };
        put(&["s", NODE, "compatible", compatible])?;
        // The TIS registers of five localities.
        put(&["x", NODE, "reg", "0", "5000"])?;
        Ok(())
    }
}
