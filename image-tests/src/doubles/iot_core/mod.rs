//! A double of AWS IoT Core, as far as a device meets it while it is provisioned by claim.
//!
//! The broker is a real mosquitto with mutual TLS. What it may let through is asked of this crate packet by
//! packet (`plugin.c`), so that a certificate is active from one moment to the next and an answer goes over
//! the connection that the request came on, as AWS documents it.
//!
//! - [`IotCore`]: the double, running;
//! - [`registry`]: certificates, ownership tokens, things, a clock that only tests move;
//! - [`provisioning`]: the documented API, and what AWS enforces;
//! - [`Misbehaviour`]: how it can be told to misbehave;
//! - [`EventLog`]: what came and what was answered.
//!
//! Source: AWS IoT Core developer guide, "Device provisioning MQTT API", "Provisioning devices that don't have
//! device certificates using fleet provisioning", "Just-in-time provisioning", "AWS IoT Core policies". The
//! guide names no error codes; those here were seen in public reports of AWS's answers, or are AWS's usual
//! names (each says so in [`provisioning::Rejection`]).
//!
//! What it is not: throttling by rate, policies of a real account, the registry's other calls, MQTT 5, the
//! HTTPS API; and mosquitto answers a denied SUBSCRIBE by 0x80, where AWS may close the connection.

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
pub use provisioning::{Rejection, Repeated, Template};
pub use registry::{Certificate, Counts, Registry, Status};
