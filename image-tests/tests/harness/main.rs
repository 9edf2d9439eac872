//! The harness itself, without firstboot: a failure here is not firstboot's fault.

mod authority;
mod clients;
mod device;
mod est;
mod iot_core;
mod software_tpm;
mod token;
mod tpm_proxy;
