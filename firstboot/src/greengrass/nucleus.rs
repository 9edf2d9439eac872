//! Greengrass nucleus (V2, Java), with its PKCS#11 provider plugin.
//!
//! Sources: AWS IoT Greengrass V2 developer guide, "Hardware security integration"; the plugin's
//! PKCS11CryptoKeyService.java. The plugin reads `object`
//! and `type` of a URI and nothing else, takes a slot ID (neither index nor label), and wants the
//! certificate in the token beside the key, under the same label.

use firstboot_formats::files::Access;
use serde_json::json;

use super::{Content, Document, Facts, Form, MAX_SIZE};
use crate::token::OBJECT_LABEL;

const CONFIG: &str = "/greengrass/v2/config/config.yaml";
const ROOT_CA: &str = "/greengrass/v2/root-ca.pem";

pub(super) static FORM: Form = Form {
    main: CONFIG,
    beside: &[ROOT_CA],
    key_uri: "/system/privateKeyPath",
    identity: &[
        "/system/thingName",
        "/services/aws.greengrass.crypto.Pkcs11Provider/configuration/slot",
        "/services/aws.greengrass.crypto.Pkcs11Provider/configuration/userPin",
    ],
    documents,
    // The log, what it is made again from where it is damaged, the copies that the nucleus leaves of both
    // (KernelLifecycle.initConfigAndTlog, CommitableFile, ConfigurationWriter), and the configuration as it was read
    // last. A deployment under way wins over all of these (Kernel.parseArgs), and those before have copies of the PIN.
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
};

fn documents(facts: &Facts<'_>) -> Vec<Document> {
    let settings = facts.settings;
    let ours = json!({
        "system": {
            "certificateFilePath": format!("pkcs11:object={OBJECT_LABEL};type=cert"),
            "privateKeyPath": format!("pkcs11:object={OBJECT_LABEL};type=private"),
            "rootCaPath": ROOT_CA,
            "thingName": facts.thing_name,
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
                    "library": facts.platform.pkcs11_module,
                    "slot": facts.slot,
                    // The plugin knows no other way to the PIN.
                    "userPin": facts.pin.expose(),
                }
            }
        }
    });
    // The nucleus's version is the image's to say: meta-aws writes it here.
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
        Document::public(ROOT_CA, facts.root_ca),
        Document {
            path: CONFIG,
            access: Access::PRIVATE,
            content: Content::Tree { ours, defaults },
        },
    ]
}
