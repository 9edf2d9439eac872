//! EST's step: ask for the certificate, and keep what comes. Whether that is accepted, the next survey shows.

use firstboot_formats::clock::Clock;
use firstboot_formats::record::Record;
use firstboot_formats::x509::Request;
use log::info;

use super::context::Context;
use crate::boot_partition::BootPartition;
use crate::enrollment::est::{self, Answer, Credentials, Wanted, Which};
use crate::error::{ErrorKind, Result, ResultExt};
use crate::identity::{EstAnswer, Identity};
use crate::settings::Settings;

/// Asks for the first certificate, with the identity's own request: repeated, it is the same to the last bit.
pub(super) fn request_certificate(context: &mut Context, record: &Record) -> Result<()> {
    let settings = context.settings()?;
    let (identity, boot) = (&context.places.identity, &context.places.boot);
    let [request, _] = identity.request_files()?;
    let key = Request::parse(&request)?.public_key()?;
    let request = String::from_utf8(request).context(ErrorKind::Other, || "the request".into())?;
    let wanted = Wanted {
        key: &key,
        thing_name: &record.thing_name,
        which: Which::First {
            csr_sha256: &record.csr_sha256,
        },
    };
    let credentials = Credentials::of_claim(settings, boot)?;
    ask(settings, boot, identity, &wanted, &request, &credentials)
}

/// Asks, and keeps the answer in this identity.
pub(super) fn ask(
    settings: &Settings,
    boot: &BootPartition,
    identity: &Identity,
    wanted: &Wanted<'_>,
    request: &str,
    credentials: &Credentials,
) -> Result<()> {
    let mut note = wanted.noted(identity);
    // Before any of it is used: a change meanwhile leads to another try.
    note.circumstances = est::circumstances(settings, boot);
    let answer = est::request(settings, boot, credentials, wanted, request, || {
        identity.has_room_for_est()
    })?;
    let now = Clock::read().now;
    match answer {
        Answer::Issued(answer) => {
            let is_usable = match &answer {
                EstAnswer::Certificates(pem) => {
                    let checked = est::check(settings, boot, pem, wanted);
                    if let Ok(chain) = &checked {
                        info!("issued: {}", chain.describe());
                    }
                    checked.is_ok()
                }
                EstAnswer::Unreadable(_) => false,
            };
            note.answered(answer, is_usable, now);
            identity.keep_est_note(&note)
        }
        Answer::Lost(why) => {
            note.lost(now);
            identity.keep_est_note(&note)?;
            Err(why)
        }
        Answer::NotNow(wait, why) => {
            if wait.is_some() {
                note.ask_again_after(now, wait);
                identity.keep_est_note(&note)?;
            }
            Err(why)
        }
    }
}
