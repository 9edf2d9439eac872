//! Measurements: firstboot compared with the manual recipe, many devices at once, and the units' exposure.

pub mod bench;
pub mod exposure;
pub mod fleet_load;
