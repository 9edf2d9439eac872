//! The power cuts of one scenario, point by point.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;

use anyhow::{Context, Result};
use fastrand::Rng;
use tempfile::TempDir;

use super::point::{Kind, LOSSES, Point};
use super::rig::Rig;
use super::scenario::{
    AFTER_RESET, ANOTHER_NETWORK, COMES_BACK, Destination, KEPT_GIVEN_UP, KEPT_KEY,
    LIST_OF_NETWORKS, NEW_GIVEN_UP, NEW_KEY, NO_NETWORK, OWN_CERTIFICATE, OWN_CERTIFICATE_FIRST,
    OWN_KEY, PREVIOUS_REMOVED, PROVISION, RESET, Renewed, Scenario, TAKEN_UP, TRIED_NEW_KEY,
    UNTRIED, WRAPPED_REPLY,
};
use super::servers::{History, Servers, thing_name};
use crate::clients::KeyType;
use crate::device::{Checkpoint, Device, NETWORK, NEXT, PREVIOUS, STORE};
use crate::doubles::software_tpm::copy_state;
use crate::doubles::tpm_proxy::{Firmware, When};
use crate::faults::network::{Cut, Direction};
use crate::faults::storage::Recording;

/// How a cut turned out.
#[derive(Debug)]
pub struct Aftermath {
    pub wrong: Vec<String>,
    /// Certificates issued over the network since the scenario's start.
    pub certificates: usize,
}

/// A scenario that is ready to be cut: its start, and a recording of an undisturbed run.
pub struct Stage {
    pub(super) scenario: Scenario,
    pub(super) key: KeyType,
    start: Checkpoint,
    commands: usize,
    recording: Recording,
    /// The TPM's state at each point of the recording, in directories "0", "1", ….
    states: TempDir,
    /// The key of the identity in service at the start, and the one that it must have afterwards: another one if that
    /// is not known yet.
    key_before: Option<String>,
    key_wanted: Option<String>,
    /// The networks' own key at the start.
    network_key: Option<String>,
    /// The certificate in service at the start, and the one that has to be in service after a renewal: another one if
    /// that is not known yet.
    certificate_before: Option<String>,
    certificate_wanted: Option<String>,
    /// Whom the device meets over the network.
    history: Option<History>,
}

impl Stage {
    /// Prepares the scenario, and records an undisturbed run.
    pub fn prepare(scenario: Scenario, key: KeyType) -> Result<Self> {
        let (start, mut history) = scenario.start(key)?;

        let mut rig = Rig::new(start.restore()?, Firmware::V7_63)?;
        rig.servers = begin(history.as_ref(), &rig.device)?;
        let key_before = rig.key();
        let key_wanted = match scenario.name {
            COMES_BACK => rig.key_aside(),
            TAKEN_UP | TRIED_NEW_KEY => rig.key_in(NEXT),
            NEW_GIVEN_UP => rig.key_in(PREVIOUS),
            _ if scenario.renewed == Some(Renewed::NewKey) => None,
            _ => rig.key(),
        };
        let network_key = rig.key_in(NETWORK);
        let certificate_before = rig.certificate();
        let former = match scenario.name {
            KEPT_GIVEN_UP => Some(format!("{STORE}/former.pem")),
            NEW_GIVEN_UP => Some(format!("{PREVIOUS}/certificate.pem")),
            _ => None,
        };
        let certificate_wanted = former.map(|path| rig.device.read(path)).transpose()?;
        let (code, said, commands) = rig.run(scenario.command)?;
        let name = scenario.name;
        anyhow::ensure!(
            code == scenario.code(),
            "{name} undisturbed: {code}: {said}"
        );
        if let (Some(history), Some(servers)) = (&mut history, &rig.servers) {
            servers.relay().settle()?;
            history.packets = Direction::BOTH.map(|direction| servers.relay().count(direction));
        }

        let device = start.restore()?;
        let servers = begin(history.as_ref(), &device)?;
        let states = TempDir::new()?;
        let program = device.firstboot(&[scenario.command])?;
        let recording = Recording::make(program, device.root(), scenario.code(), |point| {
            let state = states.path().join(point.to_string());
            std::fs::create_dir(&state)?;
            if let (Some(history), Some(servers)) = (&mut history, &servers) {
                history.memories.push(servers.memory());
            }
            copy_state(device.tpm.state(), &state)
        })
        .context(scenario.name)?;
        Ok(Self {
            scenario,
            key,
            start,
            commands,
            recording,
            states,
            key_before,
            key_wanted,
            network_key,
            certificate_before,
            certificate_wanted,
            history,
        })
    }

