//! What the kernel offers a tracer and no crate has in a safe form: `ptrace`, `wait4` for tracees, and a child that waits
//! before it becomes a program.
//!
//! Input and output: numbers and plain structures. Follows ptrace(2), wait(2). Crates with a safe `ptrace`
//! cannot deliver real-time signals (their signals are an enumeration of the others) and lack `PTRACE_LISTEN`.
//!
//! # Safety
//!
//! This module and `signals.rs` are the only ones of the crate that may use `unsafe`. A request that lets the kernel write gets a pointer to a
//! value of the right type that outlives the call; requests on a tracee can change that process, never this one.
#![allow(unsafe_code, reason = "ptrace and fork have no safe interface")]

use std::ffi::{CStr, CString};
use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::AsRawFd;

use libc::{c_int, c_long, c_uint, c_ulong};

/// A thread, by the kernel's number; that of a process is that of its first thread.
pub(crate) type Tid = libc::pid_t;

/// Registers of a tracee.
pub(crate) type Registers = libc::user_regs_struct;

/// `AUDIT_ARCH_X86_64`.
pub(crate) const AUDIT_ARCH_X86_64: u32 = 0xc000_003e;

/// How a tracee goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Resume {
    /// To the next stop that its filter asks for.
    Continue,
    /// To the beginning or end of the next call.
    Syscall,
}

/// A call that a tracee is about to make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Call {
    /// `AUDIT_ARCH_*`.
    pub(crate) arch: u32,
    pub(crate) nr: u64,
    /// Address behind the instruction that makes the call.
    pub(crate) ip: u64,
    pub(crate) args: [u64; 6],
}

/// At which side of a call a tracee stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CallStop {
    Entry(Call),
    Exit,
    /// At none.
    Other,
}

/// What `wait4` tells about a tracee.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// It is gone: wait status.
    Gone(c_int),
    /// Before or behind a call.
    Call,
    /// `PTRACE_EVENT_*`, with the signal of the stop.
    Special(c_int, c_int),
    /// A signal is about to be delivered.
    Signal(c_int),
}

const fn event_of(status: c_int) -> Event {
    if !libc::WIFSTOPPED(status) {
        return Event::Gone(status);
    }
    match (status >> 16, libc::WSTOPSIG(status)) {
        (0, stop) if stop == libc::SIGTRAP | 0x80 => Event::Call,
        (0, signal) => Event::Signal(signal),
        (event, signal) => Event::Special(event, signal),
    }
}

/// The next event of a tracee of this thread, if there is one; the error is ECHILD if there are no tracees.
pub(crate) fn poll_event() -> io::Result<Option<(Tid, Event)>> {
    // Without __WNOTHREAD it would take the children of other threads from them.
    wait(-1, libc::__WALL | libc::__WNOTHREAD | libc::WNOHANG)
}

