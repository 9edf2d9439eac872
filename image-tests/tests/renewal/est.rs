//! simplereenroll (RFC 7030 §4.2.2), over TLS with the TPM's key.

use std::sync::Arc;

use anyhow::{Context, Result, bail};
use firstboot::enrollment::est::{self, Answer, Credentials, Wanted, Which};
use firstboot::error::{Error, ErrorKind};
use firstboot::identity::EstAnswer;
use firstboot_formats::public_key::PublicKey;
use firstboot_formats::x509::Chain;
use image_tests::clients::{KeyType, openssl};
use image_tests::device::Device;
use image_tests::doubles::est::{EstServer, Misbehaviour, Options, PASSWORD};
use image_tests::doubles::pki::{Authority, Validity};
use image_tests::doubles::tls::{TlsServer, Version};
use image_tests::faults::network::{EST_CA, EST_CLAIM, est_settings};
use image_tests::process::succeed;

use crate::{Renewing, alone, thing};

const CERTIFICATE: &str = "/var/lib/tpm2_pkcs11/certificate.pem";

/// A device that has enrolled.
struct Enrolled {
    authority: Arc<Authority>,
    server: EstServer,
    device: Device,
}

impl Enrolled {
    fn new(key: KeyType, version: Version) -> Result<Self> {
        let authority = Arc::new(Authority::new()?);
        let server = EstServer::start(&authority, version, Options::default())?;
        let device = Device::unprovisioned()?;
        let enrolled = Self {
            authority,
            server,
            device,
        };
        enrolled.settings(key, enrolled.server.port())?;
        let device = &enrolled.device;
        device.write(EST_CA, enrolled.authority.certificate_pem()?)?;
        device.write(EST_CLAIM[0], PASSWORD)?;
        device.succeed(&["enroll"])?;
        Ok(enrolled)
    }

    fn settings(&self, key: KeyType, port: u16) -> Result<()> {
        let settings = est_settings("nucleus-lite", key, port, None);
        self.device.settings(&settings)
    }

    /// Asks for another certificate for this key, with the request for it, and checks what comes.
    fn ask(&self, request: &str, key: &PublicKey) -> Result<std::result::Result<Chain, Error>> {
        let renewing = Renewing::of(&self.device)?;
        let Renewing { settings, boot, .. } = &renewing;
        let accepted = &renewing.accepted;
        let kind = accepted.key().key_type().context("no key")?;
        let own = renewing.identity.open_key()?;
        let credentials = Credentials::of_device(accepted, own, kind);
        let wanted = Wanted {
            key,
            thing_name: &thing(),
            which: Which::InPlaceOf(accepted),
        };
        let answer = est::request(settings, boot, &credentials, &wanted, request, || Ok(()));
        Ok(answer.and_then(|answer| match answer {
            Answer::Issued(EstAnswer::Certificates(pem)) => {
                let checked = est::check(settings, boot, &pem, &wanted);
                checked.map_err(Error::other)
            }
            Answer::Issued(EstAnswer::Unreadable(why)) => Err(Error::other(why)),
            Answer::NotNow(_, why) | Answer::Lost(why) => Err(why),
        }))
    }

    /// The same for the key that it has.
    fn renew(&self) -> Result<std::result::Result<Chain, Error>> {
        let renewing = Renewing::of(&self.device)?;
        self.ask(&renewing.request, &renewing.accepted.key())
    }

    #[track_caller]
    fn refuses(&self, kind: ErrorKind, words: &str) -> Result<()> {
        let before = self.device.read(CERTIFICATE)?;
        match self.renew()? {
            Ok(_) => bail!("it was not refused: {words}"),
            Err(e) => {
                assert_eq!(e.kind, kind, "{e}");
                assert!(e.to_string().contains(words), "no {words:?} in {e}");
            }
        }
        assert_eq!(self.device.read(CERTIFICATE)?, before);
        Ok(())
    }
}

