//! What is next for a renewal, as a table of tests.

use firstboot_formats::public_key::KeyType;
use firstboot_formats::record::Record;

use crate::enrollment::Offer;
use crate::identity::Trial;
use crate::provision::context::RefusedReply;
use crate::provision::next::table::{Scene, chain, enrolled, expired, identity, wrapped};
use crate::provision::{
    Back, Candidate, Next, Previous, Probation, Renewal, RenewalStep, State, Step, Tried,
};
use crate::settings::{Enrollment, Method, Renew, RenewedKey, Settings};

/// A next identity that has just been made.
pub fn candidate() -> Candidate {
    Candidate {
        record: Record::lost(KeyType::EccP256),
        request_is_published: false,
        certificate: None,
        offer: Offer::Pending("the certificate".into()),
        trial: None,
        token_is_ready: false,
    }
}

/// With renewals of this key.
pub fn renewing(key: RenewedKey) -> Settings {
    Settings {
        renew: Some(Renew {
            key,
            ..Renew::default()
        }),
        ..Settings::default()
    }
}

fn boxed() -> Box<firstboot_formats::x509::Chain> {
    Box::new(chain())
}

fn next_identity(scene: &mut Scene, change: impl FnOnce(&mut Candidate)) {
    identity(scene, |i| {
        if let Next::Candidate(next) = &mut i.next {
            change(next);
        }
    });
}

fn tried(scene: &mut Scene, why: &str) {
    scene.memory.note_tried(&chain(), why.into());
}

fn done(remark: &str) -> Step {
    Step::Done(Some(remark.into()))
}

/// Asked for once, published again where the request has gone from the card, and awaited as long as it takes.
#[test]
fn a_renewal_that_is_due_is_asked_for() {
    let settings = Settings::default();
    let mut scene = enrolled();
    let ask = Step::Renewal(RenewalStep::Ask(boxed()));
    assert_eq!(ask.state(), State::Done);
    assert!(ask.is_enrollment() && ask.is_renewal());
    identity(&mut scene, |i| i.renewal.due = Some("due".into()));
    assert_eq!(scene.next(&settings), ask);
    identity(&mut scene, |i| {
        i.renewal.is_asked_for = true;
        i.request_is_published = false;
    });
    assert_eq!(scene.next(&settings), ask);
    let mut unwritable = scene.clone();
    unwritable.memory.request_stays = Some("read-only".into());
    identity(&mut scene, |i| i.request_is_published = true);
    assert_eq!(scene.next(&settings), done("due"));
    assert_eq!(unwritable.next(&settings), done("due"));
    identity(&mut scene, |i| i.renewal.warning = Some("late".into()));
    assert_eq!(scene.next(&settings), done("due; late"));
    // A request that is not due is not missed.
    identity(&mut scene, |i| {
        i.renewal = Renewal::default();
        i.request_is_published = false;
    });
    assert_eq!(scene.next(&settings), Step::Done(None));
}

/// Over the network, it is requested by `firstboot renew`, once in a process, and for the key that is wanted.
#[test]
fn a_renewal_over_the_network_is_requested() {
    let settings = Settings::default();
    let request = Step::Renewal(RenewalStep::Request(boxed()));
    assert!(request.is_renewal() && !request.needs_restart());
    for offer in [Offer::CanCreate, Offer::CanRegister, Offer::CanRequest] {
        let mut scene = enrolled();
        identity(&mut scene, |i| {
            i.offer = offer.clone();
            i.request_is_published = true;
        });
        assert_eq!(scene.next(&settings), Step::Done(None), "not due");
        identity(&mut scene, |i| i.renewal.due = Some("due".into()));
        let ask = Step::Renewal(RenewalStep::Ask(boxed()));
        assert_eq!(scene.next(&settings), ask);
        identity(&mut scene, |i| i.renewal.is_asked_for = true);
        assert_eq!(scene.next(&settings), request);
        let mut hasty = scene.clone();
        hasty.memory.leaves_trials = true;
        assert_eq!(hasty.next(&settings), done("due"), "Greengrass waits");
        let mut failed = scene.clone();
        failed.memory.renewal_stays = Some("no route".into());
        let remark = "the renewal cannot go on: no route; due";
        assert_eq!(failed.next(&settings), done(remark));

        let new_key = renewing(RenewedKey::New);
        identity(&mut scene, |i| {
            i.next = Next::Candidate(Box::new(Candidate {
                request_is_published: true,
                offer: offer.clone(),
                ..candidate()
            }));
        });
        let for_next = Step::Renewal(RenewalStep::RequestForNext(boxed()));
        assert_eq!(scene.next(&new_key), for_next);
        // It has one.
        next_identity(&mut scene, |n| n.certificate = Some(chain()));
        let fill = Step::Renewal(RenewalStep::FillNextToken(boxed()));
        assert_eq!(scene.next(&new_key), fill);
    }
}

