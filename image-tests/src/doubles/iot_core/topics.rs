//! The reserved topics of fleet provisioning, JSON format.
//!
//! Source: AWS IoT Core developer guide, "Device provisioning MQTT API".

use super::misbehaviour::Call;

/// CreateCertificateFromCsr.
pub const CREATE: &str = "$aws/certificates/create-from-csr/json";

/// The template's name, if this is a topic of RegisterThing.
pub fn template_of(topic: &str) -> Option<&str> {
    topic
        .strip_prefix("$aws/provisioning-templates/")?
        .strip_suffix("/provision/json")
        .filter(|name| !name.contains('/'))
}

/// The call that a topic is for.
pub fn call(topic: &str) -> Option<Call> {
    match template_of(topic) {
        Some(_) => Some(Call::RegisterThing),
        None => (topic == CREATE).then_some(Call::CreateCertificate),
    }
}

pub fn accepted(topic: &str) -> String {
    format!("{topic}/accepted")
}

pub fn rejected(topic: &str) -> String {
    format!("{topic}/rejected")
}
