//! firstboot-station's messages and exit statuses if something is missing or wrong on its side.

use std::fs;

use anyhow::Result;
use image_tests::device::station::Station;
use image_tests::process::{bounded, finish, succeed};

use crate::commands::with_requests;
use crate::exit;

#[test]
fn missing_or_wrong_arguments_are_named() -> Result<()> {
    let (station, requests) = with_requests(1)?;
    let ends = |arguments: &[&str], code: i32, words: &str| -> Result<()> {
        let mut issue = station.issuing(&requests)?;
        let done = finish(issue.args(arguments))?;
        assert_eq!(done.code, code, "{done:?}");
        assert!(done.stderr.contains(words), "no {words:?}: {done:?}");
        Ok(())
    };
    ends(&["--frobnicate"], exit::USAGE, "--frobnicate")?;
    ends(
        &["/nowhere/gw.json"],
        exit::REFUSED,
        "there is no such file",
    )?;
    ends(&["--vendor-ca", "/nowhere"], exit::NO_INPUT, "/nowhere")?;
    let empty = station.path("empty");
    fs::create_dir(&empty)?;
    let empty = empty.to_string_lossy();
    ends(&[&*empty], exit::NO_INPUT, "there are no requests")?;
    ends(
        &["--inventory", &format!("{empty}/no/x.csv")],
        exit::CANNOT_WRITE,
        "x.csv",
    )?;
    let mut long = station.answering("issue", &requests)?;
    let done = finish(long.args(["--days", "36500"]))?;
    assert_eq!(done.code, exit::SETTINGS, "{done:?}");
    assert!(done.stderr.contains("only valid until"), "{done:?}");

    let with_key = |key: &std::path::Path, more: &[&str], words: &str| -> Result<()> {
        let mut issue = station.answering_with_another_key("issue", &requests)?;
        let done = finish(issue.args(["--days", "1"]).arg("--key").arg(key).args(more))?;
        assert_eq!(done.code, exit::SETTINGS, "{done:?}");
        assert!(done.stderr.contains(words), "no {words:?}: {done:?}");
        Ok(())
    };
    let other = station.path("other.key");
    let key = image_tests::doubles::pki::p256()?;
    fs::write(&other, key.private_key_to_pem_pkcs8()?)?;
    with_key(&other, &[], "--key does not match the certificate in --ca")?;
    with_key(
        &station.operator.certificate_path(),
        &[],
        "contains no private key",
    )?;
    let cipher = openssl::symm::Cipher::aes_128_cbc();
    let pem = fs::read(station.operator.key_path())?;
    let key = openssl::pkey::PKey::private_key_from_pem(&pem)?;
    fs::write(
        &other,
        key.private_key_to_pem_pkcs8_passphrase(cipher, b"1234")?,
    )?;
    with_key(&other, &[], "give its pass phrase with --pin-file")?;
    let pin = station.path("pin");
    fs::write(&pin, "4321\n")?;
    let pin_text = pin.to_string_lossy();
    with_key(&other, &["--pin-file", &pin_text], "does not open")?;
    fs::write(&pin, "1234\n")?;
    let mut issue = station.answering_with_another_key("issue", &requests)?;
    issue
        .args(["--days", "1", "--pin-file", &pin_text])
        .arg("--key")
        .arg(&other);
    assert_eq!(finish(&mut issue)?.code, exit::DONE);
    Ok(())
}

#[test]
fn help_has_examples() -> Result<()> {
    let station = Station::new()?;
    for arguments in [
        &["--help"][..],
        &["issue", "--help"],
        &["wrap", "--help"],
        &["reissue", "--help"],
        &["inspect", "--help"],
    ] {
        let shown = finish(&mut station.command(arguments)?)?;
        assert_eq!(shown.code, exit::DONE);
        assert!(shown.stdout.contains("Example"), "{}", shown.stdout);
    }
    Ok(())
}

#[test]
fn only_a_ca_that_may_sign_certificates_issues_them() -> Result<()> {
    let (station, requests) = with_requests(1)?;
    let certificate = station.path("self-signed.pem");
    for (constraints, usage, code) in [
        ("CA:FALSE", "keyCertSign", exit::SETTINGS),
        ("CA:TRUE", "cRLSign,digitalSignature", exit::SETTINGS),
        ("CA:TRUE", "keyCertSign", exit::DONE),
    ] {
        succeed(
            bounded("openssl")
                .args([
                    "req",
                    "-x509",
                    "-config",
                    "/dev/null",
                    "-subj",
                    "/CN=CA",
                    "-key",
                ])
                .arg(station.operator.key_path())
                .args([
                    "-addext",
                    &format!("basicConstraints=critical,{constraints}"),
                ])
                .args(["-addext", &format!("keyUsage={usage}"), "-out"])
                .arg(&certificate),
        )?;
        let mut issue = station.command(&["issue", "--days", "1"])?;
        issue.arg(&requests).arg("--ca").arg(&certificate);
        issue.arg("--key").arg(station.operator.key_path());
        issue
            .arg("--vendor-ca")
            .arg(station.manufacturer.certificates());
        let done = finish(issue.arg("--out").arg(station.out()))?;
        assert_eq!(done.code, code, "{constraints}, {usage}: {done:?}");
        let told = done.stderr.contains("a CA that may issue certificates");
        assert_eq!(told, code == exit::SETTINGS, "{done:?}");
    }
    Ok(())
}