    pub fn name(&self) -> String {
        self.scenario.name_with(self.key)
    }

    /// The recording, from which a test may remove syncs.
    pub fn recording(&mut self) -> &mut Recording {
        &mut self.recording
    }

    /// Every point of a kind. There are too many pairs, so only as many are drawn as there are single points. Of lost
    /// writes, points that leave disk and TPM as another one does are left out.
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

    /// The number of packets in an undisturbed run, to and from the servers.
    fn packets(&self) -> [usize; 2] {
        self.history
            .as_ref()
            .map_or([0; 2], |history| history.packets)
    }

    /// Cuts the power there, and lets the device start again. Returns what is wrong then.
    pub fn attempt(&self, point: Point) -> Result<Vec<String>> {
        Ok(self.aftermath(point)?.wrong)
    }

    /// The same, with the number of certificates.
    pub fn aftermath(&self, point: Point) -> Result<Aftermath> {
        let trying = || format!("{}: {point}", self.name());
        let destination = self.scenario.destination;
        let (mut rig, published) = match point.kind {
            Kind::Lost => self.crash(point).with_context(trying)?,
            _ => (self.interrupt(point).with_context(trying)?, None),
        };
        let expected = rig.certificates_expected().with_context(trying)?;
        let mut wrong = rig.start(destination, self.key).with_context(trying)?;
        if wrong.is_empty() {
            self.compare(&rig, published, &mut wrong)?;
            rig.compare_certificates(expected, self.key, &mut wrong)?;
        }
        Ok(Aftermath {
            wrong,
            certificates: rig.certificates(),
        })
    }

    /// Cuts a running firstboot.
    fn interrupt(&self, point: Point) -> Result<Rig> {
        let command = self.scenario.command;
        let mut rig = self.rig(point.seed)?;
        let mut draw = Rng::with_seed(point.seed);
        match point.kind {
            Kind::Command => rig.cut_at_command(command, point.n, point.when)?,
            Kind::Call => rig.cut_at_call(command, point.n, point.when)?,
            Kind::Packet => rig.cut_at_packet(command, self.packet(point))?,
            Kind::Twice | Kind::Lost => {
                if self.cut_somewhere(&mut rig, command, &mut draw)? {
                    rig.power_on()?;
                }
                // A start begins with the recovery.
                self.cut_somewhere(&mut rig, "provision", &mut draw)?
            }
        };
        // If the run ended before its point, nothing was lost: the power is cut now.
        rig.device.tpm.pull_the_plug();
        rig.power_on()?;
        Ok(rig)
    }

    /// Points are numbered through the packets to the servers, then through those from there.
    pub fn packet(&self, Point { n, when, .. }: Point) -> Cut {
        let [to_cloud, _] = self.packets();
        let (direction, n) = match n.checked_sub(to_cloud) {
            Some(beyond) if beyond > 0 => (Direction::ToDevice, beyond),
            _ => (Direction::ToCloud, n),
        };
        Cut { direction, n, when }
    }

    fn cut_somewhere(&self, rig: &mut Rig, command: &str, draw: &mut Rng) -> Result<bool> {
        let when = if draw.bool() {
            When::Before
        } else {
            When::After
        };
        if self.commands > 0 && draw.bool() {
            rig.cut_at_command(command, draw.usize(1..=self.commands), when)
        } else {
            let calls = self.recording.calls().len();
            rig.cut_at_call(command, draw.usize(1..=calls.max(1)), when)
        }
    }

    /// A device as a power cut at this point of the recording may leave it, and the request on its boot partition at
    /// that point.
    fn crash(&self, point: Point) -> Result<(Rig, Option<Vec<u8>>)> {
        let (at, loss) = point.loss();
        let tree = self.recording.crash(at, loss)?;
        let published = published_request(tree.path());
        let state = self.states.path().join(at.to_string());
        let device = Device::copy_of(tree.path(), &state)?;
        let servers = self.history.as_ref().map(|h| h.resume(at, &device));
        let servers = servers.transpose()?;
        let mut rig = Rig::new(device, firmware(point.seed))?;
        rig.servers = servers;
        Ok((rig, published))
    }

