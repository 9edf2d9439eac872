//! How the power goes, point by point.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;

use anyhow::{Context, Result};
use tempfile::TempDir;

use super::clouds::Cloud;
use super::point::{Kind, LOSSES, Point};
use super::rig::Board;
use super::scenario::{COMES_BACK, Outcome, Scenario, Template, WRAPPED_REPLY};
use crate::clients::KeyType;
use crate::device::{Device, STORE};
use crate::doubles::software_tpm::copy_state;
use crate::doubles::tpm_proxy::{Firmware, Seeded, When};
use crate::faults::network::{Cut, Direction};
use crate::faults::storage::Recording;

/// What a cut came to.
#[derive(Debug)]
pub struct Aftermath {
    pub wrong: Vec<String>,
    /// Certificates that AWS IoT Core has issued, where there is a network.
    pub certificates: usize,
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
    /// The key that the identity has before the cut, or is to have again.
    key_wanted: Option<String>,
    /// Where it enrolls over the network.
    cloud: Option<Cloud>,
}

impl Stage {
    /// Prepares the scenario, and records an undisturbed run.
    pub fn set(scenario: Scenario, key: KeyType) -> Result<Self> {
        let template = scenario.template(key)?;
        let copy = || Device::copy_of(template.tree.path(), template.tpm.path());

        let mut cloud = scenario.fleet.then(|| Cloud::new(key)).transpose()?;

        let mut board = Board::new(copy()?, Firmware::V7_63)?;
        board.site = cloud.as_ref().map(|c| c.begin(&board.device)).transpose()?;
        let key_wanted = match scenario.name {
            COMES_BACK => board.key_aside(),
            _ => board.key(),
        };
        let (code, said, commands) = board.run(scenario.command)?;
        anyhow::ensure!(code == 0, "{} undisturbed: {code}: {said}", scenario.name);
        if let (Some(cloud), Some(site)) = (&mut cloud, &board.site) {
            site.relay.settle()?;
            cloud.packets = Direction::BOTH.map(|direction| site.relay.count(direction));
        }

        let device = copy()?;
        let site = cloud.as_ref().map(|c| c.begin(&device)).transpose()?;
        let states = TempDir::new()?;
        let program = device.firstboot(&[scenario.command])?;
        let recording = Recording::make(program, device.root(), |point| {
            let state = states.path().join(point.to_string());
            std::fs::create_dir(&state)?;
            if let (Some(cloud), Some(site)) = (&mut cloud, &site) {
                cloud.memories.push(site.core.memory());
            }
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
            key_wanted,
            cloud,
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
            Kind::Packet => (1..=self.packets().iter().sum()).flat_map(both).collect(),
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

    /// Packets of an undisturbed run, to and from AWS IoT Core.
    fn packets(&self) -> [usize; 2] {
        self.cloud.as_ref().map_or([0; 2], |cloud| cloud.packets)
    }

    /// Cuts the power there, and lets the device start once more. What is wrong then.
    pub fn attempt(&self, point: Point) -> Result<Vec<String>> {
        Ok(self.aftermath(point)?.wrong)
    }

    /// The same, and what else there is to tell.
    pub fn aftermath(&self, point: Point) -> Result<Aftermath> {
        let trying = || format!("{}: {point}", self.name());
        let outcome = self.scenario.outcome;
        let (mut board, published) = match point.kind {
            Kind::Lost => self.crash(point).with_context(trying)?,
            _ => (self.interrupt(point).with_context(trying)?, None),
        };
        let expected = board.certificates_expected().with_context(trying)?;
        let mut wrong = board.start(outcome, self.key).with_context(trying)?;
        if wrong.is_empty() {
            self.compare(&board, published, &mut wrong)?;
            board.compare_certificates(expected, &mut wrong)?;
        }
        Ok(Aftermath {
            wrong,
            certificates: board.certificates(),
        })
    }

    /// Cuts a running firstboot.
    fn interrupt(&self, point: Point) -> Result<Board> {
        let command = self.scenario.command;
        let mut board = self.board(point.seed)?;
        let mut draw = Seeded::new(point.seed);
        match point.kind {
            Kind::Command => board.cut_at_command(command, point.n, point.when)?,
            Kind::Call => board.cut_at_call(command, point.n, point.when)?,
            Kind::Packet => board.cut_at_packet(command, self.packet(point))?,
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

    /// Packets to AWS IoT Core are counted first, then those from there.
    pub fn packet(&self, Point { n, when, .. }: Point) -> Cut {
        let [to_cloud, _] = self.packets();
        let (direction, n) = match n.checked_sub(to_cloud) {
            Some(beyond) if beyond > 0 => (Direction::ToDevice, beyond),
            _ => (Direction::ToCloud, n),
        };
        Cut { direction, n, when }
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
        let site = self.cloud.as_ref().map(|c| c.resume(at, &device));
        let site = site.transpose()?;
        let mut board = Board::new(device, firmware(point.seed))?;
        board.site = site;
        Ok((board, published))
    }

    fn board(&self, seed: u64) -> Result<Board> {
        let device = Device::copy_of(self.template.tree.path(), self.template.tpm.path())?;
        let site = self.cloud.as_ref().map(|c| c.begin(&device)).transpose()?;
        let mut board = Board::new(device, firmware(seed))?;
        board.site = site;
        Ok(board)
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
        let comes_back = self.scenario.name == COMES_BACK;
        let may_be_aside =
            usize::from(reset_before || comes_back || self.scenario.command == "reset");
        if aside > may_be_aside {
            wrong.push(format!("{aside} identities were set aside"));
        }
        if self.scenario.outcome == Outcome::Done && board.key() != self.key_wanted {
            wrong.push("the key is another one".to_owned());
        }
        if self.scenario.name == WRAPPED_REPLY
            && !board.device.exists(format!("{STORE}/opened.json"))
        {
            wrong.push("the reply will be opened at each start".to_owned());
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
