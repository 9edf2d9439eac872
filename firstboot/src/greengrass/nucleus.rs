//! Greengrass nucleus (V2, Java), with its PKCS#11 provider plugin.
//!
//! Sources: AWS IoT Greengrass V2 developer guide, "Hardware security integration"; the plugin's
//! PKCS11CryptoKeyService.java. The plugin reads `object`
//! and `type` of a URI and nothing else, takes a slot ID (neither index nor label), and wants the
//! certificate in the token beside the key, under the same label.

use firstboot_formats::files::Access;
use serde_json::json;

use super::{ConfigFile, ConfigValues, Content, EditionSpec, MAX_SIZE};
use crate::token::OBJECT_LABEL;

const CONFIG: &str = "/greengrass/v2/config/config.yaml";
const ROOT_CA: &str = "/greengrass/v2/root-ca.pem";

pub(super) static SPEC: EditionSpec = EditionSpec {
    main: CONFIG,
    beside: &[ROOT_CA],
    key_uri: "/system/privateKeyPath",
    identity: &[
        "/system/thingName",
        "/services/aws.greengrass.crypto.Pkcs11Provider/configuration/slot",
        "/services/aws.greengrass.crypto.Pkcs11Provider/configuration/userPin",
    ],
    config_files,
    // The log, the files from which it is rebuilt if it is damaged, the copies that the nucleus leaves of both
    // (KernelLifecycle.initConfigAndTlog, CommitableFile, ConfigurationWriter), and the configuration as last read. A
    // deployment under way overrides all of these (Kernel.parseArgs), and earlier deployments have copies of the PIN.
    derived: &[
        "/greengrass/v2/config/config.tlog",
        "/greengrass/v2/config/config.tlog~",
        "/greengrass/v2/config/config.tlog+",
        "/greengrass/v2/config/config.tlog.old",
        "/greengrass/v2/config/bootstrap.tlog",
        "/greengrass/v2/config/bootstrap.tlog~",
        "/greengrass/v2/config/bootstrap.tlog+",
        "/greengrass/v2/config/effectiveConfig.yaml",
        "/greengrass/v2/config/effectiveConfig.yaml~",
        "/greengrass/v2/config/effectiveConfig.yaml+",
        "/greengrass/v2/deployments",
    ],
    log: Some("/greengrass/v2/config/config.tlog"),
    limit: MAX_SIZE,
    token_certificate: true,
};

fn config_files(values: &ConfigValues<'_>) -> Vec<ConfigFile> {
    let settings = values.settings;
    let ours = json!({
        "system": {
            "certificateFilePath": format!("pkcs11:object={OBJECT_LABEL};type=cert"),
            "privateKeyPath": format!("pkcs11:object={OBJECT_LABEL};type=private"),
            "rootCaPath": ROOT_CA,
            "thingName": values.thing_name,
        },
        "services": {
            "aws.greengrass.Nucleus": {
                "configuration": {
                    "awsRegion": settings.aws_region,
                    "iotRoleAlias": settings.iot_role_alias,
                    "iotDataEndpoint": settings.iot_data_endpoint,
                    "iotCredEndpoint": settings.iot_credential_endpoint,
                }
            },
            "aws.greengrass.crypto.Pkcs11Provider": {
                "configuration": {
                    "name": "tpm2_pkcs11",
                    "library": values.platform.pkcs11_module,
                    "slot": values.slot,
                    // The plugin gets the PIN in no other way.
                    "userPin": values.pin.expose(),
                }
            }
        }
    });
    // The image sets the nucleus's version: meta-aws writes it here.
    let defaults = json!({
        "system": { "rootpath": "/greengrass/v2" },
        "services": {
            "aws.greengrass.Nucleus": {
                "componentType": "NUCLEUS",
                "configuration": { "runWithDefault": { "posixUser": "ggc_user:ggc_group" } }
            }
        }
    });
    vec![
        ConfigFile::public(ROOT_CA, values.root_ca),
        ConfigFile {
            path: CONFIG,
            access: Access::PRIVATE,
            content: Content::Tree { ours, defaults },
        },
    ]
}
