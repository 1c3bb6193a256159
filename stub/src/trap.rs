//! The handler of SIGSYS in programs that are patched with `--action trap`: one line on stderr, then the end.
//!
//! ```text
//! chestnut: refused getppid (110) at 0x7f2d5c2f5829: 0x0, 0x0, 0x0, 0x0, 0x0, 0x0
//! ```
//! The address is that behind the instruction. Then the handler makes the refused call once more: SIGSYS is blocked in
//! its own handler, and a blocked one that the kernel forces has its default action. So nothing has to be allowed for
//! the handler but `write`; where that is refused too, the program ends without the line. A handler that the program
//! installs for itself takes this one's place, and so does that it ignores SIGSYS: then the line in the kernel's log is
//! all that is said (`image.rs` asks for it).
//!
//! Follows seccomp(2) (`SECCOMP_RET_TRAP`), sigaction(2); `asm/sigcontext.h` and `asm/siginfo.h` for the places below.
//!
//! # Safety
//!
//! The handler is called by the kernel alone, with pointers to a `siginfo_t` and a `ucontext_t` that are valid while it
//! runs. It reads these, writes to its own stack, and never returns.
#![allow(unsafe_code, reason = "a signal handler gets pointers from the kernel")]

use core::mem::MaybeUninit;

use crate::syscall;

const SIGSYS: usize = 31;

/// `si_code` of a signal that a filter has sent.
const SYS_SECCOMP: u32 = 1;

/// In `siginfo_t`.
const SI_CODE: usize = 8;
const SI_CALL_ADDR: usize = 16;
const SI_SYSCALL: usize = 24;
const SI_ARCH: usize = 28;

const AUDIT_ARCH_X86_64: u32 = 0xc000_003e;

/// Registers of the six arguments in `ucontext_t`: rdi, rsi, rdx, r10, r8, r9.
const ARGUMENTS: [usize; 6] = [104, 112, 136, 56, 40, 48];

/// Status of a program that somebody else has sent SIGSYS: 128 and the signal, as shells have it.
const EXIT_STATUS: usize = 128 + SIGSYS;

/// For each number from 0 on the length of the name in one byte, and the name.
static NAMES: [u8; include_bytes!(env!("CHESTNUT_CALL_NAMES")).len()] = *include_bytes!(env!("CHESTNUT_CALL_NAMES"));

static BEGINNING: [u8; 18] = *b"chestnut: refused ";

/// Longer than any line: the longest name has 23 letters, and there are eight numbers.
const LINE_LENGTH: usize = 256;

/// The handler from now on.
#[inline(always)]
pub(crate) fn install() {
    let handler: extern "C" fn(usize, *const u8, *const u8) -> ! = handle;
    syscall::handle(SIGSYS, handler);
}

/// A line that grows.
struct Line {
    bytes: [MaybeUninit<u8>; LINE_LENGTH],
    length: usize,
}

impl Line {
    fn push(&mut self, byte: u8) {
        if let Some(place) = self.bytes.get_mut(self.length) {
            // An ordinary loop of writes would become a call of memcpy, which the image does not have.
            // SAFETY: the place is a byte of this structure.
            unsafe { core::ptr::write_volatile(place.as_mut_ptr(), byte) };
            self.length = self.length.wrapping_add(1);
        }
    }

    fn text(&mut self, text: &[u8]) {
        for byte in text {
            self.push(*byte);
        }
    }

    fn hexadecimal(&mut self, value: u64) {
        self.text(b"0x");
        let mut shift = 60_u32;
        while shift > 0 && value.wrapping_shr(shift) == 0 {
            shift = shift.wrapping_sub(4);
        }
        loop {
            let [digit, ..] = (value.wrapping_shr(shift) & 0xf).to_le_bytes();
            self.push(if digit < 10 { b'0'.wrapping_add(digit) } else { b'a'.wrapping_add(digit).wrapping_sub(10) });
            if shift == 0 {
                return;
            }
            shift = shift.wrapping_sub(4);
        }
    }

    fn decimal(&mut self, value: u32) {
        let mut power = 1_000_000_000_u32;
        while power > 1 && value < power {
            power /= 10;
        }
        while power > 0 {
            let [digit, ..] = (value / power % 10).to_le_bytes();
            self.push(b'0'.wrapping_add(digit));
            power /= 10;
        }
    }

    /// The name of a call; nothing if it has none.
    fn name(&mut self, number: u32) {
        let mut rest: &[u8] = &NAMES;
        let mut left = number;
        while let Some((length, behind)) = rest.split_first() {
            let Some((name, behind)) = behind.split_at_checked(usize::from(*length)) else { return };
            if left == 0 {
                return self.text(name);
            }
            left = left.wrapping_sub(1);
            rest = behind;
        }
    }
}

/// # Safety
///
/// At `offset` behind `pointer` there are four readable bytes.
unsafe fn word(pointer: *const u8, offset: usize) -> u32 {
    // SAFETY: the caller answers for it.
    unsafe { pointer.wrapping_add(offset).cast::<u32>().read_unaligned() }
}

/// # Safety
///
/// At `offset` behind `pointer` there are eight readable bytes.
unsafe fn long(pointer: *const u8, offset: usize) -> u64 {
    // SAFETY: the caller answers for it.
    unsafe { pointer.wrapping_add(offset).cast::<u64>().read_unaligned() }
}

extern "C" fn handle(_: usize, info: *const u8, context: *const u8) -> ! {
    // SAFETY: the kernel gives a whole siginfo_t.
    let code = unsafe { word(info, SI_CODE) };
    if code != SYS_SECCOMP {
        syscall::exit(EXIT_STATUS);
    }
    // SAFETY: the same.
    let number = unsafe { word(info, SI_SYSCALL) };
    // SAFETY: the same.
    let arch = unsafe { word(info, SI_ARCH) };
    // SAFETY: the same.
    let address = unsafe { long(info, SI_CALL_ADDR) };
    let mut line = Line { bytes: [const { MaybeUninit::uninit() }; LINE_LENGTH], length: 0 };
    line.text(&BEGINNING);
    if arch == AUDIT_ARCH_X86_64 {
        line.name(number);
    }
    line.text(b" (");
    line.decimal(number);
    line.text(b") at ");
    line.hexadecimal(address);
    let mut separator: &[u8] = b": ";
    for register in ARGUMENTS {
        line.text(separator);
        // SAFETY: the kernel gives a whole ucontext_t.
        line.hexadecimal(unsafe { long(context, register) });
        separator = b", ";
    }
    line.push(b'\n');
    syscall::complain_at(line.bytes.as_ptr().cast(), line.length);
    syscall::make_refused(number)
}
