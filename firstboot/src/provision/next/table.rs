//! What is next, as a table of tests.

use firstboot_formats::attestation::Reply;
use firstboot_formats::public_key::KeyType;
use firstboot_formats::record::Record;
use firstboot_formats::x509::Chain;

use super::next;
use crate::eap_tls::{Found, Taken};
use crate::enrollment::{Offer, Refusal, WrappedReply};
use crate::error::ErrorKind;
use crate::provision::context::{Memory, RefusedReply};
use crate::provision::{
    Complete, IdentityState, Next, OwnKey, Previous, Renewal, State, Step, Survey, TpmState,
};
use crate::settings::{Edition, Greengrass, Settings};
use crate::tpm::{Identification, Lockout, Srk};

/// What is there, and what the process remembers.
#[derive(Clone, Debug)]
pub struct Scene {
    pub survey: Survey,
    pub memory: Memory,
}

impl Scene {
    pub fn next(&self, settings: &Settings) -> Step {
        next(Ok(settings), &self.survey, &self.memory)
    }
}

/// A device with nothing left to do except for the certificate.
pub fn awaiting() -> Scene {
    let survey = Survey {
        tpm: Some(Ok(TpmState {
            lockout: Lockout {
                max_tries: 32,
                ..Lockout::default()
            },
            srk: key("000b01"),
            identification: None,
        })),
        interrupted: false,
        identity: IdentityState::Complete(Box::new(Complete {
            srk_name: "000b01".into(),
            access_is_right: true,
            request_is_current: true,
            request_is_published: true,
            record: Record {
                version: 1,
                thing_name: "gw-1".into(),
                serial: String::new(),
                tpm: String::new(),
                key: KeyType::EccP256,
                key_sha256: String::new(),
                csr_sha256: String::new(),
                evidence: None,
                countersignature: None,
            },
            certificate: None,
            renewal: Renewal::default(),
            next: Next::Absent,
            previous: Previous::Absent,
            probation: None,
            offer: Offer::Pending("the certificate".into()),
            offer_trial: None,
            token_is_ready: false,
            is_for_another_name: None,
            ownership_is_spent: false,
            configuration_is_written: false,
            own_key: OwnKey::NotWanted,
            network: Found::default(),
            claim_is_spent: false,
        })),
        set_aside: Vec::new(),
        root_key_is_noted_with_auth: false,
        volatile: None,
        configuration_is_ours: false,
    };
    Scene {
        survey,
        memory: Memory::default(),
    }
}

/// A storage key of this Name, with noDA.
fn key(name: &str) -> Srk {
    Srk::Present {
        name: name.into(),
        no_da: true,
    }
}

pub fn expired() -> Refusal {
    Refusal {
        path: "gw-1.pem".into(),
        reason: "expired".into(),
    }
}

/// Without an identity, below a key that accepts an empty authorization value.
fn blank() -> Scene {
    let mut scene = awaiting();
    scene.survey.identity = IdentityState::Absent;
    scene.memory.empty_auth = Some(("000b01".into(), true));
    scene
}

/// Its storage root key is gone, and the TPM makes another one.
fn cleared() -> Scene {
    let mut scene = awaiting();
    tpm(&mut scene, |t| t.srk = Srk::Absent);
    scene.memory.primaries = Some(vec!["000b02".into(), "000b03".into()]);
    scene
}

/// Another storage root key is there, and the TPM makes that one.
fn swapped() -> Scene {
    let mut scene = cleared();
    tpm(&mut scene, |t| t.srk = key("000b02"));
    scene.memory.empty_auth = Some(("000b02".into(), true));
    scene
}

/// There is a key without noDA that was not tried; `counter` of `max_tries` tries are used up, and only somebody else
/// can reset them.
fn protected(scene: &mut Scene, counter: u32, max_tries: u32) {
    scene.memory.empty_auth = None;
    tpm(scene, |t| {
        t.srk = Srk::Present {
            name: "000b01".into(),
            no_da: false,
        };
        t.lockout.lockout_auth_set = true;
        (t.lockout.counter, t.lockout.max_tries) = (counter, max_tries);
    });
}

