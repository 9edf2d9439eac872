//! What happened on the double's connections.

use std::time::Instant;

/// Whose certificate a connection has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Who {
    /// The claim certificate.
    Claim,
    /// An active certificate of a device, and its thing.
    Device { certificate: String, thing: String },
    /// A device's certificate that is not active.
    NotActive { certificate: String },
    /// An unknown certificate.
    Unknown,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    Connected,
    Refused,
    Disconnected,
    Subscribed(String),
    Denied(String),
    Published(String, Vec<u8>),
    Answered(String, Vec<u8>),
}

#[derive(Clone, Debug)]
pub struct Entry {
    pub at: Instant,
    pub client: String,
    pub who: Who,
    pub event: Event,
}

#[derive(Clone, Debug, Default)]
pub struct EventLog(pub Vec<Entry>);

impl EventLog {
    pub fn count(&self, wanted: impl Fn(&Event) -> bool) -> usize {
        self.0.iter().filter(|entry| wanted(&entry.event)).count()
    }

    /// Whether a device connected as this thing, with its own certificate.
    pub fn authenticated(&self, wanted: &str) -> bool {
        self.0.iter().any(|entry| {
            entry.event == Event::Connected
                && matches!(&entry.who, Who::Device { thing, .. } if thing == wanted)
        })
    }

    /// The certificates with which devices were let in, by their IDs, in order.
    pub fn let_in(&self) -> Vec<String> {
        let connected = self
            .0
            .iter()
            .filter(|entry| entry.event == Event::Connected);
        let certificates = connected.filter_map(|entry| match &entry.who {
            Who::Device { certificate, .. } => Some(certificate.clone()),
            _ => None,
        });
        certificates.collect()
    }

    /// The payloads published to a topic.
    pub fn published(&self, at: &str) -> Vec<Vec<u8>> {
        let payloads = self.0.iter().filter_map(|entry| match &entry.event {
            Event::Published(topic, payload) if topic == at => Some(payload.clone()),
            _ => None,
        });
        payloads.collect()
    }

    /// How many connections are still open.
    pub fn open(&self) -> usize {
        let connected = self.count(|event| *event == Event::Connected);
        connected.saturating_sub(self.count(|event| *event == Event::Disconnected))
    }
}
