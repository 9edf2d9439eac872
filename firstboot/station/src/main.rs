//! The operator's bench; everything is in the crate's library.

use std::process::ExitCode;

fn main() -> ExitCode {
    firstboot_station::cli::main()
}
