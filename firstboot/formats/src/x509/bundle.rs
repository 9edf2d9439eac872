//! The certificates in a file of any form: PEM, DER, or the answer of `aws iot create-certificate-from-csr`, which has
//! PEM in it.

use serde_json::Value;

use super::certificate::Certificate;
use crate::pem::{self, Block};
use crate::printable::printable;
use crate::text;

/// The labels of PEM blocks with a certificate (RFC 7468 §5.1 and appendix B).
const LABELS: [&str; 2] = ["CERTIFICATE", "X509 CERTIFICATE"];

const DAMAGED: &str = "a CERTIFICATE block is damaged";

/// The certificates in a file, each once, in their order. A file with any other PEM block is refused, above all with a
/// private key. The error tells the operator what is wrong.
pub fn certificates(content: &[u8]) -> Result<Vec<Certificate>, String> {
    let text = text::decode(content);
    let mut found = Vec::new();
    let mut add = |certificate: Certificate| {
        if !found.contains(&certificate) {
            found.push(certificate);
        }
    };
    if let Some(certificates) = binary(&text) {
        certificates.into_iter().for_each(&mut add);
        return Ok(found);
    }
    for block in pem::blocks(&text)? {
        if !LABELS.contains(&block.label.as_str()) {
            return Err(printable(format!(
                "it contains a block \"{}\"; only certificates belong here",
                block.label
            )));
        }
        let der = block.decode().ok_or(DAMAGED)?;
        let certificate = Certificate::parse(der.to_vec());
        add(certificate.ok_or_else(|| format!("{DAMAGED}: it is not DER"))?);
    }
    match found.is_empty() {
        true => Err(format!(
            "it contains no certificate: it is {}",
            what_is(content)
        )),
        false => Ok(found),
    }
}

/// DER of one certificate, or of several, concatenated.
fn binary(content: &[u8]) -> Option<Vec<Certificate>> {
    use super::certificate::{Elements, tag};
    let mut elements = Elements::new(content, 0..content.len());
    let mut found = Vec::new();
    while let Some((element, rest)) = elements.take(tag::SEQUENCE) {
        found.push(Certificate::parse(content[element.whole].to_vec())?);
        elements = rest;
    }
    elements.end()?;
    (!found.is_empty()).then_some(found)
}

/// What a file is, in words, if it is not what was expected.
pub fn what_is(content: &[u8]) -> &'static str {
    let text = text::decode(content);
    let labels: Vec<String> = match pem::blocks(&text) {
        Ok(blocks) => blocks
            .into_iter()
            .map(|Block { label, .. }| label)
            .collect(),
        Err(_) => return "a damaged PEM file",
    };
    let has = |part: &str| labels.iter().any(|label| label.contains(part));
    if has("PRIVATE KEY") {
        return "a private key";
    }
    if has("REQUEST") {
        return "a certificate request, not yet signed";
    }
    if !labels.is_empty() {
        return match labels.iter().all(|label| LABELS.contains(&label.as_str())) {
            true => "a certificate",
            false => "PEM of another kind",
        };
    }
    if binary(&text).is_some() {
        return "a certificate in DER";
    }
    let start = text.trim_ascii_start();
    match start.first() {
        None => "empty",
        Some(0x30) if text[0] == 0x30 && !text.is_ascii() => {
            "DER of another kind, or a damaged certificate in DER"
        }
        Some(b'{') => match serde_json::from_slice::<Value>(&text) {
            Ok(_) => "JSON without a certificate",
            Err(_) => "damaged JSON",
        },
        Some(b'<') => "HTML or XML",
        _ if std::str::from_utf8(&text).is_err() || text.contains(&0) => "not text",
        _ => "text without PEM",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BUNDLE: &[u8] = include_bytes!("../../../conf/AmazonTrustServices.pem");

    /// The first of the bundle, as a file of its own.
    fn amazon() -> Vec<u8> {
        let text = String::from_utf8_lossy(BUNDLE);
        let end = text.match_indices("-----BEGIN").nth(1);
        BUNDLE[..end.map_or(0, |(at, _)| at)].to_vec()
    }

    fn refused(content: &[u8]) -> String {
        certificates(content).err().unwrap_or_default()
    }

    #[test]
    fn a_certificate_is_read_in_each_form_and_once() {
        let amazon = &*amazon();
        let der = certificates(amazon)
            .map(|found| found[0].der().to_vec())
            .unwrap_or_default();
        let text = String::from_utf8_lossy(amazon);
        let answer = serde_json::json!({ "certificateId": "0", "certificatePem": text });
        for content in [
            der.clone(),
            [der.as_slice(), &der].concat(),
            [b"# Autorit\xE9\r\n", amazon, b"\n", amazon].concat(),
            [b"\xEF\xBB\xBF", amazon].concat(),
            text.replace('\n', "\\n").into_bytes(),
            text.replace("CERTIFICATE", "X509 CERTIFICATE").into_bytes(),
            answer.to_string().into_bytes(),
        ] {
            let found = certificates(&content).unwrap_or_default();
            assert_eq!(found.len(), 1, "{}", refused(&content));
            assert_eq!(found[0].der(), der);
            assert_eq!(
                found[0].subject(),
                "CN=Amazon Root CA 1,O=Amazon,C=US",
                "as OpenSSL has it with -nameopt RFC2253"
            );
        }
    }

    #[test]
    fn what_is_not_a_certificate_is_named() {
        let answer = r#"{"certificatePem": "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----",
            "keyPair": {"PrivateKey": "-----BEGIN RSA PRIVATE KEY-----\nAAAA\n-----END RSA PRIVATE KEY-----"}}"#;
        let cut = &BUNDLE[..BUNDLE.len() / 2];
        for (content, why) in [
            (&b""[..], "it is empty"),
            (b"\r\n", "it is empty"),
            (b"-----BEGIN PRIVATE KEY-----\n", "PRIVATE KEY"),
            (answer.as_bytes(), "damaged"),
            (
                &answer.as_bytes()[110..],
                "it contains a block \"RSA PRIVATE KEY\";",
            ),
            (cut, "has no end"),
            (
                b"-----BEGIN CERTIFICATE-----\n!!!!\n-----END CERTIFICATE-----\n",
                "damaged",
            ),
            (b"{\"certificateId\": \"0\"}", "JSON without"),
            (b"{\"certificateId\": \"0", "damaged JSON"),
            (b"<!DOCTYPE html>", "HTML"),
            (b"hello", "text without PEM"),
            (b"\x30\x82\x01\xFF", "DER of another kind"),
            (b"PK\x03\x04\xFF", "not text"),
        ] {
            let refused = refused(content);
            assert!(refused.contains(why), "{why}: {refused}");
        }
    }
}
