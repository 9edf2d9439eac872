//! The folder of the replies, `--out`, which knows who has been answered, and is locked against other runs.
//!
//! It is a card's folder, or its content ends up on one, where names that differ on the bench's own disk may be the
//! same.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use firstboot_formats::attestation::{MAX_REPLY, Reply};
use firstboot_formats::digest::Fingerprint;
use firstboot_formats::files;
use firstboot_formats::thing_name::fat_name;
use nix::fcntl::OFlag;

use crate::check::Attested;
use crate::error::{Context, Error, Exit, Result};
use crate::lock::lock;
use crate::request::{Purpose, REPLY, Request, directory};

/// The folder, locked for as long as this lives.
pub(crate) struct Replies {
    directory: PathBuf,
    /// Its files, by their names as FAT compares them.
    there: BTreeMap<String, Vec<PathBuf>>,
    _lock: File,
}

impl Replies {
    /// Creates the folder if it is missing. Refuses a symbolic link: on a card, anybody may have made it, and it may
    /// lead anywhere.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        // Without a trailing slash or dot, which would follow a link.
        let path: PathBuf = path.components().collect();
        let using = || format!("cannot use --out {}", path.display());
        if path.is_symlink() {
            return Err(Error::new(
                Exit::CannotWrite,
                format!(
                    "{}: it is a symbolic link, which anybody with the card may have made. If it leads to the right \
                     directory, name that directory",
                    using()
                ),
            ));
        }
        files::make_directory(&path, 0o755)?;
        let folder = OpenOptions::new()
            .read(true)
            .custom_flags((OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW).bits())
            .open(&path)
            .context(Exit::CannotWrite, using)?;
        lock(&folder, &path);
        let mut there: BTreeMap<String, Vec<PathBuf>> = BTreeMap::new();
        for reply in directory(&path, |name| fat_name(name).ends_with(REPLY))? {
            let name = reply.file_name().unwrap_or_default().to_string_lossy();
            there.entry(fat_name(&name)).or_default().push(reply);
        }
        Ok(Self {
            directory: path,
            there,
            _lock: folder,
        })
    }

    /// The path of the answer to a request, whose name ends like this. The error says why nothing can be written there.
    pub(crate) fn path(
        &self,
        request: &Request,
        end: &str,
    ) -> std::result::Result<PathBuf, String> {
        let path = self.directory.join(request.file_name(end));
        match path.is_dir() {
            true => Err(format!(
                "its answer cannot be written: {} is a directory",
                path.display()
            )),
            false => Ok(path),
        }
    }

    /// Whether this very request has a reply by this issuer. The error says why it must not have one: its name belongs
    /// to another TPM, or to another key of the same one, and this is not its next.
    pub(crate) fn have(
        &self,
        request: &Request,
        attested: &Attested,
        issuer: Fingerprint,
    ) -> std::result::Result<bool, String> {
        let target = self.directory.join(request.file_name(REPLY));
        let thing_name = &request.record.thing_name;
        let (key_name, ek) = (&attested.key_name, &attested.ek_sha256);
        let (mut answered, mut is_known, mut of_other_key) = (false, request.is_next(), None);
        for (purpose, path) in self.about(request) {
            let Some(text) = files::read(path, MAX_REPLY).map_err(|e| e.to_string())? else {
                continue;
            };
            // A damaged one belongs to nobody.
            let Ok(reply) = Reply::parse(&text) else {
                continue;
            };
            if reply.ek_certificate_sha256 != *ek {
                return Err(taken(&reply.thing_name, path));
            }
            // A thing has one key for its networks beside the others.
            if (purpose == Purpose::Networks) != request.is_for_networks() {
                continue;
            }
            match reply.key_name == *key_name {
                true => is_known = true,
                false => of_other_key = Some((reply.thing_name.clone(), path)),
            }
            answered |= *path == target && reply.check(&[issuer], thing_name, key_name, ek).is_ok();
        }
        match of_other_key {
            Some((thing_name, path)) if !is_known => Err(taken(&thing_name, path)),
            _ => Ok(answered),
        }
    }

    /// The replies to the thing, and for what.
    fn about(&self, request: &Request) -> impl Iterator<Item = (Purpose, &PathBuf)> {
        let purposes = [Purpose::Present, Purpose::Next, Purpose::Networks].into_iter();
        let of = |purpose| {
            let name = request.file_name_of(purpose, REPLY);
            let there = self.there.get(&fat_name(&name)).into_iter().flatten();
            there.map(move |path| (purpose, path))
        };
        purposes.flat_map(of)
    }
}

/// Why a name's second device gets no reply: with certificates for the same name, both would be one thing.
pub(crate) fn taken(thing_name: &str, by: &Path) -> String {
    format!(
        "\"{thing_name}\" has been given to another TPM or key ({}). If this device has a new one, revoke its old \
         certificate, and use --force for this request alone",
        by.display()
    )
}
