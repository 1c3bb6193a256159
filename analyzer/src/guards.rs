//! Code of the C library that only runs if something else ran first, which its own bytes do not show.
//!
//! Input: a [`Program`]. Output: [`Guards`]: functions that stay out of what is reached until one of their openers is
//! reached. Each guard is a documented property of glibc, not of any program; where one has kept code out, the policy
//! says on what that rests.
//!
//! * Mutexes with the protocol `PTHREAD_PRIO_PROTECT`: only `pthread_mutexattr_setprotocol` makes them (POSIX). Locking
//!   one changes the thread's priority (glibc `nptl/tpp.c`), recognised as the functions without a name that ask for
//!   the range of priorities, or for the thread's own.
//! * Profiling of shared libraries: the loader starts it only if `LD_PROFILE` was in its environment (ld.so(8), glibc
//!   `elf/dl-profile.c`), recognised by its interval timer, which nothing else in the loader uses.
//! * Sun RPC: every thread that ends withdraws the services that it has registered (glibc `sunrpc/rpc_thread.c`), with
//!   `svc_unregister`, which does nothing if there is none. Only `svc_register` registers one (rpc(3)).
//! * The child of `posix_spawn` acts as the attributes and file actions say (glibc `sysdeps/unix/sysv/linux/spawni.c`,
//!   `__spawni_child`, recognised by what it calls). Only `posix_spawnattr_setflags` and
//!   `posix_spawn_file_actions_add*` put something there; what the C library itself asks for in `system` and `popen`
//!   (signals, `dup2`, closing) is not behind the guard. Here single calls of the child are guarded, and the openers
//!   count when other files call them.
//! * `pthread_create` gives the new thread the scheduling and the processors of its attributes (glibc
//!   `nptl/pthread_create.c`). Only `pthread_attr_setinheritsched`, `pthread_attr_setaffinity_np` and
//!   `pthread_setattr_default_np` put such a thing there; here single sites are guarded.
//!
//! Over-approximates: nothing. May miss: a mutex of that protocol that another process made in shared memory.

use rayon::prelude::*;
use rustc_hash::{FxHashMap, FxHashSet};

use crate::edge::To;
use crate::functions::FunctionId;
use crate::instruction::ReferenceKind;
use crate::policy::{Assumption, AssumptionKind};
use crate::program::{Module, ModuleId, ModuleRole, Program};
use crate::reachability::FunctionKey;
use crate::syscall::SyscallNr;
use crate::value::Atom;

/// Which guard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum GuardId {
    /// Mutexes that raise the priority of who holds them.
    PriorityProtection,
    /// Profiling by the loader.
    LoaderProfile,
    /// Services of Sun RPC that are withdrawn.
    RpcServices,
    /// Attributes of a spawned child: scheduling, session, process group.
    SpawnAttributes,
    /// File actions of a spawned child: folder, terminal.
    SpawnActions,
    /// Attributes of a new thread: scheduling, processors.
    ThreadAttributes,
}

impl GuardId {
    /// What a policy rests on when the guard has kept code out; `None` if on nothing outside the program.
    #[must_use]
    pub fn assumption(self) -> Option<Assumption> {
        let text = match self {
            // Nothing but the program itself could register one.
            Self::RpcServices | Self::SpawnAttributes | Self::SpawnActions | Self::ThreadAttributes => return None,
            Self::PriorityProtection => {
                "no other process shares a mutex of protocol PTHREAD_PRIO_PROTECT with the program, which makes none"
            }
            Self::LoaderProfile => "LD_PROFILE is not in the program's environment",
        };
        Some(Assumption {
            kind: AssumptionKind::Environment,
            text: text.to_owned(),
            site: None,
            flag: Some("--allow".to_owned()),
        })
    }
}

/// Functions behind guards.
#[derive(Debug, Default)]
pub struct Guards {
    closed: FxHashMap<FunctionKey, GuardId>,
    openers: FxHashMap<FunctionKey, GuardId>,
    /// Single calls, from caller to callee.
    closed_calls: FxHashMap<(FunctionKey, FunctionKey), GuardId>,
    /// System calls of single functions.
    closed_sites: FxHashMap<(FunctionKey, SyscallNr), GuardId>,
    /// Functions that open a guard when another module reaches them.
    outside_openers: FxHashMap<FunctionKey, GuardId>,
}

/// Names of exported functions.
type Names = &'static [&'static [u8]];

