//! Which filter a process gets, and paths of calls.
//!
//! Input: what is known of a process. Output: a filter in it.

use std::collections::BTreeSet;
use std::os::unix::fs::FileExt;

use crate::engine::Engine;
use crate::entry::memory;
use crate::error::Error;
use crate::facts;
use crate::filter::{self, Known};
use crate::inject::{self, Failed, Options, Stand};
use crate::kernel::{self, AUDIT_ARCH_X86_64, Call, Resume, Tid};
use crate::tree;

/// A call that has stopped a process so often from one place passes from all: the kernel (5.11 and later) then decides
/// it without running the filter.
const HOT: u32 = 100;

/// Longest path that is kept.
const LONGEST_PATH: usize = 4096;

impl Engine {
    /// Puts a filter into a process; whether it is on. If not, the process goes on without.
    pub(crate) fn install(&mut self, pid: Tid, tid: Tid, stand: Stand) -> bool {
        let is_filtered = tree::has_filter(pid);
        let is_ours = self.tree.processes.get(&pid).is_some_and(|process| process.is_filtered);
        if is_filtered && !is_ours && self.plan.known.is_none() {
            // Somebody else's, as that of a container: the same holds as for one of the program's own.
            self.give_up(pid);
            return false;
        }
        let known = self.known(pid);
        let Ok(filter) = filter::build(&known) else {
            self.give_up(pid);
            return false;
        };
        let options = Options { usual: self.options(), is_filtered };
        match inject::install(pid, tid, stand, &filter, options) {
            Ok(()) => {
                if let Some(process) = self.tree.processes.get_mut(&pid) {
                    process.is_filtered = true;
                    process.how = Resume::Continue;
                    process.space.sites.values().for_each(|site| self.recorder.no_longer_counted(site.id));
                }
                true
            }
            Err(Failed::Gone(event)) => {
                if let Err(error) = self.handle(tid, event) {
                    self.fatal = Some(error);
                }
                false
            }
            Err(Failed::Refused(error)) => {
                self.give_up(pid);
                if self.plan.known.is_some() {
                    self.fatal = Some(Error::Filter { pid, why: error.to_string() });
                }
                false
            }
        }
    }

    /// A program that installs a filter of its own: from now on all its calls stop again, since ours does not see those
    /// that the other one lets fail.
    pub(crate) fn note_own_filter(&mut self, tid: Tid, call: &Call) {
        let [operation, ..] = call.args;
        let installs = match call.nr.cast_signed() {
            libc::SYS_seccomp => operation <= u64::from(libc::SECCOMP_SET_MODE_FILTER),
            libc::SYS_prctl => Ok(operation) == u64::try_from(libc::PR_SET_SECCOMP),
            _ => false,
        };
        if !installs || self.plan.known.is_some() {
            return;
        }
        let Some(pid) = self.tree.process_of(tid) else { return };
        self.give_up(pid);
        if let Some(process) = self.tree.processes.get_mut(&pid) {
            process.how = Resume::Syscall;
        }
        for (other, thread) in &self.tree.threads {
            if thread.process == pid && *other != tid && thread.question.is_none() {
                // It may be the filter of all threads. One that is gone is told of by wait.
                let _ = kernel::interrupt(*other);
            }
        }
    }

    fn give_up(&mut self, pid: Tid) {
        if let Some(process) = self.tree.processes.get_mut(&pid) {
            process.is_stubborn = true;
        }
    }

    /// What need not stop a process: calls that are known to all, or those that it has made, from where it made them.
    fn known(&self, pid: Tid) -> Known {
        if let Some(calls) = &self.plan.known {
            return calls.iter().map(|call| (call.0, BTreeSet::new())).collect();
        }
        let mut known = Known::new();
        let Some(process) = self.tree.processes.get(&pid) else { return known };
        let mut hot = BTreeSet::new();
        for ((arch, nr, ip), site) in &process.space.sites {
            let Ok(number) = u32::try_from(*nr) else { continue };
            if *arch == AUDIT_ARCH_X86_64 && !self.always_stops(number) {
                known.entry(number).or_default().insert(*ip);
                if site.hits >= HOT {
                    hot.insert(number);
                }
            }
        }
        // No addresses: from anywhere.
        known.extend(hot.into_iter().map(|number| (number, BTreeSet::new())));
        known
    }

    /// Calls that we have to act on, or of which every one is recorded.
    fn always_stops(&self, number: u32) -> bool {
        let acted_on = [libc::SYS_ptrace, libc::SYS_seccomp, libc::SYS_prctl].contains(&i64::from(number));
        let has_paths = || {
            let name = chestnut_analyzer::syscall::SyscallNr(number).name().unwrap_or_default();
            !facts::paths(name).is_empty()
        };
        acted_on || (self.plan.paths && has_paths())
    }

    /// Keeps the paths that a call is given.
    pub(crate) fn paths(&mut self, pid: Tid, id: usize, call: &Call) {
        let name = u32::try_from(call.nr).ok().and_then(|nr| chestnut_analyzer::syscall::SyscallNr(nr).name());
        for at in facts::paths(name.unwrap_or_default()) {
            let path = call.args.get(*at).and_then(|address| text_at(pid, *address));
            path.into_iter().for_each(|path| self.recorder.path(id, path));
        }
    }
}

/// The C string at an address of a process.
fn text_at(pid: Tid, address: u64) -> Option<String> {
    let memory = memory(pid).ok()?;
    let mut bytes = Vec::new();
    let mut chunk = [0; 256];
    while bytes.len() < LONGEST_PATH && !bytes.contains(&0) {
        let at = address.checked_add(u64::try_from(bytes.len()).ok()?)?;
        let read = memory.read_at(&mut chunk, at).ok().filter(|read| *read > 0)?;
        bytes.extend_from_slice(chunk.get(..read)?);
    }
    let end = bytes.iter().position(|byte| *byte == 0)?;
    Some(String::from_utf8_lossy(bytes.get(..end)?).into_owned())
}
