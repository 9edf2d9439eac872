//! firstboot-station as its operator uses it: many requests, allow-list, inventory, inspection, exit statuses.

use std::fs;
use std::path::PathBuf;

use anyhow::Result;
use image_tests::device::station::Station;
use image_tests::doubles::forged_request::ForgedRequest;
use image_tests::process::{bounded, finish};
use serde_json::Value;

use crate::exit;

/// A station and so many requests, named gw-1 and so on.
pub fn with_requests(count: usize) -> Result<(Station, PathBuf)> {
    let station = Station::new()?;
    let requests = station.path("requests");
    for number in 1..=count {
        ForgedRequest::new(&format!("gw-{number}"), &station.manufacturer)?.write(&requests)?;
    }
    Ok((station, requests))
}

/// SHA-256 of a request's EK certificate, as the station prints it.
fn ek_of(station: &Station, record: &str) -> Result<String> {
    let path = station.path("requests").join(record);
    let mut inspect = station.command(&["inspect"])?;
    let shown = finish(inspect.arg(path))?.stdout;
    let line = shown
        .lines()
        .find_map(|l| l.trim().strip_prefix("EK certificate"));
    Ok(line.expect("an EK certificate").trim().to_owned())
}

#[test]
fn a_refused_request_does_not_stop_the_others() -> Result<()> {
    let (station, requests) = with_requests(4)?;
    let bad = requests.join("gw-2.json");
    fs::write(&bad, "{}")?;
    let done = station.issue(&requests)?;
    assert_eq!(done.code, exit::REFUSED, "{done:?}");
    let refused: Vec<_> = done
        .stderr
        .lines()
        .filter(|l| l.starts_with("refused: "))
        .collect();
    assert_eq!(refused.len(), 1, "{done:?}");
    assert!(
        refused[0].contains("gw-2.json: it is not the record of a request"),
        "{refused:?}"
    );
    assert!(
        done.stdout.contains("4 requests: 3 replies written"),
        "{done:?}"
    );
    assert!(done.stdout.contains("1 refused"), "{done:?}");
    for (number, there) in [(1, true), (2, false), (3, true), (4, true)] {
        let reply = station.out().join(format!("gw-{number}.reply.json"));
        assert_eq!(reply.exists(), there, "{number}");
    }
    // No terminal sequences, as there is no terminal.
    assert!(
        !done.stderr.contains('\r') && !done.stderr.contains('['),
        "{done:?}"
    );
    Ok(())
}

#[test]
fn a_run_can_be_repeated() -> Result<()> {
    let (station, requests) = with_requests(2)?;
    let reply = station.out().join("gw-1.reply.json");
    assert_eq!(station.issue(&requests)?.code, exit::DONE);
    let first = fs::read(&reply)?;
    let again = station.issue(&requests)?;
    assert!(
        again.stdout.contains("0 replies written") && again.stdout.contains("2 already answered")
    );
    assert_eq!(fs::read(&reply)?, first);
    // Its older name works, too.
    for force in ["--force", "--again"] {
        let before = fs::read(&reply)?;
        let mut anew = station.issuing(&requests)?;
        let anew = finish(anew.arg(force))?;
        assert!(anew.stdout.contains("2 replies written"), "{anew:?}");
        assert_ne!(fs::read(&reply)?, before);
    }
    // A damaged reply belongs to nobody.
    fs::write(station.out().join("gw-2.reply.json"), "{")?;
    let changed = station.issue(&requests)?;
    assert_eq!(changed.code, exit::DONE, "{changed:?}");
    assert!(changed.stdout.contains("1 reply written"), "{changed:?}");
    Ok(())
}

#[test]
fn only_tpms_of_the_allow_list_get_replies() -> Result<()> {
    let (station, requests) = with_requests(3)?;
    let list = station.path("goods-in.txt");
    let (first, second) = (ek_of(&station, "gw-1.json")?, ek_of(&station, "gw-2.json")?);
    fs::write(&list, format!("# goods-in\n{first}\n{second} gw-7\n"))?;
    let mut issue = station.issuing(&requests)?;
    let done = finish(issue.arg("--ek-allow-list").arg(&list))?;
    assert_eq!(done.code, exit::REFUSED, "{done:?}");
    assert!(station.out().join("gw-1.reply.json").exists());
    assert!(
        done.stderr
            .contains("gw-2.json: the allow-list assigns its TPM to \"gw-7\""),
        "{done:?}"
    );
    assert!(
        done.stderr
            .contains("gw-3.json: its EK certificate is not in the allow-list"),
        "{done:?}"
    );
    // Editors and PowerShell write a byte order mark, or UTF-16.
    let text = format!("{second} gw-2\r\n{first}");
    let units = || "\u{feff}".encode_utf16().chain(text.encode_utf16());
    for written in [
        format!("\u{feff}{text}").into_bytes(),
        units().flat_map(u16::to_le_bytes).collect(),
        units().flat_map(u16::to_be_bytes).collect(),
    ] {
        fs::write(&list, written)?;
        let mut issue = station.issuing(&requests)?;
        let done = finish(issue.arg("--force").arg("--ek-allow-list").arg(&list))?;
        assert!(done.stdout.contains("2 replies written"), "{done:?}");
    }
    fs::write(&list, "nonsense\n")?;
    let mut issue = station.issuing(&requests)?;
    let done = finish(issue.arg("--ek-allow-list").arg(&list))?;
    assert_eq!(done.code, exit::SETTINGS, "{done:?}");
    assert!(done.stderr.contains("line 1"), "{done:?}");
    Ok(())
}

