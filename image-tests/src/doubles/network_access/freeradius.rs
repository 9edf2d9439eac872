//! FreeRADIUS with nothing but EAP-TLS. Debian's own configuration is not read.

use std::fs::{self, File};

use anyhow::{Context, Result};
use tempfile::TempDir;

use super::Policy;
use crate::doubles::tls::Version;
use crate::process::Background;

/// Where Debian has its modules.
const MODULES: &str = "/usr/lib/freeradius";
/// What server and switch share: each test has its own network, which nobody else can enter.
const SECRET: &str = "between-switch-and-server";

#[derive(Debug)]
pub struct FreeRadius {
    /// Ends before its files go.
    _program: Background,
    _directory: TempDir,
}

impl FreeRadius {
    /// Of its network namespace's loopback.
    pub const PORT: u16 = 1812;

    pub(super) fn start(policy: Policy<'_>) -> Result<Self> {
        let directory = TempDir::new()?;
        let own = directory.path().display();
        let version = match policy.version {
            Version::Tls12 => "1.2",
            Version::Tls13 => "1.3",
        };
        let configuration = format!(
            r#"
name = radiusd
libdir = {MODULES}
run_dir = {own}
db_dir = {own}
logdir = {own}
log {{
    destination = stdout
    auth = yes
}}
security {{
    status_server = no
}}
client switch {{
    ipaddr = 127.0.0.1
    secret = {SECRET}
}}
modules {{
    eap {{
        default_eap_type = tls
        tls-config common {{
            private_key_file = {key}
            certificate_file = {certificate}
            ca_file = {devices}
            tls_min_version = "{version}"
            tls_max_version = "{version}"
            ecdh_curve = ""
        }}
        tls {{
            tls = common
        }}
    }}
}}
server default {{
    listen {{
        type = auth
        ipaddr = 127.0.0.1
        port = {port}
    }}
    authorize {{
        eap
    }}
    authenticate {{
        eap
    }}
}}
"#,
            key = policy.pair.key.display(),
            certificate = policy.pair.certificate.display(),
            devices = policy.devices.display(),
            port = Self::PORT,
        );
        fs::write(directory.path().join("radiusd.conf"), configuration)?;
        let mut command = std::process::Command::new("freeradius");
        // In the foreground, on one thread, with its packets on standard output.
        command.args(["-X", "-d"]).arg(directory.path());
        let log = File::create(directory.path().join("log"))?;
        let ready = |line: &str| line.contains("Ready to process requests").then_some(());
        let (program, ()) = Background::start_until(&mut command, "freeradius", log, ready)
            .context("is freeradius installed? Run image-tests/host-packages")?;
        Ok(Self {
            _program: program,
            _directory: directory,
        })
    }

    pub(super) fn secret(&self) -> &'static str {
        SECRET
    }
}
