//! The tracer's loop: events of the kernel in, a record of calls out.
//!
//! Input: a command or a process, and what is known. Output: lines of a trace, and how the program ended. At first
//! every call stops the program (`PTRACE_SYSCALL`). Once a process has made many calls in a short time and none of them
//! was new, it gets a filter (`SECCOMP_RET_TRACE`) that lets pass what has been seen, by number and address, and only
//! what is new stops it. A filter is inherited, but a program that is executed starts anew: in it again every call
//! stops.
//!
//! Follows ptrace(2): all tracees are seized, so that group-stops stay what they are; signals are delivered as they
//! come.

use std::collections::BTreeSet;
use std::io;
use std::time::{Duration, Instant};

use chestnut_analyzer::syscall::SyscallNr;
use libc::c_int;

use crate::architecture::Architecture;
use crate::error::Error;
use crate::gate::Gate;
use crate::inject::Stand;
use crate::kernel::{self, Call, CallStop, Event, Resume, Tid};
use crate::recorder::{Place, Recorder};
use crate::trace::{Phase, Refusal};
use crate::tree::{Process, Site, Space, Thread, Tree, group_of};

/// So many calls without a new one, in so short a time, and the process gets a filter.
pub(crate) const QUIET_CALLS: u32 = 2000;
pub(crate) const QUIET_TIME: Duration = Duration::from_millis(400);

/// How long a new task may wait for the event of its parent: that can only fail to come if the parent was killed.
const EARLY: Duration = Duration::from_millis(500);

/// What a tracer is told.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    /// From the entry point on, only other calls stop the program.
    pub(crate) known: Option<BTreeSet<SyscallNr>>,
    /// Who decides about other calls; if there is somebody, only these are recorded.
    pub(crate) gate: Option<Gate>,
    /// Whether paths are kept.
    pub(crate) paths: bool,
    /// The process is one that ran before, and goes on afterwards.
    pub(crate) attached: bool,
    /// Distance from the entry point to where the program is to begin, in a patched one.
    pub(crate) skip: Option<i64>,
}

/// How the program ended.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Ending {
    pub(crate) status: Option<i32>,
    pub(crate) signal: Option<i32>,
}

/// The tracer.
#[derive(Debug)]
pub(crate) struct Engine {
    pub(crate) plan: Plan,
    pub(crate) recorder: Recorder,
    pub(crate) tree: Tree,
    pub(crate) main: Tid,
    pub(crate) ending: Option<Ending>,
    /// What makes it impossible to go on.
    pub(crate) fatal: Option<Error>,
    pub(crate) has_executed: bool,
}

/// A tracee may be killed at any time; its end is told by `wait`.
pub(crate) fn unless_gone(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Ok(()),
        other => other,
    }
}

impl Engine {
    pub(crate) fn new(plan: Plan, recorder: Recorder, main: Tid) -> Self {
        Self { plan, recorder, tree: Tree::default(), main, ending: None, fatal: None, has_executed: false }
    }

    /// Options of every tracee.
    pub(crate) fn options(&self) -> c_int {
        let usual = libc::PTRACE_O_TRACESYSGOOD
            | libc::PTRACE_O_TRACECLONE
            | libc::PTRACE_O_TRACEFORK
            | libc::PTRACE_O_TRACEVFORK
            | libc::PTRACE_O_TRACEEXEC
            | libc::PTRACE_O_TRACEEXIT
            | libc::PTRACE_O_TRACESECCOMP;
        if self.plan.attached { usual } else { usual | libc::PTRACE_O_EXITKILL }
    }

    /// How a process that has no filter goes on.
    pub(crate) fn unfiltered(&self) -> Resume {
        if self.plan.gate.is_some() { Resume::Continue } else { Resume::Syscall }
    }

    /// Handles one event.
    pub(crate) fn handle(&mut self, tid: Tid, event: Event) -> Result<(), Error> {
        let result = match event {
            Event::Gone(status) => {
                self.gone(tid, status);
                return Ok(());
            }
            _ if !self.tree.threads.contains_key(&tid) && !self.adopt_early(tid) => return Ok(()),
            _ if self.tree.threads.get(&tid).is_some_and(|thread| thread.is_leaving) => self.let_go(tid, event),
            Event::Call => self.call_stop(tid),
            Event::Signal(signal) => self.signal(tid, signal),
            Event::Special(event, signal) => self.event(tid, event, signal),
        };
        unless_gone(result).map_err(|source| Error::Request { tid, what: "an event could not be handled", source })
    }

