//! The objects in the token: one key pair, its certificate, and the certificate's issuers.

use cryptoki::mechanism::rsa::{PkcsMgfType, PkcsPssParams};
use cryptoki::mechanism::{Mechanism, MechanismType};
use cryptoki::object::{
    Attribute, AttributeType, CertificateType, KeyType as CkKeyType, ObjectClass, ObjectHandle,
};
use firstboot_formats::digest::sha256;
use firstboot_formats::public_key::{KeyType, PublicKey, Scheme, ecdsa_der};
use firstboot_formats::x509::CertificateDer;

use super::{ISSUER_LABEL, Login, OBJECT_LABEL, Pkcs11Context};
use crate::error::{Error, ErrorKind, Result, ResultExt};

/// OID prime256v1 in DER (SEC 2 §2.4.2, RFC 5480 §2.1.1.1): CKA_EC_PARAMS.
const PRIME256V1: [u8; 10] = [0x06, 0x08, 0x2A, 0x86, 0x48, 0xCE, 0x3D, 0x03, 0x01, 0x07];
/// DER tag of an OCTET STRING, which CKA_EC_POINT wraps around the point (PKCS#11 3.1 §6.3.3).
const OCTET_STRING: u8 = 0x04;
/// Length of an uncompressed point on P-256 (SEC 1 §2.3.3).
const P256_POINT: usize = 65;
/// CKA_TPM2_PUB_BLOB, an attribute of tpm2-pkcs11's own (its src/lib/attrs.h): TPM2B_PUBLIC.
const TPM2_PUB_BLOB: u64 = 0x8F00_0002;
/// The usual public exponent, 65537, which is also the only one that the SLB 9670 makes.
const RSA_EXPONENT: [u8; 3] = [1, 0, 1];

impl Login {
    /// Has the TPM generate the key pair, with `id` as CKA_ID, which links it to its certificate.
    pub fn make_key(&self, kind: KeyType, id: &[u8]) -> Result<PublicKey> {
        let common = [
            Attribute::Token(true),
            Attribute::Label(OBJECT_LABEL.into()),
            Attribute::Id(id.to_vec()),
        ];
        let mut public = common.to_vec();
        public.extend([Attribute::Private(false), Attribute::Verify(true)]);
        let mut private = common.to_vec();
        private.extend([
            Attribute::Private(true),
            Attribute::Sensitive(true),
            Attribute::Sign(true),
        ]);
        let mechanism = match kind {
            KeyType::EccP256 => {
                public.push(Attribute::EcParams(PRIME256V1.into()));
                Mechanism::EccKeyPairGen
            }
            KeyType::Rsa2048 => {
                public.extend([
                    Attribute::ModulusBits(2048.into()),
                    Attribute::PublicExponent(RSA_EXPONENT.into()),
                    Attribute::Encrypt(true),
                ]);
                // Greengrass's secret manager decrypts with it.
                private.push(Attribute::Decrypt(true));
                Mechanism::RsaPkcsKeyPairGen
            }
        };
        let (public, _private) = self
            .session
            .generate_key_pair(&mechanism, &public, &private)
            .pkcs11_context(|| format!("cannot generate the {kind} key pair"))?;
        self.read_public_key(public)
    }

    /// The public half of our key pair.
    pub fn public_key(&self) -> Result<PublicKey> {
        self.read_public_key(self.find_one(ObjectClass::PUBLIC_KEY)?)
    }

    /// TPMT_PUBLIC of our key (TPM 2.0 Library, Part 2 §12.2.4), as tpm2-pkcs11 returns it.
    pub fn tpm_public(&self) -> Result<Vec<u8>> {
        let key = self.find_one(ObjectClass::PRIVATE_KEY)?;
        let blob = self.bytes(key, AttributeType::VendorDefined(TPM2_PUB_BLOB))?;
        // TPM2B_PUBLIC: the size in two bytes, then the public area.
        match blob.as_slice() {
            [high, low, area @ ..]
                if area.len() == usize::from(u16::from_be_bytes([*high, *low])) =>
            {
                Ok(area.to_vec())
            }
            _ => Err(Error::other(
                "the PKCS#11 library does not return the key's TPM2B_PUBLIC: is it tpm2-pkcs11?",
            )),
        }
    }

    /// Has the TPM sign `message` with our private key.
    pub fn sign(&self, scheme: Scheme, message: &[u8]) -> Result<Vec<u8>> {
        let key = self.find_one(ObjectClass::PRIVATE_KEY)?;
        let signing = || "cannot sign with the TPM's key".to_owned();
        if self.is_rsa(key)? {
            let mechanism = match scheme {
                Scheme::X509 => Mechanism::Sha256RsaPkcs,
                Scheme::Pss => Mechanism::Sha256RsaPkcsPss(PkcsPssParams {
                    hash_alg: MechanismType::SHA256,
                    mgf: PkcsMgfType::MGF1_SHA256,
                    s_len: 32.into(),
                }),
            };
            return self
                .session
                .sign(&mechanism, key, message)
                .pkcs11_context(signing);
        }
        let signature = self
            .session
            .sign(&Mechanism::Ecdsa, key, &sha256(message))
            .pkcs11_context(signing)?;
        // PKCS#11 3.1 §6.3.1
        let (r, s) = signature.split_at(signature.len() / 2);
        ecdsa_der(r, s).context(ErrorKind::Other, signing)
    }

