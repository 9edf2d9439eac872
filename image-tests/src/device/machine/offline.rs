//! A machine's card and TPM without booting, for firstboot on this host.

use std::fs::create_dir_all;

use anyhow::Result;

use super::Machine;
use crate::device::{Device, SERIAL};

/// The directories on the ext4 partition that firstboot uses, and their parents.
const PLACES: [(&str, &str); 4] = [
    ("/etc", ""),
    ("/var/lib", "var"),
    ("/usr/lib/firstboot", "usr/lib"),
    ("/greengrass", ""),
];

impl Machine {
    /// The device from copies of the machine's files and of its TPM's state. The file system's journal has to be
    /// replayed before ([`Card::check`](super::Card::check)), as the kernel does when it mounts.
    pub fn offline(&self) -> Result<Device> {
        let tree = tempfile::Builder::new().prefix("bench-").tempdir()?;
        let at = |path: &str| tree.path().join(path);
        for (place, parent) in PLACES {
            create_dir_all(at(parent))?;
            self.card.copy_ext4(place, &at(parent))?;
        }
        create_dir_all(at("boot"))?;
        self.card.copy_fat("firstboot", &at("boot"))?;
        create_dir_all(at("run"))?;
        create_dir_all(at("sys/firmware/devicetree/base"))?;
        std::fs::write(at("sys/firmware/devicetree/base/serial-number"), SERIAL)?;
        Device::copy_of(tree.path(), &self.tpm_state())
    }
}
