//! What is tested. Most tests and the demo start with an unprovisioned [`Device`]: the part of its root file system
//! that firstboot touches, and a TPM. They write settings, `run` firstboot, and look at the result. [`machine`] boots a
//! whole system; [`station`] is the operator's side.

mod checkpoint;
pub mod machine;
mod settings;
mod snapshot;
pub mod station;

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use tempfile::TempDir;

use crate::clients::{Identity, KeyType, User, basic_environment, installed_module};
use crate::directory::{copy_tree, readable_directory};
use crate::doubles::clock::ClockDouble;
use crate::doubles::pki::Authority;
use crate::doubles::software_tpm::SoftwareTpm;
use crate::process::{bounded, finish};

pub use checkpoint::Checkpoint;
pub use settings::offline_settings;
pub use snapshot::Snapshot;

/// The board's serial number, in a Raspberry Pi's format.
pub const SERIAL: &str = "10000000a1b2c3d4";
pub const MACHINE_ID: &str = "0123456789abcdef0123456789abcdef";
/// The directory of the device's identity, as a path on the device.
pub const STORE: &str = "/var/lib/tpm2_pkcs11";
/// Those of the one with the next key, and of the one that was in service before.
pub const NEXT: &str = "/var/lib/tpm2_pkcs11.next";
pub const PREVIOUS: &str = "/var/lib/tpm2_pkcs11.previous";
/// That of the one with the key for networks that want their own.
pub const NETWORK: &str = "/var/lib/tpm2_pkcs11.eap";
const BOOT: &str = "/boot/firstboot";
/// How the request for networks ends.
const NETWORK_REQUEST: &str = ".eap.csr.pem";
/// The groups of nucleus lite's daemons, of the nucleus's components, and of the TPM.
const GROUPS: [&str; 3] = ["ggcore", "ggc_group", "tss"];
/// The device's first group ID if the tests run as root: nobody on this host has it.
const FIRST_GID: u32 = 64_001;

/// How a run of firstboot ended.
#[derive(Debug, Clone)]
pub struct Outcome {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
    pub elapsed: Duration,
}

/// firstboot ended with this status, and with these words on standard error.
#[track_caller]
pub fn assert_ends(outcome: &Outcome, code: i32, words: &str) {
    assert_eq!(outcome.code, code, "{}{}", outcome.stdout, outcome.stderr);
    assert!(
        outcome.stderr.contains(words),
        "no {words:?} in: {}",
        outcome.stderr
    );
}

#[derive(Debug)]
pub struct Device {
    pub tpm: SoftwareTpm,
    /// A TCTI for firstboot in place of the TPM's own: a proxy's, or one that leads nowhere.
    pub tcti: Option<String>,
    /// firstboot's clock, if it is not this host's.
    pub clock: Option<ClockDouble>,
    root: TempDir,
    /// Files for the clients: outside the root, so that snapshots do not have them.
    aside: TempDir,
}

impl Device {
    pub fn unprovisioned() -> Result<Self> {
        let device = Self {
            tpm: SoftwareTpm::start()?,
            tcti: None,
            clock: None,
            root: readable_directory("device-")?,
            aside: readable_directory("aside-")?,
        };
        for directory in [
            BOOT,
            "/run/lock",
            "/var/lib",
            "/etc/ssl",
            "/usr/lib/firstboot",
        ] {
            fs::create_dir_all(device.path(directory))?;
        }
        device.write(
            "/sys/firmware/devicetree/base/serial-number",
            format!("{SERIAL}\0"),
        )?;
        device.write("/etc/machine-id", format!("{MACHINE_ID}\n"))?;
        device.write(
            "/usr/lib/firstboot/firstboot.json",
            settings::of_the_image()?,
        )?;
        device.write(
            "/usr/lib/firstboot/AmazonTrustServices.pem",
            include_bytes!("../../../firstboot/conf/AmazonTrustServices.pem"),
        )?;
        let User { uid, gid } = device.greengrass_user();
        let users = format!("root:x:0:0::/root:/bin/sh\nggcore:x:{uid}:{gid}::/:/bin/false\n");
        device.write("/etc/passwd", users)?;
        let groups = GROUPS.map(|name| format!("{name}:x:{}:\n", device.group(name)));
        device.write("/etc/group", format!("root:x:0:\n{}", groups.concat()))?;
        Ok(device)
    }

    /// A device from copies of a file tree and of a TPM's state.
    pub fn copy_of(tree: &Path, tpm_state: &Path) -> Result<Self> {
        let root = readable_directory("device-")?;
        copy_tree(tree, root.path())?;
        Ok(Self {
            tpm: SoftwareTpm::copy_of(tpm_state)?,
            tcti: None,
            clock: None,
            root,
            aside: readable_directory("aside-")?,
        })
    }

