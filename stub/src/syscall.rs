//! The system calls of the stub, straight from the x86-64 psABI (A.2.1): number in rax, arguments in rdi, rsi, rdx,
//! r10, r8, r9; the kernel changes rax, rcx and r11 and nothing else.
//!
//! # Safety
//!
//! This module and `image.rs` are the only ones that may use `unsafe`. A function here is safe where no argument can
//! make the kernel write to, or unmap, memory of this process.
#![allow(unsafe_code, reason = "system calls are instructions")]

use core::arch::asm;

const WRITE: usize = 1;
const PRCTL: usize = 157;
const EXIT_GROUP: usize = 231;
const SECCOMP: usize = 317;

const STDERR: usize = 2;
const PR_SET_NO_NEW_PRIVS: usize = 38;
const SECCOMP_SET_MODE_FILTER: usize = 1;

/// `struct sock_fprog` (`linux/filter.h`).
#[repr(C)]
pub(crate) struct SockFprog {
    /// Number of instructions.
    pub(crate) len: u16,
    /// The first one.
    pub(crate) filter: *const u8,
}

/// # Safety
///
/// The call may not write to or unmap memory that Rust code owns.
#[inline(always)]
unsafe fn syscall(number: usize, arguments: [usize; 5]) -> isize {
    let [first, second, third, fourth, fifth] = arguments;
    let result: isize;
    // SAFETY: the registers are those of the calling convention above, and the caller answers for what the call does.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") number => result,
            in("rdi") first,
            in("rsi") second,
            in("rdx") third,
            in("r10") fourth,
            in("r8") fifth,
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack),
        );
    }
    result
}

/// `seccomp(SECCOMP_SET_MODE_FILTER, flags, program)`: 0, the id of a thread that could not be brought along, or
/// `-errno`.
#[inline(always)]
pub(crate) fn set_filter(flags: usize, program: &SockFprog) -> isize {
    let program: *const SockFprog = program;
    // SAFETY: the kernel only reads the program and the filter behind it; bad pointers are EFAULT.
    unsafe { syscall(SECCOMP, [SECCOMP_SET_MODE_FILTER, flags, program.addr(), 0, 0]) }
}

/// `prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)`.
#[inline(always)]
pub(crate) fn set_no_new_privs() -> isize {
    // SAFETY: only numbers.
    unsafe { syscall(PRCTL, [PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0]) }
}

/// Writes to stderr, once: there is nobody to tell about a failure.
#[inline(always)]
pub(crate) fn complain(text: &'static [u8]) {
    // SAFETY: the kernel only reads the text.
    unsafe { syscall(WRITE, [STDERR, text.as_ptr().addr(), text.len(), 0, 0]) };
}

/// The same for a text that is not constant.
#[cfg(stub_trap)]
pub(crate) fn complain_at(text: *const u8, length: usize) {
    // SAFETY: the kernel only reads the text; a bad pointer is EFAULT.
    unsafe { syscall(WRITE, [STDERR, text.addr(), length, 0, 0]) };
}

/// The kernel's `struct sigaction`.
#[cfg(stub_trap)]
#[repr(C)]
struct SigAction {
    handler: extern "C" fn(usize, *const u8, *const u8) -> !,
    flags: usize,
    restorer: extern "C" fn(usize, *const u8, *const u8) -> !,
    mask: u64,
}

/// `rt_sigaction(signal, {handler}, NULL, 8)`: on the signal stack, if the program has one.
#[cfg(stub_trap)]
#[inline(always)]
pub(crate) fn handle(signal: usize, handler: extern "C" fn(usize, *const u8, *const u8) -> !) {
    const RT_SIGACTION: usize = 13;
    const FLAGS: usize = 0x0c00_0004; // SA_SIGINFO, SA_ONSTACK, SA_RESTORER, which x86-64 asks for
    // The handler never returns, so that the restorer is never called.
    let action = SigAction { handler, flags: FLAGS, restorer: handler, mask: 0 };
    let pointer: *const SigAction = &raw const action;
    // SAFETY: the kernel only reads the structure.
    unsafe { syscall(RT_SIGACTION, [signal, pointer.addr(), 0, 8, 0]) };
}

/// Makes a call that the filter refuses, in the handler of the signal that it sends: the process dies of that.
#[cfg(stub_trap)]
pub(crate) fn make_refused(number: u32) -> ! {
    const CALL_MASK: u32 = 0x7fff_ffff;
    let number = usize::try_from(number & CALL_MASK).unwrap_or(EXIT_GROUP);
    // SAFETY: the filter does not let it be made; should it all the same, null pointers are EFAULT and 0 is no size.
    unsafe { syscall(number, [0; 5]) };
    exit(128 + 31)
}

/// `exit_group(status)`, and an illegal instruction should that come back (an outer filter can answer it).
#[inline(always)]
pub(crate) fn exit(status: usize) -> ! {
    // SAFETY: ends the process.
    unsafe { syscall(EXIT_GROUP, [status, 0, 0, 0, 0]) };
    trap()
}

/// Dies.
#[inline(always)]
pub(crate) fn trap() -> ! {
    // SAFETY: raises SIGILL and does not come back.
    unsafe { asm!("ud2", options(noreturn, nostack, nomem)) }
}
