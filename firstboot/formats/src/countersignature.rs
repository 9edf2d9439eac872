//! The signature by which the key in service asks for a certificate for the next key: `countersignature` in the record
//! of a request.
//!
//! It shows that whoever can use the certificate in service wants that key certified, not where the key is.

use serde::{Deserialize, Serialize};

use crate::encoding::base64;
use crate::error::{Error, Result};
use crate::public_key::{PublicKey, Scheme};
use crate::x509::{Chain, Request};

/// The beginning of the signed bytes; the DER of the request follows. Neither a request (DER, 0x30) nor what a client
/// signs in TLS begins with it (1.3: 64 spaces, RFC 8446 §4.4.3; 1.2: the handshake's messages, of which the first is a
/// ClientHello, 0x01, RFC 5246 §7.4.8).
const SIGNED: &[u8] = b"firstboot countersignature v1\0";

/// A signature over a request by another key than the request's own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Countersignature {
    /// DER of the certificate in service, without its issuers; base64 in JSON.
    #[serde(with = "base64")]
    pub certificate: Vec<u8>,
    /// By the key of that certificate: ECDSA (DER) or RSASSA-PKCS1-v1_5, with SHA-256; base64 in JSON.
    #[serde(with = "base64")]
    pub signature: Vec<u8>,
}

impl Countersignature {
    /// Has `sign` sign a request with the key of the certificate in service, and verifies the signature in software.
    pub fn make<E: From<Error>>(
        request: &Request,
        in_service: &Chain,
        sign: impl FnOnce(&[u8]) -> std::result::Result<Vec<u8>, E>,
    ) -> std::result::Result<Self, E> {
        let signature = sign(&signed(request)?)?;
        let made = Self {
            certificate: in_service.objects().0.value,
            signature,
        };
        match made.is_by(&in_service.key(), request)? {
            true => Ok(made),
            false => Err(Error::other(
                "the TPM's signature does not verify with the key of the certificate in service",
            )
            .into()),
        }
    }

    /// Whether this key has signed this request.
    pub fn is_by(&self, key: &PublicKey, request: &Request) -> Result<bool> {
        Ok(key.verifies(Scheme::X509, &signed(request)?, &self.signature))
    }
}

/// What is signed.
fn signed(request: &Request) -> Result<Vec<u8>> {
    Ok([SIGNED, &request.der()?].concat())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use openssl::ec::{EcGroup, EcKey};
    use openssl::hash::MessageDigest;
    use openssl::nid::Nid;
    use openssl::pkey::{PKey, Private};
    use openssl::sign::Signer;
    use serde::Deserialize;

    use super::*;
    use crate::encoding::{from_base64, to_hex};

    /// Of docs/attestation.md, which another implementation made.
    const VECTORS: &str = include_str!("../vectors/countersignature-v1.json");

    #[derive(Deserialize)]
    struct Vectors {
        cases: Vec<Case>,
        refusals: Vec<Refusal>,
    }

    #[derive(Deserialize)]
    struct Case {
        title: String,
        csr: String,
        signed: String,
        countersignature: Countersignature,
    }

    /// A signature that is none over the first case's request by the key in service.
    #[derive(Deserialize)]
    struct Refusal {
        what: String,
        signature: String,
    }

    impl Case {
        fn request(&self) -> Request {
            Request::parse(self.csr.as_bytes()).unwrap()
        }

        fn in_service(&self) -> PublicKey {
            self.chain().key()
        }

        fn chain(&self) -> Chain {
            let pem = crate::pem::encode("CERTIFICATE", &self.countersignature.certificate);
            Chain::stored(pem.as_bytes()).unwrap()
        }
    }

    fn vectors() -> Vectors {
        serde_json::from_str(VECTORS).unwrap()
    }

    #[test]
    fn the_vectors_verify() {
        let cases = vectors().cases;
        assert_eq!(cases.len(), 3);
        for case in cases {
            let request = case.request();
            assert_eq!(
                to_hex(&signed(&request).unwrap()),
                case.signed,
                "{}",
                case.title
            );
            let is_by = |key: &PublicKey| case.countersignature.is_by(key, &request).unwrap();
            assert!(is_by(&case.in_service()), "{}", case.title);
            assert!(!is_by(&request.public_key().unwrap()), "{}", case.title);
        }
    }

    #[test]
    fn no_other_signature_of_the_vectors_does() {
        let Vectors { cases, refusals } = vectors();
        let (case, request) = (&cases[0], cases[0].request());
        assert_eq!(refusals.len(), 9);
        for refusal in refusals {
            let changed = Countersignature {
                signature: from_base64(&refusal.signature).unwrap(),
                ..case.countersignature.clone()
            };
            assert!(
                !changed.is_by(&case.in_service(), &request).unwrap(),
                "{}",
                refusal.what
            );
        }
    }

    #[test]
    fn what_another_key_has_signed_is_noticed_when_it_is_made() {
        let case = &vectors().cases[0];
        let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1).unwrap();
        let other = PKey::from_ec_key(EcKey::generate(&group).unwrap()).unwrap();
        let made = Countersignature::make::<Error>(&case.request(), &case.chain(), |message| {
            Ok(sign(&other, message))
        });
        assert!(made.is_err());
    }

    fn sign(key: &PKey<Private>, message: &[u8]) -> Vec<u8> {
        let mut signer = Signer::new(MessageDigest::sha256(), key).unwrap();
        signer.sign_oneshot_to_vec(message).unwrap()
    }
}
