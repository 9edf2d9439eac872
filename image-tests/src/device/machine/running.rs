//! A machine that is switched on.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::FileExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use super::hardware::Tpm;
use super::journal::{Entry, Journal, Live};
use super::{Machine, built};
use crate::doubles::software_tpm::start_swtpm;
use crate::process::{Background, Finished, bounded, finish};

/// Where to entry the writes to the card and the states of the TPM.
#[derive(Clone, Debug)]
pub struct LogFiles {
    /// The log of QEMU's blklogwrites; the file has to exist.
    pub writes: PathBuf,
    /// The directory in which `guest/nvsnap.c` saves each state of the TPM.
    pub tpm_states: PathBuf,
}

/// QEMU and swtpm. Dropping it pulls the plug.
#[derive(Debug)]
pub struct Running {
    // Dropped in this order.
    qemu: Background,
    swtpm: Option<Background>,
    journal: Live,
    /// The index up to which the journal was waited for.
    seen: usize,
    agent: BufReader<UnixStream>,
    /// QEMU's control channel (QMP).
    control: UnixStream,
    /// The factor by which an idle guest's clock runs faster (`guest/haste.c`).
    haste: File,
    machine: Machine,
}

impl Running {
    /// Switches it on. With a log, every write to the card and every state of the TPM is recorded.
    pub(super) fn start(machine: Machine, log: Option<&LogFiles>) -> Result<Self> {
        let at = |name: &str| machine.file(name);
        let swtpm = match machine.hardware.tpm {
            Tpm::Absent => None,
            Tpm::Present | Tpm::Late | Tpm::Broken => Some(start_tpm(&machine, log)?),
        };
        machine.hardware.device_tree(&at("dtb"))?;
        let mut qemu = machine.hardware.qemu(&at("dtb"))?;
        qemu.arg("-serial")
            .arg(format!("file:{}", at("console").display()));
        qemu.args(["-device", "virtio-serial-pci"]);
        let report = channel(&mut qemu, "report", &at("report.socket"))?;
        let agent = channel(&mut qemu, "agent", &at("agent.socket"))?;
        // Paused until everything is connected.
        let control = UnixListener::bind(at("control.socket"))?;
        qemu.args(["-S", "-qmp"]);
        qemu.arg(format!("unix:{}", at("control.socket").display()));
        if swtpm.is_some() {
            qemu.arg("-chardev");
            qemu.arg(format!("socket,id=tpm,path={}", at("tpm.socket").display()));
            qemu.args(["-tpmdev", "emulator,id=tpm0,chardev=tpm"]);
            qemu.args(["-device", "tpm-tis-device,tpmdev=tpm0"]);
        }
        card(&mut qemu, machine.card.path(), log);
        let haste = File::create(at("haste"))?;
        haste.write_all_at(&1u32.to_ne_bytes(), 0)?;
        qemu.env("LD_PRELOAD", built("haste.so")?);
        qemu.env("HASTE", at("haste"));
        let said = File::create(at("qemu"))?;
        qemu.stdout(said.try_clone()?).stderr(said);
        let qemu = Background::start(&mut qemu)
            .context("is qemu-system-arm installed? Run image-tests/host-packages")?;
        let accept = |listener: &UnixListener| {
            qemu.wait_readable("QEMU to connect", listener)
                .with_context(|| {
                    let said = std::fs::read_to_string(at("qemu")).unwrap_or_default();
                    format!("QEMU: {said}")
                })?;
            anyhow::Ok(listener.accept()?.0)
        };
        let (report, agent, control) = (accept(&report)?, accept(&agent)?, accept(&control)?);
        let say = |commands: &[&str]| {
            say(&control, commands).with_context(|| {
                let said = std::fs::read_to_string(at("qemu")).unwrap_or_default();
                format!("QEMU cannot be started: {said}")
            })
        };
        say(&[&command("qmp_capabilities")])?;
        if machine.hardware.tpm == Tpm::Broken {
            // The TPM has read its state, and the processor is stopped. From now on the TPM cannot write: its directory
            // is gone.
            std::fs::remove_dir_all(machine.tpm_state())?;
        }
        if machine.hardware.broker.is_some() && !machine.hardware.plugged_in {
            say(&[&cable(false)])?;
        }
        say(&[&command("cont")])?;
        let journal = Live::follow(report, File::create(at("journal"))?);
        // A command that hangs has to fail the test.
        agent.set_read_timeout(Some(Duration::from_secs(900)))?;
        Ok(Self {
            qemu,
            swtpm,
            journal,
            seen: 0,
            agent: BufReader::new(agent),
            control,
            haste,
            machine,
        })
    }

