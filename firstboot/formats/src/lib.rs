//! What a device and its provisioning bench exchange, and how both read and write it.
//!
//! Two programs are built on this crate: `firstboot`, which a device runs at boot, and `firstboot-station`, which an
//! operator runs to answer devices' requests. Nothing here uses a TPM, PKCS#11, the network, or the process's
//! environment. Anybody who had the card may have written what it reads: each reader has a limit, and refuses with a
//! reason.
//!
//! A module uses its own floor and those below, never one above; `docs/architecture.md` has the floors of all crates.

pub mod attestation;
pub mod card;
pub mod clock;
pub mod countersignature;
pub mod digest;
pub mod encoding;
pub mod error;
pub mod files;
pub mod output;
pub mod pem;
pub mod printable;
pub mod public_key;
pub mod record;
pub mod text;
pub mod thing_name;
pub mod x509;
