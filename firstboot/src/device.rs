//! The device as `provision` and `survey` handle it: where things are, and what is open.

use std::collections::BTreeMap;

use firstboot_formats::record::{RECORD_VERSION, Record};
use firstboot_formats::text;
use firstboot_formats::thing_name::check_thing_name;
use firstboot_formats::x509::{self, Chain};
use log::{debug, warn};
use zeroize::Zeroizing;

use crate::boot_partition::BootPartition;
use crate::enrollment::fleet::Session;
use crate::error::{Doing, Error, Exit, Result};
use crate::greengrass::{self, Facts};
use crate::identity::{Identity, Plan};
use crate::layout::{IMAGE_ROOT_CA, Layout};
use crate::root_key::Findings;
use crate::secret;
use crate::settings::{Platform, Settings};
use crate::tpm::{Identification, Srk, Tpm};

/// A root certificate file may have this many bytes: AWS's bundle of five has 6 KB.
const MAX_ROOT_CA: usize = 64 * 1024;

/// One device.
pub struct Device {
    /// Where its files are.
    pub layout: Layout,
    /// What is wanted of it, or why that cannot be told.
    pub inputs: Result<Inputs>,
    /// Its identity directory.
    pub identity: Identity,
    /// Its boot partition.
    pub boot: BootPartition,
    /// How its TPM is reached, if it is to be looked at.
    pub tcti: Option<String>,
    /// Why the claim pair could not be removed from the boot partition.
    pub claim_stays: Option<String>,
    /// Why the request could not be put onto the boot partition, although the device is in service.
    pub request_stays: Option<String>,
    /// SHA-256 of a reply that could not be opened, and why.
    pub(crate) refused_reply: Option<(String, String)>,
    pub(crate) enrolling: Enrolling,
    pub(crate) findings: Findings,
    tpm: Option<Tpm>,
}

/// What operator and image want, read and checked.
#[derive(Clone, Debug)]
pub struct Inputs {
    /// The settings.
    pub settings: Settings,
    /// The root certificates of AWS's endpoints, PEM.
    pub root_ca: Vec<u8>,
    /// The group that reads the identity beside root.
    group: Option<u32>,
}

impl Inputs {
    fn is_fleet(&self) -> bool {
        self.settings.enrollment.is_fleet()
    }

