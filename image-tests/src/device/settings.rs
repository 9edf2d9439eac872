//! An operator's settings, which tests change.

use anyhow::Result;
use serde_json::{Value, json};

use crate::clients::{KeyType, MODULE_VARIABLE, installed_module};

/// An operator's complete settings for offline enrollment with this edition.
pub fn offline_settings(edition: &str, key: KeyType) -> Value {
    let mut settings = json!({
        "thing_name": "gateway-${serial}",
        "key": key.name(),
        "enrollment": { "method": "offline" },
        "greengrass": {
            "edition": edition,
            "aws_region": "eu-central-1",
            "iot_data_endpoint": "abc123-ats.iot.eu-central-1.amazonaws.com",
            "iot_credential_endpoint": "def456.credentials.iot.eu-central-1.amazonaws.com",
            "iot_role_alias": "GreengrassCoreTokenExchangeRoleAlias"
        }
    });
    if edition == "v1" {
        settings["greengrass"]["aws_account_id"] = json!("123456789012");
    }
    settings
}

/// The image's settings: the installed defaults, and the PKCS#11 library if it is not the usual one.
pub fn of_the_image() -> Result<String> {
    let installed = include_str!("../../../firstboot/conf/firstboot.json");
    if std::env::var_os(MODULE_VARIABLE).is_none() {
        return Ok(installed.to_owned());
    }
    let mut settings: Value = serde_json::from_str(installed)?;
    settings["platform"] = json!({ "pkcs11_module": installed_module()? });
    Ok(settings.to_string())
}