    fn rig(&self, seed: u64) -> Result<Rig> {
        let device = self.start.restore()?;
        let servers = begin(self.history.as_ref(), &device)?;
        let mut rig = Rig::new(device, firmware(seed))?;
        rig.servers = servers;
        Ok(rig)
    }

    /// Compares the device with what was there before: what the operator was shown must stay true.
    fn compare(
        &self,
        rig: &Rig,
        published: Option<Vec<u8>>,
        wrong: &mut Vec<String>,
    ) -> Result<()> {
        let aside = rig.orphans()?;
        let reset_before = self.scenario.name == AFTER_RESET;
        let comes_back = self.scenario.name == COMES_BACK;
        let may_be_aside =
            usize::from(reset_before || comes_back || self.scenario.command == "reset");
        if aside > may_be_aside {
            wrong.push(format!("{aside} identities were set aside"));
        }
        let is_wanted = match &self.key_wanted {
            Some(wanted) => rig.key().as_ref() == Some(wanted),
            None => rig.key() != self.key_before,
        };
        if self.scenario.destination != Destination::DoneOrAwaiting && !is_wanted {
            wrong.push("the key is another one, or still the old one".to_owned());
        }
        if self.scenario.name == WRAPPED_REPLY && !rig.device.exists(format!("{STORE}/opened.json"))
        {
            wrong.push("the reply will be opened at each start".to_owned());
        }
        let is_there = |name: &str| rig.device.exists(name);
        if self.scenario.name == NEW_KEY && (rig.key_in(NEXT).is_none() || is_there(PREVIOUS)) {
            wrong.push("no next identity is there, or it is taken for the previous one".to_owned());
        }
        if self.scenario.name == UNTRIED
            && !["probation", "former.pem"]
                .iter()
                .all(|name| is_there(&format!("{STORE}/{name}")))
        {
            wrong.push("there is no way back from the untried certificate".to_owned());
        }
        if self.scenario.name == PREVIOUS_REMOVED && is_there(PREVIOUS) {
            wrong.push("the previous identity is still there".to_owned());
        }
        if let Some(renewed) = self.scenario.renewed {
            self.compare_renewal(rig, renewed, wrong);
        }
        if self.scenario.renewed == Some(Renewed::GivenUp) {
            self.compare_given_up(rig, wrong)?;
        }
        if [KEPT_KEY, NEW_KEY].contains(&self.scenario.name)
            && !(rig.device.exists(format!("{STORE}/asked.json"))
                && published_request(rig.device.root()).is_some())
        {
            wrong.push("no new certificate is asked for".to_owned());
        }
        self.compare_network_key(rig, wrong);
        let (network, gone): (_, &[_]) = match self.scenario.name {
            ANOTHER_NETWORK => (Some("wlan0"), &["eth0"]),
            COMES_BACK => (Some("eth0"), &[]),
            OWN_CERTIFICATE | OWN_CERTIFICATE_FIRST => (Some("eth0"), &[]),
            NO_NETWORK => (None, &OF_NETWORKS),
            // A reset that had not begun leaves the identity with its network.
            RESET if rig.key() != self.key_wanted => (None, &OF_NETWORKS),
            _ => (None, &[]),
        };
        wrong.extend(network.and_then(|interface| missing_network(&rig.device, interface)));
        wrong.extend(left_of_networks(&rig.device, gone)?);
        if self.scenario.name == PROVISION
            && let Some(published) = published
            && published_request(rig.device.root()).as_ref() != Some(&published)
        {
            wrong.push("the operator was shown the request of a key that is gone".to_owned());
        }
        Ok(())
    }

