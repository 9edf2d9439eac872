//! How requests and certificates name their signature.

use x509_cert::der::asn1::{Any, ObjectIdentifier};
use x509_cert::spki::AlgorithmIdentifierOwned;

use crate::public_key::KeyFamily;

/// ecdsa-with-SHA256; parameters absent (RFC 5758 §3.2).
const ECDSA_WITH_SHA256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.4.3.2");
/// sha256WithRSAEncryption; parameters NULL (RFC 4055 §5).
const SHA256_WITH_RSA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.11");

/// The algorithm of [`Scheme::X509`](crate::public_key::Scheme::X509), as X.509 encodes it.
pub fn signature_algorithm(family: KeyFamily) -> AlgorithmIdentifierOwned {
    match family {
        KeyFamily::Ecc => AlgorithmIdentifierOwned {
            oid: ECDSA_WITH_SHA256,
            parameters: None,
        },
        KeyFamily::Rsa => AlgorithmIdentifierOwned {
            oid: SHA256_WITH_RSA,
            parameters: Some(Any::null()),
        },
    }
}
