//! The certificate of an endorsement key: its requirements (TCG EK Credential Profile 2.6, §3.2), and the TPM that it
//! describes. `manufacturers` checks whether its issuer is a TPM manufacturer.

use firstboot_formats::attestation::EkPublic;
use firstboot_formats::printable::printable;
use firstboot_formats::x509::{Certificate, Summary};
use openssl::x509::X509;
use x509_cert::der::asn1::{Any, ObjectIdentifier, Utf8StringRef};
use x509_cert::ext::pkix::name::GeneralName;
use x509_cert::ext::pkix::{ExtendedKeyUsage, KeyUsage, SubjectAltName};

use crate::extension::extension;

/// tcg-kp-EKCertificate (§3.2.16): the purpose of the certificate.
const EK_CERTIFICATE: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.23.133.8.1");
/// tcg-at-tpmManufacturer, -tpmModel, -tpmVersion (§3.1.2), in the subject's alternative name.
const TPM_ATTRIBUTES: [ObjectIdentifier; 3] = [
    ObjectIdentifier::new_unwrap("2.23.133.2.1"),
    ObjectIdentifier::new_unwrap("2.23.133.2.2"),
    ObjectIdentifier::new_unwrap("2.23.133.2.3"),
];

/// An EK certificate.
pub(crate) struct EkCertificate {
    certificate: Certificate,
    /// The same, for OpenSSL.
    pub(crate) openssl: X509,
    /// Its key.
    pub(crate) key: EkPublic,
}

impl EkCertificate {
    /// Parses a DER certificate, also one that is not strict DER, as some manufacturers' are not: its bytes are never
    /// re-encoded. The error says what is wrong.
    pub(crate) fn parse(der: &[u8]) -> Result<Self, String> {
        let damaged = |e: String| format!("its EK certificate is damaged: {e}");
        let certificate =
            Certificate::parse(der.to_vec()).ok_or_else(|| damaged("it is not DER".to_owned()))?;
        let openssl = X509::from_der(der).map_err(|e| damaged(e.to_string()))?;
        let key = openssl.public_key().map_err(|e| damaged(e.to_string()))?;
        Ok(Self {
            certificate,
            openssl,
            key: EkPublic::new(key)?,
        })
    }

    /// Whether it is for an EK, and not for something else from the same issuer.
    pub(crate) fn check_purpose(&self) -> Result<(), String> {
        let damaged = |e| format!("its EK certificate is damaged: {e}");
        if self.certificate.is_authority() {
            return Err("its EK certificate is a CA's certificate".into());
        }
        let purposes: Option<ExtendedKeyUsage> = extension(&self.certificate).map_err(damaged)?;
        if !purposes.is_some_and(|purposes| purposes.0.contains(&EK_CERTIFICATE)) {
            return Err(format!(
                "its EK certificate is not for an endorsement key (extended key usage {EK_CERTIFICATE})"
            ));
        }
        // §3.2.5: keyEncipherment for RSA, keyAgreement for ECC.
        let usage: Option<KeyUsage> = extension(&self.certificate).map_err(damaged)?;
        let fits = |usage: KeyUsage| match self.key.key().id() {
            openssl::pkey::Id::RSA => usage.key_encipherment(),
            _ => usage.key_agreement(),
        };
        match usage {
            Some(usage) if !fits(usage) => {
                Err("its EK certificate's key usage is not that of an endorsement key".into())
            }
            _ => Ok(()),
        }
    }

    /// Which TPM it is for, in its manufacturer's words: manufacturer, model, version.
    pub(crate) fn tpm(&self) -> String {
        let Ok(Some(names)) = extension::<SubjectAltName>(&self.certificate) else {
            return "unnamed".into();
        };
        let directory_names = || {
            names.0.iter().filter_map(|name| match name {
                GeneralName::DirectoryName(name) => Some(name),
                _ => None,
            })
        };
        let words: Vec<String> = TPM_ATTRIBUTES
            .iter()
            .filter_map(|wanted| {
                let mut all = directory_names().flat_map(|name| name.iter());
                all.find(|attribute| attribute.oid == *wanted)
            })
            .map(|attribute| words(&attribute.value))
            .collect();
        printable(words.join(" "))
    }

    /// Issuer and serial number, for people.
    pub(crate) fn describe(&self) -> String {
        let Summary {
            issuer,
            serial,
            not_after,
            ..
        } = self.certificate.summary();
        format!("issued by {issuer}, serial number {serial}, valid until {not_after}")
    }
}

fn words(value: &Any) -> String {
    match value.decode_as::<Utf8StringRef<'_>>() {
        Ok(text) => text.as_str().to_owned(),
        Err(_) => String::from_utf8_lossy(value.value()).into_owned(),
    }
}