/// The reply with this hash could not be opened.
fn refused_reply(scene: &mut Scene, sha256: &str) {
    scene.memory.refused_replies.push(RefusedReply {
        sha256: sha256.into(),
        refusal: expired(),
        is_for_now: false,
    });
}

fn set_aside(scene: &mut Scene, name: &str) {
    scene.survey.set_aside = vec![(name.into(), "/orphan-1".into())];
}

fn tpm(scene: &mut Scene, change: impl FnOnce(&mut TpmState)) {
    if let Some(Ok(tpm)) = &mut scene.survey.tpm {
        change(tpm);
    }
}

pub fn identity(scene: &mut Scene, change: impl FnOnce(&mut Complete)) {
    if let IdentityState::Complete(identity) = &mut scene.survey.identity {
        change(identity);
    }
}

/// (what the row shows, how the scene differs, the state and the beginning of the step's
/// description)
type Row = (
    &'static str,
    fn() -> Scene,
    fn(&mut Scene),
    &'static str,
    &'static str,
);

const TABLE: &[Row] = &[
    (
        "no TPM",
        blank,
        |s| s.survey.tpm = Some(Err("no TPM".into())),
        "NoTpm",
        "no TPM",
    ),
    (
        "no TPM, identity there",
        awaiting,
        |s| s.survey.tpm = Some(Err("no TPM".into())),
        "NoTpm",
        "no TPM",
    ),
    (
        "interrupted",
        blank,
        |s| s.survey.interrupted = true,
        "Interrupted",
        "removing an unfinished identity",
    ),
    (
        "a try counts",
        awaiting,
        |s| tpm(s, |t| t.lockout.counter = 1),
        "LockedOut",
        "resetting",
    ),
    (
        "locked, ours to reset",
        blank,
        |s| tpm(s, |t| (t.lockout.counter, t.lockout.locked) = (32, true)),
        "LockedOut",
        "resetting",
    ),
    (
        "locked, not ours to reset",
        blank,
        |s| {
            tpm(s, |t| {
                (t.lockout.counter, t.lockout.locked) = (32, true);
                t.lockout.lockout_auth_set = true;
            })
        },
        "LockedOut",
        "the TPM is in dictionary-attack lockout",
    ),
    (
        "a try counts, not ours to reset",
        awaiting,
        |s| {
            tpm(s, |t| {
                (t.lockout.counter, t.lockout.lockout_auth_set) = (1, true)
            })
        },
        "AwaitingCertificate",
        "the certificate",
    ),
    (
        "foreign object",
        blank,
        |s| tpm(s, |t| t.srk = Srk::Foreign("an ECC signing key".into())),
        "ForeignPrimary",
        "the TPM has an ECC signing key at 0x81000001",
    ),
    ("blank", blank, |_| {}, "Blank", "creating the identity"),
    (
        "blank, no SRK",
        blank,
        |s| tpm(s, |t| t.srk = Srk::Absent),
        "Blank",
        "creating the identity",
    ),
    (
        "owner auth set, no SRK",
        blank,
        |s| {
            tpm(s, |t| {
                (t.srk, t.lockout.owner_auth_set) = (Srk::Absent, true)
            })
        },
        "Blank",
        "the TPM's owner hierarchy has an authorization value",
    ),
    (
        "owner auth set, SRK there",
        blank,
        |s| tpm(s, |t| t.lockout.owner_auth_set = true),
        "Blank",
        "creating the identity",
    ),
    (
        "blank, configuration left over",
        blank,
        |s| s.survey.configuration_is_ours = true,
        "Blank",
        "removing the configuration",
    ),
    (
        "store upgrade cut",
        blank,
        |s| s.survey.identity = IdentityState::StoreUpgradeCut,
        "StoreUpgradeCut",
        "repairing",
    ),
    (
        "defective",
        blank,
        |s| s.survey.identity = IdentityState::Defective("pin is missing".into()),
        "Orphaned",
        "setting the identity aside: pin is missing",
    ),
    (
        "defective, and others' tokens beside it",
        awaiting,
        |s| s.survey.identity = IdentityState::Foreign("not ours".into()),
        "ForeignStore",
        "not ours. firstboot leaves other programs",
    ),
    (
        "storage root key gone",
        awaiting,
        |s| tpm(s, |t| t.srk = Srk::Absent),
        "Orphaned",
        "asking the TPM which",
    ),
    (
        "storage root key gone, the TPM makes it",
        cleared,
        |s| s.memory.primaries = Some(vec!["000b00".into(), "000b01".into()]),
        "Orphaned",
        "recreating the identity's storage root key",
    ),
    (
        "storage root key gone, the TPM makes it, another one is there",
        swapped,
        |s| s.memory.primaries = Some(vec!["000b01".into()]),
        "ForeignPrimary",
        "the TPM has another storage key",
    ),
    (
        "storage root key gone, owner authorization set",
        cleared,
        |s| {
            s.memory.primaries = None;
            tpm(s, |t| t.lockout.owner_auth_set = true)
        },
        "Orphaned",
        "the identity's storage root key is gone",
    ),
    (
        "TPM cleared, as far as it was heard",
        cleared,
        |_| {},
        "Orphaned",
        "checking once more",
    ),
    (
        "TPM cleared",
        cleared,
        |s| s.memory.lost = Some("000b01".into()),
        "Orphaned",
        "setting the identity aside: its storage root key is gone",
    ),
    (
        "TPM swapped, as far as it was heard",
        swapped,
        |_| {},
        "Orphaned",
        "checking once more",
    ),
    (
        "TPM swapped, and its key was not tried",
        swapped,
        |s| s.memory.empty_auth = None,
        "Blank",
        "checking whether",
    ),
    (
        "TPM swapped, and its key has an authorization value",
        swapped,
        |s| s.memory.empty_auth = Some(("000b02".into(), false)),
        "ForeignPrimary",
        "the TPM has a storage key with an authorization value",
    ),
    (
        "TPM swapped, and an earlier process has found an authorization value",
        swapped,
        |s| {
            s.memory.empty_auth = None;
            s.survey.root_key_is_noted_with_auth = true;
        },
        "ForeignPrimary",
        "the TPM has a storage key with an authorization value",
    ),
    (
        "TPM swapped",
        swapped,
        |s| s.memory.lost = Some("000b01".into()),
        "Orphaned",
        "setting the identity aside: it was created with another TPM",
    ),
    (
        "another identity was lost",
        swapped,
        |s| s.memory.lost = Some("000b07".into()),
        "Orphaned",
        "checking once more",
    ),
    (
        "TPM swapped back",
        swapped,
        |s| set_aside(s, "000b02"),
        "Orphaned",
        "restoring this TPM's identity",
    ),
    (
        "TPM swapped back, its storage root key gone",
        cleared,
        |s| set_aside(s, "000b02"),
        "Orphaned",
        "recreating the identity's storage root key",
    ),
    (
        "TPM swapped, what was set aside is of a third",
        swapped,
        |s| set_aside(s, "000b09"),
        "Orphaned",
        "checking once more",
    ),
    (
        "blank, what was set aside fits",
        blank,
        |s| {
            set_aside(s, "000b01");
            s.survey.configuration_is_ours = true
        },
        "Orphaned",
        "restoring this TPM's identity",
    ),
    (
        "blank, what was set aside does not fit",
        blank,
        |s| set_aside(s, "000b09"),
        "Blank",
        "creating the identity",
    ),
    (
        "blank, no storage root key, something set aside",
        blank,
        |s| {
            tpm(s, |t| t.srk = Srk::Absent);
            set_aside(s, "000b09")
        },
        "Orphaned",
        "asking the TPM which",
    ),
    (
        "blank, a key that was not tried",
        blank,
        |s| s.memory.empty_auth = None,
        "Blank",
        "checking whether",
    ),
    (
        "blank, a key that was not tried and costs a try",
        blank,
        |s| protected(s, 0, 3),
        "Blank",
        "checking whether",
    ),
    (
        "blank, a try would be the last but one",
        blank,
        |s| protected(s, 1, 3),
        "ForeignPrimary",
        "the TPM has a storage key at 0x81000001. Only a try",
    ),
    (
        "blank, somebody else's store",
        blank,
        |s| s.survey.identity = IdentityState::Foreign("not ours".into()),
        "ForeignStore",
        "not ours. firstboot leaves other programs",
    ),
    (
        "blank, storage that does not last",
        blank,
        |s| s.survey.volatile = Some("in memory".into()),
        "VolatileStorage",
        "in memory",
    ),
    (
        "enrolled, storage that does not last",
        awaiting,
        |s| s.survey.volatile = Some("in memory".into()),
        "AwaitingCertificate",
        "the certificate",
    ),
    (
        "owner and modes",
        awaiting,
        |s| identity(s, |i| i.access_is_right = false),
        "AwaitingCertificate",
        "fixing the identity's owner",
    ),
    (
        "another thing name",
        awaiting,
        |s| identity(s, |i| i.request_is_current = false),
        "AwaitingCertificate",
        "signing a new request",
    ),
    (
        "request not published",
        awaiting,
        |s| identity(s, |i| i.request_is_published = false),
        "AwaitingCertificate",
        "publishing the request",
    ),
    (
        "awaiting",
        awaiting,
        |_| {},
        "AwaitingCertificate",
        "the certificate",
    ),
    (
        "certificate refused",
        awaiting,
        |s| identity(s, |i| i.offer = Offer::Refused(expired())),
        "AwaitingCertificate",
        "the certificate is refused: gw-1.pem: expired",
    ),
    (
        "an EST server can be asked",
        awaiting,
        |s| identity(s, |i| i.offer = Offer::CanRequest),
        "AwaitingCertificate",
        "requesting a certificate from the EST server",
    ),
    (
        "an EST server can be asked, request not published",
        awaiting,
        |s| {
            identity(s, |i| {
                (i.offer, i.request_is_published) = (Offer::CanRequest, false)
            })
        },
        "AwaitingCertificate",
        "publishing the request",
    ),
    (
        "AWS IoT Core can be asked",
        awaiting,
        |s| identity(s, |i| i.offer = Offer::CanCreate),
        "AwaitingCertificate",
        "requesting a certificate from AWS IoT Core",
    ),
    (
        "AWS IoT Core can be asked, request not published",
        awaiting,
        |s| {
            identity(s, |i| {
                (i.offer, i.request_is_published) = (Offer::CanCreate, false)
            })
        },
        "AwaitingCertificate",
        "publishing the request",
    ),
    (
        "a certificate is kept that is not registered",
        awaiting,
        |s| identity(s, |i| i.offer = Offer::CanRegister),
        "AwaitingCertificate",
        "registering the thing",
    ),
    (
        "a certificate is kept that is registered",
        awaiting,
        |s| identity(s, |i| i.ownership_is_spent = true),
        "AwaitingCertificate",
        "removing the used ownership token",
    ),
    (
        "a reply that this process could not open",
        awaiting,
        |s| {
            identity(s, |i| i.offer = Offer::Reply(wrapped()));
            refused_reply(s, "");
        },
        "AwaitingCertificate",
        "the certificate is refused: gw-1.pem: expired",
    ),
    (
        "another reply than the one that could not be opened",
        awaiting,
        |s| {
            identity(s, |i| i.offer = Offer::Reply(wrapped()));
            refused_reply(s, "00");
        },
        "AwaitingCertificate",
        "opening the wrapped certificate",
    ),
    (
        "a request that this process could not publish",
        awaiting,
        |s| {
            identity(s, |i| i.request_is_published = false);
            s.memory.request_stays = Some("read-only".into());
        },
        "AwaitingCertificate",
        "the certificate",
    ),
    (
        "configuration of an earlier identity",
        awaiting,
        |s| s.survey.configuration_is_ours = true,
        "Blank",
        "removing the configuration",
    ),
];

