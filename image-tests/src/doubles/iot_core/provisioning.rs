//! CreateCertificateFromCsr and RegisterThing, and what AWS enforces in them.
//!
//! Source: AWS IoT Core developer guide, "Device provisioning MQTT API" and "Provisioning templates".

use openssl::hash::MessageDigest;
use openssl::x509::X509;
use serde_json::{Value, json};

use super::registry::{Certificate, Registry, Status, TOKEN_LIFETIME};
use super::{csr, topics};
use crate::doubles::pki::aws::{AwsCa, Subject};
use crate::doubles::pki::{Validity, hex};

/// An error: `{statusCode, errorCode, errorMessage}`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    pub status: u16,
    pub code: String,
    pub message: String,
}

impl Rejection {
    pub fn new(status: u16, code: &str, message: impl Into<String>) -> Self {
        Self {
            status,
            code: code.to_owned(),
            message: message.into(),
        }
    }

    /// Seen in public with status 400: aws-iot-device-sdk-js-v2, issue 69.
    pub fn invalid_token(message: &str) -> Self {
        Self::new(400, "InvalidCertificateOwnershipToken", message)
    }

    pub fn invalid_request(message: impl Into<String>) -> Self {
        Self::new(400, "InvalidRequest", message)
    }

    /// "the provisioning request fails with ACCESS_DENIED" (pre-provisioning hook); seen with 403:
    /// aws-samples/aws-iot-fleet-provisioning, issue 25.
    pub fn access_denied(message: &str) -> Self {
        Self::new(403, "AccessDenied", message)
    }

    pub fn payload(&self) -> Vec<u8> {
        let payload = json!({
            "statusCode": self.status,
            "errorCode": self.code,
            "errorMessage": self.message,
        });
        payload.to_string().into_bytes()
    }
}

/// The answer to a second RegisterThing with a used token, which AWS does not document.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Repeated {
    /// The same answer as the first time.
    Idempotent,
    /// InvalidCertificateOwnershipToken.
    #[default]
    Refused,
}

/// A provisioning template: its parameters, and what it makes of them.
#[derive(Clone, Debug)]
pub struct Template {
    pub name: String,
    /// Parameters without a default.
    pub required: Vec<String>,
    /// Parameters with a default.
    pub optional: Vec<String>,
    /// The thing's name is this prefix and the value of the first required parameter.
    pub thing_prefix: String,
    /// What the template sends besides the name.
    pub device_configuration: Value,
    /// The certificate's status after registration.
    pub status: Status,
}

impl Default for Template {
    fn default() -> Self {
        Self {
            name: "gateways".into(),
            required: vec!["SerialNumber".into()],
            optional: vec!["Location".into()],
            thing_prefix: "core-".into(),
            device_configuration: json!({ "site": "factory" }),
            status: Status::Active,
        }
    }
}

/// Carries out requests, and remembers.
#[derive(Clone, Debug)]
pub struct Service {
    /// Of the certificates that it issues.
    pub validity: Validity,
    pub registry: Registry,
    pub issuer: AwsCa,
    pub templates: Vec<Template>,
    pub repeated: Repeated,
    pub subject: Subject,
}

impl Service {
    /// CreateCertificateFromCsr.
    pub fn create(&mut self, payload: &[u8]) -> Result<Value, Rejection> {
        let asked = object(payload)?;
        let pem = text(&asked, "certificateSigningRequest")?;
        let (request, key) = csr::check(pem).map_err(|e| {
            Rejection::new(
                400,
                "InvalidCertificateSigningRequest",
                format!("the CSR: {e}"),
            )
        })?;
        let internal = |e: anyhow::Error| Rejection::new(500, "InternalError", e.to_string());
        let issued = self
            .issuer
            .issue(&request, &key, self.subject, self.validity)
            .map_err(internal)?;
        let certificate = self.entry(&issued).map_err(internal)?;
        let answer = json!({
            "certificateId": certificate.id,
            "certificatePem": certificate.pem,
            "certificateOwnershipToken": certificate.token,
        });
        self.registry.add(certificate);
        Ok(answer)
    }

