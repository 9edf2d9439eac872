//! Certificates for other keys of things whose key in service vouches for them: the next one, and that for networks.
//!
//! Its signature shows that the other key is wanted by whoever can use the certificate in service, not that it is in a
//! TPM. A device whose certificate was wrapped for its TPM gets no lesser one: its TPM vouches for other keys, too.

use std::path::{Path, PathBuf};

use firstboot_formats::card::MAX_CERTIFICATE;
use firstboot_formats::clock::Clock;
use firstboot_formats::countersignature::Countersignature;
use firstboot_formats::digest::sha256;
use firstboot_formats::public_key::PublicKey;
use firstboot_formats::x509::{self, Chain, Verdict};
use firstboot_formats::{files, text};

use crate::authority::Authority;
use crate::batch::Answer;
use crate::check;
use crate::error::{Context, Error, Exit, Result};
use crate::inventory::{Inventory, Line};
use crate::replies::Replies;
use crate::request::{CERTIFICATE, Purpose, Request};
use crate::stop::Stop;

/// Everything that answering a request needs.
pub(crate) struct Reissue {
    /// The CA.
    pub(crate) authority: Authority,
    /// The certificates' validity.
    pub(crate) days: u32,
    /// Where certificates go.
    pub(crate) replies: Replies,
    /// Which keys are in service, and where certificates are recorded.
    pub(crate) inventory: Option<Inventory>,
    /// The certificates in service that the operator names.
    pub(crate) in_service: Option<InService>,
    /// Also answer requests that have been answered.
    pub(crate) again: bool,
}

/// Certificates in service: the operator's word for them, whatever the inventory says.
pub(crate) enum InService {
    /// A file.
    File(PathBuf),
    /// A directory with `<thing>.pem`.
    Directory(PathBuf),
}

impl InService {
    /// From the argument: a file or a directory.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let metadata = path
            .metadata()
            .context(Exit::NoInput, || format!("cannot read {}", path.display()))?;
        Ok(match metadata.is_dir() {
            true => Self::Directory(path.to_owned()),
            false => Self::File(path.to_owned()),
        })
    }

    /// Whether it can serve more than one request.
    pub(crate) fn are_many(&self) -> bool {
        matches!(self, Self::Directory(_))
    }

    fn of(&self, request: &Request) -> std::result::Result<Option<Chain>, String> {
        let path = match self {
            Self::File(path) => path,
            Self::Directory(path) => {
                &path.join(request.file_name_of(Purpose::Present, CERTIFICATE))
            }
        };
        let refused = |why: String| format!("{} is refused: {why}", path.display());
        let content = text::read(path, MAX_CERTIFICATE).map_err(|e| e.to_string())?;
        content
            .map(|content| leaf(&content).map_err(refused))
            .transpose()
    }
}

/// The device's certificate in a file, without its issuers.
fn leaf(content: &[u8]) -> std::result::Result<Chain, String> {
    let found = x509::certificates(content)?;
    let leaf = found
        .iter()
        .find(|certificate| !certificate.is_authority())
        .ok_or("it contains only CA certificates")?;
    let key = PublicKey::from_spki(leaf.key().to_vec());
    Chain::parse(leaf.der(), &key, &[])
}

impl Answer for Reissue {
    /// The other key.
    type Checked = PublicKey;

    fn check(&self, request: &Request) -> std::result::Result<PublicKey, String> {
        let key = check::key(request)?.public_key().clone();
        let record = &request.record;
        let countersignature = record.countersignature.as_ref().ok_or(
            "it has no countersignature: the key in service does not vouch for it. If its TPM does, use issue",
        )?;
        let chain = self.certificate_in_service(request, countersignature, &key)?;
        let refused = |why| format!("the certificate in service is refused: {why}");
        match chain.check(&chain.key(), &record.thing_name, Clock::read()) {
            Verdict::Good | Verdict::GoodBut(_) => {}
            Verdict::Bad(why) => return Err(refused(why)),
        }
        check::countersignature(request, countersignature, &chain.key())?;
        Ok(key)
    }

    fn answer(&mut self, request: &Request, key: &PublicKey) -> std::result::Result<bool, Stop> {
        let target = self.replies.path(request, CERTIFICATE)?;
        if !self.again && self.is_answered(&target, request, key)? {
            return Ok(false);
        }
        let name = &request.record.thing_name;
        let issued = self.authority.issue(key, name, self.days)?;
        // As for a reply: a superfluous line does less harm than a missing one.
        if let Some(inventory) = &mut self.inventory {
            inventory.add(&line(request, key, issued.serial))?;
        }
        files::write(&target, &issued.chain, None).map_err(Error::from)?;
        Ok(true)
    }
}

impl Reissue {
    /// The certificate of the key in service: the one that the operator names; or the one in the request, if this CA
    /// has issued it and the inventory has its key, or the next one, from an earlier run.
    fn certificate_in_service(
        &self,
        request: &Request,
        countersignature: &Countersignature,
        next: &PublicKey,
    ) -> std::result::Result<Chain, String> {
        let name = &request.record.thing_name;
        let of = |name: &str| self.inventory.as_ref().and_then(|i| i.holder(name));
        let holder = of(name);
        let mut holders = holder.into_iter().chain(of(&request.holder()));
        if holders.any(|holder| !holder.ek_sha256.is_empty()) {
            return Err(
                "by the inventory, its certificate was wrapped for its TPM, which has to vouch for other keys, too: \
                 use issue or wrap"
                    .into(),
            );
        }
        if let Some(named) = &self.in_service
            && let Some(chain) = named.of(request)?
        {
            return Ok(chain);
        }
        let chain = leaf(&countersignature.certificate)
            .map_err(|why| format!("the certificate in service is refused: {why}"))?;
        if !chain.is_issued_by(self.authority.x509()) {
            return Err(
                "the certificate in service was not issued by --ca: if it is the right one, name it with --in-service"
                    .into(),
            );
        }
        let holder = holder.ok_or_else(|| {
            format!(
                "nothing says which certificate of \"{name}\" is in service: the inventory has no line for it. Name it \
                 with --in-service"
            )
        })?;
        let known = [chain.key().fingerprint(), next.fingerprint()];
        match known.contains(&holder.key_sha256) {
            true => Ok(chain),
            false => Err(format!(
                "by the inventory, \"{name}\" has got a certificate for another key since: the one in the request is \
                 superseded. If it is in service all the same, name it with --in-service"
            )),
        }
    }

    /// Whether there is a certificate by this CA for this very request.
    fn is_answered(
        &self,
        target: &Path,
        request: &Request,
        key: &PublicKey,
    ) -> std::result::Result<bool, String> {
        let content = text::read(target, MAX_CERTIFICATE).map_err(|e| e.to_string())?;
        let issuers = [sha256(self.authority.certificate())];
        let chain = content.and_then(|content| Chain::parse(&content, key, &issuers).ok());
        let name = &request.record.thing_name;
        let verdict = chain.map(|chain| chain.check(key, name, Clock::read()));
        Ok(matches!(verdict, Some(Verdict::Good | Verdict::GoodBut(_))))
    }
}

fn line(request: &Request, key: &PublicKey, certificate_serial: String) -> Line {
    Line {
        thing_name: request.holder(),
        serial: request.record.serial.clone(),
        tpm: request.record.tpm.clone(),
        ek_tpm: String::new(),
        ek_sha256: String::new(),
        key_sha256: key.fingerprint(),
        certificate_serial,
    }
}
