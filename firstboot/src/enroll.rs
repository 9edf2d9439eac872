//! Fleet provisioning's two steps, with all that they need of the device. Whatever is won is durable
//! before the next thing is asked for.

use std::collections::BTreeMap;

use firstboot_formats::digest::sha256;
use firstboot_formats::encoding::{hexadecimal, to_base64};
use firstboot_formats::record::Record;
use firstboot_formats::x509::{Chain, Request};
use log::{info, warn};

use crate::device::{Device, Inputs};
use crate::enrollment::fleet::{self, Registering, Session};
use crate::error::{Doing, Error, Exit, Result};
use crate::identity::{Ownership, Registration};
use crate::settings::{check_parameter, expand};

impl Device {
    /// Asks AWS IoT Core for a certificate, and keeps it with the proof that it is ours.
    pub fn ask_for_certificate(&mut self, record: &Record) -> Result<()> {
        let [request, _] = self.identity.request_files()?;
        let key = Request::parse(&request)?.public_key()?;
        let request = String::from_utf8(request).doing(Exit::Other, || "the request".into())?;
        // First what can fail here: a certificate that is not registered is one too many.
        self.template_parameters(record)?;
        let mut session = self.session()?;
        let created =
            session.create_certificate(self.settings()?, &request, &key, &record.thing_name)?;
        info!(
            "AWS IoT Core has issued certificate {}",
            created.certificate_id
        );
        self.identity.keep_ownership(&Ownership {
            certificate_id: created.certificate_id,
            certificate_pem: created.certificate_pem,
            certificate_ownership_token: created.certificate_ownership_token,
        })?;
        self.enrolling.session = Some(session);
        self.enrolling.has_asked = true;
        Ok(())
    }

    /// Has AWS IoT Core register the thing with the certificate that is kept, and keeps what it says.
    ///
    /// Where the ownership token is refused, it may be that the registration has happened and only its
    /// answer was lost, in a power cut. AWS does not document what a repeated RegisterThing gets. So the
    /// certificate is tried: an active one has been registered. Otherwise it is worth nothing (AWS IoT
    /// deletes it after an hour), and another one is asked for.
    pub fn register_thing(&mut self, record: &Record) -> Result<()> {
        let Some((ownership, chain)) = self.kept()? else {
            self.identity.forget_ownership()?;
            return self.ask_again(Error::other(
                "the certificate that was kept for registration is damaged: another one is asked for",
            ));
        };
        let parameters = self.template_parameters(record)?;
        let mut session = self.session()?;
        let registering = session.register_thing(
            &self.settings()?.enrollment.template_name,
            &ownership.certificate_ownership_token,
            &parameters,
        )?;
        let (thing_name, device_configuration) = match registering {
            Registering::Done(registered) => {
                (registered.thing_name, registered.device_configuration)
            }
            Registering::TokenRefused(rejection) => {
                session.close();
                if !self.is_active(&chain, record)? {
                    self.identity.forget_ownership()?;
                    return self.ask_again(rejection.error("registering the thing"));
                }
                self.keep(ownership, None, None)?;
                return Ok(());
            }
        };
        self.keep(ownership, thing_name, device_configuration)?;
        session.close();
        Ok(())
    }

    /// Another certificate may be asked for, in place of one that turned out to be of no use: once in a
    /// process, as each costs the account one.
    fn ask_again(&self, why: Error) -> Result<()> {
        if self.enrolling.has_asked {
            return Err(why);
        }
        warn!("{why}");
        Ok(())
    }

    fn keep(
        &self,
        ownership: Ownership,
        thing_name: Option<String>,
        device_configuration: Option<serde_json::Map<String, serde_json::Value>>,
    ) -> Result<()> {
        let thing_name_is_assumed = thing_name.is_none();
        let wanted = &self.settings()?.thing_name;
        let thing_name = thing_name.unwrap_or_else(|| {
            warn!(
                "certificate {} is registered, and the thing's name was not heard: it is taken to be {wanted}, \
                 as the settings say",
                ownership.certificate_id
            );
            wanted.clone()
        });
        info!("registered as {thing_name}");
        self.identity.keep_registration(&Registration {
            thing_name,
            thing_name_is_assumed,
            certificate_id: ownership.certificate_id,
            certificate_pem: ownership.certificate_pem,
            device_configuration: device_configuration.unwrap_or_default(),
        })
    }

    fn is_active(&self, chain: &Chain, record: &Record) -> Result<bool> {
        info!("is the certificate active already? Trying it with the TPM's key");
        let key = self.identity.open_key()?;
        let Inputs {
            settings, root_ca, ..
        } = self.inputs()?;
        fleet::is_active(settings, root_ca, chain, key, record.key)
    }

    /// The certificate that is kept, if it is whole and for our key.
    fn kept(&self) -> Result<Option<(Ownership, Chain)>> {
        let [request, _] = self.identity.request_files()?;
        let key = Request::parse(&request)?.public_key()?;
        Ok(self.identity.ownership()?.and_then(|ownership| {
            let chain = Chain::parse(ownership.certificate_pem.as_bytes(), &key, &[]).ok()?;
            Some((ownership, chain))
        }))
    }

    /// The open session, or a new one. Whoever is content with it puts it back.
    fn session(&mut self) -> Result<Session> {
        match self.enrolling.session.take() {
            Some(session) => Ok(session),
            None => {
                let Inputs {
                    settings, root_ca, ..
                } = self.inputs()?;
                Session::open(settings, &self.boot, root_ca)
            }
        }
    }

    /// The template's parameters, with what is only known now.
    fn template_parameters(&mut self, record: &Record) -> Result<BTreeMap<String, String>> {
        if let Some(complete) = &self.enrolling.parameters {
            return Ok(complete.clone());
        }
        let evidence = record.evidence.clone().ok_or_else(|| {
            Error::other("the request's record says nothing of the TPM: another `firstboot provision` writes it")
        })?;
        let ek = || {
            evidence.ek_certificate.as_deref().ok_or_else(|| {
                let why = evidence.unattested.as_deref().unwrap_or_default();
                Error::settings(format!(
                    "enrollment.template_parameters uses the EK certificate, and there is none: {why}"
                ))
            })
        };
        let wanted = self.settings()?.enrollment.template_parameters.clone();
        let complete: BTreeMap<_, _> = wanted
            .into_iter()
            .map(|(key, value)| {
                let path = format!("enrollment.template_parameters.{key}");
                let value = expand(&value, &path, |placeholder| {
                    Ok(match placeholder {
                        "tpm" => Some(record.tpm.clone()),
                        "key_sha256" => Some(record.key_sha256.clone()),
                        "key_public" => Some(to_base64(&evidence.key_public)),
                        "ek_sha256" => Some(hexadecimal(&sha256(ek()?))),
                        "ek_certificate" => Some(to_base64(ek()?)),
                        _ => None,
                    })
                })?;
                check_parameter(&key, &value)?;
                Ok((key, value))
            })
            .collect::<Result<_>>()?;
        self.enrolling.parameters = Some(complete.clone());
        Ok(complete)
    }
}
