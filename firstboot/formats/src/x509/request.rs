//! Certificate requests: PKCS#10 (RFC 2986) from a public key and something that signs.
//!
//! The DER is written here because the available tools get it wrong: tpm2-openssl puts a NULL parameter into
//! ecdsa-with-SHA256, which strict parsers refuse (docs/findings/greengrass.md, "Certificate requests").

use x509_cert::attr::{Attribute, Attributes};
use x509_cert::der::asn1::{BitString, ObjectIdentifier, OctetString};
use x509_cert::der::pem::LineEnding;
use x509_cert::der::{Decode, DecodePem, Encode, EncodePem};
use x509_cert::ext::Extension;
use x509_cert::name::Name;
use x509_cert::request::{CertReq, CertReqInfo, ExtensionReq, Version};
use x509_cert::spki::SubjectPublicKeyInfoOwned;

use crate::error::{Context, Error, Kind, Result};
use crate::public_key::{PublicKey, Scheme};
use crate::x509::signature_algorithm;

use super::certificate::Certificate;

/// id-ce-subjectAltName, 2.5.29.17 (RFC 5280 §4.2.1.6).
const SUBJECT_ALT_NAME: [u8; 3] = [0x55, 0x1D, 0x11];

/// A certificate request.
pub struct Request {
    request: CertReq,
}

impl Request {
    /// Makes a request for `name`, signed by `sign`, and verifies the signature in software: this also proves that the
    /// key works.
    pub fn make<E: From<Error>>(
        name: Name,
        key: &PublicKey,
        sign: impl FnOnce(&[u8]) -> std::result::Result<Vec<u8>, E>,
    ) -> std::result::Result<Self, E> {
        Self::with(name, Attributes::new(), key, sign)
    }

    /// The same for the name of a certificate that it is to succeed, and for its alternative names, if it has any: both
    /// as they stand there (RFC 7030 §4.2.2). Alternative names are asked for in an extension request (RFC 2985 §5.4.2).
    pub fn renewing<E: From<Error>>(
        old: &Certificate,
        key: &PublicKey,
        sign: impl FnOnce(&[u8]) -> std::result::Result<Vec<u8>, E>,
    ) -> std::result::Result<Self, E> {
        let repeating = || "cannot ask for the names of the certificate that is renewed".to_owned();
        let name = Name::from_der(old.subject_der()).context(Kind::Other, repeating)?;
        let mut attributes = Attributes::new();
        if let Some(names) = old.extension(&SUBJECT_ALT_NAME) {
            let extension = Extension {
                extn_id: ObjectIdentifier::from_bytes(&SUBJECT_ALT_NAME)
                    .context(Kind::Other, repeating)?,
                // As for every subject that has a name (RFC 5280 §4.2.1.6).
                critical: false,
                extn_value: OctetString::new(names).context(Kind::Other, repeating)?,
            };
            let wanted = Attribute::try_from(ExtensionReq(vec![extension]));
            let wanted = wanted.context(Kind::Other, repeating)?;
            attributes.insert(wanted).context(Kind::Other, repeating)?;
        }
        Self::with(name, attributes, key, sign)
    }

    /// Whether it already asks for what [`Request::renewing`] would: a name like that certificate's, which has no
    /// alternative ones.
    pub fn renews(&self, old: &Certificate) -> bool {
        let name = self.request.info.subject.to_der();
        name.is_ok_and(|name| name == old.subject_der())
            && old.extension(&SUBJECT_ALT_NAME).is_none()
    }

    fn with<E: From<Error>>(
        name: Name,
        attributes: Attributes,
        key: &PublicKey,
        sign: impl FnOnce(&[u8]) -> std::result::Result<Vec<u8>, E>,
    ) -> std::result::Result<Self, E> {
        let making = || "cannot create the certificate request".to_owned();
        let info = CertReqInfo {
            version: Version::V1,
            subject: name,
            public_key: SubjectPublicKeyInfoOwned::from_der(key.spki())
                .context(Kind::Other, making)?,
            attributes,
        };
        let unknown = || Error::other(format!("{}: unsupported type of key", making()));
        let algorithm = signature_algorithm(key.family().ok_or_else(unknown)?);
        let message = info.to_der().context(Kind::Other, making)?;
        let signature = sign(&message)?;
        if !key.verifies(Scheme::X509, &message, &signature) {
            return Err(Error::other(
                "the TPM's signature does not verify with the key that it generated: the key cannot be used",
            )
            .into());
        }
        Ok(Self {
            request: CertReq {
                info,
                algorithm,
                signature: BitString::from_bytes(&signature).context(Kind::Other, making)?,
            },
        })
    }

    /// Parses what [`Request::pem`] writes.
    pub fn parse(pem: &[u8]) -> Result<Self> {
        let request = CertReq::from_pem(pem).context(Kind::Other, || {
            "cannot parse the certificate request".into()
        })?;
        Ok(Self { request })
    }

    /// PEM (RFC 7468).
    pub fn pem(&self) -> Result<String> {
        self.request
            .to_pem(LineEnding::LF)
            .context(Kind::Other, || "cannot encode the request".into())
    }

    /// DER (RFC 2986 §4).
    pub fn der(&self) -> Result<Vec<u8>> {
        self.request
            .to_der()
            .context(Kind::Other, || "cannot encode the request".into())
    }

    /// The requested name.
    pub fn subject(&self) -> &Name {
        &self.request.info.subject
    }

