//! Signals that come as data, to this thread or to others of the process.
//!
//! Input: which signals. Output: [`Arrived`]. They are blocked in the thread that waits, and read from a signalfd(2). A
//! process that has threads already, as after an analysis, may be given a signal in one of these: one that is ignored by
//! default, as SIGCHLD, would be lost, and a tracer would wait for what has come; one that kills would kill. So there is a
//! handler, too, which writes to a pipe: signal-safety(7).
//!
//! # Safety
//!
//! Sets and actions are read and written as sigaction(2) and pthread_sigmask(3) say. The handler calls write(2) alone.
#![allow(unsafe_code, reason = "signals have no safe interface")]

use std::io::{self, PipeReader, PipeWriter, Read};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicI32, Ordering};

use libc::c_int;

/// Where the handler writes; -1 if nobody reads.
static BELL: AtomicI32 = AtomicI32::new(-1);

/// What it writes: the signal, and `si_code`.
const WORDS: usize = 2 * size_of::<c_int>();

/// Runs in a thread that does not block the signal.
extern "C" fn pass_on(signal: c_int, info: *const libc::siginfo_t, _: *const libc::c_void) {
    let bell = BELL.load(Ordering::SeqCst);
    // SAFETY: the kernel gives a whole structure.
    let code = unsafe { (*info).si_code };
    let [a, b, c, d] = signal.to_ne_bytes();
    let [e, f, g, h] = code.to_ne_bytes();
    let words: [u8; WORDS] = [a, b, c, d, e, f, g, h];
    // SAFETY: gives the place of this thread's errno.
    let place = unsafe { libc::__errno_location() };
    // SAFETY: the place is valid; what was interrupted must find it as it was.
    let errno = unsafe { place.read() };
    // SAFETY: the kernel reads the array. A pipe that is full has woken the reader already.
    unsafe { libc::write(bell, words.as_ptr().cast(), WORDS) };
    // SAFETY: as above.
    unsafe { place.write(errno) };
}

/// Makes it the handler of a signal that has none, and is not ignored; what was there before. The program that is traced
/// gets the default back when it is executed.
fn handle(signal: c_int) -> Option<libc::sigaction> {
    let mut old = MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: writes the structure.
    if unsafe { libc::sigaction(signal, std::ptr::null(), old.as_mut_ptr()) } != 0 {
        return None;
    }
    // SAFETY: sigaction succeeded.
    let old = unsafe { old.assume_init() };
    if old.sa_sigaction != libc::SIG_DFL {
        return None;
    }
    let handler: extern "C" fn(c_int, *const libc::siginfo_t, *const libc::c_void) = pass_on;
    let mut new = old;
    new.sa_sigaction = handler as usize;
    new.sa_flags = libc::SA_SIGINFO | libc::SA_RESTART;
    // SAFETY: the handler does what is safe in one.
    (unsafe { libc::sigaction(signal, &raw const new, std::ptr::null_mut()) } == 0).then_some(old)
}

/// Signals that come as data.
#[derive(Debug)]
pub(crate) struct Signals {
    fd: OwnedFd,
    /// What other threads were given: the end that is read.
    others: PipeReader,
    /// The end that the handler writes to, as long as it is the handler.
    _bell: PipeWriter,
    /// What was blocked before.
    old: libc::sigset_t,
    /// What became of signals before that have our handler now.
    handled: Vec<(c_int, libc::sigaction)>,
}

/// A signal that has come.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Arrived {
    pub(crate) signal: c_int,
    /// Another process has sent it, and not the kernel or the terminal.
    pub(crate) by_process: bool,
}

impl Signals {
    /// Blocks some signals in this thread, and those that it starts; they are read here from now on. Threads that were there
    /// before pass on what they are given.
    pub(crate) fn take(signals: &[c_int]) -> io::Result<Self> {
        let mut set = MaybeUninit::<libc::sigset_t>::zeroed();
        // SAFETY: writes the set that the pointer leads to.
        unsafe { libc::sigemptyset(set.as_mut_ptr()) };
        for signal in signals {
            // SAFETY: the set has been made by sigemptyset.
            unsafe { libc::sigaddset(set.as_mut_ptr(), *signal) };
        }
        let mut old = MaybeUninit::<libc::sigset_t>::zeroed();
        // SAFETY: reads one set and writes the other; both outlive the call.
        let answer = unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, set.as_ptr(), old.as_mut_ptr()) };
        if answer != 0 {
            return Err(io::Error::from_raw_os_error(answer));
        }
        // SAFETY: reads the set.
        let fd = unsafe { libc::signalfd(-1, set.as_ptr(), libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor is new and nobody else's.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        let (others, bell) = io::pipe()?;
        rustix::io::ioctl_fionbio(&others, true)?;
        rustix::io::ioctl_fionbio(&bell, true)?;
        BELL.store(bell.as_raw_fd(), Ordering::SeqCst);
        let handled = signals.iter().filter_map(|signal| Some((*signal, handle(*signal)?))).collect();
        // SAFETY: pthread_sigmask succeeded, so it has written the set.
        Ok(Self { fd, others, _bell: bell, old: unsafe { old.assume_init() }, handled })
    }

    /// To wait on: what came to this thread, and what came to others.
    pub(crate) fn sources(&self) -> [BorrowedFd<'_>; 2] {
        [self.fd.as_fd(), self.others.as_fd()]
    }

    /// The next signal that has come.
    pub(crate) fn next(&self) -> Option<Arrived> {
        let mut info = MaybeUninit::<libc::signalfd_siginfo>::zeroed();
        let length = size_of::<libc::signalfd_siginfo>();
        // SAFETY: the kernel writes at most `length` bytes to the pointer.
        let read = unsafe { libc::read(self.fd.as_raw_fd(), info.as_mut_ptr().cast(), length) };
        if usize::try_from(read) != Ok(length) {
            return self.passed_on();
        }
        // SAFETY: the kernel has written all of it.
        let info = unsafe { info.assume_init() };
        let by_process = info.ssi_code <= 0;
        Some(Arrived { signal: c_int::try_from(info.ssi_signo).ok()?, by_process })
    }

    /// The next one that another thread was given.
    fn passed_on(&self) -> Option<Arrived> {
        let mut words = [0; WORDS];
        (&self.others).read_exact(&mut words).ok()?;
        let [signal, code] =
            [words.first_chunk(), words.last_chunk()].map(|word| word.copied().map(c_int::from_ne_bytes));
        Some(Arrived { signal: signal?, by_process: code? <= 0 })
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        for (signal, action) in &self.handled {
            // SAFETY: reads what sigaction has written.
            unsafe { libc::sigaction(*signal, action, std::ptr::null_mut()) };
        }
        BELL.store(-1, Ordering::SeqCst);
        // SAFETY: reads the set that pthread_sigmask has written.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const self.old, std::ptr::null_mut()) };
    }
}