    pub(crate) fn resume(&self, tid: Tid, signal: c_int) -> io::Result<()> {
        kernel::resume(tid, self.tree.how(tid), signal)
    }

    fn gone(&mut self, tid: Tid, status: c_int) {
        if tid == self.main {
            let mut ending = Ending::default();
            if libc::WIFSIGNALED(status) {
                ending.signal = Some(libc::WTERMSIG(status));
            } else {
                ending.status = Some(libc::WEXITSTATUS(status));
            }
            self.ending = Some(ending);
        }
        self.tree.remove(tid);
        self.wake_waiting(tid);
    }

    fn event(&mut self, tid: Tid, event: c_int, signal: c_int) -> io::Result<()> {
        match event {
            libc::PTRACE_EVENT_SECCOMP => return self.seccomp_stop(tid),
            libc::PTRACE_EVENT_FORK | libc::PTRACE_EVENT_VFORK | libc::PTRACE_EVENT_CLONE => {
                let child = Tid::try_from(kernel::event_message(tid)?).unwrap_or(0);
                self.adopt(tid, child);
            }
            libc::PTRACE_EVENT_EXEC => self.executed(tid)?,
            libc::PTRACE_EVENT_EXIT => self.exits(tid)?,
            libc::PTRACE_EVENT_STOP if signal != libc::SIGTRAP => return kernel::listen(tid),
            _ => {}
        }
        self.resume(tid, 0)
    }

    /// A child or thread that its parent tells of.
    pub(crate) fn adopt(&mut self, parent: Tid, child: Tid) {
        if self.tree.threads.contains_key(&child) {
            return;
        }
        let group = group_of(child).unwrap_or(child);
        let early = self.tree.early.remove(&child).is_some();
        if self.tree.processes.contains_key(&group) {
            self.tree.threads.insert(child, Thread::new(group));
        } else if let Some(process) =
            self.tree.process_of(parent).and_then(|pid| self.tree.processes.get(&pid)).cloned()
        {
            self.tree.add(child, process);
        }
        if early {
            // It has stopped already; if it is gone meanwhile, wait says so.
            let _ = self.resume(child, 0);
        }
    }

    /// A task that nobody has told of yet. Whether it can be handled now.
    fn adopt_early(&mut self, tid: Tid) -> bool {
        match group_of(tid) {
            Some(group) if group != tid && self.tree.processes.contains_key(&group) => {
                self.tree.threads.insert(tid, Thread::new(group));
                true
            }
            _ => {
                self.tree.early.entry(tid).or_insert_with(Instant::now);
                false
            }
        }
    }

    /// Takes in tasks whose parents were killed before they could tell of them.
    pub(crate) fn adopt_orphans(&mut self) {
        let late: Vec<Tid> =
            self.tree.early.iter().filter(|(_, since)| since.elapsed() > EARLY).map(|(tid, _)| *tid).collect();
        for tid in late {
            self.tree.early.remove(&tid);
            let image = self.recorder.image(tid, None, false);
            self.add_process(tid, Space::new(image, None));
            let _ = self.resume(tid, 0);
        }
    }

    pub(crate) fn add_process(&mut self, pid: Tid, space: Space) {
        let how = self.unfiltered();
        self.tree.add(pid, Process { space, how, is_filtered: false, is_stubborn: false });
    }

