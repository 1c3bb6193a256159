//! The image: what runs between the loader (or the kernel, in a static program) and the program's own entry point.
//!
//! | | at `_start` | at the jump to the old entry point |
//! |---|---|---|
//! | all sixteen registers, flags | as the loader left them (`rdx`: `_dl_fini`; `rsp`: `argc`) | the same |
//! | vector, x87, mask registers | as the loader left them | the same: the build turns SSE off in the image |
//! | stack at and above `rsp` | argc, argv, envp, auxv | the same |
//! | stack below `rsp` | free | changed |
//! | process | unfiltered | filtered, all threads; `no_new_privs` if the kernel asked for it |
//!
//! Whatever goes wrong ends in one line on stderr and [`EXIT_STATUS`]; no path leads to the program unfiltered.
//!
//! Follows seccomp(2); psABI 3.4.1 for the state at the entry point; Intel CET: the first instruction is a landing pad,
//! because ld.so comes here by an indirect jump, and call and return are balanced.
//!
//! # Safety
//!
//! `_start` is the only code that is not a Rust function; it keeps the call convention that `install` relies on.
#![allow(unsafe_code, reason = "the entry point is not a function that Rust could express")]

use core::arch::global_asm;

use crate::payload::{HEADER_LENGTH, PayloadHeader};
use crate::syscall;

const SECCOMP_FILTER_FLAG_TSYNC: usize = 1;
const SECCOMP_FILTER_FLAG_LOG: usize = 2;
const SECCOMP_FILTER_FLAG_SPEC_ALLOW: usize = 4;

/// With a handler that is to say what was refused, the kernel's log says it too: a program that ignores SIGSYS, as nginx
/// does, or handles it itself never calls the handler.
const WANTED_FLAGS: usize = SECCOMP_FILTER_FLAG_TSYNC
    | SECCOMP_FILTER_FLAG_SPEC_ALLOW
    | if cfg!(stub_trap) { SECCOMP_FILTER_FLAG_LOG } else { 0 };

const EACCES: isize = -13;
const EINVAL: isize = -22;

/// Exit status of a program whose filter could not be installed; shells use it for "could not be started".
const EXIT_STATUS: usize = 127;

/// The only text of the image. It stays in the text section, as all read-only data does.
static MESSAGE: [u8; 71] = *b"chestnut: the system call filter cannot be installed; not going ahead.\n";

global_asm!(
    // First in the image: linker-script/stub.ld puts this section in front.
    ".pushsection .entry, \"ax\", @progbits",
    ".globl _start",
    "_start:",
    "endbr64",                             // ld.so gets here by an indirect jump
    "pushfq",                              // before anything changes the flags
    "push rax",                            // what a Rust function may change, and
    "push rcx",                            //
    "push rdx",                            // _dl_fini, for atexit
    "push rsi",                            //
    "push rdi",                            //
    "push r8",                             //
    "push r9",                             //
    "push r10",                            //
    "push r11",                            //
    "push rbp",                            // what this code itself needs
    "mov rbp, rsp",                        // survives the call
    "and rsp, -16",                        // the call convention, whatever rsp was
    "cld",                                 // the same
    "lea rdi, [rip + chestnut_payload]",   // the header stands behind the image: stub.ld
    "call {install}",                      // comes back only when the filter is on
    "jmp 2f",                              // to the last section
    ".popsection",
    // Last in the image, so that the rewriter finds the displacement in the last four bytes.
    ".pushsection .leave, \"ax\", @progbits",
    "2:",
    "mov rsp, rbp",
    "pop rbp",
    "pop r11",
    "pop r10",
    "pop r9",
    "pop r8",
    "pop rdi",
    "pop rsi",
    "pop rdx",
    "pop rcx",
    "pop rax",
    "popfq",
    ".byte 0xe9",                          // jmp rel32
    ".long 0",                             // to the old entry point: written by the rewriter
    ".popsection",
    install = sym install,
);

/// Installs the filter or ends the process.
///
/// # Safety
///
/// `header` is followed by its filter: the rewriter wrote it so, and the kernel checks each instruction.
unsafe extern "C" fn install(header: &PayloadHeader) {
    // Before the filter, which need not allow it.
    #[cfg(stub_trap)]
    crate::trap::install();
    let first: *const PayloadHeader = header;
    let program =
        syscall::SockFprog { len: header.filter_length, filter: first.cast::<u8>().wrapping_add(HEADER_LENGTH) };
    // TSYNC is never given up: a thread that a constructor has started would stay unfiltered. seccomp(2) knew it from
    // its first day (Linux 3.17). SPEC_ALLOW, from 4.17 on, keeps the program's speed; without it old kernels switch
    // speculation mitigations on for the whole process.
    let mut flags = WANTED_FLAGS;
    let mut may_give_up_privileges = true;
    loop {
        match syscall::set_filter(flags, &program) {
            0 => return,
            EINVAL if flags != SECCOMP_FILTER_FLAG_TSYNC => flags = SECCOMP_FILTER_FLAG_TSYNC,
            EACCES if may_give_up_privileges && syscall::set_no_new_privs() == 0 => may_give_up_privileges = false,
            // Also the positive id of a thread with a filter of its own, which cannot take ours over.
            _ => break,
        }
    }
    syscall::complain(&MESSAGE);
    syscall::exit(EXIT_STATUS)
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    syscall::trap()
}
