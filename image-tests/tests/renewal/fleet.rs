//! Fleet provisioning with the device's own certificate in place of a claim pair.

use std::collections::BTreeMap;
use std::process::{Child, Command};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use firstboot::enrollment::claim;
use firstboot::enrollment::fleet::{self, Renewal, Renewed, Wanted, is_active};
use firstboot::error::{Error, ErrorKind};
use firstboot::identity::{Ownership, Registration};
use firstboot_formats::public_key::KeyType as Kind;
use firstboot_formats::x509::Chain;
use image_tests::clients::KeyType;
use image_tests::device::{Device, SERIAL};
use image_tests::doubles::iot_core::{
    Admission, Call, ClientIds, Entry, Event, Misbehaviour, Options, Rejection, Renewing, Status,
    Subject, Template, Who,
};
use image_tests::faults::network::{CLAIM, Cloud};
use serde_json::json;

use crate::{Renewing as View, alone, thing};

/// A device that has enrolled by a claim pair, which is gone.
struct Enrolled {
    cloud: Cloud,
    device: Device,
    kind: Kind,
}

impl Enrolled {
    fn new(key: KeyType, renewing: Renewing) -> Result<Self> {
        let template = Template {
            thing_prefix: "gateway-".into(),
            ..Template::default()
        };
        let cloud = Cloud::with(Options {
            templates: vec![template],
            subject: Subject::Requested,
            renewing,
            ..Options::default()
        })?;
        let device = Device::unprovisioned()?;
        cloud.card(&device, "nucleus-lite", key)?;
        device.succeed(&["enroll"])?;
        cloud.core.take_events()?;
        let kind = match key {
            KeyType::EccP256 => Kind::EccP256,
            KeyType::Rsa2048 => Kind::Rsa2048,
        };
        Ok(Self {
            cloud,
            device,
            kind,
        })
    }

    /// Asks for another certificate for the device's key and has it registered, or resumes with a kept one. What was
    /// received comes back in any case.
    fn renew(
        &self,
        kept: Option<Ownership>,
    ) -> Result<(Option<Ownership>, std::result::Result<Renewed, Error>)> {
        let renewing = View::of(&self.device)?;
        let root_ca = self.cloud.root.certificate_pem()?;
        let parameters = BTreeMap::from([("SerialNumber".to_owned(), SERIAL.to_owned())]);
        let wanted = Wanted {
            request: &renewing.request,
            key: &renewing.accepted.key(),
            common_name: &thing(),
            parameters: &parameters,
        };
        let own = (renewing.identity.open_key()?, self.kind);
        let device = fleet::Device {
            thing_name: &thing(),
            certificate: &renewing.accepted,
        };
        let (settings, boot) = (&renewing.settings, &renewing.boot);
        let claim = || claim::read(boot).ok();
        let opened = Renewal::open(settings, root_ca.as_bytes(), device, own, claim);
        let mut renewal = match opened {
            Ok(renewal) => renewal,
            Err(e) => return Ok((kept, Err(e))),
        };
        let kept = match kept.map_or_else(|| renewal.create(&wanted), Ok) {
            Ok(kept) => kept,
            Err(e) => return Ok((None, Err(e))),
        };
        let renewed = renewal.register(&wanted, &kept);
        renewal.close();
        Ok((Some(kept), renewed))
    }

    /// Puts the claim pair onto the card.
    fn put_claim(&self) -> Result<()> {
        for (path, pem) in CLAIM.iter().zip(self.cloud.core.claim()) {
            self.device.write(path, pem)?;
        }
        Ok(())
    }

    /// Whether AWS accepts a connection with this certificate and the device's key.
    fn is_active(&self, chain: &Chain) -> Result<bool> {
        self.is_let_in(chain, &fleet::beside_greengrass(&thing()))
    }

    /// The same under this client ID.
    fn is_let_in(&self, chain: &Chain, client_id: &str) -> Result<bool> {
        let renewing = View::of(&self.device)?;
        let root_ca = self.cloud.root.certificate_pem()?;
        let key = renewing.identity.open_key()?;
        Ok(is_active(
            &renewing.settings,
            root_ca.as_bytes(),
            client_id,
            chain,
            (key, self.kind),
        )?)
    }

    fn accepted(&self) -> Result<Chain> {
        Ok(View::of(&self.device)?.accepted)
    }

