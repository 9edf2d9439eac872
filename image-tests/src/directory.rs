//! Temporary directories that clients of other users can get at. Used by `device` and `authority`.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;

use std::path::Path;
use std::process::Command;

use anyhow::Result;
use tempfile::TempDir;

use crate::process::succeed;

/// A temporary directory through which other users reach what they may read.
pub fn readable_directory(prefix: &str) -> Result<TempDir> {
    let directory = tempfile::Builder::new().prefix(prefix).tempdir()?;
    fs::set_permissions(directory.path(), Permissions::from_mode(0o755))?;
    Ok(directory)
}

/// Copies everything below a directory, with owners, modes and times, into another one.
pub fn copy_tree(from: &Path, to: &Path) -> Result<()> {
    succeed(Command::new("cp").arg("-a").arg(from.join(".")).arg(to))?;
    Ok(())
}
