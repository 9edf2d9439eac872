//! Files that people put onto the card, in the forms in which editors, shells and tools write them.

use std::fs;

use anyhow::{Context, Result};
use image_tests::device::Device;
use image_tests::doubles::pki::Authority;
use openssl::x509::X509;

use crate::{assert_ends, exit, thing_name, usual};

const KEPT: &str = "/var/lib/tpm2_pkcs11/certificate.pem";
const SETTINGS: &str = "/boot/firstboot/firstboot.json";
const ROOT_CA: &str = "/boot/firstboot/root-ca.pem";

fn utf16(text: &str, mark: &str, bytes: fn(u16) -> [u8; 2]) -> Vec<u8> {
    let units = mark.encode_utf16().chain(text.encode_utf16());
    units.flat_map(bytes).collect()
}

/// The forms of Unicode that are not plain UTF-8.
fn unicode(text: &str) -> Vec<Vec<u8>> {
    vec![
        format!("\u{FEFF}{text}").into_bytes(),
        utf16(text, "\u{FEFF}", u16::to_le_bytes),
        utf16(text, "\u{FEFF}", u16::to_be_bytes),
        utf16(text, "", u16::to_le_bytes),
    ]
}

fn der(pem: &str) -> Result<Vec<u8>> {
    Ok(X509::from_pem(pem.as_bytes())?.to_der()?)
}

fn put(device: &Device, content: &[u8]) -> Result<()> {
    let path = format!("/boot/firstboot/certificates/{}.pem", thing_name());
    device.write(path, content)
}

#[test]
fn a_certificate_is_accepted_in_each_form() -> Result<()> {
    let device = usual()?;
    device.succeed(&["provision"])?;
    let authority = Authority::new()?;
    let request = device.request()?;
    for nth in 0..11 {
        // Each is a new one, so that its acceptance shows.
        let pem = authority.sign(&request)?;
        let escaped = pem.replace('\n', "\\n");
        let content = match nth {
            0..4 => unicode(&pem).swap_remove(nth),
            4 => der(&pem)?,
            // System.Text.Json and PHP escape these characters; and a joined chain has its CA first.
            5 => format!(
                "{{\"pem\": \"{}\"}}",
                escaped.replace('/', "\\/").replace('+', "\\u002B")
            )
            .into_bytes(),
            6 => format!("{}{pem}", authority.certificate_pem()?.trim_end()).into_bytes(),
            7 => pem.replace('\n', "\r").into_bytes(),
            8 => pem.replace('\n', "\n    ").into_bytes(),
            9 => utf16(&escaped, "\u{FEFF}", u16::to_be_bytes),
            _ => [b"Zertifikat f\xFCr\r\n", pem.as_bytes()].concat(),
        };
        put(&device, &content)?;
        let outcome = device.run(&["enroll"])?;
        assert_ends(&outcome, exit::DONE, "");
        assert!(
            device.read(KEPT)?.starts_with(&pem),
            "form {nth}: {outcome:?}"
        );
        // The same one in another form changes nothing.
        let before = device.snapshot()?.without("/boot");
        put(&device, pem.as_bytes())?;
        device.succeed(&["enroll"])?;
        if nth != 6 {
            before.assert_same(&device.snapshot()?.without("/boot"));
        }
    }
    Ok(())
}

#[test]
fn settings_are_accepted_in_each_form_of_unicode() -> Result<()> {
    for nth in 0..4 {
        let device = usual()?;
        let text = device.read(SETTINGS)?;
        device.write(SETTINGS, unicode(&text).swap_remove(nth))?;
        device.succeed(&["provision"])?;
    }
    Ok(())
}

/// Text that is not Unicode is refused, not guessed: a wrong guess would be in the certificate's subject for years.
#[test]
fn settings_in_a_legacy_encoding_are_refused() -> Result<()> {
    let device = usual()?;
    device.write(SETTINGS, b"{\"subject\": {\"O\": \"M\xFCller\"}}")?;
    let outcome = device.run(&["provision"])?;
    assert_ends(&outcome, exit::SETTINGS, "firstboot.json");
    Ok(())
}

