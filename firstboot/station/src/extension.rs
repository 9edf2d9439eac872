//! Extensions of certificates, as the types that x509-cert has for them.

use firstboot_formats::x509::Certificate;
use x509_cert::der::oid::AssociatedOid;
use x509_cert::der::{Decode, Error};

/// The extension of this type, if the certificate has it.
pub(crate) fn extension<'a, T>(certificate: &'a Certificate) -> Result<Option<T>, Error>
where
    T: AssociatedOid + Decode<'a, Error = Error>,
{
    let value = certificate.extension(T::OID.as_bytes());
    value.map(T::from_der).transpose()
}
