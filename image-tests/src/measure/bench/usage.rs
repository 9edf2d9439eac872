//! A program's resource usage. Time and memory are measured undisturbed; calls, processes and bytes are counted by
//! strace in another run, because tracing costs more than most of what is measured here.

use std::ffi::OsString;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::process::{finish, succeed};

/// The usage of a program and of those that it started.
#[derive(Clone, Copy, Debug, Default)]
pub struct Usage {
    pub wall: Duration,
    /// User and system time.
    pub processor: Duration,
    /// Peak resident memory of its largest process, KiB.
    pub peak: u64,
}

impl Usage {
    /// The usage of one program after another.
    pub fn then(self, next: Self) -> Self {
        Self {
            wall: self.wall + next.wall,
            processor: self.processor + next.processor,
            peak: self.peak.max(next.peak),
        }
    }
}

/// What strace counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Calls {
    /// Programs started (execve), including the first.
    pub processes: u64,
    /// System calls of any kind.
    pub all: u64,
    /// fsync and fdatasync below the device's root.
    pub syncs: u64,
    /// Bytes written to files below the device's root.
    pub written: u64,
    /// Bytes read from files anywhere.
    pub read: u64,
}

impl Calls {
    pub fn then(self, next: Self) -> Self {
        Self {
            processes: self.processes + next.processes,
            all: self.all + next.all,
            syncs: self.syncs + next.syncs,
            written: self.written + next.written,
            read: self.read + next.read,
        }
    }
}

/// Runs a program, which has to succeed: its usage and its standard output.
pub fn measure(command: &Command) -> Result<(Usage, String)> {
    let report = tempfile::NamedTempFile::new()?;
    let mut time = Command::new("time");
    time.args(["--format=%U %S %M", "--output"])
        .arg(report.path());
    let start = Instant::now();
    let said = succeed(&mut wrapped(time, command))?;
    let wall = start.elapsed();
    let report = fs::read_to_string(report.path())?;
    let numbers: Vec<f64> = report
        .split_whitespace()
        .map(str::parse)
        .collect::<Result<_, _>>()
        .with_context(|| format!("time says {report:?}"))?;
    let [user, system, peak] = numbers[..] else {
        anyhow::bail!("time says {report:?}");
    };
    let usage = Usage {
        wall,
        processor: Duration::from_secs_f64(user + system),
        peak: peak as u64,
    };
    Ok((usage, said))
}

/// Runs a program, which has to succeed, under strace: its calls and its standard output.
pub fn count(command: &Command, root: &Path) -> Result<(Calls, String)> {
    let logs = tempfile::tempdir()?;
    let mut strace = Command::new("strace");
    // One file per process, so that no line is split by another's.
    strace
        .args(["-ff", "-qq", "-y", "--signal=none", "-s0", "-o"])
        .arg(logs.path().join("log"));
    let finished = finish(&mut wrapped(strace, command))?;
    ensure!(
        finished.code == 0,
        "{command:?}: {}{}",
        finished.stdout,
        finished.stderr
    );
    let mut calls = Calls::default();
    for log in fs::read_dir(logs.path())? {
        let log = fs::read(log?.path())?;
        let log = String::from_utf8_lossy(&log);
        // netcat stands in for the kernel's device node.
        if log.contains("execve(\"/usr/bin/nc\"") {
            continue;
        }
        for line in log.lines() {
            calls.add(line, root);
        }
    }
    Ok((calls, finished.stdout))
}

impl Calls {
    /// A line such as `write(3</var/lib/x>, ""..., 5) = 5`.
    fn add(&mut self, line: &str, root: &Path) {
        let Some((name, rest)) = line.split_once('(') else {
            return;
        };
        self.all += 1;
        let result = rest.rsplit(" = ").next().unwrap_or_default();
        let result: Option<u64> = result.split([' ', '<']).next().and_then(|n| n.parse().ok());
        let file = rest.split_once('<').and_then(|(_, rest)| {
            let path = rest.split_once('>')?.0;
            path.starts_with('/').then_some(path)
        });
        match (name, result, file) {
            ("execve", Some(0), _) => self.processes += 1,
            ("fsync" | "fdatasync", Some(0), Some(file)) if Path::new(file).starts_with(root) => {
                self.syncs += 1;
            }
            ("write" | "pwrite64" | "writev", Some(bytes), Some(file))
                if Path::new(file).starts_with(root) =>
            {
                self.written += bytes;
            }
            ("read" | "pread64" | "readv", Some(bytes), Some(_)) => self.read += bytes,
            _ => {}
        }
    }
}

/// `around` with the command as its last arguments and with the command's environment.
fn wrapped(mut around: Command, command: &Command) -> Command {
    let line: Vec<OsString> = std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(Into::into)
        .collect();
    around.args(line).env_clear();
    for (name, value) in command.get_envs() {
        if let Some(value) = value {
            around.env(name, value);
        }
    }
    if let Some(directory) = command.get_current_dir() {
        around.current_dir(directory);
    }
    around
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_program_does_is_counted() -> Result<()> {
        let directory = tempfile::tempdir()?;
        let root = directory.path().canonicalize()?;
        let file = root.join("file");
        fs::write(&file, "seven b")?;
        let copy = root.join("copy");
        let mut command = Command::new("/bin/sh");
        command
            .env("PATH", "/usr/bin:/bin")
            .args(["-c"])
            .arg(format!(
                "dd if={} of={} conv=fsync status=none; true",
                file.display(),
                copy.display()
            ));
        let (calls, _) = count(&command, &root)?;
        assert_eq!((calls.processes, calls.syncs, calls.written), (2, 1, 7));
        assert!(calls.read >= 7 && calls.all > 20, "{calls:?}");
        let (elsewhere, _) = count(&command, Path::new("/nowhere"))?;
        assert_eq!((elsewhere.written, elsewhere.syncs), (0, 0));
        Ok(())
    }

    #[test]
    fn memory_is_the_programs_own() -> Result<()> {
        let (small, said) = measure(Command::new("/bin/echo").arg("word"))?;
        assert_eq!(said, "word\n");
        // 40 MB at once.
        let mut large = Command::new("/bin/dd");
        large.args(["if=/dev/zero", "of=/dev/null", "bs=40M", "count=1"]);
        let (large, _) = measure(&large)?;
        assert!(
            large.peak > small.peak + 30_000,
            "{} KiB beside {} KiB",
            large.peak,
            small.peak
        );
        Ok(())
    }
}
