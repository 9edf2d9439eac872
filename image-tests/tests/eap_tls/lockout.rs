//! Authenticating again and again costs no try of the TPM's dictionary-attack protection.

use anyhow::Result;
use image_tests::clients::KeyType;
use image_tests::clients::wpa_supplicant::Verdict;
use image_tests::doubles::network_access::Server;
use image_tests::doubles::tls::Version;
use image_tests::doubles::tpm_proxy::{Options, Proxy};

use crate::{at_a_port, enrolled, port, supplicant, usual_port};

/// A hundred in `make sweep`.
fn times() -> usize {
    if std::env::var_os("SWEEP").is_some() {
        100
    } else {
        5
    }
}

#[test]
fn authenticating_again_costs_no_try() -> Result<()> {
    at_a_port(|| {
        let (device, authority) = enrolled(KeyType::EccP256)?;
        let _port = usual_port(&authority)?;
        let mut supplicant = supplicant(&device)?;
        assert_eq!(supplicant.verdict()?, Verdict::Accepted);
        for _ in 0..times() {
            supplicant.tell("reauthenticate")?;
            assert_eq!(supplicant.verdict()?, Verdict::Accepted);
        }
        assert_eq!(device.tpm.lockout_counter()?, 0);
        Ok(())
    })
}

/// The session with the token stays open: no PIN is tried again.
#[test]
fn authenticating_again_needs_no_login() -> Result<()> {
    at_a_port(|| {
        let (mut device, authority) = enrolled(KeyType::EccP256)?;
        let proxy = Proxy::start(device.tpm.upstream(), Options::default())?;
        device.tcti = Some(proxy.tcti());
        let _port = usual_port(&authority)?;
        let mut supplicant = supplicant(&device)?;
        assert_eq!(supplicant.verdict()?, Verdict::Accepted);
        assert_eq!(proxy.take_commands().count("Unseal"), 1);
        supplicant.tell("reauthenticate")?;
        assert_eq!(supplicant.verdict()?, Verdict::Accepted);
        let commands = proxy.take_commands();
        assert_eq!(commands.count("Unseal"), 0, "{:?}", commands.names());
        assert!(commands.count("Sign") > 0, "{:?}", commands.names());
        Ok(())
    })
}

/// Each cut after a login counts as a failed try. With a maximum of one, a single one is a lockout, which firstboot
/// ends before wpa_supplicant starts: the order of the units (`tests/firstboot/units.rs`).
#[test]
fn pulled_plugs_do_not_lock_the_device_out_of_its_network() -> Result<()> {
    at_a_port(|| {
        let (mut device, authority) = enrolled(KeyType::EccP256)?;
        device.tpm.set_max_tries(1)?;
        let server = authority.server()?;
        let _port = port(Server::Hostapd, &server, &authority, Version::Tls12)?;
        let mut counted = 0;
        for _ in 0..times() {
            let mut supplicant = supplicant(&device)?;
            assert_eq!(supplicant.verdict()?, Verdict::Accepted);
            device.tpm.pull_the_plug();
            drop(supplicant);
            device.tpm.power_on()?;
            counted += device.tpm.lockout_counter()?;
            device.succeed(&["enroll"])?;
            assert_eq!(device.tpm.lockout_counter()?, 0);
        }
        assert!(
            counted > 0,
            "no power cut was counted: this TPM tests nothing"
        );
        Ok(())
    })
}
