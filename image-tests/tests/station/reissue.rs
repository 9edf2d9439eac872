//! `reissue`: certificates for next keys that the key in service vouches for; and `issue`, where their TPM does.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use image_tests::clients::{KeyType, pkcs11_tool};
use image_tests::device::station::Station;
use image_tests::device::{Device, STORE};
use image_tests::doubles::forged_request::ForgedRequest;
use image_tests::doubles::pki::{Authority, Validity, p256};
use image_tests::faults::network::Cloud;
use image_tests::process::{Finished, finish};
use openssl::pkey::{PKey, Private};
use openssl::rsa::Rsa;
use openssl::x509::X509;
use serde_json::{Value, json};

use crate::exit;

/// A station, beside which things got their first certificates.
struct Fixture {
    station: Station,
}

impl Fixture {
    fn new() -> Result<Self> {
        Ok(Self {
            station: Station::new()?,
        })
    }

    /// A thing without an EK certificate, and its first certificate, PEM.
    fn thing(&self, name: &str) -> Result<(ForgedRequest, String)> {
        self.with(name, p256()?, &self.station.operator, Validity::Now)
    }

    fn with(
        &self,
        name: &str,
        key: PKey<Private>,
        authority: &Authority,
        validity: Validity,
    ) -> Result<(ForgedRequest, String)> {
        let first = ForgedRequest {
            key,
            ek_certificate: None,
            ..ForgedRequest::new(name, &self.station.manufacturer)?
        };
        let record = first.write(&self.station.path("first"))?;
        let certificate = authority.sign_valid(&record.with_extension("csr.pem"), validity)?;
        let path = self.issued().join(name.replace(':', "_") + ".pem");
        fs::create_dir_all(self.issued())?;
        fs::write(path, &certificate)?;
        Ok((first, certificate))
    }

    fn issued(&self) -> PathBuf {
        self.station.path("issued")
    }

    fn requests(&self) -> PathBuf {
        self.station.path("requests")
    }

    fn inventory(&self) -> PathBuf {
        self.station.path("fleet.csv")
    }

    fn reissue(&self, more: &[&OsStr]) -> Result<Finished> {
        let mut reissue = self.station.reissuing(&self.requests())?;
        finish(reissue.arg("--inventory").arg(self.inventory()).args(more))
    }

    /// By the inventory alone.
    fn known(&self) -> Result<Finished> {
        self.reissue(&[])
    }

    /// With the certificates that were issued without the station.
    fn named(&self) -> Result<Finished> {
        self.reissue(&["--in-service".as_ref(), self.issued().as_ref()])
    }

    fn certificate(&self, name: &str) -> PathBuf {
        self.station.out().join(format!("{name}.next.pem"))
    }

    #[track_caller]
    fn refuses(&self, done: &Finished, words: &str) {
        assert_eq!(done.code, exit::REFUSED, "{done:?}");
        let mut lines = done.stderr.lines();
        let told = lines.any(|l| l.starts_with("refused: ") && l.contains(words));
        assert!(told, "no {words:?}: {done:?}");
        assert!(!self.certificate("gw-1").exists());
    }
}

#[track_caller]
fn reissued(done: &Finished, summary: &str) {
    assert_eq!(done.code, exit::DONE, "{done:?}");
    assert!(done.stdout.contains(summary), "no {summary:?}: {done:?}");
}

/// The certificate is the station's for the next key, and nobody else's.
fn check(station: &Station, path: &Path, request: &ForgedRequest) -> Result<String> {
    let pem = fs::read_to_string(path)?;
    let certificate = X509::from_pem(pem.as_bytes())?;
    assert!(certificate.public_key()?.public_eq(&request.key));
    let authority = X509::from_pem(station.operator.certificate_pem()?.as_bytes())?;
    assert!(certificate.verify(&*authority.public_key()?)?);
    let name = certificate.subject_name().entries().next();
    let name = name.context("a certificate without a name")?;
    assert_eq!(name.data().as_slice(), request.thing.as_bytes());
    Ok(pem)
}

