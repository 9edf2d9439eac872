//! Runs a program under ptrace, and stops it at each of its storage calls.
//!
//! Source: ptrace(2), waitpid(2).

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::fs::File;
use std::io::{Read, Seek};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;

use anyhow::{Context, Result, anyhow};
use nix::errno::Errno;
use nix::libc;
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use super::arch_x86_64 as arch;
use super::call::{self, StorageCall};
use super::tracee::Tracee;

/// Sees each storage call, and decides how to continue.
pub trait Observer: Send {
    fn enter(&mut self, _call: &StorageCall, _thread: Tracee) -> Result<Verdict> {
        Ok(Verdict::Go)
    }

    fn exit(&mut self, _call: &StorageCall, _thread: Tracee, _result: i64) -> Result<Verdict> {
        Ok(Verdict::Go)
    }

    /// Called when all processes have been killed after [`Verdict::Cut`].
    fn cut(&mut self) {}
}

pub enum Verdict {
    Go,
    Cut,
    /// Prevents the call, and makes it return this error. On entry only.
    Fail(Errno),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    Exited(i32),
    Killed(Signal),
    /// Killed by the observer.
    Cut,
}

/// How the program ended.
#[derive(Debug)]
pub struct Outcome {
    pub ending: Ending,
    /// All storage calls that it entered.
    pub calls: Vec<StorageCall>,
    pub stdout: String,
    pub stderr: String,
}

impl fmt::Display for Outcome {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        let Self {
            ending,
            calls,
            stdout,
            stderr,
        } = self;
        write!(
            formatter,
            "{ending:?} after {} storage calls\n{stdout}{stderr}",
            calls.len()
        )
    }
}

/// Runs the program and its children to completion, and collects their output. There is no time limit; if you need one,
/// run the program under timeout(1).
pub fn run(mut command: Command, directory: &Path, observer: &mut dyn Observer) -> Result<Outcome> {
    let directory = directory.canonicalize().context("the directory to watch")?;
    let (mut stdout, mut stderr) = (tempfile::tempfile()?, tempfile::tempfile()?);
    command
        .stdin(Stdio::null())
        .stdout(stdout.try_clone()?)
        .stderr(stderr.try_clone()?);
    // Tracees belong to a thread. A new one has no other children that waiting might return.
    let traced = thread::scope(|scope| {
        let tracing = scope.spawn(|| Tracer::start(command, directory, observer)?.run());
        tracing
            .join()
            .map_err(|_| anyhow!("the tracing thread has panicked"))?
    });
    let (ending, calls) = traced?;
    Ok(Outcome {
        ending,
        calls,
        stdout: text(&mut stdout)?,
        stderr: text(&mut stderr)?,
    })
}

fn text(file: &mut File) -> Result<String> {
    let mut bytes = Vec::new();
    file.rewind()?;
    file.read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

struct Tracer<'a> {
    directory: PathBuf,
    observer: &'a mut dyn Observer,
    leader: Pid,
    threads: HashSet<Pid>,
    /// Threads in a storage call: the call, and the error that it has to return.
    inside: HashMap<Pid, (StorageCall, Option<Errno>)>,
    calls: Vec<StorageCall>,
    ending: Option<Ending>,
}

impl<'a> Tracer<'a> {
    fn start(
        mut command: Command,
        directory: PathBuf,
        observer: &'a mut dyn Observer,
    ) -> Result<Self> {
        let traceme = || Ok(ptrace::traceme()?);
        // SAFETY: one system call between fork and exec.
        unsafe { command.pre_exec(traceme) };
        let child = command
            .spawn()
            .with_context(|| format!("to start {command:?}"))?;
        let leader = Pid::from_raw(child.id().cast_signed());
        // It stops at its exec.
        waitpid(leader, Some(WaitPidFlag::__WALL))?;
        let options = Options::PTRACE_O_TRACESYSGOOD
            | Options::PTRACE_O_EXITKILL
            | Options::PTRACE_O_TRACECLONE
            | Options::PTRACE_O_TRACEFORK
            | Options::PTRACE_O_TRACEVFORK
            | Options::PTRACE_O_TRACEEXEC;
        ptrace::setoptions(leader, options)?;
        ptrace::syscall(leader, None)?;
        let threads = HashSet::from([leader]);
        let (inside, calls, ending) = Default::default();
        Ok(Self {
            directory,
            observer,
            leader,
            threads,
            inside,
            calls,
            ending,
        })
    }

