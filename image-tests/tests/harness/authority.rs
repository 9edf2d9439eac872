//! The operator's authority issues certificates that verify, and bad ones on request.

use std::path::Path;

use anyhow::Result;
use image_tests::clients::openssl;
use image_tests::doubles::pki::{Authority, Validity};
use image_tests::process::{finish, succeed};

fn request(directory: &Path) -> Result<std::path::PathBuf> {
    let path = directory.join("request.pem");
    let mut make = openssl::plain(&["req", "-new", "-nodes", "-config", "/dev/null"]);
    make.args(["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]);
    make.args(["-subj", "/O=Factory/CN=gateway-1", "-keyout"])
        .arg(directory.join("key.pem"));
    succeed(make.arg("-out").arg(&path))?;
    Ok(path)
}

/// Whether a client certificate verifies against the authority now.
fn verifies(authority: &Authority, directory: &Path, pem: &str) -> Result<bool> {
    let path = directory.join("certificate.pem");
    std::fs::write(&path, pem)?;
    let mut verify = openssl::plain(&["verify", "-purpose", "sslclient", "-CAfile"]);
    verify.arg(authority.certificate_path());
    // Intermediates come from the same file.
    verify.arg("-untrusted").arg(&path);
    Ok(finish(verify.arg(&path))?.code == 0)
}

#[test]
fn certificates_verify_unless_made_bad() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let authority = Authority::new()?;
    let request = request(directory.path())?;
    let verifies = |pem: &str| verifies(&authority, directory.path(), pem);

    let good = authority.sign(&request)?;
    assert!(verifies(&good)?);
    assert_eq!(good.matches("BEGIN CERTIFICATE").count(), 1);
    let chain = authority.sign_by_intermediate(&request)?;
    assert!(verifies(&chain)?);
    assert_eq!(chain.matches("BEGIN CERTIFICATE").count(), 2);
    assert!(verifies(
        &authority.certificate_of_another_key("gateway-1")?
    )?);

    assert!(!verifies(
        &authority.sign_valid(&request, Validity::Expired)?
    )?);
    assert!(!verifies(
        &authority.sign_valid(&request, Validity::NotYet)?
    )?);
    assert!(!verifies(&Authority::new()?.sign(&request)?)?);
    Ok(())
}

#[test]
fn the_subject_is_the_requested_one() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let pem = Authority::new()?.sign(&request(directory.path())?)?;
    let path = directory.path().join("certificate.pem");
    std::fs::write(&path, pem)?;
    let mut show = openssl::plain(&["x509", "-noout", "-subject", "-nameopt", "RFC2253", "-in"]);
    assert_eq!(
        succeed(show.arg(&path))?.trim(),
        "subject=CN=gateway-1,O=Factory"
    );
    Ok(())
}
