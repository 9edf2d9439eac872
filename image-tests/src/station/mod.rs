//! The operator's bench: a TPM maker's authority, and firstboot-station with what it needs.

mod maker;

pub use maker::{EkForm, Maker, PLATFORM_CERTIFICATE, Validity};
