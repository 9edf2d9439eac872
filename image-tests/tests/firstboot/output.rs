//! What firstboot says, and to whom: readers that have gone away, disks that are full, words that steer terminals.

use std::fs::{self, File};

use anyhow::Result;
use image_tests::authority::Authority;
use image_tests::device::STORE;
use image_tests::process::{finish, finish_unread};
use serde_json::Value;

use crate::{exit, usual};

/// `firstboot provision 2>&1 | head` must not leave half an identity, nor any other command half its work.
#[test]
fn nobody_reads_and_everything_is_done() -> Result<()> {
    let device = usual()?;
    let unread = |arguments: &[&str]| finish_unread(&mut device.firstboot(arguments)?);
    assert_eq!(unread(&["--verbose", "provision"])?, exit::DONE);
    let authority = Authority::new()?;
    let certificate = authority.sign(&device.request()?)?;
    assert_eq!(unread(&["enroll"])?, exit::WAITING);
    device.drop_certificate(&certificate)?;
    assert_eq!(unread(&["enroll"])?, exit::DONE);
    for look in [
        &["status"][..],
        &["status", "--json"],
        &["tpm", "--json"],
        &["--help"],
    ] {
        assert_eq!(unread(look)?, exit::DONE, "{look:?}");
    }
    assert_eq!(device.status()?["state"], "Done");
    let status: Value = serde_json::from_str(&device.succeed(&["status", "--json"])?)?;
    assert_eq!(status["state"], "Done");
    assert_eq!(unread(&["reset"])?, exit::DONE);
    assert!(!device.exists(STORE));
    Ok(())
}

/// A reader that has gone is no failure; a report that a full disk has swallowed is one.
#[test]
fn a_report_that_is_lost_is_a_failure() -> Result<()> {
    let device = usual()?;
    let mut status = device.firstboot(&["status", "--json"])?;
    let full = File::options().write(true).open("/dev/full")?;
    let status = status.stdout(full).status()?;
    assert_eq!(status.code(), Some(exit::CANNOT_WRITE));
    Ok(())
}

#[test]
fn words_of_others_do_not_steer_the_terminal() -> Result<()> {
    let device = usual()?;
    device.succeed(&["provision"])?;
    // A key of the settings that turns the line round, blanks it, and is invisible.
    let odd = "a\u{202e}b\u{9b}2J\u{2028}\u{e0041}";
    let settings = serde_json::json!({ odd: 1 });
    fs::write(device.boot_file("firstboot.json"), settings.to_string())?;
    let mut said = String::new();
    for arguments in [&["provision"][..], &["status"], &["status", "--json"]] {
        let done = finish(&mut device.firstboot(arguments)?)?;
        said += &(done.stdout + &done.stderr);
    }
    said += &fs::read_to_string(device.boot_file("status.json"))?;
    assert!(said.contains("\\u{202e}b\\u{9b}2J"), "{said}");
    assert!(
        !said.contains(['\u{202e}', '\u{9b}', '\u{2028}', '\u{e0041}']),
        "{said:?}"
    );
    Ok(())
}
