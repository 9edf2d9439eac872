//! One name, one device: requests that contradict each other, names that are taken, names that fit no certificate. Each
//! is refused by itself, and the other requests are done.

use std::fs;
use std::path::Path;

use anyhow::Result;
use image_tests::clients::KeyType;
use image_tests::device::station::Station;
use image_tests::doubles::forged_request::ForgedRequest;
use image_tests::doubles::pki::Authority;
use image_tests::doubles::software_tpm::Ek;
use image_tests::process::{Finished, finish};
use serde_json::{Value, json};

use crate::commands::with_requests;
use crate::end_to_end::device;
use crate::exit;

fn has_reply(station: &Station, name: &str) -> bool {
    station.out().join(format!("{name}.reply.json")).exists()
}

#[track_caller]
fn refuses(done: &Finished, file: &str, words: &str) {
    assert_eq!(done.code, exit::REFUSED, "{done:?}");
    let mut lines = done.stderr.lines();
    let of_it = lines.find(|l| l.starts_with("refused: ") && l.contains(&format!("{file}: ")));
    assert!(
        of_it.is_some_and(|l| l.contains(words)),
        "no {words:?}: {done:?}"
    );
}

/// 65 to 128 characters are allowed in a thing's name, but not in a common name.
#[test]
fn a_name_that_is_too_long_for_a_certificate_is_refused() -> Result<()> {
    let (station, _) = with_requests(1)?;
    let device = device(&station, KeyType::EccP256, Ek::P256)?;
    let path = "/boot/firstboot/firstboot.json";
    let mut settings: Value = serde_json::from_str(&device.read(path)?)?;
    for (length, code) in [(64, exit::DONE), (65, exit::REFUSED), (128, exit::REFUSED)] {
        let name = "n".repeat(length);
        settings["thing_name"] = json!(name);
        device.write(path, settings.to_string())?;
        device.succeed(&["provision"])?;
        let record = device.path(format!("/boot/firstboot/requests/{name}.json"));
        let mut issue = station.issuing(&record)?;
        let done = finish(issue.args(["--force".as_ref(), station.path("requests").as_os_str()]))?;
        assert_eq!(done.code, code, "{done:?}");
        assert_eq!(has_reply(&station, &name), length <= 64);
        assert!(has_reply(&station, "gw-1"));
        if length > 64 {
            refuses(&done, &format!("{name}.json"), "at most 64");
        }
    }
    // A certificate that somebody else issued all the same is wrapped.
    let name = "n".repeat(128);
    let request = |end: &str| device.path(format!("/boot/firstboot/requests/{name}.{end}"));
    let certificate = station.path("issued.pem");
    fs::write(&certificate, Authority::new()?.sign(&request("csr.pem"))?)?;
    let record = request("json");
    let mut wrap = station.answering("wrap", &record)?;
    let done = finish(wrap.arg("--certificate").arg(certificate))?;
    assert_eq!(done.code, exit::DONE, "{done:?}");
    assert!(has_reply(&station, &name));
    Ok(())
}

/// Whoever had the card can write another name into the record, but not into the CSR that the key signed.
#[test]
fn a_record_with_another_name_than_its_csr_is_refused() -> Result<()> {
    let (station, requests) = with_requests(2)?;
    ForgedRequest::new("gw-3", &station.manufacturer)?
        .write_changed(&requests, |record| record["thing_name"] = json!("gw-4"))?;
    let done = station.issue(&requests)?;
    refuses(
        &done,
        "gw-3.json",
        "its CSR is for \"gw-3\", its record for \"gw-4\"",
    );
    assert!(has_reply(&station, "gw-1") && has_reply(&station, "gw-2"));
    assert!(!has_reply(&station, "gw-3") && !has_reply(&station, "gw-4"));
    let mut inspect = station.command(&["inspect"])?;
    let shown = finish(inspect.arg(requests.join("gw-3.json")))?;
    assert_eq!(shown.code, exit::REFUSED, "{shown:?}");
    Ok(())
}