/// Whoever issues over the network gives nothing yet: that is said where it is asked for.
#[test]
fn what_the_network_waits_for_is_said() {
    let by_est = |key| Settings {
        enrollment: Enrollment {
            method: Method::Est,
            ..Enrollment::default()
        },
        ..renewing(key)
    };
    let pending = || Offer::Pending("asks again later".into());
    let mut scene = enrolled();
    identity(&mut scene, |i| {
        i.offer = pending();
        i.request_is_published = true;
    });
    let keep = by_est(RenewedKey::Keep);
    assert_eq!(scene.next(&keep), Step::Done(None), "not due");
    identity(&mut scene, |i| {
        i.renewal.due = Some("due".into());
        i.renewal.is_asked_for = true;
    });
    let said = done("asks again later; due");
    assert_eq!(scene.next(&keep), said);
    assert_eq!(scene.next(&renewing(RenewedKey::Keep)), done("due"));
    let mut next = enrolled();
    identity(&mut next, |i| {
        i.renewal = Renewal {
            due: Some("due".into()),
            is_asked_for: true,
            ..Renewal::default()
        };
        i.next = Next::Candidate(Box::new(Candidate {
            request_is_published: true,
            offer: pending(),
            ..candidate()
        }));
    });
    assert_eq!(next.next(&by_est(RenewedKey::New)), said);
    assert_eq!(next.next(&renewing(RenewedKey::New)), done("due"));
}

/// Nobody has answered for the certificate in a reply: that is no refusal.
#[test]
fn a_reply_that_could_not_be_tried_is_awaited() {
    let settings = renewing(RenewedKey::Keep);
    let mut scene = enrolled();
    identity(&mut scene, |i| i.offer = Offer::Reply(wrapped()));
    assert_eq!(scene.next(&settings), Step::OpenReply(wrapped()));
    scene.memory.refused_replies.push(RefusedReply {
        sha256: wrapped().sha256,
        refusal: expired(),
        is_for_now: true,
    });
    let remark =
        "the new certificate waits until AWS IoT Core accepts a connection with it: expired";
    assert_eq!(scene.next(&settings), done(remark));
}