#[test]
fn the_key_in_service_vouches_for_the_next_one() -> Result<()> {
    for (name, key) in [
        ("gw-1", p256()?),
        ("gw:1", PKey::from_rsa(Rsa::generate(2048)?)?),
    ] {
        let fixture = Fixture::new()?;
        let station = &fixture.station;
        let (first, certificate) = fixture.with(name, key, &station.operator, Validity::Now)?;
        let second = first.next_countersigned(&certificate)?;
        second.write(&fixture.requests())?;
        let path = fixture.certificate(&name.replace(':', "_"));
        reissued(&fixture.named()?, "1 request: 1 certificate written");
        let certificate = check(station, &path, &second)?;
        // From now on, the inventory knows the thing.
        let third = second.next_countersigned(&certificate)?;
        let record = third.write(&fixture.requests())?;
        reissued(&fixture.known()?, "1 certificate written");
        let certificate = check(station, &path, &third)?;
        reissued(&fixture.known()?, "0 certificates written");
        assert_eq!(fs::read_to_string(&path)?, certificate);
        reissued(
            &fixture.reissue(&["--again".as_ref()])?,
            "1 certificate written",
        );
        assert_ne!(check(station, &path, &third)?, certificate);
        // The power went after the line, before the certificate.
        fs::remove_file(&path)?;
        reissued(&fixture.known()?, "1 certificate written");
        check(station, &path, &third)?;
        let mut inspect = station.command(&["inspect"])?;
        let shown = finish(inspect.arg(record))?;
        assert_eq!(shown.code, exit::DONE, "{shown:?}");
        let line = format!("in service           CN={name}, valid until ");
        assert!(shown.stdout.contains(&line), "{shown:?}");
    }
    Ok(())
}

#[test]
fn without_the_signature_of_the_key_in_service_there_is_no_certificate() -> Result<()> {
    let fixture = Fixture::new()?;
    let (first, certificate) = fixture.thing("gw-1")?;
    let (other, others) = fixture.thing("gw-2")?;
    let refuses = |next: &ForgedRequest, words: &str| -> Result<()> {
        next.write(&fixture.requests())?;
        fixture.refuses(&fixture.named()?, words);
        Ok(())
    };
    let by = |certificate: &str, key: &PKey<Private>| -> Result<_> {
        Ok(ForgedRequest {
            countersigner: Some((certificate.to_owned(), key.clone())),
            ..first.next()?
        })
    };
    const WRONG: &str = "its countersignature was not made for this CSR with the key in service";
    refuses(&first.next()?, "it has no countersignature")?;
    refuses(&by(&certificate, &p256()?)?, WRONG)?;
    // Another thing's key, with its own certificate or with this thing's.
    refuses(&by(&others, &other.key)?, WRONG)?;
    refuses(&by(&certificate, &other.key)?, WRONG)?;
    // The next key itself.
    let mut own = by(&certificate, &first.key)?;
    own.countersigner = Some((certificate.clone(), own.key.clone()));
    refuses(&own, WRONG)?;
    // A signature over another CSR: of another next key, or of another thing's.
    for from in [
        first.next_countersigned(&certificate)?,
        ForgedRequest {
            thing: "gw-2".into(),
            ..first.next_countersigned(&certificate)?
        },
    ] {
        let record = from.write(&fixture.station.path("replayed"))?;
        let replayed: Value = serde_json::from_slice(&fs::read(record)?)?;
        let record = first.next()?.write_changed(&fixture.requests(), |record| {
            record["countersignature"] = replayed["countersignature"].clone();
        })?;
        fixture.refuses(&fixture.named()?, WRONG);
        let mut inspect = fixture.station.command(&["inspect"])?;
        let shown = finish(inspect.arg(record))?;
        assert_eq!(shown.code, exit::REFUSED, "{shown:?}");
        assert!(shown.stdout.contains(WRONG), "{shown:?}");
    }
    // The signature is good, but the request is not.
    let record = first
        .next_countersigned(&certificate)?
        .write(&fixture.requests())?;
    first.next()?.write(&fixture.station.path("others"))?;
    let others = fixture.station.path("others/gw-1.next.csr.pem");
    fs::copy(others, record.with_extension("csr.pem"))?;
    fixture.refuses(&fixture.named()?, "csr_sha256");
    // With none of this, it would have been answered.
    refused_nothing(&fixture, &first.next_countersigned(&certificate)?)
}