    /// Fails for this reason, with this many certificates, and the device has what it had.
    #[track_caller]
    fn fails(&self, kind: ErrorKind, words: &str, created: usize) -> Result<Option<Ownership>> {
        let before = self.accepted()?;
        let (kept, renewed) = self.renew(None)?;
        match renewed {
            Ok(Renewed::Registered(_) | Renewed::TokenRefused(_)) => {
                bail!("it did not fail: {words}")
            }
            Ok(Renewed::Useless(e)) | Err(e) => {
                assert_eq!(e.kind, kind, "{e}");
                assert!(e.to_string().contains(words), "no {words:?} in {e}");
            }
        }
        assert_eq!(self.accepted()?, before);
        assert!(self.is_active(&before)?);
        assert_eq!(self.cloud.core.counts().created, created);
        Ok(kept)
    }

    /// Whose connections asked, and as which clients.
    fn askers(&self) -> Vec<(Who, String)> {
        let events = self.cloud.core.events();
        let asked = events.0.into_iter().filter(|entry| {
            matches!(&entry.event, Event::Published(topic, _) if topic.starts_with("$aws/"))
        });
        asked.map(|entry| (entry.who, entry.client)).collect()
    }
}

fn registered(renewed: std::result::Result<Renewed, Error>) -> Result<(Registration, Chain)> {
    match renewed? {
        Renewed::Registered(registration) => {
            let chain = Chain::stored(registration.certificate_pem.as_bytes());
            Ok((*registration, chain.context("no certificate")?))
        }
        Renewed::TokenRefused(rejection) => bail!("the token is refused: {rejection:?}"),
        Renewed::Useless(why) => Err(why.into()),
    }
}

/// Both are active until somebody deactivates the old one, which does the new one no harm.
fn with_its_own_certificate(key: KeyType) -> Result<()> {
    let _turn = alone();
    let enrolled = Enrolled::new(key, Renewing::Allowed)?;
    let before = enrolled.accepted()?;
    let (_, renewed) = enrolled.renew(None)?;
    let (registration, chain) = registered(renewed)?;
    assert_eq!(registration.thing_name, thing());
    assert!(!registration.thing_name_is_assumed);
    assert_ne!(chain, before);
    let askers = enrolled.askers();
    assert_eq!(askers.len(), 2);
    for (who, client) in askers {
        assert!(
            matches!(&who, Who::Device { thing: of, .. } if *of == thing()),
            "{who:?}"
        );
        // Not Greengrass's own client ID: that connection would end.
        assert_eq!(client, format!("{}-renewal", thing()));
    }
    let registry = enrolled.cloud.core.registry();
    assert_eq!(registry.active_of(&thing()).len(), 2);
    assert_eq!(enrolled.cloud.core.counts().things, 1);
    assert!(enrolled.is_active(&before)? && enrolled.is_active(&chain)?);

    let old = registry
        .certificates()
        .find(|c| c.pem.trim() == before.pem().trim());
    enrolled
        .cloud
        .core
        .set_status(&old.context("no old one")?.id, Status::Inactive);
    assert!(!enrolled.is_active(&before)? && enrolled.is_active(&chain)?);

    // As the device takes it up.
    let identity = View::of(&enrolled.device)?.identity;
    identity.keep_registration(&registration)?;
    identity.accept(&chain)?;
    enrolled.device.succeed(&["enroll"])?;
    assert_eq!(
        enrolled.device.status()?["certificate"]["serial"],
        chain.summary().serial
    );
    Ok(())
}

image_tests::for_both_keys! {
    with_its_own_certificate: with_its_own_certificate_ecc, with_its_own_certificate_rsa;
}

/// AWS says no, in whichever way and to whichever request: the device keeps what it has. With a claim pair on the card,
/// it asks with that.
#[test]
fn a_claim_pair_where_aws_refuses_the_devices_certificate() -> Result<()> {
    let _turn = alone();
    use Call::{CreateCertificate, RegisterThing};
    for renewing in [
        Renewing::Never,
        Renewing::Closed(CreateCertificate),
        Renewing::Rejected(CreateCertificate),
        Renewing::Closed(RegisterThing),
        Renewing::Rejected(RegisterThing),
    ] {
        let enrolled = Enrolled::new(KeyType::EccP256, renewing)?;
        let core = &enrolled.cloud.core;
        let created = match renewing {
            Renewing::Closed(RegisterThing) | Renewing::Rejected(RegisterThing) => 2,
            _ => 1,
        };
        let keeps = "The device keeps its certificate";
        let kept = enrolled.fails(ErrorKind::Waiting, keeps, created)?;
        assert_eq!(kept.is_some(), created == 2, "{renewing:?}");
        enrolled.put_claim()?;
        core.take_events()?;
        let (_, renewed) = enrolled.renew(kept)?;
        let (_, chain) = registered(renewed)?;
        let answered = |entry: &&Entry| matches!(&entry.event, Event::Answered(topic, _) if topic.ends_with("/accepted"));
        let log = core.events();
        assert!(
            log.0
                .iter()
                .filter(answered)
                .all(|entry| entry.who == Who::Claim)
        );
        assert!(log.0.iter().any(|entry| answered(&entry)));
        assert!(enrolled.is_active(&chain)?);
        assert_eq!(core.counts().created, 2, "{renewing:?}");
    }
    Ok(())
}

