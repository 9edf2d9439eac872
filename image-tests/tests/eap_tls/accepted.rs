//! Who has the key gets in: both keys, both versions of TLS, both servers.

use anyhow::Result;
use image_tests::clients::KeyType;
use image_tests::clients::wpa_supplicant::Verdict;
use image_tests::doubles::network_access::Server;
use image_tests::doubles::tls::Version;
use image_tests::for_both_keys;

use crate::{at_a_port, enrolled, port, supplicant};

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

for_both_keys! {
    gets_in_at_hostapd: hostapd_lets_an_ecc_key_in, hostapd_lets_an_rsa_key_in;
    gets_in_at_freeradius: freeradius_lets_an_ecc_key_in, freeradius_lets_an_rsa_key_in;
}
