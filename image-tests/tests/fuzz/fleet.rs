//! Fleet provisioning: input from the network, the claim pair on the boot partition, and the files kept from both.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::sync::LazyLock;

use anyhow::Result;
use firstboot::boot_partition::BootPartition;
use firstboot::enrollment::claim;
use firstboot::enrollment::fleet::{Created, Registered, Rejection, mqtt};
use firstboot::error::{Error, ErrorKind};
use firstboot::identity::Identity;
use firstboot::layout::IDENTITY;
use image_tests::clients::openssl;
use image_tests::process::succeed;
use proptest::collection::vec;
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::{Checked, Else, Tree, any_json, any_text, assert_printable, cases, damage, damaged};

fn created() -> Value {
    json!({
        "certificateId": "ab".repeat(32),
        "certificatePem": "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
        "certificateOwnershipToken": "token".repeat(90),
    })
}

fn registered() -> Value {
    json!({ "thingName": "gateway-1", "deviceConfiguration": { "FallbackUrl": "https://…", "n": [1] } })
}

fn rejection() -> Value {
    json!({ "statusCode": 400, "errorCode": "InvalidParameters", "errorMessage": "no \u{1b}[2J" })
}

/// Any payload is either understood or refused with a reason.
fn judge(payload: &[u8]) -> Checked {
    match Created::parse(payload) {
        Ok(created) => {
            let id = &created.certificate_id;
            prop_assert!(id.chars().all(|c| c.is_ascii_alphanumeric()), "{:?}", id);
        }
        Err(why) => assert_printable(&Error::other(why).to_string())?,
    }
    match Registered::parse(payload) {
        Ok(Registered {
            thing_name: Some(name),
            ..
        }) => {
            let fine = |c: char| c.is_ascii_alphanumeric() || ":_-".contains(c);
            prop_assert!(
                (1..=128).contains(&name.len()) && name.chars().all(fine),
                "{:?}",
                name
            );
        }
        Ok(_) => {}
        Err(why) => assert_printable(&Error::other(why).to_string())?,
    }
    let refusal = Rejection::parse(payload).error("asking");
    prop_assert_eq!(refusal.kind, ErrorKind::Waiting);
    assert_printable(&refusal.to_string())?;
    // At most 300 characters of each text, with a control character escaped as up to eight.
    prop_assert!(refusal.to_string().len() < 20_000);
    Ok(())
}

#[test]
fn payloads_get_a_verdict() -> Checked {
    let valid = [created(), registered(), rejection()].map(|v| v.to_string());
    proptest!(cases(400), |(which in 0..3usize, damage in damage())| {
        judge(&damaged(valid[which].as_bytes(), &damage))?;
    });
    let places = [
        "certificateId",
        "thingName",
        "statusCode",
        "errorMessage",
        "deviceConfiguration",
    ];
    proptest!(cases(400), |(which in 0..5usize, value in any_json(), text in any_text())| {
        let mut payload = created();
        payload[places[which]] = value;
        payload["errorCode"] = text.into();
        judge(payload.to_string().as_bytes())?;
    });
    proptest!(cases(200), |(payload in vec(any::<u8>(), 0..100))| judge(&payload)?);
    for unit in ["[", "{\"a\":", "\"", "9"] {
        judge(unit.repeat(mqtt::MAX_PACKET / unit.len()).as_bytes())?;
    }
    Ok(())
}

/// Takes packets off the front of a broker's bytes until there is no whole one, or they are not MQTT.
fn take_all(mut received: Vec<u8>) -> Checked<usize> {
    let mut packets = 0;
    loop {
        let before = received.len();
        match mqtt::take_packet(&mut received) {
            Ok(Some(_)) => prop_assert!(received.len() < before),
            Ok(None) => return Ok(packets),
            Err(why) => {
                assert_printable(&Error::other(why).to_string())?;
                return Ok(packets);
            }
        }
        packets += 1;
    }
}

