//! Doubles of what a device has or meets: its TPM, its clock, AWS IoT Core, certificate authorities, a CMP server, an EST
//! server, a TLS server, a network that asks who connects; and requests that no device made.

pub mod clock;
pub mod cmp;
pub mod est;
pub mod forged_request;
pub mod iot_core;
pub mod network_access;
pub mod pki;
pub mod software_tpm;
pub mod tls;
pub mod tpm_proxy;
