//! What more than one command wants to know.

use std::path::PathBuf;

use clap::Args;

/// Options of the commands that answer requests.
#[derive(Debug, Args)]
pub(crate) struct Answering {
    /// Requests, or directories of requests
    #[arg(required = true, value_name = "REQUESTS")]
    pub(crate) requests: Vec<PathBuf>,
    /// Your CA's certificate (PEM). The certificates of its issuers may follow it, and then go to the devices, too
    #[arg(long, value_name = "CERT")]
    pub(crate) ca: PathBuf,
    /// The CA's key: a PEM file or a PKCS#11 URI
    #[arg(long, value_name = "FILE|URI")]
    pub(crate) key: String,
    /// File whose first line is the token's PIN or the key file's pass phrase
    #[arg(long, value_name = "FILE")]
    pub(crate) pin_file: Option<PathBuf>,
    /// The PKCS#11 library, if the URI has no module-path
    #[arg(long, value_name = "FILE")]
    pub(crate) pkcs11_module: Option<PathBuf>,
    /// Directory for <thing>.reply.json (or <thing>.pem), not a symbolic link. A second run waits until this one has
    /// finished
    #[arg(long, value_name = "DIR")]
    pub(crate) out: PathBuf,
    /// Append a line for each certificate to this file, and refuse names that it gives to others: .csv, or .jsonl for
    /// AWS IoT's bulk registration
    #[arg(long, value_name = "FILE")]
    pub(crate) inventory: Option<PathBuf>,
}

/// Options of the commands that answer with wrapped replies.
#[derive(Debug, Args)]
pub(crate) struct Replying {
    #[command(flatten)]
    pub(crate) answering: Answering,
    /// Also answer requests that already have a reply, and let a name pass to another TPM or key
    #[arg(long, alias = "again")]
    pub(crate) force: bool,
    #[command(flatten)]
    pub(crate) tpms: Tpms,
}

/// Which TPMs are accepted.
#[derive(Debug, Args)]
pub(crate) struct Tpms {
    /// Root and intermediate CA certificates of TPM manufacturers: files or directories, PEM or DER; may be repeated
    #[arg(long, value_name = "PATH")]
    pub(crate) vendor_ca: Vec<PathBuf>,
    /// Accept only these TPMs: on each line the SHA-256 of an EK certificate and the thing's name. A TPM without a name
    /// gets whatever name it asks for
    #[arg(long, value_name = "FILE")]
    pub(crate) ek_allow_list: Option<PathBuf>,
}
