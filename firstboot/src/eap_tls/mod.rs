//! What wpa_supplicant reads, so that the device authenticates to a network with the TPM's key: IEEE 802.1X with
//! EAP-TLS (RFC 5216, RFC 9190), over Ethernet or Wi-Fi.
//!
//! | file | what |
//! |---|---|
//! | `/etc/wpa_supplicant/wpa_supplicant[-wired]-IFACE.conf` | an interface's network, where upstream's units look |
//! | `/etc/wpa_supplicant/firstboot/openssl.cnf` | OpenSSL's way to the device's token; names the PIN's file |
//! | `/etc/wpa_supplicant/firstboot/openssl-own.cnf` | the same, to the token with the networks' own key |
//! | `/etc/wpa_supplicant/firstboot/key.pem` | the key: its URI, as a file; it has the same name in both tokens |
//! | `/etc/wpa_supplicant/firstboot/IFACE-ca.pem` | the CA of the RADIUS server |
//! | `/etc/wpa_supplicant/firstboot/UNIT@IFACE.env` | the environment of that instance of the unit, and of no other |
//! | `/etc/wpa_supplicant/firstboot/networks` | the units to start, each with a digest of what it reads |
//! | `/etc/systemd/network/zz-firstboot-IFACE.network` | DHCP, where no other file says anything about the interface |
//!
//! The list of units is written last, and is different after every change.
//!
//! None has a secret. The folder is made first and removed last: a device that wants no such network and has no
//! folder pays with one look for it. A file that somebody else has written in the place of one of ours stays, and if it
//! is wpa_supplicant's, its interface is left alone.
//!
//! A network is no condition of service: what is wrong with these files is told, and stops nothing else.

mod key_file;
mod texts;

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use firstboot_formats::digest::sha256;
use firstboot_formats::encoding::to_hex;
use firstboot_formats::files::{self, Access};
use log::info;

use crate::error::{ErrorKind, Result, ResultExt};
use crate::layout::{IDENTITY, Layout, NETWORK};
use crate::settings::{EapTls, Network, NetworkKey, Platform};
use crate::token::openssl_configuration;

/// Where upstream's units of wpa_supplicant look for their configuration (wpa_supplicant/systemd/*.service.arg.in).
const WPA_SUPPLICANT: &str = "/etc/wpa_supplicant";
/// Our own files.
const FOLDER: &str = "/etc/wpa_supplicant/firstboot";
/// The units to start.
const NETWORKS: &str = "networks";
/// Where systemd-networkd looks for an administrator's files (systemd.network(5)).
const NETWORKD: &str = "/etc/systemd/network";
/// Files are read in the order of their names, and the first that matches an interface counts: anybody's but ours.
const NETWORKD_PREFIX: &str = "zz-firstboot-";
/// Maximum size of the list of units that is read, bytes: a line has about 100.
const MAX_LIST: usize = 64 * 1024;

/// What is wanted of the networks, and what the device has for them.
pub struct Wanted<'a> {
    /// The settings.
    pub network: &'a Network,
    /// The CA certificates of each entry, PEM.
    pub cas: &'a [String],
    /// The image's libraries.
    pub platform: &'a Platform,
    /// The operator's settings were read. Without them, what was written by them stays: a boot partition that is not
    /// there is nobody's wish.
    pub has_operator_file: bool,
    /// SHA-256 of the device's key, hexadecimal, if there is a certificate for it. With another key, wpa_supplicant has
    /// to start again: its PKCS#11 library reads the token's store once.
    pub same: Option<String>,
    /// The same of the networks' own key.
    pub own: Option<String>,
    /// It is not known whether there is a certificate for that: what its networks have stays.
    pub own_is_unclear: bool,
}

impl Wanted<'_> {
    /// SHA-256 of the key for this network, if there is a certificate to show.
    fn key(&self, entry: &EapTls) -> Option<&str> {
        match entry.key {
            NetworkKey::Same => self.same.as_deref(),
            NetworkKey::Own => self.own.as_deref(),
        }
    }

    /// Whether there is a network to which the device can show who it is.
    fn is_any_possible(&self) -> bool {
        let mut entries = self.network.eap_tls.iter();
        entries.any(|entry| self.key(entry).is_some() || self.leaves(entry))
    }

    /// Whether this network stays as it is.
    fn leaves(&self, entry: &EapTls) -> bool {
        entry.key == NetworkKey::Own && self.own_is_unclear
    }
}

