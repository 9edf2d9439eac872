//! The device in a sweep, with an SLB 9670 by the proxy's profile: how it loses its power, and its inspection
//! afterwards.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc;

use anyhow::{Context, Result};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::scenario::{Destination, SETTINGS};
use super::servers::Servers;
use crate::clients::{Identity, KeyType, pkcs11_tool};
use crate::device::{Device, NETWORK, STORE};
use crate::doubles::tpm_proxy::{Firmware, Options, Proxy, Slb9670, When};
use crate::faults::network::Cut;
use crate::faults::storage::{Ending, run_with_cut};
use crate::process::finish;

/// The storage root key's handle, the only persistent one allowed.
const SRK: u32 = 0x8100_0001;

pub struct Rig {
    pub device: Device,
    /// Whom it meets over the network.
    pub servers: Option<Servers>,
    proxy: Proxy,
}

impl Rig {
    /// Starts a device that was off. With firmware 7.63 and 7.85, tpm2-pkcs11 takes different paths.
    pub fn new(device: Device, firmware: Firmware) -> Result<Self> {
        let options = Options {
            chip: Some(Slb9670::new(firmware)),
            latency: None,
        };
        let proxy = Proxy::start(device.tpm.upstream(), options)?;
        empty_run(&device)?;
        Ok(Self {
            device,
            servers: None,
            proxy,
        })
    }

    /// firstboot with the TPM through a resource manager: run it while that file is open.
    fn firstboot(&mut self, command: &str, tcti: String) -> Result<Command> {
        self.device.tcti = Some(tcti);
        self.device.firstboot(&[command])
    }

    /// Runs firstboot undisturbed: its exit status, its messages, and the number of its TPM commands.
    pub fn run(&mut self, command: &str) -> Result<(i32, String, usize)> {
        let opened = self.proxy.open()?;
        self.proxy.take_commands();
        let finished = finish(&mut self.firstboot(command, opened.tcti())?)?;
        let commands = self.proxy.take_commands().0.len();
        Ok((finished.code, finished.stderr, commands))
    }

    /// Cuts the power of TPM and program before or after the program's n-th TPM command. Returns whether it got there.
    pub fn cut_at_command(&mut self, command: &str, n: usize, when: When) -> Result<bool> {
        let opened = self.proxy.open()?;
        let (tell, told) = mpsc::channel::<u32>();
        self.proxy.cut(when, n, move || kill_whom(&told));
        run_to_its_end(self.firstboot(command, opened.tcti())?, &tell)?;
        let cut = self.proxy.was_cut();
        if cut {
            self.device.tpm.pull_the_plug();
        }
        Ok(cut)
    }

    /// The same at a packet to or from a server.
    pub fn cut_at_packet(&mut self, command: &str, cut: Cut) -> Result<bool> {
        let opened = self.proxy.open()?;
        let program = self.firstboot(command, opened.tcti())?;
        let relay = self.servers.as_ref().context("no network")?.relay();
        let (tell, told) = mpsc::channel::<u32>();
        relay.cut_power(cut, move || kill_whom(&told));
        run_to_its_end(program, &tell)?;
        let cut = relay.was_cut();
        if cut {
            self.device.tpm.pull_the_plug();
        }
        Ok(cut)
    }

    /// The same at the program's n-th storage call.
    pub fn cut_at_call(&mut self, command: &str, n: usize, when: When) -> Result<bool> {
        let opened = self.proxy.open()?;
        let root = self.device.root().to_path_buf();
        let program = self.firstboot(command, opened.tcti())?;
        let tpm = &mut self.device.tpm;
        let outcome = run_with_cut(program, &root, n, when, || tpm.pull_the_plug())?;
        Ok(outcome.ending == Ending::Cut)
    }

    /// Restores the power.
    pub fn power_on(&mut self) -> Result<()> {
        empty_run(&self.device)?;
        self.device.tpm.power_on()?;
        self.proxy.power_on()
    }

    /// Runs both units' programs, as systemd does at a start. Returns everything that is wrong afterwards.
    pub fn start(&mut self, destination: Destination, key: KeyType) -> Result<Vec<String>> {
        let mut wrong = Vec::new();
        let (code, said, _) = self.run("provision")?;
        if code != 0 {
            wrong.push(format!("provision ended with {code}: {said}"));
        }
        let (code, said, _) = self.run("enroll")?;
        if code == 0 && self.device.read(SETTINGS)?.contains("\"renew\"") {
            // The timer, a while later, and the restart that may follow.
            for command in ["renew", "enroll"] {
                let (code, said, _) = self.run(command)?;
                if code != 0 {
                    wrong.push(format!("{command} ended with {code}: {said}"));
                }
            }
        }
        let done = match (code, destination) {
            (0, Destination::Done | Destination::DoneOrAwaiting) => true,
            (75, Destination::Awaiting | Destination::DoneOrAwaiting) => false,
            _ => {
                wrong.push(format!("enroll ended with {code}: {said}"));
                return Ok(wrong);
            }
        };
        if wrong.is_empty() {
            self.inspect(done, key, &mut wrong)?;
        }
        Ok(wrong)
    }

