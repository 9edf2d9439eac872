//! Greengrass V1, which AWS ended on 2026-10-07; cores in the field still have to be set up again.
//!
//! Source: AWS IoT Greengrass V1 developer guide, "Hardware security integration"; not tried against
//! a V1 core. The token is found by its label; certificates have to be files.

use firstboot_formats::files::Access;
use serde_json::json;

use super::{ConfigFile, ConfigValues, Content, EditionSpec, MAX_SIZE};
use crate::settings::aws;
use crate::token::{TOKEN_LABEL, key_uri};

const CONFIG: &str = "/greengrass/config/config.json";
const CERTIFICATE: &str = "/greengrass/certs/device.pem";
const ROOT_CA: &str = "/greengrass/certs/root.ca.pem";

pub(super) static SPEC: EditionSpec = EditionSpec {
    main: CONFIG,
    beside: &[ROOT_CA, CERTIFICATE],
    key_uri: "/crypto/principals/IoTCertificate/privateKeyPath",
    identity: &["/coreThing/thingArn", "/crypto/PKCS11/slotUserPin"],
    config_files,
    derived: &[],
    log: None,
    limit: MAX_SIZE,
    // V1 has the file, and no core has shown that it needs nothing else.
    token_certificate: true,
};

/// The beginning of Greengrass's endpoint: Beijing's has a form of its own (AWS IoT Greengrass endpoints and quotas,
/// "AWS IoT Greengrass V1 operations").
fn service(region: &str) -> &'static str {
    match region {
        "cn-north-1" => "greengrass.ats",
        _ => "greengrass-ats",
    }
}

fn config_files(values: &ConfigValues<'_>) -> Vec<ConfigFile> {
    let settings = values.settings;
    let region = &settings.aws_region;
    let partition = aws::partition(region);
    let ours = json!({
        "coreThing": {
            "thingArn": format!(
                "arn:{}:iot:{region}:{}:thing/{}",
                partition.name, settings.aws_account_id, values.thing_name
            ),
            "iotHost": settings.iot_data_endpoint,
            "ggHost": format!("{}.iot.{region}.{}", service(region), partition.domain),
        },
        "crypto": {
            "PKCS11": {
                "P11Provider": values.platform.pkcs11_module,
                "slotLabel": TOKEN_LABEL,
                "slotUserPin": values.pin.expose(),
            },
            "principals": {
                "IoTCertificate": {
                    "privateKeyPath": key_uri(),
                    "certificatePath": format!("file://{CERTIFICATE}"),
                },
                "MQTTServerCertificate": { "privateKeyPath": key_uri() },
            },
            "caPath": format!("file://{ROOT_CA}"),
        }
    });
    let defaults = json!({
        "coreThing": { "keepAlive": 600 },
        "runtime": { "cgroup": { "useSystemd": "yes" } },
        "managedRespawn": false,
    });
    vec![
        ConfigFile::public(ROOT_CA, values.root_ca),
        ConfigFile::public(CERTIFICATE, values.certificate),
        ConfigFile {
            path: CONFIG,
            access: Access::PRIVATE,
            content: Content::Tree { ours, defaults },
        },
    ]
}