    /// What is wrong once a renewal has come to this end.
    fn compare_renewal(&self, rig: &Rig, renewed: Renewed, wrong: &mut Vec<String>) {
        let certificate = rig.certificate();
        let is_wanted = match &self.certificate_wanted {
            Some(wanted) => certificate.as_ref() == Some(wanted),
            None => certificate != self.certificate_before,
        };
        if !is_wanted {
            wrong.push("the certificate in service is not the wanted one".to_owned());
        }
        let key_is_new = rig.key() != self.key_before;
        let relieved = self.key_before.as_ref().filter(|_| key_is_new);
        // Where a renewal was given up, its key may be put into service yet.
        let (next, previous) = match renewed {
            Renewed::GivenUp => (relieved, None),
            Renewed::KeptKey | Renewed::NewKey => (None, relieved),
        };
        for (place, key) in [(NEXT, next), (PREVIOUS, previous)] {
            if rig.key_in(place).as_ref() != key || rig.device.exists(place) != key.is_some() {
                wrong.push(format!("{place} is not what it should be"));
            }
        }
    }

    /// What is wrong with what the operator sees of a renewal that was given up.
    fn compare_given_up(&self, rig: &Rig, wrong: &mut Vec<String>) -> Result<()> {
        let result = &rig.device.status()?["renewal"]["last_request"]["result"];
        if result != "refused" {
            wrong.push(format!("the refusal is not shown: {result}"));
        }
        let name = match self.scenario.name {
            NEW_GIVEN_UP => thing_name() + ".next",
            _ => thing_name(),
        };
        let on_card = rig.device.names_on_card()?;
        if on_card != [".csr.pem", ".json", ".pem"].map(|end| format!("{name}{end}")) {
            wrong.push(format!("on the card are {on_card:?}"));
        }
        Ok(())
    }

    /// What is wrong with the networks' own key.
    fn compare_network_key(&self, rig: &Rig, wrong: &mut Vec<String>) {
        let (before, now) = (&self.network_key, rig.key_in(NETWORK));
        let certificate = format!("{NETWORK}/certificate.pem");
        let is_good = match self.scenario.name {
            OWN_KEY => now.is_some() && rig.device.network_request().is_ok(),
            OWN_CERTIFICATE | OWN_CERTIFICATE_FIRST => {
                now == *before && rig.device.exists(certificate)
            }
            // The next start has made another one.
            RESET if rig.key() != self.key_wanted => now.is_some() && now != *before,
            _ => true,
        };
        if !is_good {
            wrong.push("the networks' own key, its request or its certificate is wrong".to_owned());
        }
    }
}

/// What the files of a network have in their names, one or the other.
const OF_NETWORKS: [&str; 2] = ["wpa_supplicant-", "firstboot"];

/// That the network behind this interface is not configured.
fn missing_network(device: &Device, interface: &str) -> Option<String> {
    let list = device.read(LIST_OF_NETWORKS).unwrap_or_default();
    let is_there = list.contains(&format!("@{interface}.service "));
    (!is_there).then(|| format!("{interface} has no network"))
}

/// What is left in /etc with one of these in its name.
fn left_of_networks(device: &Device, parts: &[&str]) -> Result<Vec<String>> {
    let snapshot = device.snapshot()?;
    let paths = snapshot
        .entries()
        .keys()
        .map(|path| path.display().to_string());
    let left = paths.filter(|path| {
        let name = path.rsplit('/').next().unwrap_or_default();
        path.starts_with("/etc/") && parts.iter().any(|part| name.contains(part))
    });
    Ok(left.map(|path| format!("{path} is left")).collect())
}

/// Whom a device at the start meets over the network.
fn begin(history: Option<&History>, device: &Device) -> Result<Option<Servers>> {
    history.map(|history| history.begin(device)).transpose()
}

/// Even and odd seeds take different paths through tpm2-pkcs11.
fn firmware(seed: u64) -> Firmware {
    [Firmware::V7_63, Firmware::V7_85][seed as usize % 2]
}

/// The request on the boot partition of a device's tree, if there is a complete one.
pub fn published_request(root: &Path) -> Option<Vec<u8>> {
    std::fs::read_dir(root.join("boot/firstboot/requests"))
        .ok()?
        .flatten()
        .filter(|entry| {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            name.ends_with(".csr.pem") && !name.ends_with(".eap.csr.pem")
        })
        .filter_map(|entry| std::fs::read(entry.path()).ok())
        .find(|pem| pem.ends_with(b"-----END CERTIFICATE REQUEST-----\n"))
}
