//! A renewal with another key: the next identity, from its making until it takes the place of the one in service.
//!
//! It is made beside the one in service, which knows nothing of it. When it has its certificate, its token holds what
//! Greengrass reads there, and AWS IoT Core accepts it, the two change places in one step, while Greengrass is stopped.
//! The one from before stays for a while, in a third place.

use std::cmp::Ordering;
use std::time::Duration;

use firstboot_formats::clock::Clock;
use firstboot_formats::record::Record;
use firstboot_formats::thing_name::next_name;
use firstboot_formats::x509::{Chain, Request, Verdict};
use log::{info, warn};

use crate::enrollment::{Offer, WrappedReply};
use crate::error::{Error, Result};
use crate::greengrass;
use crate::identity::{Identity, Trial};
use crate::provision::context::{Context, Places};
use crate::provision::open_reply::{self, Acceptance};
use crate::provision::{offer, request};
use crate::settings::Settings;

/// The identity that was in service before is kept for this long: until it is known that the new one serves.
const KEPT: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// What is in the place of the next identity.
#[derive(Clone, Debug, Default)]
pub enum Next {
    /// Nothing.
    #[default]
    Absent,
    /// Something that could not be looked at, or is not firstboot's; in words.
    Unknown(String),
    /// Something that will not be in service; why.
    Useless(String),
    /// The one that was in service before: the two have changed places.
    Former,
    /// The next identity.
    Candidate(Box<Candidate>),
}

/// The next identity, and what has become of it.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// The record of its request.
    pub record: Record,
    /// Request and record are on the boot partition.
    pub request_is_published: bool,
    /// The certificate that was accepted for it, and still is good.
    pub certificate: Option<Chain>,
    /// What is offered beside that.
    pub offer: Offer,
    /// What came of trying it.
    pub trial: Option<Trial>,
    /// Its token was seen to hold the certificate, or the edition does not read it there.
    pub token_is_ready: bool,
}

/// What is in the place of the previous identity.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Previous {
    /// Nothing, or nothing that firstboot has put there.
    #[default]
    Absent,
    /// The identity that was in service before.
    Kept,
    /// The same; since when it is there is not known.
    Undated,
    /// It has been kept for long enough, or is of no use.
    Spent,
    /// One that came after the one in service, which has been taken back.
    Newer,
}

impl Previous {
    /// Whether it can be put into service again.
    pub(super) fn is_usable(self) -> bool {
        matches!(self, Self::Kept | Self::Undated)
    }
}

/// Looks.
pub(in crate::provision) fn look(settings: &Settings, places: &Places, present: &Chain) -> Next {
    examine(settings, places, present).unwrap_or_else(|e| Next::Unknown(e.to_string()))
}

fn examine(settings: &Settings, places: &Places, present: &Chain) -> Result<Next> {
    let Places {
        identity,
        next,
        boot,
        ..
    } = places;
    let useless = |why: &str| Ok(Next::Useless(why.to_owned()));
    if !next.exists()? {
        return Ok(Next::Absent);
    }
    if !next.has_generation() {
        return Ok(Next::Unknown(format!(
            "{} is not firstboot's: remove it, and the renewal with a new key can begin",
            crate::layout::NEXT
        )));
    }
    if let Some(defect) = next.defect()? {
        return Ok(Next::Useless(defect));
    }
    if next.has_cut_upgrade() || !next.is_related_to(identity)? {
        return useless("it does not fit the identity in service");
    }
    match next.generation()?.cmp(&identity.generation()?) {
        Ordering::Less => return Ok(Next::Former),
        Ordering::Equal => return useless("it does not fit the identity in service"),
        Ordering::Greater => {}
    }
    let [request_pem, record_json] = next.request_files()?;
    let request = Request::parse(&request_pem).and_then(|asked| Ok((asked.public_key()?, asked)));
    let record: Option<Record> = serde_json::from_slice(&record_json).ok();
    let (Ok((key, request)), Some(record)) = (request, record) else {
        return useless("its request is damaged");
    };
    if record.key != settings.key
        || !request::is_current(settings, &request, &request_pem, &record, &key)
    {
        return useless("its request does not ask for what the settings say now");
    }
    let clock = Clock::read();
    let is_good = |chain: &Chain| {
        !matches!(
            chain.check(&key, &settings.thing_name, clock),
            Verdict::Bad(_)
        )
    };
    let certificate = next.certificate()?.filter(is_good);
    let reads_token = greengrass::reads_token_certificate(settings.greengrass.edition);
    let file_name = next_name(&settings.thing_name);
    let accepted = certificate.as_ref();
    let card = offer::offline(settings, places, next, &file_name, &key, &record, accepted)?;
    let offer = offer::successor(settings, places, next, &key, accepted, present, card);
    Ok(Next::Candidate(Box::new(Candidate {
        request_is_published: boot.request_is_published(&file_name, [&request_pem, &record_json]),
        offer,
        trial: certificate.as_ref().and_then(|chain| next.trial(chain)),
        token_is_ready: certificate.is_some() && (!reads_token || next.verified().is_some()),
        certificate,
        record,
    })))
}

