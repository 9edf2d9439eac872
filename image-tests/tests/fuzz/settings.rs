//! firstboot.json on the boot partition.

use std::time::Duration;

use firstboot::error::ErrorKind;
use firstboot::settings::Settings;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::{Value, json};

use crate::{Checked, Tree, any_json, any_text, assert_printable, cases, damage, damaged};

const FILE: &str = "/boot/firstboot/firstboot.json";

fn valid() -> Value {
    json!({
        "thing_name": "gateway-${serial}",
        "key": "rsa-2048",
        "subject": { "C": "DE", "O": "Example" },
        "enrollment": {
            "method": "fleet-provisioning",
            "issuers": ["0123456789ABCDEF".repeat(4)],
            "template_name": "gateways",
            "template_parameters": { "SerialNumber": "${serial}", "Ek": "${ek_sha256} ${ek_certificate}" },
            "port": 443,
            "spread_seconds": 60,
            "http_proxy": "http://proxy.example:3128",
            "trust_clock": false
        },
        "greengrass": {
            "edition": "nucleus-lite",
            "aws_region": "eu-central-1",
            "iot_data_endpoint": "abc123-ats.iot.eu-central-1.amazonaws.com",
            "iot_credential_endpoint": "def456.credentials.iot.eu-central-1.amazonaws.com",
            "iot_role_alias": "GreengrassCoreTokenExchangeRoleAlias",
            "aws_account_id": "123456789012"
        },
        "network": {
            "country": "DE",
            "eap_tls": [{
                "interface": "wlan0", "ssid": "plant", "domain": "radius.example.com", "key": "own"
            }]
        }
    })
}

/// Reads this file: either settings that can work, or a reason for the operator.
fn judge(tree: &Tree, content: &[u8]) -> Checked<Option<Settings>> {
    tree.write(FILE, content)?;
    let settings = match Settings::read(&tree.layout) {
        Ok(settings) => settings,
        Err(e) => {
            prop_assert_eq!(e.kind, ErrorKind::Settings);
            assert_printable(&e.to_string())?;
            return Ok(None);
        }
    };
    crate::names::assert_is_a_thing_name(tree, &settings.thing_name)?;
    let image = "/opt/image";
    prop_assert!(
        settings.platform.pkcs11_module.starts_with(image)
            && settings.platform.openssl_provider.starts_with(image),
        "the boot partition has named a library: {:?}",
        settings.platform
    );
    let greengrass = &settings.greengrass;
    for value in [
        &greengrass.aws_region,
        &greengrass.iot_data_endpoint,
        &greengrass.iot_credential_endpoint,
        &greengrass.iot_role_alias,
        &greengrass.aws_account_id,
    ] {
        let fine = |c: char| c.is_ascii_alphanumeric() || "-._=,@".contains(c);
        prop_assert!(value.chars().all(fine), "{:?}", value);
    }
    for entry in &settings.network.eap_tls {
        // They become parts of paths and words in quotes, the interface also the instance of a unit, in whose name
        // systemd reads "-" as "/" (systemd.unit(5)), and a name that the kernel knows (IFNAMSIZ, with a NUL).
        prop_assert!(entry.interface.len() < 16, "{:?}", entry.interface);
        for (word, marks) in [
            (&entry.interface, "._"),
            (&entry.ca, "._-"),
            (&entry.domain, ".-"),
        ] {
            let fine = |c: char| c.is_ascii_alphanumeric() || marks.contains(c);
            prop_assert!(
                word.starts_with(|c: char| c.is_ascii_alphanumeric()),
                "{:?}",
                word
            );
            prop_assert!(word.chars().all(fine), "{:?}", word);
        }
        prop_assert!(
            !entry.identity.contains(char::is_control),
            "{:?}",
            entry.identity
        );
        prop_assert!(!entry.is_wifi() || settings.network.country.len() == 2);
    }
    let enrollment = &settings.enrollment;
    // Pinned issuers are there in full.
    let text = String::from_utf8_lossy(content)
        .replace(':', "")
        .to_lowercase();
    for issuer in &enrollment.issuers {
        let digits = firstboot_formats::encoding::to_hex(issuer);
        prop_assert!(text.contains(&digits), "{}", digits);
    }
    if enrollment.is_fleet() {
        // It becomes part of a topic, in which '/', '+' and '#' have a meaning.
        let template = &enrollment.template_name;
        let fine = |c: char| c.is_ascii_alphanumeric() || "_-".contains(c);
        prop_assert!((1..=36).contains(&template.len()), "{:?}", template);
        prop_assert!(template.chars().all(fine), "{:?}", template);
        prop_assert!(enrollment.port != 0);
        prop_assert_eq!(
            enrollment.http_proxy.is_empty(),
            enrollment.proxy().is_none()
        );
        for value in enrollment.template_parameters.values() {
            prop_assert!(!value.contains("${serial}"), "{:?}", value);
        }
    }
    // Within the lifetime, or before it.
    if let Some(renew) = settings.renew {
        let lifetime = [1_000_000, 2_000_000].map(Duration::from_secs);
        prop_assert!(renew.at.moment(lifetime) < lifetime[1], "{:?}", renew);
    }
    // A request can be made with them.
    let name = settings.subject.with_common_name(&settings.thing_name);
    prop_assert!(firstboot_formats::x509::name(&name).is_ok(), "{:?}", name);
    Ok(Some(settings))
}