#[test]
fn each_state_has_its_step() {
    let settings = Settings::default();
    for (what, start, change, state, description) in TABLE {
        let mut scene = start();
        change(&mut scene);
        let step = scene.next(&settings);
        assert_eq!(step.state().to_string(), *state, "{what}");
        assert!(
            step.describe().starts_with(description),
            "{what}: {}",
            step.describe()
        );
    }
}

#[test]
fn weak_rsa_keys_are_not_made_but_ecc_keys_are() {
    let mut scene = blank();
    tpm(&mut scene, |t| {
        t.identification = Some(Identification {
            manufacturer: "IFX".into(),
            model: "SLB9670".into(),
            firmware: (7, 40),
            firmware_build: 0,
            revision: 116,
        });
    });
    let mut settings = Settings {
        key: KeyType::Rsa2048,
        greengrass: Greengrass {
            edition: Edition::Nucleus,
            ..Greengrass::default()
        },
        ..Settings::default()
    };
    let Step::Stop(_, kind, why) = scene.next(&settings) else {
        unreachable!("an RSA key on firmware 7.40");
    };
    assert_eq!(kind, ErrorKind::Settings);
    assert!(why.contains("CVE-2017-15361"), "{why}");
    settings.key = KeyType::EccP256;
    assert_eq!(scene.next(&settings), Step::MakeIdentity);
}

