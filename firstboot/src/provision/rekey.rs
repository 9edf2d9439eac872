//! A renewal with another key: the next identity, from its making until it takes the place of the one in service.
//!
//! It is made beside the one in service, which knows nothing of it. When it has its certificate, and its token holds what
//! Greengrass reads there, the two change places in one step, while Greengrass is stopped. The one from before stays for a
//! while, in a third place. None of this may cost a device its service: what fails is remembered, and left at that.

use std::cmp::Ordering;
use std::time::Duration;

use firstboot_formats::record::Record;
use firstboot_formats::thing_name::next_name;
use firstboot_formats::x509::{Chain, Request};
use log::{info, warn};

use super::context::{Context, Places};
use super::inputs::Inputs;
use super::survey::offline_offer;
use super::{Step, make_identity, open_reply, renewal, request};
use crate::enrollment::{Offer, fleet};
use crate::error::{Error, Result};
use crate::greengrass;
use crate::settings::{RenewedKey, Settings};

/// The identity that was in service before is kept for this long: until it is known that the new one serves.
const KEPT: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// What is in the place of the next identity.
#[derive(Clone, Debug, Default)]
pub enum Next {
    /// Nothing.
    #[default]
    Absent,
    /// Something that could not be looked at; why.
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
    /// The certificate that was accepted for it.
    pub certificate: Option<Chain>,
    /// What is offered beside that.
    pub offer: Offer,
    /// AWS IoT Core has not accepted a connection with that.
    pub is_refused: bool,
    /// Its token was seen to hold the certificate, or the edition does not read it there.
    pub token_is_ready: bool,
}

impl Settings {
    /// Whether renewals have a key of their own.
    pub(super) fn wants_new_key(&self) -> bool {
        self.renew.is_some_and(|renew| renew.key == RenewedKey::New)
    }
}

/// Looks.
pub(super) fn look(settings: &Settings, places: &Places) -> Next {
    examine(settings, places).unwrap_or_else(|e| Next::Unknown(e.to_string()))
}

fn examine(settings: &Settings, places: &Places) -> Result<Next> {
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
    if let Some(defect) = next.defect()? {
        return Ok(Next::Useless(defect));
    }
    if next.has_cut_upgrade() || !next.is_related_to(identity)? {
        return useless("it does not fit the identity in service");
    }
    match next.generation().cmp(&identity.generation()) {
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
    let certificate = next.certificate()?.filter(|chain| chain.is_for(&key));
    let reads_token = greengrass::reads_token_certificate(settings.greengrass.edition);
    let file_name = next_name(&settings.thing_name);
    Ok(Next::Candidate(Box::new(Candidate {
        request_is_published: boot.request_is_published(&file_name, [&request_pem, &record_json]),
        offer: offline_offer(
            settings,
            places,
            next,
            &file_name,
            &key,
            &record,
            certificate.as_ref(),
        )?,
        is_refused: certificate
            .as_ref()
            .is_some_and(|chain| next.is_refused(chain)),
        token_is_ready: certificate.is_some() && (!reads_token || next.verified().is_some()),
        certificate,
        record,
    })))
}

/// Whether the identity that was in service before has been kept for long enough, or is of no use.
pub(super) fn previous_is_spent(settings: &Settings, places: &Places) -> bool {
    let Places {
        identity, previous, ..
    } = places;
    if !matches!(previous.exists(), Ok(true)) {
        return false;
    }
    let is_defective = matches!(previous.defect(), Ok(Some(_)));
    if is_defective || matches!(previous.is_related_to(identity), Ok(false)) {
        return true;
    }
    let clock = settings.enrollment.clock();
    let until = identity.taken_up().map(|taken_up| taken_up + KEPT);
    clock.synchronised && until.is_some_and(|until| clock.now > until)
}

/// Takes one of the steps of this file. What fails is said, and remembered: nothing that is in service depends on it.
pub(super) fn take(context: &mut Context, step: &Step, next: &Next) {
    if let Err(e) = attempt(context, step, next) {
        warn!("{e}");
        context.memory.new_key_stays = Some(e.to_string());
    }
}

fn attempt(context: &mut Context, step: &Step, next: &Next) -> Result<()> {
    let places = &context.places;
    match step {
        Step::MakeNext => make_identity::make_next(context),
        Step::AskForNext(accepted) => renewal::ask_for_next(context, accepted),
        Step::RemoveNext(_) => {
            request::withdraw_next(places);
            places.next.discard()
        }
        Step::OpenNextReply(wrapped) => {
            let Next::Candidate(candidate) = next else {
                return Err(Error::other("there is no next identity"));
            };
            let file = places
                .boot
                .reply_path(&next_name(&candidate.record.thing_name));
            let identity = places.next.clone();
            open_reply::open(context, &identity, file, wrapped, &candidate.record)
        }
        Step::AcceptNext(chain, remark) => {
            if let Some(remark) = remark {
                warn!("{remark}");
            }
            places.next.accept(chain)
        }
        Step::FillNextToken(chain) => places.next.fill_token(chain),
        Step::ProveNext { certificate, .. } => prove(context, certificate),
        Step::ChangeIdentities => {
            let clock = context.settings()?.enrollment.clock();
            let now = clock.synchronised.then_some(clock.now);
            places.next.relieve(&places.identity, now)
        }
        Step::KeepPrevious => keep_previous(context),
        Step::RemovePrevious => places.previous.discard(),
        _ => Ok(()),
    }
}

/// Has the new key sign for its certificate, and then AWS IoT Core accept a connection with both. Only a refusal keeps the
/// present identity in service: where there is no answer, there may be no network for months.
fn prove(context: &mut Context, certificate: &Chain) -> Result<()> {
    let next = &context.places.next;
    let key = next.prove(certificate)?;
    let Inputs {
        settings, root_ca, ..
    } = context.inputs()?;
    let host = &settings.greengrass.iot_data_endpoint;
    info!("connecting to {host} with the certificate for the new key");
    match fleet::is_active(settings, root_ca, certificate, key, settings.key) {
        Ok(true) => {}
        Ok(false) => {
            next.note_refused(certificate)?;
            return Err(Error::other(format!(
                "the certificate for the new key is refused: {host} does not accept a connection with it. Is it registered \
                 and active, with a policy that allows \"{}\" to connect? The present key stays in service. The next boot \
                 tries again, and so does `systemctl restart firstboot-enroll`",
                settings.thing_name
            )));
        }
        Err(e) => warn!("the certificate for the new key could not be tried: {e}"),
    }
    context.memory.proved = Some(certificate.fingerprint());
    Ok(())
}

/// Tidies up after the two have changed places. The directory is moved last: with it, this is done.
fn keep_previous(context: &mut Context) -> Result<()> {
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
    let tidied = boot
        .withdraw_request(&next_name(&thing_name), [request, record])
        .and_then(|()| boot.take_up_next(&thing_name));
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
