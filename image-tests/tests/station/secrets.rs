//! The unencrypted certificate is the secret: whoever has it could use it for a key that is in no TPM. It is in no
//! file, no output and no system call of the station.

use std::process::Command;

use anyhow::Result;
use image_tests::clients::KeyType;
use image_tests::device::station::Station;
use image_tests::doubles::forged_request::ForgedRequest;
use image_tests::doubles::software_tpm::Ek;
use image_tests::process::finish;
use openssl::x509::X509;

use crate::device::thing_name;
use crate::end_to_end::device;
use crate::exit;

/// Bytes that only this certificate has: the serial number and signature in DER, and the lines of the PEM.
fn traces(pem: &str) -> Result<Vec<Vec<u8>>> {
    let leaf = X509::from_pem(pem.as_bytes())?;
    let der = leaf.to_der()?;
    let mut traces = vec![
        leaf.serial_number().to_bn()?.to_vec(),
        leaf.signature().as_slice().to_vec(),
        der[der.len() - 40..].to_vec(),
    ];
    let end = pem.find("-----END").unwrap_or(pem.len());
    // Many certificates have the same first line, and the last one may be short.
    let lines = pem[..end].lines().skip(2).filter(|line| line.len() == 64);
    traces.extend(lines.map(|line| line.as_bytes().to_vec()));
    Ok(traces)
}

/// Bytes as strace -xx writes them.
fn escaped(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("\\x{byte:02x}")).collect()
}

fn contains(content: &[u8], trace: &[u8]) -> bool {
    content.windows(trace.len()).any(|window| window == trace)
}

#[test]
fn the_certificate_is_nowhere_in_clear() -> Result<()> {
    let station = Station::new()?;
    let device = device(&station, KeyType::EccP256, Ek::P256)?;
    device.succeed(&["provision"])?;
    let log = station.path("strace");
    let issue = station.issuing(&device.path("/boot/firstboot/requests"))?;
    let mut strace = Command::new("strace");
    strace.args(["-f", "-xx", "-s", "1000000", "-o"]).arg(&log);
    strace.arg(issue.get_program()).args(issue.get_args());
    strace.env("TMPDIR", station.path(""));
    let done = finish(&mut strace)?;
    assert_eq!(done.code, exit::DONE, "{done:?}");
    let traced = std::fs::read_to_string(&log)?;
    // The log has the written bytes in this form, among them the start of the reply.
    let begins = escaped(b"{\n  \"version\": 1,\n  \"thing_name\": \"");
    assert!(traced.contains(&begins), "strace logged no reply");
    std::fs::remove_file(&log)?;

    station.put_replies(&device)?;
    device.succeed(&["enroll"])?;
    let pem = device.read("/var/lib/tpm2_pkcs11/certificate.pem")?;
    let traces = traces(&pem)?;
    assert!(traces.len() > 6, "{pem}");
    let mut looked_at = 0;
    let mut directories = vec![station.path("")];
    while let Some(directory) = directories.pop() {
        for entry in directory.read_dir()? {
            let path = entry?.path();
            if path.is_dir() {
                directories.push(path);
                continue;
            }
            looked_at += 1;
            let content = std::fs::read(&path)?;
            for trace in &traces {
                assert!(!contains(&content, trace), "{} has it", path.display());
            }
        }
    }
    assert!(looked_at > 0);
    let said = done.stdout + &done.stderr;
    for trace in &traces {
        assert!(!contains(said.as_bytes(), trace), "{said}");
        assert!(
            !traced.contains(&escaped(trace)),
            "a system call has {trace:02x?}"
        );
    }
    // The check finds something: the CA's own certificate, which the station reads.
    let ca = station.operator.certificate_pem()?;
    let line = ca.lines().nth(2).unwrap_or_default();
    assert!(traced.contains(&escaped(line.as_bytes())));
    Ok(())
}

/// Serial numbers cannot be guessed: everything else in a certificate can be known from the request and the CA's
/// certificate.
#[test]
fn serial_numbers_are_random() -> Result<()> {
    let station = Station::new()?;
    let requests = station.path("requests");
    ForgedRequest::new("gw-1", &station.manufacturer)?.write(&requests)?;
    let inventory = station.path("fleet.csv");
    for _ in 0..8 {
        let mut issue = station.issuing(&requests)?;
        let done = finish(issue.arg("--force").arg("--inventory").arg(&inventory))?;
        assert_eq!(done.code, exit::DONE, "{}: {done:?}", thing_name());
    }
    let table = std::fs::read_to_string(inventory)?;
    let serials: Vec<_> = table
        .lines()
        .skip(1)
        .filter_map(|l| l.rsplit(',').next())
        .collect();
    let different: std::collections::BTreeSet<_> = serials.iter().map(|s| &s[..4]).collect();
    assert_eq!(serials.len(), 8);
    assert!(different.len() >= 6, "{serials:?}");
    assert!(serials.iter().any(|s| s.len() > 30), "{serials:?}");
    Ok(())
}
