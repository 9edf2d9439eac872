//! The PIN reaches no log, no argument, no environment, and no file but its own.

use std::fs;

use anyhow::Result;
use image_tests::clients::KeyType;
use image_tests::clients::wpa_supplicant::Verdict;
use image_tests::device::{Device, NETWORK, STORE};
use image_tests::doubles::network_access::Server;
use image_tests::doubles::pki::Authority;
use image_tests::doubles::tls::Version;

use crate::{at_a_port, enrolled, enrolled_with_own_key, port, supplicant_with};

#[test]
fn the_pin_stays_in_its_file() -> Result<()> {
    stays(STORE, || {
        let (device, authority) = enrolled(KeyType::EccP256)?;
        Ok((device, authority, None))
    })
}

#[test]
fn the_pin_of_the_networks_own_key_stays_in_its_file() -> Result<()> {
    stays(NETWORK, || {
        let (device, authority, networks) = enrolled_with_own_key(KeyType::EccP256)?;
        Ok((device, authority, Some(networks)))
    })
}

/// The PIN in this directory, of a device with a certificate of the second authority, if there is one.
fn stays(
    directory: &str,
    device: impl FnOnce() -> Result<(Device, Authority, Option<Authority>)> + Send,
) -> Result<()> {
    at_a_port(|| {
        let (device, authority, networks) = device()?;
        let server = authority.server()?;
        let devices = networks.as_ref().unwrap_or(&authority);
        let port = port(Server::Hostapd, &server, devices, Version::Tls13)?;
        // Everything at its most verbose: wpa_supplicant with what it takes for keys (-K), and the provider, which
        // reads the PIN, with each call to the PKCS#11 library.
        let provider = device.path("/run/provider.log");
        let mut supplicant = supplicant_with(&device, |command| {
            command.args(["-dd", "-K"]);
            command.env("TSS2_LOG", "all+trace");
            command.env("TPM2_PKCS11_LOG_LEVEL", "2");
            let debug = format!("file:{},level:2", provider.display());
            command.env("PKCS11_PROVIDER_DEBUG", debug);
        })?;
        assert_eq!(supplicant.verdict()?, Verdict::Accepted);
        let pin_file = format!("{directory}/pin");
        let pin = device.read(&pin_file)?;
        let holds = |content: &[u8]| {
            content
                .windows(pin.len())
                .any(|part| part == pin.as_bytes())
        };
        assert!(holds(&fs::read(device.path(&pin_file))?));

        let process = format!("/proc/{}", supplicant.id());
        for (what, content) in [
            ("log", supplicant.said().as_bytes().to_vec()),
            ("provider's log", fs::read(&provider)?),
            ("arguments", fs::read(format!("{process}/cmdline"))?),
            ("environment", fs::read(format!("{process}/environ"))?),
            ("switch's log", port.hostapd.log()?.into_bytes()),
        ] {
            assert!(!content.is_empty(), "no {what}");
            assert!(!holds(&content), "the PIN is in the {what}");
        }
        let snapshot = device.snapshot()?;
        let found = snapshot.files_with(pin.as_bytes());
        assert_eq!(found, [std::path::Path::new(&pin_file)]);
        Ok(())
    })
}
