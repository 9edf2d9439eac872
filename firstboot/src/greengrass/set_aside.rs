//! What was moved away instead of removed: files in Greengrass's directories that are no longer read.

use std::path::PathBuf;

use super::{derived, spec, unreadable};
use crate::layout::Layout;
use crate::settings::Edition;

/// The files that were set aside: main files that could not be read, and state of unknown origin.
pub fn files_set_aside(layout: &Layout) -> Vec<PathBuf> {
    let of_edition = |edition| {
        let spec = spec(edition);
        let state = spec
            .derived
            .iter()
            .map(|place| derived::earlier(&layout.at(place)));
        std::iter::once(unreadable(&layout.at(spec.main))).chain(state)
    };
    let all = Edition::ALL.into_iter().flat_map(of_edition);
    all.filter(|path| path.symlink_metadata().is_ok()).collect()
}
