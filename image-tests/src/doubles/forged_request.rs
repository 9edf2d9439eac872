//! A request that no device made: key and endorsement key come from this process, the record looks as firstboot's. Any
//! part can be wrong. Nobody can open the replies.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;
use openssl::base64::encode_block;
use openssl::bn::{BigNum, BigNumContext, MsbOption};
use openssl::hash::MessageDigest;
use openssl::pkey::{Id, PKey, Private, Public};
use openssl::rsa::Rsa;
use openssl::sha::sha256;
use openssl::sign::Signer;
use openssl::x509::{X509, X509Req};
use serde_json::{Value, json};

use super::pki::{EkForm, Manufacturer, hex, named, p256};
use super::tpm_proxy::wire::tpm2b;

#[derive(Debug, Clone)]
pub struct ForgedRequest {
    pub thing: String,
    /// The key of the public area and of the CSR.
    pub key: PKey<Private>,
    /// Signs the CSR in place of the key.
    pub csr_signer: Option<PKey<Private>>,
    /// TPMA_OBJECT.
    pub attributes: u32,
    pub policy: Vec<u8>,
    pub ek_certificate: Option<Vec<u8>>,
    /// What the names of its files have after the thing's: ".next" if it is for the next key, ".eap" for that of the
    /// networks.
    pub suffix: &'static str,
    /// The certificate in service (PEM), and the key that signs the CSR, too.
    pub countersigner: Option<(String, PKey<Private>)>,
}

impl ForgedRequest {
    /// A plausible one: P-256 keys, and an EK certificate of this manufacturer.
    pub fn new(thing: &str, manufacturer: &Manufacturer) -> Result<Self> {
        Self::with(thing, manufacturer, p256()?, EkForm::default())
    }

    /// The same with a given endorsement key and form of its certificate.
    pub fn with(
        thing: &str,
        manufacturer: &Manufacturer,
        ek: PKey<Private>,
        form: EkForm,
    ) -> Result<Self> {
        Ok(Self {
            thing: thing.to_owned(),
            key: p256()?,
            csr_signer: None,
            attributes: 0x60072,
            policy: Vec::new(),
            ek_certificate: Some(manufacturer.certify(&*public(&ek)?, form)?),
            suffix: "",
            countersigner: None,
        })
    }

    /// A request for the same thing's next key, from the same TPM.
    pub fn next(&self) -> Result<Self> {
        Ok(Self {
            key: p256()?,
            suffix: ".next",
            ..self.clone()
        })
    }

    /// A request for the key of the same thing's networks, from the same TPM.
    pub fn for_networks(&self) -> Result<Self> {
        Ok(Self {
            suffix: ".eap",
            ..self.next()?
        })
    }

    /// The same, countersigned by this one's key, which has this certificate (PEM).
    pub fn next_countersigned(&self, certificate: &str) -> Result<Self> {
        Ok(Self {
            countersigner: Some((certificate.to_owned(), self.key.clone())),
            ..self.next()?
        })
    }

    /// Writes record and CSR. Returns the record's path.
    pub fn write(&self, directory: &Path) -> Result<PathBuf> {
        self.write_changed(directory, |_| {})
    }

    /// The same after a last change to the record.
    pub fn write_changed(
        &self,
        directory: &Path,
        change: impl FnOnce(&mut Value),
    ) -> Result<PathBuf> {
        let csr = self.csr()?;
        let area = self.public_area()?;
        let mut record = json!({
            "thing_name": self.thing,
            "serial": "10000000a1b2c3d4",
            "tpm": "Infineon SLB 9670, firmware 7.85",
            "key": if self.key.id() == Id::RSA { "rsa-2048" } else { "ecc-p256" },
            "key_sha256": hex(&sha256(&self.key.public_key_to_der()?)),
            "csr_sha256": hex(&sha256(&csr)),
            "key_public": encode_block(&area),
        });
        match &self.ek_certificate {
            Some(certificate) => record["ek_certificate"] = json!(encode_block(certificate)),
            None => record["unattested"] = json!("the TPM has no EK certificate"),
        }
        if let Some((certificate, key)) = &self.countersigner {
            let certificate = X509::from_pem(certificate.as_bytes())?;
            record["countersignature"] = json!({
                "certificate": encode_block(&certificate.to_der()?),
                "signature": encode_block(&countersign(key, &csr)?),
            });
        }
        change(&mut record);
        fs::create_dir_all(directory)?;
        let name = self.thing.replace(':', "_") + self.suffix;
        fs::write(directory.join(format!("{name}.csr.pem")), csr)?;
        let path = directory.join(format!("{name}.json"));
        fs::write(&path, record.to_string())?;
        Ok(path)
    }

