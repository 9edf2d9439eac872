//! EST settings that cannot work are refused with their path before anything is requested.

use std::time::Duration;

use anyhow::Result;
use image_tests::doubles::clock::ClockDouble;
use serde_json::{Value, json};

use crate::{Enrolling, exit};

#[test]
fn mistakes_are_named() -> Result<()> {
    let enrolling = Enrolling::new()?;
    let good = enrolling.device.read("/boot/firstboot/firstboot.json")?;
    let cases: [(&str, Value, &str); 8] = [
        ("server", json!(""), "enrollment.est.server"),
        (
            "server",
            json!("https://ca.example.com"),
            "enrollment.est.server",
        ),
        ("server", json!(8443), "enrollment.est.server"),
        ("label", json!("a/b"), "enrollment.est.label"),
        ("username", json!("a:b"), "enrollment.est.username"),
        ("username", json!("${nonsense}"), "enrollment.est.username"),
        ("password", json!("x"), "unknown field `password`"),
        ("username", json!(["x"]), "enrollment.est.username"),
    ];
    for (name, value, words) in cases {
        enrolling.change(|enrollment| enrollment["est"][name] = value)?;
        let outcome = enrolling.enroll()?;
        crate::assert_ends(&outcome, exit::SETTINGS, words);
        enrolling
            .device
            .write("/boot/firstboot/firstboot.json", &good)?;
    }
    assert_eq!(enrolling.server.counts().cacerts, 0);
    enrolling.ends_done()
}

/// Nothing is requested while the clock is not synchronised: the server could not be verified.
#[test]
fn without_a_clock_nothing_is_requested() -> Result<()> {
    let mut enrolling = Enrolling::new()?;
    enrolling.device.clock = Some(ClockDouble::unset()?);
    enrolling.change(|enrollment| enrollment["trust_clock"] = json!(false))?;
    enrolling.fails(exit::WAITING, "the clock is not synchronised")?;
    assert_eq!(enrolling.server.counts().cacerts, 0);
    enrolling.device.clock = Some(ClockDouble::ahead(Duration::ZERO)?);
    enrolling.ends_done()
}
