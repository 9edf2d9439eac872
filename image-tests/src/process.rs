//! Other programs: run to their end with a limit of time, or kept in the background for as long as their
//! owner lives. Every module here that starts something starts it through this one.

use std::ffi::OsStr;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::prctl;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// What a program left behind.
#[derive(Debug, Clone)]
pub struct Finished {
    /// The exit status as a shell has it: 128 and the signal's number for a program that was killed.
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

/// A program that is ended after two minutes: a test that hangs is to fail, and to say where.
pub fn bounded(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new("timeout");
    command.args(["--kill-after=5", "120"]).arg(program);
    command
}

/// Runs a program to its end, whatever that is.
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

/// Runs a program to its end, with nobody who reads what it says: both outputs are pipes whose other end is closed.
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

/// Runs a program that has to succeed; its standard output.
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

/// A command for a message: without its environment, in which clients are given PINs.
fn command_line(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let words: Vec<_> = words.map(OsStr::to_string_lossy).collect();
    words.join(" ")
}

/// A program that runs until its owner is dropped, and no longer than this test even if that is killed.
#[derive(Debug)]
pub struct Background(Child);

impl Background {
    /// The program dies with the *thread* that starts it (so PR_SET_PDEATHSIG has it): start it from one
    /// that outlives its use.
    pub fn start(command: &mut Command) -> Result<Self> {
        let parent = nix::unistd::getpid();
        // SAFETY: both calls are async-signal-safe system calls and touch no memory of this process.
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

    pub fn has_ended(&mut self) -> Result<bool> {
        Ok(self.0.try_wait()?.is_some())
    }

    /// Stops it where it is, for good: nothing but its end follows.
    pub fn freeze(&self) -> Result<()> {
        let pid = i32::try_from(self.0.id())?;
        kill(Pid::from_raw(pid), Signal::SIGSTOP).context("cannot stop a program")
    }

    /// Asks it to end, and waits until it has.
    pub fn terminate(mut self) -> Result<()> {
        let pid = i32::try_from(self.0.id())?;
        kill(Pid::from_raw(pid), Signal::SIGTERM).context("cannot end a program")?;
        self.0.wait()?;
        Ok(())
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        // Fails only for a program that has ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Asks again and again until there is an answer; `what` says what has not come, should it not.
pub fn wait_for<T>(what: &str, mut ask: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let start = Instant::now();
    loop {
        if let Some(answer) = ask()? {
            return Ok(answer);
        }
        if start.elapsed() > Duration::from_secs(60) {
            bail!("waited a minute in vain for {what}");
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}
