//! A directory tree in memory, to be compared, kept and written.

use std::collections::BTreeMap;
use std::fs::{self, Metadata, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, lchown, symlink};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// By paths relative to the root, whose own path is empty. Parents come first.
pub type Tree = BTreeMap<PathBuf, Entry>;

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Entry {
    pub attributes: Attributes,
    pub thing: Thing,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Thing {
    Directory,
    File(Vec<u8>),
    Symlink(PathBuf),
}

/// Mode and owner. Times are not modelled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Attributes {
    mode: u32,
    owner: u32,
    group: u32,
}

impl Attributes {
    pub fn of(metadata: &Metadata) -> Self {
        let mode = metadata.mode() & 0o7777;
        Self {
            mode,
            owner: metadata.uid(),
            group: metadata.gid(),
        }
    }
}

/// What is at a path; `None` if it holds no data, such as a socket.
pub fn read_entry(path: &Path) -> Result<Option<(Metadata, Entry)>> {
    let metadata = path
        .symlink_metadata()
        .with_context(|| format!("to read {path:?}"))?;
    let kind = metadata.file_type();
    let thing = if kind.is_dir() {
        Thing::Directory
    } else if kind.is_symlink() {
        Thing::Symlink(fs::read_link(path)?)
    } else if kind.is_file() {
        Thing::File(fs::read(path)?)
    } else {
        return Ok(None);
    };
    let attributes = Attributes::of(&metadata);
    Ok(Some((metadata, Entry { attributes, thing })))
}

/// Everything below a directory, and the directory itself.
pub fn read(root: &Path) -> Result<Tree> {
    let mut tree = Tree::new();
    let mut left = vec![PathBuf::new()];
    while let Some(path) = left.pop() {
        let Some((_, entry)) = read_entry(&root.join(&path))? else {
            continue;
        };
        if entry.thing == Thing::Directory {
            for child in fs::read_dir(root.join(&path))? {
                left.push(path.join(child?.file_name()));
            }
        }
        tree.insert(path, entry);
    }
    Ok(tree)
}

/// Writes the tree into an existing, empty directory.
pub fn write(tree: &Tree, root: &Path) -> Result<()> {
    for (path, Entry { attributes, thing }) in tree {
        let path = if path.as_os_str().is_empty() {
            root.to_owned()
        } else {
            root.join(path)
        };
        match thing {
            Thing::Directory if path == root => {}
            Thing::Directory => fs::create_dir(&path)?,
            Thing::File(content) => fs::write(&path, content)?,
            Thing::Symlink(target) => symlink(target, &path)?,
        }
        lchown(&path, Some(attributes.owner), Some(attributes.group))?;
        if !matches!(thing, Thing::Symlink(_)) {
            // After the owner, because changing that clears the set-user-ID bit.
            fs::set_permissions(&path, Permissions::from_mode(attributes.mode))?;
        }
    }
    Ok(())
}
