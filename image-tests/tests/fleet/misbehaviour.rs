//! AWS, or somebody in between, does not do what is documented: nothing is lost, nothing is doubled needlessly, the
//! identity stays, and a later start succeeds.

use anyhow::Result;
use image_tests::doubles::iot_core::{Admission, Call, Misbehaviour, Options, Rejection};
use image_tests::faults::network::CLAIM;
use serde_json::json;

use crate::{Enrolling, exit};

const CREATE: &str = "$aws/certificates/create-from-csr/json";
const REGISTER: &str = "$aws/provisioning-templates/gateways/provision/json";

/// One kind of misbehaviour, and its consequences.
struct Case {
    call: Call,
    misbehaviour: Misbehaviour,
    code: i32,
    words: &'static str,
    /// The number of certificates at the end. More than one only if the answer with the first one was lost.
    created: usize,
}

fn create(misbehaviour: Misbehaviour, code: i32, words: &'static str, created: usize) -> Case {
    Case {
        call: Call::CreateCertificate,
        misbehaviour,
        code,
        words,
        created,
    }
}

fn register(misbehaviour: Misbehaviour, code: i32, words: &'static str, created: usize) -> Case {
    Case {
        call: Call::RegisterThing,
        ..create(misbehaviour, code, words, created)
    }
}

impl Case {
    #[track_caller]
    fn holds(self) -> Result<()> {
        let enrolling = Enrolling::with_the_settings_name(Options::default())?;
        let what = format!("{:?}: {:?}", self.call, self.misbehaviour);
        let key = enrolling.key()?;
        enrolling
            .cloud
            .core
            .misbehave(self.call, 1, self.misbehaviour);
        let outcome = enrolling.enroll()?;
        assert_eq!(outcome.code, self.code, "{what}: {}", outcome.stderr);
        assert!(
            outcome.stderr.contains(self.words),
            "{what}: {}",
            outcome.stderr
        );
        assert!(outcome.stderr.len() < 8192, "{what}: {}", outcome.stderr);
        if self.code != exit::DONE {
            let status = enrolling.device.status()?;
            let waiting = self.code == exit::WAITING;
            let state = if waiting {
                "AwaitingCertificate"
            } else {
                "Error"
            };
            assert_eq!(status["state"], state, "{what}");
            assert!(
                !enrolling.device.exists("/etc/greengrass/config.yaml"),
                "{what}"
            );
            for path in CLAIM {
                assert!(enrolling.device.exists(path), "{what}: {path} is gone");
            }
        }
        enrolling.cloud.core.behave();
        enrolling.ends_done()?;
        assert_eq!(enrolling.key()?, key, "{what}");
        enrolling.assert_own_key()?;
        let counts = enrolling.cloud.core.counts();
        let expected = (self.created, 1, 1);
        assert_eq!(
            (counts.created, counts.active, counts.things),
            expected,
            "{what}"
        );
        Ok(())
    }
}

/// Each waits half a minute for an answer that never comes, so they run at the same time.
#[test]
fn a_missing_answer_is_survived() -> Result<()> {
    let elsewhere = || Misbehaviour::At("devices/other/hello".into());
    let cases = [
        create(Misbehaviour::Lost, exit::WAITING, "timed out", 1),
        create(Misbehaviour::Silent, exit::WAITING, "timed out", 2),
        create(elsewhere(), exit::WAITING, "timed out", 2),
        register(Misbehaviour::Lost, exit::WAITING, "timed out", 1),
        register(Misbehaviour::Silent, exit::WAITING, "timed out", 1),
        register(elsewhere(), exit::WAITING, "timed out", 1),
    ];
    std::thread::scope(|scope| {
        let mut waiting: Vec<_> = cases.map(|case| scope.spawn(move || case.holds())).into();
        waiting.push(scope.spawn(a_late_answer));
        waiting.push(scope.spawn(a_silent_server));
        waiting.into_iter().try_for_each(|case| {
            case.join()
                .unwrap_or_else(|_| anyhow::bail!("a case failed"))
        })
    })
}

/// The answer comes after the device has given up and started again.
fn a_late_answer() -> Result<()> {
    let enrolling = Enrolling::with_the_settings_name(Options::default())?;
    let core = &enrolling.cloud.core;
    core.misbehave(Call::CreateCertificate, 2, Misbehaviour::Late);
    enrolling.ends(exit::WAITING, "timed out")?;
    std::thread::scope(|scope| {
        let again = scope.spawn(|| enrolling.ends_done());
        // The first request's answer comes after the second request, and before the second one's answer.
        core.wait_until("the second request", |counts| counts.created == 2)?;
        core.release();
        again.join().unwrap_or_else(|_| anyhow::bail!("a panic"))
    })?;
    let counts = core.counts();
    assert_eq!((counts.active, counts.things), (1, 1), "{counts:?}");
    enrolling.assert_own_key()
}

fn a_silent_server() -> Result<()> {
    let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    let enrolling = Enrolling::with_the_settings_name(Options::default())?;
    let mut settings = enrolling
        .cloud
        .settings("nucleus-lite", image_tests::clients::KeyType::EccP256);
    settings["enrollment"]["port"] = json!(listener.local_addr()?.port());
    enrolling.device.settings(&settings)?;
    enrolling.ends(exit::WAITING, "timed out")
}

