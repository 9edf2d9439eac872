//! Faults on purpose: power cuts, broken storage, lost connections.

pub mod network;
pub mod power_cut;
pub mod storage;
pub mod write_log;
