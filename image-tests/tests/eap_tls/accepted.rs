//! Whoever has the key gets in: both keys, both versions of TLS, both servers.

use anyhow::Result;
use image_tests::clients::KeyType;
use image_tests::clients::wpa_supplicant::Verdict;
use image_tests::doubles::network_access::Server;
use image_tests::doubles::tls::Version;
use image_tests::for_both_keys;

use crate::{
    at_a_port, device, enrolled, enrolled_with_own_key, port, supplicant, usual_port, want,
};

/// firstboot's exit status without a certificate (docs/status.md).
const WAITING: i32 = 75;

fn gets_in(key: KeyType, server: Server) -> Result<()> {
    at_a_port(|| {
        let (device, authority) = enrolled(key)?;
        for version in Version::BOTH {
            let port = port(server, &authority.server()?, &authority, version)?;
            let mut supplicant = supplicant(&device)?;
            assert_eq!(supplicant.verdict()?, Verdict::Accepted, "{version:?}");
            let named = format!("SSL: Using TLS version {}", version.name());
            assert!(supplicant.said().contains(&named), "{}", supplicant.said());
            let identity = format!("gateway-{}", image_tests::device::SERIAL);
            let stations = port.hostapd.stations()?;
            assert!(stations.contains(&identity), "{stations}");
        }
        Ok(())
    })
}

fn gets_in_at_hostapd(key: KeyType) -> Result<()> {
    gets_in(key, Server::Hostapd)
}

fn gets_in_at_freeradius(key: KeyType) -> Result<()> {
    gets_in(key, Server::FreeRadius)
}

/// With a key of the network's own, whose certificate another CA has signed than the device's.
fn gets_in_with_its_own_key(key: KeyType, server: Server) -> Result<()> {
    at_a_port(|| {
        let (device, authority, networks) = enrolled_with_own_key(key)?;
        for version in Version::BOTH {
            let _port = port(server, &authority.server()?, &networks, version)?;
            let mut supplicant = supplicant(&device)?;
            let verdict = supplicant.verdict()?;
            assert_eq!(verdict, Verdict::Accepted, "{}", supplicant.said());
        }
        assert_eq!(device.tpm.lockout_counter()?, 0);
        Ok(())
    })
}

fn its_own_key_gets_in_at_hostapd(key: KeyType) -> Result<()> {
    gets_in_with_its_own_key(key, Server::Hostapd)
}

fn its_own_key_gets_in_at_freeradius(key: KeyType) -> Result<()> {
    gets_in_with_its_own_key(key, Server::FreeRadius)
}

/// Such a network may be the way to the device's certificate.
#[test]
fn the_networks_own_key_gets_in_before_the_device_is_enrolled() -> Result<()> {
    at_a_port(|| {
        let key = KeyType::EccP256;
        let (device, authority) = device(key)?;
        want(&device, key, "own")?;
        device.succeed(&["provision"])?;
        device.drop_network_certificate(&authority.sign(&device.network_request()?)?)?;
        assert_eq!(device.run(&["enroll"])?.code, WAITING);
        let _port = usual_port(&authority)?;
        assert_eq!(supplicant(&device)?.verdict()?, Verdict::Accepted);
        Ok(())
    })
}

/// Each of the two keys is let in where its own CA counts, and refused where the other one's does.
fn one_key_is_not_the_other(key: KeyType, which: &str) -> Result<()> {
    at_a_port(|| {
        let (device, authority, networks) = enrolled_with_own_key(key)?;
        want(&device, key, which)?;
        device.succeed(&["enroll"])?;
        let (refuses, accepts) = match which {
            "own" => (&authority, &networks),
            _ => (&networks, &authority),
        };
        for (devices, verdict) in [(refuses, Verdict::Refused), (accepts, Verdict::Accepted)] {
            let server = authority.server()?;
            let _port = port(Server::Hostapd, &server, devices, Version::Tls13)?;
            let mut supplicant = supplicant(&device)?;
            assert_eq!(supplicant.verdict()?, verdict, "{}", supplicant.said());
        }
        Ok(())
    })
}

fn the_devices_key_is_not_the_networks(key: KeyType) -> Result<()> {
    one_key_is_not_the_other(key, "same")
}

fn the_networks_key_is_not_the_devices(key: KeyType) -> Result<()> {
    one_key_is_not_the_other(key, "own")
}

for_both_keys! {
    its_own_key_gets_in_at_hostapd: hostapd_lets_the_networks_own_ecc_key_in, hostapd_lets_the_networks_own_rsa_key_in;
    its_own_key_gets_in_at_freeradius: freeradius_lets_the_networks_own_ecc_key_in,
        freeradius_lets_the_networks_own_rsa_key_in;
    the_devices_key_is_not_the_networks: an_ecc_key_is_not_the_networks_own, an_rsa_key_is_not_the_networks_own;
    the_networks_key_is_not_the_devices: the_networks_own_ecc_key_is_not_the_devices,
        the_networks_own_rsa_key_is_not_the_devices;
    gets_in_at_hostapd: hostapd_lets_an_ecc_key_in, hostapd_lets_an_rsa_key_in;
    gets_in_at_freeradius: freeradius_lets_an_ecc_key_in, freeradius_lets_an_rsa_key_in;
}