/// What another certificate would be told as well is no reason to present it, nor to ask for one.
#[test]
fn refusals_that_are_not_about_the_certificate() -> Result<()> {
    let _turn = alone();
    let enrolled = Enrolled::new(KeyType::EccP256, Renewing::Allowed)?;
    enrolled.put_claim()?;
    let core = &enrolled.cloud.core;
    for (status, code, words) in [
        (400, "InvalidParameters", "template_parameters"),
        (404, "ResourceNotFoundException", "template_name"),
    ] {
        core.take_events()?;
        let rejection = Rejection::new(status, code, "no");
        core.misbehave(
            Call::CreateCertificate,
            1,
            Misbehaviour::Rejected(rejection),
        );
        enrolled.fails(ErrorKind::Waiting, words, 1)?;
        let askers = enrolled.askers();
        assert_eq!(askers.len(), 1, "{askers:?}");
        assert!(matches!(&askers[0].0, Who::Device { .. }), "{askers:?}");
    }
    Ok(())
}

/// Nobody else who is connected under the thing's name notices any of it: AWS allows one connection for each client ID,
/// as the double's broker does.
#[test]
fn a_running_greengrass_stays_connected() -> Result<()> {
    let _turn = alone();
    let enrolled = Enrolled::new(KeyType::EccP256, Renewing::Closed(Call::CreateCertificate))?;
    let core = &enrolled.cloud.core;
    enrolled.put_claim()?;
    let files = tempfile::tempdir()?;
    let [certificate, key] = ["certificate", "key"].map(|name| files.path().join(name));
    let [certificate_pem, key_pem] = core.claim();
    std::fs::write(&certificate, certificate_pem)?;
    std::fs::write(&key, key_pem)?;
    let connected = |event: &Event| {
        let log = core.events().0;
        log.iter()
            .filter(|entry| entry.client == thing() && entry.event == *event)
            .count()
    };
    let mut greengrass = Command::new("mosquitto_sub");
    greengrass
        .args(["-h", "localhost", "-p", &core.port().to_string()])
        .args(["-i", &thing(), "-q", "1"])
        .args(["-t", "$aws/certificates/create-from-csr/json/accepted"])
        .arg("--cafile")
        .arg(enrolled.cloud.root.certificate_path())
        .arg("--cert")
        .arg(certificate)
        .arg("--key")
        .arg(key);
    let mut greengrass = Running(greengrass.spawn()?);
    while connected(&Event::Connected) == 0 {
        ensure!(greengrass.0.try_wait()?.is_none(), "it has not connected");
        std::thread::sleep(Duration::from_millis(10));
    }
    let (_, renewed) = enrolled.renew(None)?;
    let (_, chain) = registered(renewed)?;
    assert!(enrolled.is_active(&chain)?);
    assert_eq!(connected(&Event::Connected), 1);
    assert_eq!(connected(&Event::Disconnected), 0);
    assert!(greengrass.0.try_wait()?.is_none());

    // Another connection under its name would end it.
    enrolled.is_let_in(&chain, &thing())?;
    assert!(connected(&Event::Disconnected) > 0);
    Ok(())
}