    pub fn root(&self) -> &Path {
        self.root.path()
    }

    /// The path on this host of a path on the device.
    pub fn path(&self, of_device: impl AsRef<Path>) -> PathBuf {
        let of_device = of_device.as_ref();
        self.root
            .path()
            .join(of_device.strip_prefix("/").unwrap_or(of_device))
    }

    /// A file on the boot partition, by its path in `firstboot/`.
    pub fn boot_file(&self, name: &str) -> PathBuf {
        self.path(BOOT).join(name)
    }

    pub fn exists(&self, of_device: impl AsRef<Path>) -> bool {
        self.path(of_device).exists()
    }

    pub fn read(&self, of_device: impl AsRef<Path>) -> Result<String> {
        let path = self.path(of_device);
        fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
    }

    /// Writes a file of the device, and creates its directories.
    pub fn write(&self, of_device: impl AsRef<Path>, text: impl AsRef<[u8]>) -> Result<()> {
        let path = self.path(of_device);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
    }

    /// Writes the operator's settings.
    pub fn settings(&self, settings: &serde_json::Value) -> Result<()> {
        self.write(
            Path::new(BOOT).join("firstboot.json"),
            serde_json::to_string_pretty(settings)?,
        )
    }

    /// The ID of a group on this device. Unless the tests run as root, it is their own group, as they can give files to
    /// no other.
    pub fn group(&self, name: &str) -> u32 {
        if !nix::unistd::getuid().is_root() {
            return nix::unistd::getgid().as_raw();
        }
        let index = GROUPS.iter().position(|known| *known == name);
        index.map_or(0, |index| FIRST_GID + index as u32)
    }

    /// The user of nucleus lite's daemons.
    pub fn greengrass_user(&self) -> User {
        let own = nix::unistd::getuid();
        let uid = if own.is_root() {
            FIRST_GID
        } else {
            own.as_raw()
        };
        let gid = self.group("ggcore");
        User { uid, gid }
    }

    /// Runs firstboot on this device.
    pub fn run(&self, arguments: &[&str]) -> Result<Outcome> {
        self.run_with(arguments, |command| command)
    }

    /// The same with a changed command.
    pub fn run_with(
        &self,
        arguments: &[&str],
        change: impl FnOnce(&mut Command) -> &mut Command,
    ) -> Result<Outcome> {
        let mut command = self.command(bounded(firstboot()?), arguments);
        let start = Instant::now();
        let finished = finish(change(&mut command))?;
        Ok(Outcome {
            code: finished.code,
            stdout: finished.stdout,
            stderr: finished.stderr,
            elapsed: start.elapsed(),
        })
    }

    /// Enrolls over a network, whose text never reaches a terminal unescaped.
    pub fn enroll(&self) -> Result<Outcome> {
        let outcome = self.run(&["enroll"])?;
        let steering = |c: char| c.is_control() && c != '\n';
        ensure!(
            !outcome.stderr.contains(steering),
            "a control character: {:?}",
            outcome.stderr
        );
        Ok(outcome)
    }

    /// Runs firstboot under strace, with the TPM stack and the PKCS#11 library at their most verbose: everything that
    /// it prints, and everything that it executes, with arguments and environments.
    pub fn run_traced(&self, arguments: &[&str]) -> Result<String> {
        let log = tempfile::NamedTempFile::new()?;
        let firstboot = self.firstboot(arguments)?;
        let mut strace = Command::new("strace");
        strace
            .args(["-f", "-v", "-s", "65536", "-e", "trace=execve", "-o"])
            .arg(log.path())
            .arg(firstboot.get_program())
            .args(firstboot.get_args())
            .envs(
                firstboot
                    .get_envs()
                    .filter_map(|(name, value)| Some((name, value?))),
            )
            .env("TSS2_LOG", "all+info")
            .env("TPM2_PKCS11_LOG_LEVEL", "2");
        let finished = finish(&mut strace)?;
        let traced = fs::read_to_string(log.path())?;
        ensure!(
            traced.contains("execve"),
            "strace logged nothing: {finished:?}"
        );
        Ok(finished.stdout + &finished.stderr + &traced)
    }

    /// Runs firstboot, which has to succeed: its standard output.
    pub fn succeed(&self, arguments: &[&str]) -> Result<String> {
        let outcome = self.run(arguments)?;
        if outcome.code != 0 {
            bail!(
                "firstboot {arguments:?} ended with {}\n{}{}",
                outcome.code,
                outcome.stdout,
                outcome.stderr
            );
        }
        Ok(outcome.stdout)
    }

