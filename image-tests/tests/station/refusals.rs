//! Requests that the station refuses, each with its reason; and one that it cannot see through, whose reply no TPM
//! opens.

use std::path::Path;

use anyhow::Result;
use image_tests::device::station::Station;
use image_tests::doubles::forged_request::{ForgedRequest, public, roca};
use image_tests::doubles::pki::{EkForm, Manufacturer, PLATFORM_CERTIFICATE};
use image_tests::doubles::pki::{Validity, p256};
use serde_json::{Value, json};

use crate::exit;

/// A station, and the requests given to it.
struct Fixture {
    station: Station,
}

impl Fixture {
    fn new() -> Result<Self> {
        Ok(Self {
            station: Station::new()?,
        })
    }

    fn forged(&self) -> Result<ForgedRequest> {
        ForgedRequest::new("gw-1", &self.station.manufacturer)
    }

    fn requests(&self) -> std::path::PathBuf {
        self.station.path("requests")
    }

    /// The request is refused for a reason with these words, and nothing is written.
    #[track_caller]
    fn refuses(&self, record: &Path, words: &str) -> Result<()> {
        let done = self.station.issue(record)?;
        assert_eq!(done.code, exit::REFUSED, "{done:?}");
        let line = format!("refused: {}: ", record.display());
        let reason = done.stderr.lines().find_map(|l| l.strip_prefix(&line));
        assert!(
            reason.is_some_and(|r| r.contains(words)),
            "no {words:?}: {done:?}"
        );
        assert_eq!(self.station.out().read_dir()?.count(), 0);
        Ok(())
    }

    #[track_caller]
    fn refuses_request(&self, forged: &ForgedRequest, words: &str) -> Result<()> {
        self.refuses(&forged.write(&self.requests())?, words)
    }

    #[track_caller]
    fn refuses_record(&self, change: impl FnOnce(&mut Value), words: &str) -> Result<()> {
        let record = self.forged()?.write_changed(&self.requests(), change)?;
        self.refuses(&record, words)
    }
}

/// Without this one, the others would prove nothing.
#[test]
fn a_good_request_is_accepted() -> Result<()> {
    let fixture = Fixture::new()?;
    let mut rsa = fixture.forged()?;
    rsa.thing = "gw:2".into();
    rsa.key = openssl::pkey::PKey::from_rsa(openssl::rsa::Rsa::generate(2048)?)?;
    for forged in [fixture.forged()?, rsa] {
        let done = fixture.station.issue(&forged.write(&fixture.requests())?)?;
        assert_eq!(done.code, exit::DONE, "{done:?}");
    }
    assert!(fixture.station.out().join("gw-1.reply.json").exists());
    assert!(fixture.station.out().join("gw_2.reply.json").exists());
    Ok(())
}

#[test]
fn keys_that_can_leave_the_tpm_are_refused() -> Result<()> {
    let fixture = Fixture::new()?;
    // TPMA_OBJECT (TPM 2.0 Library, Part 2 §8.3): fixedTPM, fixedParent, sensitiveDataOrigin, userWithAuth, sign; and
    // bits that have to be clear: adminWithPolicy, noDA, encryptedDuplication, restricted.
    for bit in [1, 4, 5, 6, 18, 7, 10, 11, 16] {
        let mut forged = fixture.forged()?;
        forged.attributes ^= 1 << bit;
        fixture.refuses_request(&forged, "its key's attributes are 0x")?;
    }
    let mut forged = fixture.forged()?;
    forged.policy = vec![7; 32];
    fixture.refuses_request(&forged, "policy")
}

#[test]
fn csrs_that_do_not_match_are_refused() -> Result<()> {
    let fixture = Fixture::new()?;
    let requests = fixture.requests();
    // Another request's CSR under this one's name, with the right hash.
    let record = fixture.forged()?.write(&requests)?;
    let mut other = fixture.forged()?;
    other.thing = "gw-2".into();
    other.write(&requests)?;
    let csr = requests.join("gw-1.csr.pem");
    std::fs::copy(requests.join("gw-2.csr.pem"), &csr)?;
    fixture.refuses(&record, "csr_sha256")?;
    let mut changed: Value = serde_json::from_slice(&std::fs::read(&record)?)?;
    let hash = openssl::sha::sha256(&std::fs::read(&csr)?);
    changed["csr_sha256"] = hash
        .iter()
        .map(|b| format!("{b:02x}"))
        .collect::<String>()
        .into();
    std::fs::write(&record, changed.to_string())?;
    fixture.refuses(&record, "for another key, not the TPM's")?;
    std::fs::remove_file(&csr)?;
    fixture.refuses(&record, "gw-1.csr.pem is missing")?;

    let mut forged = fixture.forged()?;
    forged.csr_signer = Some(p256()?);
    fixture.refuses_request(&forged, "signature is not valid")
}

