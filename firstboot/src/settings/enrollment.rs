//! How the device gets its certificate: offline, by AWS IoT fleet provisioning, or from an EST server.

use std::collections::BTreeMap;

use firstboot_formats::clock::Clock;
use firstboot_formats::digest::{Fingerprint, fingerprint};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};

use super::check::board_value;
use super::{Est, expand};
use crate::error::{Error, Result};
use crate::layout::Layout;

/// Maximum length of a provisioning template's name, characters (AWS IoT API reference, CreateProvisioningTemplate,
/// templateName: `^[0-9A-Za-z_-]+$`, 1 to 36).
const MAX_TEMPLATE_NAME: usize = 36;
/// Maximum lengths of a template parameter's name and value, characters (AWS IoT API reference, RegisterThing,
/// parameters).
const MAX_PARAMETER: (usize, usize) = (2048, 4096);
/// Longest spread, seconds: a day, more than the largest fleet needs.
const MAX_SPREAD: u64 = 24 * 60 * 60;
/// Placeholders that are known only during enrollment, or cost TPM commands.
const LATER: [&str; 5] = [
    "tpm",
    "key_sha256",
    "key_public",
    "ek_sha256",
    "ek_certificate",
];

/// How the device gets its certificate.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Enrollment {
    /// The method.
    pub method: Method,
    /// SHA-256 of the CA certificates whose keys may sign a wrapped reply; if empty, no reply is accepted.
    #[serde(deserialize_with = "fingerprints")]
    pub issuers: Vec<Fingerprint>,
    /// The fleet provisioning template.
    pub template_name: String,
    /// The template's parameters. `${serial}`, `${machine_id}` and `${thing_name}` are already replaced; `${tpm}`,
    /// `${key_sha256}`, `${key_public}`, `${ek_sha256}` and `${ek_certificate}` are replaced when they are sent.
    pub template_parameters: BTreeMap<String, String>,
    /// The EST server.
    pub est: Est,
    /// The port of the IoT data endpoint: 8883, or 443 with ALPN.
    pub port: u16,
    /// Each try to reach the server waits a random time of up to this many seconds, so that devices
    /// that are powered on together do not arrive together.
    pub spread_seconds: u64,
    /// `http://host:port` of a proxy that supports CONNECT (RFC 9110 §9.3.6); empty for none.
    pub http_proxy: String,
    /// The clock can be trusted although nothing synchronises it: it is battery-backed.
    pub trust_clock: bool,
}

impl Default for Enrollment {
    fn default() -> Self {
        Self {
            method: Method::default(),
            issuers: Vec::new(),
            template_name: String::new(),
            template_parameters: BTreeMap::new(),
            est: Est::default(),
            // AWS IoT Core developer guide, "Device communication protocols": MQTT with X.509.
            port: 8883,
            // AWS lets an account register 10 things in a second (AWS IoT Core quotas, fleet provisioning,
            // RegisterThing): half a minute suffices for a pallet of 300 devices, and is hardly noticed by anybody
            // waiting for a single one. Larger fleets: devices / 10.
            spread_seconds: 30,
            http_proxy: String::new(),
            trust_clock: false,
        }
    }
}

/// The methods.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Method {
    /// The operator takes the request from the boot partition and saves the certificate there.
    #[default]
    Offline,
    /// AWS IoT Core issues it over the network, to a device with the fleet's claim certificate.
    FleetProvisioning,
    /// An EST server issues it over the network (RFC 7030).
    Est,
}

impl Enrollment {
    /// Whether the method is fleet provisioning.
    pub fn is_fleet(&self) -> bool {
        self.method == Method::FleetProvisioning
    }

    /// Whether the certificate comes over the network, to whoever has the fleet's claim.
    pub fn is_by_network(&self) -> bool {
        self.method != Method::Offline
    }

