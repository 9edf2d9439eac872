//! How the power goes, point by point.

use std::collections::HashSet;
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;

use anyhow::{Context, Result};
use tempfile::TempDir;

use super::board::Board;
use super::scenario::{Outcome, Scenario, Template};
use crate::clients::KeyType;
use crate::device::Device;
use crate::proxy::{Firmware, Seeded, When};
use crate::software_tpm::copy_state;
use crate::storage::{Loss, Recording};

/// The kinds of cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Before or after each TPM command.
    Command,
    /// Before or after each storage call; the TPM loses its power with the program.
    Call,
    /// At a random point of the recovery from a random cut.
    Twice,
    /// Between two storage calls, with what was not synced lost or reordered.
    Lost,
}

impl Kind {
    pub const ALL: [Self; 4] = [Self::Command, Self::Call, Self::Twice, Self::Lost];
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Command => "TPM command, before/after",
            Self::Call => "storage call, before/after",
            Self::Twice => "two random points",
            Self::Lost => "lost unsynced writes",
        })
    }
}

/// Ways in which unsynced writes are lost at each point: all, data only, names only, and two draws each
/// of an ordered and an unordered selection.
const LOSSES: u64 = 7;

/// One point. It can be tried again and will come out the same, but for the TPM's randomness.
#[derive(Clone, Copy, Debug)]
pub struct Point {
    kind: Kind,
    n: usize,
    when: When,
    seed: u64,
}

impl fmt::Display for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:?} {} {:?} (seed {})",
            self.kind, self.n, self.when, self.seed
        )
    }
}

impl Point {
    /// Of lost writes: after how many storage calls.
    pub fn after(self) -> usize {
        self.loss().0
    }

    /// Of lost writes: after how many storage calls, and what is lost.
    fn loss(self) -> (usize, Loss) {
        let at = self.n / LOSSES as usize;
        let loss = match self.n as u64 % LOSSES {
            0 => Loss::Everything,
            1 => Loss::Data,
            2 => Loss::Names,
            3 | 4 => Loss::Ordered(self.seed),
            _ => Loss::Unordered(self.seed),
        };
        (at, loss)
    }
}

/// A scenario ready to be cut: the template, and how many points an undisturbed run has.
pub struct Stage {
    scenario: Scenario,
    key: KeyType,
    template: Template,
    commands: usize,
    recording: Recording,
    /// The TPM's state at each point of the recording, in folders "0", "1", ….
    states: TempDir,
    /// The key that the identity has before the cut.
    key_before: Option<String>,
}

impl Stage {
    /// Prepares the scenario, and records an undisturbed run.
    pub fn set(scenario: Scenario, key: KeyType) -> Result<Self> {
        let template = scenario.template(key)?;
        let copy = || Device::copy_of(template.tree.path(), template.tpm.path());

        let mut board = Board::new(copy()?, Firmware::V7_63)?;
        let key_before = board.key();
        let (code, said, commands) = board.run(scenario.command)?;
        anyhow::ensure!(code == 0, "{} undisturbed: {code}: {said}", scenario.name);

        let device = copy()?;
        let states = TempDir::new()?;
        let program = device.firstboot(&[scenario.command])?;
        let recording = Recording::make(program, device.root(), |point| {
            let state = states.path().join(point.to_string());
            std::fs::create_dir(&state)?;
            copy_state(device.tpm.state(), &state)
        })
        .context(scenario.name)?;
        Ok(Self {
            scenario,
            key,
            template,
            commands,
            recording,
            states,
            key_before,
        })
    }

    pub fn name(&self) -> String {
        self.scenario.name_with(self.key)
    }

    /// The recording, whose syncs a test may take out.
    pub fn recording(&mut self) -> &mut Recording {
        &mut self.recording
    }

    /// Every point of a kind. Of pairs there are too many: as many are drawn as there are single ones.
    /// Of lost writes, those are left out that leave disk and TPM as another point does.
    pub fn points(&self, kind: Kind) -> Vec<Point> {
        let mut points = self.all_points(kind);
        if kind == Kind::Lost {
            let mut seen = HashSet::new();
            points.retain(|point| seen.insert(self.fingerprint(*point)));
        }
        points
    }

    fn fingerprint(&self, point: Point) -> (u64, u64) {
        let (at, loss) = point.loss();
        let mut tpm = DefaultHasher::new();
        let state = self.states.path().join(at.to_string());
        for entry in std::fs::read_dir(state).into_iter().flatten().flatten() {
            entry.file_name().hash(&mut tpm);
            std::fs::read(entry.path())
                .unwrap_or_default()
                .hash(&mut tpm);
        }
        (self.recording.fingerprint(at, loss), tpm.finish())
    }