    /// What firstboot-renew.service does: whether Greengrass was stopped for it.
    pub fn renew(&self) -> Result<bool> {
        self.succeed(&["renew"])?;
        let is_due = self.is_due()?;
        if is_due {
            self.succeed(&["enroll"])?;
        }
        Ok(is_due)
    }

    /// Whether there is a renewal for which Greengrass would have to stop.
    pub fn is_due(&self) -> Result<bool> {
        let outcome = self.run(&["renew", "--due"])?;
        match outcome.code {
            0 => Ok(true),
            // EX_TEMPFAIL: nothing changes.
            75 => Ok(false),
            code => bail!(
                "firstboot renew --due ended with {code}\n{}",
                outcome.stderr
            ),
        }
    }

    /// firstboot's command, without a time limit, for callers that start it themselves.
    pub fn firstboot(&self, arguments: &[&str]) -> Result<Command> {
        Ok(self.command(Command::new(firstboot()?), arguments))
    }

    /// The same with another TCTI.
    pub fn firstboot_at(&self, tcti: &str, arguments: &[&str]) -> Result<Command> {
        Ok(self.command_at(tcti, Command::new(firstboot()?), arguments))
    }

    fn command(&self, command: Command, arguments: &[&str]) -> Command {
        let tcti = self.tcti.clone().unwrap_or_else(|| self.tpm.tcti());
        self.command_at(&tcti, command, arguments)
    }

    fn command_at(&self, tcti: &str, mut command: Command, arguments: &[&str]) -> Command {
        command.env_clear().envs(basic_environment());
        command.envs(self.clock.iter().flat_map(ClockDouble::environment));
        command.arg("--root").arg(self.root());
        command.args(["--tcti", tcti]).args(arguments);
        command
    }

