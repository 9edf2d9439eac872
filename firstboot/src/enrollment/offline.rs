//! Enrollment without a network: the operator takes the request from the boot partition and saves the certificate
//! there, or a reply that only this TPM can open.

use firstboot_formats::attestation::{Evidence, MAX_REPLY, PublicArea, Reply};
use firstboot_formats::card::MAX_CERTIFICATE;
use firstboot_formats::clock::Clock;
use firstboot_formats::digest::{Fingerprint, sha256};
use firstboot_formats::encoding::to_hex;
use firstboot_formats::files;
use firstboot_formats::printable::printable;
use firstboot_formats::public_key::PublicKey;
use firstboot_formats::text;
use firstboot_formats::thing_name::{eap_name, next_name};
use firstboot_formats::x509::{Chain, Verdict, certificates, what_is};

use super::{Offer, Refusal, WrappedReply};
use crate::boot_partition::BootPartition;
use crate::identity::Superseded;

/// Maximum number of files that a message names where the certificate is expected.
const NAMES_SHOWN: usize = 3;

/// The device that the certificate has to be for.
pub struct Wanted<'a> {
    /// The thing's name.
    pub thing_name: &'a str,
    /// The name under which its files lie: the thing's, or [`next_name`] or [`eap_name`] of that.
    pub file_name: &'a str,
    /// Its key.
    pub key: &'a PublicKey,
    /// What its request says about its TPM.
    pub evidence: Option<&'a Evidence>,
    /// The issuers whose replies it accepts.
    pub issuers: &'a [Fingerprint],
    /// The certificate that has been accepted.
    pub accepted: Option<&'a Chain>,
    /// SHA-256 of the reply that it came in.
    pub opened: Option<&'a str>,
    /// A reply that was opened, and whose certificate may not replace the accepted one.
    pub superseded: Option<&'a Superseded>,
}

/// Looks at this thing's certificate on the boot partition; if there is none, at the reply. Sends no TPM command.
pub fn offer(boot: &BootPartition, wanted: &Wanted<'_>, clock: Clock) -> Offer {
    let path = boot.certificate_path(wanted.file_name);
    let refused = |reason: String| {
        let path = path.clone();
        Offer::Refused(Refusal { path, reason })
    };
    let content = match text::read(&path, MAX_CERTIFICATE) {
        Ok(Some(content)) => content,
        Ok(None) => return reply(boot, wanted),
        Err(e) => return refused(e.to_string()),
    };
    let (key, thing_name) = (wanted.key, wanted.thing_name);
    // This is each boot with nothing to do: no signature is verified again.
    if let Some(accepted) = wanted.accepted.filter(|a| a.is_all_of(&content)) {
        return match accepted.check(key, thing_name, clock) {
            Verdict::Bad(why) => refused(why),
            Verdict::Good | Verdict::GoodBut(_) => nothing_new(),
        };
    }
    let chain = match Chain::parse(&content, key, wanted.issuers) {
        Ok(chain) => chain,
        Err(why) => return refused(why),
    };
    let remark = match chain.check_successor(wanted.accepted, key, thing_name, clock) {
        Verdict::Good => None,
        Verdict::GoodBut(remark) => Some(remark),
        Verdict::Bad(why) => return refused(why),
    };
    if wanted.accepted == Some(&chain) {
        return nothing_new();
    }
    let remarks: Vec<String> = remark.into_iter().chain(chain.remark()).collect();
    let remark = (!remarks.is_empty()).then(|| remarks.join("; "));
    Offer::Certificate(Box::new(chain), remark)
}

fn nothing_new() -> Offer {
    Offer::Pending("a newer certificate".into())
}

fn reply(boot: &BootPartition, wanted: &Wanted<'_>) -> Offer {
    let path = boot.reply_path(wanted.file_name);
    let refused = |reason: &str| {
        let (path, reason) = (path.clone(), reason.to_owned());
        Offer::Refused(Refusal { path, reason })
    };
    let text = match text::read(&path, MAX_REPLY) {
        Ok(Some(text)) => text,
        Ok(None) if wanted.accepted.is_some_and(|a| a.is_of(wanted.thing_name)) => {
            return nothing_new();
        }
        Ok(None) => {
            let [request, _] = boot.request_paths(wanted.file_name);
            return Offer::Pending(format!(
                "have {} signed and save the certificate as {}{}",
                request.display(),
                boot.certificate_path(wanted.file_name).display(),
                match wanted.accepted {
                    None => instead(boot, wanted),
                    // The files there are for the name that it had.
                    Some(_) => String::new(),
                },
            ));
        }
        Err(e) => return refused(&e.to_string()),
    };
    let sha256 = to_hex(&sha256(&text));
    if wanted.opened == Some(&sha256) {
        return nothing_new();
    }
    match wanted.superseded {
        Some(superseded) if superseded.reply_sha256 == sha256 => {
            return refused(&superseded.reason);
        }
        _ => {}
    }
    match checked(&text, wanted) {
        Ok(reply) => Offer::Reply(Box::new(WrappedReply { reply, sha256 })),
        Err(why) => refused(&why),
    }
}

/// The files where the certificate is expected, to help whoever saved them: the first names, this thing's before
/// others', and what each file is. Without those that are expected there for another of the thing's keys.
fn instead(boot: &BootPartition, wanted: &Wanted<'_>) -> String {
    let path = boot.certificate_path(wanted.file_name);
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let mut names = boot.certificate_names();
    names.sort_by_key(|name| !name.starts_with(&*stem));
    let thing = wanted.thing_name;
    let answers = [thing.to_owned(), next_name(thing), eap_name(thing)];
    let of_others = answers.iter().filter(|name| *name != wanted.file_name);
    let of_others = of_others.flat_map(|name| [boot.certificate_path(name), boot.reply_path(name)]);
    let of_others: Vec<_> = of_others.collect();
    const MINE: &str = "this device's certificate: rename it";
    let what = |name: &String| match files::read(&path.with_file_name(name), MAX_CERTIFICATE) {
        Ok(Some(content)) => match certificates(&content) {
            Ok(found) if found.iter().any(|c| c.key() == wanted.key.spki()) => MINE,
            _ => what_is(&content),
        },
        _ => "not a readable file",
    };
    names.retain(|name| !of_others.contains(&path.with_file_name(name)) || what(name) == MINE);
    let mut shown: Vec<String> = names
        .iter()
        .take(NAMES_SHOWN)
        .map(|name| format!("{name} ({})", what(name)))
        .collect();
    match names.len().saturating_sub(NAMES_SHOWN) {
        0 => {}
        more => shown.push(format!("and {more} more")),
    }
    if shown.is_empty() {
        String::new()
    } else {
        printable(format!("; found there instead: {}", shown.join(", ")))
    }
}

/// The reply, if it may go to the TPM.
fn checked(text: &[u8], wanted: &Wanted<'_>) -> Result<Reply, String> {
    if wanted.issuers.is_empty() {
        return Err(
            "replies are not accepted: the setting enrollment.issuers names no CA that may sign them".into(),
        );
    }
    let reply = Reply::parse(text)?;
    let evidence = wanted
        .evidence
        .ok_or("this device's request has no evidence about its TPM")?;
    let ek_sha256 = evidence.ek_sha256().ok_or_else(|| {
        let why = evidence
            .unattested
            .as_deref()
            .unwrap_or("no reason is given");
        format!("this device cannot open replies: {why}")
    })?;
    let key_name = PublicArea::parse(&evidence.key_public)?.name();
    reply.check(wanted.issuers, wanted.thing_name, &key_name, &ek_sha256)?;
    Ok(reply)
}
