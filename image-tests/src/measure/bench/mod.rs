//! The benchmark, `make bench`: firstboot and the manual recipe that people follow today take turns on the same
//! software TPM, through the same proxy.
//!
//! - [`usage`]: a program's time and memory, measured; and in a separate run its system calls, counted by strace;
//! - [`meter`]: programs, measured or counted behind the proxy;
//! - [`first_boot`]: a first boot by firstboot, or by the tutorial's [`recipe`];
//! - [`pairs`]: both in turns, and their rows;
//! - [`idle`]: a boot with nothing to do; [`boot`]: boots of the guest; [`growth`]: the hundredth time;
//!   [`footprint`]: sizes.
//!
//! Times are this host's, and compared only within a run. An SLB 9670's time comes from the table in
//! [`crate::doubles::tpm_proxy::Latency`], and is never mixed with measured times.

pub mod boot;
pub mod first_boot;
pub mod footprint;
pub mod growth;
pub mod idle;
pub mod meter;
pub mod pairs;
pub mod recipe;
pub mod row;
pub mod usage;

pub use row::{Aim, Row, Unit};