/// With a certificate: a self-signed one will do, as nothing checks it here.
#[test]
fn after_the_certificate_come_token_and_configuration() {
    let settings = Settings::default();
    let chain = chain();
    let mut scene = awaiting();
    identity(&mut scene, |i| {
        i.offer = Offer::Certificate(Box::new(chain.clone()), None);
    });
    let boxed = || Box::new(chain.clone());
    assert_eq!(scene.next(&settings), Step::Accept(boxed(), None));
    identity(&mut scene, |i| {
        i.certificate = Some(chain.clone());
        i.offer = Offer::Pending(String::new());
    });
    assert_eq!(scene.next(&settings), Step::FillToken(boxed()));
    identity(&mut scene, |i| i.token_is_ready = true);
    assert_eq!(scene.next(&settings), Step::WriteConfiguration(boxed()));
    identity(&mut scene, |i| i.configuration_is_written = true);
    assert_eq!(scene.next(&settings), Step::Done(None));
    identity(&mut scene, |i| i.offer = Offer::Refused(expired()));
    let remark = "a new certificate is refused: gw-1.pem: expired".to_owned();
    assert_eq!(scene.next(&settings), Step::Done(Some(remark)));
    identity(&mut scene, |i| i.claim_is_spent = true);
    assert_eq!(scene.next(&settings), Step::RemoveClaim);
    assert_eq!(Step::RemoveClaim.state(), State::Done);
    scene.memory.claim_stays = Some("read-only".into());
    let step = scene.next(&settings);
    assert!(step.describe().contains("claim is still"), "{step:?}");
    assert!(matches!(step, Step::Done(Some(_))));
}

