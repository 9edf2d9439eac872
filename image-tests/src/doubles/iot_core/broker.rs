//! mosquitto with mutual TLS and the plugin, on a free loopback port.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use tempfile::TempDir;

use crate::doubles::clock::ClockDouble;
use crate::doubles::pki::Pair;
use crate::ports::PortPair;
use crate::process::{Background, succeed};

pub struct Broker {
    process: Background,
    ports: PortPair,
    files: TempDir,
    /// Its own, if it is not this host's.
    _clock: Option<ClockDouble>,
}

impl Broker {
    /// Starts it with a server certificate, the CAs whose clients it accepts, and a clock that is ahead by this much.
    /// Also returns the connection on which the plugin asks its questions.
    pub fn start(
        server: &Pair,
        client_authorities: &[u8],
        ahead: Duration,
    ) -> Result<(Self, UnixStream)> {
        let plugin = plugin()?;
        let ports = PortPair::reserve()?;
        let files = tempfile::Builder::new().prefix("broker-").tempdir()?;
        let at = |name: &str| files.path().join(name);
        let link = UnixListener::bind(at("link"))?;
        std::fs::write(at("clients.pem"), client_authorities)?;
        let configuration = format!(
            "listener {port} 127.0.0.1\n\
             cafile {clients}\ncertfile {certificate}\nkeyfile {key}\nrequire_certificate true\n\
             plugin {plugin}\nplugin_opt_link {link}\n\
             allow_anonymous false\npersistence false\nset_tcp_nodelay true\n\
             log_dest stdout\nlog_type error\nlog_type warning\nlog_type notice\n{user}",
            port = ports.first(),
            clients = at("clients.pem").display(),
            certificate = server.certificate.display(),
            key = server.key.display(),
            plugin = plugin.display(),
            link = at("link").display(),
            // Started as root it would change to a user who cannot read these files.
            user = if nix::unistd::getuid().is_root() {
                "user root\n"
            } else {
                ""
            },
        );
        std::fs::write(at("mosquitto.conf"), configuration)?;
        let log = std::fs::File::create(at("log"))?;
        let clock = match ahead.is_zero() {
            true => None,
            false => Some(ClockDouble::ahead(ahead)?),
        };
        let mut command = Command::new(program()?);
        command.envs(clock.iter().flat_map(ClockDouble::environment));
        command.arg("-c").arg(at("mosquitto.conf"));
        let process = Background::start(command.stdout(log.try_clone()?).stderr(log))?;
        process
            .wait_readable("mosquitto to load its plugin", &link)
            .with_context(|| {
                let said = std::fs::read_to_string(at("log")).unwrap_or_default();
                format!("mosquitto: {said}")
            })?;
        let (stream, _) = link.accept()?;
        let broker = Self {
            process,
            ports,
            files,
            _clock: clock,
        };
        Ok((broker, stream))
    }

    pub fn port(&self) -> u16 {
        self.ports.first()
    }

    /// Peak resident memory so far, KiB.
    pub fn memory_peak(&self) -> Result<u64> {
        self.process.memory_peak()
    }

    pub fn log(&self) -> Result<String> {
        Ok(std::fs::read_to_string(self.files.path().join("log"))?)
    }
}

/// mosquitto, which Debian installs in a directory that may not be in a user's PATH.
fn program() -> Result<PathBuf> {
    let path = std::env::var("PATH").unwrap_or_default() + ":/usr/sbin:/usr/local/sbin";
    std::env::split_paths(&path)
        .map(|directory| directory.join("mosquitto"))
        .find(|path| path.is_file())
        .context("mosquitto is not installed: run image-tests/host-packages")
}

/// The plugin, compiled on first use into cargo's target directory.
fn plugin() -> Result<PathBuf> {
    static BUILT: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let built = BUILT.get_or_init(|| build().map_err(|e| format!("{e:#}")));
    built.clone().map_err(|e| anyhow!("{e}"))
}

fn build() -> Result<PathBuf> {
    const SOURCE: &str = include_str!("plugin.c");
    let options = [
        "-std=c11",
        "-D_GNU_SOURCE",
        "-Wall",
        "-Wextra",
        "-Werror",
        "-shared",
        "-fPIC",
    ];
    let mut hasher = DefaultHasher::new();
    (SOURCE, options).hash(&mut hasher);
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/image-tests");
    let library = folder.join(format!("mosquitto-plugin-{:016x}.so", hasher.finish()));
    if library.exists() {
        return Ok(library);
    }
    std::fs::create_dir_all(&folder)?;
    // Other test programs may be building it, too: a rename makes it appear whole.
    let building = tempfile::Builder::new()
        .prefix("plugin-")
        .tempdir_in(&folder)?;
    let (source, built) = (
        building.path().join("plugin.c"),
        building.path().join("plugin.so"),
    );
    std::fs::write(&source, SOURCE)?;
    let mut compiler = Command::new("cc");
    compiler
        .args(options)
        .arg("-o")
        .arg(&built)
        .arg(&source)
        .arg("-lcrypto");
    succeed(&mut compiler).context("is mosquitto-dev installed? Run image-tests/host-packages")?;
    std::fs::rename(&built, &library)?;
    Ok(std::path::absolute(&library)?.canonicalize()?)
}
