//! A certificate as it came: its bytes, and where in them the fields are.
//!
//! x509-cert's type refuses everything that is not strict DER: an unsorted SET, a BOOLEAN that is 1, a long form of a
//! short length, a negative serial number. Certificates with these are in use, and OpenSSL verifies them. OpenSSL has
//! to verify these very bytes, so they are never re-encoded. OpenSSL's own type is not used either: its first
//! certificate in a process costs 7 million instructions, as much as a boot with nothing to do. Nor does OpenSSL's Rust
//! interface show the extensions, of which the station reads more than one.

use std::ops::Range;
use std::time::Duration;

use serde::Serialize;
use x509_cert::der::DateTime;

use super::name;
use crate::clock::rfc3339;
use crate::encoding::to_hex;
use crate::printable::printable;

/// A certificate. Two are equal when their bytes are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    der: Vec<u8>,
    serial_number: Range<usize>,
    issuer: Range<usize>,
    subject: Range<usize>,
    key: Range<usize>,
    signature: Range<usize>,
    /// Since the epoch; an earlier start counts as the epoch.
    pub(super) not_before: Duration,
    pub(super) not_after: Duration,
    extensions: Vec<Extension>,
    is_authority: bool,
}

/// An extension (RFC 5280 §4.1): the positions of its identifier and its value.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Extension {
    id: Range<usize>,
    value: Range<usize>,
}

/// What a certificate says, for people and their programs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// The subject (RFC 4514).
    pub subject: String,
    /// The issuer (RFC 4514).
    pub issuer: String,
    /// The serial number's octets, hexadecimal.
    pub serial: String,
    /// The start of its validity (RFC 3339, UTC).
    pub not_before: String,
    /// The end of its validity (RFC 3339, UTC).
    pub not_after: String,
}

/// The DER of a certificate and of the fields that a PKCS#11 certificate object repeats
/// (PKCS#11 3.1 §4.6.3).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateDer {
    /// The certificate: CKA_VALUE.
    pub value: Vec<u8>,
    /// Its subject name: CKA_SUBJECT.
    pub subject: Vec<u8>,
    /// Its issuer name: CKA_ISSUER.
    pub issuer: Vec<u8>,
    /// Its serial number, an INTEGER: CKA_SERIAL_NUMBER.
    pub serial_number: Vec<u8>,
}

/// Identifier octets (X.690 §8.1.2, RFC 5280 §4.1).
pub(super) mod tag {
    pub const BOOLEAN: u8 = 0x01;
    pub const INTEGER: u8 = 0x02;
    pub const BIT_STRING: u8 = 0x03;
    pub const OCTET_STRING: u8 = 0x04;
    pub const OBJECT_IDENTIFIER: u8 = 0x06;
    pub const UTC_TIME: u8 = 0x17;
    pub const GENERALIZED_TIME: u8 = 0x18;
    pub const SEQUENCE: u8 = 0x30;
    pub const SET: u8 = 0x31;
    pub const VERSION: u8 = 0xA0;
    pub const EXTENSIONS: u8 = 0xA3;
}

/// id-ce-basicConstraints, 2.5.29.19 (RFC 5280 §4.2.1.9).
const BASIC_CONSTRAINTS: [u8; 3] = [0x55, 0x1D, 0x13];

