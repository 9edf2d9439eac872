//! The system calls that are storage calls, and what they work on.
//!
//! Numbers: `SYS_*` of the libc crate; arguments: section 2 of the Linux manual pages.

use std::fmt;
use std::path::{self, PathBuf};

use anyhow::Result;
use nix::libc;

use super::tracee::Tracee;

/// What a storage call does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// An open with O_CREAT or O_TRUNC.
    Open,
    /// Changes a file's content or length.
    Content,
    Attributes,
    Rename,
    Link,
    Symlink,
    Unlink,
    MakeDirectory,
    RemoveDirectory,
    /// fsync.
    Sync,
    /// fdatasync.
    SyncData,
    /// sync and syncfs.
    SyncAll,
}

/// A system call that changes something below the watched directory or makes it durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StorageCall {
    pub name: &'static str,
    pub kind: Kind,
    pub path: PathBuf,
    /// The new name, in a rename or a link.
    pub to: Option<PathBuf>,
    /// The descriptor that it works on.
    pub(super) descriptor: Option<u64>,
}

impl fmt::Display for StorageCall {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        write!(formatter, "{} {}", self.name, self.path.display())?;
        match &self.to {
            Some(to) => write!(formatter, " -> {}", to.display()),
            None => Ok(()),
        }
    }
}

/// Which arguments say what the call works on, by number.
#[derive(Clone, Copy)]
enum Target {
    Nothing,
    Descriptor(usize),
    /// A path relative to the working directory.
    Path(usize),
    /// The descriptor of a directory, and a path relative to it.
    At(usize, usize),
    Paths(usize, usize),
    Ats(usize, usize, usize, usize),
}

use Kind::*;
use Target::*;

/// fchmodat2, newer than the libc crate's list for this target: syscall_64.tbl.
const SYS_FCHMODAT2: i64 = 452;

/// Left out: calls that change only times or extended attributes, and those whose effect has no certain moment (shared
/// memory mappings, io_uring).
const CALLS: &[(i64, &str, Kind, Target)] = &[
    (libc::SYS_open, "open", Open, Path(0)),
    (libc::SYS_openat, "openat", Open, At(0, 1)),
    (libc::SYS_openat2, "openat2", Open, At(0, 1)),
    (libc::SYS_creat, "creat", Open, Path(0)),
    (libc::SYS_write, "write", Content, Descriptor(0)),
    (libc::SYS_pwrite64, "pwrite64", Content, Descriptor(0)),
    (libc::SYS_writev, "writev", Content, Descriptor(0)),
    (libc::SYS_pwritev, "pwritev", Content, Descriptor(0)),
    (libc::SYS_pwritev2, "pwritev2", Content, Descriptor(0)),
    (libc::SYS_sendfile, "sendfile", Content, Descriptor(0)),
    (
        libc::SYS_copy_file_range,
        "copy_file_range",
        Content,
        Descriptor(2),
    ),
    (libc::SYS_splice, "splice", Content, Descriptor(2)),
    (libc::SYS_fallocate, "fallocate", Content, Descriptor(0)),
    (libc::SYS_ftruncate, "ftruncate", Content, Descriptor(0)),
    (libc::SYS_truncate, "truncate", Content, Path(0)),
    (libc::SYS_chmod, "chmod", Attributes, Path(0)),
    (libc::SYS_fchmod, "fchmod", Attributes, Descriptor(0)),
    (libc::SYS_fchmodat, "fchmodat", Attributes, At(0, 1)),
    (SYS_FCHMODAT2, "fchmodat2", Attributes, At(0, 1)),
    (libc::SYS_chown, "chown", Attributes, Path(0)),
    (libc::SYS_lchown, "lchown", Attributes, Path(0)),
    (libc::SYS_fchown, "fchown", Attributes, Descriptor(0)),
    (libc::SYS_fchownat, "fchownat", Attributes, At(0, 1)),
    (libc::SYS_rename, "rename", Rename, Paths(0, 1)),
    (libc::SYS_renameat, "renameat", Rename, Ats(0, 1, 2, 3)),
    (libc::SYS_renameat2, "renameat2", Rename, Ats(0, 1, 2, 3)),
    (libc::SYS_link, "link", Link, Paths(0, 1)),
    (libc::SYS_linkat, "linkat", Link, Ats(0, 1, 2, 3)),
    (libc::SYS_symlink, "symlink", Symlink, Path(1)),
    (libc::SYS_symlinkat, "symlinkat", Symlink, At(1, 2)),
    (libc::SYS_unlink, "unlink", Unlink, Path(0)),
    (libc::SYS_unlinkat, "unlinkat", Unlink, At(0, 1)),
    (libc::SYS_mkdir, "mkdir", MakeDirectory, Path(0)),
    (libc::SYS_mkdirat, "mkdirat", MakeDirectory, At(0, 1)),
    (libc::SYS_rmdir, "rmdir", RemoveDirectory, Path(0)),
    (libc::SYS_fsync, "fsync", Sync, Descriptor(0)),
    (libc::SYS_fdatasync, "fdatasync", SyncData, Descriptor(0)),
    (libc::SYS_sync, "sync", SyncAll, Nothing),
    (libc::SYS_syncfs, "syncfs", SyncAll, Descriptor(0)),
];

/// The storage call that the thread is entering; `None` for other system calls, and for those that concern nothing
/// below `directory`.
pub fn decode(
    number: u64,
    arguments: &[u64; 6],
    thread: Tracee,
    directory: &path::Path,
) -> Result<Option<StorageCall>> {
    let Some(&(_, name, kind, target)) = CALLS.iter().find(|call| call.0 as u64 == number) else {
        return Ok(None);
    };
    let changing = (libc::O_CREAT | libc::O_TRUNC) as u64;
    if kind == Open && open_flags(name, arguments, thread)? & changing == 0 {
        return Ok(None);
    }
    const HERE: u64 = libc::AT_FDCWD as u64;
    let at = |base, path: usize| thread.path(base, arguments[path]);
    let (path, to) = match target {
        Nothing => (directory.to_owned(), None),
        Descriptor(number) => match thread.descriptor_path(arguments[number]) {
            Some(path) => (path, None),
            None => return Ok(None),
        },
        Path(path) => (at(HERE, path)?, None),
        At(base, path) => (at(arguments[base], path)?, None),
        Paths(from, to) => (at(HERE, from)?, Some(at(HERE, to)?)),
        Ats(base, from, other, to) => (at(arguments[base], from)?, Some(at(arguments[other], to)?)),
    };
    let below = |path: &path::Path| path.starts_with(directory);
    if !below(&path) && !to.as_deref().is_some_and(below) {
        return Ok(None);
    }
    let descriptor = match target {
        Descriptor(number) => Some(arguments[number]),
        _ => None,
    };
    Ok(Some(StorageCall {
        name,
        kind,
        path,
        to,
        descriptor,
    }))
}

fn open_flags(name: &str, arguments: &[u64; 6], thread: Tracee) -> Result<u64> {
    Ok(match name {
        "open" => arguments[1],
        "openat" => arguments[2],
        // The first member of struct open_how.
        "openat2" => thread.word(arguments[2])?,
        _ => (libc::O_CREAT | libc::O_TRUNC) as u64,
    })
}