/// From the making of the next identity until the one before it is removed.
#[test]
fn a_renewal_with_a_new_key_goes_its_way() {
    let settings = renewing(RenewedKey::New);
    let kept = Settings::default();
    let renewal = |step| Step::Renewal(step);
    let mut scene = enrolled();
    assert_eq!(scene.next(&settings), Step::Done(None));
    identity(&mut scene, |i| i.renewal.due = Some("due".into()));
    assert_eq!(scene.next(&settings), renewal(RenewalStep::MakeNext));
    assert_eq!(scene.next(&kept), renewal(RenewalStep::Ask(boxed())));
    let mut waiting = scene.clone();
    waiting.memory.leaves_trials = true;
    assert_eq!(waiting.next(&settings), done("due"), "Greengrass waits");

    identity(&mut scene, |i| {
        i.next = Next::Candidate(Box::new(candidate()))
    });
    let ask = renewal(RenewalStep::AskForNext(boxed()));
    assert_eq!(scene.next(&settings), ask);
    identity(&mut scene, |i| i.renewal.is_asked_for = true);
    assert_eq!(scene.next(&settings), ask);
    next_identity(&mut scene, |n| n.request_is_published = true);
    assert_eq!(scene.next(&settings), done("due"));
    next_identity(&mut scene, |n| n.offer = Offer::Refused(expired()));
    let remark = "the certificate for the new key is refused: gw-1.pem: expired; due";
    assert_eq!(scene.next(&settings), done(remark));
    next_identity(&mut scene, |n| n.offer = Offer::Reply(wrapped()));
    let open = renewal(RenewalStep::OpenNextReply(wrapped()));
    assert_eq!(scene.next(&settings), open);
    next_identity(&mut scene, |n| n.offer = Offer::Certificate(boxed(), None));
    let accept = renewal(RenewalStep::AcceptNext(boxed(), None));
    assert_eq!(scene.next(&settings), accept);

    next_identity(&mut scene, |n| {
        n.offer = Offer::Pending(String::new());
        n.certificate = Some(chain());
    });
    let fill = renewal(RenewalStep::FillNextToken(boxed()));
    assert_eq!(scene.next(&settings), fill);
    next_identity(&mut scene, |n| n.token_is_ready = true);
    let step = scene.next(&settings);
    assert_eq!(step, renewal(RenewalStep::Try(Tried::Next, boxed())));
    assert!(step.is_renewal() && !step.needs_restart());
    next_identity(&mut scene, |n| n.trial = Some(Trial::Accepted));
    let step = scene.next(&settings);
    let change = |again| {
        let certificate = boxed();
        renewal(RenewalStep::ChangeIdentities { certificate, again })
    };
    assert_eq!(step, change(false));
    assert!(step.needs_restart() && !step.is_renewal());
    assert!(step.is_enrollment(), "firstboot provision leaves it alone");
    next_identity(&mut scene, |n| n.trial = Some(Trial::Failed));
    let remark = "the certificate for the new key could not be put into service. The next boot tries again, and so does \
                  `systemctl restart firstboot-enroll`; due";
    assert_eq!(scene.next(&settings), done(remark), "Greengrass runs");
    identity(&mut scene, |i| i.network.differs = true);
    assert_eq!(scene.next(&settings), Step::WriteNetwork(State::Done));
    identity(&mut scene, |i| i.network.differs = false);
    scene.memory.repeats_changes = true;
    assert_eq!(scene.next(&settings), change(true));
    assert!(!change(true).needs_restart() && !change(true).is_renewal());

    identity(&mut scene, |i| {
        i.next = Next::Former;
        i.renewal = Renewal::default();
        i.previous = Previous::Spent;
    });
    let keep = renewal(RenewalStep::KeepPrevious);
    assert_eq!(scene.next(&settings), keep);
    assert_eq!(scene.next(&kept), keep);
    identity(&mut scene, |i| i.next = Next::Absent);
    let remove = renewal(RenewalStep::RemovePrevious);
    assert_eq!(scene.next(&settings), remove);
    identity(&mut scene, |i| i.previous = Previous::Undated);
    let note = renewal(RenewalStep::NoteTakenUp);
    assert_eq!(scene.next(&settings), note);
    identity(&mut scene, |i| i.previous = Previous::Kept);
    assert_eq!(scene.next(&settings), Step::Done(None));
}

/// What is offered for the key in service, and the next identity's certificate: neither goes into service without AWS IoT
/// Core's having accepted it, except where nobody answers and the present one is near its end.
#[test]
fn a_certificate_is_tried_before_it_is_in_service() {
    let settings = renewing(RenewedKey::New);
    let mut offered = enrolled();
    identity(&mut offered, |i| {
        i.offer = Offer::Certificate(boxed(), None)
    });
    let plain = Step::Accept(boxed(), None);
    assert_eq!(offered.next(&Settings::default()), plain);
    let mut next = enrolled();
    identity(&mut next, |i| {
        i.next = Next::Candidate(Box::new(Candidate {
            certificate: Some(chain()),
            token_is_ready: true,
            request_is_published: true,
            ..candidate()
        }));
    });
    let note = |scene: &mut Scene, trial| {
        identity(scene, |i| {
            i.offer_trial = Some(trial);
            if let Next::Candidate(next) = &mut i.next {
                next.trial = Some(trial);
            }
        });
    };
    for (mut scene, which, accept, untried) in [
        (
            offered,
            Tried::Offered,
            plain,
            RenewalStep::AcceptUntried(boxed(), None),
        ),
        (next, Tried::Next, Step::Renewal(change()), change()),
    ] {
        let attempt = Step::Renewal(RenewalStep::Try(which, boxed()));
        assert_eq!(scene.next(&settings), attempt);
        let mut hasty = scene.clone();
        hasty.memory.leaves_trials = true;
        let is_done = |step| matches!(step, Step::Done(Some(_)));
        assert!(is_done(hasty.next(&settings)), "{which:?}");
        note(&mut scene, Trial::Unanswered);
        assert_eq!(scene.next(&settings), attempt, "in another process");
        tried(&mut scene, "no route");
        assert!(is_done(scene.next(&settings)), "it waits");
        identity(&mut scene, |i| i.renewal.warning = Some("late".into()));
        assert_eq!(scene.next(&settings), Step::Renewal(untried));
        note(&mut scene, Trial::Refused);
        assert!(
            is_done(scene.next(&settings)),
            "nobody's answer is no answer"
        );
        note(&mut scene, Trial::Accepted);
        assert_eq!(scene.next(&settings), accept);
    }
    // Nothing is lost by accepting it.
    let mut over = enrolled();
    identity(&mut over, |i| {
        i.offer = Offer::Certificate(boxed(), None);
        i.renewal.is_over = true;
    });
    assert_eq!(over.next(&settings), Step::Accept(boxed(), None));
}