impl Certificate {
    /// Parses a certificate that fills these bytes; nothing if they are not one.
    pub fn parse(der: Vec<u8>) -> Option<Self> {
        let (outer, rest) = Elements::new(&der, 0..der.len()).take(tag::SEQUENCE)?;
        rest.end()?;
        let (tbs, outer) = outer.inside(&der).take(tag::SEQUENCE)?;
        let (_, outer) = outer.take(tag::SEQUENCE)?;
        let (signature, outer) = outer.take(tag::BIT_STRING)?;
        outer.end()?;

        let tbs = tbs.inside(&der);
        let tbs = tbs.take(tag::VERSION).map_or(tbs, |(_, after)| after);
        let (serial_number, tbs) = tbs.take(tag::INTEGER)?;
        let (_, tbs) = tbs.take(tag::SEQUENCE)?;
        let (issuer, tbs) = tbs.take(tag::SEQUENCE)?;
        let (validity, tbs) = tbs.take(tag::SEQUENCE)?;
        let (subject, tbs) = tbs.take(tag::SEQUENCE)?;
        let (key, tbs) = tbs.take(tag::SEQUENCE)?;
        let validity = validity.inside(&der);
        let (not_before, validity) = validity.next()?;
        let (not_after, validity) = validity.next()?;
        validity.end()?;

        let extensions = extensions(&der, tbs)?;
        Some(Self {
            not_before: moment(not_before.tag, &der[not_before.content])?,
            not_after: moment(not_after.tag, &der[not_after.content])?,
            is_authority: has_authority(&der, &extensions)?,
            extensions,
            serial_number: serial_number.whole,
            issuer: issuer.whole,
            subject: subject.whole,
            key: key.whole,
            signature: signature.whole,
            der,
        })
    }

    /// Its bytes.
    pub fn der(&self) -> &[u8] {
        &self.der
    }

    /// Its key: the DER of a SubjectPublicKeyInfo.
    pub fn key(&self) -> &[u8] {
        &self.der[self.key.clone()]
    }

    /// The end of its validity, since the epoch.
    pub fn not_after(&self) -> Duration {
        self.not_after
    }

    /// The DER of its subject name.
    pub fn subject_der(&self) -> &[u8] {
        &self.der[self.subject.clone()]
    }

    /// The DER of the value of the extension whose identifier has these octets (the content of an OBJECT IDENTIFIER,
    /// X.690 §8.19).
    pub fn extension(&self, id: &[u8]) -> Option<&[u8]> {
        let found = self
            .extensions
            .iter()
            .find(|e| self.der[e.id.clone()] == *id);
        found.map(|extension| &self.der[extension.value.clone()])
    }

    /// Whether it is a CA's: basicConstraints with cA (RFC 5280 §4.2.1.9).
    pub fn is_authority(&self) -> bool {
        self.is_authority
    }

    /// Issuer and serial number, which together are unique (RFC 5280 §4.1.2.2).
    pub(super) fn identifier(&self) -> (&[u8], &[u8]) {
        (
            &self.der[self.issuer.clone()],
            &self.der[self.serial_number.clone()],
        )
    }

    /// The signature, a BIT STRING.
    pub(super) fn signature(&self) -> &[u8] {
        &self.der[self.signature.clone()]
    }

    /// Its subject in words.
    pub fn subject(&self) -> String {
        name::words(&self.der[self.subject.clone()])
    }

    /// Its issuer in words.
    pub fn issuer(&self) -> String {
        name::words(&self.der[self.issuer.clone()])
    }

    /// The subject's common name.
    pub(super) fn common_name(&self) -> Option<String> {
        name::common_name(&self.der[self.subject.clone()])
    }

    /// The octets of the serial number.
    pub(super) fn serial_number(&self) -> &[u8] {
        let whole = self.serial_number.clone();
        let content = Elements::new(&self.der, whole).next();
        content.map_or(&[], |(element, _)| &self.der[element.content])
    }

    /// What it says.
    pub fn summary(&self) -> Summary {
        Summary {
            subject: printable(self.subject()),
            issuer: printable(self.issuer()),
            serial: to_hex(self.serial_number()),
            not_before: rfc3339(self.not_before),
            not_after: rfc3339(self.not_after),
        }
    }

    /// As PKCS#11 stores it.
    pub(super) fn object(&self) -> CertificateDer {
        let part = |range: &Range<usize>| self.der[range.clone()].to_vec();
        CertificateDer {
            value: self.der.clone(),
            subject: part(&self.subject),
            issuer: part(&self.issuer),
            serial_number: part(&self.serial_number),
        }
    }
}

