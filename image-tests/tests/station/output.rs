//! The station's output: readers that have gone away, names with terminal sequences.

use std::fs;

use anyhow::Result;
use image_tests::doubles::forged_request::ForgedRequest;
use image_tests::process::{finish, finish_unread};

use crate::commands::with_requests;
use crate::exit;

#[test]
fn everything_is_done_without_a_reader() -> Result<()> {
    let (station, requests) = with_requests(3)?;
    fs::write(requests.join("gw-2.json"), "{}")?;
    assert_eq!(
        finish_unread(&mut station.issuing(&requests)?)?,
        exit::REFUSED
    );
    for (number, there) in [(1, true), (2, false), (3, true)] {
        let reply = station.out().join(format!("gw-{number}.reply.json"));
        assert_eq!(reply.exists(), there, "{number}");
    }
    let mut inspect = station.command(&["inspect"])?;
    inspect.args([requests.join("gw-1.json"), requests.join("gw-3.json")]);
    assert_eq!(finish_unread(&mut inspect)?, exit::DONE);
    inspect.arg(requests.join("gw-2.json"));
    assert_eq!(finish_unread(&mut inspect)?, exit::REFUSED);
    assert_eq!(
        finish_unread(&mut station.command(&["--help"])?)?,
        exit::DONE
    );
    Ok(())
}

#[test]
fn foreign_text_and_file_names_do_not_control_the_terminal() -> Result<()> {
    let (station, requests) = with_requests(1)?;
    let odd = "\u{1b}[2J\u{202e}\u{2066}\u{2029}";
    let forged = ForgedRequest::new("gw-2", &station.manufacturer)?;
    let record = forged.write_changed(&requests, |record| {
        record["tpm"] = odd.into();
        record["serial"] = odd.into();
    })?;
    let renamed = requests.join(format!("gw{odd}.json"));
    fs::rename(&record, &renamed)?;
    let done = station.issue(&requests)?;
    let mut inspect = station.command(&["inspect"])?;
    let shown = finish(inspect.arg(&renamed))?;
    assert_eq!((done.code, shown.code), (exit::REFUSED, exit::REFUSED));
    let said = done.stdout + &done.stderr + &shown.stdout + &shown.stderr;
    assert!(said.contains("gw\\u{1b}[2J\\u{202e}\\u{2066}"), "{said}");
    assert!(
        !said.contains(['\u{1b}', '\u{202e}', '\u{2066}', '\u{2029}']),
        "{said:?}"
    );
    Ok(())
}