/// A child that is gone with its test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The ways to refuse a connection; and a server that is not there, which is none.
#[test]
fn refusals_of_the_connection() -> Result<()> {
    let _turn = alone();
    let enrolled = Enrolled::new(KeyType::EccP256, Renewing::Allowed)?;
    for admission in [
        Admission::Refused,
        Admission::Closed,
        Admission::NoSubscriptions,
    ] {
        let before = enrolled.accepted()?;
        enrolled.cloud.core.set_admission(admission);
        let (_, renewed) = enrolled.renew(None)?;
        let error = renewed.err().context("it was let in")?;
        assert!(
            error
                .to_string()
                .contains("does not accept the device's own"),
            "{admission:?}: {error}"
        );
        enrolled.cloud.core.behave();
        assert!(enrolled.is_active(&before)?);
    }
    let file = "/boot/firstboot/firstboot.json";
    let good = enrolled.device.read(file)?;
    let mut settings: serde_json::Value = serde_json::from_str(&good)?;
    let ports = image_tests::ports::PortPair::reserve()?;
    settings["enrollment"]["port"] = json!(ports.first());
    enrolled.device.settings(&settings)?;
    let (_, renewed) = enrolled.renew(None)?;
    let error = renewed.err().context("there was somebody")?;
    assert!(error.to_string().contains("cannot reach"), "{error}");
    enrolled.device.write(file, good)?;
    registered(enrolled.renew(None)?.1)?;
    assert_eq!(enrolled.cloud.core.counts().created, 2);
    Ok(())
}

/// A policy that ties the client ID to the thing's name lets Greengrass in, and no second connection beside it: the
/// message names the client ID. A claim pair has a policy of its own.
#[test]
fn a_policy_for_one_client_id() -> Result<()> {
    let _turn = alone();
    let enrolled = Enrolled::new(KeyType::EccP256, Renewing::Allowed)?;
    let core = &enrolled.cloud.core;
    core.set_client_ids(ClientIds::Own);
    let before = enrolled.accepted()?;
    assert!(enrolled.is_let_in(&before, &thing())?);
    let (_, renewed) = enrolled.renew(None)?;
    let error = renewed.err().context("it was let in")?;
    let words = format!("client ID {}-renewal", thing());
    assert_eq!(error.kind, ErrorKind::Waiting);
    assert!(error.to_string().contains(&words), "{error}");
    assert_eq!(core.counts().created, 1);
    enrolled.put_claim()?;
    let (_, chain) = registered(enrolled.renew(None)?.1)?;
    assert!(enrolled.is_let_in(&chain, &thing())?);
    assert!(!enrolled.is_active(&chain)? && !enrolled.is_active(&before)?);
    Ok(())
}

#[test]
fn answers_that_would_leave_less() -> Result<()> {
    let _turn = alone();
    let enrolled = Enrolled::new(KeyType::EccP256, Renewing::Allowed)?;
    let core = &enrolled.cloud.core;
    core.misbehave(
        Call::CreateCertificate,
        1,
        Misbehaviour::AnotherKeysCertificate,
    );
    let kept = enrolled.fails(ErrorKind::Other, "another key", 2)?;
    assert!(kept.is_none());
    let other = Misbehaviour::With("thingName", Some(json!("somebody-else")));
    core.misbehave(Call::RegisterThing, 1, other);
    enrolled.fails(ErrorKind::Other, "somebody-else", 3)?;
    let late = Rejection::new(429, "Throttled", "later");
    core.misbehave(Call::RegisterThing, 1, Misbehaviour::Rejected(late));
    let kept = enrolled.fails(ErrorKind::Waiting, "later", 4)?;
    // What is kept is registered at the next try.
    let (_, renewed) = enrolled.renew(kept)?;
    registered(renewed)?;
    assert_eq!(core.counts().created, 4);
    Ok(())
}

/// A connection that ends once is no refusal: the device asks again with its own certificate, and shows no claim pair,
/// nor asks for one. The registration's answer is lost, and AWS does not repeat it: the certificate is active, as the
/// device can see.
#[test]
fn a_lost_answer() -> Result<()> {
    let _turn = alone();
    let enrolled = Enrolled::new(KeyType::EccP256, Renewing::Allowed)?;
    enrolled.put_claim()?;
    let core = &enrolled.cloud.core;
    core.misbehave(Call::RegisterThing, 1, Misbehaviour::HangsUp);
    let (kept, renewed) = enrolled.renew(None)?;
    assert!(enrolled.askers().iter().all(|(who, _)| *who != Who::Claim));
    assert!(matches!(renewed?, Renewed::TokenRefused(_)));
    let kept = kept.context("nothing was kept")?;
    let chain = Chain::stored(kept.certificate_pem.as_bytes()).context("no certificate")?;
    assert!(enrolled.is_active(&chain)?);
    assert_eq!(core.counts().created, 2);
    Ok(())
}
