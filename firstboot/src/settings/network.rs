//! The networks that ask who the device is: IEEE 802.1X with EAP-TLS, over Ethernet or Wi-Fi.

use serde::{Deserialize, Serialize};

use super::check::{board_value, is_host};
use super::expand;
use crate::error::{Error, Result};
use crate::layout::Layout;

/// Maximum length of an interface's name, characters (Linux, include/uapi/linux/if.h: IFNAMSIZ, with the final NUL).
const MAX_INTERFACE: usize = 15;
/// Maximum length of an SSID, bytes (IEEE 802.11-2020 §9.4.2.2).
const MAX_SSID: usize = 32;
/// Maximum length of an EAP identity, bytes: RADIUS carries it in a User-Name attribute (RFC 2865 §5.1, RFC 7542 §2.2).
const MAX_IDENTITY: usize = 253;
/// Maximum length of a CA file's name, characters: enough for anybody, and far below FAT's 255.
const MAX_CA: usize = 64;

/// The networks, and what they have in common.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Network {
    /// The country whose rules the radio obeys: ISO 3166-1, two capital letters. Needed for Wi-Fi.
    pub country: String,
    /// Where the device authenticates, one entry for an interface.
    pub eap_tls: Vec<EapTls>,
}

/// One interface, and the network behind it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EapTls {
    /// The kernel's name for it, such as `eth0`.
    pub interface: String,
    /// The name of the Wi-Fi network; empty for Ethernet.
    pub ssid: String,
    /// The EAP identity, which the RADIUS server may choose by; placeholders are already replaced.
    pub identity: String,
    /// The key.
    pub key: NetworkKey,
    /// The file with the CA of the RADIUS server, on the boot partition or in the image.
    pub ca: String,
    /// The RADIUS server's name, in full, as in its certificate.
    pub domain: String,
}

impl Default for EapTls {
    fn default() -> Self {
        Self {
            interface: String::new(),
            ssid: String::new(),
            identity: "${thing_name}".into(),
            key: NetworkKey::default(),
            ca: "eap-ca.pem".into(),
            domain: String::new(),
        }
    }
}

/// Whose key and certificate the network sees.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum NetworkKey {
    /// The device's, as AWS IoT does.
    #[default]
    Same,
    /// One for networks alone: all networks that want their own share it.
    Own,
}

impl EapTls {
    /// Whether it is a Wi-Fi network.
    pub fn is_wifi(&self) -> bool {
        !self.ssid.is_empty()
    }
}

impl Network {
    /// Whether one of them wants a key of its own.
    pub fn wants_own_key(&self) -> bool {
        let mut keys = self.eap_tls.iter().map(|entry| entry.key);
        keys.any(|key| key == NetworkKey::Own)
    }
}

impl Network {
    /// Replaces the placeholders and refuses what cannot work, or would have the device authenticate to anybody.
    pub(super) fn check(&mut self, thing_name: &str, layout: &Layout) -> Result<()> {
        let letters = self.country.bytes().filter(u8::is_ascii_uppercase).count();
        if !self.country.is_empty() && (letters, self.country.len()) != (2, 2) {
            return Err(Error::settings(format!(
                "network.country: {:?} is not a country code of two capital letters",
                self.country
            )));
        }
        let needs_country = self.country.is_empty();
        let mut interfaces = Vec::new();
        for (index, entry) in self.eap_tls.iter_mut().enumerate() {
            let path = format!("network.eap_tls[{index}]");
            let identity = format!("{path}.identity");
            entry.identity = expand(
                &entry.identity,
                &identity,
                |placeholder| match placeholder {
                    "thing_name" => Ok(Some(thing_name.to_owned())),
                    board => board_value(board, &identity, layout),
                },
            )?;
            entry
                .check()
                .map_err(|why| Error::settings(format!("{path}.{why}")))?;
            if entry.is_wifi() && needs_country {
                return Err(Error::settings(format!(
                    "network.country is missing: {path} is a Wi-Fi network, and what its radio may do depends on the \
                     country. Set the country's code, such as \"DE\""
                )));
            }
            if interfaces.contains(&entry.interface) {
                return Err(Error::settings(format!(
                    "{path}.interface: {:?} is in an entry before; an interface authenticates to one network",
                    entry.interface
                )));
            }
            interfaces.push(entry.interface.clone());
        }
        Ok(())
    }
}

impl EapTls {
    fn check(&self) -> std::result::Result<(), String> {
        let Self {
            interface,
            ssid,
            identity,
            key: _,
            ca,
            domain,
        } = self;
        // It becomes part of file names and of a unit's, in which systemd reads "-" as "/" (systemd.unit(5), %I).
        if !is_word(interface, MAX_INTERFACE) {
            return Err(format!(
                "interface: {interface:?} is not the name of a network interface, such as \"eth0\" or \"wlan0\": up to \
                 {MAX_INTERFACE} letters, digits, \".\" and \"_\", a letter or digit first"
            ));
        }
        // systemd.net-naming-scheme(7), and the kernel's own wlan0.
        if interface.starts_with("wl") && !self.is_wifi() {
            return Err(format!(
                "ssid is missing: {interface:?} is a Wi-Fi interface. Set the network's name"
            ));
        }
        if (interface.starts_with("en") || interface.starts_with("eth")) && self.is_wifi() {
            return Err(format!(
                "ssid: {interface:?} is an Ethernet interface and has none. Leave ssid out, or name the Wi-Fi interface"
            ));
        }
        if ssid.len() > MAX_SSID {
            return Err(format!(
                "ssid: {ssid:?} has more than {MAX_SSID} bytes, which no Wi-Fi network's name has"
            ));
        }
        if identity.is_empty()
            || identity.len() > MAX_IDENTITY
            || identity.contains(char::is_control)
        {
            return Err(format!(
                "identity: {identity:?} is empty, has more than {MAX_IDENTITY} bytes, or control characters"
            ));
        }
        if !is_word(&ca.replace('-', "_"), MAX_CA) {
            return Err(format!(
                "ca: {ca:?} is not the name of a file, such as \"eap-ca.pem\": up to {MAX_CA} letters, digits, \".\", \
                 \"_\" and \"-\", a letter or digit first"
            ));
        }
        if domain.is_empty() {
            return Err(
                "domain is missing: without the name of the RADIUS server, the device would authenticate to any \
                 server with a certificate of that CA. Set the name that is in its certificate"
                    .into(),
            );
        }
        if !is_host(domain) {
            return Err(format!(
                "domain: {domain:?} is not a host name, such as \"radius.example.com\""
            ));
        }
        Ok(())
    }
}