/// None of them gets a reply, not even the first, as nobody knows which is right.
#[test]
fn requests_for_one_name_are_all_refused() -> Result<()> {
    let (station, requests) = with_requests(1)?;
    let others = station.path("others");
    for (folder, name) in [
        (&requests, "gw-2"),
        (&others, "gw-2"),
        (&requests, "line:7"),
        (&others, "LINE_7"),
    ] {
        ForgedRequest::new(name, &station.manufacturer)?.write(folder)?;
    }
    let mut issue = station.issuing(&requests)?;
    // --force is not for this.
    let done = finish(issue.arg("--force").arg(&others))?;
    for folder in [&requests, &others] {
        let file = folder.join("gw-2.json").display().to_string();
        refuses(
            &done,
            &file,
            "another request in this run is for \"gw-2\", too",
        );
    }
    refuses(
        &done,
        "line_7.json",
        "\"LINE_7\", whose files have the same names on a card",
    );
    refuses(
        &done,
        "LINE_7.json",
        "\"line:7\", whose files have the same names on a card",
    );
    assert!(done.stdout.contains("1 reply written") && done.stdout.contains("4 refused"));
    assert!(has_reply(&station, "gw-1"), "{done:?}");
    Ok(())
}

/// A record that is refused by itself blocks no other, as anybody can write one.
#[test]
fn a_forged_request_does_not_block_a_name() -> Result<()> {
    let (station, requests) = with_requests(1)?;
    let others = station.path("others");
    let mut forged = ForgedRequest::new("gw-1", &station.manufacturer)?;
    forged.ek_certificate = None;
    forged.write(&others)?;
    let mut issue = station.issuing(&requests)?;
    let done = finish(issue.arg(&others))?;
    refuses(&done, "others/gw-1.json", "unattested");
    assert!(has_reply(&station, "gw-1"));
    Ok(())
}

/// A thing has a key for its networks beside its own.
#[test]
fn both_requests_of_a_card_are_answered() -> Result<()> {
    for form in ["csv", "jsonl"] {
        let (station, _) = with_requests(1)?;
        let inventory = station.path("fleet").with_extension(form);
        let issue = |requests: &Path| -> Result<Finished> {
            let mut issue = station.issuing(requests)?;
            finish(issue.arg("--inventory").arg(&inventory))
        };
        let one = station.path("one");
        let mine = ForgedRequest::new("gw-1", &station.manufacturer)?;
        mine.write(&one)?;
        mine.for_networks()?.write(&one)?;
        for _ in 0..2 {
            let done = issue(&one)?;
            assert_eq!(done.code, exit::DONE, "{done:?}");
            assert!(has_reply(&station, "gw-1") && has_reply(&station, "gw-1.eap"));
        }
        assert!(fs::read_to_string(&inventory)?.contains("gw-1.eap"));
        // Neither by the replies nor by the inventory has another key, or another TPM, that name.
        let others = station.path("others");
        mine.for_networks()?.write(&others)?;
        let stranger = ForgedRequest::new("gw-1", &station.manufacturer)?;
        let strangers = station.path("strangers");
        stranger.for_networks()?.write(&strangers)?;
        for folder in [&others, &strangers] {
            let taken = "has been given to another TPM or key";
            refuses(&issue(folder)?, "gw-1.eap.json", taken);
        }
        fs::remove_dir_all(station.out())?;
        for folder in [&others, &strangers] {
            let taken = "has been given to another TPM or key";
            refuses(&issue(folder)?, "gw-1.eap.json", taken);
        }
    }
    Ok(())
}

/// Whichever of the two comes first, the other one has to come from the same TPM.
#[test]
fn a_thing_and_its_networks_have_one_tpm() -> Result<()> {
    let (station, _) = with_requests(1)?;
    let one = station.path("one");
    let mine = ForgedRequest::new("gw-1", &station.manufacturer)?;
    let stranger = ForgedRequest::new("gw-1", &station.manufacturer)?;
    stranger.write(&one)?;
    mine.for_networks()?.write(&one)?;
    let done = station.issue(&one)?;
    for file in ["gw-1.json", "gw-1.eap.json"] {
        let words = "another request in this run is for \"gw-1\", too";
        refuses(&done, file, words);
    }
    fs::remove_file(one.join("gw-1.json"))?;
    assert_eq!(station.issue(&one)?.code, exit::DONE);
    let two = station.path("two");
    stranger.write(&two)?;
    let taken = "has been given to another TPM or key";
    refuses(&station.issue(&two)?, "gw-1.json", taken);
    mine.write(&two)?;
    assert_eq!(station.issue(&two)?.code, exit::DONE);
    Ok(())
}

