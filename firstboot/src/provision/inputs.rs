//! What operator and image want of the device: read and checked completely before anything is touched.

use std::path::PathBuf;

use firstboot_formats::{text, x509};
use log::debug;

use crate::boot_partition::BootPartition;
use crate::error::{Error, ErrorKind, Result, ResultExt};
use crate::greengrass;
use crate::layout::{IMAGE_ROOT_CA, Layout};
use crate::settings::Settings;

/// Maximum size of a root certificate file, bytes: AWS's bundle of five has 6 KB.
const MAX_ROOT_CA: usize = 64 * 1024;

/// What is wanted.
#[derive(Clone, Debug)]
pub struct Inputs {
    /// The settings.
    pub settings: Settings,
    /// The root certificates of AWS's endpoints, PEM.
    pub root_ca: Vec<u8>,
    /// The group that may read the identity, beside root.
    pub(super) group: Option<u32>,
}

impl Inputs {
    pub(super) fn read(layout: &Layout, boot: &BootPartition) -> Result<Self> {
        let mut settings = Settings::read(layout)?;
        if !settings.enrollment.is_by_network() {
            settings.remarks.extend(boot.unused_claim());
        }
        let root_ca = root_ca(layout, boot)?;
        let group = match greengrass::group(settings.greengrass.edition) {
            None => Some(0),
            Some(name) => Some(layout.group(name).ok_or_else(|| {
                Error::settings(format!(
                    "there is no group {name}, which this edition's daemons run as: does firstboot.json name \
                     the edition that is installed?"
                ))
            })?),
        };
        debug!("identity readable by group {group:?}");
        Ok(Self {
            settings,
            root_ca,
            group,
        })
    }

    pub(super) fn is_fleet(&self) -> bool {
        self.settings.enrollment.is_fleet()
    }
}

/// The operator's root certificates, or else the image's.
fn root_ca(layout: &Layout, boot: &BootPartition) -> Result<Vec<u8>> {
    let checked = |content: Vec<u8>, path: PathBuf| match x509::roots(&content) {
        Ok(pem) => Ok(pem.into_bytes()),
        Err(why) => Err(Error::settings(format!("{}: {why}", path.display()))),
    };
    if let Some(pem) = boot.root_ca()? {
        return checked(pem, boot.path("root-ca.pem"));
    }
    let path = layout.at(IMAGE_ROOT_CA);
    let pem = text::read(&path, MAX_ROOT_CA)
        .context(ErrorKind::Settings, || "no root certificate".into())?
        .ok_or_else(|| {
            Error::settings(format!(
                "there is no root certificate: save one as {} (the image has none at {})",
                boot.path("root-ca.pem").display(),
                path.display()
            ))
        })?;
    checked(pem, path)
}
