//! aws-crt, the nucleus's MQTT and TLS library, from PyPI. It uses PKCS#11 by slot, label and PIN, and TLS 1.2.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use anyhow::{Context, Result, anyhow};

use super::Identity;
use crate::process::succeed;

/// The version that the findings about the nucleus are for. The wheel contains everything.
const PACKAGE: &str = "awscrt==0.38.1";

/// Connects to an IoT data endpoint on this host as a thing, with the identity's key in a slot, and publishes to one of
/// the thing's topics.
pub fn publish_at_slot(
    identity: &Identity,
    slot: u64,
    certificate: &Path,
    root_ca: &Path,
    port: u16,
    thing: &str,
) -> Result<()> {
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/clients/aws_crt.py");
    let python = python()?;
    let mut client = identity.command(&python.to_string_lossy());
    client
        .arg("-B")
        .arg(program)
        .arg(&identity.module)
        .arg(slot.to_string())
        .arg(&identity.label)
        .arg(&identity.pin_file)
        .arg(certificate)
        .arg(root_ca)
        .arg(port.to_string())
        .arg(thing)
        .arg(format!("devices/{thing}/hello"));
    succeed(&mut client).context("aws-crt cannot connect")?;
    Ok(())
}

/// A Python with aws-crt: a virtual environment in target/, created once with the host's pip.
fn python() -> Result<PathBuf> {
    static MADE: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let made = MADE.get_or_init(|| make().map_err(|e| format!("{e:#}")));
    made.clone().map_err(|e| anyhow!("{e}"))
}

fn make() -> Result<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/image-tests");
    fs::create_dir_all(&folder)?;
    // One at a time, because a virtual environment cannot be moved into place.
    let lock = fs::File::create(folder.join("aws-crt.lock"))?;
    lock.lock()?;
    let environment = folder.canonicalize()?.join("aws-crt");
    let installed = environment.join("installed");
    if !fs::read_to_string(&installed).is_ok_and(|package| package == PACKAGE) {
        succeed(
            Command::new("python3")
                .args(["-m", "venv", "--clear"])
                .arg(&environment),
        )
        .context("is python3-venv installed? Run image-tests/host-packages")?;
        let pip = ["install", "--quiet", "--disable-pip-version-check", PACKAGE];
        succeed(Command::new(environment.join("bin/pip")).args(pip))?;
        fs::write(installed, PACKAGE)?;
    }
    Ok(environment.join("bin/python"))
}