/// With nothing left to do.
pub fn enrolled() -> Scene {
    let mut scene = awaiting();
    identity(&mut scene, |i| {
        i.certificate = Some(chain());
        (i.token_is_ready, i.configuration_is_written) = (true, true);
    });
    scene
}

fn taken(interface: &str) -> Taken {
    Taken {
        interface: interface.into(),
        path: format!("/etc/{interface}.conf").into(),
    }
}

/// After the request is published: `firstboot provision` goes no further.
#[test]
fn networks_go_with_their_certificate() {
    let settings = Settings::default();
    let mut scene = awaiting();
    identity(&mut scene, |i| {
        i.network.differs = true;
        i.request_is_published = false;
    });
    assert_eq!(scene.next(&settings), Step::PublishRequest);
    identity(&mut scene, |i| i.request_is_published = true);
    let write = Step::WriteNetwork(State::AwaitingCertificate);
    assert_eq!(scene.next(&settings), write);
    assert_eq!(write.state(), State::AwaitingCertificate);
    // A file that cannot be removed keeps no certificate from being accepted.
    let mut fails = scene.clone();
    fails.memory.network_stays = Some("read-only".into());
    identity(&mut fails, |i| {
        i.offer = Offer::Certificate(Box::new(chain()), None);
    });
    let step = Step::Accept(Box::new(chain()), None);
    assert_eq!(fails.next(&settings), step);
    identity(&mut scene, |i| i.network.differs = false);
    assert!(matches!(scene.next(&settings), Step::Wait(..)));
}

