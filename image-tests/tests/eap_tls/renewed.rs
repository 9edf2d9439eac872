//! Another certificate is used from the next authentication on.

use anyhow::{Context, Result};
use image_tests::clients::KeyType;
use image_tests::clients::wpa_supplicant::Verdict;
use image_tests::device::Device;
use image_tests::doubles::network_access::Server;
use image_tests::doubles::pki::{Authority, Validity};
use image_tests::doubles::tls::Version;

use crate::{at_a_port, enrolled, enrolled_with_own_key, port, supplicant};

/// The network lets in the devices of another CA from now on: only the renewed certificate is of that. The verdict of
/// the next authentication, for which wpa_supplicant is told this.
fn next_time(version: Version, again: &str, change: fn(&Device) -> Result<()>) -> Result<Verdict> {
    let mut verdict = None;
    at_a_port(|| {
        let (device, authority) = enrolled(KeyType::EccP256)?;
        change(&device)?;
        let server = authority.server()?;
        let next = Authority::new()?;
        let stricter = port(Server::Hostapd, &server, &next, version)?;
        assert_eq!(supplicant(&device)?.verdict()?, Verdict::Refused);
        drop(stricter);

        let before = port(Server::Hostapd, &server, &authority, version)?;
        let mut supplicant = supplicant(&device)?;
        assert_eq!(supplicant.verdict()?, Verdict::Accepted);
        drop(before);
        let renewed = next.sign_valid(&device.request()?, Validity::Recent)?;
        device.drop_certificate(&renewed)?;
        device.succeed(&["renew"])?;
        let _stricter = port(Server::Hostapd, &server, &next, version)?;
        supplicant.tell(again)?;
        verdict = Some(supplicant.verdict()?);
        Ok(())
    })?;
    verdict.context("no verdict")
}

fn is_taken_up(version: Version, again: &str) -> Result<()> {
    assert_eq!(next_time(version, again, |_| Ok(()))?, Verdict::Accepted);
    Ok(())
}

#[test]
fn a_renewed_certificate_is_taken_up() -> Result<()> {
    is_taken_up(Version::Tls12, "reassociate")
}

#[test]
fn a_renewed_certificate_is_taken_up_with_tls_1_3() -> Result<()> {
    is_taken_up(Version::Tls13, "reassociate")
}

/// The networks' own key has a certificate of its own to renew.
#[test]
fn a_renewed_certificate_for_the_networks_own_key_is_taken_up() -> Result<()> {
    at_a_port(|| {
        let (device, authority, networks) = enrolled_with_own_key(KeyType::EccP256)?;
        let server = authority.server()?;
        let before = port(Server::Hostapd, &server, &networks, Version::Tls13)?;
        let mut supplicant = supplicant(&device)?;
        assert_eq!(supplicant.verdict()?, Verdict::Accepted);
        drop(before);
        // The one from before would not be let in.
        let next = Authority::new()?;
        let renewed = next.sign_valid(&device.network_request()?, Validity::Recent)?;
        device.drop_network_certificate(&renewed)?;
        device.succeed(&["renew"])?;
        let _stricter = port(Server::Hostapd, &server, &next, Version::Tls13)?;
        supplicant.tell("reassociate")?;
        assert_eq!(supplicant.verdict()?, Verdict::Accepted);
        Ok(())
    })
}

/// Without a new association, as when the switch asks again.
#[test]
fn a_renewed_certificate_is_shown_at_the_next_authentication() -> Result<()> {
    is_taken_up(Version::Tls13, "reauthenticate")
}

/// What `fast_reauth=0` is for.
#[test]
fn fast_reauthentication_would_not_show_it() -> Result<()> {
    let fast = |device: &Device| {
        let path = "/etc/wpa_supplicant/wpa_supplicant-wired-eth0.conf";
        let text = device.read(path)?.replace("fast_reauth=0", "fast_reauth=1");
        device.write(path, text)
    };
    let verdict = next_time(Version::Tls12, "reauthenticate", fast)?;
    assert_eq!(verdict, Verdict::Refused);
    Ok(())
}
