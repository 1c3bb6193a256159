//! From a command to the end of all that it has started.
//!
//! Input: a command or the number of a process, and a [`Plan`]. Output: the program has ended (or goes on without us),
//! and what was seen. Signals that another process sends us go to the program; those of the terminal go to its whole
//! process group and so have reached it already. A process of the program that outlives it is traced to its end.

use std::ffi::CString;
use std::io::{self, PipeReader};
use std::time::{Duration, Instant};

use libc::c_int;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::engine::{Ending, Engine, Plan};
use crate::error::Error;
use crate::kernel::{self, Tid};
use crate::live::Live;
use crate::recorder::Recorder;
use crate::signals::{Arrived, Signals};
use crate::tree::Space;

/// Signals that end or rouse a program, and that somebody may send to us instead of to it.
const PASSED_ON: [c_int; 6] = [libc::SIGINT, libc::SIGQUIT, libc::SIGTERM, libc::SIGHUP, libc::SIGUSR1, libc::SIGUSR2];

/// How often what is shown while a program runs is renewed, and numbers are written.
const TICK: Duration = Duration::from_millis(250);
const COUNTS: Duration = Duration::from_secs(10);

/// A tracer at work.
struct Session {
    engine: Engine,
    signals: Signals,
    live: Live,
    /// It is to let go of everything.
    is_leaving: bool,
    counted: Instant,
}

/// Runs a command under a tracer.
pub(crate) fn run(words: &[CString], plan: Plan, recorder: Recorder, live: Live) -> Result<(Engine, Ending), Error> {
    let program = words.first().map_or_else(String::new, |word| word.to_string_lossy().into_owned());
    let start = |source| Error::Start { program: program.clone(), source };
    let held = kernel::hold(words).map_err(start)?;
    let main = held.pid;
    let mut engine = Engine::new(plan, recorder, main);
    if let Err(source) = kernel::seize(main, engine.options()) {
        // The child ends when it sees that it will not be released.
        drop(held);
        let _ = kernel::wait_event(main);
        return Err(Error::Ptrace(source));
    }
    engine.add_process(main, Space::new(usize::MAX, None));
    let signals = take_signals()?;
    let failure = held.release().map_err(start)?;
    let session = Session { engine, signals, live, is_leaving: false, counted: Instant::now() };
    let engine = session.run()?;
    finish(engine, failure, &program)
}

fn finish(engine: Engine, failure: PipeReader, program: &str) -> Result<(Engine, Ending), Error> {
    if !engine.has_executed
        && let Some(source) = kernel::failure(failure)
    {
        return Err(Error::Start { program: program.to_owned(), source });
    }
    let ending = engine.ending.unwrap_or_default();
    Ok((engine, ending))
}

/// Traces a process that runs already, until it ends or somebody interrupts us.
pub(crate) fn attach(pid: Tid, plan: Plan, recorder: Recorder, live: Live) -> Result<(Engine, Ending), Error> {
    let mut engine = Engine::new(Plan { attached: true, ..plan }, recorder, pid);
    let failed = |source| Error::Attach { pid, source };
    kernel::seize(pid, engine.options()).map_err(failed)?;
    let image = engine.recorder.image(pid, None, false);
    engine.add_process(pid, Space::new(image, None));
    kernel::interrupt(pid).map_err(failed)?;
    // Threads that start meanwhile are started by threads that we may not have yet.
    loop {
        let mut is_new = false;
        for entry in std::fs::read_dir(format!("/proc/{pid}/task")).map_err(failed)?.flatten() {
            let tid: Tid = entry.file_name().to_str().and_then(|name| name.parse().ok()).unwrap_or(pid);
            if engine.tree.threads.contains_key(&tid) || kernel::seize(tid, engine.options()).is_err() {
                continue;
            }
            engine.tree.threads.insert(tid, crate::tree::Thread::new(pid));
            is_new |= kernel::interrupt(tid).is_ok();
        }
        if !is_new {
            break;
        }
    }
    let session = Session { engine, signals: take_signals()?, live, is_leaving: false, counted: Instant::now() };
    let engine = session.run()?;
    let ending = engine.ending.unwrap_or_default();
    Ok((engine, ending))
}

