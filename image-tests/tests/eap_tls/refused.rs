//! A server that is not the network's is refused, and gets no signature: only the identity, which EAP sends in clear.
//! That the same device accepts the right one is shown in each test: the port is then opened properly.

use anyhow::Result;
use image_tests::clients::KeyType;
use image_tests::clients::wpa_supplicant::Verdict;
use image_tests::doubles::network_access::Server;
use image_tests::doubles::pki::{Authority, Pair, Validity};
use image_tests::doubles::tls::Version;
use image_tests::doubles::tpm_proxy::{Firmware, Options, Proxy, Slb9670};

use crate::{at_a_port, enrolled, port, supplicant, usual_port};

/// The server shows a certificate that `wrong` makes with the network's authority or another one, and the device says
/// `why` it does not accept it.
fn refuses(wrong: fn(&Authority, &Authority) -> Result<Pair>, why: &str) -> Result<()> {
    at_a_port(|| {
        let (mut device, authority) = enrolled(KeyType::EccP256)?;
        // What a killed wpa_supplicant leaves in the TPM goes with the file that it had open.
        let resource_manager = Proxy::start(
            device.tpm.upstream(),
            Options {
                chip: Some(Slb9670::new(Firmware::V7_85)),
                latency: None,
            },
        )?;
        let another = Authority::new()?;
        let wrong = wrong(&authority, &another)?;
        for server in [Server::Hostapd, Server::FreeRadius] {
            for version in Version::BOTH {
                let port = port(server, &wrong, &authority, version)?;
                let open = resource_manager.open()?;
                device.tcti = Some(open.tcti());
                resource_manager.take_commands();
                let mut supplicant = supplicant(&device)?;
                let verdict = supplicant.verdict()?;
                assert_eq!(resource_manager.take_commands().count("Sign"), 0);
                let said = supplicant.said();
                assert_eq!(verdict, Verdict::Refused, "{said}");
                let error = said.lines().find(|line| line.contains("TLS-CERT-ERROR"));
                assert!(error.is_some_and(|line| line.contains(why)), "{said}");
                drop(supplicant);
                drop(port);
            }
        }
        let open = resource_manager.open()?;
        device.tcti = Some(open.tcti());
        let _port = usual_port(&authority)?;
        assert_eq!(supplicant(&device)?.verdict()?, Verdict::Accepted);
        assert!(resource_manager.take_commands().count("Sign") > 0);
        Ok(())
    })
}

#[test]
fn a_server_with_another_name() -> Result<()> {
    refuses(
        |authority, _| authority.server_elsewhere(),
        "Domain mismatch",
    )
}

#[test]
fn a_server_of_another_ca() -> Result<()> {
    refuses(
        |_, another| another.server(),
        "unable to get local issuer certificate",
    )
}

#[test]
fn a_server_whose_certificate_has_expired() -> Result<()> {
    refuses(
        |authority, _| authority.server_valid(Validity::Expired),
        "certificate has expired",
    )
}
