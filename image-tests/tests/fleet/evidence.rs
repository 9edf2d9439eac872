//! The evidence that the key is in a TPM is sent to the template as parameters, for a pre-provisioning hook to verify.

use anyhow::Result;
use firstboot_formats::attestation::{Evidence, PublicArea};
use firstboot_formats::encoding;
use image_tests::clients::KeyType;
use image_tests::device::Device;
use image_tests::doubles::iot_core::Options;
use image_tests::doubles::pki::Manufacturer;
use image_tests::doubles::software_tpm::Ek;
use image_tests::faults::network::Cloud;
use serde_json::{Value, json};

use crate::{Enrolling, exit, thing};

const PARAMETERS: [&str; 3] = ["EkCertificate", "EkSha256", "KeyPublic"];

/// A provisioned device with this EK, if any, whose template takes every parameter.
fn enrolling(key: KeyType, ek: Option<Ek>) -> Result<Enrolling> {
    let mut options = Options::default();
    for template in &mut options.templates {
        template.optional.extend(PARAMETERS.map(String::from));
    }
    let cloud = Cloud::with(options)?;
    let device = Device::unprovisioned()?;
    if let Some(ek) = ek {
        Manufacturer::new()?.equip(&device.tpm, ek)?;
    }
    cloud.card(&device, "nucleus-lite", key)?;
    let mut settings = cloud.settings("nucleus-lite", key);
    settings["enrollment"]["template_parameters"] = json!({
        "SerialNumber": "${serial}",
        "EkCertificate": "${ek_certificate}",
        "EkSha256": "${ek_sha256}",
        "KeyPublic": "${key_public}",
    });
    device.settings(&settings)?;
    device.succeed(&["provision"])?;
    let thing = thing();
    Ok(Enrolling {
        cloud,
        device,
        thing,
    })
}

#[test]
fn a_hook_gets_the_ek_certificate_and_the_keys_public_area() -> Result<()> {
    for (key, ek) in [
        (KeyType::EccP256, Ek::P256),
        (KeyType::Rsa2048, Ek::Rsa2048),
    ] {
        let enrolling = enrolling(key, Some(ek))?;
        enrolling.ends_done()?;
        let events = enrolling.cloud.core.events();
        let asked = events.published("$aws/provisioning-templates/gateways/provision/json");
        let asked: Value = serde_json::from_slice(&asked[0])?;
        let given = PARAMETERS.map(|name| asked["parameters"][name].as_str().unwrap_or_default());
        let record = enrolling.device.read("/var/lib/tpm2_pkcs11/request.json")?;
        let evidence: Evidence = serde_json::from_str(&record)?;
        assert_eq!(encoding::from_base64(given[0]), evidence.ek_certificate);
        let ek_sha256 = encoding::from_hex(given[1]).unwrap_or_default();
        assert_eq!(
            evidence.ek_sha256().as_ref().map(|d| &d[..]),
            Some(&ek_sha256[..])
        );
        let area = encoding::from_base64(given[2]).unwrap_or_default();
        let area = PublicArea::parse(&area).map_err(anyhow::Error::msg)?;
        assert_eq!(area.public_key().fingerprint(), enrolling.key()?);
    }
    Ok(())
}

#[test]
fn without_an_ek_certificate_nothing_is_requested() -> Result<()> {
    let enrolling = enrolling(KeyType::EccP256, None)?;
    enrolling.ends(exit::SETTINGS, "this TPM has no EK certificate")?;
    assert_eq!(enrolling.cloud.core.events().0.len(), 0);
    Ok(())
}

#[test]
fn a_value_that_becomes_too_long_is_named() -> Result<()> {
    let enrolling = enrolling(KeyType::Rsa2048, Some(Ek::Rsa2048))?;
    let settings = enrolling.device.read("/boot/firstboot/firstboot.json")?;
    let mut settings: Value = serde_json::from_str(&settings)?;
    settings["enrollment"]["template_parameters"]["KeyPublic"] = json!("${key_public}".repeat(20));
    enrolling.device.settings(&settings)?;
    enrolling.ends(
        exit::SETTINGS,
        "enrollment.template_parameters.KeyPublic: AWS IoT allows",
    )?;
    assert_eq!(enrolling.cloud.core.events().0.len(), 0);
    Ok(())
}