/// Everything else comes first: it does not depend on the networks.
#[test]
fn networks_come_last() {
    let settings = Settings::default();
    let mut scene = awaiting();
    identity(&mut scene, |i| {
        i.network.differs = true;
        i.certificate = Some(chain());
        i.token_is_ready = true;
    });
    let step = scene.next(&settings);
    assert_eq!(step, Step::WriteConfiguration(Box::new(chain())));
    identity(&mut scene, |i| {
        i.configuration_is_written = true;
        i.claim_is_spent = true;
    });
    assert_eq!(scene.next(&settings), Step::RemoveClaim);
    identity(&mut scene, |i| i.claim_is_spent = false);
    let write = Step::WriteNetwork(State::Done);
    assert_eq!(scene.next(&settings), write);
    assert_eq!(write.state(), State::Done);
    assert!(write.is_enrollment() && write.is_renewal());
    // Under its old name, too.
    let mut renamed = scene.clone();
    identity(&mut renamed, |i| {
        i.is_for_another_name = Some("gw-0".into())
    });
    let write = Step::WriteNetwork(State::AwaitingCertificate);
    assert_eq!(renamed.next(&settings), write);

    scene.memory.network_stays = Some("read-only".into());
    let remark = Step::Done(Some("read-only".into()));
    assert_eq!(scene.next(&settings), remark);
    identity(&mut scene, |i| {
        i.network.differs = false;
        i.network.trouble = Some("unreadable".into());
    });
    let remark = Step::Done(Some("unreadable".into()));
    assert_eq!(scene.next(&settings), remark);
    identity(&mut scene, |i| {
        i.network.trouble = None;
        i.network.taken = ["a", "b"].map(taken).into();
    });
    let step = scene.next(&settings);
    assert!(
        step.describe()
            .contains("/etc/a.conf and 1 more: not firstboot's"),
        "{step:?}"
    );
    assert!(matches!(step, Step::Done(Some(_))));
}

/// With a wrapped reply of which only the form is right: nothing checks it here.
#[test]
fn a_reply_is_opened_before_and_after_there_is_a_certificate() {
    let wrapped = wrapped();
    let chain = chain();
    let settings = Settings::default();
    let mut scene = awaiting();
    identity(&mut scene, |i| i.offer = Offer::Reply(wrapped.clone()));
    let step = Step::OpenReply(wrapped);
    assert_eq!(scene.next(&settings), step);
    assert_eq!(step.state(), State::AwaitingCertificate);
    assert!(step.is_enrollment(), "firstboot provision does not open it");
    identity(&mut scene, |i| i.certificate = Some(chain));
    assert_eq!(scene.next(&settings), step);
}

/// A self-signed certificate.
#[allow(clippy::unwrap_used)]
pub fn chain() -> Chain {
    Chain::stored(include_bytes!("test-certificate.pem")).unwrap()
}

/// A wrapped reply of which only the form is right.
#[allow(clippy::unwrap_used)]
pub fn wrapped() -> Box<WrappedReply> {
    let base64 = |count| firstboot_formats::encoding::to_base64(&vec![0; count]);
    let sized = |count: u16| {
        let bytes = [&count.to_be_bytes()[..], &vec![0; count.into()]].concat();
        firstboot_formats::encoding::to_base64(&bytes)
    };
    let reply = serde_json::json!({
        "version": 1, "thing_name": "gw-1", "key_name": "00".repeat(34),
        "ek_certificate_sha256": "00".repeat(32), "credential_blob": sized(68), "secret": sized(68),
        "nonce": base64(12), "ciphertext": base64(17), "issuer": "", "signature": "",
    });
    Box::new(WrappedReply {
        reply: Reply::parse(reply.to_string().as_bytes()).unwrap(),
        sha256: String::new(),
    })
}
