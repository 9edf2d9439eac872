//! Files that are there whole or not at all, and that survive a power cut.
//!
//! The order is always the same: write a temporary file beside it, sync that, rename it over the target, sync the
//! directory. rename(2) is atomic, fsync(2) of the directory makes the new name durable.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

use nix::fcntl::{AT_FDCWD, OFlag, RenameFlags, renameat2};
use nix::unistd::{Uid, geteuid};

use crate::error::{Context, Error, Kind, Result};

/// Who may do what with a file; `None` on FAT, which has neither owners nor modes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access {
    /// Permission bits, e.g. 0o440.
    pub mode: u32,
    /// The group; the owner is always root.
    pub group: Option<u32>,
}

/// The owner that files have to have; none for another user than root, who cannot give files away.
fn owner() -> Option<Uid> {
    geteuid().is_root().then_some(Uid::from_raw(0))
}

impl Access {
    /// Only for root.
    pub const PRIVATE: Self = Self {
        mode: 0o600,
        group: None,
    };
    /// Readable by everybody.
    pub const PUBLIC: Self = Self {
        mode: 0o644,
        group: None,
    };
}

/// The name under which a file is written before it is renamed to `path`.
pub fn temp_path(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    path.with_file_name(name)
}

/// Writes `content` to `path`, atomically and durably. A symbolic link at `path` is replaced, not
/// followed.
pub fn write(path: &Path, content: &[u8], access: Option<Access>) -> Result<()> {
    write_without_dir_sync(path, content, access)?;
    sync_parent_io(path).context(Kind::CannotWrite, || {
        format!("cannot write {}", path.display())
    })
}

/// The same for one of several files in a directory that the caller syncs afterwards: only then is the name durable.
pub fn write_without_dir_sync(path: &Path, content: &[u8], access: Option<Access>) -> Result<()> {
    let attempt = || -> io::Result<()> {
        let new = temp_path(path);
        remove_if_there(&new)?;
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&new)?;
        file.write_all(content)?;
        if let Some(access) = access {
            give(&file, access)?;
        }
        file.sync_all()?;
        fs::rename(&new, path)
    };
    attempt().context(Kind::CannotWrite, || {
        format!("cannot write {}", path.display())
    })
}

/// Creates an empty file, whose name is all that matters, durably; keeps an existing one.
pub fn make_empty(path: &Path) -> Result<()> {
    OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .and_then(|_| sync_parent_io(path))
        .context(Kind::CannotWrite, || {
            format!("cannot write {}", path.display())
        })
}

/// Changes owner, group and mode of the file or directory at `path`, durably. A symbolic link is refused: its target
/// belongs to somebody else.
pub fn set_access(path: &Path, access: Access) -> Result<()> {
    let attempt = || -> io::Result<()> {
        let file = OpenOptions::new()
            .read(true)
            .custom_flags((OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK).bits())
            .open(path)
            .map_err(|e| match e.raw_os_error() {
                Some(libc::ELOOP) => io::Error::other("it is a symbolic link"),
                _ => e,
            })?;
        give(&file, access)?;
        file.sync_all()
    };
    attempt().context(Kind::CannotWrite, || {
        format!("cannot set owner and mode of {}", path.display())
    })
}

/// The owner first: the previous one could open the file again under a new mode.
fn give(file: &File, access: Access) -> io::Result<()> {
    fchown(file, owner().map(Uid::as_raw), access.group)?;
    file.set_permissions(Permissions::from_mode(access.mode))
}

/// Whether `path` itself, not a link's target, has this owner, mode and group. Without a group, any will do.
pub fn has_access(path: &Path, access: Access) -> bool {
    fs::symlink_metadata(path).is_ok_and(|m| {
        !m.is_symlink()
            && m.mode() & 0o7777 == access.mode
            && owner().is_none_or(|owner| m.uid() == owner.as_raw())
            && access.group.is_none_or(|group| m.gid() == group)
    })
}

/// Whether the file is there with this content, owner, mode and group.
pub fn is_written(path: &Path, content: &[u8], access: Access) -> bool {
    // Nothing longer is read.
    has_access(path, access)
        && matches!(read(path, content.len()), Ok(Some(there)) if there == content)
}

/// Makes `path` and its missing parents; only the last gets `mode`. Durable.
pub fn make_directory(path: &Path, mode: u32) -> Result<()> {
    let attempt = || -> io::Result<()> {
        if path.is_dir() {
            return Ok(());
        }
        let mut missing: Vec<&Path> = path.ancestors().take_while(|p| !p.exists()).collect();
        missing.reverse();
        for directory in missing {
            match fs::create_dir(directory) {
                // Another firstboot has made it in the meantime.
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists && directory.is_dir() => {}
                made => made?,
            }
            let mode = if directory == path { mode } else { 0o755 };
            // FAT refuses the mode, and needs none.
            let _ = fs::set_permissions(directory, Permissions::from_mode(mode));
            sync_parent_io(directory)?;
        }
        Ok(())
    };
    attempt().context(Kind::CannotWrite, || {
        format!("cannot create the directory {}", path.display())
    })
}

