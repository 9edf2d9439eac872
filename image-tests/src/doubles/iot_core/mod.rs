//! A double of AWS IoT Core: the part that a device meets in fleet provisioning.
//!
//! The broker is a real mosquitto with mutual TLS. Its plugin (`plugin.c`) asks this crate about each packet, so a
//! certificate becomes active from one packet to the next, and an answer goes out on the connection that the request
//! came in on, as AWS documents.
//!
//! - [`IotCore`]: the running double;
//! - [`registry`]: certificates, ownership tokens, things, and a clock that only tests advance;
//! - [`provisioning`]: the documented API, and what AWS enforces;
//! - [`Misbehaviour`]: what can go wrong on purpose;
//! - [`EventLog`]: who connected, asked and was answered.
//!
//! Source: AWS IoT Core developer guide, "Device provisioning MQTT API", "Provisioning devices that don't have
//! device certificates using fleet provisioning", "Just-in-time provisioning", "AWS IoT Core policies". The
//! guide lists no error codes; those here come from public reports of AWS's answers, or are AWS's usual names
//! ([`provisioning::Rejection`] says which).
//!
//! Not modelled: throttling by rate, a real account's policies, the registry's other calls, MQTT 5, the HTTPS API. A
//! denied SUBSCRIBE gets 0x80 from mosquitto, where AWS may close the connection.

mod answering;
mod broker;
mod core;
mod csr;
mod event_log;
mod link;
mod memory;
mod misbehaviour;
mod policy;
pub mod provisioning;
pub mod registry;
mod topics;

pub use super::pki::aws::{ClaimKey, Subject};
pub use core::{IotCore, Options};
pub use event_log::{Entry, Event, EventLog, Who};
pub use memory::Memory;
pub use misbehaviour::{Admission, Call, Misbehaviour};
pub use policy::{ClientIds, Renewing};
pub use provisioning::{Rejection, Repeated, Template};
pub use registry::{Certificate, Counts, Registry, Status, certificate_id};
