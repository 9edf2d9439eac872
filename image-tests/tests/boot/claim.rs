//! Fleet provisioning: one boot from a claim pair on the card to Greengrass at the same broker.

use anyhow::Result;
use image_tests::clients::KeyType;
use image_tests::device::SERIAL;
use image_tests::device::machine::Machine;
use image_tests::faults::network::{CLAIM, Cloud, fleet_settings};
use serde_json::json;

use super::{let_in_as, thing};

/// The thing's name by the double's template.
fn registered() -> String {
    format!("core-{SERIAL}")
}

#[test]
fn one_boot_leads_from_a_claim_to_greengrass() -> Result<()> {
    let cloud = Cloud::new()?;
    let mut machine = Machine::flash("nucleus-lite")?;
    machine.hardware.broker = Some(cloud.core.port());
    let mut settings = fleet_settings("nucleus-lite", KeyType::EccP256, 8883);
    settings["greengrass"]["iot_data_endpoint"] = json!("broker.test");
    let card = &machine.card;
    card.put("firstboot/firstboot.json", settings.to_string())?;
    card.put("firstboot/root-ca.pem", cloud.root.certificate_pem()?)?;
    for (path, pem) in CLAIM.iter().zip(cloud.core.claim()) {
        card.put(on_the_card(path), pem)?;
    }

    let running = let_in_as(machine.boot()?, &registered())?;
    let journal = running.journal();
    assert_eq!(journal.started("firstboot-enroll.service"), Some("done"));
    let machine = running.power_off()?;

    // The device has reconnected with its own certificate, and the double has issued no other.
    assert!(cloud.core.events().authenticated(&registered()));
    let counts = cloud.core.counts();
    assert_eq!((counts.created, counts.active), (1, 1), "{counts:?}");
    for path in CLAIM {
        let left = machine.card.read(on_the_card(path))?;
        assert_eq!(left, None, "{path} is still on the card");
    }
    let status = machine.card.read_text("firstboot/status.json")?;
    let status: serde_json::Value = serde_json::from_str(&status)?;
    assert_eq!(status["state"], "Done", "{} has {status}", thing());
    let tpm = machine.tpm()?;
    assert_eq!(tpm.persistent_handles()?, [0x8100_0001]);
    assert_eq!(tpm.lockout_counter()?, 0);
    Ok(())
}

/// A path of the boot partition, relative to the partition.
fn on_the_card(path: &str) -> &str {
    path.trim_start_matches("/boot/")
}