/// Renames, durably. The target must not be a directory with something in it.
pub fn rename(from: &Path, to: &Path) -> Result<()> {
    fs::rename(from, to)
        .and_then(|()| sync_parent_io(to))
        .context(Kind::CannotWrite, || {
            format!("cannot rename {} to {}", from.display(), to.display())
        })
}

/// Has two names in one directory change places, in one step (renameat2(2), RENAME_EXCHANGE), durably. Not every file
/// system can do that; ext4, Btrfs, XFS and F2FS can.
pub fn exchange(one: &Path, other: &Path) -> Result<()> {
    renameat2(AT_FDCWD, one, AT_FDCWD, other, RenameFlags::RENAME_EXCHANGE)
        .map_err(io::Error::from)
        .and_then(|()| sync_parent_io(one))
        .context(Kind::CannotWrite, || {
            format!("cannot exchange {} and {}", one.display(), other.display())
        })
}

/// Removes a file if it is there, durably.
pub fn remove(path: &Path) -> Result<()> {
    remove_if_there(path)
        .and_then(|removed| {
            if removed {
                sync_parent_io(path)
            } else {
                Ok(())
            }
        })
        .context(Kind::CannotWrite, || {
            format!("cannot remove {}", path.display())
        })
}

/// Overwrites a file with zeros in place, and removes it, durably; anything but a regular file is only removed. Flash
/// may keep an older copy of the blocks, which no program can reach.
pub fn overwrite_and_remove(path: &Path) -> Result<()> {
    let attempt = || -> io::Result<()> {
        let is_file = match fs::symlink_metadata(path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
            metadata => metadata?.is_file(),
        };
        if is_file {
            let mut file = OpenOptions::new()
                .write(true)
                .custom_flags((OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK).bits())
                .open(path)?;
            let length = file.metadata()?.len();
            io::copy(&mut io::repeat(0).take(length), &mut file)?;
            file.sync_all()?;
        }
        fs::remove_file(path)?;
        sync_parent_io(path)
    };
    attempt().context(Kind::CannotWrite, || {
        format!("cannot overwrite and remove {}", path.display())
    })
}

/// Removes a directory with its contents if it is there, durably.
pub fn remove_tree(path: &Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other,
    }
    .and_then(|()| sync_parent_io(path))
    .context(Kind::CannotWrite, || {
        format!("cannot remove {}", path.display())
    })
}

/// Makes the names in a directory durable.
pub fn sync_directory(path: &Path) -> Result<()> {
    File::open(path)
        .and_then(|d| d.sync_all())
        .context(Kind::CannotWrite, || {
            format!("cannot sync {}", path.display())
        })
}

/// Reads a regular file of at most `limit` bytes; `None` if there is none. Symbolic links, devices and longer files are
/// refused: anybody who had the card may have made the file.
pub fn read(path: &Path, limit: usize) -> Result<Option<Vec<u8>>> {
    let refuse = |why: &str| {
        Err(Error::other(format!(
            "cannot read {}: {why}",
            path.display()
        )))
    };
    let file = OpenOptions::new()
        .read(true)
        // O_NONBLOCK: a FIFO must not block the boot.
        .custom_flags((OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK).bits())
        .open(path);
    let file = match file {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) if e.raw_os_error() == Some(libc::ELOOP) => return refuse("it is a symbolic link"),
        other => other.context(Kind::Other, || format!("cannot read {}", path.display()))?,
    };
    let mut content = Vec::new();
    let mut attempt = || -> io::Result<bool> {
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Ok(false);
        }
        // One call reads it, and another finds the end.
        content.reserve_exact((metadata.len() as usize).min(limit) + 1);
        (&file).take(limit as u64 + 1).read_to_end(&mut content)?;
        Ok(true)
    };
    if !attempt().context(Kind::Other, || format!("cannot read {}", path.display()))? {
        return refuse("it is not a regular file");
    }
    if content.len() > limit {
        return refuse(&format!("it is larger than {limit} bytes"));
    }
    Ok(Some(content))
}

fn remove_if_there(path: &Path) -> io::Result<bool> {
    match fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(e) => Err(e),
    }
}

fn sync_parent_io(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(parent) => File::open(parent)?.sync_all(),
        None => Ok(()),
    }
}