#[test]
fn packets_get_a_verdict() -> Checked {
    // CONNACK; SUBACK with four codes; PUBLISH with QoS 1 on a/b; PUBACK; PINGRESP (MQTT 3.1.1, §3).
    let mut stream = vec![0x20, 2, 0, 0];
    stream.extend([0x90, 6, 0, 1, 1, 1, 1, 0x80]);
    stream.extend([0x32, 10, 0, 3, b'a', b'/', b'b', 0, 7, b'{', b'}', b' ']);
    stream.extend([0x40, 2, 0, 1, 0xD0, 0]);
    prop_assert_eq!(take_all(stream.clone())?, 5);
    proptest!(cases(1500), |(damage in damage())| {
        take_all(damaged(&stream, &damage))?;
    });
    proptest!(cases(1000), |(bytes in vec(any::<u8>(), 0..40))| {
        take_all(bytes)?;
    });
    // Each type, with each remaining length of one byte.
    for first in 0..=255 {
        for length in 0..12 {
            take_all([&[first, length][..], &[0xFF; 12]].concat())?;
            take_all([&[first, length][..], &[0; 12]].concat())?;
        }
    }
    Ok(())
}

/// A claim certificate and its key, PEM.
static CLAIM: LazyLock<Result<[String; 2]>> = LazyLock::new(|| {
    let directory = tempfile::tempdir()?;
    let [certificate, key] = ["claim.pem", "claim.key"].map(|name| directory.path().join(name));
    let curve = "ec_paramgen_curve:P-256";
    let mut make = openssl::plain(&["req", "-x509", "-newkey", "ec", "-pkeyopt", curve, "-nodes"]);
    make.args(["-config", "/dev/null", "-subj", "/CN=claim", "-out"]);
    succeed(make.arg(&certificate).arg("-keyout").arg(&key))?;
    Ok([fs::read_to_string(&certificate)?, fs::read_to_string(&key)?])
});

#[test]
fn claim_pairs_get_a_verdict() -> Checked {
    let tree = Tree::new()?;
    let boot = BootPartition::new(&tree.layout);
    let pair = CLAIM.as_ref().or_fail()?;
    let files = [
        "/boot/firstboot/claim.cert.pem",
        "/boot/firstboot/claim.key.pem",
    ];
    let judge = |contents: [&[u8]; 2]| -> Checked<bool> {
        for (file, content) in files.iter().zip(contents) {
            tree.write(file, content)?;
        }
        match claim::read(&boot) {
            Ok(_) => Ok(true),
            Err(e) => {
                prop_assert_eq!(e.kind, ErrorKind::Settings);
                assert_printable(&e.to_string())?;
                Ok(false)
            }
        }
    };
    let [certificate, key] = pair.each_ref().map(|text| text.as_bytes());
    prop_assert!(judge([certificate, key])?);
    prop_assert!(!judge([key, certificate])?);
    proptest!(cases(300), |(damage in damage())| {
        judge([&damaged(certificate, &damage), key])?;
        judge([certificate, &damaged(key, &damage)])?;
    });
    Ok(())
}

#[test]
fn kept_files_get_a_verdict() -> Checked {
    let tree = Tree::new()?;
    let identity = Identity::new(&tree.layout, PathBuf::from("/none"), "none", None);
    let kept = BTreeMap::from([
        (
            "registration.json",
            json!({ "thing_name": "gw-1", "certificate_id": "a", "certificate_pem": "x",
                    "device_configuration": { "a": 1 } }),
        ),
        (
            "ownership.json",
            json!({ "template_name": "t", "certificate_id": "a", "certificate_pem": "x",
                    "certificate_ownership_token": "secret", "received": 1 }),
        ),
    ]);
    let judge = |name: &str, content: &[u8]| -> Checked {
        tree.write(&format!("{IDENTITY}/{name}"), content)?;
        match identity.registration() {
            Ok(Some(registration)) => {
                let name = registration.thing_name;
                prop_assert!(
                    firstboot_formats::thing_name::check_thing_name(&name).is_ok(),
                    "{:?}",
                    name
                );
            }
            Ok(None) => {}
            Err(e) => assert_printable(&e.to_string())?,
        }
        identity.ownership().or_fail()?;
        Ok(())
    };
    for (name, content) in &kept {
        let content = content.to_string();
        judge(name, content.as_bytes())?;
        proptest!(cases(300), |(damage in damage())| {
            judge(name, &damaged(content.as_bytes(), &damage))?;
        });
        proptest!(cases(200), |(content in any_json())| {
            judge(name, content.to_string().as_bytes())?;
        });
        judge(name, content.as_bytes())?;
    }
    prop_assert!(identity.ownership().or_fail()?.is_some());
    prop_assert!(identity.registration().or_fail()?.is_some());
    Ok(())
}
