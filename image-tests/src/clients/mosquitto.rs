//! mosquitto_pub: an MQTT client that takes only files, and uses the TPM's key through OpenSSL all the same, because
//! pkcs11-provider reads a key's URI from a PEM file.

use std::path::Path;

use anyhow::{Context, Result, ensure};

use super::Identity;
use super::openssl::configuration;
use crate::process::succeed;

/// Connects to an IoT data endpoint on this host as a thing, with the identity's key, and publishes to one of the
/// thing's topics. The certificate's file may have a chain.
pub fn publish(
    identity: &Identity,
    key_uri: &str,
    certificate: &Path,
    root_ca: &Path,
    port: u16,
    thing: &str,
) -> Result<()> {
    let files = tempfile::tempdir()?;
    let (key, openssl_conf) = (
        files.path().join("key.pem"),
        files.path().join("openssl.cnf"),
    );
    std::fs::write(&key, uri_file(key_uri)?)?;
    std::fs::write(&openssl_conf, configuration(identity)?)?;
    let mut client = identity.command("mosquitto_pub");
    client
        .env("OPENSSL_CONF", &openssl_conf)
        .args([
            "-h",
            "localhost",
            "-p",
            &port.to_string(),
            "-i",
            thing,
            "-q",
            "1",
        ])
        .args([
            "-t",
            &format!("devices/{thing}/hello"),
            "-m",
            "born in the TPM",
        ])
        .arg("--cafile")
        .arg(root_ca)
        .arg("--cert")
        .arg(certificate)
        .arg("--key")
        .arg(&key);
    succeed(&mut client).context("mosquitto_pub cannot connect")?;
    Ok(())
}

/// A PEM file that stands for a key in a token (pkcs11-provider, tools/uri2pem.py): a SEQUENCE of the format's
/// name, VisibleString, and the URI, UTF8String (X.690 §8.9, §8.23).
fn uri_file(uri: &str) -> Result<String> {
    const FORMAT: &str = "PKCS#11 Provider URI v1.0";
    let element = |tag: u8, content: &[u8]| -> Result<Vec<u8>> {
        ensure!(
            content.len() < 128,
            "a longer element needs a longer header"
        );
        Ok([&[tag, content.len() as u8], content].concat())
    };
    let fields = [
        element(0x1A, FORMAT.as_bytes())?,
        element(0x0C, uri.as_bytes())?,
    ]
    .concat();
    let base64 = ::openssl::base64::encode_block(&element(0x30, &fields)?);
    Ok(format!(
        "-----BEGIN PKCS#11 PROVIDER URI-----\n{base64}\n-----END PKCS#11 PROVIDER URI-----\n"
    ))
}
