//! A stopped thread of the program: its memory, descriptors and working directory.
//!
//! Source: proc(5), `/proc/pid/{mem,fd,cwd}`.

use std::ffi::{CStr, OsStr};
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use nix::libc::{AT_FDCWD, PATH_MAX};
use nix::unistd::Pid;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Tracee(pub Pid);

impl Tracee {
    /// The link to the open file, which works even if the file has no name any more.
    pub fn descriptor(self, number: u64) -> PathBuf {
        self.proc(&format!("fd/{}", number as i32))
    }

    /// A descriptor's path by the kernel; for a removed file, its last one.
    pub fn descriptor_path(self, number: u64) -> Option<PathBuf> {
        let path = fs::read_link(self.descriptor(number)).ok()?;
        let bytes = path.as_os_str().as_bytes();
        let bytes = bytes.strip_suffix(b" (deleted)").unwrap_or(bytes);
        Some(OsStr::from_bytes(bytes).into())
    }

    /// The path at an address, resolved as the *at() calls do, without following the last component.
    pub fn path(self, directory: u64, address: u64) -> Result<PathBuf> {
        let given = self.string(address)?;
        let base = if directory as i32 == AT_FDCWD {
            self.proc("cwd")
        } else {
            self.descriptor(directory)
        };
        let path = fs::read_link(&base).unwrap_or(base).join(&given);
        // If the directory is missing or unreadable, the call will fail, too.
        match (path.parent().map(Path::canonicalize), path.file_name()) {
            (Some(Ok(parent)), Some(name)) => Ok(parent.join(name)),
            _ => Ok(path.canonicalize().unwrap_or(path)),
        }
    }

    /// A 64-bit word at an address.
    pub fn word(self, address: u64) -> Result<u64> {
        let mut word = [0; 8];
        File::open(self.proc("mem"))?.read_exact_at(&mut word, address)?;
        Ok(u64::from_le_bytes(word))
    }

    fn string(self, address: u64) -> Result<PathBuf> {
        let mut bytes = vec![0; PATH_MAX as usize];
        // A short read if the next page is not mapped.
        let length = File::open(self.proc("mem"))?.read_at(&mut bytes, address)?;
        let string = CStr::from_bytes_until_nul(&bytes[..length]).context("a path without end")?;
        Ok(OsStr::from_bytes(string.to_bytes()).into())
    }

    fn proc(self, name: &str) -> PathBuf {
        format!("/proc/{}/{name}", self.0).into()
    }
}
