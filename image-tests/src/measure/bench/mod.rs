//! What it costs: `make bench`. firstboot beside the manual recipe that people follow today, both on the same
//! software TPM through the same proxy, in turns.
//!
//! - [`usage`]: what one program takes, measured; and, in a run of its own, counted by strace;
//! - [`first_boot`]: firstboot's whole way, and [`recipe`], the tutorial's;
//! - [`pairs`]: both in turns, and the rows that come of it;
//! - [`idle`]: a boot with nothing to do, and [`boot`], boots in the guest; [`growth`]: the hundredth time; [`footprint`]: what it weighs.
//!
//! Times are of this machine and compared only with times of the same run. What an SLB 9670 takes is accounted
//! from the table in [`crate::doubles::tpm_proxy::Latency`], never mixed with what was measured.

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
