//! What a power cut leaves of unsynced writes.
//!
//! The model:
//!
//! - *Content and length* of a file are durable once fsync or fdatasync of it, or sync, has returned. Each later
//!   version of it is a write that may or may not have reached the disk: each sector, and the length, is independently
//!   as it was in any version since the last sync. If the length is new and a sector is not, it has zeros or the old
//!   bytes.
//! - *Mode and owner* likewise, but only fsync makes them durable.
//! - *Names* (create, link, rename, unlink, mkdir, rmdir) are durable once fsync or fdatasync of a directory that the
//!   change is in, or sync, has returned. A rename happens completely or not at all. Later changes are kept in order up
//!   to some point (a journalling file system: ext4, XFS, Btrfs) or independently (ext2, FAT), as [`Loss`] says.
//!
//! The model loses more than real file systems do, so that what passes here depends on none of them: ext4 commits all
//! earlier metadata with any fsync, even of a file, and by default writes a file out before a rename over another one
//! (auto_da_alloc); here only fsync counts. ext4 does not lengthen a file before its data is written (data=ordered);
//! here it may be.
//!
//! It loses less in these respects: a rename is atomic, which FAT's is not; sectors are never torn; a disk's cache
//! obeys flushes; no file system needs repair.

use std::collections::HashMap;
use std::path::PathBuf;

use fastrand::Rng;

use super::disk::{Attributes, Entry, Thing, Tree};
use super::history::{Change, Effect, History, Node, Place, ROOT};

/// The unit that disks and cards write as a whole, bytes.
const SECTOR: usize = 512;

/// Which of the changes that are not durable are lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// None: the processes were killed, but not the kernel.
    Nothing,
    /// Content and attributes, but no names: empty files.
    Data,
    /// Names, but no content.
    Names,
    Everything,
    /// Names after some point, and any content; drawn with this seed.
    Ordered(u64),
    /// Any names and any content; drawn with this seed.
    Unordered(u64),
}

/// The directory after a power cut that follows the first `point` calls.
pub fn tree(history: &History, point: usize, loss: Loss) -> Tree {
    let seed = match loss {
        Loss::Ordered(seed) | Loss::Unordered(seed) => seed,
        _ => 0,
    };
    let effects = history.effects[..point].iter().flatten().collect();
    // The same seed has to draw differently at each point.
    let draws = Rng::with_seed(seed ^ (point as u64).rotate_left(32));
    Replay {
        history,
        effects,
        loss,
        draws,
    }
    .tree()
}

/// What an effect means for one file.
enum Happens<T> {
    Change(T),
    Sync,
    Nothing,
}

struct Replay<'a> {
    history: &'a History,
    effects: Vec<&'a Effect>,
    loss: Loss,
    draws: Rng,
}

impl<'a> Replay<'a> {
    fn tree(mut self) -> Tree {
        let mut inside: HashMap<Node, Vec<(PathBuf, Node)>> = HashMap::new();
        for ((directory, name), node) in self.names() {
            inside
                .entry(directory)
                .or_default()
                .push((name.into(), node));
        }
        let mut tree = Tree::new();
        let mut left = vec![(PathBuf::new(), ROOT)];
        while let Some((path, node)) = left.pop() {
            // Removed: a directory has only one name.
            let mut children = inside.remove(&node).unwrap_or_default();
            children.sort();
            left.extend(
                children
                    .into_iter()
                    .map(|(name, child)| (path.join(name), child)),
            );
            tree.insert(path, self.entry(node));
        }
        tree
    }

