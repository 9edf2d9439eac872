//! Settings as an operator would write them: what a test starts from and changes.

use serde_json::{Value, json};

use crate::clients::KeyType;

/// Complete settings for offline enrollment: the design's example for the edition.
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
