//! Which EST server is asked, and as whom.

use http::uri::Authority;
use serde::Deserialize;

use super::expand;
use crate::error::{Error, Result};

/// The port of HTTPS (RFC 9110 §4.2.2).
const PORT: u16 = 443;
/// A label may have this many characters: no server has a longer one.
const MAX_LABEL: usize = 64;
/// A user's name may have this many bytes.
const MAX_USERNAME: usize = 256;

/// The EST server (RFC 7030).
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Est {
    /// Its name, and its port if that is not 443: `ca.example.com:8443`.
    pub server: String,
    /// Which of its CAs is asked: a part of the path (RFC 7030 §3.2.2). Empty for a server that has one.
    pub label: String,
    /// The user whose password is in `claim.password`. `${serial}`, `${machine_id}` and `${thing_name}` are already
    /// replaced.
    pub username: String,
}

impl Default for Est {
    fn default() -> Self {
        Self {
            server: String::new(),
            label: String::new(),
            username: "${thing_name}".into(),
        }
    }
}

impl Est {
    /// Replaces what is known already and refuses what cannot work. `value` knows the placeholders, and is told the
    /// setting's path.
    pub(super) fn check(
        &mut self,
        value: impl Fn(&str, &str) -> Result<Option<String>>,
    ) -> Result<()> {
        if self.server.is_empty() {
            return wrong(
                "server is missing: EST needs a server, such as ca.example.com:8443".into(),
            );
        }
        if self.authority().is_none() {
            return wrong(format!(
                "server: {:?} is not of the form host or host:port",
                self.server
            ));
        }
        let unreserved = |c: char| c.is_ascii_alphanumeric() || "-._~".contains(c);
        let is_step = self.label.chars().all(|c| c == '.') && !self.label.is_empty();
        if self.label.len() > MAX_LABEL || !self.label.chars().all(unreserved) || is_step {
            return wrong(format!(
                "label: {:?} is not valid; at most {MAX_LABEL} letters, digits, '-', '.', '_' and '~'",
                self.label
            ));
        }
        let path = "enrollment.est.username";
        self.username = expand(&self.username, path, |placeholder| value(placeholder, path))?;
        // RFC 7617 §2.
        let bad = |c: char| c == ':' || c.is_control();
        if self.username.len() > MAX_USERNAME || self.username.contains(bad) {
            return wrong(format!(
                "username: {:?} has more than {MAX_USERNAME} bytes, a colon or control characters",
                self.username
            ));
        }
        Ok(())
    }

    /// The server's host and port.
    pub fn address(&self) -> (&str, u16) {
        self.authority().unwrap_or((&self.server, PORT))
    }

    fn authority(&self) -> Option<(&str, u16)> {
        let authority: Authority = self.server.parse().ok()?;
        let port = match self.server.strip_prefix(authority.host())? {
            "" => PORT,
            _ => authority.port_u16().filter(|port| *port != 0)?,
        };
        let host = &self.server[..authority.host().len()];
        let plain = |c: char| c.is_ascii_alphanumeric() || "-.:[]".contains(c);
        let host = (!host.is_empty() && host.chars().all(plain)).then_some(host)?;
        Some((host.trim_matches(['[', ']']), port))
    }
}

/// A mistake in this section.
fn wrong(what: String) -> Result<()> {
    Err(Error::settings(format!("enrollment.est.{what}")))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn est() -> Est {
        Est {
            server: "ca.example.com".into(),
            ..Est::default()
        }
    }

    fn checked(mut est: Est) -> std::result::Result<Est, String> {
        let known = |name: &str, _: &str| Ok((name == "thing_name").then(|| "gw-1".to_owned()));
        est.check(known).map_err(|e| e.to_string())?;
        Ok(est)
    }

    #[test]
    fn servers_have_a_host_and_perhaps_a_port() {
        let address = |server: &str| {
            let server = server.to_owned();
            checked(Est { server, ..est() }).map(|est| {
                let (host, port) = est.address();
                (host.to_owned(), port)
            })
        };
        let good = |host: &str, port| Ok((host.to_owned(), port));
        assert_eq!(address("ca.example.com"), good("ca.example.com", 443));
        assert_eq!(address("ca.example.com:8443"), good("ca.example.com", 8443));
        assert_eq!(address("[::1]:8443"), good("::1", 8443));
        for bad in [
            "https://ca",
            "ca/x",
            "ca:0",
            "ca:",
            "ca:x",
            "ca:65536",
            "u@ca",
            "c a",
            ":443",
            "ca%41",
            "",
        ] {
            assert!(address(bad).unwrap_err().contains("est.server"), "{bad}");
        }
    }

    #[test]
    fn labels_are_one_part_of_a_path() {
        for good in ["", "gateways", "a.b~c_d-1", ".a"] {
            assert!(
                checked(Est {
                    label: good.into(),
                    ..est()
                })
                .is_ok(),
                "{good}"
            );
        }
        for bad in ["a/b", "a?b", "..", ".", "ä", "%2e", &"x".repeat(65)] {
            let error = checked(Est {
                label: bad.into(),
                ..est()
            })
            .unwrap_err();
            assert!(error.contains("est.label"), "{error}");
        }
    }

    #[test]
    fn the_user_is_the_thing_unless_another_is_named() {
        assert_eq!(checked(est()).unwrap().username, "gw-1");
        let named = |username: &str| {
            checked(Est {
                username: username.into(),
                ..est()
            })
        };
        assert_eq!(named("fleet ${thing_name}").unwrap().username, "fleet gw-1");
        for bad in ["a:b", "a\n", "${ek_sha256}", &"x".repeat(257)] {
            assert!(named(bad).unwrap_err().contains("est.username"), "{bad}");
        }
    }
}