    /// From now on the idle guest's clock runs this many times as fast; 1 is normal. Whatever needs time on the host
    /// (the TPM, a broker) takes as many times as long in the guest.
    pub fn haste(&self, times: u32) -> Result<()> {
        self.haste.write_all_at(&times.to_ne_bytes(), 0)?;
        // Wakes QEMU, if it sleeps already.
        say(&self.control, &[&command("query-status")])
    }

    /// Plugs in the cable of the broker's network.
    pub fn plug_in(&self) -> Result<()> {
        say(&self.control, &[&cable(true)])
    }

    /// Waits until a unit's start has ended, successfully or not.
    pub fn until(self, unit: &str) -> Result<Self> {
        Ok(self
            .until_entry(unit, |r| r.unit() == unit && r.started().is_some())?
            .0)
    }

    /// Waits until the journal has these words.
    pub fn until_said(self, words: &str) -> Result<Self> {
        Ok(self
            .until_entry(words, |entry| entry.message().contains(words))?
            .0)
    }

    /// Waits for an entry after those waited for so far.
    pub fn until_entry(
        mut self,
        what: &str,
        wanted: impl Fn(&Entry) -> bool,
    ) -> Result<(Self, Entry)> {
        match self.journal.wait_for(what, self.seen, wanted) {
            Ok((entry, seen)) => {
                self.seen = seen;
                Ok((self, entry))
            }
            Err(e) => bail!("{e:#}; {}", self.machine.keep()),
        }
    }

    /// Waits for an entry anywhere in the journal, because entries of different units have no certain order.
    pub fn wait_for(&self, what: &str, wanted: impl Fn(&Entry) -> bool) -> Result<Entry> {
        match self.journal.wait_for(what, 0, wanted) {
            Ok((entry, _)) => Ok(entry),
            Err(e) => bail!("{e:#}; {}", self.machine.keep()),
        }
    }

    /// The journal so far.
    pub fn journal(&self) -> Journal {
        self.journal.so_far()
    }

    pub fn machine(&self) -> &Machine {
        &self.machine
    }

    /// Runs a bash command in the guest, as root.
    pub fn run(&mut self, command: &str) -> Result<Finished> {
        self.ask(command)
            .map_err(|e| anyhow::anyhow!("{command}: {e:#}; {}", self.machine.keep()))
    }

    fn ask(&mut self, command: &str) -> Result<Finished> {
        let request = base64(&["-w", "0"], command.as_bytes())?;
        self.agent
            .get_ref()
            .write_all((request + "\n").as_bytes())?;
        let mut answer = String::new();
        self.agent.read_line(&mut answer).context("no answer")?;
        let answer = answer.trim_end_matches('\n');
        let (code, said) = answer.split_once(' ').context("no answer")?;
        Ok(Finished {
            code: code.parse()?,
            stdout: base64(&["-d"], said.as_bytes())?,
            stderr: String::new(),
        })
    }

    /// Runs a command that has to succeed: its output.
    pub fn succeed(&mut self, command: &str) -> Result<String> {
        let finished = self.run(command)?;
        if finished.code != 0 {
            let Finished { code, stdout, .. } = finished;
            let kept = self.machine.keep();
            bail!("in the guest, {command} ended with {code}: {stdout}; {kept}");
        }
        Ok(finished.stdout)
    }

    /// Writes a file to the boot partition of the running machine, as an operator does over the network.
    pub fn put(&mut self, path: &str, content: &str) -> Result<()> {
        // By a rename, so that it appears whole.
        let script = format!("cat >{path}.part <<'END'\n{content}END\nmv {path}.part {path}");
        self.succeed(&script).map(drop)
    }

    /// Shuts it down, and waits until it is off.
    pub fn power_off(mut self) -> Result<Machine> {
        let request = base64(&["-w", "0"], b"systemctl poweroff")?;
        self.agent
            .get_ref()
            .write_all((request + "\n").as_bytes())?;
        self.journal
            .wait_for_end()
            .map_err(|e| anyhow::anyhow!("{e:#}; {}", self.machine.keep()))?;
        self.qemu.wait().context("QEMU")?;
        if let Some(swtpm) = &mut self.swtpm {
            swtpm.wait().context("swtpm")?;
        }
        Ok(self.machine)
    }

