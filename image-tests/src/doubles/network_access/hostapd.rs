//! hostapd with the driver `wired`: IEEE 802.1X on Ethernet.

use std::fmt::Write;
use std::fs::{self, File};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

use super::{FreeRadius, Policy};
use crate::doubles::tls::Version;
use crate::process::{Background, bounded, succeed};

#[derive(Debug)]
pub struct Hostapd {
    /// Ends before its files go.
    _program: Background,
    directory: TempDir,
    interface: String,
}

impl Hostapd {
    /// With hostapd's own EAP server.
    pub(super) fn with_own_server(interface: &str, policy: Policy<'_>) -> Result<Self> {
        let directory = TempDir::new()?;
        // hostapd.eap_user: TLS for everybody who names himself.
        let users = directory.path().join("users");
        fs::write(&users, "* TLS\n")?;
        // Since 2.7, hostapd has TLS 1.3 off unless it is told otherwise.
        let flag = match policy.version {
            Version::Tls12 => "[DISABLE-TLSv1.3]",
            Version::Tls13 => "[ENABLE-TLSv1.3][DISABLE-TLSv1.2]",
        };
        let mut settings = String::from("eap_server=1\n");
        for (name, path) in [
            ("eap_user_file", users.as_path()),
            ("ca_cert", policy.devices),
            ("server_cert", &policy.pair.certificate),
            ("private_key", &policy.pair.key),
        ] {
            writeln!(settings, "{name}={}", path.display())?;
        }
        writeln!(settings, "tls_flags={flag}")?;
        Self::start(directory, interface, &settings)
    }

    /// In front of a RADIUS server.
    pub(super) fn with_radius(interface: &str, radius: &FreeRadius) -> Result<Self> {
        let (port, secret) = (FreeRadius::PORT, radius.secret());
        let settings = format!(
            "own_ip_addr=127.0.0.1\nauth_server_addr=127.0.0.1\nauth_server_port={port}\n\
             auth_server_shared_secret={secret}\n"
        );
        Self::start(TempDir::new()?, interface, &settings)
    }

    fn start(directory: TempDir, interface: &str, settings: &str) -> Result<Self> {
        let configuration = directory.path().join("hostapd.conf");
        let control = control(&directory);
        let common = format!(
            "interface={interface}\ndriver=wired\nieee8021x=1\nuse_pae_group_addr=1\nctrl_interface={}\n",
            control.display()
        );
        fs::write(&configuration, common + settings)?;
        let mut command = std::process::Command::new("hostapd");
        command.arg("-d").arg(&configuration);
        let log = File::create(directory.path().join("log"))?;
        let ready = |line: &str| line.contains("AP-ENABLED").then_some(());
        let (program, ()) = Background::start_until(&mut command, "hostapd", log, ready)
            .context("is hostapd installed? Run image-tests/host-packages")?;
        Ok(Self {
            _program: program,
            directory,
            interface: interface.to_owned(),
        })
    }

    /// What hostapd knows about the stations at its port.
    pub fn stations(&self) -> Result<String> {
        let mut command = bounded("hostapd_cli");
        command.arg("-p").arg(control(&self.directory));
        succeed(command.args(["-i", &self.interface, "all_sta"]))
    }

    /// What it says from now on.
    pub fn events(&self) -> Result<Events> {
        let socket = UnixDatagram::bind(self.directory.path().join("events"))?;
        socket.connect(control(&self.directory).join(&self.interface))?;
        // For a guest that boots.
        socket.set_read_timeout(Some(Duration::from_secs(900)))?;
        socket.send(b"ATTACH")?;
        let events = Events(socket);
        let answer = events.next()?;
        ensure!(answer == "OK\n", "hostapd: {answer}");
        Ok(events)
    }

    /// What it has written so far.
    pub fn log(&self) -> Result<String> {
        read(&self.directory.path().join("log"))
    }
}

/// What hostapd reports on its control interface (hostapd/ctrl_iface.c).
#[derive(Debug)]
pub struct Events(UnixDatagram);

impl Events {
    /// Waits for an event of this name.
    pub fn until(&self, name: &str) -> Result<()> {
        // "<3>AP-STA-CONNECTED 52:54:00:12:34:56"
        while !self.next()?.contains(name) {}
        Ok(())
    }

    fn next(&self) -> Result<String> {
        let mut buffer = [0; 4096];
        let length = self.0.recv(&mut buffer).context("hostapd says nothing")?;
        Ok(String::from_utf8_lossy(&buffer[..length]).into_owned())
    }
}

/// Where its control interface is.
fn control(directory: &TempDir) -> PathBuf {
    directory.path().join("control")
}

fn read(path: &Path) -> Result<String> {
    let text = fs::read(path).with_context(|| format!("no {}", path.display()))?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}
