//! The FAT partition: what the operator saves there, and what the device writes there for the operator.
//!
//! It has neither owners nor modes, and anybody who ever had the card may have written to it. Reads are limited in size
//! and follow no links, and no secret is ever written.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use firstboot_formats::card::MAX_CERTIFICATE;
use firstboot_formats::files;
use firstboot_formats::output;
use firstboot_formats::text;
use firstboot_formats::thing_name::file_name;
use log::warn;
use serde_json::Value;

use crate::error::{ErrorKind, Result, ResultExt};
use crate::layout::{BOOT, Layout};

/// The folder `firstboot/` on the boot partition.
#[derive(Clone, Debug)]
pub struct BootPartition {
    directory: PathBuf,
}

impl BootPartition {
    /// The device's boot partition.
    pub fn new(layout: &Layout) -> Self {
        Self {
            directory: layout.at(BOOT),
        }
    }

    /// A file in it.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// The thing's certificate, where the operator is expected to save it.
    pub fn certificate_path(&self, thing_name: &str) -> PathBuf {
        self.path("certificates")
            .join(format!("{}.pem", file_name(thing_name)))
    }

    /// The same, wrapped so that only this device's TPM can open it.
    pub fn reply_path(&self, thing_name: &str) -> PathBuf {
        self.path("certificates")
            .join(format!("{}.reply.json", file_name(thing_name)))
    }

