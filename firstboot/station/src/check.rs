//! Whether a request comes from a TPM: every check, each with its reason.
//!
//! What passes is not yet proved. The EK certificate is real, and the public area says that a TPM made the key; that
//! both are in the same TPM, and that this TPM exists, is proved when the reply is opened.

use firstboot_formats::attestation::{EkPublic, KEY_ATTRIBUTES, NAME_SIZE, PublicArea};
use firstboot_formats::digest::{Fingerprint, sha256};
use firstboot_formats::encoding::to_hex;
use firstboot_formats::public_key::PublicKey;
use openssl::nid::Nid;
use openssl::x509::X509Req;

use crate::allow_list::AllowList;
use crate::ek_certificate::EkCertificate;
use crate::manufacturers::Manufacturers;
use crate::request::Request;
use crate::roca;

/// Whose TPMs are taken.
pub(crate) struct Policy {
    /// Their manufacturers.
    pub(crate) manufacturers: Manufacturers,
    /// The TPMs that were bought, if only those are taken.
    pub(crate) allow_list: Option<AllowList>,
}

/// A request that has passed.
pub(crate) struct Attested {
    /// The device's key.
    pub(crate) key: PublicKey,
    /// The TPM's Name of it.
    pub(crate) key_name: [u8; NAME_SIZE],
    /// The EK of the TPM that it is to be in.
    pub(crate) ek: EkPublic,
    /// SHA-256 of the EK's certificate.
    pub(crate) ek_sha256: Fingerprint,
    /// The TPM, in its manufacturer's words.
    pub(crate) ek_tpm: String,
}

impl Policy {
    /// Checks everything. The error says what is wrong.
    pub(crate) fn check(&self, request: &Request) -> Result<Attested, String> {
        let area = key(request)?;
        let der = match (
            &request.evidence.ek_certificate,
            &request.evidence.unattested,
        ) {
            (Some(der), None) => der,
            (None, Some(reason)) => return Err(format!("it is unattested: {reason}")),
            _ => {
                return Err(
                    "its record must have either ek_certificate or unattested, and not both".into(),
                );
            }
        };
        let certificate = EkCertificate::parse(der)?;
        self.manufacturers.check(&certificate.openssl)?;
        certificate.check_purpose()?;
        refuse_roca(&certificate.key.key().rsa().ok(), "endorsement key")?;
        let ek_sha256 = sha256(der);
        if let Some(list) = &self.allow_list {
            list.check(&ek_sha256, &request.record.thing_name)?;
        }
        Ok(Attested {
            key: area.public_key().clone(),
            key_name: area.name(),
            ek_tpm: certificate.tpm(),
            ek: certificate.key,
            ek_sha256,
        })
    }
}

/// The device's key: made by a TPM that does not let it go, if that TPM vouches for it, and the CSR's.
pub(crate) fn key(request: &Request) -> Result<PublicArea, String> {
    let area = PublicArea::parse(&request.evidence.key_public)
        .map_err(|e| format!("its key's public area is refused: {e}"))?;
    if area.attributes() != KEY_ATTRIBUTES {
        return Err(format!(
            "its key's attributes are {:#x}, not {KEY_ATTRIBUTES:#x}: it may have been made outside a TPM, or may \
             leave it",
            area.attributes()
        ));
    }
    if !area.auth_policy().is_empty() {
        return Err("its key has a policy".into());
    }
    let record = &request.record;
    if record.key_sha256 != area.public_key().fingerprint() {
        return Err("its key_sha256 is not that of its key_public".into());
    }
    if record.csr_sha256 != to_hex(&sha256(&request.csr)) {
        return Err("the CSR beside it is not the record's (csr_sha256)".into());
    }
    let csr = X509Req::from_pem(&request.csr).map_err(|_| "its CSR is damaged")?;
    let csr_key = csr.public_key().map_err(|_| "its CSR has no key")?;
    let spki = csr_key.public_key_to_der().map_err(|e| e.to_string())?;
    if spki != area.public_key().spki() {
        return Err("its CSR is for another key than the TPM's".into());
    }
    if !csr.verify(&csr_key).unwrap_or(false) {
        return Err("its CSR's signature is wrong".into());
    }
    check_name(&csr, &record.thing_name)?;
    refuse_roca(&csr_key.rsa().ok(), "key")?;
    Ok(area)
}

/// The name that the key has signed for is the record's: whoever had the card can change that one alone.
fn check_name(csr: &X509Req, thing_name: &str) -> Result<(), String> {
    let mut names = csr.subject_name().entries_by_nid(Nid::COMMONNAME);
    match (names.next(), names.next()) {
        (Some(name), None) if name.data().as_slice() == thing_name.as_bytes() => Ok(()),
        (Some(name), None) => Err(format!(
            "its CSR is for \"{}\", its record for \"{thing_name}\": one of them was changed",
            String::from_utf8_lossy(name.data().as_slice())
        )),
        _ => Err("its CSR's subject does not have exactly one common name".into()),
    }
}

fn refuse_roca(
    key: &Option<openssl::rsa::Rsa<openssl::pkey::Public>>,
    whose: &str,
) -> Result<(), String> {
    let Some(key) = key else { return Ok(()) };
    match roca::has_fingerprint(key.n()) {
        Ok(false) => Ok(()),
        Ok(true) => Err(format!(
            "its {whose} is a weak RSA key that can be factored (ROCA, CVE-2017-15361): it was made by Infineon \
             firmware before 7.62"
        )),
        Err(e) => Err(e.to_string()),
    }
}
