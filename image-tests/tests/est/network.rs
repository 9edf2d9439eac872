//! The connection to the EST server: no server, the wrong server, or somebody in between.

use std::sync::Arc;

use anyhow::Result;
use image_tests::doubles::est::{EstServer, Options};
use image_tests::doubles::pki::{Authority, Pair, Validity};
use image_tests::doubles::tls::Version;
use image_tests::ports::PortPair;
use serde_json::json;

use crate::{EST_CA, Enrolling, Shows, exit};

/// A server with another certificate of its own; the device's card is as it was.
fn in_place_of(enrolling: &Enrolling, own: &Pair) -> Result<EstServer> {
    let (authority, options) = (&enrolling.authority, Options::default());
    let server = EstServer::start_as(own, authority, Version::Tls13, options)?;
    enrolling.change(|e| e["est"]["server"] = json!(format!("localhost:{}", server.port())))?;
    Ok(server)
}

/// Nothing is asked for at a server that is not the right one, and no password is sent.
#[test]
fn a_server_that_cannot_be_trusted() -> Result<()> {
    let enrolling = Enrolling::new()?;
    let stranger = Authority::new()?;
    for (own, words) in [
        (stranger.server()?, "CN=Operator Root CA"),
        (enrolling.authority.server_elsewhere()?, "another name"),
        (
            enrolling.authority.server_valid(Validity::Expired)?,
            "cannot be trusted",
        ),
        (
            enrolling.authority.server_valid(Validity::NotYet)?,
            "cannot be trusted",
        ),
    ] {
        let server = in_place_of(&enrolling, &own)?;
        enrolling.fails(exit::WAITING, words)?;
        let counts = server.counts();
        assert_eq!((counts.cacerts, counts.enrolls), (0, 0), "{words}");
    }
    let port = enrolling.server.port();
    enrolling.change(|e| e["est"]["server"] = json!(format!("localhost:{port}")))?;
    enrolling.ends_done()
}

/// Another CA in est-ca.pem, however trusted elsewhere: nobody is believed at first sight.
#[test]
fn another_ca_is_pinned() -> Result<()> {
    let enrolling = Enrolling::new()?;
    let amazon = enrolling
        .device
        .read("/usr/lib/firstboot/AmazonTrustServices.pem")?;
    for pinned in [Authority::new()?.certificate_pem()?, amazon] {
        enrolling.device.write(EST_CA, &pinned)?;
        enrolling.fails(exit::WAITING, "est-ca.pem")?;
    }
    assert_eq!(enrolling.server.counts().cacerts, 0);
    let both = enrolling.authority.certificate_pem()? + &Authority::new()?.certificate_pem()?;
    enrolling.device.write(EST_CA, both)?;
    enrolling.ends_done()
}

/// A certificate for TLS that the server does not know.
#[test]
fn a_pair_of_a_stranger() -> Result<()> {
    let enrolling = Enrolling::new()?;
    enrolling.device.remove(crate::CLAIM_PASSWORD)?;
    let pair = Authority::new()?.claim()?;
    // The authority's files go with it.
    drop(pair);
    let stranger = Arc::new(Authority::new()?);
    let pair = stranger.claim()?;
    for (path, from) in [
        (crate::CLAIM_CERTIFICATE, &pair.certificate),
        (crate::CLAIM_KEY, &pair.key),
    ] {
        enrolling.device.write(path, std::fs::read(from)?)?;
    }
    enrolling.fails(exit::WAITING, "refused the TLS connection")?;
    enrolling.put_claim(Shows::Pair)?;
    enrolling.ends_done()
}

/// Waiting for the network writes nothing, however often the device tries.
#[test]
fn nobody_listens() -> Result<()> {
    let enrolling = Enrolling::new()?;
    let ports = PortPair::reserve()?;
    enrolling.change(|e| e["est"]["server"] = json!(format!("localhost:{}", ports.first())))?;
    enrolling.fails(exit::WAITING, "cannot reach localhost")?;
    let before = enrolling.device.snapshot()?;
    for _ in 0..3 {
        enrolling.fails(exit::WAITING, "cannot reach localhost")?;
    }
    before.assert_same(&enrolling.device.snapshot()?);
    Ok(())
}