fn take_signals() -> Result<Signals, Error> {
    // Taking the terminal for a question must not stop us.
    kernel::ignore(libc::SIGTTOU);
    kernel::ignore(libc::SIGTTIN);
    let all: Vec<c_int> = PASSED_ON.into_iter().chain([libc::SIGCHLD]).collect();
    Signals::take(&all).map_err(Error::Wait)
}

impl Session {
    fn run(mut self) -> Result<Engine, Error> {
        loop {
            while let Some(arrived) = self.signals.next() {
                self.signal(arrived);
            }
            if !self.events()? {
                break;
            }
            self.engine.take_answers()?;
            self.engine.adopt_orphans();
            self.live.show(&self.engine);
            if self.counted.elapsed() > COUNTS {
                self.engine.recorder.counts();
                self.counted = Instant::now();
            }
            self.wait()?;
        }
        self.live.clear();
        Ok(self.engine)
    }

    /// Handles all events that there are; whether there is anything left to wait for.
    fn events(&mut self) -> Result<bool, Error> {
        let mut handled: u32 = 0;
        loop {
            match kernel::poll_event() {
                Ok(Some((tid, event))) => self.engine.handle(tid, event)?,
                Ok(None) => break,
                Err(error) if error.raw_os_error() == Some(libc::ECHILD) => return Ok(false),
                Err(error) => return Err(Error::Wait(error)),
            }
            if let Some(error) = self.engine.fatal.take() {
                self.end_all(libc::SIGKILL);
                return Err(error);
            }
            handled = handled.wrapping_add(1);
            // A program that never lets us rest must not keep signals from us.
            if handled.is_multiple_of(1024) {
                return Ok(true);
            }
        }
        // A process that was let go, and is no child, is not waited for.
        let is_done = self.engine.tree.threads.is_empty() && self.engine.tree.early.is_empty();
        Ok(!(is_done && (self.engine.plan.attached || self.engine.ending.is_some())))
    }

    fn wait(&self) -> Result<(), Error> {
        let is_awaited = self.live.is_on() || !self.engine.tree.early.is_empty();
        let tick = Timespec { tv_sec: 0, tv_nsec: i64::from(TICK.subsec_nanos()) };
        let long = Timespec { tv_sec: i64::try_from(COUNTS.as_secs()).unwrap_or(1), tv_nsec: 0 };
        let timeout = if is_awaited { &tick } else { &long };
        let signals = self.signals.sources();
        let mut sources: Vec<_> = signals.iter().map(|source| PollFd::new(source, PollFlags::IN)).collect();
        if let Some(gate) = &self.engine.plan.gate {
            sources.push(PollFd::new(&gate.bell, PollFlags::IN));
        }
        match poll(&mut sources, Some(timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(error) => Err(Error::Wait(error.into())),
        }
    }

    fn signal(&mut self, arrived: Arrived) {
        let Arrived { signal, by_process } = arrived;
        if signal == libc::SIGCHLD {
            return;
        }
        let ends = [libc::SIGINT, libc::SIGQUIT, libc::SIGTERM, libc::SIGHUP].contains(&signal);
        if self.engine.plan.attached {
            if ends {
                self.let_go();
            }
        } else if self.engine.ending.is_some() {
            // The program has ended; what is left has nobody else to tell it to end.
            self.end_all(signal);
        } else if by_process {
            let _ = kernel::signal_process(self.engine.main, signal);
        }
    }

    fn end_all(&self, signal: c_int) {
        for pid in self.engine.tree.processes.keys() {
            let _ = kernel::signal_process(*pid, signal);
        }
    }

    /// Asks every thread to stop, so that it can be let go.
    fn let_go(&mut self) {
        if std::mem::replace(&mut self.is_leaving, true) {
            return;
        }
        for (tid, thread) in &mut self.engine.tree.threads {
            thread.is_leaving = true;
            let _ = kernel::interrupt(*tid);
        }
    }
}

/// The words of a command, as the kernel takes them.
pub(crate) fn c_words(words: &[std::ffi::OsString]) -> Result<Vec<CString>, Error> {
    let word = |word: &std::ffi::OsString| CString::new(std::os::unix::ffi::OsStrExt::as_bytes(word.as_os_str()));
    words.iter().map(word).collect::<Result<_, _>>().map_err(|_| Error::Start {
        program: words.first().map_or_else(String::new, |word| word.display().to_string()),
        source: io::Error::from(io::ErrorKind::InvalidInput),
    })
}