/// Whatever the form on the card, Greengrass gets one that every reader accepts.
#[test]
fn roots_in_each_form_reach_greengrass_as_plain_pem() -> Result<()> {
    let device = usual()?;
    device.enroll_with(&Authority::new()?)?;
    let (one, two) = (
        Authority::new()?.certificate_pem()?,
        Authority::new()?.certificate_pem()?,
    );
    let both = format!("{one}{two}");
    let mut forms = unicode(&both);
    forms.push([der(&one)?, der(&two)?].concat());
    forms.push(format!("{}{two}", one.trim_end()).into_bytes());
    forms.push(format!("\n# {one}\n{two}{one}").into_bytes());
    forms.push([b"# Autorit\xE9s\r\n", both.replace('\n', "\r\n").as_bytes()].concat());
    for form in forms {
        device.write(ROOT_CA, &form)?;
        device.succeed(&["enroll"])?;
        assert_eq!(device.read("/etc/greengrass/root-ca.pem")?, both);
    }
    Ok(())
}

#[test]
fn a_root_path_that_is_not_a_file_is_a_settings_error() -> Result<()> {
    let device = usual()?;
    let path = device.path(ROOT_CA);
    fs::create_dir(&path)?;
    assert_ends(&device.run(&["provision"])?, exit::SETTINGS, "root-ca.pem");
    fs::remove_dir(&path)?;
    std::os::unix::fs::symlink("/etc/ssl/certs", &path)?;
    assert_ends(&device.run(&["provision"])?, exit::SETTINGS, "root-ca.pem");
    fs::remove_file(&path)?;
    nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU)?;
    assert_ends(&device.run(&["provision"])?, exit::SETTINGS, "root-ca.pem");
    fs::remove_file(&path)?;
    let request = "-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n";
    for (content, words) in [
        (vec![b'\n'; 64 * 1024 + 1], "is larger than 65536 bytes"),
        (Vec::new(), "it is empty"),
        (
            request.into(),
            "it contains a block \"CERTIFICATE REQUEST\"",
        ),
        (b"<html>".to_vec(), "it is HTML"),
    ] {
        device.write(ROOT_CA, content)?;
        assert_ends(&device.run(&["provision"])?, exit::SETTINGS, words);
    }
    fs::remove_file(&path)?;
    device.succeed(&["provision"])?;
    Ok(())
}

/// Files where the certificate is expected are named: at most three, this thing's first.
#[test]
fn files_in_the_certificates_place_are_named() -> Result<()> {
    let device = usual()?;
    device.succeed(&["provision"])?;
    let authority = Authority::new()?;
    let pem = authority.sign(&device.request()?)?;
    let thing = thing_name();
    let place = |name: &str| format!("/boot/firstboot/certificates/{name}");
    device.write(place("._hidden"), "")?;
    device.write(
        place("a-neighbour.pem"),
        authority.certificate_of_another_key("a")?,
    )?;
    device.write(place(&format!("{thing}.pem.crt")), der(&pem)?)?;
    device.write(
        place(&format!("{thing}.csr.pem")),
        fs::read(device.request()?)?,
    )?;
    device.write(
        place(&format!("{thing}.key")),
        fs::read(authority.key_path())?,
    )?;
    let outcome = device.run(&["enroll"])?;
    let names = [
        format!("{thing}.csr.pem (a certificate request, not yet signed)"),
        format!("{thing}.key (a private key)"),
        format!("{thing}.pem.crt (this device's certificate: rename it)"),
        "and 1 more".to_owned(),
    ];
    assert_ends(&outcome, exit::WAITING, &names.join(", "));
    let message = device.status()?["message"].to_string();
    assert!(message.contains(&names[2]), "{message}");
    // It is reported once: an unchanged report is not written again.
    let before = device.snapshot()?;
    device.run(&["enroll"])?;
    before.assert_same(&device.snapshot()?);

    fs::rename(
        device.path(place(&format!("{thing}.pem.crt"))),
        device.path(place(&format!("{thing}.pem"))),
    )?;
    device.succeed(&["enroll"])?;
    assert_eq!(device.read(KEPT)?, pem);
    Ok(())
}

/// The folder is not even read if no certificate is expected.
#[test]
fn a_device_that_is_done_does_not_look_around() -> Result<()> {
    let device = usual()?;
    device.enroll_with(&Authority::new()?)?;
    let log = tempfile::NamedTempFile::new()?;
    let firstboot = device.firstboot(&["enroll"])?;
    let mut strace = std::process::Command::new("strace");
    strace
        .args(["-f", "-e", "trace=openat", "-o"])
        .arg(log.path());
    strace
        .arg(firstboot.get_program())
        .args(firstboot.get_args());
    image_tests::process::succeed(&mut strace)?;
    let opened = fs::read_to_string(log.path())?;
    let certificates = device.boot_file("certificates");
    let certificates = certificates.to_str().context("a path")?;
    assert!(opened.contains(&format!("{certificates}/")), "{opened}");
    assert!(!opened.contains(&format!("{certificates}\"")), "{opened}");
    Ok(())
}
