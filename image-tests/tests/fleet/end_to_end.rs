//! From a claim pair on the card to the edition's own client, which authenticates with the TPM's key.

use anyhow::{Context, Result};
use image_tests::clients::{KeyType, aws_crt, mosquitto, openssl, pkcs11_tool};
use image_tests::device::Device;
use image_tests::doubles::iot_core::{ClaimKey, Options, Subject};
use image_tests::faults::network::Cloud;
use serde_json::Value;

use crate::{Enrolling, exit, thing};

/// A device after its first start, in which both units ran.
fn enrolled(edition: &str, key: KeyType, options: Options) -> Result<Enrolling> {
    let enrolling = Enrolling::at(Cloud::with(options)?, edition, key)?;
    assert_eq!(enrolling.device.status()?["state"], "AwaitingCertificate");
    enrolling.ends(exit::DONE, "")?;
    assert_eq!(enrolling.device.status()?["state"], "Done");
    enrolling.assert_certificates(1, 1);
    enrolling.assert_own_key()?;
    assert!(!enrolling.device.exists("/boot/firstboot/claim.key.pem"));
    assert!(!enrolling.device.exists("/boot/firstboot/claim.cert.pem"));
    // A later start asks for nothing.
    enrolling.cloud.core.take_events()?;
    enrolling.ends(exit::DONE, "")?;
    assert_eq!(enrolling.cloud.core.events().0.len(), 0);
    Ok(enrolling)
}

fn config(device: &Device, path: &str) -> Result<Value> {
    serde_json::from_str(&device.read(path)?).with_context(|| path.to_owned())
}

/// The thing has connected to the broker with its own certificate.
#[track_caller]
fn assert_authenticated(enrolling: &Enrolling) {
    let events = enrolling.cloud.core.events();
    assert!(events.authenticated(&thing()), "{events:?}");
}

fn nucleus(key: KeyType) -> Result<()> {
    let enrolling = enrolled("nucleus", key, Options::default())?;
    let device = &enrolling.device;
    let config = config(device, "/greengrass/v2/config/config.yaml")?;
    assert_eq!(config["system"]["thingName"], thing());
    assert_eq!(
        config["system"]["privateKeyPath"],
        "pkcs11:object=greenkey;type=private"
    );
    let plugin = &config["services"]["aws.greengrass.crypto.Pkcs11Provider"]["configuration"];
    let slot = plugin["slot"].as_u64().context("no slot")?;
    let identity = device.identity(key)?;
    assert_eq!(plugin["userPin"], identity.pin()?);
    // Like the nucleus's plugin: the certificate from the token, the rest from the configuration.
    let certificate = tempfile::NamedTempFile::new()?;
    pkcs11_tool::read_certificate(&identity, certificate.path())?;
    let root_ca = device.path(config["system"]["rootCaPath"].as_str().unwrap_or_default());
    let port = enrolling.cloud.core.port();
    aws_crt::publish_at_slot(
        &identity,
        slot,
        certificate.path(),
        &root_ca,
        port,
        &thing(),
    )?;
    assert_authenticated(&enrolling);
    let topic = format!("devices/{}/hello", thing());
    assert_eq!(
        enrolling.cloud.core.events().published(&topic),
        [b"born in the TPM"]
    );
    Ok(())
}

fn nucleus_lite(key: KeyType) -> Result<()> {
    // With the other kind of subject and of claim key.
    let options = Options {
        subject: Subject::Requested,
        claim: ClaimKey::Rsa,
        ..Options::default()
    };
    let enrolling = enrolled("nucleus-lite", key, options)?;
    let device = &enrolling.device;
    let config = config(device, "/etc/greengrass/config.yaml")?;
    assert_eq!(config["system"]["thingName"], thing());
    let identity = device.identity_of_greengrass(key)?;
    assert_eq!(config["system"]["privateKeyPath"], identity.uri("private"));
    let certificate = device.lite_certificate()?;
    let root_ca = device.path(config["system"]["rootCaPath"].as_str().unwrap_or_default());
    let port = enrolling.cloud.core.port();
    openssl::connect_mqtt(
        &identity,
        &certificate,
        &device.openssl_conf()?,
        &root_ca,
        port,
        &thing(),
    )?;
    assert_authenticated(&enrolling);
    Ok(())
}