#[test]
fn endorsement_keys_of_others_are_refused() -> Result<()> {
    let fixture = Fixture::new()?;
    let manufacturer = &fixture.station.manufacturer;
    let with = |manufacturer: &Manufacturer, form: EkForm| {
        ForgedRequest::with("gw-1", manufacturer, p256()?, form)
    };
    let refused =
        |forged: Result<ForgedRequest>, words: &str| fixture.refuses_request(&forged?, words);
    let usual = EkForm::default();

    // Another CA with the same names.
    refused(
        with(&Manufacturer::new()?, usual),
        "does not chain up to a pinned TPM manufacturer",
    )?;
    let mut flipped = fixture.forged()?;
    *flipped
        .ek_certificate
        .as_mut()
        .and_then(|c| c.last_mut())
        .expect("a byte") ^= 1;
    refused(Ok(flipped), "certificate signature failure")?;
    let platform = EkForm {
        purpose: PLATFORM_CERTIFICATE,
        ..usual
    };
    refused(with(manufacturer, platform), "not for an endorsement key")?;
    let any = EkForm {
        purpose: "",
        ..usual
    };
    refused(with(manufacturer, any), "not for an endorsement key")?;
    let authority = EkForm {
        authority: true,
        ..usual
    };
    refused(with(manufacturer, authority), "CA's certificate")?;
    // The manufacturer's own CA certificate.
    let mut own = fixture.forged()?;
    let pem = std::fs::read(manufacturer.certificates().join("intermediate.pem"))?;
    own.ek_certificate = Some(openssl::x509::X509::from_pem(&pem)?.to_der()?);
    refused(Ok(own), "CA's certificate")?;
    for (validity, words) in [
        (Validity::Expired, "certificate has expired"),
        (Validity::NotYet, "certificate is not yet valid"),
    ] {
        let form = EkForm { validity, ..usual };
        refused(with(manufacturer, form), words)?;
    }
    let weak = ForgedRequest::with("gw-1", manufacturer, roca()?, usual);
    refused(weak, "its endorsement key is a weak RSA key")?;
    let group = openssl::ec::EcGroup::from_curve_name(openssl::nid::Nid::SECP384R1)?;
    let p384 = openssl::pkey::PKey::from_ec_key(openssl::ec::EcKey::generate(&group)?)?;
    refused(
        ForgedRequest::with("gw-1", manufacturer, p384, usual),
        "another curve",
    )?;
    refused(
        fixture.forged().map(|forged| ForgedRequest {
            ek_certificate: None,
            ..forged
        }),
        "unattested: the TPM has no EK certificate",
    )
}

#[test]
fn expired_or_misplaced_manufacturer_cas_are_refused() -> Result<()> {
    for (manufacturer, words) in [
        (
            Manufacturer::with(Validity::Expired)?,
            "certificate has expired, at its issuer no. 1",
        ),
        (
            Manufacturer::with(Validity::NotYet)?,
            "not yet valid, at its issuer no. 1",
        ),
        (
            Manufacturer::with_another_authority_below()?,
            "path length constraint exceeded",
        ),
        (
            Manufacturer::that_may_not_sign()?,
            "invalid CA certificate, at its issuer no. 1",
        ),
    ] {
        let mut fixture = Fixture::new()?;
        fixture.station.manufacturer = manufacturer;
        fixture.refuses_request(&fixture.forged()?, words)?;
    }
    Ok(())
}

#[test]
fn a_weak_rsa_key_is_refused() -> Result<()> {
    let fixture = Fixture::new()?;
    let mut forged = fixture.forged()?;
    forged.key = roca()?;
    fixture.refuses_request(
        &forged,
        "its key is a weak RSA key that can be factored (ROCA",
    )
}

#[test]
fn fields_that_are_truncated_too_long_or_invalid_are_refused() -> Result<()> {
    let fixture = Fixture::new()?;
    let cut = |record: &mut Value, field: &str, characters: usize| {
        let text = record[field].as_str().unwrap_or_default()[..characters].to_owned();
        record[field] = json!(text);
    };
    fixture.refuses_record(
        |r| cut(r, "key_public", 40),
        "public area is refused: it ends too early",
    )?;
    fixture.refuses_record(|r| cut(r, "key_public", 41), "not base64")?;
    fixture.refuses_record(
        |r| cut(r, "ek_certificate", 400),
        "EK certificate is damaged",
    )?;
    fixture.refuses_record(
        |r| r["ek_certificate"] = json!("A".repeat(70_000)),
        "larger than 65536 bytes",
    )?;
    fixture.refuses_record(
        |r| r["ek_certificate"] = json!("A".repeat(60_000)),
        "EK certificate is damaged",
    )?;
    fixture.refuses_record(|r| r["ek_certificate"] = Value::Null, "invalid type: null")?;
    fixture.refuses_record(|r| r["unattested"] = json!("lost"), "unattested, not both")?;
    fixture.refuses_record(
        |r| r["key_sha256"] = json!("00"),
        "key_sha256 does not match its key_public",
    )?;
    fixture.refuses_record(
        |r| r["thing_name"] = json!("../../etc/passwd"),
        "AWS IoT allows",
    )?;
    fixture.refuses_record(
        |r| r["thing_name"] = json!(""),
        "thing_name is missing or empty",
    )?;
    fixture.refuses_record(|r| r["tpm"] = json!(7), "it is not the record of a request")?;
    fixture.refuses_record(
        |r| {
            r.as_object_mut().and_then(|r| r.remove("key_public"));
        },
        "it says nothing about its TPM",
    )?;
    // Terminal sequences are escaped.
    let escape = fixture.forged()?.write_changed(&fixture.requests(), |r| {
        r.as_object_mut().and_then(|r| r.remove("ek_certificate"));
        r["unattested"] = json!("\u{1b}[2J");
    })?;
    fixture.refuses(&escape, "unattested: \\u{1b}[2J")?;
    std::fs::write(&escape, "")?;
    fixture.refuses(&escape, "it is not the record of a request")
}

/// A request with another TPM's EK certificate gets a reply that nobody can open.
#[test]
fn another_tpms_ek_certificate_is_not_noticed_here() -> Result<()> {
    let fixture = Fixture::new()?;
    let mut forged = fixture.forged()?;
    let others = fixture
        .station
        .manufacturer
        .certify(&*public(&p256()?)?, EkForm::default())?;
    forged.ek_certificate = Some(others);
    let done = fixture.station.issue(&forged.write(&fixture.requests())?)?;
    assert_eq!(done.code, exit::DONE, "{done:?}");
    Ok(())
}