    /// Cuts the power of machine and TPM at once.
    pub fn pull_the_plug(self) -> Result<Machine> {
        let Self {
            qemu,
            swtpm,
            machine,
            ..
        } = self;
        // Stops the processor first, so that nothing runs without a TPM.
        qemu.freeze()?;
        drop(swtpm);
        drop(qemu);
        Ok(machine)
    }
}

fn start_tpm(machine: &Machine, log: Option<&LogFiles>) -> Result<Background> {
    let mut swtpm = Command::new("swtpm");
    swtpm.args(["socket", "--tpm2", "--terminate", "--tpmstate"]);
    swtpm.arg(format!("dir={}", machine.tpm_state().display()));
    let socket = machine.file("tpm.socket");
    swtpm
        .arg("--ctrl")
        .arg(format!("type=unixio,path={}", socket.display()));
    if let Some(log) = log {
        swtpm.env("LD_PRELOAD", built("nvsnap.so")?);
        swtpm
            .env("NVSNAP_LOG", &log.writes)
            .env("NVSNAP_INTO", &log.tpm_states);
    }
    start_swtpm(swtpm, &machine.file("swtpm"), &machine.file("swtpm.pid"))
}

/// A virtio-serial port, whose other end is `/dev/virtio-ports/NAME` in the guest.
fn channel(qemu: &mut Command, name: &str, socket: &Path) -> Result<UnixListener> {
    let listener = UnixListener::bind(socket)?;
    qemu.arg("-chardev")
        .arg(format!("socket,id={name},path={}", socket.display()));
    qemu.arg("-device")
        .arg(format!("virtserialport,chardev={name},name={name}"));
    Ok(listener)
}

/// Attaches the card: as NVMe, which the kernel has built in, so that it needs no initramfs.
fn card(qemu: &mut Command, image: &Path, log: Option<&LogFiles>) {
    let file = |node: &str, path: &Path| {
        format!("driver=file,node-name={node},filename={}", path.display())
    };
    qemu.arg("-blockdev").arg(file("image", image));
    if let Some(log) = log {
        qemu.arg("-blockdev").arg(file("log", &log.writes));
        qemu.args([
            "-blockdev",
            "driver=blklogwrites,node-name=card,file=image,log=log,log-sector-size=512,log-super-update-interval=1",
        ]);
    } else {
        qemu.args(["-blockdev", "driver=raw,node-name=card,file=image"]);
    }
    qemu.args(["-device", "nvme,drive=card,serial=card"]);
}

/// A QMP command without arguments.
fn command(name: &str) -> String {
    format!("{{\"execute\": \"{name}\"}}")
}

/// The QMP command that plugs in the cable of the broker's network, or unplugs it.
fn cable(up: bool) -> String {
    format!("{{\"execute\": \"set_link\", \"arguments\": {{\"name\": \"broker\", \"up\": {up}}}}}")
}

/// Sends QMP commands, and waits until they are done.
fn say(control: &UnixStream, commands: &[&str]) -> Result<()> {
    control.set_read_timeout(Some(Duration::from_secs(60)))?;
    let mut lines = BufReader::new(control.try_clone()?);
    for command in commands {
        (&*control).write_all(format!("{command}\n").as_bytes())?;
        let mut line = String::new();
        while !line.contains("\"return\"") {
            ensure!(!line.contains("\"error\""), "QEMU: {line}");
            line.clear();
            ensure!(lines.read_line(&mut line)? > 0, "QEMU does not answer");
        }
    }
    Ok(())
}

/// Encodes or decodes base64, with the command of that name.
fn base64(arguments: &[&str], input: &[u8]) -> Result<String> {
    let mut file = tempfile::tempfile()?;
    file.write_all(input)?;
    std::io::Seek::rewind(&mut file)?;
    let mut command = bounded("base64");
    let finished = finish(command.args(arguments).stdin(Stdio::from(file)))?;
    ensure!(finished.code == 0, "base64: {}", finished.stderr);
    Ok(finished.stdout)
}
