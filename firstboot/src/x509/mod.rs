//! X.509: the request that goes out, the certificate that comes in. Every use of x509-cert on the device is here.

mod certificate;
mod request;
mod roots;

pub use certificate::{Chain, Verdict};
pub use request::{Request, name};
pub use roots::check_roots;