    fn csr(&self) -> Result<Vec<u8>> {
        let mut builder = X509Req::builder()?;
        builder.set_subject_name(&*named(&self.thing)?)?;
        builder.set_pubkey(&self.key)?;
        let signer = self.csr_signer.as_ref().unwrap_or(&self.key);
        builder.sign(signer, MessageDigest::sha256())?;
        Ok(builder.build().to_pem()?)
    }

    /// TPMT_PUBLIC (TPM 2.0 Library, Part 2 §12.2.4), as tpm2-pkcs11 creates keys: no symmetric algorithm, no
    /// scheme, SHA-256 for the Name.
    fn public_area(&self) -> Result<Vec<u8>> {
        let is_rsa = self.key.id() == Id::RSA;
        let mut area = vec![0, if is_rsa { 0x01 } else { 0x23 }, 0, 0x0B];
        area.extend(self.attributes.to_be_bytes());
        area.extend(tpm2b(&self.policy));
        area.extend([0, 0x10, 0, 0x10]);
        if is_rsa {
            area.extend([8, 0, 0, 0, 0, 0]);
            area.extend(tpm2b(&self.key.rsa()?.n().to_vec()));
            return Ok(area);
        }
        area.extend([0, 3, 0, 0x10]);
        let key = self.key.ec_key()?;
        let (mut x, mut y) = (BigNum::new()?, BigNum::new()?);
        let context = &mut *BigNumContext::new()?;
        key.public_key()
            .affine_coordinates(key.group(), &mut x, &mut y, context)?;
        for coordinate in [x, y] {
            area.extend(tpm2b(&coordinate.to_vec_padded(32)?));
        }
        Ok(area)
    }
}

/// As docs/attestation.md has it.
fn countersign(key: &PKey<Private>, csr: &[u8]) -> Result<Vec<u8>> {
    let csr = X509Req::from_pem(csr)?.to_der()?;
    let signed = [b"firstboot countersignature v1\0", &csr[..]].concat();
    let mut signer = Signer::new(MessageDigest::sha256(), key)?;
    Ok(signer.sign_oneshot_to_vec(&signed)?)
}

/// An RSA-2048 key as Infineon firmware before 7.62 makes them (ROCA, CVE-2017-15361): each prime is a multiple of the
/// product of the first 126 primes, and a power of 65537 modulo that product.
pub fn roca() -> Result<PKey<Private>> {
    let context = &mut *BigNumContext::new()?;
    let one = BigNum::from_u32(1)?;
    let exponent = BigNum::from_u32(65537)?;
    let (p, q) = (roca_prime()?, roca_prime()?);
    let number = BigNum::new;
    let (mut n, mut phi, mut d) = (number()?, number()?, number()?);
    let (mut p1, mut q1) = (number()?, number()?);
    n.checked_mul(&p, &q, context)?;
    p1.checked_sub(&p, &one)?;
    q1.checked_sub(&q, &one)?;
    phi.checked_mul(&p1, &q1, context)?;
    d.mod_inverse(&exponent, &phi, context)?;
    let (mut dp, mut dq, mut inverse) = (number()?, number()?, number()?);
    dp.nnmod(&d, &p1, context)?;
    dq.nnmod(&d, &q1, context)?;
    inverse.mod_inverse(&q, &p, context)?;
    let key = Rsa::from_private_components(n, exponent, d, p, q, dp, dq, inverse)?;
    Ok(PKey::from_rsa(key)?)
}

fn roca_prime() -> Result<BigNum> {
    let context = &mut *BigNumContext::new()?;
    let mut product = BigNum::from_u32(1)?;
    let is_prime = |n: &u32| (2..*n).all(|d| !n.is_multiple_of(d));
    for prime in (2..).filter(is_prime).take(126) {
        product.mul_word(prime)?;
    }
    let generator = BigNum::from_u32(65537)?;
    loop {
        let (mut exponent, mut multiple) = (BigNum::new()?, BigNum::new()?);
        exponent.rand(254, MsbOption::MAYBE_ZERO, false)?;
        multiple.rand(1024 - product.num_bits(), MsbOption::TWO_ONES, false)?;
        let (mut power, mut prime) = (BigNum::new()?, BigNum::new()?);
        power.mod_exp(&generator, &exponent, &product, context)?;
        prime.checked_mul(&multiple, &product, context)?;
        let mut candidate = BigNum::new()?;
        candidate.checked_add(&prime, &power)?;
        if candidate.is_prime(20, context)? {
            return Ok(candidate);
        }
    }
}

pub fn public(key: &PKey<Private>) -> Result<PKey<Public>> {
    Ok(PKey::public_key_from_der(&key.public_key_to_der()?)?)
}