fn v1(key: KeyType) -> Result<()> {
    let enrolling = enrolled("v1", key, Options::default())?;
    let device = &enrolling.device;
    let config = config(device, "/greengrass/config/config.json")?;
    let arn = config["coreThing"]["thingArn"].as_str().unwrap_or_default();
    assert!(arn.ends_with(&format!(":thing/{}", thing())), "{arn}");
    let crypto = &config["crypto"];
    let identity = device.identity(key)?;
    assert_eq!(crypto["PKCS11"]["slotUserPin"], identity.pin()?);
    let principal = &crypto["principals"]["IoTCertificate"];
    let key_uri = principal["privateKeyPath"].as_str().context("no key")?;
    let file = |value: &Value| {
        let path = value.as_str().and_then(|uri| uri.strip_prefix("file://"));
        path.map(|path| device.path(path)).context("no file")
    };
    let certificate = file(&principal["certificatePath"])?;
    let root_ca = file(&crypto["caPath"])?;
    let port = enrolling.cloud.core.port();
    mosquitto::publish(&identity, key_uri, &certificate, &root_ca, port, &thing())?;
    assert_authenticated(&enrolling);
    Ok(())
}

image_tests::for_both_keys! {
    nucleus: nucleus_with_ecc, nucleus_with_rsa;
    nucleus_lite: nucleus_lite_with_ecc, nucleus_lite_with_rsa;
    v1: v1_with_ecc, v1_with_rsa;
}

/// On an unprovisioned device, `enroll` provisions first.
#[test]
fn enroll_alone_does_everything() -> Result<()> {
    let cloud = Cloud::new()?;
    let device = Device::unprovisioned()?;
    cloud.card(&device, "nucleus-lite", KeyType::EccP256)?;
    let thing = thing();
    let enrolling = Enrolling {
        cloud,
        device,
        thing,
    };
    enrolling.ends_done()?;
    enrolling.assert_certificates(1, 1);
    Ok(())
}

/// The topics and payloads are those that AWS documents; the parameters have their placeholders filled in.
#[test]
fn the_conversation_is_the_documented_one() -> Result<()> {
    let enrolling = Enrolling::new()?;
    let mut settings = enrolling.cloud.settings("nucleus-lite", KeyType::EccP256);
    settings["enrollment"]["template_parameters"] = serde_json::json!({
        "SerialNumber": "${serial}",
        "Location": "hall ${machine_id} ${thing_name} ${key_sha256}",
    });
    enrolling.device.settings(&settings)?;
    enrolling.ends_done()?;
    let events = enrolling.cloud.core.events();
    let register = "$aws/provisioning-templates/gateways/provision/json";
    let asked = events.published(register);
    assert_eq!(asked.len(), 1);
    let asked: Value = serde_json::from_slice(&asked[0])?;
    let expected = format!(
        "hall {} gateway-{} {}",
        image_tests::device::MACHINE_ID,
        image_tests::device::SERIAL,
        enrolling.key()?
    );
    assert_eq!(asked["parameters"]["Location"], expected);
    assert_eq!(
        asked["parameters"]["SerialNumber"],
        image_tests::device::SERIAL
    );

    let asked = events.published("$aws/certificates/create-from-csr/json");
    assert_eq!(asked.len(), 1);
    let asked: Value = serde_json::from_slice(&asked[0])?;
    let csr = std::fs::read_to_string(enrolling.device.request()?)?;
    assert_eq!(asked["certificateSigningRequest"], csr);
    // It subscribes to all four answers before it sends the first request.
    let subscribed = |event: &image_tests::doubles::iot_core::Event| {
        matches!(event, image_tests::doubles::iot_core::Event::Subscribed(_))
    };
    let first_request = events.0.iter().position(|entry| {
        matches!(
            entry.event,
            image_tests::doubles::iot_core::Event::Published(..)
        )
    });
    let before = &events.0[..first_request.unwrap_or(0)];
    assert_eq!(
        before
            .iter()
            .filter(|entry| subscribed(&entry.event))
            .count(),
        4
    );
    assert_eq!(events.open(), 0, "a connection was left open");
    // The server's name is sent first, as AWS chooses the account's certificate by it (SNI).
    let hellos = enrolling.cloud.relay.hellos();
    assert!(
        hellos
            .iter()
            .all(|hello| hello.server_name.as_deref() == Some("localhost"))
    );
    assert!(hellos.iter().all(|hello| hello.protocols.is_empty()));
    Ok(())
}
