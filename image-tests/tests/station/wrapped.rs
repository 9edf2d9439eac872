//! `wrap`: a certificate that somebody else issued for the request, such as AWS IoT from a CSR.

use std::fs;
use std::process::Stdio;

use anyhow::Result;
use image_tests::clients::KeyType;
use image_tests::device::station::Station;
use image_tests::doubles::pki::{Authority, Validity};
use image_tests::doubles::software_tpm::Ek;
use image_tests::process::finish;

use crate::device::thing_name;
use crate::end_to_end::device;
use crate::exit;

#[test]
fn somebody_elses_certificate_comes_through_a_pipe_and_is_opened() -> Result<()> {
    let station = Station::new()?;
    let device = device(&station, KeyType::EccP256, Ek::P256)?;
    device.succeed(&["provision"])?;
    let pem = Authority::new()?.sign(&device.request()?)?;
    let mut pipe = tempfile::tempfile()?;
    std::io::Write::write_all(&mut pipe, pem.as_bytes())?;
    std::io::Seek::rewind(&mut pipe)?;
    let mut wrap = station.answering("wrap", &device.path("/boot/firstboot/requests"))?;
    let done = finish(wrap.args(["--certificate", "-"]).stdin(Stdio::from(pipe)))?;
    assert_eq!(done.code, exit::DONE, "{done:?}");
    station.put_replies(&device)?;
    device.succeed(&["enroll"])?;
    assert_eq!(device.status()?["state"], "Done");
    let accepted = device.read("/var/lib/tpm2_pkcs11/certificate.pem")?;
    assert_eq!(accepted.trim(), pem.trim());
    Ok(())
}

#[test]
fn a_certificate_that_the_device_would_refuse_is_refused_here() -> Result<()> {
    let station = Station::new()?;
    let device = device(&station, KeyType::EccP256, Ek::P256)?;
    device.succeed(&["provision"])?;
    let certificates = station.path("issued");
    fs::create_dir(&certificates)?;
    let file = certificates.join(format!("{}.pem", thing_name()));
    let authority = Authority::new()?;
    let request = device.request()?;
    let wrap = |pem: &str| -> Result<_> {
        fs::write(&file, pem)?;
        let mut wrap = station.answering("wrap", &device.path("/boot/firstboot/requests"))?;
        finish(wrap.arg("--certificate").arg(&certificates))
    };
    for (pem, words) in [
        (
            authority.certificate_of_another_key(&thing_name())?,
            "another key",
        ),
        (
            authority.sign_valid(&request, Validity::Expired)?,
            "expired",
        ),
        (authority.certificate_pem()?, "only CA certificates"),
        (String::new(), "contains no certificate"),
    ] {
        let done = wrap(&pem)?;
        assert_eq!(done.code, exit::REFUSED, "{done:?}");
        assert!(done.stderr.contains(words), "no {words:?}: {done:?}");
    }
    let done = wrap(&authority.sign(&request)?)?;
    assert_eq!(done.code, exit::DONE, "{done:?}");
    fs::remove_file(&file)?;
    let mut again = station.answering("wrap", &device.path("/boot/firstboot/requests"))?;
    let done = finish(again.arg("--force").arg("--certificate").arg(&certificates))?;
    assert_eq!(done.code, exit::REFUSED, "{done:?}");
    assert!(done.stderr.contains("there is no certificate"), "{done:?}");
    Ok(())
}
