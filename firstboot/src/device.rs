//! The device as `provision` and `survey` handle it: where things are, and what is open.

use std::collections::BTreeMap;

use log::{debug, warn};
use zeroize::Zeroizing;

use crate::boot_partition::BootPartition;
use crate::enrollment::fleet::Session;
use crate::error::{Doing, Error, Exit, Result};
use crate::greengrass::{self, Facts};
use crate::identity::{Identity, Plan, Record};
use crate::layout::{IMAGE_ROOT_CA, Layout};
use crate::root_key::Findings;
use crate::secret;
use crate::settings::Settings;
use crate::text;
use crate::tpm::{Identification, Srk, Tpm};
use crate::x509::{self, Chain};

/// A root certificate file may have this many bytes: AWS's bundle of five has 6 KB.
const MAX_ROOT_CA: usize = 64 * 1024;

/// One device.
pub struct Device {
    /// Where its files are.
    pub layout: Layout,
    /// What its operator wants.
    pub settings: Settings,
    /// Its identity directory.
    pub identity: Identity,
    /// Its boot partition.
    pub boot: BootPartition,
    /// How its TPM is reached.
    pub tcti: String,
    /// Why the claim pair could not be removed from the boot partition.
    pub claim_stays: Option<String>,
    /// SHA-256 of a reply that could not be opened, and why.
    pub(crate) refused_reply: Option<(String, String)>,
    pub(crate) root_ca: Vec<u8>,
    pub(crate) enrolling: Enrolling,
    pub(crate) findings: Findings,
    tpm: Option<Tpm>,
}

/// What enrolling over the network has open.
#[derive(Default)]
pub(crate) struct Enrolling {
    /// The connection to AWS IoT Core.
    pub(crate) session: Option<Session>,
    /// A certificate has been asked for already, by this process.
    pub(crate) has_asked: bool,
    /// The template's parameters, complete.
    pub(crate) parameters: Option<BTreeMap<String, String>>,
}

impl Device {
    /// Reads what the operator wants, all of it: whatever is wrong with that is said before anything
    /// is touched.
    pub fn open(layout: Layout, tcti: &str) -> Result<Self> {
        let settings = Settings::read(&layout)?;
        let boot = BootPartition::new(&layout);
        let root_ca = root_ca(&layout, &boot)?;
        let group = match greengrass::group(settings.greengrass.edition) {
            None => Some(0),
            Some(name) => Some(layout.group(name).ok_or_else(|| {
                Error::settings(format!(
                    "there is no group {name}, as which this edition's daemons run: is the \
                     edition in firstboot.json the one that is installed?"
                ))
            })?),
        };
        debug!("identity readable by group {group:?}");
        Ok(Self {
            identity: Identity::new(
                &layout,
                settings.platform.pkcs11_module.clone(),
                tcti,
                group,
            ),
            boot,
            root_ca,
            layout,
            settings,
            tcti: tcti.to_owned(),
            claim_stays: None,
            refused_reply: None,
            enrolling: Enrolling::default(),
            findings: Findings::default(),
            tpm: None,
        })
    }

    /// The TPM, opened at the first use.
    pub fn tpm(&mut self) -> Result<&mut Tpm> {
        if self.tpm.is_none() {
            self.tpm = Some(Tpm::connect(&self.tcti, &self.layout)?);
        }
        self.tpm
            .as_mut()
            .ok_or_else(|| Error::other("the TPM is not open"))
    }

    /// Closes the TPM: the next use opens it again.
    pub(crate) fn reconnect(&mut self) {
        self.tpm = None;
    }

    /// The thing's name: with fleet provisioning the one that the template has made, as soon as it is known.
    pub fn thing_name(&self) -> Result<String> {
        let registered = match self.settings.enrollment.is_fleet() {
            true => self.identity.registration()?,
            false => None,
        };
        Ok(registered.map_or_else(|| self.settings.thing_name.clone(), |r| r.thing_name))
    }

    /// Calls `work` with everything that a Greengrass configuration is made of.
    pub fn with_facts<T>(
        &self,
        chain: &Chain,
        slot: u64,
        work: impl FnOnce(&Facts<'_>) -> Result<T>,
    ) -> Result<T> {
        let certificate = chain.pem();
        work(&Facts {
            settings: &self.settings.greengrass,
            platform: &self.settings.platform,
            thing_name: &self.thing_name()?,
            slot,
            pin: &self.identity.pin()?,
            certificate: &certificate,
            root_ca: &self.root_ca,
        })
    }

    /// Makes the identity below the storage root key, and that, too, where there is none.
    pub fn make_identity(&mut self, srk: &Srk, tpm: &Identification) -> Result<()> {
        let name = match srk {
            Srk::Present { name, .. } => name.clone(),
            _ => self.make_root_key()?,
        };
        let ek = self.tpm()?.ek_certificate()?;
        if let Err(why) = &ek {
            warn!("nothing will show that the key is in a TPM: {why}");
        }
        let entropy = Zeroizing::new(self.tpm()?.random(2 * secret::ENTROPY)?);
        self.identity
            .make(self.plan(tpm.to_string(), ek, &name, &entropy))
    }

    /// Asks for the certificate again, under the name that is wanted now, or with what an older firstboot left out.
    pub fn renew_request(&mut self, record: &Record) -> Result<()> {
        let ek = match &record.evidence {
            Some(evidence) => evidence.ek_certificate.clone().ok_or_else(|| {
                let why = evidence.unattested.clone();
                why.unwrap_or_else(|| "this TPM had no EK certificate".into())
            }),
            // An older firstboot has made the request.
            None => self.tpm()?.ek_certificate()?,
        };
        let mut plan = self.plan(record.tpm.clone(), ek, "", &[]);
        plan.key = record.key;
        self.identity.renew_request(plan)
    }

    /// Puts the request and its record onto the boot partition.
    pub fn publish_request(&self) -> Result<()> {
        let [request, record] = self.identity.request_files()?;
        self.boot
            .publish_request(&self.settings.thing_name, [&request, &record])
    }

    fn plan<'a>(
        &'a self,
        tpm: String,
        ek: std::result::Result<Vec<u8>, String>,
        srk_name: &'a str,
        entropy: &'a [u8],
    ) -> Plan<'a> {
        let settings = &self.settings;
        Plan {
            key: settings.key,
            subject: settings.subject.with_common_name(&settings.thing_name),
            record: Record {
                thing_name: settings.thing_name.clone(),
                serial: crate::board::serial(&self.layout).unwrap_or_default(),
                tpm,
                key: settings.key,
                key_sha256: String::new(),
                csr_sha256: String::new(),
                evidence: None,
            },
            ek,
            srk_name,
            entropy,
        }
    }
}

/// The operator's root certificates, or else the image's.
fn root_ca(layout: &Layout, boot: &BootPartition) -> Result<Vec<u8>> {
    let checked = |content: Vec<u8>, path: std::path::PathBuf| match x509::roots(&content) {
        Ok(pem) => Ok(pem.into_bytes()),
        Err(why) => Err(Error::settings(format!(
            "{} holds no PEM certificate: {why}",
            path.display()
        ))),
    };
    if let Some(pem) = boot.root_ca()? {
        return checked(pem, boot.path("root-ca.pem"));
    }
    let path = layout.at(IMAGE_ROOT_CA);
    let pem = text::read(&path, MAX_ROOT_CA)
        .doing(Exit::Settings, || "no root certificate".into())?
        .ok_or_else(|| {
            Error::settings(format!(
                "there is no root certificate: neither {} nor {}",
                boot.path("root-ca.pem").display(),
                path.display()
            ))
        })?;
    checked(pem, path)
}
