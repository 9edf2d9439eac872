//! What goes wrong with an EST server, in words that say what the operator can do. Whatever the passing of time or
//! somebody at the CA can mend is waited for, including a reply that is not EST at all, such as a captive portal's.

use std::io;

use http::header::{CONTENT_TYPE, LOCATION, WWW_AUTHENTICATE};

use super::answers::Operation;
use super::http::{Answer, Trouble};
use crate::enrollment::network::{
    Distrust, TlsTrouble, is_closing, is_timeout, tls, truncate, waiting,
};
use crate::error::Error;

/// The exchange failed.
pub fn broken(operation: Operation, trouble: &Trouble) -> Error {
    let what = operation.what();
    match trouble {
        Trouble::Malformed(why) => waiting(format!(
            "{what}: the server does not answer with HTTP: {}",
            truncate(why)
        )),
        Trouble::Io(e) => waiting(format!("{what}: {}", transport(e))),
    }
}

fn transport(error: &io::Error) -> String {
    match tls(error) {
        Some(TlsTrouble::Refused(alert)) => format!(
            "the server refused the TLS connection ({alert:?}): does it accept the certificate that the device presents?"
        ),
        Some(TlsTrouble::Untrusted(why)) => format!(
            "the server cannot be trusted: {}",
            match why {
                Distrust::Root { theirs, ours } => format!(
                    "its certificate chains up to {theirs:?}, but est-ca.pem on the boot partition has {ours:?}. Is \
                     enrollment.est.server the right one, and does a proxy intercept TLS? If it is the right one, add \
                     its CA to est-ca.pem"
                ),
                Distrust::Name =>
                    "its certificate is for another name than enrollment.est.server".to_owned(),
                Distrust::Other(why) => why,
            }
        ),
        Some(TlsTrouble::Other(why)) => why,
        None if is_timeout(error) => "timed out waiting for an answer".into(),
        None if is_closing(error) => {
            "the connection was closed. Check the network, and whether the server wants another certificate from the \
             device"
                .into()
        }
        None => format!("{error}. Is the network up?"),
    }
}

/// The server said no.
pub fn refused(operation: Operation, answer: &Answer) -> Error {
    let what = operation.what();
    let status = answer.status.as_u16();
    let header = |name| {
        answer
            .headers
            .get(name)
            .and_then(|value| value.to_str().ok())
    };
    let advice = match status {
        300..400 => {
            return waiting(format!(
                "{what}: the server redirects to {:?}, which firstboot does not follow: set enrollment.est.server and \
                 .label to where it leads",
                truncate(header(LOCATION).unwrap_or("nowhere"))
            ));
        }
        401 | 403 if operation == Operation::Reenroll => {
            "does the CA renew this device's certificate, and already now?"
        }
        401 if wants_digest(answer) => {
            "the server wants HTTP digest authentication, which firstboot does not support: have it accept basic \
             authentication, or give the device a bootstrap certificate"
        }
        401 | 403 => {
            "is the password in claim.password that of enrollment.est.username, or the claim certificate one that the \
             server accepts, and may the device have a certificate of this name?"
        }
        404 | 405 => "are enrollment.est.server and .label those of an EST service?",
        400 if operation == Operation::Reenroll => {
            "does the CA renew a certificate under this name? RFC 7030 wants it unchanged"
        }
        400..500 => "does the CA accept a request with this name and kind of key?",
        _ => "a problem at the server: firstboot tries again",
    };
    waiting(format!(
        "{what}: refused ({status}{}); {advice}",
        words(answer)
    ))
}

/// Whether digest is the only way in that the server offers (RFC 7616 §3.3).
fn wants_digest(answer: &Answer) -> bool {
    let offered = answer.headers.get_all(WWW_AUTHENTICATE);
    let offers = |scheme: &str| {
        offered
            .iter()
            .filter_map(|value| value.to_str().ok())
            .any(|value| {
                value
                    .split([',', ' '])
                    .any(|word| word.eq_ignore_ascii_case(scheme))
            })
    };
    offers("digest") && !offers("basic")
}

/// The reason that the server may give as plain text (RFC 7030 §4.2.3).
fn words(answer: &Answer) -> String {
    let content_type = answer.headers.get(CONTENT_TYPE);
    let is_text = content_type.is_some_and(|value| value.as_bytes().starts_with(b"text/plain"));
    let text = String::from_utf8_lossy(&answer.body);
    match text.trim() {
        text if is_text && !text.is_empty() => format!(": {}", truncate(text)),
        _ => String::new(),
    }
}

/// Its answer cannot be used.
pub fn unusable(operation: Operation, why: &str) -> Error {
    waiting(format!(
        "{}: the answer cannot be used: {}",
        operation.what(),
        truncate(why)
    ))
}

/// None of the CA's certificates is one that a certificate has to lead up to: whatever it issued would be refused.
pub fn no_issuer(are_named: bool) -> Error {
    let (where_to, remedy) = if are_named {
        ("enrollment.issuers", "name the CA that issues there")
    } else {
        (
            "est-ca.pem on the boot partition",
            "add the CA that issues to it",
        )
    };
    Error::settings(format!(
        "nothing was requested: none of the CA's certificates that the EST server has leads up to one in {where_to}. Is \
         enrollment.est.label that of the right CA? If it is, {remedy}"
    ))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use http::{HeaderValue, StatusCode};

    use super::*;
    use crate::error::ErrorKind;

    fn answer(status: u16, headers: &[(&'static str, &'static str)], body: &str) -> Answer {
        let headers = headers.iter().map(|(name, value)| {
            let name = http::HeaderName::from_static(name);
            (name, HeaderValue::from_static(value))
        });
        Answer {
            status: StatusCode::from_u16(status).unwrap(),
            headers: headers.collect(),
            body: body.into(),
        }
    }

    #[test]
    fn each_refusal_says_what_to_do() {
        let digest = (
            "www-authenticate",
            "Digest realm=\"est, basic\", qop=\"auth\"",
        );
        let basic = ("www-authenticate", "Basic realm=\"est\"");
        for (answer, advice) in [
            (answer(401, &[basic], ""), "claim.password"),
            (answer(401, &[digest], ""), "digest"),
            (answer(401, &[digest, basic], ""), "claim.password"),
            (answer(404, &[], ""), "enrollment.est.server"),
            (answer(400, &[], ""), "kind of key"),
            (answer(503, &[], ""), "tries again"),
            (answer(302, &[("location", "https://x/")], ""), "https://x/"),
            (
                answer(400, &[("content-type", "text/plain")], "no such name"),
                "no such name",
            ),
        ] {
            let error = refused(Operation::Enroll, &answer);
            assert_eq!(error.kind, ErrorKind::Waiting);
            assert!(error.to_string().contains(advice), "{error}");
        }
        let html = answer(400, &[("content-type", "text/html")], "<p>no</p>");
        let error = refused(Operation::Reenroll, &html).to_string();
        assert!(
            error.contains("unchanged") && !error.contains("<p>"),
            "{error}"
        );
    }
}
