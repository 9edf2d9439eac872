//! The folders that the station reads and writes: unexpected files, links, full disks, two runs at once.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::symlink;
use std::process::Stdio;

use anyhow::{Context, Result};
use image_tests::device::station::Station;
use image_tests::process::{Finished, bounded, finish};
use nix::sys::stat::Mode;

use crate::commands::with_requests;
use crate::exit;

fn replies(station: &Station) -> Result<usize> {
    let names = station.out().read_dir()?;
    let names: Vec<_> = names.collect::<Result<_, _>>()?;
    let replies = names
        .iter()
        .filter(|n| n.path().to_string_lossy().ends_with(".reply.json"));
    Ok(replies.count())
}

#[test]
fn unexpected_files_among_the_requests_stop_no_other() -> Result<()> {
    let (station, requests) = with_requests(2)?;
    // Files that macOS leaves on FAT, and others that are not for the station.
    for name in ["._gw-1.json", "gw-1.txt", "gw-9.reply.json"] {
        fs::write(requests.join(name), "x")?;
    }
    assert_eq!(station.issue(&requests)?.code, exit::DONE);
    fs::remove_dir_all(station.out())?;
    nix::unistd::mkfifo(&requests.join("fifo.json"), Mode::S_IRWXU)?;
    fs::create_dir(requests.join("folder.json"))?;
    symlink(requests.join("gw-1.json"), requests.join("a-link.json"))?;
    symlink("/nowhere", requests.join("dangling.json"))?;
    fs::write(requests.join("binary.json"), [0xFF; 100])?;
    let done = station.issue(&requests)?;
    assert_eq!(done.code, exit::REFUSED, "{done:?}");
    assert!(
        done.stdout.contains("7 requests: 2 replies written"),
        "{done:?}"
    );
    for (name, words) in [
        ("fifo", "not a regular file"),
        ("folder", "not a regular file"),
        ("a-link", "symbolic link"),
        ("dangling", "symbolic link"),
        ("binary", "not the record of a request"),
    ] {
        let line = |l: &&str| l.contains(&format!("{name}.json: "));
        let said = done.stderr.lines().find(line).unwrap_or_default();
        assert!(said.contains(words), "no {words:?}: {done:?}");
    }
    Ok(())
}

/// Something in a reply's place stops only that reply.
#[test]
fn unexpected_files_among_the_replies_stop_no_other() -> Result<()> {
    let (station, requests) = with_requests(3)?;
    let target = |number: u8| station.out().join(format!("gw-{number}.reply.json"));
    fs::create_dir_all(target(1).join("x"))?;
    let elsewhere = station.path("elsewhere");
    fs::write(&elsewhere, "untouched")?;
    symlink(&elsewhere, target(2))?;
    for more in [&[][..], &["--force"]] {
        let mut issue = station.issuing(&requests)?;
        let done = finish(issue.args(more))?;
        assert_eq!(done.code, exit::REFUSED, "{done:?}");
        assert!(
            done.stderr
                .contains("gw-1.json: its answer cannot be written"),
            "{done:?}"
        );
        assert!(target(3).exists());
        assert_eq!(fs::read_to_string(&elsewhere)?, "untouched");
    }
    Ok(())
}

#[test]
fn a_link_instead_of_the_folder_is_refused() -> Result<()> {
    let (station, requests) = with_requests(1)?;
    let elsewhere = station.path("elsewhere");
    fs::create_dir(&elsewhere)?;
    symlink(&elsewhere, station.out())?;
    let issue = |out: String| -> Result<Finished> {
        let mut issue = station.command(&["issue", "--days", "30"])?;
        issue.arg(&requests);
        issue.arg("--ca").arg(station.operator.certificate_path());
        issue.arg("--key").arg(station.operator.key_path());
        issue
            .arg("--vendor-ca")
            .arg(station.manufacturer.certificates());
        finish(issue.args(["--out", &out]))
    };
    let link = station.out().display().to_string();
    for end in ["", "/", "/."] {
        let done = issue(format!("{link}{end}"))?;
        assert_eq!(done.code, exit::CANNOT_WRITE, "{done:?}");
        assert!(done.stderr.contains("it is a symbolic link"), "{done:?}");
    }
    assert_eq!(elsewhere.read_dir()?.count(), 0);
    // A link further up the path is the operator's own.
    let done = issue(format!("{link}/replies"))?;
    assert_eq!(done.code, exit::DONE, "{done:?}");
    assert_eq!(elsewhere.join("replies").read_dir()?.count(), 1);
    Ok(())
}

/// The second one waits, and then finds the replies.
#[test]
fn two_runs_at_once_take_turns() -> Result<()> {
    let (station, requests) = with_requests(2)?;
    fs::create_dir(station.out())?;
    let first = File::open(station.out())?;
    first.lock()?;
    let mut second = station.issuing(&requests)?;
    let mut second = second
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let said = BufReader::new(second.stderr.take().context("no standard error")?);
    let mut lines = said.lines();
    let line = lines.next().context("it printed nothing")??;
    assert!(
        line.contains("another firstboot-station is writing to"),
        "{line}"
    );
    assert_eq!(replies(&station)?, 0);
    assert!(second.try_wait()?.is_none());
    drop(first);
    assert!(second.wait()?.success());
    assert_eq!(replies(&station)?, 2);
    Ok(())
}

/// The third reply does not fit: the others stay, and are reported, and the next run continues. No line of the
/// inventory is torn or missing.
#[test]
fn a_full_disk_stops_only_what_does_not_fit() -> Result<()> {
    let (station, requests) = with_requests(4)?;
    let inventory = station.path("fleet.csv");
    let issue = || -> Result<_> {
        let mut issue = station.issuing(&requests)?;
        issue.arg("--inventory").arg(&inventory);
        Ok(issue)
    };
    let blocked = station.out().join("gw-3.reply.json.new");
    fs::create_dir_all(blocked.join("x"))?;
    let done = finish(&mut issue()?)?;
    assert_eq!(done.code, exit::CANNOT_WRITE, "{done:?}");
    let told = done.stdout.contains("2 replies written") && done.stdout.contains("2 not tried");
    assert!(told, "{done:?}");
    assert_eq!(replies(&station)?, 2);
    fs::remove_dir_all(&blocked)?;
    // A limit on the file's size works like a full disk, and needs no mount: the line is torn.
    let limit = format!("--fsize={}", fs::metadata(&inventory)?.len() + 100);
    let mut limited = bounded("env");
    limited.args(["--ignore-signal=XFSZ", "prlimit", &limit]);
    let whole = issue()?;
    let full = finish(limited.arg(whole.get_program()).args(whole.get_args()))?;
    assert_eq!(full.code, exit::CANNOT_WRITE, "{full:?}");
    assert!(!fs::read_to_string(&inventory)?.ends_with('\n'));
    let done = finish(&mut issue()?)?;
    assert_eq!(done.code, exit::DONE, "{done:?}");
    assert!(
        done.stderr
            .contains("removed the last line, which was cut off: gw-3,"),
        "{done:?}"
    );
    let told =
        done.stdout.contains("2 replies written") && done.stdout.contains("2 already answered");
    assert!(told, "{done:?}");
    let table = fs::read_to_string(&inventory)?;
    let columns: Vec<_> = table.lines().map(|l| l.split(',').count()).collect();
    assert!(columns.iter().all(|n| *n == 7), "{table}");
    for number in 1..=4 {
        assert!(table.contains(&format!("\ngw-{number},")), "{table}");
    }
    Ok(())
}
