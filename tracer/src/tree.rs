//! The processes and threads that are traced.
//!
//! Input: what `/proc` says of them. Output: [`Tree`]. An address space is that of one process; a child of fork(2) gets
//! a copy of what is known of its parent's.

use std::collections::{BTreeMap, HashMap};
use std::time::Instant;

use crate::entry::Breakpoint;
use crate::kernel::{Resume, Tid};
use crate::maps::{self, Mapping};
use crate::trace::Phase;

/// A call from an address.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Site {
    /// Its entry in the record.
    pub(crate) id: usize,
    /// How often it has stopped the process.
    pub(crate) hits: u32,
}

/// What is known of an address space.
#[derive(Clone, Debug)]
pub(crate) struct Space {
    /// The image that runs in it.
    pub(crate) image: usize,
    pub(crate) phase: Phase,
    /// Set where the entry point has not been reached.
    pub(crate) breakpoint: Option<Breakpoint>,
    /// By architecture, number and address of the call. An address means the same until memory is unmapped.
    pub(crate) sites: HashMap<(u32, u64, u64), Site>,
    maps: Option<Vec<Mapping>>,
    /// Stops since something new was seen, and the time of the first of them.
    pub(crate) quiet: u32,
    pub(crate) quiet_since: Instant,
}

impl Space {
    pub(crate) fn new(image: usize, breakpoint: Option<Breakpoint>) -> Self {
        let phase = if breakpoint.is_some() { Phase::Before } else { Phase::After };
        let (sites, maps) = (HashMap::new(), None);
        Self { image, phase, breakpoint, sites, maps, quiet: 0, quiet_since: Instant::now() }
    }

    /// The entry point has been reached.
    pub(crate) fn entered(&mut self) {
        self.breakpoint = None;
        self.phase = Phase::After;
        self.sites.clear();
    }

    /// What lies at some addresses may change. Calls of code that stays are known as before.
    pub(crate) fn unmapped(&mut self, start: u64, length: u64) {
        let end = start.saturating_add(length);
        if self.maps.iter().flatten().any(|mapping| mapping.start < end && start < mapping.end) {
            self.maps = None;
            self.sites.retain(|(_, _, ip), _| !(start..end).contains(ip));
        }
    }

    /// What an address belongs to.
    pub(crate) fn mapping(&mut self, pid: Tid, address: u64) -> Option<&Mapping> {
        let holds = |mapping: &&Mapping| mapping.offset_of(address).is_some();
        let is_known = self.maps.iter().flatten().any(|mapping| holds(&mapping));
        if !is_known {
            self.maps = maps::executable(pid).ok();
        }
        self.maps.iter().flatten().find(holds)
    }
}

/// A process.
#[derive(Clone, Debug)]
pub(crate) struct Process {
    pub(crate) space: Space,
    /// How its threads go on.
    pub(crate) how: Resume,
    /// It has a filter of ours.
    pub(crate) is_filtered: bool,
    /// It cannot get one, or must not: it has one of its own. What that refuses with an error number would not reach
    /// ours, and would be lost.
    pub(crate) is_stubborn: bool,
}

/// A thread.
#[derive(Clone, Debug)]
pub(crate) struct Thread {
    pub(crate) process: Tid,
    /// Its call has been seen when it began.
    pub(crate) is_in_call: bool,
    /// It is stopped until an answer with this number comes.
    pub(crate) question: Option<u64>,
    /// It is to be let go at its next stop.
    pub(crate) is_leaving: bool,
    /// Calls ptrace for this thread once that has been let go.
    pub(crate) waits_for: Option<Tid>,
}

impl Thread {
    pub(crate) const fn new(process: Tid) -> Self {
        Self { process, is_in_call: false, question: None, is_leaving: false, waits_for: None }
    }
}

/// All that is traced.
#[derive(Debug, Default)]
pub(crate) struct Tree {
    pub(crate) threads: BTreeMap<Tid, Thread>,
    pub(crate) processes: BTreeMap<Tid, Process>,
    /// New tasks that have stopped before the event of their parent came.
    pub(crate) early: BTreeMap<Tid, Instant>,
    /// How many processes there have been.
    pub(crate) seen: usize,
}

impl Tree {
    /// A new process.
    pub(crate) fn add(&mut self, pid: Tid, process: Process) {
        self.processes.insert(pid, process);
        self.threads.insert(pid, Thread::new(pid));
        self.seen = self.seen.saturating_add(1);
    }

    /// The process of a thread.
    pub(crate) fn process_of(&self, tid: Tid) -> Option<Tid> {
        self.threads.get(&tid).map(|thread| thread.process)
    }

    /// How a thread goes on.
    pub(crate) fn how(&self, tid: Tid) -> Resume {
        let process = self.process_of(tid).and_then(|pid| self.processes.get(&pid));
        process.map_or(Resume::Syscall, |process| process.how)
    }

    /// A thread is gone; with the last one of its process that is gone too.
    pub(crate) fn remove(&mut self, tid: Tid) {
        self.early.remove(&tid);
        let Some(thread) = self.threads.remove(&tid) else { return };
        if !self.threads.values().any(|other| other.process == thread.process) {
            self.processes.remove(&thread.process);
        }
    }
}

/// The process that a thread belongs to, by `/proc`.
pub(crate) fn group_of(tid: Tid) -> Option<Tid> {
    let text = std::fs::read_to_string(format!("/proc/{tid}/status")).ok()?;
    text.lines().find_map(|line| line.strip_prefix("Tgid:"))?.trim().parse().ok()
}

/// Whether a process has a filter.
pub(crate) fn has_filter(pid: Tid) -> bool {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    text.lines().any(|line| line.strip_prefix("Seccomp:").is_some_and(|mode| mode.trim() != "0"))
}