    /// Removes a file of the device.
    pub fn remove(&self, of_device: impl AsRef<Path>) -> Result<()> {
        let path = self.path(of_device);
        fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))
    }

    /// The one request on the boot partition, beside which there may be another one for networks.
    pub fn request(&self) -> Result<PathBuf> {
        self.request_that(|name| !name.ends_with(NETWORK_REQUEST))
    }

    /// The one request for networks.
    pub fn network_request(&self) -> Result<PathBuf> {
        self.request_that(|name| name.ends_with(NETWORK_REQUEST))
    }

    fn request_that(&self, wanted: impl Fn(&str) -> bool) -> Result<PathBuf> {
        let requests = self.boot_file("requests");
        let is_wanted = |path: &PathBuf| {
            let name = path.to_string_lossy();
            name.ends_with(".csr.pem") && wanted(&name)
        };
        fs::read_dir(&requests)
            .with_context(|| format!("no requests in {}", requests.display()))?
            .filter_map(|entry| Some(entry.ok()?.path()))
            .find(is_wanted)
            .with_context(|| format!("no request in {}", requests.display()))
    }

    /// Saves a certificate where an operator does, under the name of its request.
    pub fn drop_certificate(&self, pem: &str) -> Result<PathBuf> {
        self.answer(&self.request()?, pem)
    }

    /// The same for the networks' own key.
    pub fn drop_network_certificate(&self, pem: &str) -> Result<PathBuf> {
        self.answer(&self.network_request()?, pem)
    }

    fn answer(&self, request: &Path, pem: &str) -> Result<PathBuf> {
        let name = request.file_name().context("a request without a name")?;
        let name = name.to_string_lossy().replace(".csr.pem", ".pem");
        let path = self.boot_file("certificates").join(name);
        fs::write(&path, pem).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(path)
    }

    /// The names of all requests and certificates on the boot partition.
    pub fn names_on_card(&self) -> Result<Vec<String>> {
        let mut names = Vec::new();
        for folder in ["requests", "certificates"] {
            for entry in fs::read_dir(self.boot_file(folder))? {
                names.push(entry?.file_name().to_string_lossy().into_owned());
            }
        }
        names.sort();
        Ok(names)
    }

    /// SHA-256 of the public key of the identity in this directory, by its record. It tells identities apart.
    pub fn key_sha256(&self, directory: &str) -> Result<String> {
        let record = self.read(format!("{directory}/request.json"))?;
        let record: serde_json::Value = serde_json::from_str(&record)?;
        let key = record["key_sha256"].as_str();
        Ok(key.context("no key_sha256")?.to_owned())
    }

    /// `status.json` on the boot partition.
    pub fn status(&self) -> Result<serde_json::Value> {
        let path = self.boot_file("status.json");
        let text = fs::read(&path).with_context(|| format!("no {}", path.display()))?;
        serde_json::from_slice(&text).context("status.json is not JSON")
    }

    /// Provisions and enrolls the device, with a certificate from this authority, which Greengrass will trust.
    pub fn enroll_with(&self, authority: &Authority) -> Result<()> {
        self.write(
            Path::new(BOOT).join("root-ca.pem"),
            authority.certificate_pem()?,
        )?;
        self.succeed(&["provision"])?;
        self.drop_certificate(&authority.sign(&self.request()?)?)?;
        self.succeed(&["enroll"])?;
        Ok(())
    }

    /// A snapshot of the device's file tree.
    pub fn snapshot(&self) -> Result<Snapshot> {
        Snapshot::of(self.root())
    }

    /// The device's identity, for clients on this host that run as root.
    pub fn identity(&self, key: KeyType) -> Result<Identity> {
        Ok(Identity {
            module: installed_module()?,
            store: self.path(STORE),
            tcti: self.tpm.tcti(),
            token: "greengrass".to_owned(),
            label: "greenkey".to_owned(),
            key,
            pin_file: self.path(STORE).join("pin"),
            lock_directory: None,
            user: None,
            environment: Vec::new(),
        })
    }

    /// The identity with the key for networks that want their own, for the same clients.
    pub fn network_identity(&self, key: KeyType) -> Result<Identity> {
        Ok(Identity {
            store: self.path(NETWORK),
            pin_file: self.path(NETWORK).join("pin"),
            ..self.identity(key)?
        })
    }

    /// The device's identity for the user of nucleus lite's daemons, with the lock directory that systemd-tmpfiles
    /// creates.
    pub fn identity_of_greengrass(&self, key: KeyType) -> Result<Identity> {
        let user = self.greengrass_user();
        let lock = self.aside.path().join("lock");
        fs::create_dir_all(&lock)?;
        std::os::unix::fs::chown(&lock, Some(user.uid), Some(user.gid))?;
        fs::set_permissions(&lock, Permissions::from_mode(0o700))?;
        let mut identity = self.identity(key)?;
        identity.lock_directory = Some(lock);
        identity.user = Some(user).filter(|_| nix::unistd::getuid().is_root());
        Ok(identity)
    }

    /// What nucleus lite's configuration names as the certificate, usable on this machine: the file below the device's
    /// root, or a URI as it stands.
    pub fn lite_certificate(&self) -> Result<String> {
        let config: serde_json::Value =
            serde_json::from_str(&self.read("/etc/greengrass/config.yaml")?)?;
        let named = config["system"]["certificateFilePath"].as_str();
        Ok(self.translate(named.context("no certificateFilePath")?))
    }

    /// The OpenSSL configuration that firstboot wrote for nucleus lite, made usable on this host: paths that exist
    /// below the device's root lead there.
    pub fn openssl_conf(&self) -> Result<PathBuf> {
        let written = self.read("/etc/greengrass/openssl.cnf")?;
        let translated: String = written
            .lines()
            .map(|line| self.translate(line) + "\n")
            .collect();
        let path = self.aside.path().join("openssl.cnf");
        fs::write(&path, translated)?;
        fs::set_permissions(&path, Permissions::from_mode(0o644))?;
        Ok(path)
    }

    fn translate(&self, line: &str) -> String {
        let Some(start) = line.find('/') else {
            return line.to_owned();
        };
        let (before, path) = line.split_at(start);
        if self.exists(path.trim_end()) {
            format!("{before}{}", self.path(path).display())
        } else {
            line.to_owned()
        }
    }
}

/// The program under test: `FIRSTBOOT`, or else the newest build in this checkout.
pub fn firstboot() -> Result<PathBuf> {
    built("firstboot", "FIRSTBOOT")
}

/// A program under test: the one that the environment variable names, or else the newest build in this checkout.
pub(crate) fn built(program: &str, variable: &str) -> Result<PathBuf> {
    if let Some(path) = std::env::var_os(variable) {
        return std::path::absolute(path).with_context(|| format!("{variable} is not a path"));
    }
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../target"),
        PathBuf::from,
    );
    ["release", "debug"]
        .iter()
        .map(|profile| target.join(profile).join(program))
        .filter_map(|path| Some((fs::metadata(&path).ok()?.modified().ok()?, path)))
        .max()
        .map(|(_, path)| path)
        .with_context(|| {
            format!(
                "no {program} in {}: build it, or name it in {variable}",
                target.display()
            )
        })
}