/// What is there, compared with what is wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Something is missing, different or superfluous.
    pub differs: bool,
    /// Somebody else's configurations in the place of ours.
    pub taken: Vec<Taken>,
    /// Why it stays as it is, or cannot be compared.
    pub trouble: Option<String>,
}

/// A configuration of wpa_supplicant that somebody else has written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Taken {
    /// The interface that it is for.
    pub interface: String,
    /// The file.
    pub path: PathBuf,
}

/// A file of the configuration.
struct ConfigFile {
    path: PathBuf,
    access: Access,
    content: Vec<u8>,
}

impl ConfigFile {
    /// For everybody to read.
    fn public(layout: &Layout, path: &Path, content: String) -> Self {
        Self {
            path: layout.at(path),
            access: Access::PUBLIC,
            content: content.into_bytes(),
        }
    }

    fn is_written(&self) -> bool {
        files::is_written(&self.path, &self.content, self.access)
    }
}

/// What should be there.
#[derive(Default)]
struct Plan {
    /// The files, in the order in which they are written.
    files: Vec<ConfigFile>,
    /// What stays, whatever is in it.
    kept: Vec<PathBuf>,
    /// The places that somebody else has taken.
    taken: Vec<Taken>,
}

impl Plan {
    fn has(&self, path: &Path) -> bool {
        self.kept.iter().any(|kept| kept == path) || self.writes(path)
    }

    fn writes(&self, path: &Path) -> bool {
        self.files.iter().any(|file| file.path == path)
    }

    fn is_empty(&self) -> bool {
        self.files.is_empty() && self.kept.is_empty()
    }
}

/// Compares. Networks to which the device has no certificate to show are left out.
pub fn look(layout: &Layout, wanted: &Wanted<'_>) -> Found {
    compare(layout, wanted).unwrap_or_else(|why| Found {
        trouble: Some(why.to_string()),
        ..Found::default()
    })
}

fn compare(layout: &Layout, wanted: &Wanted<'_>) -> Result<Found> {
    let has_folder = layout.at(FOLDER).symlink_metadata().is_ok();
    if !wanted.is_any_possible() && !has_folder {
        return Ok(Found::default());
    }
    let plan = plan(layout, wanted)?;
    let superfluous = ours(layout)?.iter().any(|path| !plan.has(path));
    // A folder that is left has to go, too.
    let differs = superfluous
        || !plan.files.iter().all(ConfigFile::is_written)
        || plan.is_empty() && has_folder;
    let stays = differs && !wanted.has_operator_file && is_by_operator(layout);
    Ok(Found {
        differs: differs && !stays,
        taken: plan.taken,
        trouble: stays.then(|| {
            "there is no firstboot.json any more: the networks that were configured with it stay as they are. Put it \
             back, or one with other networks (\"network\": {} for none)"
                .into()
        }),
    })
}

/// Removes what is not wanted any more, and writes what differs.
pub fn write(layout: &Layout, wanted: &Wanted<'_>) -> Result<()> {
    let plan = plan(layout, wanted)?;
    if plan.is_empty() {
        return remove(layout);
    }
    for path in ours(layout)? {
        if !plan.has(&path) {
            files::remove(&path)?;
            info!("removed {}", path.display());
        }
    }
    for directory in [FOLDER, NETWORKD] {
        files::make_directory(&layout.at(directory), 0o755)?;
    }
    for file in plan.files.iter().filter(|file| !file.is_written()) {
        files::write(&file.path, &file.content, Some(file.access))?;
        info!("wrote {}", file.path.display());
    }
    Ok(())
}

/// Removes everything of ours.
pub fn remove(layout: &Layout) -> Result<()> {
    let ours = ours(layout)?;
    for path in &ours {
        files::remove(path)?;
    }
    files::remove_tree(&layout.at(FOLDER))?;
    if !ours.is_empty() {
        info!("removed the configuration for networks");
    }
    Ok(())
}

