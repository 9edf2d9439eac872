//! X.509: outgoing requests and incoming certificates. Every use of x509-cert on the device is here.
//!
//! Certificates have two readers. OpenSSL verifies them; `certificate` finds their fields, in everything that OpenSSL
//! can verify, at no cost to a boot with nothing to do. x509-cert makes requests and names, and reads no certificates.
//! rustls verifies a TLS server's certificate with a reader of its own (rustls-webpki), which sees nothing else.

mod algorithm;
mod bundle;
mod certificate;
mod chain;
mod name;
mod path;
mod request;
mod roots;
mod successor;

pub use algorithm::signature_algorithm;
pub use bundle::{certificates, what_is};
pub use certificate::{Certificate, CertificateDer, Summary};
pub use chain::{Chain, Verdict};
pub use name::name;
pub use path::any_leads_to;
pub use request::Request;
pub use roots::roots;
