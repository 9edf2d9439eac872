//! The operator's CA key: in a file, or in a PKCS#11 token.

use std::path::Path;

use firstboot_formats::public_key::KeyFamily;
use openssl::hash::MessageDigest;
use openssl::pkey::{PKey, Private};
use openssl::sign::Signer as OpenSslSigner;
use zeroize::Zeroizing;

use crate::error::{Context, Error, Exit, Result};
use crate::pkcs11_uri::Pkcs11Uri;
use crate::request::file;
use crate::token_key::TokenKey;

/// Maximum size of a key file or a PIN file, bytes.
const MAX_FILE: usize = 64 * 1024;

/// The key.
pub(crate) enum Signer {
    /// Read from a file.
    File(PKey<Private>),
    /// Stays in its token.
    Token(TokenKey),
}

/// Where the key is.
pub(crate) struct KeySource<'a> {
    /// A file, or a PKCS#11 URI.
    pub(crate) key: &'a str,
    /// The file with the PIN or the pass phrase.
    pub(crate) pin_file: Option<&'a Path>,
    /// The PKCS#11 library.
    pub(crate) module: Option<&'a Path>,
}

impl Signer {
    /// Opens the key.
    pub(crate) fn open(source: &KeySource<'_>) -> Result<Self> {
        if source.key.starts_with("pkcs11:") {
            let uri =
                Pkcs11Uri::parse(source.key).map_err(|e| Error::settings(format!("--key: {e}")))?;
            let pin = pin(source.pin_file.or(uri.pin_file.as_deref()))?;
            let pin = pin.as_deref().map(String::as_str);
            return TokenKey::open(&uri, source.module, pin).map(Self::Token);
        }
        let pem = Zeroizing::new(file(Path::new(source.key), MAX_FILE)?);
        let pass_phrase = pin(source.pin_file)?;
        let mut asked = false;
        // Without this, OpenSSL would ask the terminal.
        let key = PKey::private_key_from_pem_callback(&pem, |buffer| {
            asked = true;
            let phrase = pass_phrase.as_ref().map_or(&b""[..], |p| p.as_bytes());
            let length = phrase.len().min(buffer.len());
            buffer[..length].copy_from_slice(&phrase[..length]);
            Ok(length)
        });
        key.map(Self::File).map_err(|_| {
            Error::settings(match (asked, &pass_phrase) {
                (true, None) => {
                    format!(
                        "--key: {} is encrypted: give its pass phrase with --pin-file",
                        source.key
                    )
                }
                (true, Some(_)) => {
                    format!("--key: the pass phrase does not open {}", source.key)
                }
                (false, _) => format!("--key: {} contains no private key (PEM)", source.key),
            })
        })
    }

    /// Signs with SHA-256, in X.509's form: ECDSA in DER, or RSASSA-PKCS1-v1_5.
    pub(crate) fn sign(&self, family: KeyFamily, message: &[u8]) -> Result<Vec<u8>> {
        match self {
            Self::Token(key) => key.sign(family, message),
            Self::File(key) => OpenSslSigner::new(MessageDigest::sha256(), key)
                .and_then(|mut signer| signer.sign_oneshot_to_vec(message))
                .context(Exit::Settings, || "--key: cannot sign with the key".into()),
        }
    }
}

/// The first line of the file.
fn pin(path: Option<&Path>) -> Result<Option<Zeroizing<String>>> {
    let Some(path) = path else { return Ok(None) };
    let content = Zeroizing::new(file(path, MAX_FILE)?);
    let line = content.split(|&c| c == b'\n' || c == b'\r').next();
    match std::str::from_utf8(line.unwrap_or_default()) {
        Ok(pin) if !pin.is_empty() => Ok(Some(Zeroizing::new(pin.to_owned()))),
        _ => Err(Error::settings(format!(
            "--pin-file: the first line of {} has no PIN or pass phrase",
            path.display()
        ))),
    }
}
