//! The claim, from the boot partition: every device of the fleet presents it to get a certificate of its own. It is a
//! certificate and its key; with EST, a password as well or instead.
//!
//! It is removed as soon as the device is done. Where certificates are renewed by fleet provisioning, the pair is kept
//! first, for root alone: AWS IoT Core may not let a device ask for a certificate with its own.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use firstboot_formats::card::MAX_CERTIFICATE;
use firstboot_formats::clock::Clock;
use firstboot_formats::files::{self, Access};
use firstboot_formats::pem;
use firstboot_formats::public_key::PublicKey;
use firstboot_formats::text;
use firstboot_formats::x509::{Chain, certificates, what_is};
use log::warn;
use openssl::pkey::{PKey, Private};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::sign::CertifiedKey;
use zeroize::{Zeroize, Zeroizing};

use super::network::{certified, waiting};
use crate::boot_partition::BootPartition;
use crate::error::{Error, ErrorKind, Result, ResultExt};
use crate::layout::{KEPT_CLAIM, Layout};
use crate::settings::Settings;

/// Maximum size of a private key's PEM, bytes: RSA with 4096 bits has 3.2 KB.
const MAX_KEY: usize = 16 * 1024;
/// The markers of an encrypted private key: PKCS#8 (RFC 7468 §11), and PEM's own (RFC 1421 §4.6.1.1).
const ENCRYPTED: [&[u8]; 2] = [b"ENCRYPTED PRIVATE KEY", b"Proc-Type: 4,ENCRYPTED"];
/// Maximum size of a password, bytes: servers limit the size of a header.
const MAX_PASSWORD: usize = 1024;

/// Reads the pair and checks that key and certificate match.
pub fn read(boot: &BootPartition) -> Result<CertifiedKey> {
    let paths = boot.claim_paths();
    let read = read_at(&paths)?.ok_or_else(|| waiting(missing(boot)))?;
    warn_if_readable(boot, &paths[1], "key");
    Ok(read)
}

/// The pair for a renewal: the one on the boot partition, or the one that was kept; `None` if neither can be used.
pub fn for_renewal(boot: &BootPartition, layout: &Layout) -> Option<CertifiedKey> {
    [boot.claim_paths(), kept(layout)].iter().find_map(|paths| {
        read_at(paths).unwrap_or_else(|e| {
            warn!("{e}");
            None
        })
    })
}

/// Whether the pair is to be kept after enrollment.
fn is_wanted(settings: &Settings) -> bool {
    settings.renew.is_some() && settings.enrollment.is_fleet()
}

/// Whether a device that has its certificate has a claim where it no longer belongs.
pub fn is_spent(settings: &Settings, boot: &BootPartition, layout: &Layout) -> bool {
    (settings.enrollment.is_by_network() && !boot.claim_files().is_empty())
        || (is_kept(layout) && !is_wanted(settings))
}

/// Removes the claim from where it no longer belongs. A pair that renewals may need is kept first; one that cannot be
/// used is not.
pub fn put_away(settings: &Settings, boot: &BootPartition, layout: &Layout) -> Result<()> {
    if !is_wanted(settings) {
        forget(layout)?;
    } else if boot.has_claim() {
        let on_card = boot.claim_paths();
        match read_at(&on_card) {
            Ok(Some(_)) => {
                for (from, to) in on_card.iter().zip(kept(layout)) {
                    let content = text::read_secret(from, MAX_CERTIFICATE)?.unwrap_or_default();
                    if let Some(directory) = to.parent() {
                        files::make_directory(directory, 0o700)?;
                    }
                    files::write(&to, &content, Some(Access::PRIVATE))?;
                }
            }
            Ok(None) => {}
            Err(e) => warn!("the claim pair is not kept for renewals: {e}"),
        }
    }
    if settings.enrollment.is_by_network() {
        boot.remove_claim()?;
    }
    Ok(())
}

/// Overwrites and removes the kept pair, the key first.
pub fn forget(layout: &Layout) -> Result<()> {
    for path in kept(layout).iter().rev() {
        files::overwrite_and_remove(path)?;
    }
    Ok(())
}

fn kept(layout: &Layout) -> [PathBuf; 2] {
    KEPT_CLAIM.map(|path| layout.at(path))
}

fn is_kept(layout: &Layout) -> bool {
    kept(layout)
        .iter()
        .any(|path| path.symlink_metadata().is_ok())
}

/// The pair at these paths, if it is there.
fn read_at([certificate_path, key_path]: &[PathBuf; 2]) -> Result<Option<CertifiedKey>> {
    let certificate = text::read(certificate_path, MAX_CERTIFICATE).of_kind(ErrorKind::Settings)?;
    let key = text::read_secret(key_path, MAX_KEY).of_kind(ErrorKind::Settings)?;
    let (Some(certificate), Some(key)) = (certificate, key) else {
        return Ok(None);
    };
    let wrong = |path: &Path, why: &str| Error::settings(format!("{}: {why}", path.display()));
    certificates(&certificate).map_err(|why| wrong(certificate_path, &why))?;
    let key = private_key(&key).map_err(|why| wrong(key_path, &why))?;
    let public = key.public_key_to_der().context(ErrorKind::Settings, || {
        format!("cannot use the claim key {}", key_path.display())
    })?;
    let chain = Chain::parse(&certificate, &PublicKey::from_spki(public), &[]).map_err(|_| {
        Error::settings(format!(
            "{} is not the key of {}",
            key_path.display(),
            certificate_path.display()
        ))
    })?;
    if let Some(end) = chain.expired(Clock::read()) {
        return Err(Error::settings(format!(
            "{} expired on {end}: save a new claim pair on the boot partition",
            certificate_path.display(),
        )));
    }
    let key = signing_key(&key).context(ErrorKind::Settings, || {
        format!("cannot use the claim key {}", key_path.display())
    })?;
    Ok(Some(certified(&chain, key)))
}

