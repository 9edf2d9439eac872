//! The state that Greengrass itself derives from a configuration: removed or set aside when the identity changes.
//!
//! nucleus lite's is in a directory of its daemons' user, who can put anything there. No link there is followed, and
//! anything but a file never stops root: Greengrass does not read it either.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use firstboot_formats::files;
use log::{info, warn};

use crate::error::Result;
use crate::layout::Layout;

/// Removes the state of an earlier identity, which contains copies of its PIN.
pub fn remove(layout: &Layout, places: &[&str]) -> Result<()> {
    for path in found(layout, places) {
        info!(
            "removing {}, which belongs to an earlier identity",
            path.display()
        );
        discard(&path)?;
    }
    Ok(())
}

/// Sets aside state of unknown origin, where Greengrass does not look for it. Keeps the latest.
pub fn set_aside(layout: &Layout, places: &[&str]) -> Result<()> {
    for path in found(layout, places) {
        let aside = earlier(&path);
        warn!(
            "{} is not known to be this identity's: setting it aside as {}",
            path.display(),
            aside.display()
        );
        let moved = discard(&aside).and_then(|()| Ok(files::rename(&path, &aside)?));
        if let Err(e) = moved {
            warn!("{e}: removing it instead");
            discard(&path)?;
        }
    }
    Ok(())
}

/// The path for state that is set aside.
pub fn earlier(path: &Path) -> PathBuf {
    let mut aside = path.as_os_str().to_owned();
    aside.push(".earlier");
    aside.into()
}

fn found(layout: &Layout, places: &[&str]) -> Vec<PathBuf> {
    let paths = places.iter().map(|place| layout.at(place));
    paths
        .filter(|path| path.symlink_metadata().is_ok())
        .collect()
}

/// Removes a file, or a whole directory without following a link out of it.
fn discard(path: &Path) -> Result<()> {
    match path.symlink_metadata() {
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(()),
        Ok(metadata) if metadata.is_dir() => {
            if let Err(e) = files::remove_tree(path) {
                warn!("{e}: leaving it, because Greengrass does not read it");
            }
            Ok(())
        }
        _ => Ok(files::remove(path)?),
    }
}
