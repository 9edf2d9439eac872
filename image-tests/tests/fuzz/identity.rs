//! The identity directory on a disk that returns other bytes than were written. firstboot may set such an identity
//! aside, but it does not crash on it, and does not make another one over it.

use std::fs;

use anyhow::Result;
use firstboot::error::Error;
use firstboot::layout::Layout;
use firstboot::provision::{
    Context, IdentityState, RenewalStep, Step, Survey, TpmState, Tried, next,
};
use firstboot::tpm::{Lockout, Srk};
use image_tests::clients::KeyType;
use image_tests::device::{self, NEXT, PREVIOUS, STORE, offline_settings};
use image_tests::doubles::iot_core::certificate_id;
use image_tests::doubles::pki::{Authority, Validity};
use image_tests::faults::network::{EST_CA, est_settings, fleet_settings};
use image_tests::ports::NOBODY;
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::json;

use crate::{Checked, Else, any_json, assert_printable, cases, damage, damaged};

/// Without the first three there is no identity; the others can be restored.
pub const ESSENTIAL: [&str; 3] = ["tpm2_pkcs11.sqlite3", "pin", "srk.name"];
pub const REPLACEABLE: [&str; 5] = [
    "device.csr.pem",
    "request.json",
    "certificate.pem",
    "verified.json",
    "opened.json",
];

/// An enrolled device. The state of its real TPM has been recorded.
pub struct Enrolled {
    pub device: device::Device,
    srk_name: String,
}

impl Enrolled {
    pub fn new() -> Result<Self> {
        let device = device::Device::unprovisioned()?;
        device.settings(&offline_settings("nucleus", KeyType::EccP256))?;
        device.enroll_with(&Authority::new()?)?;
        // As if the certificate had come in a wrapped reply.
        let note = json!({ "reply_sha256": "00".repeat(32) });
        device.write(format!("{STORE}/opened.json"), note.to_string())?;
        let srk_name = device.read(format!("{STORE}/srk.name"))?;
        Ok(Self { device, srk_name })
    }

    /// Surveys the device and returns the next step, as if the owner and modes of the test's files were right.
    pub fn look(&self) -> std::result::Result<Step, Error> {
        let mut context = Context::open(Layout::new(self.device.root()), Some("none"));
        let tpm = TpmState {
            lockout: Lockout {
                counter: 0,
                max_tries: 32,
                interval_seconds: 7200,
                recovery_seconds: 7200,
                locked: false,
                lockout_auth_set: false,
                owner_auth_set: false,
            },
            srk: Srk::Present {
                name: self.srk_name.clone(),
                no_da: true,
            },
            identification: None,
        };
        let mut survey = Survey::take(&mut context, Some(tpm))?;
        if let IdentityState::Complete(identity) = &mut survey.identity {
            identity.access_is_right = true;
        }
        Ok(next(context.wanted(), &survey, &context.memory))
    }

    /// The same with this content in a file of the identity.
    fn look_with(&self, name: &str, content: &[u8]) -> Checked<Option<Step>> {
        let path = self.device.path(STORE).join(name);
        let aside = path.with_file_name("aside");
        fs::rename(&path, &aside).or_fail()?;
        fs::write(&path, content).or_fail()?;
        let step = self.look();
        fs::rename(&aside, &path).or_fail()?;

        match step {
            Ok(step) => {
                assert_printable(&step.describe())?;
                let gives_up = matches!(step, Step::SetAside(_));
                prop_assert!(!matches!(step, Step::MakeIdentity), "{:?}", step);
                prop_assert!(!gives_up || ESSENTIAL.contains(&name), "{:?}", step);
                Ok(Some(step))
            }
            Err(e) => {
                assert_printable(&e.to_string())?;
                Ok(None)
            }
        }
    }
}

fn files() -> impl Strategy<Value = &'static str> {
    select([&ESSENTIAL[..], &REPLACEABLE].concat())
}

#[test]
fn undamaged_it_is_done() -> Checked {
    assert_eq!(
        Enrolled::new().or_fail()?.look().or_fail()?,
        Step::Done(None)
    );
    Ok(())
}

#[test]
fn damaged_files_are_survived() -> Checked {
    let enrolled = Enrolled::new().or_fail()?;
    proptest!(cases(400), |(name in files(), damage in damage())| {
        let content = fs::read(enrolled.device.path(STORE).join(name)).or_fail()?;
        enrolled.look_with(name, &damaged(&content, &damage))?;
    });
    Ok(())
}

#[test]
fn any_bytes_are_survived() -> Checked {
    let enrolled = Enrolled::new().or_fail()?;
    proptest!(cases(200), |(name in files(), content: Vec<u8>, large: bool)| {
        enrolled.look_with(name, &content)?;
        if large {
            enrolled.look_with(name, &content.repeat(1000))?;
        }
    });
    Ok(())
}

