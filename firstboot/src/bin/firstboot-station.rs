//! The operator's bench; everything is in `firstboot::station`.

use std::process::ExitCode;

fn main() -> ExitCode {
    firstboot::station::cli::main()
}