fn change() -> RenewalStep {
    RenewalStep::ChangeIdentities {
        certificate: boxed(),
        again: false,
    }
}

#[test]
fn a_certificate_on_probation_is_tried_and_given_up_if_it_is_refused() {
    let settings = Settings::default();
    for (back, step) in [
        (
            Back::Certificate(boxed()),
            RenewalStep::TakeBackCertificate(boxed()),
        ),
        (
            Back::Identity { has_failed: false },
            RenewalStep::TakeBackIdentity { again: false },
        ),
        (
            Back::Identity { has_failed: true },
            RenewalStep::TakeBackIdentity { again: true },
        ),
    ] {
        let mut scene = enrolled();
        let probation = |is_refused| {
            let back = back.clone();
            Some(Probation { back, is_refused })
        };
        identity(&mut scene, |i| i.probation = probation(false));
        let attempt = RenewalStep::Try(Tried::InService, boxed());
        assert_eq!(scene.next(&settings), Step::Renewal(attempt));
        let mut refused = scene.clone();
        tried(&mut scene, "no route");
        let remark = "the certificate in service has not been tried yet, and the one before it is kept: no route";
        assert_eq!(scene.next(&settings), done(remark));
        identity(&mut refused, |i| i.probation = probation(true));
        let has_failed = back == Back::Identity { has_failed: true };
        if has_failed {
            let attempt = RenewalStep::Try(Tried::InService, boxed());
            assert_eq!(refused.next(&settings), Step::Renewal(attempt));
            tried(&mut refused, "refused");
            identity(&mut refused, |i| i.network.differs = true);
            assert_eq!(refused.next(&settings), Step::WriteNetwork(State::Done));
            identity(&mut refused, |i| i.network.differs = false);
            refused.memory.repeats_changes = true;
        }
        let stops = matches!(step, RenewalStep::TakeBackIdentity { again: false });
        let step = Step::Renewal(step);
        assert_eq!(refused.next(&settings), step);
        assert_eq!(step.needs_restart(), stops);
        refused.memory.renewal_stays = Some("read-only".into());
        let step = refused.next(&settings).describe();
        assert!(
            step.contains("refuses the certificate in service"),
            "{step}"
        );
        let says_so = step.contains("going back to the one before it has failed");
        assert_eq!(says_so, has_failed, "{step}");
    }
    let mut back = enrolled();
    identity(&mut back, |i| i.previous = Previous::Newer);
    let put_back = Step::Renewal(RenewalStep::PutBackNext);
    assert_eq!(back.next(&settings), put_back);
}

/// A device that has its certificate loses nothing by a next identity, whatever is wrong with that.
#[test]
fn a_next_identity_never_ends_the_service() {
    let settings = Settings::default();
    let remove = |why: &str| Step::Renewal(RenewalStep::RemoveNext(why.into()));
    let mut scene = enrolled();
    for (next, step) in [
        (Next::Unknown("i/o".into()), done("i/o")),
        (Next::Useless("torn".into()), remove("torn")),
        (
            Next::Candidate(Box::new(candidate())),
            remove("the settings do not ask for a new key any more"),
        ),
    ] {
        identity(&mut scene, |i| i.next = next);
        assert_eq!(scene.next(&settings), step);
    }
    for next in [Next::Former, Next::Useless("torn".into()), Next::Absent] {
        scene.survey.interrupted = true;
        identity(&mut scene, |i| {
            i.next = next;
            i.previous = Previous::Spent;
        });
        scene.memory.renewal_stays = None;
        assert_eq!(scene.next(&settings), Step::RemoveStaging);
        scene.memory.renewal_stays = Some("read-only".into());
        let remark = "the renewal cannot go on: read-only";
        assert_eq!(scene.next(&settings), done(remark));
    }
}