#[track_caller]
fn refused_nothing(fixture: &Fixture, next: &ForgedRequest) -> Result<()> {
    next.write(&fixture.requests())?;
    reissued(&fixture.named()?, "1 certificate written");
    Ok(())
}

#[test]
fn certificates_that_are_not_in_service_vouch_for_nothing() -> Result<()> {
    let fixture = Fixture::new()?;
    let operator = &fixture.station.operator;
    let (first, certificate) = fixture.with("gw-1", p256()?, operator, Validity::Expired)?;
    first
        .next_countersigned(&certificate)?
        .write(&fixture.requests())?;
    fixture.refuses(&fixture.named()?, "is refused: it expired on 2021-01-01");
    // Another CA's counts only if it is named.
    let elsewhere = Authority::new()?;
    let (first, certificate) = fixture.with("gw-1", p256()?, &elsewhere, Validity::Now)?;
    let next = first.next_countersigned(&certificate)?;
    next.write(&fixture.requests())?;
    fixture.refuses(&fixture.known()?, "was not issued by --ca");
    reissued(&fixture.named()?, "1 certificate written");
    fs::remove_file(fixture.certificate("gw-1"))?;
    fs::remove_file(fixture.inventory())?;
    // Nothing says what is in service.
    let (first, certificate) = fixture.thing("gw-1")?;
    let next = first.next_countersigned(&certificate)?;
    next.write(&fixture.requests())?;
    fixture.refuses(&fixture.known()?, "the inventory has no line for it");
    // What is named is for another thing, or for none.
    fixture.thing("gw-2")?;
    let other = fixture.issued().join("gw-2.pem");
    let name = |path: &Path| fixture.reissue(&["--in-service".as_ref(), path.as_ref()]);
    fixture.refuses(&name(&other)?, "it is for \"gw-2\"");
    fixture.refuses(&name(&operator.certificate_path())?, "only CA certificates");
    fixture.refuses(&name(&operator.key_path())?, "PRIVATE KEY");
    refused_nothing(&fixture, &next)
}

/// A certificate of this CA that is still valid, but for a key that has been replaced.
#[test]
fn a_superseded_certificate_vouches_for_nothing() -> Result<()> {
    let fixture = Fixture::new()?;
    let (first, certificate) = fixture.thing("gw-1")?;
    let second = first.next_countersigned(&certificate)?;
    refused_nothing(&fixture, &second)?;
    let path = fixture.certificate("gw-1");
    fs::remove_file(&path)?;
    let again = first.next_countersigned(&certificate)?;
    again.write(&fixture.requests())?;
    fixture.refuses(&fixture.known()?, "is superseded");
    // The device has lost its next key before its certificate came: the operator says what is in service.
    reissued(&fixture.named()?, "1 certificate written");
    fs::remove_file(&path)?;
    // And the one that was lost does not come back.
    second.write(&fixture.requests())?;
    fixture.refuses(&fixture.known()?, "is superseded");
    Ok(())
}