    /// The clock, as far as the operator lets it be believed.
    pub fn clock(&self) -> Clock {
        let clock = Clock::read();
        Clock {
            synchronised: clock.synchronised || self.trust_clock,
            ..clock
        }
    }

    /// Replaces what is known already and refuses what cannot work.
    pub(super) fn check(&mut self, thing_name: &str, layout: &Layout) -> Result<()> {
        if self.port == 0 {
            return wrong("port: 0 is not valid; AWS IoT uses 8883 and 443".into());
        }
        if !self.http_proxy.is_empty() && self.proxy().is_none() {
            return wrong(format!(
                "http_proxy: {:?} is not of the form http://host:port",
                self.http_proxy
            ));
        }
        if self.is_by_network() && self.spread_seconds > MAX_SPREAD {
            return wrong(format!(
                "spread_seconds: {} is more than a day ({MAX_SPREAD})",
                self.spread_seconds
            ));
        }
        match self.method {
            Method::Offline => Ok(()),
            Method::FleetProvisioning => self.check_fleet(thing_name, layout),
            Method::Est => self.est.check(|placeholder, path| {
                placeholder_value(placeholder, thing_name, path, layout)
            }),
        }
    }

    fn check_fleet(&mut self, thing_name: &str, layout: &Layout) -> Result<()> {
        let name = &self.template_name;
        if name.is_empty() {
            return wrong("template_name is missing: fleet provisioning needs a template".into());
        }
        let plain = |c: char| c.is_ascii_alphanumeric() || "_-".contains(c);
        if name.len() > MAX_TEMPLATE_NAME || !name.chars().all(plain) {
            return wrong(format!(
                "template_name: {name:?} is not valid; AWS IoT allows up to {MAX_TEMPLATE_NAME} letters, digits, '_' \
                 and '-'"
            ));
        }
        for (key, value) in &mut self.template_parameters {
            let path = format!("enrollment.template_parameters.{key}");
            *value = expand(value, &path, |placeholder| match later(placeholder) {
                None => placeholder_value(placeholder, thing_name, &path, layout),
                known_later => Ok(known_later),
            })?;
            check_parameter(key, value)?;
        }
        Ok(())
    }

    /// Host and port of the proxy, if there is a usable one.
    pub fn proxy(&self) -> Option<(&str, u16)> {
        let address = self.http_proxy.strip_prefix("http://")?;
        let address = address.strip_suffix('/').unwrap_or(address);
        let (host, port) = address.rsplit_once(':')?;
        let host = host.trim_matches(['[', ']']);
        let plain = |c: char| c.is_ascii_alphanumeric() || "-.:".contains(c);
        let usable = !host.is_empty() && host.chars().all(plain);
        usable.then_some((host, port.parse().ok().filter(|&p| p != 0)?))
    }
}

/// Whether AWS IoT accepts the parameter.
pub fn check_parameter(key: &str, value: &str) -> Result<()> {
    let (most_key, most_value) = MAX_PARAMETER;
    if key.is_empty() || key.len() > most_key || value.len() > most_value {
        return Err(Error::settings(format!(
            "enrollment.template_parameters.{key}: AWS IoT allows at most {most_key} characters in a parameter's name \
             and {most_value} in its value"
        )));
    }
    Ok(())
}

fn fingerprints<'de, D: Deserializer<'de>>(
    from: D,
) -> std::result::Result<Vec<Fingerprint>, D::Error> {
    let texts = Vec::<String>::deserialize(from)?;
    let read = |text: &String| {
        fingerprint(text).ok_or_else(|| {
            D::Error::custom(format!(
                "{text:?} is not the SHA-256 of a certificate (openssl x509 -noout -fingerprint -sha256 -in …)"
            ))
        })
    };
    texts.iter().map(read).collect()
}

/// A mistake in this section.
fn wrong(what: String) -> Result<()> {
    Err(Error::settings(format!("enrollment.{what}")))
}