    /// Makes the token hold exactly these certificates: `leaf` under the key's label and ID, its issuers under a label
    /// of their own. Those that are there already stay untouched. The new one is added before the old one is removed,
    /// and only after both are known: whatever a power cut leaves, the next call repairs.
    pub fn set_certificates(
        &self,
        leaf: &CertificateDer,
        issuers: &[CertificateDer],
    ) -> Result<()> {
        let key = self.find_one(ObjectClass::PRIVATE_KEY)?;
        let id = self.bytes(key, AttributeType::Id)?;
        self.replace(OBJECT_LABEL, std::slice::from_ref(leaf), |_| id.clone())?;
        // SunPKCS11 reads the CKA_ID of every certificate; it must not be the key's.
        self.replace(ISSUER_LABEL, issuers, |c| sha256(&c.value)[..16].to_vec())
    }

    fn replace(
        &self,
        label: &str,
        wanted: &[CertificateDer],
        id: impl Fn(&CertificateDer) -> Vec<u8>,
    ) -> Result<()> {
        let mut missing: Vec<&CertificateDer> = wanted.iter().collect();
        let mut superfluous = Vec::new();
        for object in self.find(ObjectClass::CERTIFICATE, label)? {
            let value = self.bytes(object, AttributeType::Value)?;
            let there = self.bytes(object, AttributeType::Id)?;
            let found = missing
                .iter()
                .position(|c| c.value == value && id(c) == there);
            match found {
                Some(found) => {
                    missing.swap_remove(found);
                }
                None => superfluous.push(object),
            }
        }
        for certificate in missing {
            self.add(label, certificate, id(certificate))?;
        }
        for object in superfluous {
            self.session.destroy_object(object).pkcs11_context(|| {
                format!("cannot remove an old certificate ({label}) from the token")
            })?;
        }
        Ok(())
    }

    fn add(&self, label: &str, certificate: &CertificateDer, id: Vec<u8>) -> Result<()> {
        let template = [
            Attribute::Class(ObjectClass::CERTIFICATE),
            Attribute::CertificateType(CertificateType::X_509),
            Attribute::Token(true),
            Attribute::Private(false),
            Attribute::Label(label.into()),
            Attribute::Subject(certificate.subject.clone()),
            Attribute::Issuer(certificate.issuer.clone()),
            Attribute::SerialNumber(certificate.serial_number.clone()),
            Attribute::Value(certificate.value.clone()),
            Attribute::Id(id),
        ];
        self.session
            .create_object(&template)
            .pkcs11_context(|| format!("cannot store a certificate ({label}) in the token"))?;
        Ok(())
    }

    fn read_public_key(&self, key: ObjectHandle) -> Result<PublicKey> {
        let reading = || "cannot read the token's public key".to_owned();
        if self.is_rsa(key)? {
            let modulus = self.bytes(key, AttributeType::Modulus)?;
            let exponent = self.bytes(key, AttributeType::PublicExponent)?;
            return PublicKey::from_rsa(&modulus, &exponent).context(ErrorKind::Other, reading);
        }
        let point = self.bytes(key, AttributeType::EcPoint)?;
        match point.as_slice() {
            [OCTET_STRING, length, point @ ..]
                if usize::from(*length) == point.len() && point.len() == P256_POINT =>
            {
                PublicKey::from_p256_point(point).context(ErrorKind::Other, reading)
            }
            _ => Err(Error::other(format!(
                "{}: CKA_EC_POINT is not a point on P-256",
                reading()
            ))),
        }
    }

    fn is_rsa(&self, key: ObjectHandle) -> Result<bool> {
        let attributes = self
            .session
            .get_attributes(key, &[AttributeType::KeyType])
            .pkcs11_context(|| "cannot read the key's type".into())?;
        Ok(attributes.contains(&Attribute::KeyType(CkKeyType::RSA)))
    }

    /// The one object of this class under our label.
    fn find_one(&self, class: ObjectClass) -> Result<ObjectHandle> {
        match self.find(class, OBJECT_LABEL)?.as_slice() {
            [one] => Ok(*one),
            found => Err(Error::other(format!(
                "the token has {} objects of class {class} labelled {OBJECT_LABEL} instead of one: somebody has \
                 changed it. Start over with `firstboot reset`",
                found.len()
            ))),
        }
    }

    fn find(&self, class: ObjectClass, label: &str) -> Result<Vec<ObjectHandle>> {
        self.session
            .find_objects(&[Attribute::Class(class), Attribute::Label(label.into())])
            .pkcs11_context(|| "cannot list the token's objects".into())
    }

    /// The attribute's bytes; empty if the object does not have it.
    fn bytes(&self, object: ObjectHandle, wanted: AttributeType) -> Result<Vec<u8>> {
        let attributes = self
            .session
            .get_attributes(object, &[wanted])
            .pkcs11_context(|| format!("cannot read the token's objects ({wanted})"))?;
        Ok(attributes
            .into_iter()
            .find_map(|attribute| match attribute {
                Attribute::Id(bytes)
                | Attribute::Value(bytes)
                | Attribute::Modulus(bytes)
                | Attribute::PublicExponent(bytes)
                | Attribute::EcPoint(bytes)
                | Attribute::VendorDefined((_, bytes)) => Some(bytes),
                _ => None,
            })
            .unwrap_or_default())
    }
}