/// Looks at the previous identity. What cannot be read is left alone.
pub(in crate::provision) fn previous(
    settings: &Settings,
    places: &Places,
    accepted: &Chain,
) -> Previous {
    let Places {
        identity,
        next,
        previous,
        ..
    } = places;
    if !previous.has_generation() {
        return Previous::Absent;
    }
    let is_defective = matches!(previous.defect(), Ok(Some(_)));
    if is_defective || matches!(previous.is_related_to(identity), Ok(false)) {
        return Previous::Spent;
    }
    let (Ok(before), Ok(now)) = (previous.generation(), identity.generation()) else {
        return Previous::Absent;
    };
    if before >= now {
        return match next.exists() {
            Ok(false) => Previous::Newer,
            _ => Previous::Spent,
        };
    }
    let clock = settings.enrollment.clock();
    match identity.taken_up() {
        _ if !clock.synchronised => Previous::Kept,
        None => Previous::Undated,
        Some(taken_up)
            if clock.now > taken_up.saturating_add(KEPT) && !identity.is_on_probation(accepted) =>
        {
            Previous::Spent
        }
        Some(_) => Previous::Kept,
    }
}

/// Removes it, and its request.
pub(super) fn remove(places: &Places) -> Result<()> {
    request::withdraw_next(places);
    places.next.discard()
}

/// Has the TPM open the reply for it.
pub(super) fn open_reply(
    context: &mut Context,
    wrapped: &WrappedReply,
    candidate: &Candidate,
) -> Result<()> {
    let name = next_name(&candidate.record.thing_name);
    let file = context.places.boot.reply_path(&name);
    let next = context.places.next.clone();
    open_reply::open(
        context,
        &next,
        file,
        wrapped,
        &candidate.record,
        |context, chain| {
            context.places.next.accept(chain)?;
            Ok(Acceptance::Accepted)
        },
    )
}

/// Puts the next identity into service.
pub(super) fn change_identities(context: &Context, certificate: &Chain) -> Result<()> {
    let next = &context.places.next;
    relieve(context, next, certificate, || {
        match next.trial(certificate) {
            Some(Trial::Accepted) => next.end_probation(),
            _ => next.begin_probation(certificate, None),
        }
    })
}

/// Puts an identity with this certificate into the place of the one in service. If that fails, it is not tried again
/// while Greengrass runs.
fn relieve(
    context: &Context,
    comer: &Identity,
    certificate: &Chain,
    prepare: impl FnOnce() -> Result<()>,
) -> Result<()> {
    let attempt = || {
        drop(comer.prove(certificate)?);
        prepare()?;
        // It may have to come back another time.
        if comer.trial(certificate) == Some(Trial::Failed) {
            comer.forget_trial()?;
        }
        let clock = context.settings()?.enrollment.clock();
        let now = clock.synchronised.then_some(clock.now);
        comer.relieve(&context.places.identity, now)
    };
    attempt().inspect_err(|_| {
        // Without a note, a next one is tried at AWS IoT Core again first.
        if comer.note_trial(certificate, Trial::Failed).is_err()
            && let Err(e) = comer.forget_trial()
        {
            warn!("{e}");
        }
    })
}

/// Tidies up after the two have changed places. The directory is moved last: with it, this is done.
pub(super) fn keep_previous(context: &mut Context) -> Result<()> {
    let thing_name = context.settings()?.thing_name.clone();
    let request = context.places.identity.request_files()?;
    request::publish(context, true, &request)?;
    let Places {
        next,
        previous,
        boot,
        ..
    } = &context.places;
    let [request, record] = &request;
    let next_name = next_name(&thing_name);
    let tidied = boot
        .withdraw_request(&next_name, [request, record])
        .and_then(|()| boot.rename_answers(&next_name, &thing_name));
    if let Err(e) = tidied {
        warn!("cannot tidy up the boot partition: {e}");
    }
    next.replace(previous)?;
    info!(
        "the identity that was in service before is kept as {} for {} days",
        crate::layout::PREVIOUS,
        KEPT.as_secs() / (24 * 60 * 60)
    );
    Ok(())
}

/// Puts the previous identity into service again.
pub(super) fn take_back(context: &Context) -> Result<()> {
    let previous = &context.places.previous;
    let certificate = previous
        .certificate()?
        .ok_or_else(|| Error::other("the previous identity has no certificate"))?;
    relieve(context, previous, &certificate, || Ok(()))
}

/// Makes the identity that was taken out of service the next one again: its certificate may be activated yet.
pub(super) fn put_back(context: &mut Context) -> Result<()> {
    let thing_name = &context.settings()?.thing_name;
    let Places {
        next,
        previous,
        boot,
        ..
    } = &context.places;
    let [request, record] = previous.request_files()?;
    let tidied = boot
        .withdraw_request(thing_name, [&request, &record])
        .and_then(|()| boot.rename_answers(thing_name, &next_name(thing_name)));
    if let Err(e) = tidied {
        warn!("cannot tidy up the boot partition: {e}");
    }
    previous.replace(next)
}
