//! Just-in-time provisioning with the operator's registered CA, by the offline method: the chain is put onto the card,
//! the client sends it, and the certificate has the thing's name.

use anyhow::{Context, Result};
use image_tests::clients::{KeyType, aws_crt, mosquitto};
use image_tests::device::{Device, SERIAL, offline_settings};
use image_tests::doubles::iot_core::Options;
use image_tests::doubles::pki::Authority;
use image_tests::faults::network::Cloud;
use serde_json::{Value, json};

struct Signed {
    device: Device,
    cloud: Cloud,
    thing: String,
}

/// A device with a certificate by the operator's issuing CA, which is registered with AWS under the operator's root.
fn signed(edition: &str, key: KeyType) -> Result<Signed> {
    let device = Device::unprovisioned()?;
    let mut settings = offline_settings(edition, key);
    settings["greengrass"]["iot_data_endpoint"] = json!("localhost");
    device.settings(&settings)?;
    device.succeed(&["provision"])?;
    let operator = Authority::new()?;
    let chain = operator.sign_by_intermediate(&device.request()?)?;
    let issuing = chain.find("-----END").and_then(|end| {
        let rest = &chain[end..];
        rest.find("-----BEGIN")
            .map(|begin| rest[begin..].to_owned())
    });
    let cloud = Cloud::with(Options {
        registered: vec![issuing.context("no issuing CA in the chain")?],
        trusted: vec![operator.certificate_pem()?],
        ..Options::default()
    })?;
    device.write("/boot/firstboot/root-ca.pem", cloud.root.certificate_pem()?)?;
    device.drop_certificate(&chain)?;
    device.succeed(&["enroll"])?;
    assert_eq!(device.status()?["state"], "Done");
    let thing = format!("gateway-{SERIAL}");
    Ok(Signed {
        device,
        cloud,
        thing,
    })
}

/// The first connection creates the thing and is closed; the device connects again, as Greengrass does.
fn connects_twice(signed: &Signed, connect: impl Fn() -> Result<()>) -> Result<()> {
    assert!(connect().is_err(), "the first connection is closed");
    connect()?;
    let events = signed.cloud.core.events();
    assert!(events.authenticated(&signed.thing), "{events:?}");
    Ok(())
}

#[test]
fn v1_sends_the_chain_from_its_file() -> Result<()> {
    for key in KeyType::BOTH {
        let signed = signed("v1", key)?;
        let device = &signed.device;
        let config: Value = serde_json::from_str(&device.read("/greengrass/config/config.json")?)?;
        let uri = &config["crypto"]["principals"]["IoTCertificate"]["privateKeyPath"];
        let uri = uri.as_str().context("no key")?;
        let arn = config["coreThing"]["thingArn"].as_str().unwrap_or_default();
        assert!(arn.ends_with(&format!(":thing/{}", signed.thing)), "{arn}");
        let certificate = device.path("/greengrass/certs/device.pem");
        let root_ca = device.path("/greengrass/certs/root.ca.pem");
        let identity = device.identity(key)?;
        let port = signed.cloud.core.port();
        connects_twice(&signed, || {
            mosquitto::publish(&identity, uri, &certificate, &root_ca, port, &signed.thing)
        })?;
        // Without the chain there is no path from the device's certificate to the root that the broker trusts.
        let leaf = tempfile::NamedTempFile::new()?;
        let chain = std::fs::read_to_string(&certificate)?;
        let end = chain
            .find("-----END CERTIFICATE-----\n")
            .context("no certificate")?
            + 26;
        std::fs::write(leaf.path(), &chain[..end])?;
        let alone = mosquitto::publish(&identity, uri, leaf.path(), &root_ca, port, &signed.thing);
        assert!(alone.is_err(), "the chain was not needed");
    }
    Ok(())
}

/// The nucleus gives aws-crt the chain from the token.
#[test]
fn aws_crt_sends_the_chain() -> Result<()> {
    let key = KeyType::EccP256;
    let signed = signed("nucleus", key)?;
    let device = &signed.device;
    let config: Value = serde_json::from_str(&device.read("/greengrass/v2/config/config.yaml")?)?;
    assert_eq!(config["system"]["thingName"], signed.thing.as_str());
    let plugin = &config["services"]["aws.greengrass.crypto.Pkcs11Provider"]["configuration"];
    let slot = plugin["slot"].as_u64().context("no slot")?;
    let root_ca = device.path(config["system"]["rootCaPath"].as_str().unwrap_or_default());
    let chain = device.path("/var/lib/tpm2_pkcs11/certificate.pem");
    let identity = device.identity(key)?;
    let port = signed.cloud.core.port();
    connects_twice(&signed, || {
        aws_crt::publish_at_slot(&identity, slot, &chain, &root_ca, port, &signed.thing)
    })
}
