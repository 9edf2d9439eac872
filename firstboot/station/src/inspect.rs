//! Describes a request or a reply.

use std::path::Path;

use firstboot_formats::attestation::{MAX_REPLY, PublicArea, Reply};
use firstboot_formats::digest::sha256;
use firstboot_formats::encoding::to_hex;
use firstboot_formats::public_key::PublicKey;
use firstboot_formats::text;
use firstboot_formats::x509::{Certificate, Summary};
use openssl::x509::X509;

use crate::check::{self, Policy};
use crate::ek_certificate::EkCertificate;
use crate::request::{REPLY, Request};

/// The content of a file: each part's name and value.
pub(crate) type Lines = Vec<(&'static str, String)>;

/// Describes a file, and says what is wrong with it: with a policy, everything that `issue` would say.
pub(crate) fn describe(path: &Path, policy: Option<&Policy>) -> (Lines, Result<(), String>) {
    let mut lines = Vec::new();
    let verdict = match path.to_string_lossy().ends_with(REPLY) {
        true => reply(path, &mut lines),
        false => request(path, policy, &mut lines),
    };
    (lines, verdict)
}

fn request(path: &Path, policy: Option<&Policy>, lines: &mut Lines) -> Result<(), String> {
    let request = Request::read(path)?;
    let record = &request.record;
    lines.push(("request for", record.thing_name.clone()));
    lines.push(("board", record.serial.clone()));
    lines.push(("TPM, as reported", record.tpm.clone()));
    if let Ok(area) = PublicArea::parse(&request.evidence.key_public) {
        let attributes = format!("{}, attributes {:#x}", area.key_type(), area.attributes());
        lines.push(("key", attributes));
        lines.push(("key's SHA-256", area.public_key().fingerprint()));
        lines.push(("key's Name", to_hex(&area.name())));
    }
    if let Some(der) = &request.evidence.ek_certificate {
        lines.push(("EK certificate", to_hex(&sha256(der))));
        let certificate = EkCertificate::parse(der)?;
        lines.push(("", certificate.describe()));
        lines.push(("EK certificate's TPM", certificate.tpm()));
    }
    if let Some(reason) = &request.evidence.unattested {
        lines.push(("unattested", reason.clone()));
    }
    let countersigned = record.countersignature.as_ref();
    let in_service = countersigned.map(|c| Certificate::parse(c.certificate.clone()));
    if let Some(Some(certificate)) = &in_service {
        let Summary {
            subject, not_after, ..
        } = certificate.summary();
        let summary = format!("{subject}, valid until {not_after}");
        lines.push(("in service", summary));
    }
    match policy {
        Some(policy) => policy.check(&request).map(drop)?,
        None => check::key(&request).map(drop)?,
    }
    let Some(countersignature) = countersigned else {
        return Ok(());
    };
    let certificate = in_service.flatten();
    let certificate = certificate.ok_or("the certificate of its countersignature is damaged")?;
    let key = PublicKey::from_spki(certificate.key().to_vec());
    check::countersignature(&request, countersignature, &key)
}

fn reply(path: &Path, lines: &mut Lines) -> Result<(), String> {
    let text = match text::read(path, MAX_REPLY) {
        Ok(Some(text)) => text,
        Ok(None) => return Err("there is no such file".into()),
        Err(e) => return Err(e.to_string()),
    };
    let reply = Reply::parse(&text)?;
    let issuer = sha256(&reply.issuer);
    lines.push(("reply for", reply.thing_name.clone()));
    lines.push(("key's Name", to_hex(&reply.key_name)));
    lines.push(("EK certificate", to_hex(&reply.ek_certificate_sha256)));
    lines.push(("issuer", to_hex(&issuer)));
    let certificate = X509::from_der(&reply.issuer)
        .map_err(|e| format!("its issuer's certificate is damaged: {e}"))?;
    lines.push(("", format!("{:?}", certificate.subject_name())));
    let (name, ek) = (&reply.key_name, &reply.ek_certificate_sha256);
    reply.check(&[issuer], &reply.thing_name, name, ek)
}
