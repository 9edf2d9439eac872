//! What an EST server is asked and what it answers (RFC 7030 §4, with the encodings as RFC 8951 has them). Answers come
//! from the network: what is not as documented is refused, with the reason.

use std::time::{Duration, UNIX_EPOCH};

use firstboot_formats::encoding::{from_base64, to_base64};
use firstboot_formats::pem;
use http::header::{
    ACCEPT, AUTHORIZATION, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderValue,
    RETRY_AFTER, USER_AGENT,
};
use http::{Method, Request};
use openssl::pkcs7::Pkcs7;
use zeroize::Zeroizing;

use super::Password;
use super::http::Answer;
use crate::enrollment::network::truncate;
use crate::settings::Est;

/// The type of answers with certificates (RFC 7030 §4.1.3 and §4.2.3).
const CERTIFICATES: &str = "application/pkcs7-mime";
/// The type of a request (RFC 7030 §4.2.1).
const PKCS10: &str = "application/pkcs10";
/// An answer may have this many certificates: of a chain, or of a CA's few generations. Each is compared with each.
const MAX_CERTIFICATES: usize = 16;
/// No server is waited for longer than a day, whatever it says: a device must not be lost to a number.
const MAX_WAIT: Duration = Duration::from_secs(24 * 60 * 60);

/// What a server is asked for (RFC 7030 §3.2.2, figure 5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// The certificates of its CA.
    CaCertificates,
    /// A first certificate.
    Enroll,
    /// Another one, for a device that has one.
    Reenroll,
}

impl Operation {
    fn name(self) -> &'static str {
        match self {
            Self::CaCertificates => "cacerts",
            Self::Enroll => "simpleenroll",
            Self::Reenroll => "simplereenroll",
        }
    }

    /// What is being done, for the operator; reads before a colon.
    pub fn what(self) -> &'static str {
        match self {
            Self::CaCertificates => "getting the CA's certificates from the EST server",
            Self::Enroll => "requesting a certificate from the EST server",
            Self::Reenroll => "renewing the certificate at the EST server",
        }
    }
}

/// The request, without its body of this length.
pub fn request(
    server: &Est,
    operation: Operation,
    password: Option<&Password>,
    length: usize,
) -> Result<Request<()>, http::Error> {
    let method = match operation {
        Operation::CaCertificates => Method::GET,
        Operation::Enroll | Operation::Reenroll => Method::POST,
    };
    let label = match server.label.as_str() {
        "" => String::new(),
        label => format!("/{label}"),
    };
    let (authority, operation) = (&server.server, operation.name());
    let mut request = Request::builder()
        .method(&method)
        .uri(format!(
            "https://{authority}/.well-known/est{label}/{operation}"
        ))
        .header(USER_AGENT, concat!("firstboot/", env!("CARGO_PKG_VERSION")))
        // A kept one could end while a request is on its way, and nobody would know whether it was answered.
        .header(CONNECTION, "close")
        .header(ACCEPT, CERTIFICATES);
    if method == Method::POST {
        request = request
            .header(CONTENT_TYPE, PKCS10)
            // RFC 8951 §3 has it ignored; servers from before want it (RFC 7030 §4.2.1).
            .header("content-transfer-encoding", "base64")
            .header(CONTENT_LENGTH, length);
    }
    if let Some(Password { username, password }) = password {
        // RFC 7617 §2. Sent without being asked for, so that it takes one request.
        let plain = Zeroizing::new(format!("{username}:{}", password.as_str()));
        let encoded = Zeroizing::new(to_base64(plain.as_bytes()));
        let value = Zeroizing::new(format!("Basic {}", encoded.as_str()));
        let mut value = HeaderValue::from_str(&value)?;
        value.set_sensitive(true);
        request = request.header(AUTHORIZATION, value);
    }
    request.body(())
}

