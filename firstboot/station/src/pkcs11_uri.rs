//! A private key in a token, named by a PKCS#11 URI (RFC 7512), as `p11tool --list-privkeys` and the manuals of HSMs
//! print it.

use std::path::PathBuf;

/// The attributes that name a token, its slot, or the library (§2.3).
const TOKEN: [&str; 10] = [
    "token",
    "manufacturer",
    "serial",
    "model",
    "slot-id",
    "slot-description",
    "slot-manufacturer",
    "library-description",
    "library-manufacturer",
    "library-version",
];

/// A parsed URI.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Pkcs11Uri {
    /// The values that the token has to have, by the names in [`TOKEN`].
    pub(crate) token: Vec<(&'static str, String)>,
    /// CKA_LABEL.
    pub(crate) object: Option<String>,
    /// CKA_ID.
    pub(crate) id: Option<Vec<u8>>,
    /// The PKCS#11 library.
    pub(crate) module: Option<PathBuf>,
    /// The file with the PIN.
    pub(crate) pin_file: Option<PathBuf>,
}

impl Pkcs11Uri {
    /// Parses a URI. The error says what is wrong.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let attributes = text
            .strip_prefix("pkcs11:")
            .ok_or("it does not begin with pkcs11:")?;
        // The path's attributes are separated by semicolons, the query's by ampersands (§2.3). Values of either may
        // contain the other's separator.
        let (path, query) = attributes.split_once('?').unwrap_or((attributes, ""));
        let mut uri = Self::default();
        let mut known = Vec::new();
        for attribute in path.split(';').filter(|a| !a.is_empty()) {
            let (name, value) = parts(attribute)?;
            if known.contains(&name) {
                return Err(format!("{name} occurs twice"));
            }
            known.push(name);
            uri.path_attribute(name, value)?;
        }
        for attribute in query.split('&').filter(|a| !a.is_empty()) {
            let (name, value) = parts(attribute)?;
            uri.query_attribute(name, value)?;
        }
        match uri.object.is_some() || uri.id.is_some() {
            true => Ok(uri),
            false => Err("it names no key (object=… or id=…)".into()),
        }
    }

    /// An unknown one matches nothing (§2.4).
    fn path_attribute(&mut self, name: &str, value: Vec<u8>) -> Result<(), String> {
        if name == "id" {
            self.id = Some(value);
            return Ok(());
        }
        let value = text(name, value)?;
        match (TOKEN.iter().find(|known| **known == name), name) {
            (Some(known), _) => self.token.push((known, value)),
            (_, "object") => self.object = Some(value),
            (_, "type") if value == "private" => {}
            (_, "type") => return Err(format!("type={value}: a private key is needed")),
            _ => return Err(format!("{name}={value} is not supported")),
        }
        Ok(())
    }

    /// An unknown one is ignored (§2.4).
    fn query_attribute(&mut self, name: &str, value: Vec<u8>) -> Result<(), String> {
        match name {
            "module-path" => self.module = Some(text(name, value)?.into()),
            "pin-source" => {
                let source = text(name, value)?;
                self.pin_file = Some(source.strip_prefix("file:").unwrap_or(&source).into());
            }
            "pin-value" => {
                return Err("pin-value would be visible to every user: use --pin-file".into());
            }
            _ => {}
        }
        Ok(())
    }
}

/// Name and value.
fn parts(attribute: &str) -> Result<(&str, Vec<u8>), String> {
    let (name, value) = attribute
        .split_once('=')
        .ok_or_else(|| format!("\"{attribute}\" has no value"))?;
    let value = decode(value).ok_or_else(|| format!("{name} is not percent-encoded correctly"))?;
    Ok((name, value))
}

fn text(name: &str, value: Vec<u8>) -> Result<String, String> {
    String::from_utf8(value).map_err(|_| format!("{name} is not UTF-8"))
}

/// Percent-encoding (RFC 3986 §2.1).
fn decode(text: &str) -> Option<Vec<u8>> {
    let mut parts = text.split('%');
    let mut bytes = parts.next()?.as_bytes().to_vec();
    for part in parts {
        let (digits, rest) = part.split_at_checked(2)?;
        bytes.extend(firstboot_formats::encoding::from_hex(digits)?);
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
        let uri =
            "pkcs11:model=SoftHSM%20v2;serial=0a;token=R&D%20CA;object=a?b;id=%01%FF;type=private";
        let read = Pkcs11Uri::parse(&uri.replace("a?b", "ca")).unwrap();
        let token = [
            ("model", "SoftHSM v2"),
            ("serial", "0a"),
            ("token", "R&D CA"),
        ];
        assert_eq!(
            read.token,
            token.map(|(name, value)| (name, value.to_owned()))
        );
        assert_eq!(read.object.as_deref(), Some("ca"));
        assert_eq!(read.id, Some(vec![1, 0xFF]));
        let query = "pkcs11:object=ca?module-path=/lib/x;y.so&module-name=x&x-vendor=?&pin-source=file:/pin";
        let read = Pkcs11Uri::parse(query).unwrap();
        assert_eq!(read.module, Some("/lib/x;y.so".into()));
        assert_eq!(read.pin_file, Some("/pin".into()));
    }

    #[test]
    fn what_is_not_known_is_refused_with_the_reason() {
        let refused = |text: &str| Pkcs11Uri::parse(text).unwrap_err();
        assert!(refused("file:key").contains("pkcs11:"));
        assert!(refused("pkcs11:token=a").contains("names no key"));
        assert!(refused("pkcs11:object=a?pin-value=1").contains("--pin-file"));
        assert!(refused("pkcs11:object=a;x-vendor=1").contains("x-vendor=1"));
        assert!(refused("pkcs11:object=a;pin-source=/pin").contains("pin-source"));
        assert!(refused("pkcs11:object=a;object=b").contains("twice"));
        assert!(refused("pkcs11:object=%g0").contains("percent-encoded"));
        assert!(refused("pkcs11:object=%0").contains("percent-encoded"));
        assert!(refused("pkcs11:object").contains("no value"));
        assert!(refused("pkcs11:object=a;type=cert").contains("type=cert"));
    }
}
