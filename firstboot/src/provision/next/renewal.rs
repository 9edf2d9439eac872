//! What is next for the renewal of a certificate, once everything else is as it should be.

use firstboot_formats::x509::Chain;

use crate::enrollment::Offer;
use crate::provision::context::Memory;
use crate::provision::rekey::{Candidate, Next};
use crate::provision::{Complete, Step};
use crate::settings::Settings;

/// The step that is due, if one is.
pub(super) fn step(
    settings: &Settings,
    identity: &Complete,
    certificate: &Chain,
    memory: &Memory,
) -> Option<Step> {
    let is_due = identity.renewal.due.is_some();
    let accepted = || Box::new(certificate.clone());
    // One that could not be published before in this process is not tried again.
    let is_asked_for = |request_is_published: bool| {
        identity.renewal.is_asked_for && (request_is_published || memory.request_stays.is_some())
    };
    let new_key = settings.wants_new_key();
    let next = match &identity.next {
        _ if memory.new_key_stays.is_some() => None,
        Next::Former => Some(Step::KeepPrevious),
        Next::Useless(why) => Some(Step::RemoveNext(why.clone())),
        Next::Candidate(_) if !new_key => Some(Step::RemoveNext(
            "the settings do not ask for a new key any more".into(),
        )),
        Next::Candidate(next) if !is_asked_for(next.request_is_published) => {
            Some(Step::AskForNext(accepted()))
        }
        Next::Candidate(next) => candidate(next, memory),
        Next::Absent if new_key && is_due => Some(Step::MakeNext),
        Next::Absent | Next::Unknown(_) => None,
    };
    if next.is_some() {
        return next;
    }
    if !new_key && is_due && !is_asked_for(identity.request_is_published) {
        return Some(Step::AskForRenewal(accepted()));
    }
    (identity.previous_is_spent && memory.new_key_stays.is_none()).then_some(Step::RemovePrevious)
}

fn candidate(next: &Candidate, memory: &Memory) -> Option<Step> {
    match &*memory.judge(&next.offer) {
        Offer::Certificate(chain, remark) => {
            return Some(Step::AcceptNext(chain.clone(), remark.clone()));
        }
        Offer::Reply(wrapped) => return Some(Step::OpenNextReply(wrapped.clone())),
        _ => {}
    }
    let certificate = next.certificate.clone()?;
    let is_proved = memory.proved == Some(certificate.fingerprint());
    let certificate = Box::new(certificate);
    Some(if !next.token_is_ready {
        Step::FillNextToken(certificate)
    } else if !is_proved {
        Step::ProveNext {
            certificate,
            again: next.is_refused,
        }
    } else {
        Step::ChangeIdentities
    })
}

/// What the operator should know where there is nothing to do.
pub(super) fn remarks(identity: &Complete, memory: &Memory) -> Vec<String> {
    let refused = match &identity.next {
        Next::Candidate(next) => match &*memory.judge(&next.offer) {
            Offer::Refused(why) => {
                Some(format!("the certificate for the new key is refused: {why}"))
            }
            _ => None,
        },
        Next::Unknown(why) => Some(why.clone()),
        _ => None,
    };
    let stays = memory
        .new_key_stays
        .as_ref()
        .map(|why| format!("the renewal with a new key cannot go on: {why}"));
    let renewal = &identity.renewal;
    [stays, refused, renewal.due.clone(), renewal.warning.clone()]
        .into_iter()
        .flatten()
        .collect()
}