    fn all_points(&self, kind: Kind) -> Vec<Point> {
        let both = |n| [When::Before, When::After].map(|when| (n, when));
        let calls = self.recording.calls().len();
        let points: Vec<(usize, When)> = match kind {
            Kind::Command => (1..=self.commands).flat_map(both).collect(),
            Kind::Call => (1..=calls).flat_map(both).collect(),
            Kind::Twice => (1..=self.commands + calls)
                .map(|n| (n, When::Before))
                .collect(),
            Kind::Lost => (0..self.recording.points() * LOSSES as usize)
                .map(|n| (n, When::Before))
                .collect(),
        };
        points
            .into_iter()
            .enumerate()
            .map(|(i, (n, when))| Point {
                kind,
                n,
                when,
                seed: i as u64,
            })
            .collect()
    }

    /// Cuts the power there, and lets the device start once more. What is wrong then.
    pub fn attempt(&self, point: Point) -> Result<Vec<String>> {
        let trying = || format!("{}: {point}", self.name());
        let outcome = self.scenario.outcome;
        let (mut board, published) = match point.kind {
            Kind::Lost => self.crash(point).with_context(trying)?,
            _ => (self.interrupt(point).with_context(trying)?, None),
        };
        let mut wrong = board.start(outcome, self.key).with_context(trying)?;
        if wrong.is_empty() {
            self.compare(&board, published, &mut wrong)?;
        }
        Ok(wrong)
    }

    /// Cuts a running firstboot.
    fn interrupt(&self, point: Point) -> Result<Board> {
        let command = self.scenario.command;
        let mut board = self.board(point.seed)?;
        let mut draw = Seeded::new(point.seed);
        match point.kind {
            Kind::Command => board.cut_at_command(command, point.n, point.when)?,
            Kind::Call => board.cut_at_call(command, point.n, point.when)?,
            Kind::Twice | Kind::Lost => {
                if self.cut_somewhere(&mut board, command, &mut draw)? {
                    board.power_on()?;
                }
                // The recovery is what a start does first.
                self.cut_somewhere(&mut board, "provision", &mut draw)?
            }
        };
        // A run that ended before its point has lost nothing: power goes and comes all the same.
        board.device.tpm.pull_the_plug();
        board.power_on()?;
        Ok(board)
    }

    fn cut_somewhere(&self, board: &mut Board, command: &str, draw: &mut Seeded) -> Result<bool> {
        let mut below = |n: usize| 1 + draw.below(n.max(1));
        let when = [When::Before, When::After][below(2) - 1];
        if self.commands > 0 && below(2) == 1 {
            board.cut_at_command(command, below(self.commands), when)
        } else {
            board.cut_at_call(command, below(self.recording.calls().len()), when)
        }
    }

    /// A device as a power cut at this point of the recording may leave it, and the request that was on
    /// its boot partition then.
    fn crash(&self, point: Point) -> Result<(Board, Option<Vec<u8>>)> {
        let (at, loss) = point.loss();
        let tree = self.recording.crash(at, loss)?;
        let published = request(tree.path());
        let state = self.states.path().join(at.to_string());
        let device = Device::copy_of(tree.path(), &state)?;
        Ok((Board::new(device, firmware(point.seed))?, published))
    }

    fn board(&self, seed: u64) -> Result<Board> {
        let device = Device::copy_of(self.template.tree.path(), self.template.tpm.path())?;
        Board::new(device, firmware(seed))
    }

    /// What the operator has been shown must stay true.
    fn compare(
        &self,
        board: &Board,
        published: Option<Vec<u8>>,
        wrong: &mut Vec<String>,
    ) -> Result<()> {
        let aside = board.orphans()?;
        let reset_before = self.scenario.name == "provision after reset";
        let may_be_aside = usize::from(reset_before || self.scenario.command == "reset");
        if aside > may_be_aside {
            wrong.push(format!("{aside} identities were set aside"));
        }
        if self.scenario.outcome == Outcome::Done && board.key() != self.key_before {
            wrong.push("the key is another one".to_owned());
        }
        if self.scenario.name == "provision"
            && let Some(published) = published
            && request(board.device.root()).as_ref() != Some(&published)
        {
            wrong.push("the operator was shown the request of a key that is gone".to_owned());
        }
        Ok(())
    }
}

/// Even and odd seeds take the two paths of tpm2-pkcs11.
fn firmware(seed: u64) -> Firmware {
    [Firmware::V7_63, Firmware::V7_85][seed as usize % 2]
}

/// The complete request on the boot partition of a device's tree, if there is one.
pub fn request(root: &Path) -> Option<Vec<u8>> {
    std::fs::read_dir(root.join("boot/firstboot/requests"))
        .ok()?
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().ends_with(".csr.pem"))
        .filter_map(|entry| std::fs::read(entry.path()).ok())
        .find(|pem| pem.ends_with(b"-----END CERTIFICATE REQUEST-----\n"))
}