#[test]
fn the_inventory_has_a_line_for_each_device() -> Result<()> {
    let (station, requests) = with_requests(2)?;
    let [csv, jsonl] = ["fleet.csv", "fleet.jsonl"].map(|name| station.path(name));
    let with = |inventory: &PathBuf| -> Result<_> {
        let mut issue = station.issuing(&requests)?;
        finish(issue.arg("--force").arg("--inventory").arg(inventory))
    };
    assert_eq!(with(&csv)?.code, exit::DONE);
    assert_eq!(with(&jsonl)?.code, exit::DONE);
    let table = fs::read_to_string(csv)?;
    let rows: Vec<Vec<&str>> = table.lines().map(|l| l.split(',').collect()).collect();
    assert_eq!(rows.len(), 3, "{table}");
    let lines = fs::read_to_string(jsonl)?;
    let objects: Vec<Value> = lines
        .lines()
        .map(serde_json::from_str)
        .collect::<Result<_, _>>()?;
    assert_eq!(objects.len(), 2);
    let record = fs::read(requests.join("gw-1.json"))?;
    let record: Value = serde_json::from_slice(&record)?;
    let ek = ek_of(&station, "gw-1.json")?;
    for (column, value) in [
        ("ThingName", "gw-1"),
        ("SerialNumber", "10000000a1b2c3d4"),
        ("Tpm", "Infineon_SLB_9670__firmware_7.85"),
        ("EkTpm", "id:49465800_SLB_9670_id:00070055"),
        ("EkSha256", &ek),
        (
            "KeySha256",
            record["key_sha256"].as_str().unwrap_or_default(),
        ),
    ] {
        let at = rows[0]
            .iter()
            .position(|name| *name == column)
            .expect("a column");
        assert_eq!(rows[1][at], value, "{table}");
        assert_eq!(objects[0][column], value, "{lines}");
    }
    let serials: Vec<&str> = objects
        .iter()
        .filter_map(|o| o["CertificateSerial"].as_str())
        .collect();
    assert!(serials.iter().all(|s| s.len() >= 24), "{serials:?}");
    assert_ne!(serials[0], serials[1]);
    let mut issue = station.issuing(&requests)?;
    let refused = finish(issue.args(["--inventory", "fleet.txt"]))?;
    assert_eq!(refused.code, exit::SETTINGS, "{refused:?}");
    Ok(())
}

#[test]
fn requests_and_replies_are_described() -> Result<()> {
    let (station, requests) = with_requests(1)?;
    station.issue(&requests)?;
    let record = requests.join("gw-1.json");
    let reply = station.out().join("gw-1.reply.json");
    let mut inspect = station.command(&["inspect", "--vendor-ca"])?;
    inspect.arg(station.manufacturer.certificates());
    let shown = finish(inspect.arg(&record).arg(&reply))?;
    assert_eq!(shown.code, exit::DONE, "{shown:?}");
    let issuer = station.fingerprint()?.replace(':', "").to_lowercase();
    for words in [
        "request for          gw-1",
        "ECC P-256, attributes 0x60072",
        "id:49465800 SLB 9670 id:00070055",
        "reply for            gw-1",
        &format!("issuer               {issuer}"),
        "verdict              good",
    ] {
        assert!(
            shown.stdout.contains(words),
            "no {words:?}: {}",
            shown.stdout
        );
    }
    let text = fs::read_to_string(&reply)?.replace("gw-1", "gw-2");
    fs::write(&reply, text)?;
    let mut inspect = station.command(&["inspect"])?;
    let shown = finish(inspect.arg(&reply))?;
    assert_eq!(shown.code, exit::REFUSED);
    assert!(
        shown.stdout.contains("refused: it is not signed"),
        "{shown:?}"
    );
    Ok(())
}

#[test]
fn a_terminal_shows_progress() -> Result<()> {
    let (station, requests) = with_requests(3)?;
    let issue = station.issuing(&requests)?;
    let words: Vec<_> = std::iter::once(issue.get_program())
        .chain(issue.get_args())
        .map(|word| word.to_string_lossy())
        .collect();
    let mut script = bounded("script");
    let done = finish(script.args(["-qec", &words.join(" "), "/dev/null"]))?;
    assert_eq!(done.code, exit::DONE, "{done:?}");
    assert!(
        done.stdout.contains("] 1/3") && done.stdout.contains("] 3/3"),
        "{done:?}"
    );
    Ok(())
}
