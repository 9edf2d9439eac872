//! Sizes: the program and what it needs installed, compared with what the recipe's programs need. Sizes of packages are
//! dpkg's `Installed-Size`, for Debian's packages on this host.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::row::{Aim, Row, Unit};
use crate::clients::basic_environment;
use crate::process::succeed;

/// What firstboot loads besides the C library: linked libraries, the PKCS#11 module and the TCTI.
const OURS: &[&str] = &[
    "libtpm2-pkcs11-1",
    "libssl3",
    "libsqlite3-0",
    "libtss2-tcti-device0",
];
/// The programs of the recipe.
const RECIPE: &[&str] = &[
    "libtpm2-pkcs11-tools",
    "gnutls-bin",
    "openssl",
    "libtss2-tcti-device0",
];

/// The rows. `aarch64` is the device's program, if it was built.
pub fn rows(host: &Path, aarch64: Option<&Path>) -> Result<Vec<Row>> {
    let program = kibibytes(host)?;
    let mut rows = vec![Row::new(
        "firstboot, stripped, this machine's",
        Unit::Kibibytes,
        program,
    )];
    match aarch64 {
        Some(path) => rows.push(
            Row::new(
                "firstboot, stripped, aarch64",
                Unit::Kibibytes,
                kibibytes(path)?,
            )
            .aim(Aim::AtMost(4.0 * 1024.0)),
        ),
        None => eprintln!("bench: no firstboot for aarch64; make guest builds it"),
    }
    rows.push(
        Row::new(
            "installed, with everything it needs",
            Unit::Kibibytes,
            program + closure(OURS)?,
        )
        .beside(closure(RECIPE)?),
    );
    Ok(rows)
}

fn kibibytes(file: &Path) -> Result<f64> {
    let metadata = std::fs::metadata(file).with_context(|| format!("no {}", file.display()))?;
    Ok(metadata.len() as f64 / 1024.0)
}

/// The installed size of packages and their dependencies, KiB.
fn closure(packages: &[&str]) -> Result<f64> {
    let mut found = BTreeSet::new();
    let depends = succeed(
        tool("apt-cache")
            .args(["depends", "--recurse", "--installed", "--important"])
            .args(packages),
    )?;
    // A package's line is not indented; virtual packages are in angle brackets.
    for line in depends.lines() {
        if !line.starts_with(' ') && !line.starts_with('<') {
            found.insert(line.trim().to_owned());
        }
    }
    let sizes = succeed(
        tool("dpkg-query")
            .args(["-W", "-f", "${db:Status-Status} ${Installed-Size}\\n"])
            .args(&found),
    )?;
    let mut sum = 0.0;
    for line in sizes.lines() {
        if let Some(size) = line.strip_prefix("installed ") {
            sum += size.parse::<f64>()?;
        }
    }
    if sum == 0.0 {
        bail!("{packages:?} are not installed: run image-tests/host-packages --bench");
    }
    Ok(sum)
}

fn tool(name: &str) -> Command {
    let mut command = Command::new(name);
    command.env_clear().envs(basic_environment());
    command
}