    /// Another program in the same process; one thread is left.
    pub(crate) fn executed(&mut self, tid: Tid) -> io::Result<()> {
        let old = self.tree.processes.get(&tid).cloned();
        self.tree.threads.retain(|_, thread| thread.process != tid);
        self.tree.threads.insert(tid, Thread::new(tid));
        let is_first = !self.has_executed && tid == self.main && !self.plan.attached;
        let parent = old.as_ref().filter(|_| !is_first).map(|process| process.space.image);
        self.has_executed = true;
        let breakpoint = match crate::entry::Breakpoint::set(tid) {
            Ok(breakpoint) => Some(breakpoint),
            Err(error) if is_first && self.plan.known.is_some() => {
                self.fatal = Some(Error::Filter { pid: tid, why: format!("its entry point is not known: {error}") });
                None
            }
            Err(_) => None,
        };
        let image = self.recorder.image(tid, parent, breakpoint.is_some());
        let space = Space::new(image, breakpoint);
        let (is_filtered, is_stubborn) =
            old.map_or((false, false), |process| (process.is_filtered, process.is_stubborn));
        // What a filter of known calls lets pass, it lets pass in other programs too.
        let how = if is_filtered && self.plan.known.is_some() { Resume::Continue } else { self.unfiltered() };
        self.tree.processes.insert(tid, Process { space, how, is_filtered, is_stubborn });
        if let Some(thread) = self.tree.threads.get_mut(&tid) {
            thread.is_in_call = true;
        }
        Ok(())
    }

    /// A thread is about to end: of what, and at which call if a filter has done it.
    fn exits(&mut self, tid: Tid) -> io::Result<()> {
        let status = c_int::try_from(kernel::event_message(tid)?).unwrap_or(0);
        let registers = kernel::registers(tid)?;
        if status & 0x7f == libc::SIGSYS && registers.orig_rax != u64::MAX {
            let arch = crate::entry::arch_before(tid, registers.rip);
            let call = Call { arch, nr: registers.orig_rax, ip: registers.rip, args: [0; 6] };
            // All threads of the process die with it; only one has been refused, and its result is the number itself.
            if registers.rax == registers.orig_rax {
                self.record(tid, &call, Some(Refusal::Filter));
            }
        }
        Ok(())
    }

    fn signal(&mut self, tid: Tid, signal: c_int) -> io::Result<()> {
        if signal == libc::SIGTRAP && self.at_entry(tid)? {
            return self.resume(tid, 0);
        }
        self.resume(tid, signal)
    }

    /// Whether SIGTRAP comes from the breakpoint at the entry point, which is then gone.
    pub(crate) fn at_entry(&mut self, tid: Tid) -> io::Result<bool> {
        let Some(pid) = self.tree.process_of(tid) else { return Ok(false) };
        let Some(process) = self.tree.processes.get_mut(&pid) else { return Ok(false) };
        let Some(breakpoint) = process.space.breakpoint else { return Ok(false) };
        if !breakpoint.take(tid)? {
            return Ok(false);
        }
        process.space.entered();
        let is_filtered = process.is_filtered;
        let is_root = self.recorder.images().get(process.space.image).is_some_and(|image| image.parent.is_none());
        if is_root && !is_filtered && self.plan.known.is_some() {
            self.begin_filtered(pid, tid, breakpoint.address())?;
        }
        Ok(true)
    }

    /// The program's own code begins, under the filter of what is known.
    fn begin_filtered(&mut self, pid: Tid, tid: Tid, entry: u64) -> io::Result<()> {
        if !self.install(pid, tid, Stand::AtCode) && self.fatal.is_none() && self.tree.threads.contains_key(&tid) {
            self.fatal = Some(Error::Filter { pid, why: "the kernel refuses it".to_owned() });
        }
        if let Some(distance) = self.plan.skip {
            let mut registers = kernel::registers(tid)?;
            registers.rip = entry.wrapping_add_signed(distance);
            kernel::set_registers(tid, &registers)?;
        }
        Ok(())
    }

    fn call_stop(&mut self, tid: Tid) -> io::Result<()> {
        match kernel::call_stop(tid)? {
            CallStop::Entry(call) => {
                self.set_in_call(tid, true);
                self.record(tid, &call, None);
                if !self.before_call(tid, &call)? {
                    return Ok(());
                }
            }
            CallStop::Exit => self.set_in_call(tid, false),
            CallStop::Other => {}
        }
        self.resume(tid, 0)
    }

