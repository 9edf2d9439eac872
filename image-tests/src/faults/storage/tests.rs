//! Small programs with and without the syncs that they need.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::Result;
use nix::errno::Errno;
use nix::libc;
use tempfile::TempDir;

use super::*;

/// Replaces the file `a` as one should. The storage calls: 1 openat, 2 write, 3 fsync,
/// 4 renameat2, by which mv learns that `a` exists, 5 renameat, 6 fsync.
const CAREFUL: &str = "echo new > a.tmp && sync a.tmp && mv a.tmp a && sync .";
const SEEDS: u64 = 40;

fn directory() -> Result<TempDir> {
    let directory = TempDir::new()?;
    fs::write(directory.path().join("a"), "old\n")?;
    Ok(directory)
}

fn shell(script: &str, directory: &Path) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", script]).current_dir(directory);
    command
}

fn names(calls: &[StorageCall]) -> Vec<&str> {
    calls.iter().map(|call| call.name).collect()
}

fn record(script: &str) -> Result<Recording> {
    let directory = directory()?;
    Recording::make(shell(script, directory.path()), directory.path(), 0, |_| {
        Ok(())
    })
}

/// All contents of `a` that a power cut at any point can leave; `-` if it is missing.
fn findable(recording: &Recording) -> Result<BTreeSet<String>> {
    let mut found = BTreeSet::new();
    for point in 0..recording.points() {
        let fixed = [Loss::Nothing, Loss::Data, Loss::Names, Loss::Everything];
        let drawn = (0..SEEDS).flat_map(|seed| [Loss::Ordered(seed), Loss::Unordered(seed)]);
        for loss in fixed.into_iter().chain(drawn) {
            let tree = recording.crash(point, loss)?;
            let content = fs::read_to_string(tree.path().join("a"));
            found.insert(content.unwrap_or_else(|_| "-".into()));
        }
    }
    Ok(found)
}

fn set(contents: &[&str]) -> BTreeSet<String> {
    contents.iter().map(|content| content.to_string()).collect()
}

#[test]
fn calls_are_named_with_their_paths() -> Result<()> {
    let directory = directory()?;
    let calls = trace(shell(CAREFUL, directory.path()), directory.path())?;
    assert_eq!(
        names(&calls),
        ["openat", "write", "fsync", "renameat2", "renameat", "fsync"]
    );
    let root = directory.path().canonicalize()?;
    assert_eq!(calls[4].path, root.join("a.tmp"));
    assert_eq!(calls[4].to, Some(root.join("a")));
    assert_eq!(calls[5].path, root);
    Ok(())
}

#[test]
fn a_cut_ends_the_program_before_or_after_the_call() -> Result<()> {
    for (n, when, content) in [
        (1, When::Before, "old\n"),
        (5, When::Before, "old\n"),
        (5, When::After, "new\n"),
        (6, When::Before, "new\n"),
    ] {
        let directory = directory()?;
        let mut cut = false;
        let script = format!("{CAREFUL} && echo done > b");
        let command = shell(&script, directory.path());
        let outcome = run_with_cut(command, directory.path(), n, when, || cut = true)?;
        assert!(cut);
        assert_eq!(outcome.ending, Ending::Cut);
        assert_eq!(outcome.calls.len(), n);
        assert_eq!(fs::read_to_string(directory.path().join("a"))?, content);
        assert!(!directory.path().join("b").exists());
    }
    Ok(())
}

#[test]
fn a_cut_that_never_comes_disturbs_nothing() -> Result<()> {
    let directory = directory()?;
    let command = shell(CAREFUL, directory.path());
    let outcome = run_with_cut(
        command,
        directory.path(),
        7,
        When::Before,
        || unreachable!(),
    )?;
    assert_eq!(outcome.ending, Ending::Exited(0));
    Ok(())
}

#[test]
fn a_call_fails_as_on_a_full_disk() -> Result<()> {
    for (n, lasting, error, message) in [
        (1, false, Errno::ENOSPC, "No space left"),
        (4, true, Errno::EROFS, "Read-only file system"),
        (3, false, Errno::EIO, "Input/output error"),
    ] {
        let directory = directory()?;
        let command = shell(CAREFUL, directory.path());
        let fault = Fault {
            error,
            from: n,
            lasting,
        };
        let outcome = run_with_fault(command, directory.path(), fault)?;
        assert!(matches!(outcome.ending, Ending::Exited(1 | 2)), "{outcome}");
        assert!(outcome.stderr.contains(message), "{outcome}");
        assert_eq!(fs::read_to_string(directory.path().join("a"))?, "old\n");
    }
    Ok(())
}

#[test]
fn a_careful_program_leaves_the_old_or_the_new() -> Result<()> {
    assert_eq!(findable(&record(CAREFUL)?)?, set(&["old\n", "new\n"]));
    Ok(())
}

