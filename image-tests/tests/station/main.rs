//! firstboot-station, and devices that open what it makes: proof that a key is in a TPM. `make station` runs it
//! alone.

mod device;
mod make_credential;
