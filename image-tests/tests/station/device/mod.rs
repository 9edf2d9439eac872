//! The device's side of wrapped replies: what its request says about its TPM, and which replies it accepts. Replies are
//! made in this process, so that each can be wrong in one way.

mod channel;
mod evidence;
mod opening;
mod refusals;

use std::fs;

use anyhow::{Context, Result};
use firstboot_formats::attestation::{Contents, EkPublic, Evidence, PublicArea, Reply};
use image_tests::clients::KeyType;
use image_tests::device::{Device, STORE, offline_settings};
use image_tests::doubles::pki::Authority;
use image_tests::doubles::pki::Manufacturer;
use image_tests::doubles::software_tpm::Ek;
use openssl::hash::MessageDigest;
use openssl::pkey::{PKey, Public};
use openssl::sign::Signer;
use openssl::x509::X509;
use serde_json::{Value, json};

/// An operator, and the manufacturer of the TPMs that it issues certificates for.
pub struct Desk {
    pub manufacturer: Manufacturer,
    pub operator: Authority,
}

impl Desk {
    pub fn new() -> Result<Self> {
        Ok(Self {
            manufacturer: Manufacturer::new()?,
            operator: Authority::new()?,
        })
    }

    /// A device that accepts this operator's replies and has never booted, and its EK certificate.
    pub fn device(&self, key: KeyType, ek: Ek) -> Result<(Device, Vec<u8>)> {
        let device = Device::unprovisioned()?;
        let certificate = self.manufacturer.equip(&device.tpm, ek)?;
        device.settings(&self.settings(key)?)?;
        Ok((device, certificate))
    }

    /// The usual one, provisioned: a P-256 key, a P-256 EK.
    pub fn provisioned(&self) -> Result<Device> {
        let (device, _) = self.device(KeyType::EccP256, Ek::P256)?;
        device.succeed(&["provision"])?;
        Ok(device)
    }

    pub fn settings(&self, key: KeyType) -> Result<Value> {
        let mut settings = offline_settings("nucleus-lite", key);
        settings["enrollment"]["issuers"] = json!([self.fingerprint()?]);
        Ok(settings)
    }

    /// The operator's fingerprint as `openssl x509 -fingerprint -sha256` prints it.
    pub fn fingerprint(&self) -> Result<String> {
        let digest = self.certificate()?.digest(MessageDigest::sha256())?;
        let bytes: Vec<_> = digest.iter().map(|b| format!("{b:02X}")).collect();
        Ok(bytes.join(":"))
    }

    fn certificate(&self) -> Result<X509> {
        Ok(X509::from_pem(self.operator.certificate_pem()?.as_bytes())?)
    }

    /// The reply to a device's request.
    pub fn reply(&self, device: &Device) -> Result<Reply> {
        let chain = self.operator.sign(&device.request()?)?;
        self.reply_with(device, chain.as_bytes(), |_| {})
    }

    /// The same with other contents.
    pub fn reply_with(
        &self,
        device: &Device,
        chain: &[u8],
        change: impl FnOnce(&mut Contents<'_>),
    ) -> Result<Reply> {
        let evidence = evidence(device)?;
        let ek = evidence.ek_certificate.as_deref().context("unattested")?;
        self.reply_for(device, X509::from_der(ek)?.public_key()?, chain, change)
    }

    /// The same for an EK other than the certificate's.
    pub fn reply_for(
        &self,
        device: &Device,
        ek: PKey<Public>,
        chain: &[u8],
        change: impl FnOnce(&mut Contents<'_>),
    ) -> Result<Reply> {
        let evidence = evidence(device)?;
        let area = PublicArea::parse(&evidence.key_public).map_err(anyhow::Error::msg)?;
        let issuer = self.certificate()?.to_der()?;
        let mut contents = Contents {
            thing_name: &thing_name(),
            key_name: area.name(),
            ek: &EkPublic::new(ek).map_err(anyhow::Error::msg)?,
            ek_sha256: evidence.ek_sha256().context("unattested")?,
            chain,
            issuer: &issuer,
        };
        change(&mut contents);
        Reply::seal(&contents, |message| self.sign(message)).map_err(anyhow::Error::msg)
    }

    /// Signs as a reply's issuer.
    pub fn sign(&self, message: &[u8]) -> std::result::Result<Vec<u8>, String> {
        let sign = || -> Result<_> {
            let key = PKey::private_key_from_pem(&fs::read(self.operator.key_path())?)?;
            let mut signer = Signer::new(MessageDigest::sha256(), &key)?;
            Ok(signer.sign_oneshot_to_vec(message)?)
        };
        sign().map_err(|e| e.to_string())
    }
}

pub fn thing_name() -> String {
    format!("gateway-{}", image_tests::device::SERIAL)
}

/// What the request on the boot partition says about the TPM.
pub fn evidence(device: &Device) -> Result<Evidence> {
    Ok(serde_json::from_value(record(device)?)?)
}

pub fn record(device: &Device) -> Result<Value> {
    let path = format!("/boot/firstboot/requests/{}.json", thing_name());
    let published = device.read(path)?;
    assert_eq!(published, device.read(format!("{STORE}/request.json"))?);
    Ok(serde_json::from_str(&published)?)
}

/// Puts a reply onto the boot partition.
pub fn drop_reply(device: &Device, text: impl AsRef<[u8]>) -> Result<()> {
    device.write(reply_path(), text)
}

pub fn reply_path() -> String {
    format!("/boot/firstboot/certificates/{}.reply.json", thing_name())
}

pub fn text(reply: &Reply) -> Result<String> {
    reply.json().map_err(anyhow::Error::msg)
}
