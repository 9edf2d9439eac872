//! What depends on the architecture: x86_64.
//!
//! Sources: ptrace(2); Linux, arch/x86/entry/syscalls/syscall_64.tbl; the System V ABI supplement,
//! appendix A.2 (the result of a system call in rax, an error as -errno).

use anyhow::Result;
use nix::sys::ptrace;
use nix::unistd::Pid;

/// A system call number that does not exist, for which the kernel runs nothing.
const NO_CALL: u64 = u64::MAX;

/// Prevents the system call that the thread is entering.
pub fn skip_call(thread: Pid) -> Result<()> {
    let mut registers = ptrace::getregs(thread)?;
    registers.orig_rax = NO_CALL;
    Ok(ptrace::setregs(thread, registers)?)
}

/// Replaces the result of the system call that the thread is leaving.
pub fn set_result(thread: Pid, result: i64) -> Result<()> {
    let mut registers = ptrace::getregs(thread)?;
    registers.rax = result as u64;
    Ok(ptrace::setregs(thread, registers)?)
}
