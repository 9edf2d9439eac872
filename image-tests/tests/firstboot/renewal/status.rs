//! What people are told about a renewal.

use anyhow::{Context, Result};
use image_tests::clients::KeyType;
use image_tests::doubles::pki::Validity;
use openssl::asn1::{Asn1Time, TimeDiff};
use openssl::x509::X509;
use serde_json::{Value, json};

use super::Due;

/// A moment of `status.json` (RFC 3339), as certificates have it (GeneralizedTime, RFC 5280 §4.1.2.5.2).
fn moment(rfc3339: &str) -> Result<Asn1Time> {
    Ok(Asn1Time::from_str_x509(
        &rfc3339.replace(['-', 'T', ':'], ""),
    )?)
}

/// By the dates in the certificate.
#[test]
fn due_from_is_a_date_in_the_certificates_lifetime() -> Result<()> {
    let validity = Validity::Days {
        over: 100,
        left: 200,
    };
    let mut due = Due::of_age("nucleus-lite", KeyType::EccP256, "keep", validity)?;
    let certificate = X509::from_pem(due.accepted()?.as_bytes())?;
    for (at, days) in [("2/3", 200), ("1/3", 100), ("30 days", 270)] {
        due.settings["renew"] = json!({ "at": at });
        due.back()?;
        due.device.succeed(&["renew"])?;
        let status = due.device.status()?;
        let renewal = &status["renewal"];
        let from = moment(renewal["due_from"].as_str().context("no due_from")?)?;
        let after = TimeDiff { days, secs: 0 };
        assert_eq!(certificate.not_before().diff(&from)?, after, "{at}");
        let until = moment(renewal["valid_until"].as_str().context("no end")?)?;
        assert_eq!(
            certificate.not_after().diff(&until)?,
            TimeDiff { days: 0, secs: 0 }
        );
    }
    Ok(())
}

/// `firstboot status`, before a certificate's successor is asked for, while it is awaited, and once it is in service.
#[test]
fn a_person_sees_the_dates_and_what_came_of_the_request() -> Result<()> {
    let due = Due::new("nucleus-lite", KeyType::EccP256, "keep")?;
    let shows = |asked: Option<&str>| -> Result<()> {
        let status: Value = serde_json::from_str(&due.device.succeed(&["status", "--json"])?)?;
        let renewal = &status["renewal"];
        let shown = due.device.succeed(&["status"])?;
        let words = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
        let lines: Vec<String> = shown.lines().map(words).collect();
        let has = |label: &str, value: &Value| -> Result<()> {
            let line = format!("{label} {}", value.as_str().context("no text")?);
            assert!(lines.contains(&line), "no {line:?} in {shown}");
            Ok(())
        };
        has("valid until", &renewal["valid_until"])?;
        has("due from", &renewal["due_from"])?;
        let last = &renewal["last_request"];
        assert_eq!(last["result"].as_str(), asked, "{status}");
        assert_eq!(
            lines.contains(&"last request".into()),
            asked.is_some(),
            "{shown}"
        );
        if asked.is_some() {
            has("time", &last["time"])?;
            has("result", &last["result"])?;
        }
        Ok(())
    };
    shows(None)?;
    due.device.succeed(&["renew"])?;
    shows(Some("waiting"))?;
    due.certify_by(&due.stranger)?;
    due.device.succeed(&["renew"])?;
    shows(Some("refused"))?;
    due.certify()?;
    due.device.succeed(&["renew"])?;
    shows(Some("renewed"))
}