/// The unit that authenticates on this interface.
fn unit(entry: &EapTls) -> String {
    format!("{}@{}", texts::program(entry), entry.interface)
}

fn plan(layout: &Layout, wanted: &Wanted<'_>) -> Result<Plan> {
    let mut plan = Plan::default();
    let mut units = Vec::new();
    for (entry, ca) in wanted.network.eap_tls.iter().zip(wanted.cas) {
        if wanted.leaves(entry) {
            let common = common_files(layout, entry.key, wanted.platform);
            let files = files_of(layout, entry, ca, &wanted.network.country);
            let paths = common.into_iter().chain(files).map(|file| file.path);
            plan.kept.extend(paths);
            units.extend(listed(layout, entry));
            continue;
        }
        let Some(key) = wanted.key(entry) else {
            continue;
        };
        let main = layout.at(main_file(entry));
        if is_others(&main)? {
            plan.taken.push(Taken {
                interface: entry.interface.clone(),
                path: main,
            });
            continue;
        }
        let common = common_files(layout, entry.key, wanted.platform);
        let mut files = files_of(layout, entry, ca, &wanted.network.country);
        let digest = digest(common.iter().chain(&files), key);
        units.push(format!("{}.service {digest}", unit(entry)));
        let networkd = layout.at(networkd_file(entry));
        if is_others(&networkd)? {
            files.retain(|file| file.path != networkd);
        }
        // Several networks have these.
        let missing = common.into_iter().filter(|file| !plan.writes(&file.path));
        let missing: Vec<_> = missing.collect();
        plan.files.extend(missing);
        plan.files.append(&mut files);
    }
    if !units.is_empty() {
        let networks = texts::networks(&units, wanted.has_operator_file || is_by_operator(layout));
        plan.files
            .push(ConfigFile::public(layout, &own(NETWORKS), networks));
    }
    Ok(plan)
}

/// The directory of the identity with this key, and the way to its token.
fn credentials(key: NetworkKey) -> (&'static str, PathBuf) {
    match key {
        NetworkKey::Same => (IDENTITY, own("openssl.cnf")),
        NetworkKey::Own => (NETWORK, own("openssl-own.cnf")),
    }
}

/// The files for every interface at which the device shows this key.
fn common_files(layout: &Layout, key: NetworkKey, platform: &Platform) -> [ConfigFile; 2] {
    let Platform {
        pkcs11_module,
        openssl_provider,
    } = platform;
    let (identity, path) = credentials(key);
    let openssl =
        openssl_configuration("wpa_supplicant", openssl_provider, pkcs11_module, identity);
    [
        ConfigFile::public(layout, &path, openssl),
        ConfigFile::public(layout, &own("key.pem"), key_file::pem()),
    ]
}

/// The files for one interface.
fn files_of(layout: &Layout, entry: &EapTls, ca: &str, country: &str) -> Vec<ConfigFile> {
    let ca_file = own(&format!("{}-ca.pem", entry.interface));
    let (main, networkd) = (main_file(entry), networkd_file(entry));
    let (identity, openssl) = credentials(entry.key);
    let named = texts::Named {
        ca: &ca_file,
        key: &own("key.pem"),
        identity,
    };
    let supplicant = texts::wpa_supplicant(&mark(&main), entry, country, &named);
    let dhcp = texts::networkd(&mark(&networkd), entry);
    let environment = texts::environment(&openssl, identity);
    let environment_file = own(&format!("{}.env", unit(entry)));
    vec![
        ConfigFile::public(layout, &ca_file, ca.to_owned()),
        ConfigFile::public(layout, &networkd, dhcp),
        ConfigFile::public(layout, &main, supplicant),
        ConfigFile::public(layout, &environment_file, environment),
    ]
}

/// What the unit for this interface reads.
fn main_file(entry: &EapTls) -> PathBuf {
    let name = format!("{}-{}.conf", texts::program(entry), entry.interface);
    Path::new(WPA_SUPPLICANT).join(name)
}

