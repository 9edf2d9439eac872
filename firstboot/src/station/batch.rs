//! Many requests in one run: one that is refused does not stop the others, and is named at the end.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::authority::Authority;
use super::check::{Attested, Policy};
use super::inventory::{Inventory, Line};
use super::progress::Progress;
use super::request::{REPLY, Request};
use super::wrapping::Certificates;
use crate::attestation::{Contents, MAX_REPLY, Reply};
use crate::error::{Error, Result};
use crate::files;
use crate::public_key::{hexadecimal, sha256};

/// Where the certificates come from.
pub(super) enum Source {
    /// The operator's CA issues them, for so many days.
    Issue(u32),
    /// Somebody else did.
    Wrap(Certificates),
}

/// Everything that answering a request needs.
pub(super) struct Bench {
    /// Whose TPMs are taken.
    pub(super) policy: Policy,
    /// The CA, which signs every reply.
    pub(super) authority: Authority,
    /// Where the certificates come from.
    pub(super) source: Source,
    /// Where replies go.
    pub(super) out: PathBuf,
    /// Where it is noted.
    pub(super) inventory: Option<Inventory>,
    /// Answer also what has been answered.
    pub(super) again: bool,
}

/// What came of a run.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    /// Replies that were written.
    pub(super) written: usize,
    /// Requests that had their reply.
    pub(super) answered_before: usize,
    /// Records that were refused, and why.
    pub(super) refused: Vec<(PathBuf, String)>,
}

/// Why there is no reply.
enum Stop {
    /// Because of this request.
    Refused(String),
    /// Because of the station: the next request would fare no better.
    Failed(Error),
}

impl From<String> for Stop {
    fn from(reason: String) -> Self {
        Self::Refused(reason)
    }
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

impl Bench {
    /// Answers these requests, as far as they can be answered.
    pub(super) fn run(&mut self, records: &[PathBuf]) -> Result<Outcome> {
        files::make_directory(&self.out, 0o755)?;
        let progress = Progress::of(records.len());
        let mut outcome = Outcome::default();
        let mut names = BTreeSet::new();
        for (path, count) in records.iter().zip(1..) {
            match self.answer(path, &mut names) {
                Ok(true) => outcome.written += 1,
                Ok(false) => outcome.answered_before += 1,
                Err(Stop::Refused(reason)) => outcome.refused.push((path.clone(), reason)),
                Err(Stop::Failed(error)) => return Err(error),
            }
            progress.done(count);
        }
        Ok(outcome)
    }

    /// Whether a reply was written; otherwise there was one.
    fn answer(
        &mut self,
        path: &Path,
        names: &mut BTreeSet<String>,
    ) -> std::result::Result<bool, Stop> {
        let request = Request::read(path)?;
        let attested = self.policy.check(&request)?;
        let name = request.file_name(REPLY);
        if !names.insert(name.clone()) {
            return Err(Stop::Refused(format!(
                "another request in this run is for \"{}\", too",
                request.record.thing_name
            )));
        }
        let target = self.out.join(name);
        if !self.again && self.is_answered(&target, &request, &attested)? {
            return Ok(false);
        }
        let (chain, serial) = self.certificate(&request, &attested)?;
        let reply = self.seal(&request, &attested, &chain)?;
        // A line too many does less harm than one too few.
        if let Some(inventory) = &mut self.inventory {
            inventory.add(&line(&request, &attested, serial))?;
        }
        files::write(&target, reply.json()?.as_bytes(), None)?;
        Ok(true)
    }

    /// Whether a reply of this CA for this very request is there.
    fn is_answered(&self, target: &Path, request: &Request, attested: &Attested) -> Result<bool> {
        let Ok(Some(text)) = files::read(target, MAX_REPLY) else {
            return Ok(false);
        };
        let issuer = sha256(&self.authority.certificate()?);
        let (name, ek) = (&attested.key_name, &attested.ek_sha256);
        let thing = &request.record.thing_name;
        Ok(Reply::parse(&text).is_ok_and(|reply| reply.check(&[issuer], thing, name, ek).is_ok()))
    }

    fn certificate(
        &self,
        request: &Request,
        attested: &Attested,
    ) -> std::result::Result<(Zeroizing<Vec<u8>>, String), Stop> {
        match &self.source {
            Source::Wrap(certificates) => Ok(certificates.of(request, attested)?),
            Source::Issue(days) => {
                let name = &request.record.thing_name;
                let issued = self.authority.issue(&attested.key, name, *days)?;
                Ok((issued.chain, issued.serial))
            }
        }
    }

    fn seal(
        &self,
        request: &Request,
        attested: &Attested,
        chain: &[u8],
    ) -> std::result::Result<Reply, Stop> {
        let mut failed = None;
        let contents = Contents {
            thing_name: &request.record.thing_name,
            key_name: attested.key_name,
            ek: &attested.ek,
            ek_sha256: attested.ek_sha256,
            chain,
            issuer: &self.authority.certificate()?,
        };
        let sealed = Reply::seal(&contents, |message| {
            self.authority.sign(message).map_err(|error| {
                let reason = error.to_string();
                failed = Some(error);
                reason
            })
        });
        match failed {
            Some(error) => Err(Stop::Failed(error)),
            None => Ok(sealed?),
        }
    }
}

fn line(request: &Request, attested: &Attested, certificate_serial: String) -> Line {
    Line {
        thing_name: request.record.thing_name.clone(),
        serial: request.record.serial.clone(),
        tpm: request.record.tpm.clone(),
        ek_tpm: attested.ek_tpm.clone(),
        ek_sha256: hexadecimal(&attested.ek_sha256),
        key_sha256: attested.key.fingerprint(),
        certificate_serial,
    }
}
