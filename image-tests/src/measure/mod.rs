//! Measurements: firstboot compared with the manual recipe, and many devices at once.

pub mod bench;
pub mod fleet_load;
