//! The setting `renew`, and the warning before a certificate's end: what is asked for, and when.

use std::fs;

use anyhow::{Context, Result};
use image_tests::clients::KeyType;
use image_tests::device::{Device, offline_settings};
use image_tests::doubles::clock::ClockDouble;
use image_tests::doubles::pki::{Authority, Validity};
use image_tests::ports::NOBODY;
use serde_json::{Value, json};

use super::Due;
use crate::{assert_ends, device, exit};

const ASKED: &str = "/var/lib/tpm2_pkcs11/asked.json";
const ACCEPTED: &str = "/var/lib/tpm2_pkcs11/certificate.pem";

struct Enrolled {
    device: Device,
    authority: Authority,
    settings: Value,
}

impl Enrolled {
    /// With a certificate of this age, and with this setting.
    fn new(edition: &str, validity: Validity, renew: Value) -> Result<Self> {
        let device = Device::unprovisioned()?;
        let mut settings = offline_settings(edition, KeyType::EccP256);
        settings["enrollment"]["trust_clock"] = json!(true);
        settings["greengrass"]["iot_data_endpoint"] = json!("localhost");
        settings["enrollment"]["port"] = json!(NOBODY);
        device.settings(&settings)?;
        let authority = Authority::new()?;
        device.succeed(&["provision"])?;
        device.drop_certificate(&authority.sign_valid(&device.request()?, validity)?)?;
        device.succeed(&["enroll"])?;
        if !renew.is_null() {
            settings["renew"] = renew;
        }
        device.settings(&settings)?;
        Ok(Self {
            device,
            authority,
            settings,
        })
    }

    /// What the daily timer runs; nothing of the running Greengrass changes.
    fn renew(&self) -> Result<Value> {
        let rest =
            || Ok::<_, anyhow::Error>(self.device.snapshot()?.without("/boot").without(ASKED));
        let before = rest()?;
        let kept = self.device.read(ACCEPTED)?;
        self.device.succeed(&["renew"])?;
        if self.device.read(ACCEPTED)? == kept {
            before.assert_same(&rest()?);
        }
        self.device.status()
    }
}

#[test]
fn the_request_is_published_again_when_it_is_due() -> Result<()> {
    for edition in ["nucleus-lite", "nucleus"] {
        let due = Due::new(edition, KeyType::EccP256, "keep")?;
        let Due {
            device, authority, ..
        } = &due;
        let request = device.request()?;
        let asked = fs::read(&request)?;
        fs::remove_file(&request)?;
        let in_service = due.in_service()?;
        device.succeed(&["renew"])?;
        in_service.assert_same(&due.in_service()?);
        let status = device.status()?;
        assert_eq!(fs::read(&request)?, asked, "{edition}");
        let (state, renewal) = (&status["state"], &status["renewal"]);
        assert_eq!(
            (state, &status["in_service"]),
            (&json!("Done"), &json!(true))
        );
        assert_eq!(renewal["due"], true, "{status}");
        assert_eq!(renewal["valid_until"], status["certificate"]["not_after"]);
        assert!(renewal["due_from"].as_str() < renewal["valid_until"].as_str());
        let attempt = &renewal["last_request"];
        assert_eq!(attempt["result"], "waiting", "{status}");
        let message = status["message"].as_str().context("no message")?;
        assert!(
            message.contains("due for renewal") && message.contains(".csr.pem"),
            "{message}"
        );

        // What is no better does not end it …
        device.drop_certificate(&authority.certificate_of_another_key("stranger")?)?;
        device.succeed(&["renew"])?;
        let refused = device.status()?;
        assert_eq!(refused["renewal"]["last_request"]["result"], "refused");
        assert_eq!(refused["renewal"]["last_request"]["time"], attempt["time"]);
        // … and what is does.
        device.drop_certificate(&authority.sign_valid(&request, Validity::YOUNG)?)?;
        device.succeed(&["renew"])?;
        device.succeed(&["enroll"])?;
        let renewed = device.status()?;
        assert_eq!(renewed["renewal"]["due"], false, "{renewed}");
        assert_eq!(renewed["renewal"]["last_request"]["result"], "renewed");
        assert_eq!(renewed["renewal"]["last_request"]["time"], attempt["time"]);
    }
    Ok(())
}

#[test]
fn nothing_is_asked_for_before_it_is_due() -> Result<()> {
    for (renew, validity) in [
        (json!({}), Validity::YOUNG),
        (json!({ "at": "9/10" }), Validity::DUE),
        (json!({ "at": "49 days" }), Validity::DUE),
        (Value::Null, Validity::DUE),
    ] {
        let enrolled = Enrolled::new("nucleus-lite", validity, renew.clone())?;
        let request = enrolled.device.request()?;
        fs::remove_file(&request)?;
        let status = enrolled.renew()?;
        assert!(
            !request.exists() && !enrolled.device.exists(ASKED),
            "{renew}"
        );
        let (next, due) = (&status["renewal"]["due_from"], &status["renewal"]["due"]);
        assert_eq!(renew.is_null(), next.is_null() && due.is_null(), "{status}");
        assert_ne!(*due, true);
    }
    Ok(())
}