    fn read(layout: &Layout, boot: &BootPartition) -> Result<Self> {
        let mut settings = Settings::read(layout)?;
        if !settings.enrollment.is_fleet() {
            settings.remarks.extend(boot.unused_claim());
        }
        let root_ca = root_ca(layout, boot)?;
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
            settings,
            root_ca,
            group,
        })
    }
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
    /// Reads what is wanted, all of it, before anything is touched. Where something is wrong with that, the
    /// device can still be looked at.
    pub fn open(layout: Layout, tcti: Option<&str>) -> Self {
        let boot = BootPartition::new(&layout);
        let mut inputs = Inputs::read(&layout, &boot);
        let (module, group) = match &inputs {
            Ok(inputs) => (inputs.settings.platform.pkcs11_module.clone(), inputs.group),
            Err(_) => (Platform::default().pkcs11_module, None),
        };
        let identity = Identity::new(&layout, module, tcti.unwrap_or_default(), group);
        // With fleet provisioning, the thing's name is no setting.
        if inputs.as_ref().is_ok_and(Inputs::is_fleet)
            && let Err(e) = identity.registration()
        {
            inputs = Err(e);
        }
        Self {
            identity,
            boot,
            inputs,
            layout,
            tcti: tcti.map(str::to_owned),
            claim_stays: None,
            request_stays: None,
            refused_reply: None,
            enrolling: Enrolling::default(),
            findings: Findings::default(),
            tpm: None,
        }
    }

    /// What is wanted: for the steps, none of which is taken where that cannot be told.
    pub fn inputs(&self) -> Result<&Inputs> {
        self.inputs.as_ref().map_err(Clone::clone)
    }

    /// The settings.
    pub fn settings(&self) -> Result<&Settings> {
        Ok(&self.inputs()?.settings)
    }

    /// The TPM, opened at the first use.
    pub fn tpm(&mut self) -> Result<&mut Tpm> {
        if self.tpm.is_none() {
            self.tpm = Some(Tpm::connect(self.tcti()?, &self.layout)?);
        }
        self.tpm
            .as_mut()
            .ok_or_else(|| Error::other("the TPM is not open"))
    }

    /// Closes the TPM: the next use opens it again.
    pub(crate) fn reconnect(&mut self) {
        self.tpm = None;
    }

    /// How the TPM is reached.
    pub fn tcti(&self) -> Result<&str> {
        self.tcti
            .as_deref()
            .ok_or_else(|| Error::other("nobody has said which TPM is meant"))
    }

    /// The name under which a certificate is in service: the one that AWS IoT Core has registered, else the
    /// one in the certificate. Where that names none, it is for the wanted one.
    pub fn name_of(&self, chain: &Chain) -> Result<String> {
        let registered = self.registered_name(Some(chain))?;
        Ok(match registered.or_else(|| chain.thing_name()) {
            Some(name) => name,
            None => self.settings()?.thing_name.clone(),
        })
    }

    /// The name that the certificate is for, where the thing is to have another one by now.
    pub fn outdated_name(&self, chain: &Chain) -> Result<Option<String>> {
        if self.registered_name(Some(chain))?.is_some() {
            return Ok(None);
        }
        let wanted = &self.settings()?.thing_name;
        Ok(chain.thing_name().filter(|name| name != wanted))
    }

    /// The thing's name as the template has made it, if this is the certificate that was registered. With fleet
    /// provisioning there is no other.
    fn registered_name(&self, chain: Option<&Chain>) -> Result<Option<String>> {
        let registration = match self.settings()?.enrollment.is_fleet() {
            true => self.identity.registration()?,
            false => {
                let kept = self.identity.registration().ok().flatten();
                kept.filter(|kept| chain.is_some_and(|chain| kept.is_of(chain)))
            }
        };
        Ok(registration.map(|registration| registration.thing_name))
    }

    /// The thing's name as far as it is known: the certificate's, else the wanted one, else the request's.
    pub fn thing_name(&self) -> Option<String> {
        let certificate = self.identity.certificate().ok().flatten();
        let named = match (&certificate, &self.inputs) {
            (Some(chain), Ok(_)) => self.name_of(chain).ok(),
            (Some(chain), Err(_)) => chain.thing_name(),
            (None, Ok(inputs)) => Some(match self.registered_name(None) {
                Ok(Some(name)) => name,
                _ => inputs.settings.thing_name.clone(),
            }),
            (None, Err(_)) => None,
        };
        named.or_else(|| self.identity.record().map(|record| record.thing_name))
    }

    /// Calls `work` with everything that a Greengrass configuration is made of.
    pub fn with_facts<T>(
        &self,
        chain: &Chain,
        slot: u64,
        work: impl FnOnce(&Facts<'_>) -> Result<T>,
    ) -> Result<T> {
        let certificate = chain.pem();
        let Inputs {
            settings, root_ca, ..
        } = self.inputs()?;
        work(&Facts {
            settings: &settings.greengrass,
            platform: &settings.platform,
            thing_name: &self.name_of(chain)?,
            slot,
            pin: &self.identity.pin()?,
            certificate: &certificate,
            root_ca,
            configured: self.identity.configured(),
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
            .make(self.plan(tpm.to_string(), ek, &name, &entropy)?)
    }

    /// Another request, under the name that is wanted now, with what an older firstboot left out, or in place of one that
    /// is damaged.
    pub fn sign_request(&mut self, record: &Record) -> Result<[Vec<u8>; 2]> {
        let ek = match &record.evidence {
            Some(evidence) => evidence.ek_certificate.clone().ok_or_else(|| {
                let why = evidence.unattested.clone();
                why.unwrap_or_else(|| "this TPM had no EK certificate".into())
            }),
            // An older firstboot has made the request, or its record is lost.
            None => self.tpm()?.ek_certificate()?,
        };
        let tpm = match record.tpm.is_empty() {
            true => self.tpm()?.identification()?.to_string(),
            false => record.tpm.clone(),
        };
        let mut plan = self.plan(tpm, ek, "", &[])?;
        plan.key = record.key;
        self.identity.sign_request(&plan)
    }

    /// Takes the request of this identity off the boot partition: it is not wanted any more. A card that cannot be
    /// written is no reason to stop.
    pub fn withdraw_request(&self) {
        let Ok([request, record]) = self.identity.request_files() else {
            return;
        };
        let Ok(Record { thing_name, .. }) = serde_json::from_slice(&record) else {
            return;
        };
        // Of a record that is damaged, the name could be a path to anywhere.
        if check_thing_name(&thing_name).is_err() {
            return;
        }
        if let Err(e) = self.boot.withdraw_request(&thing_name, [&request, &record]) {
            warn!("the old request stays on the boot partition: {e}");
        }
    }

    /// Puts a request and its record onto the boot partition.
    pub fn publish_request(&self, [request, record]: &[Vec<u8>; 2]) -> Result<()> {
        self.boot
            .publish_request(&self.settings()?.thing_name, [request, record])
    }

    fn plan<'a>(
        &'a self,
        tpm: String,
        ek: std::result::Result<Vec<u8>, String>,
        srk_name: &'a str,
        entropy: &'a [u8],
    ) -> Result<Plan<'a>> {
        let settings = self.settings()?;
        Ok(Plan {
            key: settings.key,
            subject: settings.subject.with_common_name(&settings.thing_name),
            record: Record {
                version: RECORD_VERSION,
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
        })
    }
}

/// The operator's root certificates, or else the image's.
fn root_ca(layout: &Layout, boot: &BootPartition) -> Result<Vec<u8>> {
    let checked = |content: Vec<u8>, path: std::path::PathBuf| match x509::roots(&content) {
        Ok(pem) => Ok(pem.into_bytes()),
        Err(why) => Err(Error::settings(format!("{}: {why}", path.display()))),
    };
    let operators = boot.root_ca();
    if let Some(pem) = operators.map_err(|e| Error::settings(e.to_string()))? {
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