/// The server sees the certificate that is renewed, and a client of Greengrass's shows the new one afterwards.
fn with_the_key_that_it_has(key: KeyType) -> Result<()> {
    let _turn = alone();
    for version in Version::BOTH {
        let enrolled = Enrolled::new(key, version)?;
        let before = Renewing::of(&enrolled.device)?.accepted;
        let chain = enrolled.renew()??;
        assert_eq!(enrolled.server.shown(), [before.summary().serial]);
        assert_ne!(chain, before);
        assert_eq!(chain.key().spki(), before.key().spki());
        let issued = enrolled.server.issued();
        assert!(chain.pem().starts_with(&issued[1]), "{issued:?}");
        assert_eq!(enrolled.server.complaints(), Vec::<String>::new());
        assert_eq!(enrolled.server.counts().reenrolls, 1);

        Renewing::of(&enrolled.device)?.identity.accept(&chain)?;
        let device = &enrolled.device;
        device.succeed(&["enroll"])?;
        assert_eq!(device.status()?["state"], "Done");
        assert_eq!(
            device.status()?["certificate"]["serial"],
            chain.summary().serial
        );
        let server = TlsServer::start(&enrolled.authority, version)?;
        openssl::connect(
            &device.identity_of_greengrass(key)?,
            &device.lite_certificate()?,
            &device.openssl_conf()?,
            &server,
        )?;
        assert!(server.was_shown(&issued[1])?, "{}", server.log());
    }
    Ok(())
}

image_tests::for_both_keys! {
    with_the_key_that_it_has: with_the_key_that_it_has_ecc, with_the_key_that_it_has_rsa;
}

/// The request is another key's, under the same name; TLS is the old one's.
#[test]
fn with_another_key() -> Result<()> {
    let _turn = alone();
    let enrolled = Enrolled::new(KeyType::EccP256, Version::Tls13)?;
    let files = tempfile::tempdir()?;
    let [key, csr] = ["key", "csr"].map(|name| files.path().join(name));
    let curve = "ec_paramgen_curve:P-256";
    let mut make = openssl::plain(&["req", "-new", "-newkey", "ec", "-pkeyopt", curve, "-nodes"]);
    make.args([
        "-config",
        "/dev/null",
        "-subj",
        &format!("/CN={}", thing()),
        "-keyout",
    ]);
    succeed(make.arg(&key).arg("-out").arg(&csr))?;
    let request = std::fs::read_to_string(&csr)?;
    let spki = ::openssl::x509::X509Req::from_pem(request.as_bytes())?;
    let key = PublicKey::from_spki(spki.public_key()?.public_key_to_der()?);
    let chain = enrolled.ask(&request, &key)??;
    assert!(chain.is_for(&key));
    assert_eq!(enrolled.server.complaints(), Vec::<String>::new());
    Ok(())
}

#[test]
fn what_is_no_better_is_refused() -> Result<()> {
    let _turn = alone();
    let enrolled = Enrolled::new(KeyType::EccP256, Version::Tls13)?;
    let at = Misbehaviour::AnotherTime;
    for (misbehaviour, words) in [
        (Misbehaviour::AnotherKey, "another key"),
        (Misbehaviour::AnotherName, "somebody-else"),
        (
            Misbehaviour::AnotherCa(Arc::new(Authority::new()?)),
            "est-ca.pem",
        ),
        // Since longer ago than the accepted one.
        (at(Validity::Now), "it is older"),
        (
            at(Validity::Days { over: 1, left: 9 }),
            "before the one that it renews",
        ),
        (at(Validity::Expired), "expired"),
    ] {
        enrolled.server.misbehave(misbehaviour);
        enrolled.refuses(ErrorKind::Other, words)?;
    }
    for (status, words) in [(400, "wants it unchanged"), (403, "already now")] {
        enrolled
            .server
            .misbehave(Misbehaviour::Answers(status, vec![], ""));
        enrolled.refuses(ErrorKind::Waiting, words)?;
    }
    enrolled.renew()??;
    Ok(())
}

/// The server does not know the device's CA any more.
#[test]
fn a_certificate_that_the_server_does_not_accept() -> Result<()> {
    let _turn = alone();
    for version in Version::BOTH {
        let enrolled = Enrolled::new(KeyType::EccP256, version)?;
        let other = Arc::new(Authority::new()?);
        let server = EstServer::start(&other, version, Options::default())?;
        enrolled.settings(KeyType::EccP256, server.port())?;
        let both = other.certificate_pem()? + &enrolled.authority.certificate_pem()?;
        enrolled.device.write(EST_CA, both)?;
        enrolled.refuses(ErrorKind::Waiting, "refused the TLS connection")?;
        assert_eq!(server.counts().reenrolls, 0);
    }
    Ok(())
}
