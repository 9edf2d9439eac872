//! What goes wrong between the device and AWS IoT Core, in words that say what the operator can do.
//!
//! If time or somebody at AWS's console can fix it, the device waits and tries again, without anybody's help. Foreign
//! text is hostile: it is truncated, and shown without control characters.

use std::io;

use mqtt_proto::v3::ConnectReturnCode;
use rustls::AlertDescription;
use serde::Deserialize;

use crate::enrollment::network::{
    Distrust, TlsTrouble, is_closing, is_timeout, tls, truncate, waiting,
};
use crate::error::Error;

/// Why nothing has come of what the broker was asked.
#[derive(Debug)]
pub enum Failure {
    /// It refuses this to this certificate, or to this client.
    Refused(Error),
    /// The connection ended without a reason: a refusal, or the network.
    Closed(Error),
    /// Anything else.
    Failed(Error),
}

impl From<Failure> for Error {
    fn from(why: Failure) -> Self {
        match why {
            Failure::Refused(e) | Failure::Closed(e) | Failure::Failed(e) => e,
        }
    }
}

/// The answer of a refused request (AWS IoT Core developer guide, "Device provisioning MQTT API": the
/// payload of `…/rejected`).
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Rejection {
    /// As in HTTP.
    pub status_code: u16,
    /// A word.
    pub error_code: String,
    /// A sentence.
    pub error_message: String,
}

impl Rejection {
    /// Parses the payload; an unreadable one is a refusal, too.
    pub fn parse(payload: &[u8]) -> Self {
        serde_json::from_slice(payload).unwrap_or_else(|e| Self {
            error_message: format!("its reason cannot be read: {e}"),
            ..Self::default()
        })
    }

    /// Whether it is the ownership token that is refused: used already, expired, or never issued.
    pub fn is_about_the_token(&self) -> bool {
        self.error_code == "InvalidCertificateOwnershipToken"
    }

    fn is_about_too_many(&self) -> bool {
        let code = self.error_code.to_ascii_lowercase();
        self.status_code == 429 || code.contains("throttl") || code.contains("limitexceeded")
    }

    /// Whether it is who asks that is refused.
    fn is_about_access(&self) -> bool {
        let code = self.error_code.to_ascii_lowercase();
        let words = ["denied", "unauthorized", "forbidden"];
        matches!(self.status_code, 401 | 403) || words.iter().any(|word| code.contains(word))
    }

    /// A refusal of who asks, or a failure: another one would be told the same.
    pub fn failure(&self, what: &str) -> Failure {
        let error = self.error(what);
        let is_about_another = self.is_about_the_token() || self.is_about_too_many();
        if self.is_about_access() && !is_about_another {
            Failure::Refused(error)
        } else {
            Failure::Failed(error)
        }
    }

    /// The error for the operator. AWS does not list the codes for this API; these are the ones that have
    /// been seen, and the exceptions of the same calls in the AWS IoT API reference.
    pub fn error(&self, what: &str) -> Error {
        let code = self.error_code.to_ascii_lowercase();
        let has = |word: &str| code.contains(word);
        let advice = match self.status_code {
            _ if self.is_about_the_token() => "requesting a new certificate",
            _ if self.is_about_too_many() => TOO_MANY,
            _ if self.is_about_access() => REFUSED,
            404 => NO_TEMPLATE,
            _ if has("notfound") => NO_TEMPLATE,
            409 => "the same thing is being changed elsewhere: firstboot tries again",
            500.. => "a problem at AWS: firstboot tries again later",
            _ if has("csr") || has("signingrequest") => {
                "AWS IoT does not accept this kind of request or key"
            }
            _ => {
                "do enrollment.template_parameters match the template, and is the template enabled?"
            }
        };
        waiting(format!(
            "{what}: refused ({} {}: {}); {advice}",
            self.status_code,
            truncate(&self.error_code),
            truncate(&self.error_message),
        ))
    }
}

const TOO_MANY: &str = "too many requests: firstboot tries again later";
const REFUSED: &str = "does the template's pre-provisioning hook allow the device, and does the template's role permit what the \
     template does?";
const NO_TEMPLATE: &str = "does enrollment.template_name name a provisioning template of this account and region, and is it enabled?";

/// The broker refused CONNECT.
pub fn connection_refused(code: ConnectReturnCode, client_id: &str) -> Error {
    waiting(format!(
        "AWS IoT Core refused the connection ({code:?}): is the certificate active, and does its policy allow \
         iot:Connect for the client ID {client_id}?"
    ))
}

