//! A device's certificate for TLS clients (RFC 5280; AWS IoT Core developer guide, "X.509 client certificates").
//!
//! OpenSSL's builder signs with keys that OpenSSL holds, but a CA's may be in a token; x509-cert's builder would bring
//! nine crates of signature traits and SHA-1. So the two outer structures are declared here, and their fields are
//! x509-cert's.

use std::time::Duration;

use der::asn1::{BitString, OctetString};
use der::oid::db::rfc5280::ID_KP_CLIENT_AUTH;
use der::{DateTime, Decode, Encode, Sequence};
use firstboot_formats::public_key::PublicKey;
use firstboot_formats::x509;
use openssl::sha::sha1;
use x509_cert::Version;
use x509_cert::ext::pkix::{
    AuthorityKeyIdentifier, BasicConstraints, ExtendedKeyUsage, KeyUsage, KeyUsages,
    SubjectKeyIdentifier,
};
use x509_cert::ext::{Extensions, ToExtension};
use x509_cert::name::Name;
use x509_cert::serial_number::SerialNumber;
use x509_cert::spki::{AlgorithmIdentifierOwned, SubjectPublicKeyInfoOwned};
use x509_cert::time::Validity;

use crate::extension::extension;

/// Certificate (RFC 5280 §4.1).
#[derive(Sequence)]
struct Certificate {
    to_be_signed: ToBeSigned,
    algorithm: AlgorithmIdentifierOwned,
    signature: BitString,
}

/// TBSCertificate (RFC 5280 §4.1), without the unique identifiers, which nobody uses.
#[derive(Sequence)]
pub(crate) struct ToBeSigned {
    #[asn1(context_specific = "0", tag_mode = "EXPLICIT")]
    version: Version,
    serial_number: SerialNumber,
    algorithm: AlgorithmIdentifierOwned,
    issuer: Name,
    validity: Validity,
    subject: Name,
    key: SubjectPublicKeyInfoOwned,
    #[asn1(context_specific = "3", tag_mode = "EXPLICIT")]
    extensions: Extensions,
}

/// What the CA chooses.
pub(crate) struct Terms {
    /// The octets of the serial number: a positive number of at most 20 octets (RFC 5280 §4.1.2.2).
    pub(crate) serial_number: Vec<u8>,
    /// The algorithm of the CA's signature.
    pub(crate) algorithm: AlgorithmIdentifierOwned,
    /// The device's name.
    pub(crate) subject: Name,
    /// Since the epoch.
    pub(crate) not_before: Duration,
    /// Since the epoch.
    pub(crate) not_after: Duration,
}

impl ToBeSigned {
    /// A certificate for this key, issued by the CA with this certificate.
    pub(crate) fn new(
        terms: Terms,
        key: &PublicKey,
        authority: &x509::Certificate,
    ) -> der::Result<Self> {
        let key = SubjectPublicKeyInfoOwned::from_der(key.spki())?;
        let time = |moment| Ok::<_, der::Error>(DateTime::from_unix_duration(moment)?.into());
        Ok(Self {
            version: Version::V3,
            serial_number: SerialNumber::new(&terms.serial_number)?,
            algorithm: terms.algorithm,
            issuer: Name::from_der(authority.subject_der())?,
            validity: Validity::new(time(terms.not_before)?, time(terms.not_after)?),
            extensions: extensions(&terms.subject, &key, authority)?,
            subject: terms.subject,
            key,
        })
    }

    /// The octets of the serial number.
    pub(crate) fn serial_number(&self) -> &[u8] {
        self.serial_number.as_bytes()
    }

    /// The certificate's DER, with the CA's signature over [`Encode::to_der`] of this.
    pub(crate) fn signed(self, signature: &[u8]) -> der::Result<Vec<u8>> {
        let certificate = Certificate {
            algorithm: self.algorithm.clone(),
            signature: BitString::from_bytes(signature)?,
            to_be_signed: self,
        };
        certificate.to_der()
    }
}