    /// Runs until no tracee is left. If it fails, PTRACE_O_EXITKILL kills them all.
    fn run(mut self) -> Result<(Ending, Vec<StorageCall>)> {
        loop {
            match waitpid(None, Some(WaitPidFlag::__WALL | WaitPidFlag::__WNOTHREAD)) {
                Ok(status) => self.handle(status)?,
                Err(Errno::ECHILD) => break,
                Err(error) => return Err(error).context("to wait for the traced program"),
            }
        }
        Ok((
            self.ending.context("the traced program has no end")?,
            self.calls,
        ))
    }

    fn handle(&mut self, status: WaitStatus) -> Result<()> {
        match status {
            // Started while the others were being killed.
            WaitStatus::Stopped(thread, _) if self.ending == Some(Ending::Cut) => {
                let _ = kill(thread, Signal::SIGKILL);
            }
            WaitStatus::Exited(thread, code) => self.gone(thread, Ending::Exited(code)),
            WaitStatus::Signaled(thread, signal, _) => self.gone(thread, Ending::Killed(signal)),
            WaitStatus::PtraceSyscall(thread) => match self.at_call(thread) {
                Ok(Verdict::Cut) => self.cut(),
                Ok(_) => resume(thread, None)?,
                // Killed by another thread in the meantime.
                Err(error) if error.downcast_ref() == Some(&Errno::ESRCH) => {}
                Err(error) => return Err(error),
            },
            // A new thread or process begins with a SIGSTOP from the kernel.
            WaitStatus::Stopped(thread, Signal::SIGSTOP) if self.threads.insert(thread) => {
                resume(thread, None)?;
            }
            WaitStatus::Stopped(thread, signal) => resume(thread, Some(signal))?,
            WaitStatus::PtraceEvent(thread, ..) => resume(thread, None)?,
            _ => {}
        }
        Ok(())
    }

    fn gone(&mut self, thread: Pid, ending: Ending) {
        self.threads.remove(&thread);
        self.inside.remove(&thread);
        if thread == self.leader {
            self.ending.get_or_insert(ending);
        }
    }

    fn at_call(&mut self, thread: Pid) -> Result<Verdict> {
        let info = ptrace::syscall_info(thread)?;
        match info.op {
            libc::PTRACE_SYSCALL_INFO_ENTRY => {
                // SAFETY: `op` says that the kernel has filled in this member.
                let entry = unsafe { info.u.entry };
                self.enter(thread, entry.nr, &entry.args)
            }
            libc::PTRACE_SYSCALL_INFO_EXIT => {
                // SAFETY: as above.
                let exit = unsafe { info.u.exit };
                self.exit(thread, exit.sval)
            }
            _ => Ok(Verdict::Go),
        }
    }

    fn enter(&mut self, thread: Pid, number: u64, arguments: &[u64; 6]) -> Result<Verdict> {
        let tracee = Tracee(thread);
        let Some(call) = call::decode(number, arguments, tracee, &self.directory)? else {
            return Ok(Verdict::Go);
        };
        self.calls.push(call.clone());
        let verdict = self.observer.enter(&call, tracee)?;
        let error = match verdict {
            Verdict::Fail(error) => Some(error),
            _ => None,
        };
        if error.is_some() {
            arch::skip_call(thread)?;
        }
        self.inside.insert(thread, (call, error));
        Ok(verdict)
    }

    fn exit(&mut self, thread: Pid, result: i64) -> Result<Verdict> {
        match self.inside.remove(&thread) {
            Some((_, Some(error))) => {
                arch::set_result(thread, -(error as i64))?;
                Ok(Verdict::Go)
            }
            Some((call, None)) => self.observer.exit(&call, Tracee(thread), result),
            None => Ok(Verdict::Go),
        }
    }

    /// A thread that is killed on entry to a system call does not run it (Linux,
    /// ptrace_report_syscall() in include/linux/ptrace.h).
    fn cut(&mut self) {
        for thread in &self.threads {
            let _ = kill(*thread, Signal::SIGKILL);
        }
        if self.ending != Some(Ending::Cut) {
            self.ending = Some(Ending::Cut);
            self.observer.cut();
        }
    }
}

fn resume(thread: Pid, signal: Option<Signal>) -> Result<()> {
    match ptrace::syscall(thread, signal) {
        // Killed in the meantime.
        Ok(()) | Err(Errno::ESRCH) => Ok(()),
        Err(error) => Err(error).context("to resume a traced thread"),
    }
}