/// The broker answered CONNECT with "server unavailable".
pub fn unavailable() -> Error {
    waiting("AWS IoT Core is currently unavailable: firstboot tries again later".into())
}

/// The broker refused SUBSCRIBE.
pub fn subscription_refused() -> Error {
    waiting(
        "AWS IoT Core refused the subscription to fleet provisioning's answers: does the \
         certificate's policy allow iot:Subscribe and iot:Receive for them?"
            .into(),
    )
}

/// The transport failed.
pub fn broken(what: &str, error: &io::Error) -> Error {
    match tls(error) {
        Some(tls) => refused(what, tls),
        None if is_timeout(error) => waiting(format!("{what}: timed out waiting for an answer")),
        // AWS IoT Core also closes the connection if a policy forbids something.
        None if is_closing(error) => waiting(format!(
            "{what}: the connection was closed, by the network or by AWS IoT Core: is the certificate that was shown \
             active, and does its policy allow this?"
        )),
        None => waiting(format!("{what}: {error}. Is the network up?")),
    }
}

/// Whether the other side ended the connection because of our certificate.
pub fn is_refusal(error: &io::Error) -> bool {
    matches!(tls(error), Some(TlsTrouble::Refused(_)))
}

fn refused(what: &str, trouble: TlsTrouble) -> Error {
    waiting(match trouble {
        TlsTrouble::Refused(alert) => format!(
            "{what}: the server refused the TLS connection ({alert:?}): {}",
            match alert {
                AlertDescription::NoApplicationProtocol =>
                    "it does not support ALPN x-amzn-mqtt-ca; is it the IoT data endpoint (…-ats.iot…)?",
                _ => "is the certificate active in this AWS account?",
            }
        ),
        TlsTrouble::Untrusted(why) => format!(
            "{what}: the server cannot be trusted: {}",
            match why {
                Distrust::Root { theirs, ours } => format!(
                    "its certificate chains up to {theirs:?}, but the root certificates here (root-ca.pem on the boot \
                     partition, or else the image's) are {ours:?}. Is greengrass.iot_data_endpoint the one of type \
                     iot:Data-ATS, and does a proxy intercept TLS? If the server is the right one, save its root as \
                     root-ca.pem"
                ),
                Distrust::Name =>
                    "its certificate is for another name than greengrass.iot_data_endpoint"
                        .to_owned(),
                Distrust::Other(why) => why,
            }
        ),
        TlsTrouble::Other(why) => format!("{what}: {why}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    #[test]
    fn each_refusal_says_what_to_do() {
        for (payload, advice) in [
            (
                r#"{"statusCode":400,"errorCode":"InvalidParameters"}"#,
                "template_parameters",
            ),
            (r#"{"statusCode":403,"errorCode":"AccessDenied"}"#, "hook"),
            (
                r#"{"statusCode":404,"errorCode":"ResourceNotFoundException"}"#,
                "template_name",
            ),
            (r#"{"statusCode":429,"errorCode":"Throttled"}"#, "later"),
            (
                r#"{"statusCode":400,"errorCode":"ThrottlingException"}"#,
                "later",
            ),
            (
                r#"{"statusCode":403,"errorCode":"LimitExceededException"}"#,
                "later",
            ),
            (
                r#"{"statusCode":409,"errorCode":"ConflictingResourceUpdateException"}"#,
                "tries again",
            ),
            (
                r#"{"statusCode":500,"errorCode":"InternalFailure"}"#,
                "problem at AWS",
            ),
            (
                r#"{"statusCode":400,"errorCode":"InvalidCsr"}"#,
                "kind of request",
            ),
            ("not JSON", "cannot be read"),
            ("{}", "template"),
        ] {
            let rejection = Rejection::parse(payload.as_bytes());
            let error = rejection.error("asking");
            assert_eq!(error.kind, ErrorKind::Waiting);
            assert!(error.to_string().contains(advice), "{error}");
            // Only this one may be accepted with another certificate.
            assert_eq!(
                matches!(rejection.failure("asking"), Failure::Refused(_)),
                advice == "hook",
                "{payload}"
            );
        }
    }

    #[test]
    fn foreign_text_is_truncated_and_controls_no_terminal() {
        let rejection = Rejection {
            error_message: "\u{1b}[2Jä".repeat(1000),
            ..Rejection::default()
        };
        let text = rejection.error("asking").to_string();
        assert!(
            !text.contains(char::is_control) && text.chars().count() < 2500,
            "{text}"
        );
    }
}
