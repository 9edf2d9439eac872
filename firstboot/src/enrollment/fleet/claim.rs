//! The claim certificate and its key, from the boot partition: what the whole fleet shows to AWS IoT Core
//! so that each device gets a certificate of its own.

use std::sync::Arc;

use log::warn;
use openssl::asn1::Asn1Time;
use openssl::pkey::{PKey, Private};
use openssl::x509::X509;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::sign::CertifiedKey;
use zeroize::{Zeroize, Zeroizing};

use super::connection::certified;
use super::failure::waiting;
use crate::boot_partition::{BootPartition, MAX_CERTIFICATE};
use crate::error::{Doing, Error, Exit, Result};
use crate::files;

/// A private key's PEM may have this many bytes: RSA with 4096 bits has 3.2 KB.
const MAX_KEY: usize = 16 * 1024;
/// The markers of an encrypted private key: PKCS#8 (RFC 7468 §11), and PEM's own (RFC 1421 §4.6.1.1).
const ENCRYPTED: [&[u8]; 2] = [b"ENCRYPTED PRIVATE KEY", b"Proc-Type: 4,ENCRYPTED"];

/// Reads the pair and checks that it is one.
pub fn read(boot: &BootPartition) -> Result<CertifiedKey> {
    let [certificate_path, key_path] = boot.claim_paths();
    let reading = |e: Error| Error::settings(e.to_string());
    let certificate = files::read(&certificate_path, MAX_CERTIFICATE).map_err(reading)?;
    let key = files::read(&key_path, MAX_KEY).map_err(reading)?;
    let (Some(certificate), Some(key)) = (certificate, key.map(Zeroizing::new)) else {
        return Err(waiting(missing(boot)));
    };
    if let Some(path) = boot.readable_claim_key() {
        warn!(
            "every user of this device can read {}: mount the boot partition with umask=0077. It is used all \
             the same, and removed after enrollment",
            path.display()
        );
    }
    let chain = X509::stack_from_pem(&certificate)
        .ok()
        .filter(|chain| !chain.is_empty())
        .ok_or_else(|| {
            Error::settings(format!(
                "{} holds no PEM certificate",
                certificate_path.display()
            ))
        })?;
    let key = private_key(&key)
        .map_err(|why| Error::settings(format!("{}: {why}", key_path.display())))?;
    let leaf = &chain[0];
    if !leaf.public_key().is_ok_and(|public| public.public_eq(&key)) {
        return Err(Error::settings(format!(
            "{} is not the key of {}",
            key_path.display(),
            certificate_path.display()
        )));
    }
    if Asn1Time::days_from_now(0).is_ok_and(|now| leaf.not_after() < now) {
        return Err(Error::settings(format!(
            "{} expired on {}: put a new claim pair onto the boot partition",
            certificate_path.display(),
            leaf.not_after()
        )));
    }
    let chain = chain
        .iter()
        .map(|c| c.to_der())
        .collect::<std::result::Result<_, _>>()
        .doing(Exit::Settings, || certificate_path.display().to_string())?;
    certified(
        chain,
        signing_key(&key).doing(Exit::Settings, || key_path.display().to_string())?,
    )
}

/// What the operator has to do where there is no pair.
pub fn missing(boot: &BootPartition) -> String {
    let [certificate, key] = boot.claim_paths();
    format!(
        "put the fleet's claim certificate and its key to {} and {}",
        certificate.display(),
        key.display()
    )
}

/// PKCS#1, SEC1 or PKCS#8, in PEM and in clear. The error says what is wrong.
fn private_key(pem: &[u8]) -> std::result::Result<PKey<Private>, String> {
    let has = |marker: &[u8]| pem.windows(marker.len()).any(|w| w == marker);
    if ENCRYPTED.iter().any(|marker| has(marker)) {
        return Err(
            "the key is encrypted, and nobody is there to type its password. Put it there in clear \
             (openssl pkey -in … -out claim.key.pem): it is removed after enrollment"
                .into(),
        );
    }
    // An empty password, so that nothing is asked on the console.
    PKey::private_key_from_pem_passphrase(pem, b"")
        .map_err(|_| "it holds no private key in PEM (PKCS#1, SEC1 or PKCS#8)".into())
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