/// JSON pointers to every value of the settings, and to some that do not exist.
fn places() -> impl Strategy<Value = String> {
    let mut known = vec![String::new(), "/unknown".into(), "/platform".into()];
    known.push("/platform/pkcs11_module".into());
    known.extend(["/renew".into(), "/renew/at".into()]);
    for (key, value) in valid().as_object().into_iter().flatten() {
        known.push(format!("/{key}"));
        let inner = value.as_object().into_iter().flatten();
        known.extend(inner.map(|(name, _)| format!("/{key}/{name}")));
        known.push(format!("/{key}/unknown"));
    }
    let entry = "/network/eap_tls/0";
    for key in valid()
        .pointer(entry)
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
    {
        known.push(format!("{entry}/{}", key.0));
    }
    select(known)
}

/// Sets the value at a place; `None` removes it.
fn change(settings: &mut Value, place: &str, value: Option<Value>) {
    let (parent, key) = place.rsplit_once('/').unwrap_or_default();
    if key.is_empty() {
        *settings = value.unwrap_or_default();
        return;
    }
    if settings.pointer(parent).is_none() {
        change(settings, parent, Some(json!({})));
    }
    if let Some(Value::Object(object)) = settings.pointer_mut(parent) {
        match value {
            Some(value) => drop(object.insert(key.to_owned(), value)),
            None => drop(object.shift_remove(key)),
        }
    }
}

/// Values that are right in some place.
fn values() -> impl Strategy<Value = Value> {
    let libraries = firstboot::settings::Platform::default();
    let library = json!({ "pkcs11_module": libraries.pkcs11_module });
    prop_oneof![
        any_json(),
        any_text().prop_map(Value::from),
        select(vec![
            json!({}),
            json!([]),
            json!("v1"),
            json!("offline"),
            json!("fleet-provisioning"),
            json!({ "A": "${machine_id}${tpm}${", "B": "${key_sha256}" }),
            json!("DE"),
            json!("2/3"),
            json!("30 days"),
            json!(["gw", "ecc-p256"]),
            json!("x".repeat(200)),
            library
        ]),
    ]
}

#[test]
fn valid_settings_are_read() -> Checked {
    let tree = Tree::new()?;
    let read = judge(&tree, valid().to_string().as_bytes())?;
    assert_eq!(
        read.map(|s| s.thing_name),
        Some("gateway-10000000a1b2c3d4".into())
    );
    Ok(())
}

#[test]
fn any_bytes_get_a_verdict() -> Checked {
    let tree = Tree::new()?;
    proptest!(cases(300), |(content in vec(any::<u8>(), 0..200))| {
        judge(&tree, &content)?;
    });
    Ok(())
}

#[test]
fn any_json_text_gets_a_verdict() -> Checked {
    let tree = Tree::new()?;
    proptest!(cases(300), |(content in any_json())| {
        judge(&tree, content.to_string().as_bytes())?;
    });
    Ok(())
}

#[test]
fn valid_settings_with_other_values_get_a_verdict() -> Checked {
    let tree = Tree::new()?;
    let changes = vec((places(), proptest::option::weighted(0.9, values())), 1..4);
    proptest!(cases(1500), |(changes in changes)| {
        let mut settings = valid();
        for (place, value) in changes {
            change(&mut settings, &place, value);
        }
        judge(&tree, settings.to_string().as_bytes())?;
    });
    Ok(())
}

#[test]
fn any_interface_gets_a_verdict() -> Checked {
    let tree = Tree::new()?;
    proptest!(cases(300), |(name in "[a-z0-9._@/-]{1,17}")| {
        let mut settings = valid();
        settings["network"]["eap_tls"][0]["interface"] = json!(name);
        judge(&tree, settings.to_string().as_bytes())?;
    });
    Ok(())
}

#[test]
fn damaged_files_get_a_verdict() -> Checked {
    let tree = Tree::new()?;
    let text = valid().to_string();
    proptest!(cases(500), |(damage in damage())| {
        judge(&tree, &damaged(text.as_bytes(), &damage))?;
    });
    Ok(())
}

/// As large and as deep as the limit allows.
#[test]
fn the_worst_files_within_the_limit_get_a_verdict() -> Checked {
    let tree = Tree::new()?;
    for unit in [
        "[",
        "{\"a\":",
        "{\"greengrass\":",
        "\"",
        "9",
        "${serial}",
        "\\u0000",
    ] {
        judge(&tree, unit.repeat(64 * 1024 / unit.len()).as_bytes())?;
        let inside = format!(
            "{{\"thing_name\":\"{}\"}}",
            unit.repeat(60 * 1024 / unit.len())
        );
        judge(&tree, inside.as_bytes())?;
    }
    Ok(())
}