    /// The names of the files where the certificate is expected, sorted.
    pub fn certificate_names(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.path("certificates"));
        let name = |entry: std::io::Result<std::fs::DirEntry>| {
            Some(entry.ok()?.file_name().to_string_lossy().into_owned())
        };
        let mut names: Vec<String> = entries.into_iter().flatten().filter_map(name).collect();
        // macOS leaves these on every card.
        names.retain(|name| !name.starts_with('.'));
        names.sort();
        names
    }

    /// The operator's CA certificates of this name, if there are any.
    pub fn ca(&self, name: &str) -> Result<Option<Vec<u8>>> {
        let content = text::read(&self.path(name), MAX_CERTIFICATE);
        content.of_kind(ErrorKind::Settings)
    }

    /// Where the certificates of an EST server's CA, and of the CA that issues, are expected.
    pub fn est_ca_path(&self) -> PathBuf {
        self.path("est-ca.pem")
    }

    /// Whether they are there.
    pub fn has_est_ca(&self) -> bool {
        self.est_ca_path().symlink_metadata().is_ok()
    }

    /// The file with them, if there is one.
    pub fn est_ca(&self) -> Result<Option<Vec<u8>>> {
        text::read(&self.est_ca_path(), MAX_CERTIFICATE).of_kind(ErrorKind::Settings)
    }

    /// The paths of the claim certificate and its key, which every device of a fleet presents to get a certificate of
    /// its own.
    pub fn claim_paths(&self) -> [PathBuf; 2] {
        [self.path("claim.cert.pem"), self.path("claim.key.pem")]
    }

    /// Whether the claim certificate or its key is there.
    pub fn has_claim(&self) -> bool {
        self.claim_paths()
            .iter()
            .any(|path| path.symlink_metadata().is_ok())
    }

    /// The password with which a device gets its first certificate from an EST server.
    pub fn claim_password_path(&self) -> PathBuf {
        self.path("claim.password")
    }

    /// Whether it is there.
    pub fn has_claim_password(&self) -> bool {
        self.claim_password_path().symlink_metadata().is_ok()
    }

    /// What tells whether the operator has changed anything that an EST server is asked by: the times of the files. Not
    /// their contents or sizes, as a password is among them.
    pub fn est_state(&self) -> String {
        let [certificate, key] = self.claim_paths();
        let files = [
            self.path("firstboot.json"),
            self.est_ca_path(),
            self.claim_password_path(),
            certificate,
            key,
        ];
        let states = files.iter().map(|path| match path.symlink_metadata() {
            Ok(m) => format!("{}.{}", m.mtime(), m.mtime_nsec()),
            Err(_) => "none".into(),
        });
        states.collect::<Vec<_>>().join(" ")
    }

    /// All files of the claim that are there: of the pair, and the password.
    pub fn claim_files(&self) -> Vec<PathBuf> {
        let [certificate, key] = self.claim_paths();
        let mut files = vec![key, certificate, self.claim_password_path()];
        files.retain(|path| path.symlink_metadata().is_ok());
        files
    }

    /// A warning about a claim that nothing uses: the offline method leaves it alone, and it can get certificates for
    /// the whole fleet.
    pub fn unused_claim(&self) -> Option<String> {
        let files = self.claim_files();
        let names: Vec<String> = files
            .iter()
            .map(|path| path.display().to_string())
            .collect();
        (!names.is_empty()).then(|| {
            format!(
                "the boot partition holds the fleet's claim, but enrollment.method is offline: nothing uses it, and anyone \
                 with the card can request certificates with it. Remove {}, or set enrollment.method to \
                 fleet-provisioning or est",
                names.join(" and ")
            )
        })
    }

    /// Overwrites and removes the claim key, the claim certificate and the password, the key first.
    pub fn remove_claim(&self) -> Result<()> {
        for path in self.claim_files() {
            files::overwrite_and_remove(&path)?;
        }
        Ok(())
    }

    /// Whether every user of the device can read a file that lies in this folder.
    pub fn everybody_can_read(&self, path: &Path) -> bool {
        let others_may = |path: &Path, bit| path.metadata().is_ok_and(|m| m.mode() & bit != 0);
        // The folder and its parent.
        let mut directories = path.ancestors().skip(1).take(2);
        others_may(path, 0o004) && directories.all(|directory| others_may(directory, 0o001))
    }

    /// Where the request and its record go.
    pub fn request_paths(&self, thing_name: &str) -> [PathBuf; 2] {
        let name = file_name(thing_name);
        let requests = self.path("requests");
        [
            requests.join(format!("{name}.csr.pem")),
            requests.join(format!("{name}.json")),
        ]
    }

    /// Whether request and record are there as they should be.
    pub fn request_is_published(&self, thing_name: &str, wanted: [&[u8]; 2]) -> bool {
        self.request_paths(thing_name)
            .iter()
            .zip(wanted)
            .all(|(path, wanted)| holds(path, wanted))
    }

    /// Writes request and record, and makes the folder in which the certificate is expected.
    pub fn publish_request(&self, thing_name: &str, content: [&[u8]; 2]) -> Result<()> {
        files::make_directory(&self.path("certificates"), 0o700)?;
        files::make_directory(&self.path("requests"), 0o700)?;
        for (path, content) in self.request_paths(thing_name).iter().zip(content) {
            files::write_without_dir_sync(path, content, None)?;
        }
        Ok(files::sync_directory(&self.path("requests"))?)
    }

    /// Removes request and record, each only if it is as published.
    pub fn withdraw_request(&self, thing_name: &str, published: [&[u8]; 2]) -> Result<()> {
        for (path, published) in self.request_paths(thing_name).iter().zip(published) {
            if holds(path, published) {
                files::remove(path)?;
            }
        }
        Ok(())
    }

    /// Gives certificate and reply of one name another one, and removes what has that, if there is either of them. So
    /// what is left belongs to one identity, also if this is repeated.
    pub fn rename_answers(&self, from: &str, to: &str) -> Result<()> {
        let of = |name: &str| [self.certificate_path(name), self.reply_path(name)];
        let pairs = of(from).into_iter().zip(of(to));
        let (there, missing): (Vec<_>, Vec<_>) =
            pairs.partition(|(from, _)| from.symlink_metadata().is_ok());
        if there.is_empty() {
            return Ok(());
        }
        for (_, to) in missing {
            files::remove(&to)?;
        }
        for (from, to) in there {
            files::rename(&from, &to)?;
        }
        Ok(())
    }

    /// Tells the operator how things stand: `status.json`, written only if it has changed, so that a boot with nothing
    /// to do writes nothing. A boot partition that cannot be written is no reason to stop.
    pub fn publish_status(&self, status: &Value) {
        let attempt = || -> Result<()> {
            let text = output::json_text(status)?;
            let path = self.path("status.json");
            if holds(&path, text.as_bytes()) {
                return Ok(());
            }
            files::make_directory(&self.directory, 0o700)?;
            Ok(files::write(&path, text.as_bytes(), None)?)
        };
        if let Err(e) = attempt() {
            warn!("cannot publish the status on the boot partition: {e}");
        }
    }
}

fn holds(path: &Path, wanted: &[u8]) -> bool {
    matches!(files::read(path, wanted.len()), Ok(Some(content)) if content == wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colons_do_not_reach_fat() {
        let boot = BootPartition::new(&Layout::new("/card"));
        assert_eq!(
            boot.certificate_path("a:b"),
            PathBuf::from("/card/boot/firstboot/certificates/a_b.pem")
        );
    }
}
