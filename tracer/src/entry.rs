//! The moment at which a program's own code begins.
//!
//! Input: a process that has just executed a program. Output: a breakpoint (`int3`) at `AT_ENTRY`, the address that the
//! loader jumps to when libraries are loaded and their constructors have run. It is taken out when it is hit; that is
//! the only byte of a program that a tracer changes.
//!
//! Follows getauxval(3), `fs/binfmt_elf.c` (`create_elf_tables`) and proc_pid_auxv(5): words of the program's own
//! width.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;

use crate::kernel::{self, Tid};

/// `int3`.
const BREAKPOINT: u8 = 0xcc;

/// `ELFCLASS32`, and where the class stands.
const CLASS_32: u8 = 1;
const CLASS_AT: usize = 4;

/// A breakpoint that is set.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Breakpoint {
    address: u64,
    /// The byte that belongs there.
    byte: u8,
}

impl Breakpoint {
    /// Sets a breakpoint at the entry point of the program that a process has just become.
    pub(crate) fn set(pid: Tid) -> io::Result<Self> {
        let address = entry_point(pid)?;
        let memory = memory(pid)?;
        let mut byte = [0];
        memory.read_exact_at(&mut byte, address)?;
        memory.write_all_at(&[BREAKPOINT], address)?;
        let [byte] = byte;
        Ok(Self { address, byte })
    }

    /// The entry point.
    pub(crate) const fn address(self) -> u64 {
        self.address
    }

    /// Takes the breakpoint out.
    pub(crate) fn remove(self, tid: Tid) -> io::Result<()> {
        memory(tid)?.write_all_at(&[self.byte], self.address)
    }

    /// Whether a thread that got SIGTRAP stands behind the breakpoint. If so the program is whole again, and the thread
    /// stands at its entry point.
    pub(crate) fn take(self, tid: Tid) -> io::Result<bool> {
        let mut registers = kernel::registers(tid)?;
        if registers.rip != self.address.wrapping_add(1) {
            return Ok(false);
        }
        self.remove(tid)?;
        registers.rip = self.address;
        kernel::set_registers(tid, &registers)?;
        Ok(true)
    }
}

/// The memory of a process, for its tracer: what is read-only there is written all the same, as a copy of its own.
pub(crate) fn memory(pid: Tid) -> io::Result<File> {
    File::options().read(true).write(true).open(format!("/proc/{pid}/mem"))
}

/// The architecture of the call that the instruction before an address makes.
pub(crate) fn arch_before(tid: Tid, ip: u64) -> u32 {
    let mut code = [0; 2];
    let read = memory(tid).and_then(|memory| memory.read_exact_at(&mut code, ip.wrapping_sub(2)));
    match (read, code) {
        (Ok(()), [0xcd, 0x80] | [0x0f, 0x34]) => crate::architecture::AUDIT_ARCH_I386,
        _ => kernel::AUDIT_ARCH_X86_64,
    }
}

fn entry_point(pid: Tid) -> io::Result<u64> {
    let mut head = [0; 5];
    File::open(format!("/proc/{pid}/exe"))?.read_exact(&mut head)?;
    let auxv = std::fs::read(format!("/proc/{pid}/auxv"))?;
    let is_narrow = head.get(CLASS_AT) == Some(&CLASS_32);
    let words: Vec<u64> = if is_narrow {
        auxv.as_chunks::<4>().0.iter().map(|word| u64::from(u32::from_le_bytes(*word))).collect()
    } else {
        auxv.as_chunks::<8>().0.iter().map(|word| u64::from_le_bytes(*word)).collect()
    };
    let (pairs, _) = words.as_chunks::<2>();
    let entry = pairs.iter().find(|[key, _]| *key == libc::AT_ENTRY).map(|[_, value]| *value);
    entry.ok_or_else(|| io::Error::other("its auxiliary vector has no entry point"))
}
