//! What proves tpm-greengrass, as a library: a software TPM for each test, an operator's authority, a TLS
//! server that demands a certificate, an unprovisioned device, and the clients that use its identity.

pub mod authority;
pub mod aws;
pub mod bench;
pub mod clients;
pub mod device;
mod directory;
pub mod machine;
pub mod ports;
pub mod process;
pub mod proxy;
pub mod software_tpm;
pub mod station;
pub mod storage;
pub mod sweep;
pub mod tls;
