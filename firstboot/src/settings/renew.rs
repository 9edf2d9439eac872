//! When a new certificate is asked for.

use std::time::Duration;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

use super::Settings;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// The largest part of a share: with the longest lifetime that a certificate can have (the year 9999), in seconds, the
/// product is far from the end of 64 bits.
const MAX_PART: u32 = 1000;
/// The most days before the end: ten years.
const MAX_DAYS: u32 = 3650;

/// The renewal of an accepted certificate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Renew {
    /// With which key.
    pub key: RenewedKey,
    /// When it is due.
    pub at: At,
}

/// The key of the next certificate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RenewedKey {
    /// The one that there is.
    #[default]
    Keep,
    /// Another one.
    New,
}

/// A moment in a certificate's lifetime.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum At {
    /// After so many parts of the lifetime, out of so many.
    Share(u32, u32),
    /// This long before its end.
    Before(Duration),
}

impl Settings {
    /// Whether renewals have a key of their own.
    pub fn wants_new_key(&self) -> bool {
        self.renew.is_some_and(|renew| renew.key == RenewedKey::New)
    }
}

impl Default for At {
    fn default() -> Self {
        Self::Share(2, 3)
    }
}

impl At {
    /// That moment in a lifetime, all of them counted from the epoch.
    pub fn moment(self, [first, last]: [Duration; 2]) -> Duration {
        match self {
            Self::Share(parts, of) => {
                let lifetime = last.saturating_sub(first).as_secs();
                let before = lifetime.saturating_mul(parts.into()) / u64::from(of);
                first + Duration::from_secs(before)
            }
            Self::Before(end) => last.saturating_sub(end),
        }
    }

    /// `2/3`, or `30 days`.
    fn read(text: &str) -> Option<Self> {
        let number = |digits: &str, most| {
            let plain = digits.bytes().all(|b| b.is_ascii_digit());
            let number: Option<u32> = digits.parse().ok().filter(|_| plain);
            number.filter(|n| (1..=most).contains(n))
        };
        if let Some((parts, of)) = text.split_once('/') {
            let (parts, of) = (number(parts, MAX_PART)?, number(of, MAX_PART)?);
            return (parts < of).then_some(Self::Share(parts, of));
        }
        let (days, unit) = text.split_once(' ')?;
        let days = number(days, MAX_DAYS)?;
        matches!(unit, "day" | "days").then_some(Self::Before(DAY * days))
    }
}

impl<'de> Deserialize<'de> for At {
    fn deserialize<D: Deserializer<'de>>(from: D) -> std::result::Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        Self::read(&text).ok_or_else(|| {
            D::Error::custom(format!(
                "{text:?} is neither a share of the certificate's lifetime, such as \"2/3\", nor days before its end, \
                 such as \"30 days\" (at most {MAX_DAYS})"
            ))
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn at(text: &str) -> serde_json::Result<Renew> {
        serde_json::from_str(&format!(r#"{{"at": {text:?}}}"#))
    }

    #[test]
    fn a_share_or_days() {
        let lifetime = [100, 190].map(|day| DAY * day);
        for (text, day) in [
            ("2/3", 160),
            ("1/1000", 100),
            ("999/1000", 189),
            ("30 days", 160),
            ("1 day", 189),
            ("100 days", 90),
            ("3650 days", 0),
        ] {
            let moment = at(text).unwrap().at.moment(lifetime);
            assert_eq!(moment.as_secs() / DAY.as_secs(), day, "{text}");
        }
        assert_eq!(
            serde_json::from_str::<Renew>("{}").unwrap(),
            at("2/3").unwrap()
        );
        // As long as a certificate can be valid.
        let ages = [Duration::ZERO, DAY * 366 * 8000];
        assert_eq!(At::Share(1, 2).moment(ages), DAY * 366 * 4000);
    }

    #[test]
    fn anything_else_is_refused() {
        for text in [
            "",
            "2/3 ",
            "3/2",
            "1/1",
            "0/3",
            "1/0",
            "+1/3",
            "1/1001",
            "1/2/3",
            "30",
            "0 days",
            "-1 days",
            "+1 days",
            "1.5 days",
            "30 hours",
            "3651 days",
            "99999999999 days",
            "30  days",
        ] {
            let error = at(text).unwrap_err().to_string();
            assert!(error.contains("is neither a share"), "{text}: {error}");
        }
        assert!(serde_json::from_str::<Renew>(r#"{"at": 30}"#).is_err());
        assert!(serde_json::from_str::<Renew>(r#"{"when": "2/3"}"#).is_err());
    }
}