fn extensions(
    subject: &Name,
    key: &SubjectPublicKeyInfoOwned,
    authority: &x509::Certificate,
) -> der::Result<Extensions> {
    let constraints = BasicConstraints {
        ca: false,
        path_len_constraint: None,
    };
    // SHA-1 of the key's bits (RFC 5280 §4.2.1.2), as is usual: nothing depends on its strength.
    let identifier =
        SubjectKeyIdentifier(OctetString::new(sha1(key.subject_public_key.raw_bytes()))?);
    let usage = KeyUsage(KeyUsages::DigitalSignature.into());
    let purpose = ExtendedKeyUsage(vec![ID_KP_CLIENT_AUTH]);
    let mut extensions = vec![
        (true, &constraints).to_extension(subject, &[])?,
        usage.to_extension(subject, &[])?,
        purpose.to_extension(subject, &[])?,
        identifier.to_extension(subject, &[])?,
    ];
    // Only if the CA's certificate has a key identifier (RFC 5280 §4.2.1.1).
    if let Some(own) = extension::<SubjectKeyIdentifier>(authority)? {
        let issuer = AuthorityKeyIdentifier {
            key_identifier: Some(own.0),
            authority_cert_issuer: None,
            authority_cert_serial_number: None,
        };
        extensions.push(issuer.to_extension(subject, &[])?);
    }
    Ok(extensions)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use firstboot_formats::public_key::KeyFamily;
    use openssl::asn1::Asn1Time;
    use openssl::bn::BigNum;
    use openssl::ec::{EcGroup, EcKey};
    use openssl::hash::MessageDigest;
    use openssl::nid::Nid;
    use openssl::pkey::{PKey, Private};
    use openssl::rsa::Rsa;
    use openssl::sign::Signer;
    use openssl::x509::extension as openssl_extension;
    use openssl::x509::{X509, X509Builder, X509Name};

    use super::*;

    const START: i64 = 1_700_000_000;
    /// After 2049, when times have another form.
    const END: i64 = 2_600_000_000;

    fn keys() -> [(KeyFamily, PKey<Private>); 2] {
        let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1).unwrap();
        let ecc = PKey::from_ec_key(EcKey::generate(&group).unwrap()).unwrap();
        let rsa = PKey::from_rsa(Rsa::generate(2048).unwrap()).unwrap();
        [(KeyFamily::Ecc, ecc), (KeyFamily::Rsa, rsa)]
    }

    fn builder(name: &str, serial: &[u8], key: &PKey<Private>) -> X509Builder {
        let mut subject = X509Name::builder().unwrap();
        subject.append_entry_by_nid(Nid::COMMONNAME, name).unwrap();
        let serial = BigNum::from_slice(serial).unwrap();
        let mut builder = X509::builder().unwrap();
        builder.set_version(2).unwrap();
        builder
            .set_serial_number(&serial.to_asn1_integer().unwrap())
            .unwrap();
        builder.set_subject_name(&subject.build()).unwrap();
        builder.set_pubkey(key).unwrap();
        builder
            .set_not_before(&Asn1Time::from_unix(START).unwrap())
            .unwrap();
        builder
            .set_not_after(&Asn1Time::from_unix(END).unwrap())
            .unwrap();
        builder
    }

    /// A CA's certificate, with a key identifier or without.
    fn authority(key: &PKey<Private>, with_identifier: bool) -> X509 {
        let mut builder = builder("Operator's CA", &[1], key);
        let mut name = X509Name::builder().unwrap();
        name.append_entry_by_nid(Nid::COMMONNAME, "Operator's CA")
            .unwrap();
        builder.set_issuer_name(&name.build()).unwrap();
        if with_identifier {
            let context = builder.x509v3_context(None, None);
            let identifier = openssl_extension::SubjectKeyIdentifier::new();
            let identifier = identifier.build(&context).unwrap();
            builder.append_extension(identifier).unwrap();
        }
        builder.sign(key, MessageDigest::sha256()).unwrap();
        builder.build()
    }

    /// The certificate as OpenSSL's builder makes it.
    fn reference(serial: &[u8], key: &PKey<Private>, ca: &X509, ca_key: &PKey<Private>) -> X509 {
        use openssl_extension::{
            AuthorityKeyIdentifier, BasicConstraints, ExtendedKeyUsage, KeyUsage,
            SubjectKeyIdentifier,
        };
        let mut builder = builder("gateway-1", serial, key);
        builder.set_issuer_name(ca.subject_name()).unwrap();
        let context = builder.x509v3_context(Some(ca), None);
        let identifier = SubjectKeyIdentifier::new().build(&context).unwrap();
        let issuer = ca.subject_key_id().map(|_| {
            let mut issuer = AuthorityKeyIdentifier::new();
            issuer.keyid(true).build(&context).unwrap()
        });
        let extensions = [
            BasicConstraints::new().critical().build().unwrap(),
            KeyUsage::new()
                .critical()
                .digital_signature()
                .build()
                .unwrap(),
            ExtendedKeyUsage::new().client_auth().build().unwrap(),
            identifier,
        ];
        for extension in extensions.into_iter().chain(issuer) {
            builder.append_extension(extension).unwrap();
        }
        builder.sign(ca_key, MessageDigest::sha256()).unwrap();
        builder.build()
    }

    #[test]
    fn a_certificate_is_what_openssl_makes_of_the_same_terms() {
        let [(_, device), _] = keys();
        let spki = PublicKey::from_spki(device.public_key_to_der().unwrap());
        let serials = [&[0x7F; 16][..], &[0, 0x80, 1], &[0x11]];
        for (family, ca_key) in keys() {
            for (serial, with_identifier) in serials.into_iter().zip([true, false, true]) {
                let ca = authority(&ca_key, with_identifier);
                let der = ca.to_der().unwrap();
                let terms = Terms {
                    serial_number: serial.to_vec(),
                    algorithm: x509::signature_algorithm(family),
                    subject: x509::name(&[("CN", "gateway-1")]).unwrap(),
                    not_before: Duration::from_secs(START as u64),
                    not_after: Duration::from_secs(END as u64),
                };
                let issuer = x509::Certificate::parse(der).unwrap();
                let made = ToBeSigned::new(terms, &spki, &issuer).unwrap();
                let message = made.to_der().unwrap();
                let mut signer = Signer::new(MessageDigest::sha256(), &ca_key).unwrap();
                let signature = signer.sign_oneshot_to_vec(&message).unwrap();
                let made = X509::from_der(&made.signed(&signature).unwrap()).unwrap();
                assert!(made.verify(&ca_key).unwrap());
                let wanted = reference(serial, &device, &ca, &ca_key).to_der().unwrap();
                let wanted = x509_cert::Certificate::from_der(&wanted).unwrap();
                assert_eq!(message, wanted.tbs_certificate().to_der().unwrap());
            }
        }
    }
}
