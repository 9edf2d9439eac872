//! What is next for the networks' own key, as tests.

use firstboot_formats::public_key::KeyType;
use firstboot_formats::record::Record;

use super::*;
use crate::provision::next::table::{awaiting, chain, enrolled, expired, identity, wrapped};
use crate::provision::own_key::Made;
use crate::provision::{State, Step};
use crate::settings::Settings;

/// One that waits for its certificate.
pub fn made() -> Made {
    Made {
        record: Record {
            thing_name: chain().thing_name().unwrap_or_default(),
            ..Record::lost(KeyType::EccP256)
        },
        request_is_current: true,
        request_is_published: true,
        certificate: None,
        warning: None,
        offer: Offer::Pending("have it signed".into()),
    }
}

fn with(change: impl FnOnce(&mut Made)) -> OwnKey {
    let mut made = made();
    change(&mut made);
    OwnKey::Made(Box::new(made))
}

fn offered(offer: Offer) -> OwnKey {
    with(|own| own.offer = offer)
}

/// Whatever there may be, with the beginning of what is done about it: nothing, if that is empty.
pub fn all() -> Vec<(OwnKey, &'static str)> {
    let mine = || Offer::Certificate(Box::new(chain()), None);
    let ending = |own: &mut Made| {
        (own.certificate, own.warning) = (Some(chain()), Some("it ends".into()));
    };
    vec![
        (OwnKey::NotWanted, ""),
        (OwnKey::Absent, "creating"),
        (OwnKey::Unknown("i/o".into()), ""),
        (OwnKey::Foreign("theirs".into()), ""),
        (
            OwnKey::Useless("torn".into()),
            "removing the networks' own key: torn",
        ),
        (OwnKey::StoreUpgradeCut, "repairing"),
        (with(|_| ()), ""),
        (
            with(|own| own.request_is_current = false),
            "signing a new request",
        ),
        (with(|own| own.request_is_published = false), "publishing"),
        (offered(mine()), "accepting"),
        (offered(Offer::Reply(wrapped())), "opening"),
        (offered(Offer::Refused(expired())), ""),
        (
            with(|own| {
                ending(own);
                own.request_is_published = false;
            }),
            "publishing",
        ),
        (
            with(|own| {
                ending(own);
                own.offer = mine();
            }),
            "accepting",
        ),
        (
            with(|own| {
                own.certificate = Some(chain());
                own.request_is_published = false;
            }),
            "",
        ),
        (
            with(|own| {
                own.certificate = Some(chain());
                own.request_is_published = false;
                own.record.thing_name = "gw-2".into();
            }),
            "publishing",
        ),
        (
            with(|own| {
                own.certificate = Some(chain());
                own.record.thing_name = "gw-2".into();
            }),
            "",
        ),
        (
            with(|own| {
                own.certificate = Some(chain());
                own.offer = Offer::Refused(expired());
            }),
            "",
        ),
        (with(ending), ""),
    ]
}

#[test]
fn each_case_has_its_step() {
    for (own, wanted) in all() {
        let step = step(&own, &Memory::default());
        let described = step.as_ref().map(OwnKeyStep::describe).unwrap_or_default();
        assert!(
            described.starts_with(wanted) && wanted.is_empty() == step.is_none(),
            "{own:?}: {described:?}"
        );
        let memory = Memory {
            own_key_stays: Some("read-only".into()),
            ..Memory::default()
        };
        assert_eq!(super::step(&own, &memory), None, "{own:?}");
    }
}

/// After the device's request, and before anything else is asked for.
#[test]
fn it_is_made_with_the_request() {
    let settings = Settings::default();
    let mut scene = awaiting();
    identity(&mut scene, |i| {
        i.request_is_published = false;
        i.own_key = OwnKey::Absent;
        i.network.differs = true;
        i.offer = Offer::CanCreate;
    });
    assert_eq!(scene.next(&settings), Step::PublishRequest);
    identity(&mut scene, |i| i.request_is_published = true);
    let make = scene.next(&settings);
    assert_eq!(
        make,
        Step::OwnKey(OwnKeyStep::Make, State::AwaitingCertificate)
    );
    assert_eq!(make.state(), State::AwaitingCertificate);
    assert!(!make.is_enrollment(), "`firstboot provision` makes it");
    identity(&mut scene, |i| i.own_key = offered(Offer::Reply(wrapped())));
    let open = scene.next(&settings);
    assert!(open.is_enrollment() && open.is_renewal(), "{open:?}");
    identity(&mut scene, |i| i.own_key = with(|_| ()));
    assert_eq!(
        scene.next(&settings),
        Step::WriteNetwork(State::AwaitingCertificate)
    );
    identity(&mut scene, |i| i.network.differs = false);
    assert_eq!(scene.next(&settings), Step::CreateCertificate);
}

/// Of a device in service, everything else comes first, and the networks' files last.
#[test]
fn nothing_else_waits_for_it() {
    let settings = Settings::default();
    let mut scene = enrolled();
    identity(&mut scene, |i| {
        i.own_key = OwnKey::Absent;
        i.network.differs = true;
        i.claim_is_spent = true;
        i.token_is_ready = false;
    });
    let fill = Step::FillToken(Box::new(chain()));
    assert_eq!(scene.next(&settings), fill);
    identity(&mut scene, |i| i.token_is_ready = true);
    assert_eq!(scene.next(&settings), Step::RemoveClaim);
    identity(&mut scene, |i| i.claim_is_spent = false);
    let make = |state| Step::OwnKey(OwnKeyStep::Make, state);
    assert_eq!(scene.next(&settings), make(State::Done));
    // Under its old name, too.
    let mut renamed = scene.clone();
    identity(&mut renamed, |i| {
        i.is_for_another_name = Some("gw-0".into());
    });
    assert_eq!(renamed.next(&settings), make(State::AwaitingCertificate));
    scene.memory.own_key_stays = Some("read-only".into());
    assert_eq!(scene.next(&settings), Step::WriteNetwork(State::Done));
    identity(&mut scene, |i| i.network.differs = false);
    let remark = "a network needs a certificate of its own: read-only";
    assert_eq!(scene.next(&settings), Step::Done(Some(remark.into())));
}

#[test]
fn the_operator_is_told() {
    let settings = Settings::default();
    let says = |own: OwnKey| {
        let mut scene = enrolled();
        identity(&mut scene, |i| i.own_key = own);
        let step = scene.next(&settings);
        assert!(matches!(step, Step::Done(_)), "{step:?}");
        step.describe()
    };
    assert_eq!(says(OwnKey::NotWanted), "nothing left to do");
    for (own, words) in [
        (OwnKey::Foreign("theirs".into()), "of its own: theirs"),
        (with(|_| ()), "of its own: have it signed"),
        (
            offered(Offer::Refused(expired())),
            "of its own: the one that is there is refused: gw-1.pem: expired",
        ),
        (
            with(|own| {
                own.certificate = Some(chain());
                own.offer = Offer::Refused(expired());
            }),
            "a new certificate for the networks' own key is refused: gw-1.pem: expired",
        ),
        (
            with(|own| {
                (own.certificate, own.warning) = (Some(chain()), Some("it ends".into()));
            }),
            "it ends",
        ),
    ] {
        let said = says(own);
        assert!(said.contains(words), "{said}");
    }
}
