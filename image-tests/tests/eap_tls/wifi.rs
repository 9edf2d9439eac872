//! There is no radio here: what is left is that wpa_supplicant accepts the configuration.

use std::process::Command;

use anyhow::Result;
use image_tests::clients::{KeyType, basic_environment};
use image_tests::device::{Device, offline_settings};
use image_tests::doubles::pki::Authority;
use image_tests::process::finish;
use serde_json::json;

use crate::{at_a_port, move_in};

const CONFIGURATION: &str = "/etc/wpa_supplicant/wpa_supplicant-wlan0.conf";

/// Has wpa_supplicant read it. It ends for want of an interface, after the configuration has been read and found good.
fn said_about(configuration: &str) -> Result<String> {
    let mut command = Command::new("/sbin/wpa_supplicant");
    command.env_clear().envs(basic_environment());
    command.args(["-d", "-Dwired", "-inowhere", "-c", configuration]);
    let finished = finish(&mut command)?;
    Ok(finished.stdout + &finished.stderr)
}

#[test]
fn wpa_supplicant_accepts_the_configuration() -> Result<()> {
    at_a_port(|| {
        let device = Device::unprovisioned()?;
        let mut settings = offline_settings("nucleus-lite", KeyType::EccP256);
        settings["network"] = json!({
            "country": "DE",
            "eap_tls": [{
                "interface": "wlan0",
                "ssid": "Halle \"Süd\"",
                "domain": "radius.example.com",
                "identity": "Gerät \"7\" #1"
            }]
        });
        device.settings(&settings)?;
        let authority = Authority::new()?;
        device.write("/boot/firstboot/eap-ca.pem", authority.certificate_pem()?)?;
        device.enroll_with(&authority)?;
        move_in(&device)?;

        let said = said_about(CONFIGURATION)?;
        let bad = "Failed to read or parse configuration";
        assert!(!said.contains(bad) && !said.contains("Line "), "{said}");
        assert!(said.contains("country='DE'"), "{said}");
        // As it shows quotes and UTF-8.
        let ssid = r#"ssid='Halle \"S\xc3\xbcd\"'"#;
        assert!(said.contains(ssid), "{said}");
        // A mistake is found.
        let text = device.read(CONFIGURATION)?;
        device.write(CONFIGURATION, text.replace("identity=", "identity=\"\"x"))?;
        assert!(said_about(CONFIGURATION)?.contains(bad));
        Ok(())
    })
}
