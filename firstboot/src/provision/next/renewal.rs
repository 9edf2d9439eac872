//! What is next for the renewal of a certificate, once everything else is as it should be.

#[cfg(test)]
pub(in crate::provision) mod table;

use firstboot_formats::x509::Chain;

use crate::enrollment::Offer;
use crate::identity::Trial;
use crate::provision::context::Memory;
use crate::provision::renewal::{Back, Candidate, Next, Previous, RenewalStep, Tried};
use crate::provision::{Complete, Step};
use crate::settings::Settings;

/// What is next for the certificate that is offered to a device that has one; otherwise why nothing is, if there is
/// something to say.
pub(super) fn offered(
    settings: &Settings,
    identity: &Complete,
    offer: &Offer,
    memory: &Memory,
) -> Result<Step, Option<String>> {
    let needs_trial = identity.needs_trial(settings);
    match offer {
        Offer::Certificate(chain, remark) if needs_trial => {
            untried(identity, chain, remark.as_deref(), memory)
        }
        Offer::Certificate(chain, remark) => Ok(Step::Accept(chain.clone(), remark.clone())),
        Offer::Reply(_) if needs_trial && memory.leaves_trials => Err(Some(
            "a new certificate: `firstboot renew` opens and tries it".into(),
        )),
        Offer::Reply(wrapped) => Ok(Step::OpenReply(wrapped.clone())),
        Offer::Refused(why) => Err(Some(format!("a new certificate is refused: {why}"))),
        // This process has opened it.
        Offer::Pending(why) if matches!(identity.offer, Offer::Reply(_)) => {
            Err(Some(waits("new certificate", why)))
        }
        Offer::Pending(why) if is_requested(settings, identity) && !settings.wants_new_key() => {
            Err(Some(why.clone()))
        }
        Offer::Pending(_) | Offer::CanRequest | Offer::CanCreate | Offer::CanRegister => Err(None),
    }
}

/// Whether a new certificate is due that comes over the network.
fn is_requested(settings: &Settings, identity: &Complete) -> bool {
    identity.renewal.due.is_some() && settings.enrollment.is_by_network()
}

/// The accepted certificate stays until AWS IoT Core accepts the new one, or until its end is near and nobody answers.
fn untried(
    identity: &Complete,
    chain: &Chain,
    remark: Option<&str>,
    memory: &Memory,
) -> Result<Step, Option<String>> {
    let boxed = || Box::new(chain.clone());
    let remark = || remark.map(str::to_owned);
    let step = match identity.offer_trial {
        Some(Trial::Accepted) => return Ok(Step::Accept(boxed(), remark())),
        _ if memory.renewal_stays.is_some() => return Err(None),
        _ if memory.has_to_try(chain) => RenewalStep::Try(Tried::Offered, boxed()),
        Some(Trial::Unanswered) if identity.renewal.is_urgent() => {
            RenewalStep::AcceptUntried(boxed(), remark())
        }
        trial => return Err(Some(awaited("new certificate", trial, chain, memory))),
    };
    Ok(Step::Renewal(step))
}

/// Why a certificate that may be accepted is not in service.
fn awaited(what: &str, trial: Option<Trial>, chain: &Chain, memory: &Memory) -> String {
    let why = memory.tried(chain);
    match trial {
        Some(Trial::Refused) => format!(
            "the {what} is refused: {}. The present one stays in service. `firstboot renew` tries again, daily and after \
             each change on the boot partition",
            why.unwrap_or("AWS IoT Core did not accept a connection with it")
        ),
        Some(Trial::Failed) => format!(
            "the {what} could not be put into service. The next boot tries again, and so does `systemctl restart \
             firstboot-enroll`"
        ),
        Some(_) => waits(what, why.unwrap_or("nobody has answered yet")),
        None => format!("the {what} has to be tried first: `firstboot renew` does that, daily"),
    }
}

fn waits(what: &str, why: &str) -> String {
    format!("the {what} waits until AWS IoT Core accepts a connection with it: {why}")
}

