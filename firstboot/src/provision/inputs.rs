//! What operator and image want of the device: read and checked completely before anything is touched.

use std::path::Path;

use firstboot_formats::{text, x509};
use log::debug;

use crate::boot_partition::BootPartition;
use crate::error::{Error, ErrorKind, Result, ResultExt};
use crate::greengrass;
use crate::layout::{IMAGE_CAS, IMAGE_ROOT_CA, Layout};
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
    /// The CA certificates of the RADIUS servers, PEM: those of each entry of `network.eap_tls`.
    pub network_cas: Vec<String>,
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
        let networks = settings.network.eap_tls.iter().enumerate();
        let network_cas = networks
            .map(|(index, entry)| {
                network_ca(layout, boot, &entry.ca).context(ErrorKind::Settings, || {
                    format!("network.eap_tls[{index}].ca")
                })
            })
            .collect::<Result<_>>()?;
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
            network_cas,
            group,
        })
    }

    pub(super) fn is_fleet(&self) -> bool {
        self.settings.enrollment.is_fleet()
    }
}

/// The operator's root certificates, or else the image's.
fn root_ca(layout: &Layout, boot: &BootPartition) -> Result<Vec<u8>> {
    let name = "root-ca.pem";
    let image = layout.at(IMAGE_ROOT_CA);
    let roots = roots(boot, name, &image)?.ok_or_else(|| {
        Error::settings(format!(
            "there is no root certificate: save one as {} (the image has none at {})",
            boot.path(name).display(),
            image.display()
        ))
    })?;
    Ok(roots.into_bytes())
}

/// The CA of a network's RADIUS server. There is no default: a device that believes any server gives its network away.
fn network_ca(layout: &Layout, boot: &BootPartition, name: &str) -> Result<String> {
    let image = layout.at(IMAGE_CAS).join(name);
    roots(boot, name, &image)?.ok_or_else(|| {
        Error::settings(format!(
            "there is no CA certificate: save that of the network's RADIUS server as {} (the image has none at {}). \
             Without it, the device would authenticate to any server",
            boot.path(name).display(),
            image.display()
        ))
    })
}

/// The CA certificates in the operator's file of this name, or else in the image's, PEM.
fn roots(boot: &BootPartition, name: &str, image: &Path) -> Result<Option<String>> {
    let (content, path) = match boot.ca(name)? {
        Some(pem) => (Some(pem), boot.path(name)),
        None => {
            let pem = text::read(image, MAX_ROOT_CA);
            (pem.of_kind(ErrorKind::Settings)?, image.to_path_buf())
        }
    };
    let checked = |content: Vec<u8>| {
        x509::roots(&content).map_err(|why| Error::settings(format!("{}: {why}", path.display())))
    };
    content.map(checked).transpose()
}
