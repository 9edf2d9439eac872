//! EST: what was asked for, what came, and when the server may be asked again. Kept on the disk, as each try is a process
//! of its own.
//!
//! A directory that could not keep the answer costs no certificate: that is looked at before the server is asked for one.
//! What was issued is in it before it is judged: a certificate that is refused today is not asked for again until
//! there is a reason to hope for a better one, and is accepted as soon as what spoke against it is put right.

use std::path::PathBuf;
use std::time::Duration;

use firstboot_formats::files;
use nix::sys::statvfs::{FsFlags, statvfs};
use serde::{Deserialize, Serialize};

use super::{EST, Identity};
use crate::error::{Error, ErrorKind, Result, ResultExt};

/// Maximum size of the file, bytes: two answers of an EST server at their largest.
const MAX_NOTE: usize = 256 * 1024;
/// After the first answer that cannot be used, this long until the next request; each time four times as long …
const FIRST_PAUSE: Duration = Duration::from_secs(15 * 60);
/// … up to a day.
const LAST_PAUSE: Duration = Duration::from_secs(24 * 60 * 60);

/// The last request to an EST server, and what has come of it. Moments are seconds since the epoch.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct EstNote {
    /// What was asked for.
    pub about: String,
    /// How the device was to enroll, and what the operator had put onto the boot partition by then.
    pub circumstances: String,
    /// When `again` was noted.
    pub at: u64,
    /// When the server may be asked again.
    pub again: Option<u64>,
    /// How many answers in a row could not be used.
    pub unusable: u32,
    /// The last answer.
    pub answer: Option<EstAnswer>,
}

/// A server's answer to a request for a certificate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EstAnswer {
    /// The issued certificate, and those of its CA, PEM.
    Certificates(String),
    /// Something else; what is wrong with it.
    Unreadable(String),
}

impl EstNote {
    /// The moment before which the server is not to be asked again, where that is to come. A clock that has gone back
    /// behind the note says nothing about it.
    pub fn again_after(&self, now: Duration) -> Option<Duration> {
        let again = self
            .again
            .filter(|again| (self.at..*again).contains(&now.as_secs()));
        again.map(Duration::from_secs)
    }

    /// Notes when the server may be asked again; now, if nothing is said.
    pub fn ask_again_after(&mut self, now: Duration, wait: Option<Duration>) {
        self.at = now.as_secs();
        self.again = wait.map(|wait| (now + wait).as_secs());
    }

    /// Notes that no whole answer came: a certificate may have been issued. Once is the network; more often, it is asked
    /// for ever more rarely.
    pub fn lost(&mut self, now: Duration) {
        self.unusable = self.unusable.saturating_add(1);
        let pause = pause(self.unusable.saturating_sub(1));
        self.ask_again_after(now, (!pause.is_zero()).then_some(pause));
    }

    /// Notes an answer, and how long to wait if it cannot be used.
    pub fn answered(&mut self, answer: EstAnswer, is_usable: bool, now: Duration) {
        // A certificate that was refused for now is not lost to an error page.
        match (&self.answer, &answer) {
            (Some(EstAnswer::Certificates(_)), EstAnswer::Unreadable(_)) => {}
            _ => self.answer = Some(answer),
        }
        self.unusable = if is_usable {
            0
        } else {
            self.unusable.saturating_add(1)
        };
        self.ask_again_after(now, (!is_usable).then(|| pause(self.unusable)));
    }
}

/// How long to wait after so many answers that could not be used.
fn pause(unusable: u32) -> Duration {
    let Some(earlier) = unusable.checked_sub(1) else {
        return Duration::ZERO;
    };
    let times = 4_u32.saturating_pow(earlier);
    FIRST_PAUSE.saturating_mul(times).min(LAST_PAUSE)
}

impl Identity {
    /// The last request, and what has come of it; one that is damaged is none.
    pub fn est_note(&self) -> Option<EstNote> {
        let text = files::read(&self.est_path(), MAX_NOTE).ok()??;
        serde_json::from_slice(&text).ok()
    }

    /// Keeps it.
    pub fn keep_est_note(&self, note: &EstNote) -> Result<()> {
        let text = serde_json::to_vec(note)
            .context(ErrorKind::Other, || format!("cannot encode {EST}"))?;
        self.write(EST, &text)
    }

    /// Whether the directory can keep the largest answer. Writes nothing.
    pub fn has_room_for_est(&self) -> Result<()> {
        let directory = &self.directory;
        let looking = || format!("cannot look at {}", directory.display());
        let disk = statvfs(directory).context(ErrorKind::CannotWrite, looking)?;
        let free = disk.blocks_free() as u64 * disk.fragment_size() as u64;
        let why = if disk.flags().contains(FsFlags::ST_RDONLY) {
            "is read-only"
        } else if free < MAX_NOTE as u64 {
            "is full"
        } else {
            return Ok(());
        };
        Err(Error::new(
            ErrorKind::CannotWrite,
            format!(
                "nothing was requested: the file system of {} {why}, so that the certificate would be lost",
                directory.display()
            ),
        ))
    }

    /// Where it is kept.
    pub fn est_path(&self) -> PathBuf {
        self.directory.join(EST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_is_over_at_its_end_and_where_the_clock_has_gone_back() {
        let note = EstNote {
            at: 1000,
            again: Some(1060),
            ..EstNote::default()
        };
        let at = |now| note.again_after(Duration::from_secs(now));
        assert_eq!(at(1000), Some(Duration::from_secs(1060)));
        assert_eq!(at(1059), Some(Duration::from_secs(1060)));
        assert_eq!((at(1060), at(999)), (None, None));
    }

    #[test]
    fn answers_that_cannot_be_used_are_asked_for_ever_more_rarely() {
        let mut note = EstNote::default();
        let mut answer = |is_usable| {
            let now = Duration::from_secs(1000);
            note.answered(EstAnswer::Unreadable("html".into()), is_usable, now);
            note.again_after(now)
                .map(|again| (again - now).as_secs() / 60)
        };
        let pauses: Vec<_> = (0..40).filter_map(|_| answer(false)).collect();
        assert_eq!(pauses[..5], [15, 60, 240, 960, 1440]);
        assert_eq!((pauses.len(), pauses[39]), (40, 1440));
        assert_eq!((answer(true), answer(false)), (None, Some(15)));
    }

    #[test]
    fn a_lost_answer_is_asked_for_once_more_and_then_more_rarely() {
        let mut note = EstNote::default();
        let mut lost = || {
            let now = Duration::from_secs(1000);
            note.lost(now);
            note.again_after(now)
                .map(|again| (again - now).as_secs() / 60)
        };
        let pauses = [lost(), lost(), lost()];
        assert_eq!(pauses, [None, Some(15), Some(60)]);
    }

    #[test]
    fn a_refused_certificate_outlives_an_error_page() {
        let kept = EstAnswer::Certificates("pem".into());
        let mut note = EstNote::default();
        note.answered(kept.clone(), false, Duration::ZERO);
        note.answered(EstAnswer::Unreadable("html".into()), false, Duration::ZERO);
        assert_eq!((note.answer, note.unusable), (Some(kept), 2));
    }
}