/// The password, if there is one. It may end in a line break.
pub fn password(boot: &BootPartition) -> Result<Option<Zeroizing<String>>> {
    let path = boot.claim_password_path();
    let content = text::read_secret(&path, MAX_PASSWORD).of_kind(ErrorKind::Settings)?;
    let Some(content) = content else {
        return Ok(None);
    };
    warn_if_readable(boot, &path, "password");
    let password = std::str::from_utf8(&content).ok();
    let password = password.map(|text| text.trim_end_matches(['\r', '\n']));
    let plain = |text: &&str| !text.is_empty() && !text.contains(char::is_control);
    match password.filter(plain) {
        Some(password) => Ok(Some(Zeroizing::new(password.to_owned()))),
        None => Err(Error::settings(format!(
            "{}: it contains no password: expected one line of UTF-8",
            path.display()
        ))),
    }
}

fn warn_if_readable(boot: &BootPartition, path: &Path, what: &str) {
    if boot.everybody_can_read(path) {
        warn!(
            "every user of this device can read {}: mount the boot partition with umask=0077. firstboot uses the {what} \
             anyway, and removes it after enrollment",
            path.display()
        );
    }
}

/// What the operator has to do for EST if there is neither pair nor password.
pub fn missing_for_est(boot: &BootPartition) -> String {
    let [certificate, key] = boot.claim_paths();
    format!(
        "save the password for the EST server as {}, or a bootstrap certificate and its key as {} and {}",
        boot.claim_password_path().display(),
        certificate.display(),
        key.display()
    )
}

/// What the operator has to do if there is no pair.
pub fn missing(boot: &BootPartition) -> String {
    let [certificate, key] = boot.claim_paths();
    format!(
        "save the fleet's claim certificate and its key as {} and {}",
        certificate.display(),
        key.display()
    )
}

/// PKCS#1, SEC1 or PKCS#8, in PEM or DER and in clear. The error says what is wrong.
fn private_key(content: &[u8]) -> std::result::Result<PKey<Private>, String> {
    let has = |marker: &[u8]| content.windows(marker.len()).any(|w| w == marker);
    if ENCRYPTED.iter().any(|marker| has(marker)) {
        return Err(
            "the key is encrypted, and nobody is there to type its pass phrase: save it unencrypted (openssl pkey -in \
             … -out claim.key.pem). firstboot removes it after enrollment"
                .into(),
        );
    }
    let none = || {
        format!(
            "it contains no private key (PKCS#1, SEC1 or PKCS#8, in PEM): it is {}",
            what_is(content)
        )
    };
    // An elliptic curve's key may follow its parameters, and a certificate may be in the same file.
    let block = pem::blocks(content)?
        .into_iter()
        .find(|block| block.label.ends_with("PRIVATE KEY"));
    let der = match &block {
        Some(block) => block.decode().ok_or("the private key is damaged")?,
        None => Zeroizing::new(content.to_vec()),
    };
    PKey::private_key_from_der(&der).map_err(|_| match block {
        Some(_) => "the private key is damaged or of an unsupported type".into(),
        None => none(),
    })
}

fn signing_key(
    key: &PKey<Private>,
) -> std::result::Result<Arc<dyn rustls::sign::SigningKey>, String> {
    let provider = rustls_openssl::default_provider();
    let der = key.private_key_to_pkcs8().map_err(|e| e.to_string())?;
    let mut der = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(der));
    let loaded = provider.key_provider.load_private_key(der.clone_key());
    der.zeroize();
    loaded.map_err(|e| e.to_string())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use openssl::ec::{EcGroup, EcKey};
    use openssl::nid::Nid;
    use openssl::rsa::Rsa;
    use openssl::symm::Cipher;

    use super::*;

    #[test]
    fn each_form_of_a_key_is_read_and_an_encrypted_one_named() {
        let curve = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1).unwrap();
        let ec = EcKey::generate(&curve).unwrap();
        let rsa = Rsa::generate(2048).unwrap();
        let pkcs8 = PKey::from_ec_key(ec.clone()).unwrap();
        let pkcs8 = pkcs8.private_key_to_pem_pkcs8().unwrap();
        let windows = String::from_utf8(pkcs8.clone())
            .unwrap()
            .replace('\n', "\r\n");
        for pem in [
            rsa.private_key_to_pem().unwrap(),
            ec.private_key_to_pem().unwrap(),
            pkcs8,
            windows.into_bytes(),
        ] {
            let key = private_key(&pem).unwrap();
            assert!(signing_key(&key).is_ok());
        }
        let cipher = Cipher::aes_128_cbc();
        let secret = PKey::from_rsa(rsa.clone()).unwrap();
        for pem in [
            rsa.private_key_to_pem_passphrase(cipher, b"x1").unwrap(),
            secret
                .private_key_to_pem_pkcs8_passphrase(cipher, b"x1")
                .unwrap(),
        ] {
            assert!(private_key(&pem).unwrap_err().contains("encrypted"));
        }
        assert!(private_key(b"").unwrap_err().contains("no private key"));
    }
}
