//! Carries out each command.

use std::path::{Path, PathBuf};

use firstboot_formats::digest::sha256;
use firstboot_formats::encoding::to_hex;
use firstboot_formats::output;

use crate::allow_list::AllowList;
use crate::authority::Authority;
use crate::batch::{self, Outcome};
use crate::check::Policy;
use crate::error::{Error, Exit, Result};
use crate::inspect;
use crate::inventory::Inventory;
use crate::manufacturers::Manufacturers;
use crate::options::{Answering, Replying, Tpms};
use crate::reissue::{InService, Reissue};
use crate::replies::Replies;
use crate::request::records;
use crate::signer::KeySource;
use crate::wrapped::{Source, Wrapped};
use crate::wrapping::Certificates;

/// Issues certificates with the operator's CA.
pub(crate) fn issue(replying: &Replying, days: u32) -> Result<()> {
    let authority = authority(&replying.answering)?;
    authority.check_days(days)?;
    reply(replying, authority, Source::Issue(days))
}

/// Wraps certificates of other CAs.
pub(crate) fn wrap(replying: &Replying, certificate: &Path) -> Result<()> {
    let certificates = Certificates::open(certificate)?;
    if !certificates.are_many() && records(&replying.answering.requests)?.len() != 1 {
        return Err(Error::settings(
            "--certificate: a single certificate is for a single request; for more, name a directory of <thing>.pem \
             files",
        ));
    }
    let authority = authority(&replying.answering)?;
    reply(replying, authority, Source::Wrap(certificates))
}

/// Issues certificates for next keys.
pub(crate) fn reissue(
    answering: &Answering,
    days: u32,
    in_service: Option<&Path>,
    again: bool,
) -> Result<()> {
    let in_service = in_service.map(InService::open).transpose()?;
    let records = records(&answering.requests)?;
    match &in_service {
        None if answering.inventory.is_none() => {
            return Err(Error::settings(
                "--inventory is missing: it says which certificates are in service. Without one, name them with \
                 --in-service",
            ));
        }
        Some(one) if !one.are_many() && records.len() != 1 => {
            return Err(Error::settings(
                "--in-service: a single certificate is for a single request; for more, name a directory of <thing>.pem \
                 files",
            ));
        }
        _ => {}
    }
    let authority = authority(answering)?;
    authority.check_days(days)?;
    let mut reissue = Reissue {
        authority,
        days,
        replies: Replies::open(&answering.out)?,
        inventory: inventory(answering)?,
        in_service,
        again,
    };
    let outcome = batch::run(&mut reissue, &records);
    let what = ["certificate", "certificates"];
    report(outcome, what, answering, records.len(), None)
}

/// Describes files.
pub(crate) fn inspect(files: &[PathBuf], tpms: &Tpms) -> Result<()> {
    let policy = match tpms.vendor_ca.is_empty() {
        true => None,
        false => Some(policy(tpms)?),
    };
    let mut bad = 0;
    for path in files {
        let (mut lines, verdict) = inspect::describe(path, policy.as_ref());
        bad += usize::from(verdict.is_err());
        let verdict = match verdict {
            Ok(()) if policy.is_some() => "good".into(),
            Ok(()) => "well-formed; use --vendor-ca to check its TPM".into(),
            Err(reason) => format!("refused: {reason}"),
        };
        lines.push(("verdict", verdict));
        let lines = lines
            .into_iter()
            .map(|(name, value)| format!("  {name:<20} {value}"));
        output::print_lines(std::iter::once(path.display().to_string()).chain(lines))?;
    }
    refusal(bad, files.len())
}

fn reply(replying: &Replying, authority: Authority, source: Source) -> Result<()> {
    let Replying {
        answering,
        force,
        tpms,
    } = replying;
    if tpms.vendor_ca.is_empty() {
        return Err(Error::settings(
            "--vendor-ca is missing: it says whose TPMs to accept",
        ));
    }
    let records = records(&answering.requests)?;
    let mut wrapped = Wrapped {
        policy: policy(tpms)?,
        authority,
        source,
        replies: Replies::open(&answering.out)?,
        inventory: inventory(answering)?,
        force: *force,
    };
    let issuer = to_hex(&sha256(wrapped.authority.certificate()));
    let outcome = batch::run(&mut wrapped, &records);
    let signed = format!("signed by {issuer}, which devices need in enrollment.issuers");
    let what = ["reply", "replies"];
    report(outcome, what, answering, records.len(), Some(signed))
}

/// Says what a run has done, of so many requests, and what else there is to say.
fn report(
    outcome: Outcome,
    what: [&str; 2],
    answering: &Answering,
    requests: usize,
    remark: Option<String>,
) -> Result<()> {
    for (path, reason) in &outcome.refused {
        output::say(&format!("refused: {}: {reason}", path.display()));
    }
    let refused = outcome.refused.len();
    let mut summary = format!(
        "{}: {} written to {}, {} already answered, {refused} refused",
        count(requests, ["request", "requests"]),
        count(outcome.written, what),
        answering.out.display(),
        outcome.answered_before,
    );
    let left = requests - outcome.written - outcome.answered_before - refused;
    if left > 0 {
        summary += &format!(", {left} not tried: run the command again for those");
    }
    output::print_lines(std::iter::once(summary).chain(remark))?;
    match outcome.failed {
        Some(error) => Err(error),
        None => refusal(refused, requests),
    }
}

/// A number with the noun, of singular and plural, that goes with it.
fn count(number: usize, [one, many]: [&str; 2]) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}

fn refusal(refused: usize, of: usize) -> Result<()> {
    match refused {
        0 => Ok(()),
        _ => Err(Error::new(
            Exit::Refused,
            format!("{refused} of {of} refused"),
        )),
    }
}

fn policy(tpms: &Tpms) -> Result<Policy> {
    Ok(Policy {
        manufacturers: Manufacturers::read(&tpms.vendor_ca)?,
        allow_list: tpms
            .ek_allow_list
            .as_deref()
            .map(AllowList::read)
            .transpose()?,
    })
}

fn inventory(answering: &Answering) -> Result<Option<Inventory>> {
    answering
        .inventory
        .as_deref()
        .map(Inventory::open)
        .transpose()
}

fn authority(answering: &Answering) -> Result<Authority> {
    let key = KeySource {
        key: &answering.key,
        pin_file: answering.pin_file.as_deref(),
        module: answering.pkcs11_module.as_deref(),
    };
    Authority::open(&answering.ca, &key)
}