fn placeholder_value(
    name: &str,
    thing_name: &str,
    path: &str,
    layout: &Layout,
) -> Result<Option<String>> {
    match name {
        "thing_name" => Ok(Some(thing_name.to_owned())),
        board => board_value(board, path, layout),
    }
}

/// A placeholder that is replaced when the parameters are sent: it stays.
fn later(name: &str) -> Option<String> {
    LATER.contains(&name).then(|| format!("${{{name}}}"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn fleet() -> Enrollment {
        Enrollment {
            method: Method::FleetProvisioning,
            template_name: "gateways".into(),
            ..Enrollment::default()
        }
    }

    #[track_caller]
    fn refused(change: impl FnOnce(&mut Enrollment), what: &str) {
        let mut enrollment = fleet();
        change(&mut enrollment);
        let error = enrollment.check("gw-1", &Layout::new("/nowhere"));
        let error = error.unwrap_err().to_string();
        assert!(error.contains(what), "{error}");
    }

    #[test]
    fn what_cannot_work_is_refused_with_its_path() {
        let parameter = |value: &str| {
            let value = value.to_owned();
            move |e: &mut Enrollment| {
                e.template_parameters.insert("Serial".into(), value);
            }
        };
        refused(|e| e.template_name.clear(), "enrollment.template_name");
        refused(
            |e| e.template_name = "a/b".into(),
            "enrollment.template_name",
        );
        refused(|e| e.template_name = "x".repeat(37), "36 letters");
        refused(|e| e.port = 0, "enrollment.port");
        refused(|e| e.spread_seconds = MAX_SPREAD + 1, "spread_seconds");
        refused(|e| e.http_proxy = "proxy:3128".into(), "http://host:port");
        refused(parameter("${no}"), "template_parameters.Serial");
        refused(parameter("${serial}"), "this board has none");
        refused(parameter(&"x".repeat(4097)), "template_parameters.Serial");
    }

    #[test]
    fn what_is_known_is_replaced_and_the_rest_waits() {
        let mut enrollment = fleet();
        enrollment
            .template_parameters
            .insert("X".into(), "${thing_name}/${ek_sha256}".into());
        enrollment.check("gw-1", &Layout::new("/nowhere")).unwrap();
        assert_eq!(enrollment.template_parameters["X"], "gw-1/${ek_sha256}");
    }

    #[test]
    fn issuers_are_named_by_their_certificates_sha256() {
        let read = |issuers: &str| {
            let text = format!(r#"{{"issuers": {issuers}}}"#);
            serde_json::from_str::<Enrollment>(&text).map(|e| e.issuers)
        };
        let openssl = ["5A"; 32].join(":");
        let plain = "5a".repeat(32);
        let both = format!(r#"["{openssl}", "{plain}"]"#);
        assert_eq!(read(&both).unwrap(), [[0x5A; 32]; 2]);
        assert_eq!(read("[]").unwrap(), Vec::<Fingerprint>::new());
        for bad in [
            format!(r#"["{}"]"#, &plain[2..]),
            format!("\"{plain}\""),
            "[1]".into(),
        ] {
            assert!(read(&bad).is_err(), "{bad}");
        }
        let error = read(r#"["5a"]"#).unwrap_err().to_string();
        assert!(error.contains("\"5a\" is not the SHA-256"), "{error}");
    }

    #[test]
    fn proxies_have_host_and_port() {
        let proxy = |text: &str| {
            let mut enrollment = fleet();
            enrollment.http_proxy = text.into();
            enrollment.proxy().map(|(h, p)| (h.to_owned(), p))
        };
        let some = |host: &str, port| Some((host.to_owned(), port));
        assert_eq!(proxy("http://p.example:3128"), some("p.example", 3128));
        assert_eq!(proxy("http://[::1]:3128/"), some("::1", 3128));
        for bad in [
            "https://p:1",
            "http://p",
            "http://:1",
            "http://p:0",
            "http://a b:1",
        ] {
            assert_eq!(proxy(bad), None, "{bad}");
        }
    }
}