    /// What has to be done before a call is made; whether the thread may go on.
    fn before_call(&mut self, tid: Tid, call: &Call) -> io::Result<bool> {
        let is_native = call.arch == kernel::AUDIT_ARCH_X86_64;
        let Some(pid) = self.tree.process_of(tid) else { return Ok(true) };
        if is_native && call.nr.cast_signed() == libc::SYS_ptrace {
            return self.hand_over(tid, call);
        }
        if is_native {
            self.note_own_filter(tid, call);
        }
        if is_native && self.is_quiet(pid) {
            let is_on = self.install(pid, tid, Stand::BeforeCall);
            if !self.tree.threads.contains_key(&tid) {
                return Ok(false);
            }
            if is_on {
                self.set_in_call(tid, false);
            }
        }
        Ok(true)
    }

    fn set_in_call(&mut self, tid: Tid, is_in_call: bool) {
        if let Some(thread) = self.tree.threads.get_mut(&tid) {
            thread.is_in_call = is_in_call;
        }
    }

    /// Whether a process has made so many calls in so short a time, without a new one, that it is worth a filter.
    fn is_quiet(&mut self, pid: Tid) -> bool {
        if self.plan.attached || self.plan.known.is_some() {
            return false;
        }
        let Some(process) = self.tree.processes.get_mut(&pid) else { return false };
        let space = &mut process.space;
        if space.phase == Phase::Before || process.is_stubborn || space.quiet < QUIET_CALLS {
            return false;
        }
        space.quiet = 0;
        space.quiet_since.elapsed() < QUIET_TIME
    }

    /// A stop that a filter of ours, or of the program's, has asked for.
    fn seccomp_stop(&mut self, tid: Tid) -> io::Result<()> {
        if self.tree.threads.get(&tid).is_some_and(|thread| thread.is_in_call && self.tree.how(tid) == Resume::Syscall)
        {
            return self.resume(tid, 0);
        }
        let CallStop::Entry(call) = kernel::call_stop(tid)? else {
            return self.resume(tid, 0);
        };
        let is_native = call.arch == kernel::AUDIT_ARCH_X86_64;
        if is_native && call.nr.cast_signed() == libc::SYS_ptrace && !self.hand_over(tid, &call)? {
            return Ok(());
        }
        if is_native {
            self.note_own_filter(tid, &call);
        }
        if self.plan.gate.is_some() {
            return self.decide(tid, &call);
        }
        self.record(tid, &call, None);
        self.resume(tid, 0)
    }

    /// Notes a call; its entry.
    pub(crate) fn record(&mut self, tid: Tid, call: &Call, refused: Option<Refusal>) -> Option<usize> {
        let pid = self.tree.process_of(tid)?;
        let process = self.tree.processes.get_mut(&pid)?;
        let space = &mut process.space;
        let (architecture, number) = Architecture::of(call.arch, call.nr);
        let key = (call.arch, call.nr, call.ip);
        self.recorder.stops = self.recorder.stops.saturating_add(1);
        let known = space.sites.get_mut(&key).filter(|_| refused.is_none());
        let id = if let Some(site) = known {
            site.hits = site.hits.saturating_add(1);
            let id = site.id;
            if space.quiet == 0 {
                space.quiet_since = Instant::now();
            }
            space.quiet = space.quiet.saturating_add(1);
            id
        } else {
            let (image, phase) = (space.image, space.phase);
            let mapping = space.mapping(pid, call.ip.wrapping_sub(2));
            let place = Place { image, phase, ip: call.ip, mapping };
            let id = self.recorder.entry(pid, &place, (architecture, number), refused);
            if refused.is_none() {
                space.sites.insert(key, Site { id, hits: 1 });
            }
            space.quiet = 0;
            id
        };
        self.recorder.count(id, &call.args);
        if self.plan.paths && architecture.is_native() {
            self.paths(pid, id, call);
        }
        let [start, length, ..] = call.args;
        let changes_maps = [libc::SYS_munmap, libc::SYS_mremap, libc::SYS_mmap].contains(&number.cast_signed());
        if changes_maps && architecture.is_native() && start != 0 {
            let process = self.tree.processes.get_mut(&pid);
            process.into_iter().for_each(|process| process.space.unmapped(start, length));
        }
        Some(id)
    }
}
