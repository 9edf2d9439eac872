//! The command line of firstboot-station.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use firstboot_formats::output;

use crate::commands;
use crate::options::{Answering, Tpms};

/// Turn firstboot's certificate requests into certificates that only their TPMs can open
#[derive(Debug, Parser)]
#[command(
    name = "firstboot-station",
    version,
    propagate_version = true,
    after_help = "\
Exit status: 0 all done; 64 usage; 65 some requests were refused (each is named, the others are done);
66 a file is missing; 70 any other failure; 73 cannot write; 78 CA, key, PIN or list is unusable.

Examples:
  firstboot-station issue /media/card/firstboot/requests --out /media/card/firstboot/certificates \\
      --ca ca.pem --key ca.key --days 3650 --vendor-ca infineon/ --inventory fleet.csv
  firstboot-station inspect /media/card/firstboot/requests/gateway-1.json"
)]
pub struct Arguments {
    /// The command
    #[command(subcommand)]
    command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
enum Command {
    /// Check requests, issue certificates with your CA, and write wrapped replies
    #[command(after_help = "\
REQUESTS are <thing>.json files with <thing>.csr.pem beside them, or directories of those. A request that
already has a reply from this CA in DIR is skipped, so that a run can be repeated. Refused, besides requests
that no known TPM vouches for: all requests of a run that share a name or a key; a name that a reply in DIR or
a line of the inventory gives to another TPM or key (unless --force); a name longer than 64 characters.

Examples:
  firstboot-station issue requests/ --out certificates/ --ca ca.pem --key ca.key --days 3650 \\
      --vendor-ca infineon/ --ek-allow-list goods-in.txt --inventory fleet.jsonl
  firstboot-station issue requests/gateway-1.json --out certificates/ --ca ca.pem --days 365 \\
      --key 'pkcs11:token=Operator;object=ca' --pkcs11-module /usr/lib/softhsm/libsofthsm2.so \\
      --pin-file pin --vendor-ca infineon/root.crt --vendor-ca infineon/manufacturing-ca.crt")]
    Issue {
        #[command(flatten)]
        answering: Answering,
        /// Validity of the certificates in days; may not exceed that of the CA
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=36500))]
        days: u32,
    },
    /// Check requests and wrap certificates that another CA, such as AWS IoT, issued for them
    #[command(after_help = "\
Here, CA and key sign only the reply, not a certificate. A certificate that comes through a pipe never reaches a disk.

Examples:
  aws iot create-certificate-from-csr --set-as-active --query certificatePem --output text \\
      --certificate-signing-request file://requests/gateway-1.csr.pem |
      firstboot-station wrap requests/gateway-1.json --certificate - --out certificates/ \\
      --ca ca.pem --key ca.key --vendor-ca infineon/
  firstboot-station wrap requests/ --certificate issued/ --out certificates/ --ca ca.pem --key ca.key \\
      --vendor-ca infineon/")]
    Wrap {
        #[command(flatten)]
        answering: Answering,
        /// The certificate (PEM; - for standard input), or a directory of <thing>.pem files
        #[arg(long, value_name = "PATH")]
        certificate: PathBuf,
    },
    /// Show what a request or a reply contains, and what is wrong with it
    #[command(after_help = "\
Examples:
  firstboot-station inspect requests/gateway-1.json certificates/gateway-1.reply.json
  firstboot-station inspect --vendor-ca infineon/ requests/*.json")]
    Inspect {
        /// Requests (<thing>.json) and replies (<thing>.reply.json)
        #[arg(required = true, value_name = "FILES")]
        files: Vec<PathBuf>,
        #[command(flatten)]
        tpms: Tpms,
    },
}

/// Parses a command line, whose first word is the program's name.
pub fn read<T: Into<OsString> + Clone>(
    words: impl IntoIterator<Item = T>,
) -> Result<Arguments, clap::Error> {
    Arguments::try_parse_from(words)
}

/// The program.
pub fn main() -> ExitCode {
    /// EX_USAGE of sysexits(3).
    const USAGE: u8 = 64;
    let arguments = match read(std::env::args_os()) {
        Ok(arguments) => arguments,
        Err(e) => {
            // Nothing can be done where standard error is closed.
            let _ = e.print();
            return ExitCode::from(if e.use_stderr() { USAGE } else { 0 });
        }
    };
    let done = match &arguments.command {
        Command::Issue { answering, days } => commands::issue(answering, *days),
        Command::Wrap {
            answering,
            certificate,
        } => commands::wrap(answering, certificate),
        Command::Inspect { files, tpms } => commands::inspect(files, tpms),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            output::say(&format!("firstboot-station: {e}"));
            e.into()
        }
    }
}
