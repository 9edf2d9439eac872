//! AWS's checks of a certificate signing request: its signature and its key.

use openssl::nid::Nid;
use openssl::pkey::{Id, PKey, Public};
use openssl::x509::X509Req;

/// The smallest RSA key that AWS IoT accepts, bits (developer guide, "X.509 client certificates").
const MIN_RSA_BITS: u32 = 2048;

/// The request and its key, or why it is refused.
pub fn check(pem: &str) -> Result<(X509Req, PKey<Public>), String> {
    let request = X509Req::from_pem(pem.as_bytes()).map_err(|e| format!("no PEM: {e}"))?;
    let key = request.public_key().map_err(|e| format!("no key: {e}"))?;
    match request.verify(&key) {
        Ok(true) => {}
        Ok(false) => return Err("its signature is wrong".into()),
        Err(e) => return Err(format!("its signature cannot be verified: {e}")),
    }
    match key.id() {
        Id::RSA if key.bits() >= MIN_RSA_BITS => {}
        Id::RSA => return Err(format!("an RSA key of {} bits", key.bits())),
        Id::EC => {
            let curve = key.ec_key().ok().and_then(|key| key.group().curve_name());
            let taken = [Nid::X9_62_PRIME256V1, Nid::SECP384R1, Nid::SECP521R1];
            if !curve.is_some_and(|curve| taken.contains(&curve)) {
                return Err(format!("an unsupported curve: {curve:?}"));
            }
        }
        other => return Err(format!("an unsupported type of key: {other:?}")),
    }
    Ok((request, key))
}