/// Whose certificate was wrapped for a TPM cannot get one without it, whatever the operator names.
#[test]
fn a_wrapped_certificate_is_not_followed_by_a_plain_one() -> Result<()> {
    let fixture = Fixture::new()?;
    let station = &fixture.station;
    let first = ForgedRequest::new("gw-1", &station.manufacturer)?;
    let record = first.write(&station.path("first"))?;
    let issue = |requests: &Path| -> Result<Finished> {
        let mut issue = station.issuing(requests)?;
        finish(issue.arg("--inventory").arg(fixture.inventory()))
    };
    reissued(&issue(&record)?, "1 reply written");
    let certificate = station.operator.sign(&record.with_extension("csr.pem"))?;
    fs::create_dir_all(fixture.issued())?;
    fs::write(fixture.issued().join("gw-1.pem"), &certificate)?;
    let next = first.next_countersigned(&certificate)?;
    next.write(&fixture.requests())?;
    for done in [fixture.known()?, fixture.named()?] {
        fixture.refuses(&done, "its certificate was wrapped for its TPM");
    }
    reissued(&issue(&fixture.requests())?, "1 reply written");
    Ok(())
}

/// The key of a thing's networks is another one beside that in service, which stays what it is.
#[test]
fn the_key_in_service_vouches_for_that_of_the_networks() -> Result<()> {
    let fixture = Fixture::new()?;
    let station = &fixture.station;
    let (first, certificate) = fixture.thing("gw-1")?;
    let next = first.next_countersigned(&certificate)?;
    let own = ForgedRequest {
        suffix: ".eap",
        ..first.next_countersigned(&certificate)?
    };
    own.write(&fixture.requests())?;
    reissued(&fixture.named()?, "1 certificate written");
    check(station, &station.out().join("gw-1.eap.pem"), &own)?;
    reissued(&fixture.named()?, "1 already answered");
    // It has not taken the thing's name.
    next.write(&fixture.requests())?;
    reissued(&fixture.named()?, "1 certificate written");
    check(station, &fixture.certificate("gw-1"), &next)?;
    // Once wrapped, never in clear.
    let wrapped = ForgedRequest::new("gw-2", &station.manufacturer)?.for_networks()?;
    let record = wrapped.write(&station.path("wrapped"))?;
    let mut issue = station.issuing(&record)?;
    let done = finish(issue.arg("--inventory").arg(fixture.inventory()))?;
    reissued(&done, "1 reply written");
    let (second, certificate) = fixture.thing("gw-2")?;
    let plain = ForgedRequest {
        suffix: ".eap",
        ..second.next_countersigned(&certificate)?
    };
    plain.write(&fixture.requests())?;
    let done = fixture.named()?;
    assert_eq!(done.code, exit::REFUSED, "{done:?}");
    assert!(done.stderr.contains("was wrapped for its TPM"), "{done:?}");
    Ok(())
}

/// The inventory, or the replies that lie there, say which TPM has the name: its next key needs no `--force`.
#[test]
fn the_tpm_in_service_vouches_for_its_next_key_alone() -> Result<()> {
    for with_inventory in [true, false] {
        let station = Station::new()?;
        let requests = station.path("requests");
        let issue = |record: &Path| -> Result<Finished> {
            let mut issue = station.issuing(record)?;
            if with_inventory {
                issue.arg("--inventory").arg(station.path("fleet.jsonl"));
            }
            let done = finish(&mut issue)?;
            if with_inventory {
                fs::remove_dir_all(station.out())?;
            }
            Ok(done)
        };
        for name in ["gw-1", "gw:1"] {
            let first = ForgedRequest::new(name, &station.manufacturer)?;
            reissued(&issue(&first.write(&requests)?)?, "1 reply written");
            let imposter = ForgedRequest::new(name, &station.manufacturer)?.next()?;
            let done = issue(&imposter.write(&requests)?)?;
            assert_eq!(done.code, exit::REFUSED, "{done:?}");
            assert!(done.stderr.contains("to another TPM"), "{done:?}");
            let next = first.next()?;
            reissued(&issue(&next.write(&requests)?)?, "1 reply written");
            // It is in service now, and asks for a certificate for the same key.
            let taken_up = ForgedRequest {
                suffix: "",
                ..next.clone()
            };
            reissued(&issue(&taken_up.write(&requests)?)?, "1 reply written");
            // One that does not say that it is the next one's needs the operator's word.
            let reset = ForgedRequest {
                suffix: "",
                ..first.next()?
            };
            let done = issue(&reset.write(&requests)?)?;
            assert_eq!(done.code, exit::REFUSED, "{done:?}");
            reissued(&issue(&first.next()?.write(&requests)?)?, "1 reply written");
        }
    }
    Ok(())
}