#[test]
fn without_a_sync_of_the_file_it_can_be_torn() -> Result<()> {
    let found = findable(&record("echo new > a.tmp && mv a.tmp a && sync .")?)?;
    assert!(
        found.is_superset(&set(&["old\n", "new\n", "", "\0\0\0\0"])),
        "{found:?}"
    );
    Ok(())
}

#[test]
fn without_a_sync_of_the_directory_the_new_can_be_lost_but_not_torn() -> Result<()> {
    let recording = record("echo new > a.tmp && sync a.tmp && mv a.tmp a")?;
    assert_eq!(findable(&recording)?, set(&["old\n", "new\n"]));
    let last = recording.points() - 1;
    let read = |loss| -> Result<String> {
        Ok(fs::read_to_string(
            recording.crash(last, loss)?.path().join("a"),
        )?)
    };
    assert_eq!(
        (read(Loss::Names)?, read(Loss::Nothing)?),
        ("old\n".into(), "new\n".into())
    );
    Ok(())
}

/// Two names change places: both of them, or neither. A sync of their directory keeps that.
#[test]
fn an_exchange_is_lost_or_kept_whole() -> Result<()> {
    let [call, here, how] = [
        libc::SYS_renameat2,
        libc::AT_FDCWD.into(),
        libc::RENAME_EXCHANGE.into(),
    ];
    let program =
        format!("@n = qw(a b); exit syscall({call}, {here}, $n[0], {here}, $n[1], {how})");
    let exchange = format!("perl -e '{program}'");
    let before = ["old\n", "other\n"].map(str::to_owned);
    let after = ["other\n", "old\n"].map(str::to_owned);
    for (script, possible) in [
        (exchange.clone(), &[&before, &after][..]),
        (format!("{exchange} && sync ."), &[&after]),
    ] {
        let directory = directory()?;
        fs::write(directory.path().join("b"), "other\n")?;
        let program = shell(&script, directory.path());
        let recording = Recording::make(program, directory.path(), 0, |_| Ok(()))?;
        assert_eq!(recording.calls()[0].name, "renameat2");
        let mut found = BTreeSet::new();
        let drawn = (0..SEEDS).flat_map(|seed| [Loss::Ordered(seed), Loss::Unordered(seed)]);
        for loss in drawn.chain([Loss::Nothing, Loss::Names]) {
            let tree = recording.crash(recording.points() - 1, loss)?;
            let read = |name| fs::read_to_string(tree.path().join(name));
            found.insert([read("a")?, read("b")?]);
        }
        assert_eq!(found.iter().collect::<Vec<_>>(), possible, "{script}");
    }
    Ok(())
}

#[test]
fn a_sync_can_be_left_out_on_purpose() -> Result<()> {
    let mut recording = record(CAREFUL)?;
    recording.forget_sync(2)?;
    assert!(findable(&recording)?.contains("\0\0\0\0"));
    assert!(recording.forget_sync(1).is_err());
    Ok(())
}

#[test]
fn a_file_from_elsewhere_is_not_taken_for_durable() -> Result<()> {
    let elsewhere = TempDir::new()?;
    let file = elsewhere.path().join("new");
    fs::write(&file, "new\n")?;
    let found = findable(&record(&format!("mv {} a && sync .", file.display()))?)?;
    assert!(found.contains(""), "{found:?}");
    Ok(())
}

#[test]
fn in_place_writing_is_always_torn() -> Result<()> {
    let found = findable(&record("echo new > a && sync a && sync .")?)?;
    assert!(found.contains(""), "{found:?}");
    Ok(())
}

#[test]
fn a_staged_directory_appears_whole_or_not() -> Result<()> {
    let script = "mkdir s && echo one > s/f && chmod 600 s/f && ln -s f s/g && sync s/f s && mv s a.d && sync .
        mkdir lost && rmdir lost && rm -f a";
    let directory = directory()?;
    let mut points = Vec::new();
    let recording = Recording::make(
        shell(script, directory.path()),
        directory.path(),
        0,
        |point| {
            points.push(point);
            Ok(())
        },
    )?;
    assert_eq!(points, (0..recording.points()).collect::<Vec<_>>());
    for point in 0..recording.points() {
        for seed in 0..SEEDS {
            for loss in [
                Loss::Ordered(seed),
                Loss::Unordered(seed),
                Loss::Everything,
                Loss::Data,
            ] {
                let tree = recording.crash(point, loss)?;
                if tree.path().join("a.d").exists() {
                    let content = fs::read_to_string(tree.path().join("a.d/g"))?;
                    assert_eq!(
                        content,
                        "one\n",
                        "{loss:?} at {point}: {:?}",
                        recording.calls()
                    );
                }
            }
        }
    }
    Ok(())
}
