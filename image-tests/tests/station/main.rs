//! firstboot-station, and devices that open its replies: proof that a key is in a TPM. `make station` runs only these.

mod commands;
mod device;
mod end_to_end;
mod folders;
mod impostors;
mod make_credential;
mod names;
mod output;
mod refusals;
mod reissue;
mod renewal;
mod secrets;
mod thousand;
mod token;
mod usage;
mod wrapped;

/// The exit statuses of firstboot-station that docs/status.md documents.
mod exit {
    pub const DONE: i32 = 0;
    pub const USAGE: i32 = 64;
    pub const REFUSED: i32 = 65;
    pub const NO_INPUT: i32 = 66;
    pub const CANNOT_WRITE: i32 = 73;
    pub const SETTINGS: i32 = 78;
}
