//! What proves tpm-greengrass, as a library. Each folder uses those below it, never one above:
//!
//! | floor | modules |
//! |---|---|
//! | top | [`measure`]: the benchmark, and many devices at once |
//! | 4 | [`faults`]: power cuts, storage faults, write logs, the network |
//! | 3 | [`device`]: what is tested: a device's file tree, a machine that boots, the provisioning station |
//! | 2 | [`clients`]: the programs that use a device's identity |
//! | 1 | [`doubles`]: a software TPM, AWS IoT Core, certificate authorities, an EST server, a TLS server |
//! | ground | [`process`], [`ports`], [`namespaces`], `directory` |

pub mod clients;
pub mod device;
mod directory;
pub mod doubles;
pub mod faults;
pub mod measure;
pub mod namespaces;
pub mod ports;
pub mod process;
