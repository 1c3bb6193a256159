//! A traced program that is itself a tracer: a debugger, strace, a test of ours.
//!
//! A thread can have one tracer. So what another one asks for is let go before its call is made, and what it does from
//! then on is not seen: the trace says so. What cannot be let go (it has a filter of ours, which would have nobody to
//! answer it, or the other tracer would be ourselves) stays, and the other one is told EPERM, as below any tracer.

use std::io;

use libc::c_int;

use crate::engine::Engine;
use crate::kernel::{self, Call, Event, Tid};

impl Engine {
    /// Before a call of ptrace(2); whether the thread may go on.
    pub(crate) fn hand_over(&mut self, tid: Tid, call: &Call) -> io::Result<bool> {
        let [request, target, ..] = call.args;
        let request = u32::try_from(request).unwrap_or(u32::MAX);
        match (request, Tid::try_from(target)) {
            (libc::PTRACE_TRACEME, _) => self.let_parent_trace(tid),
            (libc::PTRACE_ATTACH | libc::PTRACE_SEIZE, Ok(target)) if target != tid && self.may_leave(target) => {
                if let Some(thread) = self.tree.threads.get_mut(&target) {
                    thread.is_leaving = true;
                }
                if let Some(thread) = self.tree.threads.get_mut(&tid) {
                    thread.waits_for = Some(target);
                }
                kernel::interrupt(target)?;
                Ok(false)
            }
            _ => Ok(true),
        }
    }

    fn may_leave(&self, tid: Tid) -> bool {
        let Some(thread) = self.tree.threads.get(&tid) else { return false };
        let is_filtered = self.tree.processes.get(&thread.process).is_none_or(|process| process.is_filtered);
        !is_filtered && thread.question.is_none() && !thread.is_leaving && self.plan.gate.is_none()
    }

    fn let_parent_trace(&mut self, tid: Tid) -> io::Result<bool> {
        let parent = std::fs::read_to_string(format!("/proc/{tid}/status")).ok().and_then(|text| {
            let line = text.lines().find_map(|line| line.strip_prefix("PPid:"))?;
            line.trim().parse::<Tid>().ok()
        });
        let is_ours = parent.is_some_and(|parent| self.tree.processes.contains_key(&parent));
        if tid == self.main || !is_ours || !self.may_leave(tid) {
            return Ok(true);
        }
        self.leave(tid, 0)?;
        Ok(false)
    }

    /// Lets go of a stopped thread, with a signal or 0.
    fn leave(&mut self, tid: Tid, signal: c_int) -> io::Result<()> {
        let process = self.tree.process_of(tid).and_then(|pid| self.tree.processes.get_mut(&pid));
        if let Some(breakpoint) = process.and_then(|process| process.space.breakpoint.take()) {
            breakpoint.remove(tid)?;
        }
        if !self.plan.attached {
            self.recorder
                .gap(format!("thread {tid} was handed over to another tracer; its calls from then on are not here"));
        }
        kernel::detach(tid, signal)?;
        self.tree.remove(tid);
        self.wake_waiting(tid);
        Ok(())
    }

    /// A stop of a thread that is to be let go.
    pub(crate) fn let_go(&mut self, tid: Tid, event: Event) -> io::Result<()> {
        match event {
            Event::Special(libc::PTRACE_EVENT_FORK | libc::PTRACE_EVENT_VFORK | libc::PTRACE_EVENT_CLONE, _) => {
                let child = Tid::try_from(kernel::event_message(tid)?).unwrap_or(0);
                self.adopt(tid, child);
                self.leave(tid, 0)
            }
            // At the end of an execution nothing of the old program is left; the next stop will do.
            Event::Special(libc::PTRACE_EVENT_EXEC, _) => {
                self.executed(tid)?;
                if let Some(thread) = self.tree.threads.get_mut(&tid) {
                    thread.is_leaving = true;
                }
                kernel::resume(tid, kernel::Resume::Syscall, 0)
            }
            Event::Signal(signal) if signal != libc::SIGTRAP || !self.at_entry(tid)? => self.leave(tid, signal),
            _ => self.leave(tid, 0),
        }
    }

    /// The threads that wait for one to be let go or to end.
    pub(crate) fn wake_waiting(&mut self, target: Tid) {
        let waiting: Vec<Tid> = self
            .tree
            .threads
            .iter()
            .filter(|(_, thread)| thread.waits_for == Some(target))
            .map(|(tid, _)| *tid)
            .collect();
        for tid in waiting {
            if let Some(thread) = self.tree.threads.get_mut(&tid) {
                thread.waits_for = None;
            }
            // If it is gone meanwhile, wait says so.
            let _ = self.resume(tid, 0);
        }
    }
}
