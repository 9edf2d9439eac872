//! A machine's card and TPM on the bench: what firstboot of this machine makes of them, without booting.

use std::fs::create_dir_all;

use anyhow::Result;

use super::Machine;
use crate::device::{Device, SERIAL};

/// What firstboot looks at, on the ext4 partition, and the directory that it is in.
const PLACES: [(&str, &str); 4] = [
    ("/etc", ""),
    ("/var/lib", "var"),
    ("/usr/lib/firstboot", "usr/lib"),
    ("/greengrass", ""),
];

impl Machine {
    /// The device that this machine is: copies of its files and of its TPM's state. The card's journal has to
    /// have been replayed ([`Card::check`](super::Card::check)), as the kernel does it when it mounts.
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