/// The key can be read from a damaged store, or not; nothing else happens.
#[test]
fn damaged_stores_are_survived() -> Checked {
    let enrolled = Enrolled::new().or_fail()?;
    let content = fs::read(enrolled.device.path(STORE).join("tpm2_pkcs11.sqlite3"))?;
    let directory = tempfile::tempdir()?;
    let pin = || firstboot::secret::Pin::parse(b"0123".to_vec());
    proptest!(cases(300), |(damage in damage())| {
        let store = damaged(&content, &damage);
        fs::write(directory.path().join("tpm2_pkcs11.sqlite3"), store)?;
        match firstboot::token::StoredKey::read(directory.path()) {
            Ok(key) => {
                prop_assert_eq!(pin().map(|pin| key.seal_auth(&pin).len()), Some(32));
                prop_assert!(key.key_auth(&[b'0'; 64]).is_err());
            }
            Err(e) => assert_printable(&e.to_string())?,
        }
    });
    Ok(())
}

/// Records and notes with arbitrary values in the fields that are read.
#[test]
fn records_with_other_values_are_survived() -> Checked {
    let enrolled = Enrolled::new().or_fail()?;
    let places = select(vec![
        ("request.json", "thing_name"),
        ("request.json", "serial"),
        ("request.json", "key"),
        ("request.json", "key_sha256"),
        ("request.json", "key_public"),
        ("request.json", "ek_certificate"),
        ("request.json", "unattested"),
        ("request.json", "countersignature"),
        ("opened.json", "reply_sha256"),
        ("verified.json", "slot"),
        ("verified.json", "store_sha256"),
        ("verified.json", "certificate_sha256"),
    ]);
    proptest!(cases(300), |((name, key) in places, value in any_json())| {
        let content = fs::read(enrolled.device.path(STORE).join(name)).or_fail()?;
        let mut record: serde_json::Value = serde_json::from_slice(&content).or_fail()?;
        record[key] = value;
        enrolled.look_with(name, record.to_string().as_bytes())?;
    });
    Ok(())
}

/// A name from a record is not a path: it is compared, never used.
#[test]
fn a_record_of_another_thing_is_replaced() -> Checked {
    let enrolled = Enrolled::new().or_fail()?;
    let path = enrolled.device.path(STORE).join("request.json");
    let mut record: serde_json::Value = serde_json::from_slice(&fs::read(path)?)?;
    record["thing_name"] = json!("../../../etc/passwd");
    let step = enrolled.look_with("request.json", record.to_string().as_bytes())?;
    assert_eq!(step.ok_or("no step").or_fail()?, Step::RenewRequest);
    Ok(())
}

/// A device in service whose next identity has its certificate.
fn with_next() -> Result<Enrolled> {
    let device = device::Device::unprovisioned()?;
    let authority = Authority::new()?;
    let mut settings = offline_settings("nucleus-lite", KeyType::EccP256);
    settings["enrollment"]["trust_clock"] = json!(true);
    // Nobody listens there.
    settings["greengrass"]["iot_data_endpoint"] = json!("localhost");
    settings["enrollment"]["port"] = json!(1);
    device.settings(&settings)?;
    let certify = |over, left| -> Result<()> {
        let pem = authority.sign_valid(&device.request()?, Validity::Days { over, left })?;
        device.drop_certificate(&pem).map(drop)
    };
    device.succeed(&["provision"])?;
    certify(90, 10)?;
    device.succeed(&["enroll"])?;
    settings["renew"] = json!({ "key": "new" });
    device.settings(&settings)?;
    // One that is in service, on probation, and the next one.
    device.succeed(&["renew"])?;
    certify(89, 11)?;
    for command in ["renew", "enroll", "renew"] {
        device.succeed(&[command])?;
    }
    certify(1, 99)?;
    device.succeed(&["renew"])?;
    assert!(device.exists(PREVIOUS));
    let srk_name = device.read(format!("{STORE}/srk.name"))?;
    Ok(Enrolled { device, srk_name })
}

