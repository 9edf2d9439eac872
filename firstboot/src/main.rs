//! Sets up the log, parses the arguments, runs the command, returns its exit status.

mod libcrypto;

use std::process::ExitCode;

use firstboot::cli;
use firstboot::error::ErrorKind;
use firstboot::logging;
use log::{LevelFilter, error, warn};
use nix::sys::stat::{Mode, umask};

fn main() -> ExitCode {
    let arguments = match cli::parse() {
        Ok(arguments) => arguments,
        Err(exit) => return exit.into(),
    };
    // Every new file is private until it is given away on purpose.
    umask(Mode::S_IRWXG | Mode::S_IRWXO);
    start_log(arguments.verbose);
    let exit = match cli::run(&arguments) {
        Ok(exit) => exit,
        Err(e) => {
            match e.kind {
                ErrorKind::Waiting => warn!("{e}"),
                _ => error!("{e}"),
            }
            e.kind.into()
        }
    };
    exit.into()
}

fn start_log(verbose: bool) {
    logging::start(if verbose {
        LevelFilter::Debug
    } else {
        LevelFilter::Info
    });
    if !verbose {
        quieten_libraries();
    }
}

/// The TPM libraries print to standard error by themselves, with alarming words even if nothing is wrong ("no such
/// table: schema" on a new store). Variables that are already set stay.
#[allow(unsafe_code)]
fn quieten_libraries() {
    for (name, value) in [("TSS2_LOG", "all+none"), ("TPM2_PKCS11_LOG_LEVEL", "0")] {
        if std::env::var_os(name).is_none() {
            // SAFETY: there are no other threads, and no library has been loaded that reads it.
            unsafe { std::env::set_var(name, value) };
        }
    }
}
