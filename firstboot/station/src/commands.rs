//! Carries out each command.

use std::path::{Path, PathBuf};

use firstboot_formats::digest::sha256;
use firstboot_formats::encoding::to_hex;
use firstboot_formats::output;

use crate::allow_list::AllowList;
use crate::authority::Authority;
use crate::batch::{Batch, Source};
use crate::check::Policy;
use crate::error::{Error, Exit, Result};
use crate::inspect;
use crate::inventory::Inventory;
use crate::manufacturers::Manufacturers;
use crate::options::{Answering, Tpms};
use crate::replies::Replies;
use crate::request::records;
use crate::signer::KeySource;
use crate::wrapping::Certificates;

/// Issues certificates with the operator's CA.
pub(crate) fn issue(answering: &Answering, days: u32) -> Result<()> {
    let authority = authority(answering)?;
    authority.check_days(days)?;
    answer(answering, authority, Source::Issue(days))
}

/// Wraps certificates of other CAs.
pub(crate) fn wrap(answering: &Answering, certificate: &Path) -> Result<()> {
    let certificates = Certificates::open(certificate)?;
    if !certificates.are_many() && records(&answering.requests)?.len() != 1 {
        return Err(Error::settings(
            "--certificate: a single certificate is for a single request; for more, name a directory of <thing>.pem \
             files",
        ));
    }
    answer(answering, authority(answering)?, Source::Wrap(certificates))
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

fn answer(answering: &Answering, authority: Authority, source: Source) -> Result<()> {
    if answering.tpms.vendor_ca.is_empty() {
        return Err(Error::settings(
            "--vendor-ca is missing: it says whose TPMs to accept",
        ));
    }
    let records = records(&answering.requests)?;
    let mut batch = Batch {
        policy: policy(&answering.tpms)?,
        authority,
        source,
        replies: Replies::open(&answering.out)?,
        inventory: answering
            .inventory
            .as_deref()
            .map(Inventory::open)
            .transpose()?,
        force: answering.force,
    };
    let issuer = sha256(batch.authority.certificate());
    let outcome = batch.run(&records);
    for (path, reason) in &outcome.refused {
        output::say(&format!("refused: {}: {reason}", path.display()));
    }
    let refused = outcome.refused.len();
    let mut summary = format!(
        "{}: {} written to {}, {} already answered, {refused} refused",
        count(records.len(), "request", "requests"),
        count(outcome.written, "reply", "replies"),
        answering.out.display(),
        outcome.answered_before,
    );
    let left = records.len() - outcome.written - outcome.answered_before - refused;
    if left > 0 {
        summary += &format!(", {left} not tried: run the command again for those");
    }
    let issuer = to_hex(&issuer);
    output::print_lines([
        summary,
        format!("signed by {issuer}, which devices need in enrollment.issuers"),
    ])?;
    match outcome.failed {
        Some(error) => Err(error),
        None => refusal(refused, records.len()),
    }
}

/// A number with the noun in the form that goes with it.
fn count(number: usize, one: &str, many: &str) -> String {
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

fn authority(answering: &Answering) -> Result<Authority> {
    let key = KeySource {
        key: &answering.key,
        pin_file: answering.pin_file.as_deref(),
        module: answering.pkcs11_module.as_deref(),
    };
    Authority::open(&answering.ca, &key)
}
