//! What goes wrong on purpose: the power, the storage, the network.

pub mod network;
pub mod power_cut;
pub mod storage;
pub mod write_log;
