//! Request, issue, reply, activation, import, TLS with the key: each kind of key with each endorsement key, on both
//! firmwares of the SLB 9670, with the kernel's resource manager and without it.

use anyhow::Result;
use image_tests::clients::{KeyType, openssl, pkcs11_tool};
use image_tests::device::station::Station;
use image_tests::device::{Device, STORE, offline_settings};
use image_tests::doubles::software_tpm::Ek;
use image_tests::doubles::tls::{TlsServer, Version};
use image_tests::doubles::tpm_proxy::{Firmware, Options, Proxy, Slb9670};
use image_tests::faults::network::Cloud;
use serde_json::{Value, json};

use crate::device::thing_name;

/// A device that accepts this station's replies, and has never booted.
pub fn device(station: &Station, key: KeyType, ek: Ek) -> Result<Device> {
    let device = Device::unprovisioned()?;
    station.manufacturer.equip(&device.tpm, ek)?;
    let mut settings = offline_settings("nucleus-lite", key);
    settings["enrollment"]["issuers"] = json!([station.fingerprint()?]);
    device.settings(&settings)?;
    device.write(
        "/boot/firstboot/root-ca.pem",
        station.operator.certificate_pem()?,
    )?;
    Ok(device)
}

fn goes_through(key: KeyType, ek: Ek, firmware: Firmware, manager: bool) -> Result<()> {
    let station = Station::new()?;
    let mut device = device(&station, key, ek)?;
    let options = Options {
        chip: Some(Slb9670::new(firmware)),
        latency: None,
    };
    let proxy = Proxy::start(device.tpm.upstream(), options)?;
    let opened = manager.then(|| proxy.open()).transpose()?;
    device.tcti = Some(
        opened
            .as_ref()
            .map_or_else(|| proxy.tcti(), |opened| opened.tcti()),
    );
    device.succeed(&["provision"])?;
    station.answer(&device)?;
    device.succeed(&["enroll"])?;
    assert_eq!(device.status()?["state"], "Done");
    drop(opened);
    assert!(device.tpm.transient_handles()?.is_empty());
    let server = TlsServer::start(&station.operator, Version::Tls13)?;
    let identity = device.identity_of_greengrass(key)?;
    let certificate = device.lite_certificate()?;
    openssl::connect(&identity, &certificate, &device.openssl_conf()?, &server)?;
    assert!(server.authenticated(&thing_name()), "{}", server.log());
    assert_eq!(device.tpm.persistent_handles()?, [0x8100_0001]);
    assert_eq!(device.tpm.lockout_counter()?, 0);
    Ok(())
}

/// Every combination of key, endorsement key, firmware and resource manager.
macro_rules! each {
    ($($name:ident: $key:ident, $ek:ident, $firmware:ident, $manager:literal;)*) => {
        $(
            #[test]
            fn $name() -> Result<()> {
                goes_through(KeyType::$key, Ek::$ek, Firmware::$firmware, $manager)
            }
        )*
    };
}

each! {
    ecc_p256_7_63: EccP256, P256, V7_63, false;
    ecc_p256_7_63_managed: EccP256, P256, V7_63, true;
    ecc_p256_7_85: EccP256, P256, V7_85, false;
    ecc_p256_7_85_managed: EccP256, P256, V7_85, true;
    ecc_rsa_7_63: EccP256, Rsa2048, V7_63, false;
    ecc_rsa_7_63_managed: EccP256, Rsa2048, V7_63, true;
    ecc_rsa_7_85: EccP256, Rsa2048, V7_85, false;
    ecc_rsa_7_85_managed: EccP256, Rsa2048, V7_85, true;
    rsa_p256_7_63: Rsa2048, P256, V7_63, false;
    rsa_p256_7_63_managed: Rsa2048, P256, V7_63, true;
    rsa_p256_7_85: Rsa2048, P256, V7_85, false;
    rsa_p256_7_85_managed: Rsa2048, P256, V7_85, true;
    rsa_rsa_7_63: Rsa2048, Rsa2048, V7_63, false;
    rsa_rsa_7_63_managed: Rsa2048, Rsa2048, V7_63, true;
    rsa_rsa_7_85: Rsa2048, Rsa2048, V7_85, false;
    rsa_rsa_7_85_managed: Rsa2048, Rsa2048, V7_85, true;
}

/// A renewal with a new key: the request says which one it is for by its name, and so does the reply.
#[test]
fn the_next_key_gets_its_certificate() -> Result<()> {
    for key in KeyType::BOTH {
        let station = Station::new()?;
        let ek = match key {
            KeyType::EccP256 => Ek::P256,
            KeyType::Rsa2048 => Ek::Rsa2048,
        };
        let device = device(&station, key, ek)?;
        let mut settings: Value =
            serde_json::from_str(&device.read("/boot/firstboot/firstboot.json")?)?;
        settings["enrollment"]["trust_clock"] = json!(true);
        let cloud = Cloud::with_ca_of(&station.operator)?;
        settings["greengrass"]["iot_data_endpoint"] = json!("localhost");
        settings["enrollment"]["port"] = json!(cloud.core.port());
        device.settings(&settings)?;
        let root = cloud.root.certificate_pem()?;
        device.write("/boot/firstboot/root-ca.pem", root)?;
        device.succeed(&["provision"])?;
        station.answer(&device)?;
        device.succeed(&["enroll"])?;
        let present = device.read(format!("{STORE}/certificate.pem"))?;

        settings["renew"] = json!({ "key": "new", "at": "400 days" });
        device.settings(&settings)?;
        device.succeed(&["renew"])?;
        station.answer(&device)?;
        settings["renew"]["at"] = json!("1 day");
        device.settings(&settings)?;
        device.succeed(&["renew"])?;
        assert_eq!(device.read(format!("{STORE}/certificate.pem"))?, present);
        device.succeed(&["renew", "--due"])?;
        device.succeed(&["enroll"])?;
        assert_ne!(device.read(format!("{STORE}/certificate.pem"))?, present);
        pkcs11_tool::sign_and_verify(&device.identity(key)?)?;
        let idle = device.snapshot()?;
        device.succeed(&["enroll"])?;
        idle.assert_same(&device.snapshot()?);
        assert_eq!(device.status()?["message"], "nothing left to do");
    }
    Ok(())
}
