//! Whether there is a configuration that Greengrass can run with, when the settings cannot be read.

use firstboot_formats::files;

use super::{MAX_SIZE, names_our_key, spec, tree};
use crate::layout::Layout;
use crate::settings::Edition;

/// The edition whose configuration is complete, if any: its main file names our key, and the files that belong to it
/// are there. The main file is written last and removed first, so it never refers to files of an earlier identity.
pub fn complete(layout: &Layout) -> Option<Edition> {
    Edition::ALL.into_iter().find(|edition| {
        let spec = spec(*edition);
        let main = files::read(&layout.at(spec.main), MAX_SIZE).ok().flatten();
        let main = main.and_then(|content| tree::parse(&content).ok());
        let has_content = |path: &&str| {
            layout
                .at(path)
                .metadata()
                .is_ok_and(|file| file.is_file() && file.len() > 0)
        };
        main.is_some_and(|tree| names_our_key(spec, &tree)) && spec.beside.iter().all(has_content)
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::ConfigValues;
    use super::*;
    use crate::secret::Pin;
    use crate::settings::{Greengrass, Platform};

    #[test]
    fn every_file_counts() {
        for edition in Edition::ALL {
            let spec = spec(edition);
            let files = (spec.config_files)(&ConfigValues {
                settings: &Greengrass::default(),
                platform: &Platform::default(),
                thing_name: "",
                slot: None,
                pin: &Pin::parse(b"-".to_vec()).unwrap(),
                certificate: "",
                root_ca: &[],
                configured: None,
            });
            let paths: Vec<_> = files.iter().map(|file| file.path).collect();
            assert_eq!(paths, [spec.beside, &[spec.main]].concat(), "{edition}");
        }
    }
}
