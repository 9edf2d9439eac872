//! The texts of the files.

use std::path::Path;

use firstboot_formats::encoding::to_hex;

use crate::layout::{LOCKS, TPM};
use crate::settings::EapTls;

/// How all our files begin that take comments.
const MARK: &str = "# Written by firstboot";
/// In the list of units: the operator's settings were among those that it was written by.
pub const BY_OPERATOR: &str = "# with firstboot.json";

/// How those of our files begin that are among others'. By this they are recognised: a copy under another name is
/// somebody else's.
pub fn mark(name: &str) -> String {
    format!("{MARK} as {name}. Changes are lost.")
}

/// The first part of a unit's name, and of its configuration's.
pub fn program(entry: &EapTls) -> &'static str {
    if entry.is_wifi() {
        "wpa_supplicant"
    } else {
        "wpa_supplicant-wired"
    }
}

/// The files of its own that a network's configuration names.
pub struct Named<'a> {
    /// The CA of the RADIUS server.
    pub ca: &'a Path,
    /// The key.
    pub key: &'a Path,
    /// The directory of the identity that has key and certificate.
    pub identity: &'a str,
}

/// wpa_supplicant.conf(5). The server has to have a certificate of this CA with exactly this name; TLS 1.3 is off
/// unless it is asked for, and 1.0 and 1.1 are not to be used any more (RFC 8996). With fast reauthentication,
/// wpa_supplicant would keep the certificate that it has read, and a renewed one would go unnoticed.
pub fn wpa_supplicant(mark: &str, entry: &EapTls, country: &str, named: &Named<'_>) -> String {
    let (common, network) = if entry.is_wifi() {
        (
            format!("country={country}"),
            // WPA2 or WPA3-Enterprise, with protected management frames if the access point has them.
            format!(
                "ssid={ssid}
    scan_ssid=1
    key_mgmt=WPA-EAP WPA-EAP-SHA256
    proto=RSN
    pairwise=CCMP
    group=CCMP
    ieee80211w=1",
                ssid = value(&entry.ssid)
            ),
        )
    } else {
        (
            "ap_scan=0".to_owned(),
            "key_mgmt=IEEE8021X\n    eapol_flags=0".to_owned(),
        )
    };
    format!(
        "\
{mark} Its settings are network.eap_tls in firstboot.json.
ctrl_interface=/run/wpa_supplicant
fast_reauth=0
{common}
network={{
    {network}
    eap=TLS
    identity={identity}
    client_cert=\"{directory}/certificate.pem\"
    private_key=\"{key}\"
    ca_cert=\"{ca}\"
    domain_match=\"{domain}\"
    phase1=\"tls_disable_tlsv1_0=1 tls_disable_tlsv1_1=1 tls_disable_tlsv1_3=0\"
}}
",
        identity = value(&entry.identity),
        directory = named.identity,
        key = named.key.display(),
        ca = named.ca.display(),
        domain = entry.domain,
    )
}

/// Text in quotes if nothing in it can end them, otherwise as hexadecimal digits: these need no escapes, unlike the
/// form P"…" of wpa_supplicant.conf(5).
fn value(text: &str) -> String {
    let plain = |c: char| c == ' ' || c.is_ascii_graphic() && c != '"';
    if text.chars().all(plain) {
        format!("\"{text}\"")
    } else {
        to_hex(text.as_bytes())
    }
}

/// systemd.network(5).
pub fn networkd(mark: &str, entry: &EapTls) -> String {
    format!(
        "\
{mark} It comes last: a file of another name that matches the interface takes its place.
[Match]
Name={}

[Network]
DHCP=yes
",
        entry.interface
    )
}

/// systemd.exec(5), EnvironmentFile=: what OpenSSL and tpm2-pkcs11 need to reach the token of the identity with this
/// directory.
pub fn environment(openssl: &Path, identity: &str) -> String {
    format!(
        "\
{MARK}: the way to the TPM's key.
OPENSSL_CONF={openssl}
TPM2_PKCS11_STORE={identity}
TPM2_PKCS11_TCTI={TPM}
PKCS11_SQL_LOCK={LOCKS}
",
        openssl = openssl.display()
    )
}

/// The units to start, each with its digest.
pub fn networks(units: &[String], by_operator: bool) -> String {
    let by = if by_operator {
        BY_OPERATOR
    } else {
        "# without firstboot.json"
    };
    format!(
        "{MARK}: the units that authenticate, and a digest of what each of them reads.\n{by}\n{}\n",
        units.join("\n")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_text_leaves_its_quotes() {
        for (text, wanted) in [
            ("gw-1", "\"gw-1\""),
            ("Werk 1 #2", "\"Werk 1 #2\""),
            ("a\"b", "612262"),
            ("a\nb", "610a62"),
            ("ä", "c3a4"),
            ("", "\"\""),
        ] {
            assert_eq!(value(text), wanted);
        }
    }
}
