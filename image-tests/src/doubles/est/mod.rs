//! A double of an EST server (RFC 7030), on OpenSSL's TLS.
//!
//! It is strict: what a client sends that is not as RFC 7030 has it is answered with 400, and stands among the
//! complaints. It issues to whoever shows a certificate of its CA, or the password; renews for whoever shows the
//! certificate that is to be renewed; and can misbehave in ways that a server must not.

mod http;
mod server;
mod service;

pub use server::EstServer;
pub use service::{Counts, Happening, Headers, Memory, Misbehaviour, Options, PASSWORD, USERNAME};
