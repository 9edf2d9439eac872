//! A private key in a token, named by a PKCS#11 URI (RFC 7512), as far as a key needs one.

use std::path::PathBuf;

/// What the URI says.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Pkcs11Uri {
    /// The token's label.
    pub(super) token: Option<String>,
    /// CKA_LABEL.
    pub(super) object: Option<String>,
    /// CKA_ID.
    pub(super) id: Option<Vec<u8>>,
    /// The PKCS#11 library.
    pub(super) module: Option<PathBuf>,
    /// The file with the PIN.
    pub(super) pin_file: Option<PathBuf>,
}

impl Pkcs11Uri {
    /// Reads a URI. The error says what is wrong.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let attributes = text
            .strip_prefix("pkcs11:")
            .ok_or("it does not begin with pkcs11:")?;
        let mut uri = Self::default();
        // Path attributes are parted by semicolons, query attributes by ampersands (§2.3).
        for attribute in attributes.split([';', '?', '&']).filter(|a| !a.is_empty()) {
            let (name, value) = attribute
                .split_once('=')
                .ok_or_else(|| format!("\"{attribute}\" has no value"))?;
            let bytes = decode(value).ok_or_else(|| format!("{name} is badly encoded"))?;
            if name == "id" {
                uri.id = Some(bytes);
                continue;
            }
            let text = String::from_utf8(bytes).map_err(|_| format!("{name} is not UTF-8"))?;
            match name {
                "token" => uri.token = Some(text),
                "object" => uri.object = Some(text),
                "module-path" => uri.module = Some(text.into()),
                "pin-source" => {
                    uri.pin_file = Some(text.strip_prefix("file:").unwrap_or(&text).into());
                }
                "type" if text == "private" => {}
                "pin-value" => {
                    return Err("pin-value would be seen by every user: use --pin-file".into());
                }
                _ => return Err(format!("{name}={text} is not known here")),
            }
        }
        match uri.object.is_some() || uri.id.is_some() {
            true => Ok(uri),
            false => Err("it names no key (object=… or id=…)".into()),
        }
    }
}

/// Percent-encoding (RFC 3986 §2.1).
fn decode(text: &str) -> Option<Vec<u8>> {
    let mut parts = text.split('%');
    let mut bytes = parts.next()?.as_bytes().to_vec();
    for part in parts {
        let (digits, rest) = part.split_at_checked(2)?;
        bytes.extend(crate::attestation::encoding::from_hexadecimal(digits)?);
        bytes.extend(rest.as_bytes());
    }
    Some(bytes)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_attributes_of_a_key_are_read() {
        let uri = "pkcs11:token=My%20CA;object=ca;id=%01%FF;type=private?module-path=/lib/x.so&pin-source=file:/pin";
        let expected = Pkcs11Uri {
            token: Some("My CA".into()),
            object: Some("ca".into()),
            id: Some(vec![1, 0xFF]),
            module: Some("/lib/x.so".into()),
            pin_file: Some("/pin".into()),
        };
        assert_eq!(Pkcs11Uri::parse(uri).unwrap(), expected);
    }

    #[test]
    fn what_is_not_known_is_refused_with_the_reason() {
        let refused = |text: &str| Pkcs11Uri::parse(text).unwrap_err();
        assert!(refused("file:key").contains("pkcs11:"));
        assert!(refused("pkcs11:token=a").contains("names no key"));
        assert!(refused("pkcs11:object=a?pin-value=1").contains("--pin-file"));
        assert!(refused("pkcs11:object=a;slot-id=1").contains("slot-id"));
        assert!(refused("pkcs11:object=%g0").contains("badly encoded"));
        assert!(refused("pkcs11:object=%0").contains("badly encoded"));
        assert!(refused("pkcs11:object").contains("no value"));
        assert!(refused("pkcs11:object=a;type=cert").contains("type=cert"));
    }
}
