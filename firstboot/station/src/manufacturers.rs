//! The TPM manufacturers that the operator trusts: their root and intermediate CA certificates, pinned on the station.
//! A TPM has only its own certificate; nothing is fetched.

use std::path::{Path, PathBuf};

use firstboot_formats::printable::printable;
use firstboot_formats::x509::certificates;
use openssl::error::ErrorStack;
use openssl::stack::Stack;
use openssl::x509::store::{X509Store, X509StoreBuilder};
use openssl::x509::verify::X509VerifyParam;
use openssl::x509::{X509, X509StoreContext};

use crate::error::{Context, Error, Exit, Result};
use crate::request::{directory, file};

/// The file name extensions of CA certificates, PEM or DER.
const ENDS: [&str; 4] = [".pem", ".crt", ".cer", ".der"];
/// Maximum size of a file with CA certificates, bytes: a bundle of all TPM manufacturers has some 500 KiB.
const MAX_FILE: usize = 8 * 1024 * 1024;
/// Minimum security of every key and hash in a chain, 112 bits: SHA-1 and RSA below 2048 bits are out (OpenSSL,
/// SSL_CTX_set_security_level(3), level 2).
const SECURITY_LEVEL: i32 = 2;

/// The pinned certificates.
pub(crate) struct Manufacturers {
    roots: X509Store,
    intermediates: Stack<X509>,
}

impl Manufacturers {
    /// Reads these files, and the certificates in these directories.
    pub(crate) fn read(paths: &[PathBuf]) -> Result<Self> {
        let mut certificates = Vec::new();
        for path in paths {
            let files = match path.is_dir() {
                true => directory(path, |name| ENDS.iter().any(|end| name.ends_with(end)))?,
                false => vec![path.clone()],
            };
            for path in files {
                certificates.append(&mut read(&path)?);
            }
        }
        let unusable = || "cannot use the TPM manufacturers' CA certificates".to_owned();
        let is_root = |c: &X509| -> std::result::Result<bool, ErrorStack> {
            let own_name = c.issuer_name().try_cmp(c.subject_name())?.is_eq();
            Ok(own_name && c.verify(c.public_key()?.as_ref())?)
        };
        let sort = || -> std::result::Result<_, ErrorStack> {
            let mut roots = X509StoreBuilder::new()?;
            let mut parameters = X509VerifyParam::new()?;
            parameters.set_auth_level(SECURITY_LEVEL);
            roots.set_param(&parameters)?;
            let mut intermediates = Stack::new()?;
            let mut found = 0;
            for certificate in certificates {
                if is_root(&certificate)? {
                    roots.add_cert(certificate)?;
                    found += 1;
                } else {
                    intermediates.push(certificate)?;
                }
            }
            Ok((roots.build(), intermediates, found))
        };
        let (roots, intermediates, found) = sort().context(Exit::Settings, unusable)?;
        match found {
            0 => Err(Error::settings(
                "--vendor-ca: there is no root certificate (a self-signed one) among these files",
            )),
            _ => Ok(Self {
                roots,
                intermediates,
            }),
        }
    }

    /// Whether an EK certificate was issued by one of them: signatures, dates, path lengths and key usages up to a
    /// pinned root, by OpenSSL's verifier.
    pub(crate) fn check(&self, certificate: &X509) -> std::result::Result<(), String> {
        let mut why = String::new();
        let verify = X509StoreContext::new().and_then(|mut context| {
            context.init(&self.roots, certificate, &self.intermediates, |context| {
                let good = context.verify_cert()?;
                if !good {
                    let depth = context.error_depth();
                    let at = match depth {
                        0 => "the EK certificate itself".to_owned(),
                        n => format!("its issuer no. {n}"),
                    };
                    why = format!("{}, at {at}", context.error().error_string());
                }
                Ok(good)
            })
        });
        match verify {
            Ok(true) => Ok(()),
            Ok(false) => Err(printable(format!(
                "its EK certificate does not chain up to a pinned TPM manufacturer (--vendor-ca): {why}"
            ))),
            Err(e) => Err(format!("its EK certificate cannot be verified: {e}")),
        }
    }
}

fn read(path: &Path) -> Result<Vec<X509>> {
    let content = file(path, MAX_FILE)?;
    let unusable = |why: &str| Error::settings(format!("--vendor-ca: {}: {why}", path.display()));
    let found = certificates(&content).map_err(|why| unusable(&why))?;
    let parsed: std::result::Result<Vec<X509>, _> =
        found.iter().map(|c| X509::from_der(c.der())).collect();
    parsed.map_err(|e| unusable(&e.to_string()))
}
