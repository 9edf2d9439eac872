//! Turns an unprovisioned TPM into an AWS IoT Greengrass identity, on a device's first boot.
//!
//! systemd runs the program before Greengrass: `firstboot.service` (key and request, no network), then
//! `firstboot-enroll.service` (certificate and configuration). Both look at what is there, do what is missing and stop;
//! a boot with nothing to do costs three TPM commands and reads a few files.
//!
//! `main` calls [`cli`], which takes the lock and has [`provision`] walk: read what is wanted ([`settings`]), look at
//! what is there ([`tpm`], [`identity`]), name the next step, take it, look again. On a blank device the steps make the
//! [`identity`] with its key in the [`token`], publish the request on the [`boot_partition`], accept the certificate
//! that [`enrollment`] offers, and write the configuration of [`greengrass`] and, for networks that ask who the device
//! is, of wpa_supplicant ([`eap_tls`]). [`report`] then says how things stand.
//!
//! What a device and its provisioning bench exchange is in `firstboot_formats`. `docs/architecture.md` lists the files in
//! the order in which to read them, and the floors of all crates: a module uses its own floor and those below, never one
//! above.

pub mod board;
pub mod boot_partition;
pub mod cli;
pub mod durability;
pub mod eap_tls;
pub mod enrollment;
pub mod error;
pub mod exit;
pub mod greengrass;
pub mod identity;
pub mod json;
pub mod layout;
pub mod logging;
pub mod progress;
pub mod provision;
pub mod report;
pub mod secret;
pub mod settings;
pub mod token;
pub mod tpm;
