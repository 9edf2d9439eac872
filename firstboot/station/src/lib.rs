//! firstboot-station: the operator's bench, where requests become certificates that only their TPMs can open.
//!
//! It is a crate of its own, so it is never in an image. Data flows one way: `request` reads what a card brought,
//! `check` whether a TPM of a known manufacturer is behind it; `authority` issues a certificate, or `wrapping` takes
//! one that AWS IoT issued; [`firstboot_formats::attestation`] wraps it, and `wrapped` writes it. With `reissue`, a key
//! in service vouches for another one of the thing's, and the certificate is written in clear.
//!
//! | module | what |
//! |---|---|
//! | [`cli`], `options`, `commands` | the command line, and the commands |
//! | `batch`, `stop` | many requests: progress, what was refused and why |
//! | `wrapped`, `reissue` | the two ways to answer: for the TPM that vouches for a key, or as the key in service asks |
//! | `rivals`, `replies`, `lock` | requests that cannot both be right, names that are given away, runs that wait for one another |
//! | `check` | every check of a request, each with its reason |
//! | `ek_certificate`, `extension`, `manufacturers`, `allow_list`, `roca` | what the checks ask: about the EK's certificate, its issuers, whether it is one of ours, weak RSA keys |
//! | `authority`, `certificate`, `signer`, `token_key`, `pkcs11_uri` | the operator's CA, what it makes, and its key, in a file or a token |
//! | `request`, `inspect`, `inventory`, `progress` | what is read, said and written |
//!
//! Otherwise a certificate in clear is only ever in memory that is wiped: anybody who could read it elsewhere could use
//! it, even for a key that is in no TPM.

mod allow_list;
mod authority;
mod batch;
mod certificate;
mod check;
pub mod cli;
mod commands;
mod ek_certificate;
mod error;
mod extension;
mod inspect;
mod inventory;
mod lock;
mod manufacturers;
mod options;
mod pkcs11_uri;
mod progress;
mod reissue;
mod replies;
mod request;
mod rivals;
mod roca;
mod signer;
mod stop;
mod token_key;
mod wrapped;
mod wrapping;
