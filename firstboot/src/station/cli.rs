//! The command line of firstboot-station.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use super::commands;
use crate::output;

/// Turns certificate requests of firstboot into certificates that only their TPMs can open.
#[derive(Debug, Parser)]
#[command(
    name = "firstboot-station",
    version,
    propagate_version = true,
    after_help = "\
Exit status: 0 all done; 64 usage; 65 some were refused (each is named, the others are done);
66 a file is missing; 70 any other failure; 73 cannot write; 78 CA, key, PIN or list cannot be used.

Examples:
  firstboot-station issue /media/card/firstboot/requests --out /media/card/firstboot/certificates \\
      --ca ca.pem --key ca.key --days 3650 --vendor-ca infineon/ --inventory fleet.csv
  firstboot-station inspect /media/card/firstboot/requests/gateway-1.json"
)]
struct Arguments {
    /// What to do
    #[command(subcommand)]
    command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
enum Command {
    /// Check requests, issue certificates with the operator's CA, write the wrapped replies
    #[command(after_help = "\
REQUESTS are <thing>.json with <thing>.csr.pem beside it, or directories of those. Whatever has a reply of
this CA in DIR already is left alone, so that a run can be repeated. Refused, besides what no known TPM vouches
for: all requests of a run that are for one name or have one key; a name that a reply in DIR or a line of the
inventory gives to another TPM or key (--force); a name of more than 64 characters.

Examples:
  firstboot-station issue requests/ --out certificates/ --ca ca.pem --key ca.key --days 3650 \\
      --vendor-ca infineon/ --ek-allow-list goods-in.txt --inventory fleet.jsonl
  firstboot-station issue requests/gateway-1.json --out certificates/ --ca ca.pem --days 365 \\
      --key 'pkcs11:token=Operator;object=ca' --pkcs11-module /usr/lib/softhsm/libsofthsm2.so \\
      --pin-file pin --vendor-ca infineon/root.crt --vendor-ca infineon/manufacturing-ca.crt")]
    Issue {
        #[command(flatten)]
        answering: Answering,
        /// How long certificates are valid; not longer than the CA's own
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=36500))]
        days: u32,
    },
    /// Check requests and wrap certificates that somebody else issued for them, such as AWS IoT
    #[command(after_help = "\
CA and key sign the reply here, and no certificate. A certificate that comes through a pipe is on no disk.

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
        /// The certificate (PEM; - for standard input), or a directory with <thing>.pem
        #[arg(long, value_name = "PATH")]
        certificate: PathBuf,
    },
    /// Say what is in a request or a reply, and what is wrong with it
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

/// What answering requests needs.
#[derive(Debug, Args)]
pub(super) struct Answering {
    /// Requests, or directories of them
    #[arg(required = true, value_name = "REQUESTS")]
    pub(super) requests: Vec<PathBuf>,
    /// The operator's CA certificate, PEM; certificates of its issuers may follow, and go to the devices, too
    #[arg(long, value_name = "CERT")]
    pub(super) ca: PathBuf,
    /// Its key: a PEM file, or a PKCS#11 URI
    #[arg(long, value_name = "FILE|URI")]
    pub(super) key: String,
    /// The token's PIN, or the pass phrase of the key file: the first line of this file
    #[arg(long, value_name = "FILE")]
    pub(super) pin_file: Option<PathBuf>,
    /// The PKCS#11 library, if the URI has no module-path
    #[arg(long, value_name = "FILE")]
    pub(super) pkcs11_module: Option<PathBuf>,
    /// Where <thing>.reply.json goes: a directory, and no symbolic link. Another run waits until this one is done
    #[arg(long, value_name = "DIR")]
    pub(super) out: PathBuf,
    /// Adds a line for each certificate to this file, and refuses names that it gives to others: .csv, or .jsonl for
    /// AWS IoT's bulk registration
    #[arg(long, value_name = "FILE")]
    pub(super) inventory: Option<PathBuf>,
    /// Answer also what has its reply already, and give a name to another TPM or key than before
    #[arg(long, alias = "again")]
    pub(super) force: bool,
    #[command(flatten)]
    pub(super) tpms: Tpms,
}

/// Whose TPMs are taken.
#[derive(Debug, Args)]
pub(super) struct Tpms {
    /// Root and intermediate CA certificates of TPM makers: files or directories, PEM or DER; may be repeated
    #[arg(long, value_name = "PATH")]
    pub(super) vendor_ca: Vec<PathBuf>,
    /// Take only these TPMs: a line each with the SHA-256 of the EK certificate and the thing's name. Without a name,
    /// that TPM gets whatever name it asks for
    #[arg(long, value_name = "FILE")]
    pub(super) ek_allow_list: Option<PathBuf>,
}

/// The program.
pub fn main() -> ExitCode {
    /// EX_USAGE of sysexits(3).
    const USAGE: u8 = 64;
    let arguments = match Arguments::try_parse() {
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
