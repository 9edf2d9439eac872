//! Answers that only their TPMs can open: `issue` and `wrap`.

use firstboot_formats::attestation::{Contents, Reply};
use firstboot_formats::digest::sha256;
use firstboot_formats::encoding::to_hex;
use firstboot_formats::files;
use zeroize::Zeroizing;

use crate::authority::Authority;
use crate::batch::Answer;
use crate::check::{Attested, Policy};
use crate::error::Error;
use crate::inventory::{Inventory, Line};
use crate::replies::{Replies, taken};
use crate::request::{REPLY, Request};
use crate::stop::Stop;
use crate::wrapping::Certificates;

/// Where the certificates come from.
pub(crate) enum Source {
    /// The operator's CA issues them, with this validity in days.
    Issue(u32),
    /// Somebody else has issued them.
    Wrap(Certificates),
}

/// Everything that answering a request needs.
pub(crate) struct Wrapped {
    /// Which TPMs are accepted.
    pub(crate) policy: Policy,
    /// The CA, which signs every reply.
    pub(crate) authority: Authority,
    /// Where the certificates come from.
    pub(crate) source: Source,
    /// Where replies go.
    pub(crate) replies: Replies,
    /// Where certificates are recorded.
    pub(crate) inventory: Option<Inventory>,
    /// Also answer requests that have been answered, and names that belonged to another TPM or key.
    pub(crate) force: bool,
}

impl Answer for Wrapped {
    type Checked = Attested;

    fn check(&self, request: &Request) -> std::result::Result<Attested, String> {
        self.policy.check(request)
    }

    fn answer(
        &mut self,
        request: &Request,
        attested: &Attested,
    ) -> std::result::Result<bool, Stop> {
        let target = self.replies.path(request, REPLY)?;
        if !self.force && self.is_answered(request, attested)? {
            return Ok(false);
        }
        let (chain, serial) = self.certificate(request, attested)?;
        let reply = self.seal(request, attested, &chain)?;
        // A superfluous line does less harm than a missing one.
        if let Some(inventory) = &mut self.inventory {
            inventory.add(&line(request, attested, serial))?;
        }
        files::write(&target, reply.json()?.as_bytes(), None).map_err(Error::from)?;
        Ok(true)
    }
}

impl Wrapped {
    /// Whether there is a reply by this CA to this very request. A refusal if its name belongs to somebody else.
    fn is_answered(
        &self,
        request: &Request,
        attested: &Attested,
    ) -> std::result::Result<bool, Stop> {
        let thing_name = &request.record.thing_name;
        if let Some(inventory) = &self.inventory {
            let ek = to_hex(&attested.ek_sha256);
            let is_other = inventory.holder(&request.holder()).is_some_and(|holder| {
                holder.ek_sha256 != ek
                    || holder.key_sha256 != attested.key.fingerprint() && !request.is_next()
            });
            let is_elsewhere = inventory
                .holder(&request.other_holder())
                .is_some_and(|holder| !holder.ek_sha256.is_empty() && holder.ek_sha256 != ek);
            if is_other || is_elsewhere {
                return Err(taken(thing_name, inventory.path()).into());
            }
        }
        let issuer = sha256(self.authority.certificate());
        Ok(self.replies.have(request, attested, issuer)?)
    }

    fn certificate(
        &self,
        request: &Request,
        attested: &Attested,
    ) -> std::result::Result<(Zeroizing<Vec<u8>>, String), Stop> {
        match &self.source {
            Source::Wrap(certificates) => Ok(certificates.of(request, attested)?),
            Source::Issue(days) => {
                let name = &request.record.thing_name;
                let issued = self.authority.issue(&attested.key, name, *days)?;
                Ok((issued.chain, issued.serial))
            }
        }
    }

    fn seal(
        &self,
        request: &Request,
        attested: &Attested,
        chain: &[u8],
    ) -> std::result::Result<Reply, Stop> {
        let mut failed = None;
        let contents = Contents {
            thing_name: &request.record.thing_name,
            key_name: attested.key_name,
            ek: &attested.ek,
            ek_sha256: attested.ek_sha256,
            chain,
            issuer: self.authority.certificate(),
        };
        let sealed = Reply::seal(&contents, |message| {
            self.authority.sign(message).map_err(|error| {
                let reason = error.to_string();
                failed = Some(error);
                reason
            })
        });
        match failed {
            Some(error) => Err(Stop::Failed(error)),
            None => Ok(sealed?),
        }
    }
}

fn line(request: &Request, attested: &Attested, certificate_serial: String) -> Line {
    Line {
        thing_name: request.holder(),
        serial: request.record.serial.clone(),
        tpm: request.record.tpm.clone(),
        ek_tpm: attested.ek_tpm.clone(),
        ek_sha256: to_hex(&attested.ek_sha256),
        key_sha256: attested.key.fingerprint(),
        certificate_serial,
    }
}