/// Waits for the next event of one tracee.
pub(crate) fn wait_event(tid: Tid) -> io::Result<Event> {
    loop {
        match wait(tid, libc::__WALL) {
            Ok(Some((_, event))) => return Ok(event),
            Ok(None) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

fn wait(tid: Tid, options: c_int) -> io::Result<Option<(Tid, Event)>> {
    let mut status = 0;
    // SAFETY: the kernel writes one `int` to the pointer, which is valid until the call returns.
    let found = unsafe { libc::waitpid(tid, &raw mut status, options) };
    match found {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(None),
        tid => Ok(Some((tid, event_of(status)))),
    }
}

/// A request whose address and data are plain numbers.
fn request(code: c_uint, tid: Tid, address: c_long, data: c_long) -> io::Result<()> {
    // SAFETY: the requests that come here let the kernel touch no memory of this process.
    let answer = unsafe { libc::ptrace(code, tid, address, data) };
    if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Becomes the tracer of a thread, without stopping it.
pub(crate) fn seize(tid: Tid, options: c_int) -> io::Result<()> {
    request(libc::PTRACE_SEIZE, tid, 0, c_long::from(options))
}

/// Changes the options.
pub(crate) fn set_options(tid: Tid, options: c_int) -> io::Result<()> {
    request(libc::PTRACE_SETOPTIONS, tid, 0, c_long::from(options))
}

/// Lets a stopped thread run, with a signal or 0.
pub(crate) fn resume(tid: Tid, how: Resume, signal: c_int) -> io::Result<()> {
    let code = match how {
        Resume::Continue => libc::PTRACE_CONT,
        Resume::Syscall => libc::PTRACE_SYSCALL,
    };
    request(code, tid, 0, c_long::from(signal))
}

/// Leaves a thread in its group-stop, and asks to be told when that ends.
pub(crate) fn listen(tid: Tid) -> io::Result<()> {
    request(libc::PTRACE_LISTEN, tid, 0, 0)
}

/// Stops a running thread.
pub(crate) fn interrupt(tid: Tid) -> io::Result<()> {
    request(libc::PTRACE_INTERRUPT, tid, 0, 0)
}

/// Lets go of a stopped thread, with a signal or 0.
pub(crate) fn detach(tid: Tid, signal: c_int) -> io::Result<()> {
    request(libc::PTRACE_DETACH, tid, 0, c_long::from(signal))
}

/// The number that belongs to a `PTRACE_EVENT_*`.
pub(crate) fn event_message(tid: Tid) -> io::Result<u64> {
    let mut message: c_ulong = 0;
    let pointer = &raw mut message;
    // SAFETY: the kernel writes one `unsigned long` to the pointer, which is valid until the call returns.
    let answer = unsafe { libc::ptrace(libc::PTRACE_GETEVENTMSG, tid, 0, pointer) };
    if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(message) }
}

/// Registers of a stopped thread.
pub(crate) fn registers(tid: Tid) -> io::Result<Registers> {
    let mut values = MaybeUninit::<Registers>::uninit();
    // SAFETY: the kernel writes one `user_regs_struct` to the pointer, which is valid until the call returns.
    let answer = unsafe { libc::ptrace(libc::PTRACE_GETREGS, tid, 0, values.as_mut_ptr()) };
    if answer < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the request succeeded, so the kernel has written the whole structure.
    Ok(unsafe { values.assume_init() })
}

/// Sets the registers of a stopped thread.
pub(crate) fn set_registers(tid: Tid, values: &Registers) -> io::Result<()> {
    let pointer: *const Registers = values;
    // SAFETY: the kernel reads one `user_regs_struct` from the pointer, which is valid until the call returns.
    let answer = unsafe { libc::ptrace(libc::PTRACE_SETREGS, tid, 0, pointer) };
    if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Size of the kernel's `sigset_t`.
const SIGNAL_SET_LENGTH: c_long = 8;

/// The signals that a stopped thread has blocked, one bit each.
pub(crate) fn blocked_signals(tid: Tid) -> io::Result<u64> {
    let mut set: u64 = 0;
    let pointer = &raw mut set;
    // SAFETY: the kernel writes eight bytes to the pointer, which is valid until the call returns.
    let answer = unsafe { libc::ptrace(libc::PTRACE_GETSIGMASK, tid, SIGNAL_SET_LENGTH, pointer) };
    if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(set) }
}

/// Sets the signals that a stopped thread has blocked.
pub(crate) fn set_blocked_signals(tid: Tid, set: u64) -> io::Result<()> {
    let pointer = &raw const set;
    // SAFETY: the kernel reads eight bytes from the pointer, which is valid until the call returns.
    let answer = unsafe { libc::ptrace(libc::PTRACE_SETSIGMASK, tid, SIGNAL_SET_LENGTH, pointer) };
    if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// The call that a stopped thread is at.
pub(crate) fn call_stop(tid: Tid) -> io::Result<CallStop> {
    let mut info = MaybeUninit::<libc::ptrace_syscall_info>::zeroed();
    let length = size_of::<libc::ptrace_syscall_info>();
    // SAFETY: the kernel writes at most `length` bytes to the pointer, which is valid until the call returns.
    let answer = unsafe { libc::ptrace(libc::PTRACE_GET_SYSCALL_INFO, tid, length, info.as_mut_ptr()) };
    if answer < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: all bytes were zero at first, and every field is an integer.
    let info = unsafe { info.assume_init() };
    let (nr, args) = match info.op {
        libc::PTRACE_SYSCALL_INFO_ENTRY => {
            // SAFETY: `op` says that this is the field that was written.
            let entry = unsafe { info.u.entry };
            (entry.nr, entry.args)
        }
        libc::PTRACE_SYSCALL_INFO_SECCOMP => {
            // SAFETY: `op` says that this is the field that was written.
            let seccomp = unsafe { info.u.seccomp };
            (seccomp.nr, seccomp.args)
        }
        libc::PTRACE_SYSCALL_INFO_EXIT => return Ok(CallStop::Exit),
        _ => return Ok(CallStop::Other),
    };
    Ok(CallStop::Entry(Call { arch: info.arch, nr, ip: info.instruction_pointer, args }))
}

/// Sends a signal to one thread.
pub(crate) fn signal_thread(process: Tid, tid: Tid, signal: c_int) -> io::Result<()> {
    // SAFETY: only numbers.
    let answer = unsafe { libc::syscall(libc::SYS_tgkill, process, tid, signal) };
    if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Sends a signal to a process.
pub(crate) fn signal_process(process: Tid, signal: c_int) -> io::Result<()> {
    // SAFETY: only numbers.
    let answer = unsafe { libc::kill(process, signal) };
    if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// A child that has not yet become a program.
#[derive(Debug)]
pub(crate) struct Held {
    /// Its number.
    pub(crate) pid: Tid,
    go: PipeWriter,
    failure: PipeReader,
}

impl Held {
    /// Lets the child execute the program. What is returned tells whether that failed, once it is known.
    pub(crate) fn release(mut self) -> io::Result<PipeReader> {
        self.go.write_all(&[1])?;
        Ok(self.failure)
    }
}

/// The error with which an execution failed; `None` if it did not.
pub(crate) fn failure(mut pipe: PipeReader) -> Option<io::Error> {
    let mut bytes = [0; 4];
    pipe.read_exact(&mut bytes).ok()?;
    Some(io::Error::from_raw_os_error(i32::from_ne_bytes(bytes)))
}

/// Starts a child that executes a program (looked up as execvp(3) does) once it is [released](Held::release).
pub(crate) fn hold(words: &[CString]) -> io::Result<Held> {
    let (wait, go) = io::pipe()?;
    let (failure, tell) = io::pipe()?;
    let mut pointers: Vec<_> = words.iter().map(|word| word.as_ptr()).collect();
    pointers.push(std::ptr::null());
    let program: &CStr = words.first().map_or(c"", CString::as_c_str);
    // SAFETY: the child only makes system calls before it is another program: it allocates and locks nothing.
    let pid = unsafe { libc::fork() };
    match pid {
        -1 => Err(io::Error::last_os_error()),
        0 => become_program(program, &pointers, &wait, &go, &tell),
        pid => Ok(Held { pid, go, failure }),
    }
}

/// The child. Ends without the program if its parent goes away.
fn become_program(
    program: &CStr,
    words: &[*const libc::c_char],
    wait: &PipeReader,
    go: &PipeWriter,
    tell: &PipeWriter,
) -> ! {
    // The end of the pipe is then only the parent's, so that its end is seen here.
    // SAFETY: nothing in this process uses the descriptor any more.
    unsafe { libc::close(go.as_raw_fd()) };
    let mut byte = [0_u8; 1];
    // SAFETY: the kernel writes at most one byte to the array.
    let read = unsafe { libc::read(wait.as_raw_fd(), byte.as_mut_ptr().cast(), 1) };
    if read == 1 && byte == [1] {
        // The run-time library ignores it; programs expect the default.
        // SAFETY: the default disposition runs no code.
        unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
        // SAFETY: the words are C strings, and the array ends with a null pointer.
        unsafe { libc::execvp(program.as_ptr(), words.as_ptr()) };
        let error = io::Error::last_os_error().raw_os_error().unwrap_or(0).to_ne_bytes();
        // SAFETY: the kernel reads four bytes from the array.
        unsafe { libc::write(tell.as_raw_fd(), error.as_ptr().cast(), error.len()) };
    }
    // SAFETY: ends the child.
    unsafe { libc::_exit(127) }
}

/// Ends this process by a signal, as another one has ended; without a core file of its own. Comes back if the signal
/// does not end a process.
pub(crate) fn die_of(signal: c_int) {
    let none = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the kernel reads one `rlimit` from the pointer.
    unsafe { libc::setrlimit(libc::RLIMIT_CORE, &raw const none) };
    // SAFETY: the default disposition runs no code.
    unsafe { libc::signal(signal, libc::SIG_DFL) };
    // SAFETY: only a number.
    unsafe { libc::raise(signal) };
}

/// Ignores a signal from now on, in this process and in what it starts.
pub(crate) fn ignore(signal: c_int) {
    // SAFETY: an ignored signal runs no code.
    unsafe { libc::signal(signal, libc::SIG_IGN) };
}