/// The body of a request: PKCS#10 in base64, which is what is between the markers of its PEM.
pub fn body(request_pem: &str) -> String {
    let lines = request_pem
        .lines()
        .filter(|line| !line.starts_with("-----"));
    lines.flat_map(|line| [line, "\n"]).collect()
}

/// The certificates of an answer, PEM: base64 of a certs-only PKCS#7. The error says what else it is.
pub fn certificates(answer: &Answer) -> Result<String, String> {
    let content_type = answer.headers.get(CONTENT_TYPE);
    let content_type = content_type.map_or("", |value| value.to_str().unwrap_or_default());
    let essence = content_type.split(';').next().unwrap_or_default().trim();
    if !essence.eq_ignore_ascii_case(CERTIFICATES) {
        return Err(format!(
            "its type is {:?}, not {CERTIFICATES}",
            truncate(content_type)
        ));
    }
    pkcs7(&answer.body)
}

fn pkcs7(body: &[u8]) -> Result<String, String> {
    let digits: Vec<u8> = body
        .iter()
        .copied()
        .filter(|b| !b.is_ascii_whitespace())
        .collect();
    let der = str::from_utf8(&digits).ok().and_then(from_base64);
    let der = der.ok_or("it is not base64")?;
    let pkcs7 = Pkcs7::from_der(&der).map_err(|e| format!("it is not PKCS#7: {e}"))?;
    let found = pkcs7.signed().and_then(|signed| signed.certificates());
    if found.is_some_and(|found| found.len() > MAX_CERTIFICATES) {
        return Err(format!("it has more than {MAX_CERTIFICATES} certificates"));
    }
    let mut all = String::new();
    for certificate in found.into_iter().flatten() {
        let der = certificate.to_der().map_err(|e| e.to_string())?;
        all += &pem::encode("CERTIFICATE", &der);
    }
    if all.is_empty() {
        return Err("there is no certificate in it".into());
    }
    Ok(all)
}

