//! Many requests in one run: a refused one does not stop the others, and is listed at the end.

use std::path::{Path, PathBuf};

use firstboot_formats::attestation::{Contents, Reply};
use firstboot_formats::digest::sha256;
use firstboot_formats::encoding::to_hex;
use firstboot_formats::files;
use zeroize::Zeroizing;

use crate::authority::Authority;
use crate::check::{Attested, Policy};
use crate::error::Error;
use crate::inventory::{Inventory, Line};
use crate::progress::Progress;
use crate::replies::Replies;
use crate::request::Request;
use crate::rivals::{Candidate, objections};
use crate::stop::Stop;
use crate::wrapping::Certificates;

/// Where the certificates come from.
pub(crate) enum Source {
    /// The operator's CA issues them, with this validity in days.
    Issue(u32),
    /// Somebody else has issued them.
    Wrap(Certificates),
}

/// Everything that answering a request needs.
pub(crate) struct Batch {
    /// Which TPMs are accepted.
    pub(crate) policy: Policy,
    /// The CA, which signs every reply.
    pub(crate) authority: Authority,
    /// Where the certificates come from.
    pub(crate) source: Source,
    /// Where replies go.
    pub(crate) replies: Replies,
    /// Where certificates are recorded.
    pub(crate) inventory: Option<Inventory>,
    /// Also answer requests that have been answered, and names that belonged to another TPM or key.
    pub(crate) force: bool,
}

/// The result of a run.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    /// Replies that were written.
    pub(crate) written: usize,
    /// Requests that already had a reply.
    pub(crate) answered_before: usize,
    /// Records that were refused, and why.
    pub(crate) refused: Vec<(PathBuf, String)>,
    /// What stopped the run, if it was not completed: the remaining requests were not tried.
    pub(crate) failed: Option<Error>,
}

impl Batch {
    /// Answers these requests, as far as possible.
    pub(crate) fn run(&mut self, records: &[PathBuf]) -> Outcome {
        let mut outcome = Outcome::default();
        let mut candidates = Vec::new();
        let progress = Progress::of(records.len(), "checked");
        for (path, count) in records.iter().zip(1..) {
            match self.examine(path) {
                Ok(candidate) => candidates.push(candidate),
                Err(reason) => outcome.refused.push((path.clone(), reason)),
            }
            progress.done(count);
        }
        drop(progress);
        // Only a request that is good by itself can block another: anybody can write a record.
        let objections = objections(&candidates);
        let progress = Progress::of(candidates.len(), "answered");
        for ((candidate, objection), count) in candidates.iter().zip(objections).zip(1..) {
            let answered = match objection {
                Some(objection) => Err(Stop::Refused(objection)),
                None => self.answer(&candidate.request, &candidate.attested),
            };
            match answered {
                Ok(true) => outcome.written += 1,
                Ok(false) => outcome.answered_before += 1,
                Err(Stop::Refused(reason)) => {
                    outcome.refused.push((candidate.path.clone(), reason));
                }
                Err(Stop::Failed(error)) => {
                    outcome.failed = Some(error);
                    break;
                }
            }
            progress.done(count);
        }
        outcome
    }

    fn examine(&self, path: &Path) -> std::result::Result<Candidate, String> {
        let request = Request::read(path)?;
        let attested = self.policy.check(&request)?;
        Ok(Candidate {
            path: path.to_owned(),
            request,
            attested,
        })
    }

    /// Whether a reply was written; otherwise there was one already.
    fn answer(
        &mut self,
        request: &Request,
        attested: &Attested,
    ) -> std::result::Result<bool, Stop> {
        let target = self.replies.path(request);
        if target.is_dir() {
            return Err(Stop::Refused(format!(
                "its reply cannot be written: {} is a directory",
                target.display()
            )));
        }
        if !self.force && self.is_answered(request, attested)? {
            return Ok(false);
        }
        let (chain, serial) = self.certificate(request, attested)?;
        let reply = self.seal(request, attested, &chain)?;
        // A superfluous line does less harm than a missing one.
        if let Some(inventory) = &mut self.inventory {
            inventory.add(&line(request, attested, serial))?;
        }
        files::write(&target, reply.json()?.as_bytes(), None).map_err(Error::from)?;
        Ok(true)
    }

    /// Whether there is a reply by this CA to this very request. A refusal if its name belongs to somebody else.
    fn is_answered(
        &self,
        request: &Request,
        attested: &Attested,
    ) -> std::result::Result<bool, Stop> {
        if let Some(inventory) = &self.inventory {
            inventory.check(
                &request.record.thing_name,
                &to_hex(&attested.ek_sha256),
                &attested.key.fingerprint(),
            )?;
        }
        let issuer = sha256(self.authority.certificate());
        Ok(self.replies.have(request, attested, issuer)?)
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
            issuer: self.authority.certificate(),
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
        ek_sha256: to_hex(&attested.ek_sha256),
        key_sha256: attested.key.fingerprint(),
        certificate_serial,
    }
}