/// Letters, digits, dots and underscores; a letter or digit first.
fn is_word(text: &str, most: usize) -> bool {
    text.len() <= most
        && text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"._".contains(&b))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn wired() -> EapTls {
        EapTls {
            interface: "eth0".into(),
            domain: "radius.example.com".into(),
            ..EapTls::default()
        }
    }

    fn wifi() -> EapTls {
        EapTls {
            interface: "wlan0".into(),
            ssid: "Werk 1".into(),
            ..wired()
        }
    }

    fn checked(country: &str, eap_tls: &[EapTls]) -> std::result::Result<Network, String> {
        let mut network = Network {
            country: country.into(),
            eap_tls: eap_tls.to_vec(),
        };
        network
            .check("gw-1", &Layout::new("/nowhere"))
            .map_err(|e| e.to_string())?;
        Ok(network)
    }

    #[track_caller]
    fn refused(change: impl FnOnce(&mut EapTls), start: &str, words: &str) {
        let mut entry = wifi();
        change(&mut entry);
        let error = checked("DE", &[wired(), entry]).unwrap_err();
        assert!(error.starts_with(start), "{error}");
        assert!(error.contains(words), "no {words:?} in: {error}");
    }

    #[test]
    fn one_of_each_is_accepted() {
        let network = checked("DE", &[wired(), wifi()]).unwrap();
        assert_eq!(network.eap_tls[0].identity, "gw-1");
        assert!(!network.eap_tls[0].is_wifi() && network.eap_tls[1].is_wifi());
        assert_eq!(checked("", &[]), Ok(Network::default()));
        assert!(checked("", &[wired()]).is_ok());
        assert!(!network.wants_own_key());
        let own = EapTls {
            key: NetworkKey::Own,
            ..wifi()
        };
        assert!(checked("DE", &[wired(), own]).unwrap().wants_own_key());
    }

    #[test]
    fn identities_have_placeholders() {
        let with = |identity: &str| {
            let entry = EapTls {
                identity: identity.into(),
                ..wired()
            };
            checked("", &[entry]).map(|network| network.eap_tls[0].identity.clone())
        };
        assert_eq!(
            with("host/${thing_name}@ä.example"),
            Ok("host/gw-1@ä.example".into())
        );
        assert!(
            with("${ek_sha256}")
                .unwrap_err()
                .contains("no such placeholder")
        );
        for bad in ["", "a\nb", &"x".repeat(254)] {
            assert!(with(bad).unwrap_err().contains("identity"), "{bad:?}");
        }
    }

    #[test]
    fn values_have_a_form() {
        let entry = "network.eap_tls[1].";
        for bad in [
            "",
            "eth-0",
            "a/b",
            "..",
            "_x",
            "eth0 ",
            "ä",
            "e234567890123456",
        ] {
            refused(
                |e| e.interface = bad.into(),
                &format!("{entry}interface: "),
                "such as",
            );
        }
        let long = "x".repeat(33);
        refused(|e| e.ssid = long, &format!("{entry}ssid: "), "32 bytes");
        refused(
            |e| e.ssid = String::new(),
            &format!("{entry}ssid is missing"),
            "Wi-Fi interface",
        );
        for wired in ["eth1", "enp1s0", "end0"] {
            refused(
                |e| e.interface = wired.into(),
                &format!("{entry}ssid: "),
                "is an Ethernet interface",
            );
        }
        for bad in ["", "../x", "a/b", ".pem", "a b", &"x".repeat(65)] {
            refused(|e| e.ca = bad.into(), &format!("{entry}ca: "), "such as");
        }
        refused(
            |e| e.domain = String::new(),
            &format!("{entry}domain is missing"),
            "any server",
        );
        for bad in ["*.example.com", "a;b", "https://a", "a."] {
            refused(
                |e| e.domain = bad.into(),
                &format!("{entry}domain: "),
                "host name",
            );
        }
    }

    #[test]
    fn entries_agree() {
        let twice = checked("", &[wired(), wired()]).unwrap_err();
        assert!(twice.starts_with("network.eap_tls[1].interface"), "{twice}");
        let nowhere = checked("", &[wifi()]).unwrap_err();
        assert!(
            nowhere.starts_with("network.country is missing"),
            "{nowhere}"
        );
        for bad in ["D", "de", "DEU", "D1", "ÄÖ"] {
            let error = checked(bad, &[]).unwrap_err();
            assert!(error.starts_with("network.country: "), "{error}");
        }
    }
}