/// A renamed device may have left both on its card.
#[test]
fn requests_with_one_key_are_all_refused() -> Result<()> {
    let (station, requests) = with_requests(1)?;
    let mut forged = ForgedRequest::new("before", &station.manufacturer)?;
    forged.write(&requests)?;
    forged.thing = "after".into();
    forged.write(&requests)?;
    let done = station.issue(&requests)?;
    refuses(&done, "before.json", "has the same key, for \"after\"");
    refuses(&done, "after.json", "has the same key, for \"before\"");
    assert!(has_reply(&station, "gw-1"));
    fs::remove_file(requests.join("before.json"))?;
    assert_eq!(station.issue(&requests)?.code, exit::DONE);
    assert!(has_reply(&station, "after"));
    Ok(())
}

#[test]
fn one_request_given_twice_gets_one_reply() -> Result<()> {
    let (station, requests) = with_requests(1)?;
    let mut issue = station.issuing(&requests)?;
    let done = finish(issue.args([requests.join("gw-1.json"), requests.join(".")]))?;
    assert_eq!(done.code, exit::DONE, "{done:?}");
    assert!(
        done.stdout.contains("1 request: 1 reply written"),
        "{done:?}"
    );
    Ok(())
}

#[test]
fn a_name_that_belongs_to_another_tpm_is_refused() -> Result<()> {
    let (station, requests) = with_requests(1)?;
    assert_eq!(station.issue(&requests)?.code, exit::DONE);
    let reply = |name: &str| fs::read(station.out().join(format!("{name}.reply.json")));
    let first = reply("gw-1")?;
    // The same name, and one that is the same file on a card.
    for name in ["gw-1", "GW-1"] {
        let others = station.path(&format!("of-{name}"));
        ForgedRequest::new(name, &station.manufacturer)?.write(&others)?;
        let beside = format!("beside-{}", name.as_bytes()[0]);
        ForgedRequest::new(&beside, &station.manufacturer)?.write(&others)?;
        let done = station.issue(&others)?;
        refuses(
            &done,
            &format!("/{name}.json"),
            "has been given to another TPM or key",
        );
        assert!(has_reply(&station, &beside));
        assert_eq!(reply("gw-1")?, first);
    }
    let mut issue = station.issuing(&station.path("of-gw-1"))?;
    assert_eq!(finish(issue.arg("--force"))?.code, exit::DONE);
    assert_ne!(reply("gw-1")?, first);
    Ok(())
}

/// Replies leave with their cards; the inventory stays at the station.
#[test]
fn a_name_that_the_inventory_gives_to_another_tpm_is_refused() -> Result<()> {
    for form in ["csv", "jsonl"] {
        let (station, requests) = with_requests(1)?;
        let inventory = station.path("fleet").with_extension(form);
        let issue = |requests: &Path, more: &[&str]| -> Result<Finished> {
            let mut issue = station.issuing(requests)?;
            issue.arg("--inventory").arg(&inventory).args(more);
            finish(&mut issue)
        };
        assert_eq!(issue(&requests, &[])?.code, exit::DONE);
        fs::remove_dir_all(station.out())?;
        // The same device once more.
        assert_eq!(issue(&requests, &[])?.code, exit::DONE);
        fs::remove_dir_all(station.out())?;
        let others = station.path("others");
        ForgedRequest::new("Gw-1", &station.manufacturer)?.write(&others)?;
        let done = issue(&others, &[])?;
        refuses(&done, "Gw-1.json", "has been given to another TPM or key");
        assert_eq!(issue(&others, &["--force"])?.code, exit::DONE);
        // From now on it belongs to the other one.
        assert_eq!(issue(&others, &[])?.code, exit::DONE);
        refuses(
            &issue(&requests, &[])?,
            "gw-1.json",
            "has been given to another",
        );
    }
    Ok(())
}
