//! A boot partition that was not unmounted is repaired before it is mounted, within the sandbox of its check.

use anyhow::Result;
use image_tests::doubles::pki::Authority;

use super::flash;

/// By the UUID that the guest's fstab has.
pub(super) const CHECK: &str = r"firstboot-fsck@dev-disk-by\x2duuid-2661\x2d8777.service";

#[test]
fn a_partition_that_was_not_unmounted_is_repaired() -> Result<()> {
    let machine = flash("nucleus-lite", &Authority::new()?)?;
    machine.card.mark_fat()?;
    let running = machine.boot()?.until(CHECK)?;
    let check = running.journal().of(CHECK);
    assert_eq!(check.started(CHECK), Some("done"));
    assert!(
        check.saying("removing dirty bit").is_some(),
        "{}",
        check.text()
    );
    let machine = running.until("boot.mount")?.power_off()?;
    assert!(!machine.card.is_fat_marked()?);
    Ok(())
}
