//! Fleet provisioning settings that cannot work are refused with their path before anything is requested.

use anyhow::Result;
use image_tests::clients::KeyType;
use serde_json::{Value, json};

use crate::{Enrolling, exit};

#[test]
fn mistakes_are_named() -> Result<()> {
    let enrolling = Enrolling::new()?;
    let parameters = |value: &str| json!({ "SerialNumber": value });
    let cases: [(&str, Value, &str); 12] = [
        ("template_name", json!(""), "enrollment.template_name"),
        ("template_name", json!("a/b"), "enrollment.template_name"),
        (
            "template_name",
            json!("x".repeat(37)),
            "enrollment.template_name",
        ),
        (
            "template_parameters",
            parameters("${nonsense}"),
            "template_parameters.SerialNumber",
        ),
        (
            "template_parameters",
            parameters("${serial"),
            "template_parameters.SerialNumber",
        ),
        (
            "template_parameters",
            json!({ "A": 1 }),
            "expected a string at line",
        ),
        ("port", json!(0), "enrollment.port"),
        ("port", json!(65536), "expected u16 at line"),
        ("spread_seconds", json!(-1), "expected u64 at line"),
        ("http_proxy", json!("proxy:3128"), "enrollment.http_proxy"),
        (
            "http_proxy",
            json!("http://user:\u{1b}@p:1"),
            "enrollment.http_proxy",
        ),
        ("templte_name", json!("x"), "templte_name"),
    ];
    for (name, value, words) in cases {
        let mut settings = enrolling.cloud.settings("nucleus-lite", KeyType::EccP256);
        settings["enrollment"][name] = value;
        enrolling.device.settings(&settings)?;
        enrolling.ends(exit::SETTINGS, words)?;
    }
    assert_eq!(enrolling.cloud.core.events().0.len(), 0);
    enrolling
        .device
        .settings(&enrolling.cloud.settings("nucleus-lite", KeyType::EccP256))?;
    enrolling.ends_done()
}

/// Nothing is requested while the clock is not synchronised: the device might accept a certificate that is not valid.
#[test]
fn without_a_clock_nothing_is_requested() -> Result<()> {
    let enrolling = Enrolling::new()?;
    let mut settings = enrolling.cloud.settings("nucleus-lite", KeyType::EccP256);
    settings["enrollment"]["trust_clock"] = json!(false);
    enrolling.device.settings(&settings)?;
    let outcome = enrolling.enroll()?;
    // If this host's clock is synchronised, the device trusts it.
    if outcome.code == exit::DONE {
        return enrolling.ends_done();
    }
    crate::assert_ends(&outcome, exit::WAITING, "the clock is not synchronised");
    assert_eq!(enrolling.cloud.core.events().0.len(), 0);
    assert_eq!(enrolling.device.status()?["state"], "AwaitingCertificate");
    Ok(())
}
