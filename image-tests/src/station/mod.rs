//! The operator's bench: a TPM maker's authority, firstboot-station with what it needs, requests without devices.

mod bench;
mod maker;
mod paper;

pub use bench::{Station, program};
pub use maker::{EkForm, Maker, PLATFORM_CERTIFICATE};
pub use paper::{Paper, p256, public, roca};