/// What the child of `posix_spawn` calls for the sake of an attribute or a file action, and what asks for it.
const SPAWN: [(GuardId, Names, Names); 2] = [
    (
        GuardId::SpawnAttributes,
        &[b"sched_setparam", b"sched_setscheduler", b"setpgid", b"setsid"],
        &[b"posix_spawnattr_setflags"],
    ),
    (
        GuardId::SpawnActions,
        &[b"chdir", b"fchdir", b"getpgid", b"tcsetpgrp"],
        &[
            b"posix_spawn_file_actions_addchdir_np",
            b"posix_spawn_file_actions_addfchdir_np",
            b"posix_spawn_file_actions_addtcsetpgrp_np",
        ],
    ),
];

impl Guards {
    /// Finds the guards of a program.
    #[must_use]
    pub fn new(program: &Program<'_>) -> Self {
        let mut guards = Self::default();
        for (id, module) in program.modules() {
            if module.role == ModuleRole::Interpreter {
                let timers = functions(module).filter(|f| makes_only(module, *f, "setitimer"));
                guards.closed.extend(timers.map(|f| ((id, f), GuardId::LoaderProfile)));
            }
            guards.add_priority_protection(program, id, module);
            guards.add_spawn(program, id, module);
            guards.add_thread_attributes(program, id, module);
            let [unregister, register] =
                [&b"svc_unregister"[..], b"svc_register"].map(|name| exported_by(program, id, module, name));
            if !register.is_empty() {
                guards.closed.extend(unregister.into_iter().map(|f| ((id, f), GuardId::RpcServices)));
                guards.openers.extend(register.into_iter().map(|f| ((id, f), GuardId::RpcServices)));
            }
        }
        guards
    }

    /// The functions that arriving at may meet or open a guard.
    pub fn functions(&self) -> impl Iterator<Item = FunctionKey> + '_ {
        let calls = self.closed_calls.keys().map(|(_, callee)| *callee);
        let single = [&self.closed, &self.openers, &self.outside_openers];
        single.into_iter().flat_map(|guards| guards.keys().copied()).chain(calls)
    }

    /// The guard before a function, when `caller` reaches it.
    #[must_use]
    pub fn before(&self, key: FunctionKey, caller: Option<FunctionKey>) -> Option<GuardId> {
        let call = || self.closed_calls.get(&(caller?, key));
        self.closed.get(&key).or_else(call).copied()
    }

    /// The guards that reaching a function opens, when `caller` does so.
    pub fn opened_by(&self, key: FunctionKey, caller: Option<FunctionKey>) -> impl Iterator<Item = GuardId> + use<> {
        let is_inside = caller.is_some_and(|caller| caller.0 == key.0);
        let outside = self.outside_openers.get(&key).filter(|_| !is_inside);
        self.openers.get(&key).copied().into_iter().chain(outside.copied())
    }

    /// The guard before the sites of one system call in a function.
    #[must_use]
    pub fn before_site(&self, key: FunctionKey, call: SyscallNr) -> Option<GuardId> {
        self.closed_sites.get(&(key, call)).copied()
    }

    fn add_thread_attributes(&mut self, program: &Program<'_>, id: ModuleId, module: &Module<'_>) {
        let guard = GuardId::ThreadAttributes;
        for create in exported_by(program, id, module, b"pthread_create") {
            let helpers = called_by(module, create).into_iter().filter(|f| !is_exported(module, *f));
            for function in helpers.chain([create]) {
                let calls = ["sched_getparam", "sched_getscheduler", "sched_setscheduler", "sched_setaffinity"];
                let calls = calls.into_iter().filter_map(SyscallNr::from_name);
                self.closed_sites.extend(calls.map(|call| (((id, function), call), guard)));
            }
        }
        let openers =
            [&b"pthread_attr_setinheritsched"[..], b"pthread_attr_setaffinity_np", b"pthread_setattr_default_np"];
        let openers = openers.into_iter().flat_map(|name| exported_by(program, id, module, name));
        self.outside_openers.extend(openers.map(|f| ((id, f), guard)));
    }

    fn add_spawn(&mut self, program: &Program<'_>, id: ModuleId, module: &Module<'_>) {
        let own = |name: &[u8]| exported_by(program, id, module, name);
        let marks = [&b"sched_setparam"[..], b"setpgid", b"setsid"].map(own);
        if marks.iter().any(FxHashSet::is_empty) {
            return;
        }
        let children = calling_all(module, &marks);
        for (guard, callees, openers) in SPAWN {
            for callee in callees.iter().flat_map(|name| own(name)) {
                self.closed_calls.extend(children.iter().map(|child| (((id, *child), (id, callee)), guard)));
            }
            self.outside_openers.extend(openers.iter().flat_map(|name| own(name)).map(|f| ((id, f), guard)));
        }
    }

    fn add_priority_protection(&mut self, program: &Program<'_>, id: ModuleId, module: &Module<'_>) {
        let own = |name: &[u8]| exported_by(program, id, module, name);
        let openers: Vec<FunctionId> = [
            &b"pthread_mutexattr_setprotocol"[..],
            b"pthread_mutexattr_setprioceiling",
            b"pthread_mutex_setprioceiling",
        ]
        .into_iter()
        .flat_map(own)
        .collect();
        let pairs =
            [[&b"sched_get_priority_min"[..], b"sched_get_priority_max"], [b"sched_getparam", b"sched_getscheduler"]];
        let pairs = pairs.map(|names| names.map(own));
        if openers.is_empty() || pairs.iter().flatten().any(FxHashSet::is_empty) {
            return;
        }
        let closed = pairs.iter().flat_map(|pair| calling_all(module, pair));
        self.closed.extend(closed.map(|function| ((id, function), GuardId::PriorityProtection)));
        self.openers.extend(openers.into_iter().map(|f| ((id, f), GuardId::PriorityProtection)));
    }
}