#[test]
fn something_has_to_say_what_is_in_service() -> Result<()> {
    let fixture = Fixture::new()?;
    for name in ["gw-1", "gw-2"] {
        let (first, certificate) = fixture.thing(name)?;
        first
            .next_countersigned(&certificate)?
            .write(&fixture.requests())?;
    }
    let reissue = |more: &[&OsStr]| -> Result<Finished> {
        finish(fixture.station.reissuing(&fixture.requests())?.args(more))
    };
    let one = fixture.issued().join("gw-1.pem");
    for (more, code, words) in [
        (&[][..], exit::SETTINGS, "--inventory is missing"),
        (
            &["--in-service".as_ref(), one.as_ref()],
            exit::SETTINGS,
            "a single certificate is for a single request",
        ),
        (
            &["--in-service".as_ref(), "/nowhere".as_ref()],
            exit::NO_INPUT,
            "/nowhere",
        ),
    ] {
        let done = reissue(more)?;
        assert_eq!(done.code, code, "{done:?}");
        assert!(done.stderr.contains(words), "no {words:?}: {done:?}");
    }
    let done = reissue(&["--in-service".as_ref(), fixture.issued().as_ref()])?;
    reissued(&done, "2 requests: 2 certificates written");
    Ok(())
}

/// Without an EK certificate, from the certificate that the operator has signed by hand to the third key, which is of
/// another kind.
#[test]
fn a_device_goes_from_key_to_key() -> Result<()> {
    let [ecc, rsa] = KeyType::BOTH;
    for [key, last] in [[ecc, rsa], [rsa, ecc]] {
        let fixture = Fixture::new()?;
        let station = &fixture.station;
        let cloud = Cloud::with_ca_of(&station.operator)?;
        let device = Device::unprovisioned()?;
        let mut settings = cloud.offline_settings("nucleus-lite", key);
        device.settings(&settings)?;
        let root = cloud.root.certificate_pem()?;
        device.write("/boot/firstboot/root-ca.pem", root)?;
        device.succeed(&["provision"])?;
        let by_hand = station.operator.sign(&device.request()?)?;
        device.drop_certificate(&by_hand)?;
        device.succeed(&["enroll"])?;
        let in_service = station.path("by-hand.pem");
        fs::write(&in_service, by_hand)?;

        let requests = device.path("/boot/firstboot/requests");
        let named: &[&OsStr] = &["--in-service".as_ref(), in_service.as_ref()];
        // The first certificate lives until 2049, the next one for a year.
        for (at, key, more) in [("1/100", key, named), ("400 days", last, &[])] {
            settings["key"] = json!(key.name());
            settings["renew"] = json!({ "key": "new", "at": at });
            device.settings(&settings)?;
            device.succeed(&["renew"])?;
            let mut reissue = station.reissuing(&requests)?;
            reissue.arg("--inventory").arg(fixture.inventory());
            reissued(&finish(reissue.args(more))?, "1 certificate written");
            station.put_replies(&device)?;
            settings["renew"]["at"] = json!("1 day");
            device.settings(&settings)?;
            device.succeed(&["renew"])?;
            device.succeed(&["renew", "--due"])?;
            device.succeed(&["enroll"])?;
            let name = device.request()?.with_extension("").with_extension("");
            let name = name.file_name().context("no name")?.to_string_lossy();
            assert_eq!(
                device.read(format!("{STORE}/certificate.pem"))?,
                fs::read_to_string(fixture.certificate(&name))?
            );
            pkcs11_tool::sign_and_verify(&device.identity(key)?)?;
        }
        assert_eq!(device.status()?["message"], "nothing left to do");
    }
    Ok(())
}
