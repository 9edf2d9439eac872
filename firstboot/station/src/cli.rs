//! The command line of firstboot-station.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use firstboot_formats::output;

use crate::commands;
use crate::options::{Answering, Replying, Tpms};

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
a line of the inventory gives to another TPM, or to another key where the request is not for a next one (unless
--force); a name longer than 64 characters. <thing>.eap.json is for the key that
a thing's networks have for themselves, and not refused beside <thing>.json: name the files if two CAs answer.

Examples:
  firstboot-station issue requests/ --out certificates/ --ca ca.pem --key ca.key --days 3650 \\
      --vendor-ca infineon/ --ek-allow-list goods-in.txt --inventory fleet.jsonl
  firstboot-station issue requests/gateway-1.json --out certificates/ --ca ca.pem --days 365 \\
      --key 'pkcs11:token=Operator;object=ca' --pkcs11-module /usr/lib/softhsm/libsofthsm2.so \\
      --pin-file pin --vendor-ca infineon/root.crt --vendor-ca infineon/manufacturing-ca.crt")]
    Issue {
        #[command(flatten)]
        replying: Replying,
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
        replying: Replying,
        /// The certificate (PEM; - for standard input), or a directory of <thing>.pem files
        #[arg(long, value_name = "PATH")]
        certificate: PathBuf,
    },
    /// Renew certificates: issue one for a thing's next key if its key in service has signed the request, too
    #[command(after_help = "\
REQUESTS are <thing>.next.json files with <thing>.next.csr.pem beside them, or directories of those. The certificate
goes to <thing>.next.pem, not encrypted: the key in service vouches for the next one, but nothing shows that it is in a
TPM. The same goes for <thing>.eap.json, the request for the key that a thing's networks have for themselves. Refused:
requests without a countersignature, or with one by any key but that in service; a certificate in service that has
expired, is for another thing, or was wrapped for a TPM (use issue for that). What is in service is what the inventory's
last line for a thing says, or --in-service.

Examples:
  firstboot-station reissue requests/ --out certificates/ --ca ca.pem --key ca.key --days 365 \\
      --inventory fleet.csv
  firstboot-station reissue requests/gateway-1.next.json --out certificates/ --ca ca.pem --key ca.key \\
      --days 365 --in-service gateway-1.pem --inventory fleet.csv")]
    Reissue {
        #[command(flatten)]
        answering: Answering,
        /// Validity of the certificates in days; may not exceed that of the CA
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=36500))]
        days: u32,
        /// Certificates in service that the inventory or the CA does not know: a PEM file, or a directory of
        /// <thing>.pem files. They count whatever the inventory says
        #[arg(long, value_name = "PATH")]
        in_service: Option<PathBuf>,
        /// Also answer requests that already have a certificate
        #[arg(long)]
        again: bool,
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
        Command::Issue { replying, days } => commands::issue(replying, *days),
        Command::Wrap {
            replying,
            certificate,
        } => commands::wrap(replying, certificate),
        Command::Reissue {
            answering,
            days,
            in_service,
            again,
        } => commands::reissue(answering, *days, in_service.as_deref(), *again),
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
