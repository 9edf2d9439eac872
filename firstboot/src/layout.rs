//! Where everything is: each absolute path of the device, below `--root`.

use std::path::{Path, PathBuf};

/// The identity directory `S`: the tpm2-pkcs11 store, the user PIN, the CSR, the certificate.
pub const IDENTITY: &str = "/var/lib/tpm2_pkcs11";
/// Where an identity's token is built, in memory.
pub const TOKEN_BUILD: &str = "/run/firstboot/token";
/// Where an identity is built before it appears by one rename.
pub const STAGING: &str = "/var/lib/tpm2_pkcs11.new";
/// The identity with the next key, until it takes the place of the one in service.
pub const NEXT: &str = "/var/lib/tpm2_pkcs11.next";
/// The identity that was in service before.
pub const PREVIOUS: &str = "/var/lib/tpm2_pkcs11.previous";
/// The identity with the key for networks that want one of their own.
pub const NETWORK: &str = "/var/lib/tpm2_pkcs11.eap";
/// Identities that were set aside: `IDENTITY` with this and a number appended.
pub const ORPHAN_SUFFIX: &str = ".orphan-";
/// The Name of a storage key at 0x81000001 that was found to have an authorization value.
pub const ROOT_KEY_WITH_AUTH: &str = "/var/lib/firstboot/root-key-with-auth";
/// The fleet's claim certificate and its key, kept for renewals by fleet provisioning.
pub const KEPT_CLAIM: [&str; 2] = [
    "/var/lib/firstboot/claim.cert.pem",
    "/var/lib/firstboot/claim.key.pem",
];
/// The folder on the FAT partition through which operator and device exchange files.
pub const BOOT: &str = "/boot/firstboot";
/// The image's default settings.
pub const IMAGE_SETTINGS: &str = "/usr/lib/firstboot/firstboot.json";
/// The root certificates if the operator gives none: the five of Amazon Trust Services.
pub const IMAGE_ROOT_CA: &str = "/usr/lib/firstboot/AmazonTrustServices.pem";
/// The CA certificates that the image has for networks: looked for where the boot partition has none.
pub const IMAGE_CAS: &str = "/usr/lib/firstboot";
/// The device's own TPM, behind the kernel's resource manager, as a TCTI.
pub const TPM: &str = "device:/dev/tpmrm0";
/// Where programs that run as root have the PKCS#11 library make its lock file.
pub const LOCKS: &str = "/run/tpm2_pkcs11/root";
/// Lock files: our own, and the PKCS#11 library's.
pub const RUN: &str = "/run/firstboot";

/// Maps the device's absolute paths below `--root`.
#[derive(Clone, Debug)]
pub struct Layout {
    root: PathBuf,
    is_card: bool,
}

impl Layout {
    /// A device's file tree at `root`; `/` on the device itself.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self {
            root: root.into(),
            is_card: false,
        }
    }

    /// A device's file tree without the device: its card in a reader.
    pub fn of_card(root: impl Into<PathBuf>) -> Self {
        Self {
            is_card: true,
            ..Self::new(root)
        }
    }

    /// Whether this is only a card, and the device is elsewhere.
    pub fn is_card(&self) -> bool {
        self.is_card
    }

    /// The path here of the device's `absolute` path.
    pub fn at(&self, absolute: impl AsRef<Path>) -> PathBuf {
        let absolute = absolute.as_ref();
        self.root
            .join(absolute.strip_prefix("/").unwrap_or(absolute))
    }

    /// The group's number in the device's own `/etc/group`, which with `--root` is not the host's.
    pub fn group(&self, name: &str) -> Option<u32> {
        let groups = std::fs::read_to_string(self.at("/etc/group")).ok()?;
        groups.lines().find_map(|line| {
            let mut fields = line.split(':');
            (fields.next() == Some(name)).then(|| fields.nth(1)?.parse().ok())?
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn absolute_paths_stay_below_the_root() {
        let layout = Layout::new("/mnt/card");
        assert_eq!(layout.at(BOOT), Path::new("/mnt/card/boot/firstboot"));
        assert_eq!(
            Layout::new("/").at(IDENTITY),
            Path::new("/var/lib/tpm2_pkcs11")
        );
    }
}
