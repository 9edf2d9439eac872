//! What a run's storage calls changed, in order.

use std::collections::HashMap;
use std::ffi::OsString;

use super::disk::{Attributes, Entry};

/// A file, directory or link since its creation: its index in [`History::nodes`].
pub type Node = usize;
/// The watched directory itself.
pub const ROOT: Node = 0;
/// A name in a directory.
pub type Place = (Node, OsString);

/// One change by a call.
#[derive(Debug)]
pub enum Effect {
    /// Directory entries, all at once.
    Names(Vec<Change>),
    /// The file's new content.
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

/// The directory before the first call, and what each call changed.
#[derive(Debug, Default)]
pub struct History {
    /// As they were when they were created or first seen.
    pub nodes: Vec<Entry>,
    /// The names before the first call.
    pub names: HashMap<Place, Node>,
    /// The effects of each call.
    pub effects: Vec<Vec<Effect>>,
}