/// Two thirds of its lifetime would be over in a hundred days.
#[test]
fn days_count_from_the_end() -> Result<()> {
    let validity = Validity::Days {
        over: 100,
        left: 200,
    };
    for (at, due) in [("201 days", true), ("199 days", false), ("2/3", false)] {
        let enrolled = Enrolled::new("nucleus-lite", validity, json!({ "at": at }))?;
        assert_eq!(enrolled.renew()?["renewal"]["due"], due, "{at}");
    }
    Ok(())
}

/// A clock that nobody has set decides nothing; what was asked for stays due.
#[test]
fn without_a_clock_nothing_is_asked_for() -> Result<()> {
    let mut enrolled = Enrolled::new("nucleus-lite", Validity::DUE, json!({}))?;
    enrolled.device.clock = Some(ClockDouble::unset()?);
    let mut settings = enrolled.settings.clone();
    settings["enrollment"]["trust_clock"] = json!(false);
    enrolled.device.settings(&settings)?;
    assert_eq!(enrolled.renew()?["renewal"]["due"], false);
    assert!(!enrolled.device.exists(ASKED));
    enrolled.device.settings(&enrolled.settings)?;
    assert_eq!(enrolled.renew()?["renewal"]["due"], true);
    enrolled.device.settings(&settings)?;
    assert_eq!(enrolled.renew()?["renewal"]["due"], true);
    Ok(())
}

/// With the setting and without.
#[test]
fn a_certificate_that_ends_soon_is_warned_of() -> Result<()> {
    for renew in [Value::Null, json!({})] {
        for (left, warned) in [(31, false), (29, true)] {
            let validity = Validity::Days { over: 300, left };
            let enrolled = Enrolled::new("nucleus-lite", validity, renew.clone())?;
            let status = enrolled.renew()?;
            let warning = status["warnings"][0].as_str().unwrap_or_default();
            assert_eq!(
                warning.contains("the certificate expires on"),
                warned,
                "{status}"
            );
            let shown = enrolled.device.succeed(&["status"])?;
            assert_eq!(
                shown.contains("the certificate expires on"),
                warned,
                "{shown}"
            );
        }
    }
    Ok(())
}

/// The day after the end it still asks, and Greengrass is left running.
#[test]
fn an_expired_certificate_is_still_renewed() -> Result<()> {
    let old = Validity::Days {
        over: 300,
        left: 30,
    };
    let enrolled = Enrolled::new("nucleus-lite", old, json!({}))?;
    let device = &enrolled.device;
    let request = device.request()?;
    // As if the months had gone by, and somebody had tidied up the card.
    let card = device.drop_certificate("")?;
    fs::remove_file(card)?;
    let expired = enrolled.authority.sign_valid(&request, Validity::Expired)?;
    device.write(ACCEPTED, &expired)?;
    fs::remove_file(&request)?;
    let status = enrolled.renew()?;
    assert!(request.exists());
    assert_eq!(
        (&status["state"], &status["in_service"]),
        (&json!("Done"), &json!(true))
    );
    assert_eq!(status["renewal"]["due"], true);
    let warning = status["warnings"][0].as_str().unwrap_or_default();
    assert!(warning.contains("expired on 2021-01-01"), "{status}");
    let newer = enrolled.authority.sign_valid(&request, Validity::YOUNG)?;
    device.drop_certificate(&newer)?;
    device.succeed(&["renew"])?;
    assert_eq!(device.read(ACCEPTED)?, newer);
    Ok(())
}

#[test]
fn wrong_settings_are_refused() -> Result<()> {
    for (renew, enrollment, words) in [
        (
            json!({ "at": "soon" }),
            Value::Null,
            "renew.at: \"soon\" is neither",
        ),
        (json!({ "at": 30 }), Value::Null, "renew.at: invalid type"),
        (
            json!({ "when": "2/3" }),
            Value::Null,
            "unknown field `when`",
        ),
        (json!("yes"), Value::Null, "renew: invalid type"),
        (
            json!({ "key": "another" }),
            Value::Null,
            "renew.key: unknown variant",
        ),
        (
            json!({}),
            json!({ "port": 0 }),
            "enrollment.port: 0 is not valid",
        ),
        (
            json!({}),
            json!({ "http_proxy": "proxy:3128" }),
            "enrollment.http_proxy",
        ),
    ] {
        let device = device("nucleus-lite", KeyType::EccP256)?;
        let mut settings = offline_settings("nucleus-lite", KeyType::EccP256);
        settings["renew"] = renew;
        if !enrollment.is_null() {
            settings["enrollment"] = enrollment;
        }
        device.settings(&settings)?;
        assert_ends(&device.run(&["provision"])?, exit::SETTINGS, words);
    }
    Ok(())
}

/// The image's setting is taken back by the card's.
#[test]
fn null_turns_it_off() -> Result<()> {
    let enrolled = Enrolled::new("nucleus-lite", Validity::DUE, Value::Null)?;
    let device = &enrolled.device;
    let image = "/usr/lib/firstboot/firstboot.json";
    let mut settings: Value = serde_json::from_str(&device.read(image)?)?;
    settings["renew"] = json!({});
    device.write(image, settings.to_string())?;
    assert_eq!(enrolled.renew()?["renewal"]["due"], true);
    let mut off = enrolled.settings.clone();
    off["renew"] = Value::Null;
    device.settings(&off)?;
    assert_eq!(enrolled.renew()?["renewal"]["due"], Value::Null);
    Ok(())
}