    fn entry(&self, issued: &X509) -> anyhow::Result<Certificate> {
        // About as long as AWS's, and opaque: a device must not look into it.
        let mut token = [0; 240];
        openssl::rand::rand_bytes(&mut token)?;
        let digest = |der: &[u8]| openssl::hash::hash(MessageDigest::sha256(), der);
        Ok(Certificate {
            id: hex(&issued.digest(MessageDigest::sha256())?),
            pem: String::from_utf8(issued.to_pem()?)?,
            key_sha256: hex(&digest(&issued.public_key()?.public_key_to_der()?)?),
            token: hex(&token),
            token_used: false,
            created: self.registry.now(),
            status: Status::PendingActivation,
            thing: None,
        })
    }

    /// RegisterThing; the topic has the template's name.
    pub fn register(&mut self, topic: &str, payload: &[u8]) -> Result<Value, Rejection> {
        self.registry.register_calls += 1;
        let asked = object(payload)?;
        let name = topics::template_of(topic).unwrap_or_default();
        let template = self
            .templates
            .iter()
            .find(|template| template.name == name)
            .cloned()
            .ok_or_else(|| Rejection::new(404, "ResourceNotFound", "no such template"))?;
        let now = self.registry.now();
        let repeated = self.repeated;
        let token = text(&asked, "certificateOwnershipToken").map_err(|_| {
            Rejection::invalid_token("Certificate ownership token cannot be empty.")
        })?;
        let certificate = self
            .registry
            .by_token(token)
            .ok_or_else(|| Rejection::invalid_token("Certificate ownership token is invalid."))?;
        if certificate.token_used && repeated == Repeated::Refused {
            return Err(Rejection::invalid_token(
                "Certificate ownership token is used.",
            ));
        }
        if now.saturating_sub(certificate.created) >= TOKEN_LIFETIME {
            return Err(Rejection::invalid_token(
                "Certificate ownership token has expired.",
            ));
        }
        let thing = template.thing(asked.get("parameters"))?;
        certificate.token_used = true;
        certificate.status = template.status;
        certificate.thing = Some(thing.clone());
        self.registry.registered += 1;
        Ok(json!({
            "deviceConfiguration": template.device_configuration,
            "thingName": thing,
        }))
    }
}

impl Template {
    /// The thing's name, if the parameters match the template.
    fn thing(&self, parameters: Option<&Value>) -> Result<String, Rejection> {
        let invalid = |message: String| Rejection::new(400, "InvalidParameters", message);
        let empty = Value::Object(serde_json::Map::new());
        let Value::Object(given) = parameters.unwrap_or(&empty) else {
            return Err(invalid("parameters is not an object".into()));
        };
        for (name, value) in given {
            if !self.required.contains(name) && !self.optional.contains(name) {
                return Err(invalid(format!("unknown parameter {name}")));
            }
            if !value.is_string() {
                return Err(invalid(format!("parameter {name} is not a string")));
            }
        }
        for name in &self.required {
            if !given.contains_key(name) {
                return Err(invalid(format!("parameter {name} is missing")));
            }
        }
        let first = self.required.first().and_then(|name| given.get(name));
        let first = first.and_then(Value::as_str).unwrap_or_default();
        Ok(format!("{}{first}", self.thing_prefix))
    }
}

fn object(payload: &[u8]) -> Result<Value, Rejection> {
    match serde_json::from_slice(payload) {
        Ok(value @ Value::Object(_)) => Ok(value),
        _ => Err(Rejection::new(400, "InvalidPayload", "no JSON object")),
    }
}

fn text<'a>(asked: &'a Value, name: &str) -> Result<&'a str, Rejection> {
    match asked.get(name).and_then(Value::as_str) {
        Some(text) if !text.is_empty() => Ok(text),
        _ => Err(Rejection::invalid_request(format!("{name} is missing"))),
    }
}