    fn inspect(&mut self, done: bool, key: KeyType, wrong: &mut Vec<String>) -> Result<()> {
        let upstream = self.device.tpm.upstream();
        let handles = upstream.handles(0x8100_0000)?;
        if handles != [SRK] {
            wrong.push(format!("persistent handles {handles:x?}"));
        }
        for path in leftovers(self.device.root(), Path::new("/"))? {
            wrong.push(format!("left behind: {}", path.display()));
        }
        let reads_token = self.reads_token()?;
        let configured = self.device.exists(if reads_token {
            "/greengrass/v2/config/config.yaml"
        } else {
            "/etc/greengrass/config.yaml"
        });
        if configured != done {
            wrong.push(format!("done: {done}, configuration there: {configured}"));
        }
        // An independent client: the PIN fits, the key signs, and the certificate and its issuers are there once,
        // if Greengrass reads them there.
        let used = self.with_identity(key, |identity| {
            pkcs11_tool::sign_and_verify(identity)?;
            pkcs11_tool::list(identity)
        });
        let objects = match used {
            Ok(objects) => objects,
            // The PIN may be torn.
            Err(e) => {
                wrong.push(format!("the key cannot be used: {e:#}"));
                return Ok(());
            }
        };
        if self.device.exists(NETWORK)
            && let Err(e) = self.with(
                self.device.network_identity(key)?,
                pkcs11_tool::sign_and_verify,
            )
        {
            wrong.push(format!("the networks' own key cannot be used: {e:#}"));
        }
        let certificates = objects.matches("Certificate Object").count();
        let accepted = self.device.read(format!("{STORE}/certificate.pem"));
        let accepted = accepted.unwrap_or_default().matches("-----BEGIN").count();
        let wanted = if reads_token { accepted } else { 0 };
        if certificates != wanted || done != (accepted > 0) {
            wrong.push(format!(
                "{certificates} certificates in the token, {accepted} accepted"
            ));
        }
        // TPM_PT_LOCKOUT_COUNTER: a start must leave no failed try behind.
        let tries = upstream.property(0x20E)?;
        if tries != 0 {
            wrong.push(format!("{tries} failed tries were counted"));
        }
        Ok(())
    }

    /// Runs a client of the identity, with the TPM through the resource manager.
    pub(super) fn with_identity<T>(
        &self,
        key: KeyType,
        client: impl FnOnce(&Identity) -> Result<T>,
    ) -> Result<T> {
        self.with(self.device.identity(key)?, client)
    }

    fn with<T>(
        &self,
        mut identity: Identity,
        client: impl FnOnce(&Identity) -> Result<T>,
    ) -> Result<T> {
        let opened = self.proxy.open()?;
        identity.tcti = opened.tcti();
        client(&identity)
    }

    /// Whether Greengrass reads its certificate in the token.
    pub(super) fn reads_token(&self) -> Result<bool> {
        let settings: serde_json::Value = serde_json::from_str(&self.device.read(SETTINGS)?)?;
        Ok(settings["greengrass"]["edition"] == "nucleus")
    }

    /// SHA-256 of the public key, if there is a complete identity.
    pub fn key(&self) -> Option<String> {
        self.key_in(STORE)
    }

    /// The same for the first identity that was set aside.
    pub fn key_aside(&self) -> Option<String> {
        self.key_in(&format!("{STORE}.orphan-1"))
    }

    /// The same in another place.
    pub fn key_in(&self, directory: &str) -> Option<String> {
        self.device.key_sha256(directory).ok()
    }

    /// The accepted certificate, PEM.
    pub fn certificate(&self) -> Option<String> {
        self.device.read(format!("{STORE}/certificate.pem")).ok()
    }

    /// The number of identities that were set aside.
    pub fn orphans(&self) -> Result<usize> {
        let beside = std::fs::read_dir(self.device.path("/var/lib"))?;
        Ok(beside
            .flatten()
            .filter(|entry| entry.file_name().to_string_lossy().contains(".orphan-"))
            .count())
    }
}

fn kill_whom(told: &mpsc::Receiver<u32>) {
    if let Ok(pid) = told.recv() {
        // Fails only if the program has exited already.
        let _ = kill(Pid::from_raw(pid as i32), Signal::SIGKILL);
    }
}

fn run_to_its_end(mut program: Command, tell: &mpsc::Sender<u32>) -> Result<()> {
    let mut program = program
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .context("cannot start firstboot")?;
    tell.send(program.id())?;
    program.wait()?;
    Ok(())
}

/// /run is in memory: a power cut empties it.
fn empty_run(device: &Device) -> Result<()> {
    let run = device.path("/run");
    std::fs::remove_dir_all(&run)?;
    std::fs::create_dir(&run)?;
    Ok(())
}

/// Files that only an interrupted run leaves: staging, temporary files, journals.
fn leftovers(root: &Path, of_device: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let here = root.join(of_device.strip_prefix("/").unwrap_or(of_device));
    for entry in std::fs::read_dir(here)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let path = of_device.join(&name);
        let interrupted = [".new", "-journal", ".bak", ".old", ".sqlite3.lock"];
        if interrupted.iter().any(|end| name.ends_with(end)) {
            found.push(path.clone());
        }
        if entry.file_type()?.is_dir() {
            found.extend(leftovers(root, &path)?);
        }
    }
    Ok(found)
}
