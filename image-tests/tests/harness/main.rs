//! The harness itself, without firstboot: what fails here fails for a reason outside firstboot.

mod authority;
mod clients;
mod device;
mod iot_core;
mod software_tpm;
mod token;
mod tpm_proxy;
