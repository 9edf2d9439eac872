//! Other programs: run to completion, or kept in the background for as long as their owner lives. Everything in this
//! crate that starts a program starts it here.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{BufRead, BufReader, PipeReader, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::prctl;
use nix::sys::signal::{self, Signal};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::retry_on_intr;
use rustix::process::{Pid, PidfdFlags, pidfd_open};

/// How a program ended.
#[derive(Debug, Clone)]
pub struct Finished {
    /// The exit status as a shell reports it: 128 plus the signal's number for a program that was killed.
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

/// A program that is killed after two minutes: a test that hangs has to fail, and to say where.
pub fn bounded(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new("timeout");
    command.args(["--kill-after=5", "120"]).arg(program);
    command
}

/// Runs a program to completion, whatever its exit status.
pub fn finish(command: &mut Command) -> Result<Finished> {
    let output = command
        .output()
        .with_context(|| format!("cannot start {}", command_line(command)))?;
    Ok(Finished {
        code: exit_code(output.status),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}

/// Runs a program to completion with both outputs closed at the other end: its exit status.
pub fn finish_unread(command: &mut Command) -> Result<i32> {
    let (reader, writer) = std::io::pipe()?;
    drop(reader);
    let status = command
        .stdout(writer.try_clone()?)
        .stderr(writer)
        .status()
        .with_context(|| format!("cannot start {}", command_line(command)))?;
    Ok(exit_code(status))
}

/// Runs a program that has to succeed: its standard output.
pub fn succeed(command: &mut Command) -> Result<String> {
    let finished = finish(command)?;
    if finished.code != 0 {
        bail!(
            "{} ended with {}\n{}{}",
            command_line(command),
            finished.code,
            finished.stdout,
            finished.stderr
        );
    }
    Ok(finished.stdout)
}

fn exit_code(status: ExitStatus) -> i32 {
    status
        .code()
        .unwrap_or_else(|| 128 + status.signal().unwrap_or(0))
}

/// A command as a message shows it: without its environment, in which clients get PINs.
fn command_line(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let words: Vec<_> = words.map(OsStr::to_string_lossy).collect();
    words.join(" ")
}

/// A program that runs until this is dropped. It does not outlive the test, even if that is killed.
#[derive(Debug)]
pub struct Background(Child);

impl Background {
    /// The program dies with the *thread* that starts it (prctl(2), PR_SET_PDEATHSIG): start it from one that lives
    /// longer.
    pub fn start(command: &mut Command) -> Result<Self> {
        let parent = nix::unistd::getpid();
        // SAFETY: both calls are async-signal-safe and touch no memory of this process.
        unsafe {
            command.pre_exec(move || {
                prctl::set_pdeathsig(Signal::SIGKILL)?;
                // The parent may have died before the line above.
                if nix::unistd::getppid() != parent {
                    return Err(std::io::Error::other("its test has ended"));
                }
                Ok(())
            });
        }
        let child = command
            .stdin(Stdio::null())
            .spawn()
            .with_context(|| format!("cannot start {}", command_line(command)))?;
        Ok(Self(child))
    }

    pub fn id(&self) -> u32 {
        self.0.id()
    }

    /// Its largest resident memory so far, KiB: VmHWM of proc(5).
    pub fn memory_peak(&self) -> Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let words = line.context("no VmHWM")?.split_whitespace().next();
        words.context("no number")?.parse().context("no number")
    }

    /// Starts a program that says when it is ready: on a line of its output that means something to `read`. The output
    /// goes on into a file.
    pub fn start_until<T>(
        command: &mut Command,
        what: &str,
        mut log: File,
        read: impl Fn(&str) -> Option<T>,
    ) -> Result<(Self, T)> {
        let (output, writer) = std::io::pipe()?;
        let program = Self::start(command.stdout(writer.try_clone()?).stderr(writer))?;
        let mut output = BufReader::new(output);
        let meaning = program.read_until(what, &mut output, |line| {
            // Only for messages.
            let _ = log.write_all(line.as_bytes());
            read(line)
        });
        // It would wait for a reader.
        std::thread::spawn(move || std::io::copy(&mut output, &mut log));
        Ok((program, meaning?))
    }

    /// Blocks until the source has data, or a connection to accept. Fails if the program ends first, and after a
    /// minute.
    pub fn wait_readable(&self, what: &str, source: impl AsFd) -> Result<()> {
        let end = pidfd_open(Pid::from_child(&self.0), PidfdFlags::empty())?;
        let source = source.as_fd();
        match first_ready(&[source, end.as_fd()])? {
            Some(0) => Ok(()),
            Some(_) => bail!("waiting for {what}: the program has exited"),
            None => bail!("waiting for {what}: nothing within a minute"),
        }
    }

    /// Reads the program's output line by line until `read` finds what it wants.
    pub fn read_until<T>(
        &self,
        what: &str,
        output: &mut BufReader<PipeReader>,
        mut read: impl FnMut(&str) -> Option<T>,
    ) -> Result<T> {
        loop {
            if output.buffer().is_empty() {
                self.wait_readable(what, output.get_ref())?;
            }
            let mut line = String::new();
            ensure!(
                output.read_line(&mut line)? > 0,
                "waiting for {what}: the program has closed its output"
            );
            if let Some(meaning) = read(&line) {
                return Ok(meaning);
            }
        }
    }

    /// Blocks until it exits by itself: its exit status. Fails after a minute.
    pub fn wait(&mut self) -> Result<i32> {
        let end = pidfd_open(Pid::from_child(&self.0), PidfdFlags::empty())?;
        let ended = first_ready(&[end.as_fd()])?.is_some();
        ensure!(ended, "the program has not exited within a minute");
        Ok(exit_code(self.0.wait()?))
    }

    /// Stops it where it is. It is not continued.
    pub fn freeze(&self) -> Result<()> {
        self.send(Signal::SIGSTOP).context("cannot stop a program")
    }

    /// Sends SIGTERM, and waits until it has exited.
    pub fn terminate(mut self) -> Result<()> {
        self.send(Signal::SIGTERM).context("cannot end a program")?;
        self.0.wait()?;
        Ok(())
    }

    fn send(&self, signal: Signal) -> Result<()> {
        let pid = nix::unistd::Pid::from_raw(i32::try_from(self.0.id())?);
        Ok(signal::kill(pid, signal)?)
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        // Fails only for a program that has ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The index of the first source that can be read; `None` after a minute.
fn first_ready(sources: &[BorrowedFd]) -> Result<Option<usize>> {
    let minute = Timespec {
        tv_sec: 60,
        tv_nsec: 0,
    };
    let mut ready: Vec<PollFd> = sources
        .iter()
        .map(|source| PollFd::new(source, PollFlags::IN))
        .collect();
    retry_on_intr(|| poll(&mut ready, Some(&minute)))?;
    Ok(ready.iter().position(|source| !source.revents().is_empty()))
}
