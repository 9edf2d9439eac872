//! Certificate authorities: the operator's, AWS IoT's, a TPM manufacturer's.

pub mod aws;
mod manufacturer;
mod operator;

pub use manufacturer::{EkForm, Manufacturer, PLATFORM_CERTIFICATE};
pub use operator::{Authority, Pair, Validity};
