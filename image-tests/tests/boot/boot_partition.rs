//! The boot partition is repaired before it is mounted, from within the sandbox of its check.

use std::fs::File;
use std::os::unix::fs::FileExt;

use anyhow::Result;
use image_tests::doubles::pki::Authority;

use super::flash;

/// Where the FAT partition begins on the card (`guest/build`), in bytes.
const FAT: u64 = 1 << 20;
/// BS_Reserved1 of a FAT32 boot sector, in which fsck.fat and Linux keep "was not unmounted" (bit 0).
const STATE: u64 = 0x41;

#[test]
fn a_partition_that_was_not_unmounted_is_repaired() -> Result<()> {
    let machine = flash("nucleus-lite", &Authority::new()?)?;
    let image = File::options().write(true).open(machine.card.path())?;
    image.write_all_at(&[1], FAT + STATE)?;
    let running = machine.boot()?.until("firstboot-fsck.service")?;
    let check = running.journal().of("firstboot-fsck.service");
    assert_eq!(check.started("firstboot-fsck.service"), Some("done"));
    assert!(
        check.saying("removing dirty bit").is_some(),
        "{}",
        check.text()
    );
    running.pull_the_plug().map(drop)
}
