//! Temporary directories that other users can enter, and copies of trees.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;

use std::path::Path;
use std::process::Command;

use anyhow::Result;
use tempfile::TempDir;

use crate::process::succeed;

/// A temporary directory that other users can enter.
pub fn readable_directory(prefix: &str) -> Result<TempDir> {
    let directory = tempfile::Builder::new().prefix(prefix).tempdir()?;
    fs::set_permissions(directory.path(), Permissions::from_mode(0o755))?;
    Ok(directory)
}

/// Copies everything below a directory into another one, with owners, modes and times.
pub fn copy_tree(from: &Path, to: &Path) -> Result<()> {
    succeed(Command::new("cp").arg("-a").arg(from.join(".")).arg(to))?;
    Ok(())
}
