//! Greengrass and the operator may read firstboot's files at any moment: they see a whole version, old or new.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread;

use anyhow::{Context, Result};
use image_tests::clients::KeyType;
use image_tests::device::{Device, offline_settings};
use image_tests::doubles::pki::Authority;
use image_tests::faults::storage::Recording;
use serde_json::{Value, json};

use crate::usual;

const FILES: [&str; 6] = [
    "etc/greengrass/config.yaml",
    "etc/greengrass/openssl.cnf",
    "etc/greengrass/root-ca.pem",
    "var/lib/tpm2_pkcs11/certificate.pem",
    "var/lib/tpm2_pkcs11/pin",
    "boot/firstboot/status.json",
];

/// Every content that was seen, by file.
type Seen = BTreeMap<&'static str, BTreeSet<Vec<u8>>>;

fn look(root: &Path, seen: &mut Seen) -> Result<()> {
    for file in FILES {
        let content = fs::read(root.join(file)).with_context(|| format!("no {file}"))?;
        seen.entry(file).or_default().insert(content);
    }
    Ok(())
}

/// A reader saw only whole files: versions as they are between runs, or a status.
#[track_caller]
fn assert_whole(seen: &Seen, versions: &Seen) {
    for (file, contents) in seen {
        for content in contents {
            let text = String::from_utf8_lossy(content);
            let whole = match *file {
                // A run also writes statuses while it works.
                "boot/firstboot/status.json" => {
                    let status = serde_json::from_slice::<Value>(content);
                    status.is_ok_and(|s| s["state"].is_string() && s["message"].is_string())
                }
                _ => versions.get(file).is_some_and(|v| v.contains(content)),
            };
            assert!(whole, "{file} was seen as {text:?}");
        }
    }
}

fn enrolled(authority: &Authority) -> Result<Device> {
    let device = usual()?;
    device.enroll_with(authority)?;
    Ok(device)
}

/// New settings and a new certificate at once: everything is written again.
fn change(device: &Device, authority: &Authority, round: usize) -> Result<()> {
    let mut settings = offline_settings("nucleus-lite", KeyType::EccP256);
    settings["greengrass"]["iot_data_endpoint"] = json!(format!("round-{round}.example.com"));
    device.settings(&settings)?;
    device.drop_certificate(&authority.sign(&device.request()?)?)?;
    Ok(())
}

/// At every possible moment: between any two storage calls.
#[test]
fn between_any_two_storage_calls_everything_is_whole() -> Result<()> {
    let authority = Authority::new()?;
    let device = enrolled(&authority)?;
    let (mut seen, mut versions) = (Seen::new(), Seen::new());
    look(device.root(), &mut versions)?;
    change(&device, &authority, 1)?;
    let recording = Recording::make(device.firstboot(&["enroll"])?, device.root(), 0, |_| {
        look(device.root(), &mut seen)
    })?;
    look(device.root(), &mut versions)?;
    assert!(recording.points() > 20, "{:?}", recording.calls());
    assert_whole(&seen, &versions);
    for file in [FILES[0], FILES[3]] {
        assert_eq!(versions[file].len(), 2, "{file} did not change");
    }
    Ok(())
}

/// With a reader that runs at the same time, again and again.
#[test]
fn a_reader_in_a_loop_sees_whole_files_only() -> Result<()> {
    let authority = Authority::new()?;
    let device = enrolled(&authority)?;
    let mut versions = Seen::new();
    look(device.root(), &mut versions)?;
    let end = AtomicBool::new(false);
    let (looked, looks) = mpsc::channel();
    let read = |looked: mpsc::Sender<()>| -> Result<Seen> {
        let mut seen = Seen::new();
        while !end.load(Ordering::Relaxed) {
            look(device.root(), &mut seen)?;
            looked.send(())?;
        }
        Ok(seen)
    };
    let write = |versions: &mut Seen| -> Result<()> {
        for round in 0..8 {
            change(&device, &authority, round)?;
            device.succeed(&["enroll"])?;
            look(device.root(), versions)?;
            // The first look may have begun earlier; the second one sees this version.
            while looks.try_recv().is_ok() {}
            for _ in 0..2 {
                looks.recv().context("the reader has ended")?;
            }
        }
        Ok(())
    };
    let seen = thread::scope(|scope| {
        let reader = scope.spawn(|| read(looked));
        let written = write(&mut versions);
        end.store(true, Ordering::Relaxed);
        let seen = reader.join();
        let seen = seen.unwrap_or_else(|_| anyhow::bail!("the reader panicked"))?;
        written?;
        Ok::<_, anyhow::Error>(seen)
    })?;
    assert_whole(&seen, &versions);
    assert!(seen[FILES[0]].len() > 5, "the reader has missed most of it");
    Ok(())
}
