//! Enrollment without a network: the operator takes the request from the boot partition and puts
//! the certificate there, or a reply that only this TPM can open.

use super::{Offer, Wrapped};
use crate::attestation::{Evidence, Fingerprint, MAX_REPLY, PublicArea, Reply};
use crate::boot_partition::{BootPartition, MAX_CERTIFICATE};
use crate::clock::Clock;
use crate::files;
use crate::public_key::{PublicKey, hexadecimal, sha256};
use crate::x509::{Chain, Verdict};

/// The device that the certificate has to be for.
pub struct Wanted<'a> {
    /// Its thing's name.
    pub thing_name: &'a str,
    /// Its key.
    pub key: &'a PublicKey,
    /// What its request says of its TPM.
    pub evidence: Option<&'a Evidence>,
    /// Whose replies it takes.
    pub issuers: &'a [Fingerprint],
    /// SHA-256 of the reply that its certificate came in.
    pub opened: Option<&'a str>,
    /// SHA-256 of a reply that could not be opened, and why.
    pub refused: Option<(&'a str, &'a str)>,
}

/// Looks at the certificate that lies on the boot partition for this thing, if any; where there is none, at the
/// reply. Asks the TPM nothing.
pub fn offer(boot: &BootPartition, wanted: &Wanted<'_>, clock: Clock) -> Offer {
    let path = boot.certificate_path(wanted.thing_name);
    let refused = |why: String| Offer::Refused(format!("{}: {why}", path.display()));
    let pem = match files::read(&path, MAX_CERTIFICATE) {
        Ok(Some(pem)) => pem,
        Ok(None) => return reply(boot, wanted),
        Err(e) => return Offer::Refused(e.to_string()),
    };
    let chain = match Chain::parse(&pem) {
        Ok(chain) => chain,
        Err(why) => return refused(why),
    };
    match chain.check(wanted.key, wanted.thing_name, clock) {
        Verdict::Good => Offer::Certificate(Box::new(chain), None),
        Verdict::GoodBut(remark) => Offer::Certificate(Box::new(chain), Some(remark)),
        Verdict::Bad(why) => refused(why),
    }
}

fn reply(boot: &BootPartition, wanted: &Wanted<'_>) -> Offer {
    let path = boot.reply_path(wanted.thing_name);
    let refused = |why: &str| Offer::Refused(format!("{}: {why}", path.display()));
    let text = match files::read(&path, MAX_REPLY) {
        Ok(Some(text)) => text,
        Ok(None) => {
            let [request, _] = boot.request_paths(wanted.thing_name);
            return Offer::Nothing(format!(
                "have {} signed and put the certificate to {}",
                request.display(),
                boot.certificate_path(wanted.thing_name).display()
            ));
        }
        Err(e) => return Offer::Refused(e.to_string()),
    };
    let sha256 = hexadecimal(&sha256(&text));
    if wanted.opened == Some(&sha256) {
        return Offer::Nothing("a newer certificate".into());
    }
    match wanted.refused {
        Some((refused_sha256, why)) if refused_sha256 == sha256 => return refused(why),
        _ => {}
    }
    match checked(&text, wanted) {
        Ok(reply) => Offer::Reply(Box::new(Wrapped { reply, sha256 })),
        Err(why) => refused(&why),
    }
}

/// The reply, if it may go to the TPM.
fn checked(text: &[u8], wanted: &Wanted<'_>) -> Result<Reply, String> {
    if wanted.issuers.is_empty() {
        return Err(
            "no replies are accepted: the setting enrollment.issuers names nobody who may make them".into(),
        );
    }
    let reply = Reply::parse(text)?;
    let evidence = wanted
        .evidence
        .ok_or("this device's request says nothing of its TPM")?;
    let ek_sha256 = evidence.ek_sha256().ok_or_else(|| {
        let why = evidence
            .unattested
            .as_deref()
            .unwrap_or("no reason is given");
        format!("this device cannot open replies: {why}")
    })?;
    let key_name = PublicArea::parse(&evidence.key_public)?.name();
    reply.check(wanted.issuers, wanted.thing_name, &key_name, &ek_sha256)?;
    Ok(reply)
}
