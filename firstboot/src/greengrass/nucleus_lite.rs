//! Greengrass nucleus lite (V2, C): OpenSSL with pkcs11-provider.
//!
//! Source: aws-greengrass-lite, docs/PKCS11_SUPPORT.md. Its daemons run as `ggcore`; they get the PIN from a file that
//! the OpenSSL configuration names, and find that configuration by OPENSSL_CONF (systemd drop-ins in
//! `firstboot/systemd`).
//!
//! The key is a URI, the certificate the identity's own file. A daemon reads that at each connection, but a token's
//! objects only once: a new certificate needs neither a write to the token nor a restart.

use firstboot_formats::files::Access;
use serde_json::json;

use super::{ConfigFile, ConfigValues, Content, EditionSpec};
use crate::layout::IDENTITY;
use crate::token::{key_uri, openssl_configuration};

/// The group of the daemons.
pub const GROUP: &str = "ggcore";

const CONFIG: &str = "/etc/greengrass/config.yaml";
const ROOT_CA: &str = "/etc/greengrass/root-ca.pem";
const OPENSSL: &str = "/etc/greengrass/openssl.cnf";

pub(super) static SPEC: EditionSpec = EditionSpec {
    main: CONFIG,
    beside: &[ROOT_CA, OPENSSL],
    key_uri: "/system/privateKeyPath",
    identity: &["/system/thingName"],
    config_files,
    // ggconfigd's database, its copy, and SQLite's files beside each (ggconfigd's db_interface.c; SQLite, "Temporary
    // Files Used By SQLite"). Values in the file override those read from it before, so a changed setting needs nothing
    // here; those of deployments override the file.
    derived: &[
        "/var/lib/greengrass/config.db",
        "/var/lib/greengrass/config.db-journal",
        "/var/lib/greengrass/config.db-wal",
        "/var/lib/greengrass/config.db-shm",
        "/var/lib/greengrass/config.db.backup",
        "/var/lib/greengrass/config.db.backup-journal",
        "/var/lib/greengrass/config.db.backup-wal",
        "/var/lib/greengrass/config.db.backup-shm",
    ],
    log: None,
    // ggconfigd silently truncates the file there.
    limit: 8192,
    token_certificate: false,
};

fn config_files(values: &ConfigValues<'_>) -> Vec<ConfigFile> {
    let settings = values.settings;
    let ours = json!({
        "system": {
            "privateKeyPath": key_uri(),
            "certificateFilePath": format!("{IDENTITY}/certificate.pem"),
            "rootCaPath": ROOT_CA,
            "thingName": values.thing_name,
        },
        "services": {
            "aws.greengrass.NucleusLite": {
                "configuration": {
                    "awsRegion": settings.aws_region,
                    "iotRoleAlias": settings.iot_role_alias,
                    "iotDataEndpoint": settings.iot_data_endpoint,
                    "iotCredEndpoint": settings.iot_credential_endpoint,
                }
            }
        }
    });
    let defaults = json!({
        "system": { "rootPath": "/var/lib/greengrass" },
        "services": {
            "aws.greengrass.NucleusLite": {
                "componentType": "NUCLEUS",
                "configuration": {
                    "runWithDefault": { "posixUser": "gg_component:gg_component" },
                    "greengrassDataPlanePort": "8443",
                }
            }
        }
    });
    vec![
        ConfigFile::public(ROOT_CA, values.root_ca),
        ConfigFile::public(
            OPENSSL,
            openssl_configuration(
                "Greengrass nucleus lite",
                &values.platform.openssl_provider,
                &values.platform.pkcs11_module,
                IDENTITY,
            ),
        ),
        ConfigFile {
            path: CONFIG,
            access: Access::PUBLIC,
            content: Content::Tree { ours, defaults },
        },
    ]
}
