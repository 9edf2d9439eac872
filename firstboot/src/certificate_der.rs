//! A certificate in the parts that PKCS#11 stores: what `x509` hands to `token`.

/// The DER of a certificate and of the fields that a PKCS#11 certificate object repeats
/// (PKCS#11 3.1 §4.6.3).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateDer {
    /// The certificate: CKA_VALUE.
    pub value: Vec<u8>,
    /// Its subject name: CKA_SUBJECT.
    pub subject: Vec<u8>,
    /// Its issuer name: CKA_ISSUER.
    pub issuer: Vec<u8>,
    /// Its serial number, an INTEGER: CKA_SERIAL_NUMBER.
    pub serial_number: Vec<u8>,
}