    /// The key that the request is for.
    pub fn public_key(&self) -> Result<PublicKey> {
        let spki = self
            .request
            .info
            .public_key
            .to_der()
            .context(Kind::Other, || "cannot encode the request's key".into())?;
        Ok(PublicKey::from_spki(spki))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use openssl::asn1::{Asn1Time, Asn1Type};
    use openssl::ec::{EcGroup, EcKey};
    use openssl::hash::MessageDigest;
    use openssl::nid::Nid;
    use openssl::pkey::{PKey, Private};
    use openssl::rsa::Rsa;
    use openssl::sign::Signer;
    use openssl::x509::extension::SubjectAlternativeName;
    use openssl::x509::{X509, X509NameBuilder, X509Req};

    use super::super::name;
    use super::*;

    fn keys() -> [PKey<Private>; 2] {
        let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1).unwrap();
        [
            PKey::from_ec_key(EcKey::generate(&group).unwrap()).unwrap(),
            PKey::from_rsa(Rsa::generate(2048).unwrap()).unwrap(),
        ]
    }

    fn request(key: &PKey<Private>, signer: &PKey<Private>) -> Result<Request> {
        let name = name(&[("CN", "gw-1"), ("O", "Example, Inc.")]).unwrap();
        let public = PublicKey::from_spki(key.public_key_to_der().unwrap());
        Request::make(name, &public, |message| {
            let mut signer = Signer::new(MessageDigest::sha256(), signer).unwrap();
            Ok(signer.sign_oneshot_to_vec(message).unwrap())
        })
    }

    #[test]
    fn openssl_accepts_the_request_and_reads_the_same_name() {
        for key in keys() {
            let pem = request(&key, &key).unwrap().pem().unwrap();
            let read = openssl::x509::X509Req::from_pem(pem.as_bytes()).unwrap();
            assert!(read.verify(&key).unwrap());
            let names: Vec<String> = read
                .subject_name()
                .entries()
                .map(|e| e.data().to_string().unwrap())
                .collect();
            assert_eq!(names, ["Example, Inc.", "gw-1"]);
        }
    }

    /// A certificate with this subject, and with alternative names, if there is one.
    fn certificate(subject: &[(&str, &str)], name_too: Option<&str>) -> Certificate {
        let [key, _] = keys();
        let mut builder = X509::builder().unwrap();
        let mut name = X509NameBuilder::new().unwrap();
        for (id, value) in subject {
            // Another kind of string than a request of our own has.
            let kind = Asn1Type::T61STRING;
            name.append_entry_by_text_with_type(id, value, kind)
                .unwrap();
        }
        let name = name.build();
        builder.set_version(2).unwrap();
        builder.set_subject_name(&name).unwrap();
        builder.set_issuer_name(&name).unwrap();
        builder.set_pubkey(&key).unwrap();
        let day = |n| Asn1Time::days_from_now(n).unwrap();
        builder.set_not_before(&day(0)).unwrap();
        builder.set_not_after(&day(9)).unwrap();
        if let Some(name) = name_too {
            let mut names = SubjectAlternativeName::new();
            let names = names.dns(name).uri("urn:gw-1");
            let names = names.build(&builder.x509v3_context(None, None));
            builder.append_extension(names.unwrap()).unwrap();
        }
        builder.sign(&key, MessageDigest::sha256()).unwrap();
        Certificate::parse(builder.build().to_der().unwrap()).unwrap()
    }

    #[test]
    fn a_renewal_has_the_names_of_the_old_certificate_to_the_last_byte() {
        let [key, _] = keys();
        let public = PublicKey::from_spki(key.public_key_to_der().unwrap());
        for names in [None, Some("gw-1.example")] {
            let old = certificate(&[("O", "x"), ("CN", "gw")], names);
            let made: Result<Request> = Request::renewing(&old, &public, |message| {
                let mut signer = Signer::new(MessageDigest::sha256(), &key).unwrap();
                Ok(signer.sign_oneshot_to_vec(message).unwrap())
            });
            let made = made.unwrap();
            let read = X509Req::from_pem(made.pem().unwrap().as_bytes()).unwrap();
            assert!(read.verify(&key).unwrap());
            assert_eq!(read.subject_name().to_der().unwrap(), old.subject_der());
            let asked = read.extensions().map(|all| all.len()).unwrap_or_default();
            assert_eq!(asked, usize::from(names.is_some()));
            let der = read.to_der().unwrap();
            if let Some(names) = old.extension(&SUBJECT_ALT_NAME) {
                assert!(der.windows(names.len()).any(|w| w == names));
            }
            assert_eq!(made.renews(&old), names.is_none());
            assert!(!request(&key, &key).unwrap().renews(&old));
        }
    }

    #[test]
    fn ecdsa_has_no_parameters_and_rsa_has_null() {
        let [ec, rsa] = keys();
        let parameters = |key| request(key, key).unwrap().request.algorithm.parameters;
        assert!(parameters(&ec).is_none());
        assert!(parameters(&rsa).is_some_and(|p| p.is_null()));
    }

    #[test]
    fn a_signature_by_another_key_is_noticed() {
        let [ec, _] = keys();
        let [other, _] = keys();
        assert!(request(&ec, &other).is_err());
    }

    #[test]
    fn a_request_is_read_back() {
        let [ec, _] = keys();
        let made = request(&ec, &ec).unwrap();
        let read = Request::parse(made.pem().unwrap().as_bytes()).unwrap();
        assert_eq!(read.subject(), made.subject());
        assert_eq!(
            read.public_key().unwrap().spki(),
            ec.public_key_to_der().unwrap()
        );
    }
}
