//! What the operator wants: the image's defaults, overridden key by key by the boot partition's.
//!
//! This file has what can be set; `read` merges both files, `check` refuses what cannot work.

pub mod aws;
mod check;
mod enrollment;
mod est;
mod greengrass;
mod network;
mod placeholders;
mod read;
mod renew;

use std::fmt;
use std::path::{Path, PathBuf};

use firstboot_formats::public_key::KeyType;
use serde::{Deserialize, Serialize};

pub use enrollment::{Enrollment, Method, check_parameter};
pub use est::Est;
pub use network::{EapTls, Network, NetworkKey};
pub use placeholders::expand;
pub use renew::{At, Renew, RenewedKey};

/// The settings, merged and checked.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// The thing's name; `${serial}` and `${machine_id}` are already replaced.
    pub thing_name: String,
    /// The key to make.
    pub key: KeyType,
    /// The rest of the request's subject name.
    pub subject: Subject,
    /// How the device gets a certificate for the request.
    pub enrollment: Enrollment,
    /// When a new certificate is asked for; never, where nothing is said.
    pub renew: Option<Renew>,
    /// What is written for Greengrass.
    pub greengrass: Greengrass,
    /// The networks that ask who the device is.
    pub network: Network,
    /// Where the image keeps its libraries. Only the image's own file may say so.
    pub platform: Platform,
    /// The operator's file was there.
    #[serde(skip)]
    pub has_operator_file: bool,
    /// What the operator should know about them, although they work.
    #[serde(skip)]
    pub remarks: Vec<String>,
}

/// The request's subject name, except for the thing name (CN). The keys are those of RFC 4514 §3.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Subject {
    /// Country: two letters.
    #[serde(rename = "C")]
    pub country: String,
    /// State or province.
    #[serde(rename = "ST")]
    pub state: String,
    /// Locality: the town.
    #[serde(rename = "L")]
    pub locality: String,
    /// Organization.
    #[serde(rename = "O")]
    pub organization: String,
    /// Organizational unit.
    #[serde(rename = "OU")]
    pub unit: String,
}

impl Subject {
    /// The name's attributes, most specific first.
    pub fn with_common_name<'a>(&'a self, common_name: &'a str) -> Vec<(&'static str, &'a str)> {
        [
            ("CN", common_name),
            ("OU", &self.unit),
            ("O", &self.organization),
            ("L", &self.locality),
            ("ST", &self.state),
            ("C", &self.country),
        ]
        .into_iter()
        .filter(|(_, value)| !value.is_empty())
        .collect()
    }
}

/// Which Greengrass, and the AWS account's addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Greengrass {
    /// The generation.
    pub edition: Edition,
    /// Such as "eu-central-1".
    pub aws_region: String,
    /// The account's IoT data endpoint, a host name.
    pub iot_data_endpoint: String,
    /// The account's IoT credentials endpoint, a host name. Not used by v1.
    pub iot_credential_endpoint: String,
    /// The role alias for the token exchange service. Not used by v1.
    pub iot_role_alias: String,
    /// Twelve digits; only v1 needs them, for the thing's ARN.
    pub aws_account_id: String,
}

/// The generations of Greengrass.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Edition {
    /// V2, in Java.
    Nucleus,
    /// V2, in C.
    #[default]
    NucleusLite,
    /// V1, which AWS ended on 2026-10-07.
    V1,
}

impl Edition {
    /// Every edition.
    pub const ALL: [Self; 3] = [Self::Nucleus, Self::NucleusLite, Self::V1];
}

impl fmt::Display for Edition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Nucleus => "nucleus",
            Self::NucleusLite => "nucleus-lite",
            Self::V1 => "v1",
        })
    }
}

/// Where the image has the libraries that firstboot and Greengrass load.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Platform {
    /// libtpm2_pkcs11.so
    pub pkcs11_module: PathBuf,
    /// pkcs11-provider's OpenSSL module
    pub openssl_provider: PathBuf,
}

impl Default for Platform {
    fn default() -> Self {
        Self::found(|path| path.exists())
    }
}

impl Platform {
    /// The first existing one of Yocto's and Debian's paths; otherwise Yocto's.
    pub(crate) fn found(exists: impl Fn(&Path) -> bool) -> Self {
        let first = |places: [&str; 3]| {
            let mut paths = places.into_iter().map(PathBuf::from);
            let usual = paths.next().unwrap_or_default();
            if exists(&usual) {
                return usual;
            }
            paths.find(|path| exists(path)).unwrap_or(usual)
        };
        Self {
            pkcs11_module: first([
                "/usr/lib/pkcs11/libtpm2_pkcs11.so",
                "/usr/lib/aarch64-linux-gnu/pkcs11/libtpm2_pkcs11.so",
                "/usr/lib/x86_64-linux-gnu/pkcs11/libtpm2_pkcs11.so",
            ]),
            openssl_provider: first([
                "/usr/lib/ossl-modules/pkcs11.so",
                "/usr/lib/aarch64-linux-gnu/ossl-modules/pkcs11.so",
                "/usr/lib/x86_64-linux-gnu/ossl-modules/pkcs11.so",
            ]),
        }
    }
}