/// Whatever is in the next identity, or in the notes about it, the device stays in service.
#[test]
fn a_damaged_next_identity_is_survived() -> Checked {
    let enrolled = with_next().or_fail()?;
    let undamaged = enrolled.look().or_fail()?;
    assert!(
        matches!(
            undamaged,
            Step::Renewal(RenewalStep::Try(Tried::InService, _))
        ),
        "{undamaged:?}"
    );
    let notes = [
        (STORE, "asked.json"),
        (STORE, "generation"),
        (STORE, "taken-up"),
        (STORE, "probation"),
        (STORE, "former.pem"),
        (STORE, "tried.json"),
    ];
    let own = ["generation", "tried.json"].into_iter().chain(ESSENTIAL);
    let own = own.chain(REPLACEABLE);
    let own = own.flat_map(|name| [NEXT, PREVIOUS].map(|place| (place, name)));
    let files = select(notes.into_iter().chain(own).collect::<Vec<_>>());
    proptest!(cases(400), |((place, name) in files, damage in damage(), other: Vec<u8>, is_other: bool, number: Option<u64>)| {
        let path = enrolled.device.path(place).join(name);
        let content = fs::read(&path).ok();
        let damaged = match (&content, number) {
            (_, Some(number)) => number.to_string().into_bytes(),
            (Some(content), _) if !is_other => damaged(content, &damage),
            _ => other,
        };
        fs::write(&path, damaged).or_fail()?;
        let step = enrolled.look();
        match content {
            Some(content) => fs::write(&path, content).or_fail()?,
            None => fs::remove_file(&path).or_fail()?,
        }
        let step = step.or_fail()?;
        assert_printable(&step.describe())?;
        prop_assert!(
            !matches!(step, Step::SetAside(_) | Step::MakeIdentity | Step::Stop(..) | Step::Wait(..)),
            "{place}/{name}: {step:?}"
        );
    });
    Ok(())
}

/// A device whose next identity has been given its certificate over the network, in this file.
fn with_answer(method: &str) -> Result<(Enrolled, &'static str)> {
    let device = device::Device::unprovisioned()?;
    let authority = Authority::new()?;
    let mut settings = offline_settings("nucleus-lite", KeyType::EccP256);
    settings["enrollment"]["trust_clock"] = json!(true);
    settings["greengrass"]["iot_data_endpoint"] = json!("localhost");
    device.settings(&settings)?;
    device.succeed(&["provision"])?;
    let old = authority.sign_valid(&device.request()?, Validity::DUE)?;
    device.drop_certificate(&old)?;
    device.succeed(&["enroll"])?;
    settings["renew"] = json!({ "key": "new" });
    device.settings(&settings)?;
    device.succeed(&["renew"])?;
    let new = authority.sign_valid(&device.request()?, Validity::YOUNG)?;
    device.write(EST_CA, authority.certificate_pem()?)?;
    let (enrollment, file, answer) = match method {
        "est" => (
            est_settings("nucleus-lite", KeyType::EccP256, NOBODY, None),
            "est.json",
            json!({ "answer": { "certificates": new } }),
        ),
        _ => (
            fleet_settings("nucleus-lite", KeyType::EccP256, NOBODY),
            "registration.json",
            json!({
                "thing_name": "gateway-1",
                "certificate_id": certificate_id(&new)?,
                "certificate_pem": new,
            }),
        ),
    };
    settings["enrollment"] = enrollment["enrollment"].clone();
    device.settings(&settings)?;
    device.write(format!("{NEXT}/{file}"), answer.to_string())?;
    let srk_name = device.read(format!("{STORE}/srk.name"))?;
    Ok((Enrolled { device, srk_name }, file))
}

/// What has come over the network is accepted, or asked for again; the device stays in service.
fn damaged_answers_are_survived(method: &str) -> Checked {
    let (enrolled, file) = with_answer(method).or_fail()?;
    let path = enrolled.device.path(NEXT).join(file);
    let answer = fs::read(&path)?;
    let certificate = match enrolled.look().or_fail()? {
        Step::Renewal(RenewalStep::AcceptNext(chain, _)) => chain,
        other => return Err(TestCaseError::fail(format!("{other:?}"))),
    };
    let judge = |content: &[u8]| -> Checked {
        fs::write(&path, content)?;
        match enrolled.look().or_fail()? {
            Step::Renewal(RenewalStep::AcceptNext(chain, _)) => {
                prop_assert!(chain.is_for(&certificate.key()));
            }
            Step::Renewal(RenewalStep::RequestForNext(_)) => {}
            Step::Done(Some(why)) => assert_printable(&why)?,
            other => prop_assert!(false, "{:?}", other),
        }
        Ok(())
    };
    proptest!(cases(300), |(damage in damage())| judge(&damaged(&answer, &damage))?);
    proptest!(cases(100), |(content in any_json())| judge(content.to_string().as_bytes())?);
    proptest!(cases(100), |(content: Vec<u8>)| judge(&content)?);
    Ok(())
}

#[test]
fn damaged_answers_of_an_est_server_are_survived() -> Checked {
    damaged_answers_are_survived("est")
}

#[test]
fn damaged_answers_of_aws_are_survived() -> Checked {
    damaged_answers_are_survived("fleet-provisioning")
}