    /// The directory entries after the cut.
    fn names(&mut self) -> HashMap<Place, Node> {
        let changes: Vec<(&[Change], bool)> = self
            .effects
            .iter()
            .enumerate()
            .filter_map(|(at, effect)| match effect {
                Effect::Names(changes) => Some((&changes[..], self.is_durable(changes, at))),
                _ => None,
            })
            .collect();
        let durable = changes
            .iter()
            .rposition(|(_, durable)| *durable)
            .map_or(0, |last| last + 1);
        let kept = self.draws.usize(durable..=changes.len());
        let mut names = self.history.names.clone();
        for (at, (changes, durable)) in changes.into_iter().enumerate() {
            let found = match self.loss {
                Loss::Nothing | Loss::Data => true,
                Loss::Names | Loss::Everything => durable,
                Loss::Ordered(_) => at < kept,
                Loss::Unordered(_) => {
                    // A change that depends on a lost one is lost, too.
                    let fits = |change: &Change| names.get(&change.place) == change.before.as_ref();
                    durable || (self.draws.bool() && changes.iter().all(fits))
                }
            };
            if found {
                for Change { place, after, .. } in changes {
                    match after {
                        Some(node) => names.insert(place.clone(), *node),
                        None => names.remove(place),
                    };
                }
            }
        }
        names
    }

    fn is_durable(&self, changes: &[Change], at: usize) -> bool {
        self.effects[at..].iter().any(|effect| match effect {
            Effect::Sync(node) | Effect::SyncData(node) => {
                changes.iter().any(|change| change.place.0 == *node)
            }
            Effect::SyncAll => true,
            _ => false,
        })
    }

    fn entry(&mut self, node: Node) -> Entry {
        let born = &self.history.nodes[node];
        let thing = match &born.thing {
            Thing::File(content) => Thing::File(self.content(node, content)),
            other => other.clone(),
        };
        Entry {
            attributes: self.attributes(node, born.attributes),
            thing,
        }
    }

    fn attributes(&mut self, node: Node, first: Attributes) -> Attributes {
        let versions = self.versions(first, |effect| match effect {
            Effect::Attributes(changed, now) if *changed == node => Happens::Change(*now),
            Effect::Sync(synced) if *synced == node => Happens::Sync,
            Effect::SyncAll => Happens::Sync,
            _ => Happens::Nothing,
        });
        versions[self.version(versions.len())]
    }

    fn content(&mut self, node: Node, first: &'a [u8]) -> Vec<u8> {
        let versions = self.versions(first, |effect| match effect {
            Effect::Content(changed, now) if *changed == node => Happens::Change(&now[..]),
            Effect::Sync(synced) | Effect::SyncData(synced) if *synced == node => Happens::Sync,
            Effect::SyncAll => Happens::Sync,
            _ => Happens::Nothing,
        });
        let mut content = vec![0; versions[self.version(versions.len())].len()];
        for (number, sector) in content.chunks_mut(SECTOR).enumerate() {
            let version = versions[self.version(versions.len())];
            let old = version.get(number * SECTOR..).unwrap_or_default();
            let size = old.len().min(sector.len());
            sector[..size].copy_from_slice(&old[..size]);
        }
        content
    }

    /// The versions that the cut may leave: the durable one first, then the later ones.
    fn versions<T>(&self, first: T, happens: impl Fn(&'a Effect) -> Happens<T>) -> Vec<T> {
        let mut versions = vec![first];
        for effect in &self.effects {
            match happens(effect) {
                Happens::Change(now) => versions.push(now),
                Happens::Sync => drop(versions.drain(..versions.len() - 1)),
                Happens::Nothing => {}
            }
        }
        versions
    }

    /// Which of so many versions the cut leaves: the first is the durable one, the last the newest.
    fn version(&mut self, versions: usize) -> usize {
        match self.loss {
            Loss::Nothing | Loss::Names => versions - 1,
            Loss::Data | Loss::Everything => 0,
            // The first and the last twice as often: real disks mostly leave all of a file or nothing.
            Loss::Ordered(_) | Loss::Unordered(_) => match self.draws.usize(..versions + 2) {
                drawn if drawn < versions => drawn,
                drawn if drawn == versions => 0,
                _ => versions - 1,
            },
        }
    }
}
