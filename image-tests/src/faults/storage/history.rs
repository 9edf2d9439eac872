//! What storage calls have changed, one after the other.

use std::collections::HashMap;
use std::ffi::OsString;

use super::disk::{Attributes, Entry};

/// A file, directory or link, from its creation on: its number in [`History::nodes`].
pub type Node = usize;
/// The watched directory itself.
pub const ROOT: Node = 0;
/// A name in a directory.
pub type Place = (Node, OsString);

/// What a call has changed.
#[derive(Debug)]
pub enum Effect {
    /// directory entries, all at once
    Names(Vec<Change>),
    /// what the file holds now
    Content(Node, Vec<u8>),
    Attributes(Node, Attributes),
    Sync(Node),
    SyncData(Node),
    SyncAll,
}

#[derive(Debug)]
pub struct Change {
    pub place: Place,
    pub before: Option<Node>,
    pub after: Option<Node>,
}

/// The directory before the first call, and what each call has changed.
#[derive(Debug, Default)]
pub struct History {
    /// As they were when they came into being or into sight.
    pub nodes: Vec<Entry>,
    /// The names before the first call.
    pub names: HashMap<Place, Node>,
    /// Those of each call.
    pub effects: Vec<Vec<Effect>>,
}
