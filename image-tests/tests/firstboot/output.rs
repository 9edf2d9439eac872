//! firstboot's output: readers that have gone away, full disks, terminal sequences.

use std::fs::{self, File};
use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;

use anyhow::Result;
use image_tests::device::STORE;
use image_tests::doubles::pki::Authority;
use image_tests::process::{finish, finish_unread};
use serde_json::Value;

use crate::{exit, usual};

/// `firstboot provision 2>&1 | head` must not leave half an identity, and no other command half its work.
#[test]
fn everything_is_done_without_a_reader() -> Result<()> {
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

/// A reader that went away is not an error; a report that did not fit onto a full disk is one.
#[test]
fn a_lost_report_is_an_error() -> Result<()> {
    let device = usual()?;
    let mut status = device.firstboot(&["status", "--json"])?;
    let full = File::options().write(true).open("/dev/full")?;
    let status = status.stdout(full).status()?;
    assert_eq!(status.code(), Some(exit::CANNOT_WRITE));
    Ok(())
}

#[test]
fn foreign_text_does_not_control_the_terminal() -> Result<()> {
    let device = usual()?;
    device.succeed(&["provision"])?;
    // A key of the settings that reverses the line, erases it, and is invisible.
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

/// The output of `firstboot enroll` on a device without a certificate, to a Unix socket like the journal's. `variable`
/// makes JOURNAL_STREAM from the socket's device and inode.
fn said(variable: impl Fn(u64, u64) -> Option<String>) -> Result<String> {
    let device = usual()?;
    let (mut reader, writer) = UnixStream::pair()?;
    let stream = File::from(OwnedFd::from(writer));
    let socket = stream.metadata()?;
    let mut firstboot = device.firstboot(&["enroll"])?;
    match variable(socket.dev(), socket.ino()) {
        Some(journal) => firstboot.env("JOURNAL_STREAM", journal),
        None => firstboot.env_remove("JOURNAL_STREAM"),
    };
    let status = firstboot.stderr(stream).status()?;
    assert_eq!(status.code(), Some(exit::WAITING));
    // The command holds the socket's other end open.
    drop(firstboot);
    let mut text = String::new();
    reader.read_to_string(&mut text)?;
    Ok(text)
}

/// sd-daemon(3): a number before each line, by which `journalctl -p` filters.
#[test]
fn the_journal_gets_the_priority_of_each_line() -> Result<()> {
    let text = said(|device, inode| Some(format!("{device}:{inode}")))?;
    let mut levels = Vec::new();
    for line in text.lines() {
        let (prefix, rest) = line.split_at_checked(3).unwrap_or_default();
        let level = rest.split(' ').next().unwrap_or_default();
        let expected = match level {
            "ERROR" => "<3>",
            "WARN" => "<4>",
            "INFO" => "<6>",
            _ => "a level",
        };
        assert_eq!(prefix, expected, "{line}");
        levels.push(level);
    }
    assert!(
        levels.contains(&"INFO") && levels.contains(&"WARN"),
        "{text}"
    );
    Ok(())
}

/// A shell in a service, or a person: the variable is inherited, or not set.
#[test]
fn everybody_else_gets_lines_without_priorities() -> Result<()> {
    type Variable = fn(u64, u64) -> Option<String>;
    let others: [Variable; 4] = [
        |_, _| None,
        |device, inode| Some(format!("{device}:{}", inode + 1)),
        |device, inode| Some(format!("{}:{inode}", device + 1)),
        |_, _| Some("not a stream".into()),
    ];
    for other in others {
        let text = said(other)?;
        assert!(text.contains("INFO  ["), "{text}");
        assert!(!text.lines().any(|line| line.starts_with('<')), "{text}");
    }
    Ok(())
}