/// What systemd-networkd reads for this interface.
fn networkd_file(entry: &EapTls) -> PathBuf {
    Path::new(NETWORKD).join(format!("{NETWORKD_PREFIX}{}.network", entry.interface))
}

/// A file in our folder.
fn own(name: &str) -> PathBuf {
    Path::new(FOLDER).join(name)
}

/// Changes with every file, and with the key.
fn digest<'a>(files: impl Iterator<Item = &'a ConfigFile>, key_sha256: &str) -> String {
    let mut all = Vec::new();
    for file in files {
        all.extend_from_slice(file.path.as_os_str().as_encoded_bytes());
        all.push(0);
        all.extend_from_slice(&sha256(&file.content));
    }
    all.extend_from_slice(key_sha256.as_bytes());
    to_hex(&sha256(&all))
}

/// The list of units, by lines.
fn list(layout: &Layout) -> Vec<String> {
    let list = files::read(&layout.at(own(NETWORKS)), MAX_LIST);
    let list = list.ok().flatten().unwrap_or_default();
    let list = String::from_utf8_lossy(&list);
    list.lines().map(str::to_owned).collect()
}

/// The line of the list for this network's unit.
fn listed(layout: &Layout, entry: &EapTls) -> Option<String> {
    let name = format!("{}.service ", unit(entry));
    list(layout)
        .into_iter()
        .find(|line| line.starts_with(&name))
}

/// Whether the operator's settings were read when the list was written.
fn is_by_operator(layout: &Layout) -> bool {
    list(layout).iter().any(|line| line == texts::BY_OPERATOR)
}

/// The files that are ours. The one that has the units started is the first to be removed.
fn ours(layout: &Layout) -> Result<Vec<PathBuf>> {
    let mut paths = entries(&layout.at(FOLDER), "")?;
    paths.sort_by_key(|path| !path.ends_with(NETWORKS));
    for (directory, prefix) in [
        (WPA_SUPPLICANT, "wpa_supplicant"),
        (NETWORKD, NETWORKD_PREFIX),
    ] {
        for path in entries(&layout.at(directory), prefix)? {
            if is_ours(&path)? {
                paths.push(path);
            }
        }
    }
    Ok(paths)
}

/// The files of a directory whose names begin like this; none if there is no directory.
fn entries(directory: &Path, prefix: &str) -> Result<Vec<PathBuf>> {
    let look = || -> io::Result<Vec<PathBuf>> {
        let mut paths = Vec::new();
        for entry in fs::read_dir(directory)? {
            let entry = entry?;
            let name = entry.file_name();
            if !entry.file_type()?.is_dir() && name.to_string_lossy().starts_with(prefix) {
                paths.push(entry.path());
            }
        }
        paths.sort();
        Ok(paths)
    };
    match look() {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        other => other.context(ErrorKind::Other, || {
            format!("cannot look into {}", directory.display())
        }),
    }
}

/// How our file of this name begins.
fn mark(path: &Path) -> String {
    texts::mark(&path.file_name().unwrap_or_default().to_string_lossy())
}

/// Whether somebody else has written this file.
fn is_others(path: &Path) -> Result<bool> {
    Ok(path.symlink_metadata().is_ok() && !is_ours(path)?)
}

/// Whether firstboot has written this file, or was writing it when the power went.
fn is_ours(path: &Path) -> Result<bool> {
    let is_new = path.extension().is_some_and(|extension| extension == "new");
    let mark = match is_new {
        true => mark(&path.with_extension("")),
        false => mark(path),
    };
    let look = || -> io::Result<bool> {
        if !path.symlink_metadata()?.is_file() {
            return Ok(false);
        }
        let mut start = Vec::new();
        match File::open(path) {
            // Everybody may read ours.
            Err(e) if e.kind() == io::ErrorKind::PermissionDenied => return Ok(false),
            file => file?.take(mark.len() as u64).read_to_end(&mut start)?,
        };
        Ok(if is_new {
            mark.as_bytes().starts_with(&start)
        } else {
            start == mark.as_bytes()
        })
    };
    look().context(ErrorKind::Other, || {
        format!("cannot read {}", path.display())
    })
}
