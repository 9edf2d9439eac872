//! The power fails at any storage call of the run that requests a certificate for the kept key: nothing is lost, and
//! another certificate is requested only where the answer with the first one was lost.

use anyhow::{Context, Result};
use image_tests::clients::KeyType;
use image_tests::device::{Checkpoint, Device, STORE};
use image_tests::doubles::est::Options;
use image_tests::doubles::iot_core::Renewing;
use image_tests::doubles::tpm_proxy::When;
use image_tests::faults::storage::{Ending, run_with_cut};

use crate::due::Due;

/// Whether the device has durably received the certificate that was issued last, which is not the accepted one.
fn has_received(due: &Due, last: &str) -> bool {
    let files = [
        "ownership.json",
        "registration.json",
        "est.json",
        "certificate.pem",
    ];
    files.iter().any(|name| {
        let text = due.device.read(format!("{STORE}/{name}"));
        // In JSON, line breaks are escaped.
        text.is_ok_and(|text| text.replace("\\n", "\n").contains(last.trim()))
    })
}

fn at_any_storage_call(due: Due) -> Result<()> {
    let before = due.accepted()?;
    let aws = due.cloud.core.memory();
    let est = due.est.as_ref().map(|(_, server)| server.memory());
    let mut due = due;
    let device = std::mem::replace(&mut due.device, Device::unprovisioned()?);
    let start = Checkpoint::take(device)?;
    let mut doubled = 0;
    for n in 1.. {
        let mut at = due.resume(&start, &aws, est.as_ref())?;
        let program = at.device.firstboot(&["renew"])?;
        let tree = at.device.root().to_path_buf();
        let tpm = &mut at.device.tpm;
        let outcome = run_with_cut(program, &tree, n, When::Before, || tpm.pull_the_plug())?;
        if outcome.ending != Ending::Cut {
            assert!(n > 10, "{n} calls are not all of them");
            assert!(doubled > 0, "no answer was ever lost");
            return Ok(());
        }
        at.device.tpm.power_on()?;
        let what = || format!("call {n}");
        let last = at.last_issued()?;
        let is_accepted = at.accepted()? != before;
        let is_lost = at.issued() > 1 && !is_accepted && !has_received(&at, &last);
        // The boot; then what it leaves to firstboot-renew.service.
        at.device.succeed(&["enroll"]).with_context(what)?;
        assert_eq!(at.device.status()?["in_service"], true, "{n}");
        at.renew().with_context(what)?;
        assert!(at.accepted()? != before, "{n}");
        assert_eq!(at.issued(), 2 + usize::from(is_lost), "{n}");
        at.assert_idle().with_context(what)?;
        doubled += usize::from(is_lost);
    }
    Ok(())
}

#[test]
fn of_a_kept_key_by_fleet_provisioning() -> Result<()> {
    let due = Due::by_fleet(KeyType::EccP256, "keep", Renewing::Allowed, "gateway-")?;
    at_any_storage_call(due)
}

#[test]
fn of_a_kept_key_by_est() -> Result<()> {
    let due = Due::by_est(KeyType::EccP256, "keep", Options::default())?;
    at_any_storage_call(due)
}
