//! Many requests in one run: a refused one does not stop the others, and is listed at the end.

use std::path::{Path, PathBuf};

use crate::error::Error;
use crate::progress::Progress;
use crate::request::Request;
use crate::rivals::{Candidate, objections};
use crate::stop::Stop;

/// A way to answer requests.
pub(crate) trait Answer {
    /// What a check has found out about a request.
    type Checked;

    /// Checks a request by itself. The error says what is wrong with it.
    fn check(&self, request: &Request) -> std::result::Result<Self::Checked, String>;

    /// Answers a request that has passed. False if it has been answered before.
    fn answer(
        &mut self,
        request: &Request,
        checked: &Self::Checked,
    ) -> std::result::Result<bool, Stop>;
}

/// The result of a run.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    /// Answers that were written.
    pub(crate) written: usize,
    /// Requests that already had an answer.
    pub(crate) answered_before: usize,
    /// Records that were refused, and why.
    pub(crate) refused: Vec<(PathBuf, String)>,
    /// What stopped the run, if it was not completed: the remaining requests were not tried.
    pub(crate) failed: Option<Error>,
}

/// Answers these requests, as far as possible.
pub(crate) fn run(way: &mut impl Answer, records: &[PathBuf]) -> Outcome {
    let mut outcome = Outcome::default();
    let mut candidates = Vec::new();
    let progress = Progress::of(records.len(), "checked");
    for (path, count) in records.iter().zip(1..) {
        match examine(way, path) {
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
            None => way.answer(&candidate.request, &candidate.checked),
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

fn examine<A: Answer>(way: &A, path: &Path) -> std::result::Result<Candidate<A::Checked>, String> {
    let request = Request::read(path)?;
    Ok(Candidate {
        path: path.to_owned(),
        checked: way.check(&request)?,
        request,
    })
}