/// How long to wait before the same is asked again (RFC 9110 §10.2.3: seconds, or a date). `now` is since the epoch.
pub fn retry_after(headers: &HeaderMap, now: Duration) -> Option<Duration> {
    let value = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let is_number = !value.is_empty() && value.bytes().all(|b| b.is_ascii_digit());
    let wait = match value.parse() {
        Ok(seconds) => Duration::from_secs(seconds),
        // More than 64 bits of them.
        Err(_) if is_number => MAX_WAIT,
        Err(_) => {
            let moment = httpdate::parse_http_date(value).ok()?;
            moment.duration_since(UNIX_EPOCH).ok()?.saturating_sub(now)
        }
    };
    Some(wait.min(MAX_WAIT))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use firstboot_formats::x509;

    use super::*;

    const AMAZON: &[u8] = include_bytes!("../../../conf/AmazonTrustServices.pem");

    /// A certs-only PKCS#7 (RFC 2315 §9.1: no signers) of the file's certificates.
    fn certs_only() -> Vec<u8> {
        fn element(tag: u8, content: &[u8]) -> Vec<u8> {
            let [high, low] = u16::try_from(content.len()).unwrap().to_be_bytes();
            [&[tag, 0x82, high, low], content].concat()
        }
        // pkcs-7, and what of it: 1 data, 2 signedData.
        let oid = |last| [0x06, 9, 0x2A, 0x86, 0x48, 0x86, 0xF7, 0x0D, 1, 7, last];
        let all = x509::certificates(AMAZON).unwrap();
        let all: Vec<u8> = all.iter().flat_map(|c| c.der().to_vec()).collect();
        let signed = [
            vec![0x02, 1, 1, 0x31, 0],
            element(0x30, &oid(1)),
            element(0xA0, &all),
            vec![0x31, 0],
        ];
        let signed = element(0xA0, &element(0x30, &signed.concat()));
        element(0x30, &[&oid(2)[..], &signed].concat())
    }

    #[test]
    fn certificates_are_read_from_base64_in_lines_or_in_one() {
        let der = certs_only();
        let one = to_base64(&der);
        let lines = pem::encode("X", &der)
            .lines()
            .filter(|l| !l.starts_with('-'))
            .collect::<Vec<_>>()
            .join("\r\n");
        for body in [one.clone(), format!("{one}\n"), lines] {
            let pem = pkcs7(body.as_bytes()).unwrap();
            assert_eq!(x509::roots(pem.as_bytes()), x509::roots(AMAZON));
        }
        for (bad, why) in [
            (der, "base64"),
            (AMAZON.to_vec(), "base64"),
            (Vec::new(), "PKCS#7"),
            (b"MIIB".to_vec(), "PKCS#7"),
            (one.as_bytes()[..one.len() / 2].to_vec(), ""),
        ] {
            assert!(pkcs7(&bad).unwrap_err().contains(why), "{why}");
        }
    }

    #[test]
    fn the_type_is_looked_at_and_its_parameters_are_not() {
        let answer = |content_type: Option<&'static str>| Answer {
            status: http::StatusCode::OK,
            headers: content_type
                .map(|value| (CONTENT_TYPE, HeaderValue::from_static(value)))
                .into_iter()
                .collect(),
            body: to_base64(&certs_only()).into_bytes(),
        };
        for good in [
            "application/pkcs7-mime",
            "Application/PKCS7-MIME; smime-type=certs-only",
        ] {
            assert!(certificates(&answer(Some(good))).is_ok(), "{good}");
        }
        for bad in [None, Some("text/html"), Some("application/pkcs7-signature")] {
            assert!(certificates(&answer(bad)).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_request_is_what_rfc_7030_has() {
        let server = Est {
            server: "ca.example:8443".into(),
            label: "gateways".into(),
            ..Est::default()
        };
        let password = Password {
            username: "estuser".into(),
            password: Zeroizing::new("estpwd".into()),
        };
        let request = request(&server, Operation::Reenroll, Some(&password), 7).unwrap();
        assert_eq!(
            request.uri(),
            "https://ca.example:8443/.well-known/est/gateways/simplereenroll"
        );
        let header = |name: &str| request.headers()[name].to_str().unwrap().to_owned();
        assert_eq!(header("content-type"), "application/pkcs10");
        assert_eq!(header("content-transfer-encoding"), "base64");
        assert_eq!(header("content-length"), "7");
        assert_eq!(header("authorization"), "Basic ZXN0dXNlcjplc3Rwd2Q=");
        assert!(!format!("{request:?}").contains("ZXN0"), "{request:?}");
    }

    #[test]
    fn the_body_is_what_is_between_the_markers() {
        let pem = pem::encode("CERTIFICATE REQUEST", &[0x30; 100]);
        let digits: String = body(&pem).split_whitespace().collect();
        assert_eq!(from_base64(&digits).unwrap(), [0x30; 100]);
    }

    #[test]
    fn a_wait_is_in_seconds_or_until_a_date_and_has_an_end() {
        let wait = |text: &'static str| {
            let headers = [(RETRY_AFTER, HeaderValue::from_static(text))];
            retry_after(
                &headers.into_iter().collect(),
                Duration::from_secs(784_111_700),
            )
        };
        let seconds = |n| Some(Duration::from_secs(n));
        assert_eq!(wait("120"), seconds(120));
        // RFC 9110 §5.6.7's example, 77 seconds from now; and one that has passed.
        assert_eq!(wait("Sun, 06 Nov 1994 08:49:37 GMT"), seconds(77));
        assert_eq!(wait("Sun, 31 Oct 1993 08:49:37 GMT"), seconds(0));
        assert_eq!(wait("99999999999"), Some(MAX_WAIT));
        assert_eq!(wait("99999999999999999999999"), Some(MAX_WAIT));
        for bad in ["", "-1", "soon", "1.5"] {
            assert_eq!(wait(bad), None, "{bad}");
        }
        assert_eq!(retry_after(&HeaderMap::new(), Duration::ZERO), None);
    }
}
