//! Opening a wrapped reply: a certificate for this TPM alone.

use std::path::PathBuf;

use firstboot_formats::attestation::CREDENTIAL_SIZE;
use firstboot_formats::clock::Clock;
use firstboot_formats::public_key::{KeyType, PublicKey};
use firstboot_formats::record::Record;
use firstboot_formats::x509::{Chain, Request, Verdict};
use log::{info, warn};
use openssl::x509::X509;

use super::context::{Context, RefusedReply};
use crate::enrollment::{Refusal, WrappedReply};
use crate::error::{Error, ErrorKind, Result, ResultExt};
use crate::identity::{Identity, Superseded};
use crate::progress;
use crate::tpm::Credential;

/// What has come of a certificate that a reply holds.
pub(super) enum Acceptance {
    /// It is accepted.
    Accepted,
    /// AWS IoT Core refuses it, in words.
    Refused(String),
    /// It has to be tried first, and nobody has answered, in words.
    Unanswered(String),
}

/// Opens a reply, has the certificate in it accepted, and notes which reply it was: in this order, so that after a power cut
/// at any point it is opened again. A reply that cannot be opened, or holds no certificate for this device, is
/// remembered until this process ends, and changes nothing; so is one whose certificate could not be tried. One whose
/// certificate may not replace the accepted one is remembered until another certificate is accepted.
pub(super) fn open(
    context: &mut Context,
    identity: &Identity,
    file: PathBuf,
    wrapped: &WrappedReply,
    record: &Record,
    accept: impl FnOnce(&mut Context, &Chain) -> Result<Acceptance>,
) -> Result<()> {
    let opened = certificate_in(context, identity, wrapped, record).and_then(|chain| {
        let acceptance = match identity.certificate()? {
            Some(accepted) if accepted == chain => Acceptance::Accepted,
            _ => accept(context, &chain)?,
        };
        Ok((chain, acceptance))
    });
    let (reason, is_for_now) = match opened {
        Ok((chain, Acceptance::Accepted)) => {
            return identity.note_opened_reply(&wrapped.sha256, &chain);
        }
        Ok((_, Acceptance::Refused(why))) => (why, false),
        Ok((_, Acceptance::Unanswered(why))) => (why, true),
        Err(e) if matches!(e.kind, ErrorKind::TpmRefuses | ErrorKind::Other) => {
            (e.to_string(), false)
        }
        Err(e) => return Err(e),
    };
    context.memory.refused_replies.push(RefusedReply {
        sha256: wrapped.sha256.clone(),
        refusal: Refusal { path: file, reason },
        is_for_now,
    });
    Ok(())
}

fn certificate_in(
    context: &mut Context,
    identity: &Identity,
    wrapped: &WrappedReply,
    record: &Record,
) -> Result<Chain> {
    let ek = record
        .evidence
        .as_ref()
        .and_then(|e| e.ek_certificate.as_deref());
    let ek = endorsement_key(ek.ok_or_else(|| Error::other("this device has no EK certificate"))?)?;
    let what = match ek.key_type() {
        Some(KeyType::Rsa2048) => {
            "opening the certificate with the TPM (about half a minute on an SLB 9670 with an RSA EK, sometimes a minute)"
        }
        _ => "opening the certificate with the TPM",
    };
    let credential = progress::with_progress(what, || credential(context, identity, wrapped, &ek))?;
    let credential: &[u8; CREDENTIAL_SIZE] = credential
        .as_slice()
        .try_into()
        .context(ErrorKind::Other, || {
            "the TPM returned a credential of the wrong size".into()
        })?;
    let pem = wrapped.reply.open(credential).map_err(Error::other)?;
    let [request, _] = identity.request_files()?;
    let key = Request::parse(&request)?.public_key()?;
    // Its issuer is one of enrollment.issuers; the certificate may be from any CA, AWS IoT's for example.
    let chain = Chain::parse(&pem, &key, &[]).map_err(Error::other)?;
    let accepted = identity.certificate()?.filter(|a| a.is_for(&key));
    let (name, clock) = (&record.thing_name, Clock::read());
    match chain.check_successor(accepted.as_ref(), &key, name, clock) {
        Verdict::Good => {}
        Verdict::GoodBut(remark) => warn!("{remark}"),
        Verdict::Bad(why) => {
            let reason = format!("the certificate in it is refused: {why}");
            // Good, but no successor of the accepted one: that will not change, and need not be found out again.
            if let Some(accepted) = &accepted
                && !matches!(chain.check(&key, name, clock), Verdict::Bad(_))
            {
                let superseded = Superseded {
                    reply_sha256: wrapped.sha256.clone(),
                    reason: reason.clone(),
                };
                identity.note_superseded_reply(superseded, accepted)?;
            }
            return Err(Error::other(reason));
        }
    }
    info!("opened the reply: {}", chain.describe());
    Ok(chain)
}

/// The credential that the TPM releases for it, with our key and that endorsement key loaded.
fn credential(
    context: &mut Context,
    identity: &Identity,
    wrapped: &WrappedReply,
    ek: &PublicKey,
) -> Result<zeroize::Zeroizing<Vec<u8>>> {
    let (channel, stored, auth) = identity.unlock(context.tpm()?)?;
    let credential = Credential {
        blob: &wrapped.reply.credential_blob,
        secret: &wrapped.reply.secret,
    };
    channel.activate((&stored.key).into(), &auth, ek, credential)
}

/// The key that the EK certificate is for.
fn endorsement_key(certificate: &[u8]) -> Result<PublicKey> {
    let spki = X509::from_der(certificate)
        .and_then(|certificate| certificate.public_key()?.public_key_to_der());
    Ok(PublicKey::from_spki(
        spki.context(ErrorKind::Other, || {
            "cannot read the TPM's EK certificate".into()
        })?,
    ))
}
