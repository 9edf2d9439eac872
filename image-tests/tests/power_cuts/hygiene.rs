//! Starting over many times on an SLB 9670, which has room for seven persistent objects: neither the TPM nor the disk
//! fills up, and the last time costs what the first did.

use anyhow::Result;
use image_tests::clients::KeyType;
use image_tests::device::{Device, offline_settings};
use image_tests::doubles::tpm_proxy::Firmware;
use image_tests::faults::power_cut::Rig;

/// More in `make sweep`.
fn cycles() -> usize {
    if std::env::var_os("SWEEP").is_some() {
        1000
    } else {
        30
    }
}

fn disk_use(device: &Device) -> Result<(usize, usize)> {
    let snapshot = device.snapshot()?;
    Ok((snapshot.entries().len(), snapshot.bytes()))
}

#[test]
fn starting_over_fills_up_neither_the_tpm_nor_the_disk() -> Result<()> {
    for firmware in [Firmware::V7_63, Firmware::V7_85] {
        let device = Device::unprovisioned()?;
        device.settings(&offline_settings("nucleus-lite", KeyType::EccP256))?;
        let mut rig = Rig::new(device, firmware)?;
        rig.run("provision")?;
        let mut seen = Vec::new();
        for cycle in 0..cycles() {
            let (code, said, _) = rig.run("reset")?;
            assert_eq!(code, 0, "cycle {cycle}: {said}");
            let (code, said, commands) = rig.run("provision")?;
            assert_eq!(code, 0, "cycle {cycle}: {said}");
            let handles = rig.device.tpm.upstream().handles(0x8100_0000)?;
            assert_eq!(handles, [0x8100_0001], "cycle {cycle}");
            seen.push((commands, disk_use(&rig.device)?));
        }
        // The first two cycles still add identities that are kept.
        let (commands, disk) = seen[2];
        for (cycle, later) in seen.iter().enumerate().skip(2) {
            assert_eq!(later.0, commands, "TPM commands of cycle {cycle}");
            // Numbers in names and a store's YAML grow by a digit now and then.
            assert_eq!(later.1.0, disk.0, "files after cycle {cycle}");
            assert!(
                later.1.1.abs_diff(disk.1) < 8192,
                "bytes after cycle {cycle}: {later:?}"
            );
        }
    }
    Ok(())
}