/// The extensions, which follow the key; unique identifiers, which nobody uses, may come first. Nothing if they are
/// damaged.
fn extensions(der: &[u8], mut after_key: Elements<'_>) -> Option<Vec<Extension>> {
    let mut found = Vec::new();
    while let Some((element, rest)) = after_key.next() {
        after_key = rest;
        if element.tag != tag::EXTENSIONS {
            continue;
        }
        let (extensions, end) = element.inside(der).take(tag::SEQUENCE)?;
        end.end()?;
        let mut extensions = extensions.inside(der);
        while let Some((extension, rest)) = extensions.next() {
            extensions = rest;
            let (id, value) = extension.inside(der).take(tag::OBJECT_IDENTIFIER)?;
            let value = value.take(tag::BOOLEAN).map_or(value, |(_, after)| after);
            let (value, _) = value.take(tag::OCTET_STRING)?;
            found.push(Extension {
                id: id.content,
                value: value.content,
            });
        }
        extensions.end()?;
    }
    after_key.end()?;
    Some(found)
}

/// Whether basicConstraints has cA. Nothing if the extension is damaged.
fn has_authority(der: &[u8], extensions: &[Extension]) -> Option<bool> {
    let mut found = false;
    for extension in extensions
        .iter()
        .filter(|e| der[e.id.clone()] == BASIC_CONSTRAINTS)
    {
        let (constraints, _) = Elements::new(der, extension.value.clone()).take(tag::SEQUENCE)?;
        let authority = constraints.inside(der).take(tag::BOOLEAN);
        found |= authority.is_some_and(|(a, _)| der[a.content].iter().any(|b| *b != 0));
    }
    Some(found)
}

/// A time (RFC 5280 §4.1.2.5), and the forms that only BER has (X.690 §11.7, §11.8): no seconds, an offset.
fn moment(tag: u8, text: &[u8]) -> Option<Duration> {
    let text = std::str::from_utf8(text).ok().filter(|t| t.is_ascii())?;
    let years = match tag {
        tag::UTC_TIME => 2,
        tag::GENERALIZED_TIME => 4,
        _ => return None,
    };
    let zone = text.find(['Z', '+', '-'])?;
    let (digits, zone) = text.split_at(zone);
    let number = |at: Range<usize>| -> Option<u16> {
        let digits = digits.get(at)?;
        let all = digits.bytes().all(|c| c.is_ascii_digit());
        all.then(|| digits.parse().ok())?
    };
    let pair = |nth: usize| number(years + 2 * nth..years + 2 * nth + 2).map(|n| n as u8);
    let year = match number(0..years)? {
        year if years == 4 => year,
        year if year >= 50 => 1900 + year,
        year => 2000 + year,
    };
    let seconds = match digits.len() - years {
        8 => 0,
        10 => pair(4)?,
        _ => return None,
    };
    if year < 1970 {
        return Some(Duration::ZERO);
    }
    let local = DateTime::new(year, pair(0)?, pair(1)?, pair(2)?, pair(3)?, seconds).ok()?;
    let local = local.unix_duration();
    let offset = |text: &str| -> Option<Duration> {
        let minutes = text.get(2..4)?.parse::<u64>().ok()?;
        let hours = text.get(..2)?.parse::<u64>().ok()?;
        (text.len() == 4).then(|| Duration::from_secs(3600 * hours + 60 * minutes))
    };
    match zone.split_at_checked(1)? {
        ("Z", "") => Some(local),
        ("+", ahead) => Some(local.saturating_sub(offset(ahead)?)),
        ("-", behind) => local.checked_add(offset(behind)?),
        _ => None,
    }
}

/// An element of DER: its identifier, and the positions of the whole element and its content.
pub(super) struct Element {
    pub(super) tag: u8,
    pub(super) whole: Range<usize>,
    pub(super) content: Range<usize>,
}

