//! Records a run's storage calls and what they change.
//!
//! After each call the recorder reads the directory, not the call's data: it keeps a write as the file's whole new
//! content, whichever system call it was. Files here are small. They are identified by device and inode, so that
//! renamed files, and removed ones that are still open, are followed.
//!
//! Changes that bypass storage calls (shared memory mappings, io_uring, processes that the program did not start) are
//! not seen; [`super::Recording::make`] compares at the end, and fails.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use anyhow::{Context, Result};

use super::call::{Kind, StorageCall};
use super::disk::{self, Attributes, Thing};
use super::history::{Change, Effect, History, Node, Place};
use super::tracee::Tracee;
use super::tracer::{Observer, Verdict};

/// The directory's state while the program runs.
pub struct Recorder<'a> {
    at_point: &'a mut (dyn FnMut(usize) -> Result<()> + Send),
    pub history: History,
    names: HashMap<Place, Node>,
    /// By device and inode; a reused inode belongs to the newest node.
    inodes: HashMap<(u64, u64), Node>,
    /// For threads inside a call: the call's number, and whether its path existed before.
    inside: HashMap<Tracee, (usize, bool)>,
}

impl<'a> Recorder<'a> {
    pub fn new(
        directory: &Path,
        at_point: &'a mut (dyn FnMut(usize) -> Result<()> + Send),
    ) -> Result<Self> {
        let mut recorder = Self {
            at_point,
            history: History::default(),
            names: HashMap::new(),
            inodes: HashMap::new(),
            inside: HashMap::new(),
        };
        recorder
            .adopt(directory)?
            .context("the directory to watch")?;
        recorder.history.names = recorder.names.clone();
        Ok(recorder)
    }

    /// Adds what is at a path, with everything below it.
    fn adopt(&mut self, path: &Path) -> Result<Option<Node>> {
        let Some((metadata, entry)) = disk::read_entry(path)? else {
            return Ok(None);
        };
        let directory = entry.thing == Thing::Directory;
        let node = self.history.nodes.len();
        self.history.nodes.push(entry);
        self.inodes.insert((metadata.dev(), metadata.ino()), node);
        if directory {
            for child in fs::read_dir(path)? {
                let child = child?;
                if let Some(inner) = self.adopt(&child.path())? {
                    self.names.insert((node, child.file_name()), inner);
                }
            }
        }
        Ok(Some(node))
    }

    fn node_at(&self, path: &Path) -> Option<Node> {
        let metadata = path.symlink_metadata().ok()?;
        self.inodes.get(&(metadata.dev(), metadata.ino())).copied()
    }

    /// The node of an open file, by its link in /proc.
    fn open_node(&self, link: &Path) -> Option<Node> {
        let metadata = link.metadata().ok()?;
        self.inodes.get(&(metadata.dev(), metadata.ino())).copied()
    }

    /// Makes `path` the name of this node. Returns `None` if it is outside the directory.
    fn rename_place(&mut self, path: &Path, after: Option<Node>) -> Option<Change> {
        let place = (self.node_at(path.parent()?)?, path.file_name()?.to_owned());
        let before = match after {
            Some(node) => self.names.insert(place.clone(), node),
            None => self.names.remove(&place),
        };
        Some(Change {
            place,
            before,
            after,
        })
    }

    fn created(&mut self, path: &Path) -> Result<Vec<Effect>> {
        let node = self.adopt(path)?;
        Ok(vec![Effect::Names(
            self.rename_place(path, node).into_iter().collect(),
        )])
    }

    /// Updates the name to what is there now. A file from outside the directory counts as not durable.
    fn found(&mut self, path: &Path) -> Result<(Option<Change>, Option<Effect>)> {
        let mut effect = None;
        let mut node = self.node_at(path);
        if node.is_none() && path.symlink_metadata().is_ok() {
            node = self.adopt(path)?;
            if let Some(node) = node
                && let Thing::File(content) = &mut self.history.nodes[node].thing
            {
                effect = Some(Effect::Content(node, std::mem::take(content)));
            }
        }
        Ok((self.rename_place(path, node), effect))
    }

    fn effects_of(
        &mut self,
        call: &StorageCall,
        thread: Tracee,
        existed: bool,
    ) -> Result<Vec<Effect>> {
        let file = match call.descriptor {
            Some(number) => thread.descriptor(number),
            None => call.path.clone(),
        };
        let node = self.open_node(&file);
        let of_node = |effect: fn(Node) -> Effect| node.map(effect).into_iter().collect();
        Ok(match call.kind {
            Kind::Open if !existed => self.created(&call.path)?,
            Kind::MakeDirectory | Kind::Symlink => self.created(&call.path)?,
            Kind::Open | Kind::Content => match node {
                Some(node) => vec![Effect::Content(node, fs::read(&file)?)],
                None => Vec::new(),
            },
            Kind::Attributes => match node {
                Some(node) => vec![Effect::Attributes(node, Attributes::of(&file.metadata()?))],
                None => Vec::new(),
            },
            Kind::Rename | Kind::Link => {
                let mut changes = Vec::new();
                let mut effects = Vec::new();
                for path in [call.to.as_ref(), Some(&call.path)].into_iter().flatten() {
                    let (change, content) = self.found(path)?;
                    changes.extend(change);
                    effects.extend(content);
                }
                effects.push(Effect::Names(changes));
                effects
            }
            Kind::Unlink | Kind::RemoveDirectory => {
                vec![Effect::Names(
                    self.rename_place(&call.path, None).into_iter().collect(),
                )]
            }
            Kind::Sync => of_node(Effect::Sync),
            Kind::SyncData => of_node(Effect::SyncData),
            Kind::SyncAll => vec![Effect::SyncAll],
        })
    }
}

impl Observer for Recorder<'_> {
    fn enter(&mut self, call: &StorageCall, thread: Tracee) -> Result<Verdict> {
        (self.at_point)(self.history.effects.len())?;
        let existed = call.path.symlink_metadata().is_ok();
        self.inside
            .insert(thread, (self.history.effects.len(), existed));
        self.history.effects.push(Vec::new());
        Ok(Verdict::Go)
    }

    fn exit(&mut self, call: &StorageCall, thread: Tracee, result: i64) -> Result<Verdict> {
        let (index, existed) = self.inside.remove(&thread).unwrap_or_default();
        if result >= 0 {
            self.history.effects[index] = self
                .effects_of(call, thread, existed)
                .with_context(|| format!("to record {call}"))?;
        }
        Ok(Verdict::Go)
    }
}
