//! Lets a stopped thread make calls of ours, and go on as if it had not.
//!
//! Input: a thread that stands before a call or at an address, and a filter. Output: the filter is on for all threads
//! of its process. The thread gets a page of its own for the filter, which it then gives back; memory that the program
//! uses is never written. Signals are blocked meanwhile, as CRIU does it; a stop that comes all the same is sent again.
//!
//! Follows ptrace(2), seccomp(2); registers as in psABI A.2.1.

use std::io;
use std::os::unix::fs::FileExt;

use chestnut_rewriter::bpf::Program;
use libc::c_int;

use crate::entry::memory;
use crate::kernel::{self, CallStop, Event, Registers, Resume, Tid};

/// `syscall`.
const SYSCALL: [u8; 2] = [0x0f, 0x05];

const PAGE: u64 = 4096;

/// Where a thread stands.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Stand {
    /// Before a call, made by the `syscall` instruction before its instruction pointer; that call is made afterwards.
    BeforeCall,
    /// At an address where code begins, which may be overwritten for a while: nobody else runs it.
    AtCode,
}

/// Why a filter is not on.
#[derive(Debug)]
pub(crate) enum Failed {
    /// The thread is gone, and this is its last event.
    Gone(Event),
    /// The kernel says no.
    Refused(io::Error),
}

impl From<io::Error> for Failed {
    fn from(error: io::Error) -> Self {
        Self::Refused(error)
    }
}

/// Options of a tracee that go on for all, and the one that switches filters off for a while.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Options {
    pub(crate) usual: c_int,
    /// The process has filters, which might not let our calls pass.
    pub(crate) is_filtered: bool,
}

/// Puts a filter into the process of a stopped thread.
pub(crate) fn install(process: Tid, tid: Tid, stand: Stand, filter: &Program, options: Options) -> Result<(), Failed> {
    if options.is_filtered {
        // Needs CAP_SYS_ADMIN; without it we must not try, since the process's own filter may kill it for our calls.
        kernel::set_options(tid, options.usual | libc::PTRACE_O_SUSPEND_SECCOMP)?;
    }
    let result = Guest::enter(process, tid, stand).and_then(|mut guest| {
        let result = guest.install(filter);
        match result {
            Err(Failed::Gone(event)) => Err(Failed::Gone(event)),
            result => guest.leave().map_err(Failed::from).and(result),
        }
    });
    if options.is_filtered && !matches!(result, Err(Failed::Gone(_))) {
        kernel::set_options(tid, options.usual)?;
    }
    result
}

/// A thread that makes calls for us.
struct Guest {
    process: Tid,
    tid: Tid,
    stand: Stand,
    /// As they were.
    registers: Registers,
    blocked: u64,
    /// Address of a `syscall` instruction.
    instruction: u64,
    /// What stood there, if it was not one.
    code: Option<[u8; 2]>,
    /// A signal that cannot be blocked and that came meanwhile.
    missed: Option<c_int>,
}

impl Guest {
    fn enter(process: Tid, tid: Tid, stand: Stand) -> Result<Self, Failed> {
        let registers = kernel::registers(tid)?;
        let blocked = kernel::blocked_signals(tid)?;
        let memory = memory(tid)?;
        let (instruction, code) = match stand {
            Stand::BeforeCall => (registers.rip.wrapping_sub(2), None),
            Stand::AtCode => {
                let mut code = [0; 2];
                memory.read_exact_at(&mut code, registers.rip)?;
                memory.write_all_at(&SYSCALL, registers.rip)?;
                (registers.rip, Some(code))
            }
        };
        kernel::set_blocked_signals(tid, u64::MAX)?;
        let mut guest = Self { process, tid, stand, registers, blocked, instruction, code, missed: None };
        if matches!(stand, Stand::BeforeCall) {
            // The call that the thread is at becomes none.
            let nothing = Registers { orig_rax: u64::MAX, ..registers };
            kernel::set_registers(tid, &nothing)?;
            guest.run_to_exit()?;
        }
        Ok(guest)
    }