/// Elements of DER one after the other (X.690 §8.1), each of definite length, whatever the length's form.
#[derive(Clone, Copy)]
pub(super) struct Elements<'a> {
    der: &'a [u8],
    at: usize,
    end: usize,
}

impl<'a> Elements<'a> {
    pub(super) fn new(der: &'a [u8], within: Range<usize>) -> Self {
        Self {
            der,
            at: within.start,
            end: within.end,
        }
    }

    /// The next element, and what follows it; nothing at the end, or if there is no valid element.
    pub(super) fn next(self) -> Option<(Element, Self)> {
        let [tag, length, after @ ..] = self.der.get(self.at..self.end)? else {
            return None;
        };
        // No certificate has tags of more than one octet.
        if tag & 0x1F == 0x1F {
            return None;
        }
        let (octets, length) = match length {
            0..=0x7F => (0, usize::from(*length)),
            // 0x80, a length that is found at the end, is not DER by any reading.
            0x81..=0x84 => {
                let octets = usize::from(length & 0x7F);
                let number = after.get(..octets)?.iter();
                (octets, number.fold(0, |n, b| n << 8 | usize::from(*b)))
            }
            _ => return None,
        };
        let start = self.at + 2 + octets;
        let end = start.checked_add(length).filter(|end| *end <= self.end)?;
        let element = Element {
            tag: *tag,
            whole: self.at..end,
            content: start..end,
        };
        Some((element, Self { at: end, ..self }))
    }

    /// The next element if it has this tag, and what follows it.
    pub(super) fn take(self, tag: u8) -> Option<(Element, Self)> {
        self.next().filter(|(element, _)| element.tag == tag)
    }

    /// Succeeds if nothing is left.
    pub(super) fn end(self) -> Option<()> {
        (self.at == self.end).then_some(())
    }
}

impl Element {
    /// The elements in it.
    pub(super) fn inside<'a>(&self, der: &'a [u8]) -> Elements<'a> {
        Elements::new(der, self.content.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_in_each_form_are_one_moment() {
        let noon = Some(Duration::from_secs(1_704_110_400));
        for text in [
            "240101120000Z",
            "2401011200Z",
            "240101133000+0130",
            "240101103000-0130",
        ] {
            assert_eq!(moment(tag::UTC_TIME, text.as_bytes()), noon, "{text}");
            let long = format!("20{text}");
            assert_eq!(moment(tag::GENERALIZED_TIME, long.as_bytes()), noon);
        }
        assert_eq!(
            moment(tag::UTC_TIME, b"500101000000Z"),
            Some(Duration::ZERO)
        );
        for bad in ["", "Z", "240101120000", "24010112000Z", "241301120000Z"] {
            assert_eq!(moment(tag::UTC_TIME, bad.as_bytes()), None, "{bad}");
        }
        for bad in [
            "2401011200+1",
            "2401011200Zx",
            "24-101120000Z",
            "+40101120000Z",
        ] {
            assert_eq!(moment(tag::UTC_TIME, bad.as_bytes()), None, "{bad}");
        }
    }

    #[test]
    fn elements_end_where_their_container_does() {
        let one = |der: &[u8]| Elements::new(der, 0..der.len()).next().is_some();
        assert!(one(&[0x04, 0x01, 0xFF]));
        assert!(
            one(&[0x04, 0x82, 0x00, 0x01, 0xFF]),
            "a long form of a short length"
        );
        for bad in [
            &[][..],
            &[0x04],
            &[0x04, 0x02, 0xFF],
            &[0x30, 0x80, 0, 0],
            &[0x1F, 0x20, 0],
            &[0x04, 0x84, 0xFF, 0xFF, 0xFF, 0xFF],
            &[0x04, 0x85, 0, 0, 0, 0, 0],
        ] {
            assert!(!one(bad), "{bad:x?}");
        }
    }
}
