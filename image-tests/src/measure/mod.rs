//! What firstboot costs: one device beside the manual recipe, and many devices at once.

pub mod bench;
pub mod fleet_load;
