//! Whoever issues is away until the day after the certificate's end. What is in service stays as it is; after that, the
//! device gets its next certificate by whatever the server still takes.

use anyhow::{Context, Result};
use image_tests::clients::KeyType;
use image_tests::doubles::clock::{ClockDouble, DAY};
use image_tests::doubles::est::{self, PASSWORD};
use image_tests::doubles::iot_core::{Event, Renewing, Who};
use image_tests::doubles::pki::Authority;
use image_tests::faults::network::{CLAIM, EST_CLAIM};
use image_tests::ports::NOBODY;

use crate::due::Due;

/// The certificate of a device that is due has 50 days.
const LOOKS: [u32; 5] = [1, 10, 31, 49, 51];

/// It is the day after the end; nobody has answered so far, and nothing has come of looking every now and then.
fn is_over(mut due: Due) -> Result<Due> {
    due.at(NOBODY)?;
    let words = "cannot reach localhost";
    due.keeps_what_it_has(words)?;
    let before = due.device.snapshot()?;
    due.keeps_what_it_has(words)?;
    before.assert_same(&due.device.snapshot()?);
    // From then on, the status has a warning.
    let rest = |due: &Due| -> Result<_> {
        let all = due.device.snapshot()?;
        Ok(all.without("/boot/firstboot/status.json"))
    };
    let before = rest(&due)?;
    for day in LOOKS {
        due.device.clock = Some(ClockDouble::ahead(DAY * day)?);
        for command in ["provision", "enroll"] {
            due.device.succeed(&[command])?;
        }
        due.keeps_what_it_has(words)?;
        before.assert_same(&rest(&due)?);
        let warnings = due.device.status()?["warnings"].to_string();
        assert_eq!(warnings.contains("certificate expired on"), day > 50);
    }
    assert_eq!(due.issued(), 1);
    Ok(due)
}

fn fleet(renewed: &str) -> Result<Due> {
    let due = Due::by_fleet(KeyType::EccP256, renewed, Renewing::Allowed, "gateway-")?;
    is_over(due)
}

fn est(renewed: &str) -> Result<Due> {
    is_over(Due::by_est(
        KeyType::EccP256,
        renewed,
        est::Options::default(),
    )?)
}

/// The servers are back. It is the same day there, and they let nobody in whose certificate has ended.
fn are_back_and_look_at_dates(due: &mut Due) -> Result<()> {
    let gone_by = DAY * LOOKS[LOOKS.len() - 1];
    let core = &due.cloud.core;
    core.advance(gone_by);
    due.resume(core.memory())?;
    if let Some((_, server)) = &due.est {
        server.advance(gone_by);
    }
    due.at(due.port())
}

/// Who asked for certificates.
fn askers(due: &Due) -> Vec<Who> {
    let asked = due.cloud.core.events().0.into_iter().filter(
        |entry| matches!(&entry.event, Event::Published(topic, _) if topic.starts_with("$aws/")),
    );
    asked.map(|entry| entry.who).collect()
}

/// By servers whose clocks are behind, or that look at no dates.
#[test]
fn a_certificate_that_has_ended_is_taken() -> Result<()> {
    for renewed in ["keep", "new"] {
        for mut due in [fleet(renewed)?, est(renewed)?] {
            let (ended, serial) = (due.id()?, due.serial()?);
            due.at(due.port())?;
            assert_eq!(due.renew()?, renewed == "new");
            assert_eq!(due.issued(), 2);
            match &due.est {
                Some((_, server)) => assert_eq!(server.shown(), [serial.as_str().unwrap_or("")]),
                None => assert!(matches!(
                    &askers(&due)[..],
                    [Who::Device { certificate: first, .. }, Who::Device { certificate: second, .. }]
                        if *first == ended && *second == ended
                )),
            }
            due.assert_idle()?;
        }
    }
    Ok(())
}

#[test]
fn aws_takes_the_kept_claim_pair() -> Result<()> {
    for renewed in ["keep", "new"] {
        let mut due = fleet(renewed)?;
        are_back_and_look_at_dates(&mut due)?;
        assert_eq!(due.renew()?, renewed == "new");
        assert_eq!(due.issued(), 2);
        assert_eq!(askers(&due), [Who::Claim, Who::Claim]);
        due.assert_idle()?;
    }
    Ok(())
}

/// Without that one, an operator puts one onto the card.
#[test]
fn aws_takes_a_claim_pair_from_the_card() -> Result<()> {
    for renewed in ["keep", "new"] {
        let mut due = fleet(renewed)?;
        due.remove_kept_claim()?;
        are_back_and_look_at_dates(&mut due)?;
        due.keeps_what_it_has("save a claim pair on the boot partition")?;
        assert_eq!(due.issued(), 1);
        for (path, pem) in CLAIM.iter().zip(due.cloud.core.claim()) {
            due.device.write(path, pem)?;
        }
        assert_eq!(due.renew()?, renewed == "new");
        assert_eq!(due.issued(), 2);
        due.assert_idle()?;
    }
    Ok(())
}

/// Or has the request signed.
#[test]
fn without_a_claim_pair_offline() -> Result<()> {
    let authority = Authority::new()?;
    for renewed in ["keep", "new"] {
        let mut due = fleet(renewed)?;
        due.remove_kept_claim()?;
        are_back_and_look_at_dates(&mut due)?;
        due.resume(due.cloud.core.memory().registering(&authority)?)?;
        due.keeps_what_it_has("The device keeps its certificate")?;
        due.takes_certificate_of(&authority)?;
        assert_eq!(due.issued(), 1);
    }
    Ok(())
}

/// An EST server is shown no password for a renewal, also where there is one on the card.
#[test]
fn est_offline() -> Result<()> {
    for renewed in ["keep", "new"] {
        let mut due = est(renewed)?;
        are_back_and_look_at_dates(&mut due)?;
        let words = "does it accept the certificate that the device presents?";
        due.keeps_what_it_has(words)?;
        due.device.write(EST_CLAIM[0], PASSWORD)?;
        due.keeps_what_it_has(words)?;
        let (authority, server) = due.est.as_ref().context("no EST")?;
        due.takes_certificate_of(authority)?;
        assert_eq!(server.counts().enrolls, 1);
        assert_eq!(due.issued(), 1);
    }
    Ok(())
}
