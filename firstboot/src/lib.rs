//! Turns an unprovisioned TPM into an AWS IoT Greengrass identity, on a device's first boot.
//!
//! systemd runs the program before Greengrass: `firstboot.service` (key and request, no network),
//! then `firstboot-enroll.service` (certificate and configuration). Both look at what is there, do
//! what is missing and stop; a boot with nothing to do costs three TPM commands and a few files read.
//!
//! The crate is a house; a module uses its own floor and those below, never one above
//! (`docs/architecture.md` has the reasons, and what the floors' modules use of one another):
//!
//! | floor | modules |
//! |---|---|
//! | top | `main`, [`cli`]; `station`, a program of its own for the operator's bench (feature `station`) |
//! | 3 | [`provision`] (what is next), [`survey`] (what is there), [`report`] (what people are shown) |
//! | 2 | [`device`] and its `enroll`, `opening` and [`root_key`], [`identity`], [`enrollment`], [`greengrass`] |
//! | 1 | [`tpm`], [`token`], [`x509`], [`settings`], [`boot_partition`], [`board`] |
//! | ground | [`attestation`] (its formats), [`files`], [`text`], [`pem`], [`layout`], [`secret`], [`public_key`], [`certificate_der`], [`clock`], [`durability`], [`progress`], [`json`], [`output`], [`error`] |

pub mod attestation;
pub mod board;
pub mod boot_partition;
pub mod certificate_der;
pub mod cli;
pub mod clock;
pub mod device;
pub mod durability;
mod enroll;
pub mod enrollment;
pub mod error;
pub mod files;
pub mod greengrass;
pub mod identity;
pub mod json;
pub mod layout;
mod libcrypto;
mod opening;
pub mod output;
pub mod pem;
pub mod progress;
pub mod provision;
pub mod public_key;
pub mod report;
pub mod root_key;
pub mod secret;
pub mod settings;
#[cfg(feature = "station")]
pub mod station;
pub mod survey;
pub mod text;
pub mod token;
pub mod tpm;
pub mod x509;