#[test]
fn refusals_of_the_certificate_are_survived() -> Result<()> {
    for (status, code, words) in [
        (
            400,
            "InvalidCertificateSigningRequest",
            "does not accept this kind of request",
        ),
        (403, "AccessDenied", "hook"),
        (429, "Throttled", "later"),
        (500, "InternalFailure", "problem at AWS"),
    ] {
        let rejection = Rejection::new(status, code, "\u{1b}[2J no\r\n");
        create(Misbehaviour::Rejected(rejection), exit::WAITING, words, 1).holds()?;
    }
    let rejection = Rejection::new(503, "ServiceUnavailable", "x".repeat(100_000));
    create(
        Misbehaviour::RejectedAfterAll(rejection),
        exit::WAITING,
        "later",
        2,
    )
    .holds()
}

#[test]
fn refusals_of_the_registration_are_survived() -> Result<()> {
    for (status, code, words) in [
        (400, "InvalidParameters", "template_parameters"),
        (403, "AccessDenied", "hook"),
        (404, "ResourceNotFoundException", "template_name"),
        (409, "ConflictingResourceUpdateException", "tries again"),
    ] {
        let rejection = Rejection::new(status, code, "no");
        register(Misbehaviour::Rejected(rejection), exit::WAITING, words, 1).holds()?;
    }
    let rejection = Rejection::new(500, "InternalFailure", "");
    register(
        Misbehaviour::RejectedAfterAll(rejection),
        exit::WAITING,
        "problem at AWS",
        1,
    )
    .holds()?;
    // With a token that AWS does not know, a second certificate cannot be avoided …
    let refused = Rejection::invalid_token("no");
    register(
        Misbehaviour::Rejected(refused.clone()),
        exit::WAITING,
        "requesting a new certificate",
        2,
    )
    .holds()?;
    // … unless an earlier try with it had succeeded.
    register(Misbehaviour::RejectedAfterAll(refused), exit::DONE, "", 1).holds()
}

#[test]
fn invalid_answers_about_the_certificate_are_survived() -> Result<()> {
    for misbehaviour in [
        Misbehaviour::Says(b"{".to_vec()),
        Misbehaviour::Says(Vec::new()),
        Misbehaviour::Says(vec![b'['; 100_000]),
        Misbehaviour::Says(vec![b' '; 1_000_000]),
        Misbehaviour::With("certificatePem", None),
        Misbehaviour::With("certificatePem", Some(json!("hello"))),
        Misbehaviour::With("certificateId", Some(json!("../../x"))),
        Misbehaviour::With("certificateOwnershipToken", Some(json!(""))),
        Misbehaviour::AnotherKeysCertificate,
    ] {
        create(
            misbehaviour,
            exit::OTHER,
            "requesting a certificate from AWS IoT Core",
            2,
        )
        .holds()?;
    }
    Ok(())
}

#[test]
fn invalid_answers_about_the_thing_are_survived() -> Result<()> {
    for misbehaviour in [
        Misbehaviour::Says(b"{".to_vec()),
        Misbehaviour::Says(vec![b'x'; 1_000_000]),
        Misbehaviour::With("thingName", Some(json!("a/../../b"))),
        Misbehaviour::With("thingName", Some(json!("\u{1b}[2J"))),
        Misbehaviour::With("thingName", Some(json!("x".repeat(129)))),
        Misbehaviour::With("deviceConfiguration", Some(json!(7))),
    ] {
        register(misbehaviour, exit::OTHER, "registering", 1).holds()?;
    }
    // A template need not create a thing: then the settings' name is used.
    register(Misbehaviour::With("thingName", None), exit::DONE, "", 1).holds()
}

#[test]
fn unexpected_answers_are_survived() -> Result<()> {
    let junk = || b"{\"thingName\": \"wrong\"}".to_vec();
    create(Misbehaviour::Twice, exit::DONE, "", 1).holds()?;
    register(Misbehaviour::Twice, exit::DONE, "", 1).holds()?;
    let early = Misbehaviour::After(format!("{REGISTER}/accepted"), junk());
    create(early, exit::DONE, "", 1).holds()?;
    let again = Misbehaviour::After(format!("{CREATE}/rejected"), junk());
    register(again, exit::DONE, "", 1).holds()?;
    let foreign = Misbehaviour::After("devices/other/hello".into(), junk());
    register(foreign, exit::DONE, "", 1).holds()?;
    // The right payload on the topic for refusals.
    let wrong = Misbehaviour::At(format!("{CREATE}/rejected"));
    create(wrong, exit::WAITING, "refused (", 2).holds()
}

#[test]
fn a_closed_connection_instead_of_an_answer_is_survived() -> Result<()> {
    create(Misbehaviour::HangsUp, exit::WAITING, "closed", 2).holds()?;
    register(Misbehaviour::HangsUp, exit::WAITING, "closed", 1).holds()
}

#[test]
fn a_refused_claim_is_survived() -> Result<()> {
    for (admission, words) in [
        (Admission::Refused, "refused the connection"),
        (Admission::Closed, "claim certificate"),
        (Admission::NoSubscriptions, "iot:Subscribe"),
    ] {
        let enrolling = Enrolling::new()?;
        enrolling.cloud.core.set_admission(admission);
        enrolling.ends(exit::WAITING, words)?;
        enrolling.assert_certificates(0, 0);
        enrolling.cloud.core.behave();
        enrolling.ends_done()?;
        enrolling.assert_certificates(1, 1);
    }
    Ok(())
}
