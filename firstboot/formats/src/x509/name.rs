//! Names (RFC 5280 §4.1.2.4): made from settings, and shown as text, whatever string types a CA has used.

use std::str::FromStr;

use x509_cert::der::asn1::ObjectIdentifier;
use x509_cert::der::oid::db::{DB, rfc4519::CN};
use x509_cert::name::Name;

use super::certificate::{Element, Elements, tag};

/// A subject name from its attributes, most specific first, such as `[("CN", "gateway-1"), ("O",
/// "Example")]`; the short names are those of RFC 4514 §3. The error says what is wrong.
pub fn name(attributes: &[(&str, &str)]) -> std::result::Result<Name, String> {
    let text: Vec<String> = attributes
        .iter()
        .map(|(key, value)| format!("{key}={}", escape(value)))
        .collect();
    Name::from_str(&text.join(","))
        .map_err(|e| format!("cannot encode the name {}: {e}", text.join(",")))
}

/// RFC 4514 §2.4: characters that would end or change a value get a backslash.
fn escape(value: &str) -> String {
    value
        .chars()
        .flat_map(|c| {
            let special = ",+\"\\<>;=#".contains(c);
            special.then_some('\\').into_iter().chain([c])
        })
        .collect()
}

/// The common name of a name's DER as text.
pub(super) fn common_name(name: &[u8]) -> Option<String> {
    let is_common_name = |(id, _): &(_, _)| *id == CN.as_bytes();
    attributes(name)
        .find(is_common_name)
        .and_then(|(_, value)| text(name, &value))
}

/// A name's DER as text (RFC 4514 §2): the last attribute first.
pub(super) fn words(name: &[u8]) -> String {
    let mut words: Vec<String> = attributes(name)
        .map(|(id, value)| {
            let value = text(name, &value).unwrap_or_else(|| "?".into());
            format!("{}={}", label(id), escape(&value))
        })
        .collect();
    words.reverse();
    words.join(",")
}

/// The short name of an attribute's type, or else its number.
fn label(id: &[u8]) -> String {
    let Ok(id) = ObjectIdentifier::from_bytes(id) else {
        return "?".into();
    };
    let shortest = DB.find_names_for_oid(id).min_by_key(|name| name.len());
    // In capitals, as in RFC 4514 §3: CN, not cn.
    shortest.map_or_else(
        || id.to_string(),
        |name| match name.len() {
            0..=2 => name.to_uppercase(),
            _ => name.to_owned(),
        },
    )
}

/// The attributes of a name: the type's octets and the value. An unreadable one ends the list.
fn attributes(name: &[u8]) -> impl Iterator<Item = (&[u8], Element)> {
    let top = Elements::new(name, 0..name.len()).take(tag::SEQUENCE);
    each(name, top.map(|(name, _)| name))
        .flat_map(move |relative| each(name, Some(relative).filter(|r| r.tag == tag::SET)))
        .filter_map(move |attribute| {
            let (id, rest) = attribute.inside(name).take(tag::OBJECT_IDENTIFIER)?;
            let (value, _) = rest.next()?;
            Some((&name[id.content], value))
        })
}

/// The elements in an element.
fn each(der: &[u8], outer: Option<Element>) -> impl Iterator<Item = Element> {
    let mut elements = outer.map(|outer| outer.inside(der));
    std::iter::from_fn(move || {
        let (element, rest) = elements?.next()?;
        elements = Some(rest);
        Some(element)
    })
}

/// Decodes a string by its tag (X.680 §8.6, X.690 §8.23): UTF8String, the ASCII types, TeletexString as it is used in
/// practice (Latin-1), BMPString and UniversalString. Nothing if it is not a string, or not valid.
fn text(der: &[u8], value: &Element) -> Option<String> {
    let octets = &der[value.content.clone()];
    match value.tag {
        // UTF8String, NumericString, PrintableString, IA5String, VisibleString
        0x0C | 0x12 | 0x13 | 0x16 | 0x1A => String::from_utf8(octets.to_vec()).ok(),
        0x14 => Some(octets.iter().map(|b| char::from(*b)).collect()),
        0x1C => {
            let characters = octets.chunks(4).map(|four| {
                let four = four.try_into().ok()?;
                char::from_u32(u32::from_be_bytes(four))
            });
            characters.collect()
        }
        0x1E => {
            let units: Option<Vec<u16>> = octets
                .chunks(2)
                .map(|two| Some(u16::from_be_bytes(two.try_into().ok()?)))
                .collect();
            String::from_utf16(&units?).ok()
        }
        _ => None,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use openssl::asn1::Asn1Type;
    use openssl::x509::X509NameBuilder;

    use super::*;

    /// A name as OpenSSL writes it, with the common name in this kind of string.
    fn with(kind: Asn1Type, common_name: &str) -> Vec<u8> {
        let mut name = X509NameBuilder::new().unwrap();
        name.append_entry_by_text("O", "Example, Inc.").unwrap();
        name.append_entry_by_text_with_type("CN", common_name, kind)
            .unwrap();
        name.build().to_der().unwrap()
    }

    #[test]
    fn a_common_name_is_the_same_in_each_kind_of_string() {
        // OpenSSL takes the octets as they are.
        let wide = |zeros: &str| -> String {
            let widened = "gateway-1".chars().map(|c| format!("{zeros}{c}"));
            widened.collect()
        };
        for (kind, octets) in [
            (Asn1Type::UTF8STRING, wide("")),
            (Asn1Type::PRINTABLESTRING, wide("")),
            (Asn1Type::IA5STRING, wide("")),
            (Asn1Type::T61STRING, wide("")),
            (Asn1Type::BMPSTRING, wide("\0")),
            (Asn1Type::UNIVERSALSTRING, wide("\0\0\0")),
        ] {
            let name = with(kind, &octets);
            assert_eq!(common_name(&name).as_deref(), Some("gateway-1"));
            assert_eq!(words(&name), "CN=gateway-1,O=Example\\, Inc.");
        }
    }

    #[test]
    fn what_is_not_a_string_is_not_a_name() {
        let mut name = with(Asn1Type::PRINTABLESTRING, "gateway-1");
        let at = name.len() - "gateway-1".len() - 2;
        name[at] = 0x1E;
        assert_eq!(common_name(&name), None, "an odd number of octets");
        name[at] = 0x04;
        assert_eq!(common_name(&name), None, "an OCTET STRING");
        assert_eq!(common_name(&[]), None);
        assert_eq!(words(&[]), "");
    }
}
