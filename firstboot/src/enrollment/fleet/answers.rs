//! Requests to AWS IoT Core's fleet provisioning, and its answers (AWS IoT Core developer guide, "Device provisioning
//! MQTT API"), as JSON. Answers come from the network: what differs from the documentation is refused, with the reason.

use std::collections::BTreeMap;

use firstboot_formats::thing_name::check_thing_name;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use zeroize::Zeroizing;

/// The topic of CreateCertificateFromCsr.
pub const CREATE: &str = "$aws/certificates/create-from-csr/json";
/// Maximum length of a certificate ID, characters: it has 64 hexadecimal digits (AWS IoT API reference).
const MAX_ID: usize = 128;
/// Maximum size of an ownership token, bytes; it usually has some hundred.
const MAX_TOKEN: usize = 16 * 1024;
/// Maximum size of the certificate and of the device's configuration, bytes: they have to fit into a file of the
/// identity directory.
const MAX_CONTENT: usize = 32 * 1024;

/// The topic of RegisterThing.
pub fn register_topic(template: &str) -> String {
    format!("$aws/provisioning-templates/{template}/provision/json")
}

/// The request of CreateCertificateFromCsr.
pub fn create_request(csr_pem: &str) -> Vec<u8> {
    json!({ "certificateSigningRequest": csr_pem })
        .to_string()
        .into_bytes()
}

/// The request of RegisterThing. It has the ownership token in it.
pub fn register_request(
    token: &str,
    parameters: &BTreeMap<String, String>,
) -> Result<Zeroizing<Vec<u8>>, String> {
    #[derive(serde::Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Request<'a> {
        certificate_ownership_token: &'a str,
        parameters: &'a BTreeMap<String, String>,
    }
    serde_json::to_vec(&Request {
        certificate_ownership_token: token,
        parameters,
    })
    .map(Zeroizing::new)
    .map_err(|e| e.to_string())
}

/// The answer of CreateCertificateFromCsr.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Created {
    /// AWS IoT's name for the certificate.
    pub certificate_id: String,
    /// The certificate, PEM.
    pub certificate_pem: String,
    /// Proves that it is ours.
    pub certificate_ownership_token: Zeroizing<String>,
}

impl Created {
    /// Reads the payload.
    pub fn parse(payload: &[u8]) -> Result<Self, String> {
        let created: Self = serde_json::from_slice(payload).map_err(|e| e.to_string())?;
        let id = &created.certificate_id;
        if id.is_empty() || id.len() > MAX_ID || !id.chars().all(|c| c.is_ascii_alphanumeric()) {
            return Err("certificateId is not valid".into());
        }
        let token = &created.certificate_ownership_token;
        if token.is_empty() || token.len() > MAX_TOKEN {
            return Err(format!(
                "certificateOwnershipToken is empty or too long ({} bytes)",
                token.len()
            ));
        }
        if created.certificate_pem.len() > MAX_CONTENT {
            return Err("certificatePem is too long".into());
        }
        Ok(created)
    }
}

/// The answer of RegisterThing.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Registered {
    /// The template's configuration for the device.
    #[serde(default)]
    pub device_configuration: Option<Map<String, Value>>,
    /// The thing's name, if the template creates a thing.
    #[serde(default)]
    pub thing_name: Option<String>,
}

impl Registered {
    /// Reads the payload.
    pub fn parse(payload: &[u8]) -> Result<Self, String> {
        if payload.len() > MAX_CONTENT {
            return Err(format!("it is too long ({} bytes)", payload.len()));
        }
        let registered: Self = serde_json::from_slice(payload).map_err(|e| e.to_string())?;
        if let Some(name) = &registered.thing_name {
            check_thing_name(name)?;
        }
        Ok(registered)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn created(id: &str, token: &str) -> Result<Created, String> {
        let payload = json!({
            "certificateId": id, "certificatePem": "x", "certificateOwnershipToken": token, "more": 1,
        });
        Created::parse(payload.to_string().as_bytes())
    }

    #[test]
    fn a_created_certificate_is_whole_or_refused() {
        assert_eq!(created("ab12", "t").unwrap().certificate_id, "ab12");
        for (id, token) in [("", "t"), ("a/b", "t"), ("a", ""), (&"a".repeat(129), "t")] {
            assert!(created(id, token).is_err(), "{id} {token}");
        }
        assert!(created("a", &"t".repeat(MAX_TOKEN + 1)).is_err());
        for text in ["", "[]", "{}", "null", r#"{"certificateId": 1}"#] {
            assert!(Created::parse(text.as_bytes()).is_err(), "{text}");
        }
    }

    #[test]
    fn a_registration_may_lack_the_name_but_not_have_a_wrong_one() {
        let parse = |text: &str| Registered::parse(text.as_bytes());
        let name = |text| parse(text).unwrap().thing_name;
        assert_eq!(name(r#"{"thingName": "gw:1"}"#).unwrap(), "gw:1");
        assert_eq!(name(r#"{"deviceConfiguration": {"a": [1]}}"#), None);
        assert!(parse(r#"{"thingName": "a/../b"}"#).is_err());
        assert!(parse(r#"{"thingName": ""}"#).is_err());
        assert!(parse(r#"{"deviceConfiguration": 7}"#).is_err());
    }

    #[test]
    fn requests_are_what_aws_documents() {
        let parameters = BTreeMap::from([("SerialNumber".to_owned(), "7\"".to_owned())]);
        let request = register_request("t\u{1}", &parameters).unwrap();
        let request: Value = serde_json::from_slice(&request).unwrap();
        let wanted =
            json!({"certificateOwnershipToken": "t\u{1}", "parameters": {"SerialNumber": "7\""}});
        assert_eq!(request, wanted);
        let request: Value = serde_json::from_slice(&create_request("-----\n")).unwrap();
        assert_eq!(request, json!({"certificateSigningRequest": "-----\n"}));
    }
}