/// Whether other files may call a function of the module by name.
fn is_exported(module: &Module<'_>, function: FunctionId) -> bool {
    let start = module.summary.functions().function(function).map(|f| f.start);
    module.image.symbols().iter().any(|s| s.is_exported() && Some(s.value) == start)
}

/// The functions of a module that it exports under a name.
fn exported_by(program: &Program<'_>, id: ModuleId, module: &Module<'_>, name: &[u8]) -> FxHashSet<FunctionId> {
    let found = program.exported(name, |_| true).into_iter().filter(|d| d.module == id);
    found.filter_map(|d| module.summary.functions().at(d.address)).collect()
}

fn functions(module: &Module<'_>) -> impl Iterator<Item = FunctionId> {
    (0_u32..).map(FunctionId).zip(module.summary.functions().all()).map(|(id, _)| id)
}

/// Whether the function's system calls are all this one, and there is one.
fn makes_only(module: &Module<'_>, function: FunctionId, name: &str) -> bool {
    let Some(number) = SyscallNr::from_name(name) else { return false };
    let sites = module.summary.sites(function);
    !sites.is_empty() && sites.iter().all(|s| s.number.single() == Some(Atom::Constant(u64::from(number.0))))
}

/// The functions without a name that call, by address, a function of each of these sets.
fn calling_all(module: &Module<'_>, sets: &[FxHashSet<FunctionId>]) -> Vec<FunctionId> {
    let graph = module.summary.graph(&module.image);
    let calls_all = |function: &FunctionId| {
        let called = graph.of_function(*function).filter_map(|edge| match edge.to {
            To::Entered(function) if edge.kind == ReferenceKind::Call => Some(function),
            _ => None,
        });
        meets_all(&called, sets)
    };
    let all: Vec<FunctionId> = functions(module).collect();
    all.into_par_iter().filter(calls_all).filter(|function| !is_exported(module, *function)).collect()
}

/// Whether each set holds one of these functions. One function may stand for several names, and be in several sets.
fn meets_all(functions: &(impl Iterator<Item = FunctionId> + Clone), sets: &[FxHashSet<FunctionId>]) -> bool {
    sets.iter().all(|set| functions.clone().any(|function| set.contains(&function)))
}

/// The functions of the same module that a function calls by address.
fn called_by(module: &Module<'_>, function: FunctionId) -> FxHashSet<FunctionId> {
    let functions = module.summary.functions();
    let references = functions.function(function).map_or(&[][..], |f| &f.references);
    let calls = references.iter().filter(|r| r.kind == ReferenceKind::Call);
    calls.filter_map(|r| functions.at(r.target)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_function_may_stand_for_two_names() {
        let sets = [&[1, 2][..], &[2, 3]].map(|set| set.iter().map(|id| FunctionId(*id)).collect::<FxHashSet<_>>());
        let meets = |called: &[u32]| meets_all(&called.iter().map(|id| FunctionId(*id)), &sets);
        assert!(meets(&[2]) && meets(&[1, 3]) && meets(&[9, 3, 1]));
        assert!(!meets(&[]) && !meets(&[1]) && !meets(&[3, 3, 9]));
    }
}