    /// Makes one call; its result.
    fn call(&mut self, number: libc::c_long, args: [u64; 6]) -> Result<i64, Failed> {
        let [rdi, rsi, rdx, r10, r8, r9] = args;
        let rax = u64::try_from(number).unwrap_or(u64::MAX);
        let registers =
            Registers { rax, orig_rax: u64::MAX, rip: self.instruction, rdi, rsi, rdx, r10, r8, r9, ..self.registers };
        kernel::set_registers(self.tid, &registers)?;
        self.run_to_exit()?;
        Ok(kernel::registers(self.tid)?.rax.cast_signed())
    }

    fn run_to_exit(&mut self) -> Result<(), Failed> {
        loop {
            kernel::resume(self.tid, Resume::Syscall, 0)?;
            match kernel::wait_event(self.tid)? {
                Event::Call if kernel::call_stop(self.tid)? == CallStop::Exit => return Ok(()),
                Event::Call | Event::Special(libc::PTRACE_EVENT_SECCOMP, _) => {}
                event @ (Event::Gone(_) | Event::Special(libc::PTRACE_EVENT_EXIT, _)) => {
                    return Err(Failed::Gone(event));
                }
                Event::Signal(signal) | Event::Special(libc::PTRACE_EVENT_STOP, signal) if signal != libc::SIGTRAP => {
                    self.missed = Some(signal);
                }
                Event::Special(..) | Event::Signal(_) => {}
            }
        }
    }

    fn install(&mut self, filter: &Program) -> Result<(), Failed> {
        let code = filter.encode();
        // struct sock_fprog: length, six bytes of nothing, address; then the filter.
        let head: u64 = 16;
        let length = head.saturating_add(u64::try_from(code.len()).unwrap_or(0)).next_multiple_of(PAGE);
        let rights = u64::try_from(libc::PROT_READ | libc::PROT_WRITE).unwrap_or(0);
        let kind = u64::try_from(libc::MAP_PRIVATE | libc::MAP_ANONYMOUS).unwrap_or(0);
        let page = self.call(libc::SYS_mmap, [0, length, rights, kind, u64::MAX, 0])?;
        let page = u64::try_from(page).map_err(|_| os_error(page))?;
        let mut block = u64::try_from(filter.instructions().len()).unwrap_or(0).to_le_bytes().to_vec();
        block.extend(page.wrapping_add(head).to_le_bytes());
        block.extend(code);
        let result = memory(self.tid)?.write_all_at(&block, page).map_err(Failed::from);
        let result = result.and_then(|()| self.set_filter(page));
        if !matches!(result, Err(Failed::Gone(_))) {
            self.call(libc::SYS_munmap, [page, length, 0, 0, 0, 0])?;
        }
        result
    }

    fn set_filter(&mut self, program: u64) -> Result<(), Failed> {
        let flags = libc::SECCOMP_FILTER_FLAG_TSYNC | libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW;
        let words = [u64::from(libc::SECCOMP_SET_MODE_FILTER), flags, program, 0, 0, 0];
        let mut answer = self.call(libc::SYS_seccomp, words)?;
        if answer == -i64::from(libc::EACCES) {
            let no_new_privs = u64::try_from(libc::PR_SET_NO_NEW_PRIVS).unwrap_or(0);
            self.call(libc::SYS_prctl, [no_new_privs, 1, 0, 0, 0, 0])?;
            answer = self.call(libc::SYS_seccomp, words)?;
        }
        match answer {
            0 => Ok(()),
            1.. => Err(Failed::Refused(io::Error::other("a thread has a filter of its own"))),
            _ => Err(Failed::Refused(os_error(answer))),
        }
    }

    /// As it was; the call that the thread was at is made anew.
    fn leave(&mut self) -> io::Result<()> {
        if let Some(code) = self.code {
            memory(self.tid)?.write_all_at(&code, self.instruction)?;
        }
        let registers = match self.stand {
            Stand::AtCode => Registers { orig_rax: u64::MAX, ..self.registers },
            Stand::BeforeCall => {
                Registers { rip: self.instruction, rax: self.registers.orig_rax, orig_rax: u64::MAX, ..self.registers }
            }
        };
        kernel::set_registers(self.tid, &registers)?;
        kernel::set_blocked_signals(self.tid, self.blocked)?;
        self.missed.map_or(Ok(()), |signal| kernel::signal_thread(self.process, self.tid, signal))
    }
}

fn os_error(answer: i64) -> io::Error {
    io::Error::from_raw_os_error(i32::try_from(answer.wrapping_neg()).unwrap_or(libc::EINVAL))
}