/// The step that is due, if one is.
pub(super) fn step(
    settings: &Settings,
    identity: &Complete,
    certificate: &Chain,
    memory: &Memory,
) -> Option<RenewalStep> {
    if memory.renewal_stays.is_some() {
        return None;
    }
    let renewal = &identity.renewal;
    let accepted = || Box::new(certificate.clone());
    // One that could not be published before in this process is not tried again.
    let has_to_publish = |is_published: bool| !is_published && memory.request_stays.is_none();
    let is_due = renewal.due.is_some();
    let has_to_ask = is_due && !renewal.is_asked_for;
    let new_key = settings.wants_new_key();
    if matches!(identity.next, Next::Former) {
        return Some(RenewalStep::KeepPrevious);
    }
    if let Some(step) = probation(identity, certificate, memory) {
        return Some(step);
    }
    if identity.previous == Previous::Newer {
        return Some(RenewalStep::PutBackNext);
    }
    let next = match &identity.next {
        Next::Useless(why) => Some(RenewalStep::RemoveNext(why.clone())),
        Next::Candidate(_) if !new_key => Some(RenewalStep::RemoveNext(
            "the settings do not ask for a new key any more".into(),
        )),
        Next::Candidate(next) if has_to_ask || has_to_publish(next.request_is_published) => {
            Some(RenewalStep::AskForNext(accepted()))
        }
        Next::Candidate(next)
            if next.certificate.is_none()
                && next.offer.is_by_request()
                && !memory.leaves_trials =>
        {
            Some(RenewalStep::RequestForNext(accepted()))
        }
        Next::Candidate(next) => candidate(next, renewal.is_urgent(), memory),
        Next::Absent if new_key && is_due && !memory.leaves_trials => Some(RenewalStep::MakeNext),
        Next::Absent | Next::Unknown(_) | Next::Former => None,
    };
    if next.is_some() {
        return next;
    }
    // What AWS IoT Core accepts in its place comes first.
    if goes_back_again(identity, memory) {
        return Some(RenewalStep::TakeBackIdentity { again: true });
    }
    if !new_key && is_due {
        if has_to_ask || has_to_publish(identity.request_is_published) {
            return Some(RenewalStep::Ask(accepted()));
        }
        if identity.offer.is_by_request() && !memory.leaves_trials {
            return Some(RenewalStep::Request(accepted()));
        }
    }
    match identity.previous {
        Previous::Undated => Some(RenewalStep::NoteTakenUp),
        Previous::Spent => Some(RenewalStep::RemovePrevious),
        _ => None,
    }
}

/// The certificate in service is tried as soon as somebody answers, and given up if it is refused.
fn probation(identity: &Complete, certificate: &Chain, memory: &Memory) -> Option<RenewalStep> {
    let probation = identity.probation.as_ref()?;
    match &probation.back {
        Back::Certificate(former) if probation.is_refused => {
            Some(RenewalStep::TakeBackCertificate(former.clone()))
        }
        Back::Identity { has_failed: false } if probation.is_refused => {
            Some(RenewalStep::TakeBackIdentity { again: false })
        }
        // Where going back has failed, it may have been activated meanwhile.
        _ => memory
            .has_to_try(certificate)
            .then(|| RenewalStep::Try(Tried::InService, Box::new(certificate.clone()))),
    }
}

/// Whether going back to the previous identity, which has failed before, is to be tried again.
fn goes_back_again(identity: &Complete, memory: &Memory) -> bool {
    let failed = Back::Identity { has_failed: true };
    let probation = identity.probation.as_ref();
    memory.repeats_changes && probation.is_some_and(|p| p.is_refused && p.back == failed)
}

fn candidate(next: &Candidate, is_urgent: bool, memory: &Memory) -> Option<RenewalStep> {
    match &*memory.judge(&next.offer) {
        Offer::Certificate(chain, remark) => {
            return Some(RenewalStep::AcceptNext(chain.clone(), remark.clone()));
        }
        Offer::Reply(wrapped) => return Some(RenewalStep::OpenNextReply(wrapped.clone())),
        _ => {}
    }
    let certificate = Box::new(next.certificate.clone()?);
    let change = |again| {
        let certificate = certificate.clone();
        Some(RenewalStep::ChangeIdentities { certificate, again })
    };
    match next.trial {
        _ if !next.token_is_ready => Some(RenewalStep::FillNextToken(certificate)),
        Some(Trial::Accepted) => change(false),
        Some(Trial::Failed) if memory.repeats_changes => change(true),
        Some(Trial::Failed) => None,
        _ if memory.has_to_try(&certificate) => Some(RenewalStep::Try(Tried::Next, certificate)),
        Some(Trial::Unanswered) if is_urgent => change(false),
        _ => None,
    }
}

/// What the operator should know where there is nothing to do.
pub(super) fn remarks(settings: &Settings, identity: &Complete, memory: &Memory) -> Vec<String> {
    let next = match &identity.next {
        Next::Candidate(next) => match (&*memory.judge(&next.offer), &next.certificate) {
            (Offer::Refused(why), _) => {
                Some(format!("the certificate for the new key is refused: {why}"))
            }
            (_, Some(chain)) => Some(awaited(
                "certificate for the new key",
                next.trial,
                chain,
                memory,
            )),
            (Offer::Pending(why), None) if is_requested(settings, identity) => Some(why.clone()),
            _ => None,
        },
        Next::Unknown(why) => Some(why.clone()),
        _ => None,
    };
    let stays = memory
        .renewal_stays
        .as_ref()
        .map(|why| format!("the renewal cannot go on: {why}"));
    let probation = identity.probation.as_ref().map(|probation| {
        if probation.is_refused {
            let refused = "AWS IoT Core refuses the certificate in service";
            return match probation.back {
                Back::Identity { has_failed: true } => format!(
                    "{refused}, and going back to the one before it has failed. The next boot tries again, and so does \
                     `systemctl restart firstboot-enroll`"
                ),
                _ => refused.into(),
            };
        }
        let why = identity
            .certificate
            .as_ref()
            .and_then(|chain| memory.tried(chain));
        format!(
            "the certificate in service has not been tried yet, and the one before it is kept: {}",
            why.unwrap_or("`firstboot renew` tries it, daily")
        )
    });
    let renewal = &identity.renewal;
    [
        stays,
        next,
        probation,
        renewal.due.clone(),
        renewal.warning.clone(),
    ]
    .into_iter()
    .flatten()
    .collect()
}
