//! A device's file tree at one moment. Comparing two snapshots shows that nothing was changed.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// A snapshot keeps all content, so it is for small trees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot(BTreeMap<PathBuf, Entry>);

#[derive(Clone, PartialEq, Eq)]
pub struct Entry {
    /// Type and permissions.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub kind: Kind,
}

#[derive(Clone, PartialEq, Eq)]
pub enum Kind {
    Directory,
    /// Inode and modification time tell whether a file was written again.
    File {
        content: Vec<u8>,
        inode: u64,
        modified: (i64, i64),
    },
    Link(PathBuf),
    /// A socket, pipe or device.
    Special,
}

impl Snapshot {
    pub fn of(root: &Path) -> Result<Self> {
        let mut entries = BTreeMap::new();
        collect(root, root, &mut entries)
            .with_context(|| format!("cannot look through {}", root.display()))?;
        Ok(Self(entries))
    }

    /// All entries, by their path on the device ("/etc/machine-id").
    pub fn entries(&self) -> &BTreeMap<PathBuf, Entry> {
        &self.0
    }

    /// The total size of all regular files, bytes.
    pub fn bytes(&self) -> usize {
        let sizes = self.0.values().map(|entry| match &entry.kind {
            Kind::File { content, .. } => content.len(),
            _ => 0,
        });
        sizes.sum()
    }

    /// The snapshot without a path of the device and what is below it, which may change.
    pub fn without(mut self, of_device: impl AsRef<Path>) -> Self {
        self.0
            .retain(|path, _| !path.starts_with(of_device.as_ref()));
        self
    }

    /// The regular files that contain these bytes.
    pub fn files_with(&self, bytes: &[u8]) -> Vec<&Path> {
        self.0
            .iter()
            .filter(|(_, entry)| match &entry.kind {
                Kind::File { content, .. } => {
                    content.windows(bytes.len()).any(|part| part == bytes)
                }
                _ => false,
            })
            .map(|(path, _)| path.as_path())
            .collect()
    }

    /// A line for each path that differs; empty if none does.
    pub fn difference(&self, later: &Self) -> String {
        let mut lines = String::new();
        for (path, before) in &self.0 {
            let path_name = path.display();
            match later.0.get(path) {
                None => lines += &format!("- {path_name}  {before:?}\n"),
                Some(after) if after != before => {
                    lines += &format!("~ {path_name}  {before:?}\n  {path_name}  {after:?}\n");
                }
                Some(_) => {}
            }
        }
        for (path, entry) in later
            .0
            .iter()
            .filter(|(path, _)| !self.0.contains_key(*path))
        {
            lines += &format!("+ {}  {entry:?}\n", path.display());
        }
        lines
    }

    #[track_caller]
    pub fn assert_same(&self, later: &Self) {
        let difference = self.difference(later);
        assert!(difference.is_empty(), "the tree has changed:\n{difference}");
    }
}

fn collect(root: &Path, directory: &Path, entries: &mut BTreeMap<PathBuf, Entry>) -> Result<()> {
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        let metadata = fs::symlink_metadata(&path)?;
        let kind = match metadata.file_type() {
            kind if kind.is_dir() => Kind::Directory,
            kind if kind.is_symlink() => Kind::Link(fs::read_link(&path)?),
            kind if kind.is_file() => Kind::File {
                content: fs::read(&path)?,
                inode: metadata.ino(),
                modified: (metadata.mtime(), metadata.mtime_nsec()),
            },
            _ => Kind::Special,
        };
        let of_device = Path::new("/").join(path.strip_prefix(root)?);
        let (mode, uid, gid) = (metadata.mode(), metadata.uid(), metadata.gid());
        entries.insert(
            of_device,
            Entry {
                mode,
                uid,
                gid,
                kind,
            },
        );
        if metadata.is_dir() {
            collect(root, &path, entries)?;
        }
    }
    Ok(())
}

/// As in `ls -l`; of the content, which may be secret, only the size.
impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04o} {}:{} ", self.mode & 0o7777, self.uid, self.gid)?;
        match &self.kind {
            Kind::Directory => write!(f, "directory"),
            Kind::File {
                content,
                inode,
                modified,
            } => write!(
                f,
                "{} bytes, inode {inode}, modified {}.{:09}",
                content.len(),
                modified.0,
                modified.1
            ),
            Kind::Link(target) => write!(f, "-> {}", target.display()),
            Kind::Special => write!(f, "special"),
        }
    }
}
