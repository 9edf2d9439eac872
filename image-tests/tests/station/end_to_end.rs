//! Request, issue, reply, activation, import, TLS with the key: each kind of key with each endorsement key, on both
//! firmwares of the SLB 9670, with the kernel's resource manager and without it.

use anyhow::Result;
use image_tests::clients::{KeyType, openssl};
use image_tests::device::station::Station;
use image_tests::device::{Device, offline_settings};
use image_tests::doubles::software_tpm::Ek;
use image_tests::doubles::tls::{TlsServer, Version};
use image_tests::doubles::tpm_proxy::{Firmware, Options, Proxy, Slb9670};
use serde_json::json;

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
