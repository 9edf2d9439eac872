//! The editions that read their certificate in the token renew: what servers see of them, before and after, with the
//! clients that these editions use.

use std::fs;

use anyhow::{Context, Result};
use image_tests::clients::{KeyType, aws_crt, java, mosquitto, pkcs11_tool};
use image_tests::device::PREVIOUS;
use image_tests::doubles::est;
use image_tests::doubles::iot_core::Renewing;
use image_tests::doubles::tls::{TlsServer, Version};
use serde_json::Value;

use crate::due::Due;
use crate::thing;

/// Each way, with a kept and with a new key.
fn renews(edition: &str, key: KeyType, shows: fn(&Due) -> Result<()>) -> Result<()> {
    for renewed in ["keep", "new"] {
        let fleet = Due::fleet(edition, key, renewed, Renewing::Allowed, "gateway-")?;
        let est = Due::est(edition, key, renewed, est::Options::default())?;
        let offline = Due::offline(edition, key, renewed)?;
        for (mut due, issued) in [(fleet, 2), (est, 2), (offline, 0)] {
            let (serial, key_sha256) = (due.serial()?, due.key_sha256()?);
            connects(&mut due, shows)?;
            assert!(due.renew()?, "Greengrass has to stop for it");
            assert_ne!(due.serial()?, serial);
            assert_eq!(due.key_sha256()? != key_sha256, renewed == "new");
            assert_eq!(due.device.exists(PREVIOUS), renewed == "new");
            assert_eq!(due.issued(), issued);
            connects(&mut due, shows)?;
            due.assert_idle()?;
        }
    }
    Ok(())
}

/// Greengrass runs, and then the device boots.
fn connects(due: &mut Due, shows: fn(&Due) -> Result<()>) -> Result<()> {
    shows(due)?;
    // Clients leave objects in the TPM: without a resource manager, nobody removes them.
    due.device.tpm.pull_the_plug();
    due.device.tpm.power_on()?;
    due.device.succeed(&["enroll"]).map(drop)
}

fn config(due: &Due, path: &str) -> Result<Value> {
    serde_json::from_str(&due.device.read(path)?).with_context(|| path.to_owned())
}

/// aws-crt and SunPKCS11, with slot and PIN from the configuration, and the certificate from the token.
fn nucleus(due: &Due) -> Result<()> {
    let config = config(due, "/greengrass/v2/config/config.yaml")?;
    let plugin = &config["services"]["aws.greengrass.crypto.Pkcs11Provider"]["configuration"];
    let slot = plugin["slot"].as_u64().context("no slot")?;
    let identity = due.device.identity(due.key)?;
    assert_eq!(plugin["userPin"], identity.pin()?);
    let root = config["system"]["rootCaPath"].as_str();
    let root = due.device.path(root.context("no root certificates")?);
    let files = tempfile::tempdir()?;
    let certificate = files.path().join("certificate.pem");
    pkcs11_tool::read_certificate(&identity, &certificate)?;
    due.cloud.core.take_events()?;
    let port = due.cloud.core.port();
    aws_crt::publish_at_slot(&identity, slot, &certificate, &root, port, &thing())?;
    assert_eq!(due.cloud.core.take_events()?.let_in(), [due.id()?]);

    let clients = files.path().join("clients.pem");
    fs::write(&clients, due.issuer()?)?;
    let server = TlsServer::start_for(&due.cloud.root, &clients, Version::Tls12)?;
    java::connect_at_slot(&identity, slot, &server)?;
    assert!(server.was_shown(&due.accepted()?)?, "{}", server.log());
    Ok(())
}

/// OpenSSL, with URI and certificate file from the configuration.
fn v1(due: &Due) -> Result<()> {
    let config = config(due, "/greengrass/config/config.json")?;
    let crypto = &config["crypto"];
    let identity = due.device.identity(due.key)?;
    assert_eq!(crypto["PKCS11"]["slotUserPin"], identity.pin()?);
    let principal = &crypto["principals"]["IoTCertificate"];
    let key_uri = principal["privateKeyPath"].as_str().context("no key")?;
    let file = |value: &Value| {
        let path = value.as_str().and_then(|uri| uri.strip_prefix("file://"));
        path.map(|path| due.device.path(path)).context("no file")
    };
    let certificate = file(&principal["certificatePath"])?;
    let root = file(&crypto["caPath"])?;
    due.cloud.core.take_events()?;
    let port = due.cloud.core.port();
    mosquitto::publish(&identity, key_uri, &certificate, &root, port, &thing())?;
    assert_eq!(due.cloud.core.take_events()?.let_in(), [due.id()?]);
    Ok(())
}

fn nucleus_renews(key: KeyType) -> Result<()> {
    renews("nucleus", key, nucleus)
}

fn v1_renews(key: KeyType) -> Result<()> {
    renews("v1", key, v1)
}

image_tests::for_both_keys! {
    nucleus_renews: nucleus_with_ecc, nucleus_with_rsa;
    v1_renews: v1_with_ecc, v1_with_rsa;
}
