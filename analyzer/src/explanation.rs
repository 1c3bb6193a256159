//! Why a program may make a call, or may not, in more detail than a policy has.
//!
//! Input: a [`Question`] and everything that an analysis knows when it ends. Output: [`Explanation`]: every reached place
//! that makes a call, with the shortest way to it (from the entry point, if one leads there), the kind of each step, and
//! what registers hold; for a call that is made nowhere, the places that would make it and why nothing leads there; which
//! calls lie behind a function. It tells of the program's own process: what executed programs call stands in the policy.
//!
//! The ways are those of [`crate::solver`], whose work is done breadth first: no other way has fewer steps, but for ways
//! through code that was first reached before the filter was on. Misses, among places that are not reached: those whose
//! number is not fixed in the function that makes the call.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use iced_x86::Register;
use rustc_hash::{FxHashMap, FxHashSet};
use serde::Serialize;

use crate::address::Vaddr;
use crate::data::PointerTarget;
use crate::evidence::{Calls, location, place};
use crate::functions::FunctionId;
use crate::guards::Guards;
use crate::instruction::ReferenceKind;
use crate::policy::CodeLocation;
use crate::program::{Module, ModuleId, ModuleRole, Program};
use crate::reachability::{Cause, FunctionKey, Node, Phase, Reachable, Root, path};
use crate::registers::SYSCALL_ARGUMENTS;
use crate::solver::{Surroundings, solve, solve_without};
use crate::startup::ENTRY_POINT;
use crate::syscall::SyscallNr;
use crate::value::{Atom, Value};

/// What is asked.
#[derive(Clone, Debug, Default)]
pub struct Question {
    /// Why these calls are allowed, or are not.
    pub calls: BTreeSet<SyscallNr>,
    /// What lies behind a function: its name, or its file's name, `+` and an address (`libc.so.6+0x1234`).
    pub through: Option<String>,
}

/// The answer.
#[derive(Clone, Debug, Default, Serialize)]
#[non_exhaustive]
pub struct Explanation {
    /// For each call that was asked about.
    pub calls: BTreeMap<SyscallNr, CallExplanation>,
    /// For each function that has the name that was asked about.
    pub through: Vec<Through>,
}

/// Why one call is allowed, or is not.
#[derive(Clone, Debug, Default, Serialize)]
#[non_exhaustive]
pub struct CallExplanation {
    /// Every reached place that makes it, the one with the shortest way first; before those that the entry point does not
    /// lead to.
    pub sites: Vec<SiteExplanation>,
    /// Places that would make it, if they were reached; the nearest first.
    pub unreached: Vec<Unreached>,
}

/// A reached place that makes a call, and the way there.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct SiteExplanation {
    /// The `syscall` instruction, or the call that gives a wrapper the number.
    pub site: CodeLocation,
    /// Why the way starts where it does.
    pub root: &'static str,
    /// From there to the function that holds the place.
    pub path: Vec<Step>,
    /// What registers hold at the instruction, as far as it is known; of the kernel's six for arguments.
    pub registers: Vec<(&'static str, Vec<String>)>,
}

/// A step of a way.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct Step {
    /// A function or a data object, by its first address.
    pub at: CodeLocation,
    /// How it is reached from the step before; `None` for the first one.
    pub by: Option<StepKind>,
}

/// How a step is reached from the one before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum StepKind {
    /// A direct call.
    Call,
    /// A jump: a tail call, or another part of the same source function.
    Jump,
    /// An entry of a jump table.
    JumpTable,
    /// A handler of exceptions.
    LandingPad,
    /// A symbol of another file that is bound to it.
    Import,
    /// A call through a pointer in the same file.
    Pointer,
    /// Its address is taken.
    Address,
    /// A data object holds its address.
    Data,
}

/// A place that would make a call, and why nothing leads there.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct Unreached {
    /// The instruction.
    pub site: CodeLocation,
    /// From a function that others could use, or that is reached, to the one that holds the place.
    pub path: Vec<CodeLocation>,
    /// Why nothing leads there.
    pub reason: NotReached,
    /// The files that import what the way starts with.
    #[serde(serialize_with = "crate::path_text::serialize_all")]
    pub imported_by: Vec<std::path::PathBuf>,
}

/// Why nothing leads to a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum NotReached {
    /// A reached function leads there, but only if something else ran first, and that is not reached.
    Guarded,
    /// It only runs before the filter is on.
    BeforeTheFilter,
    /// The way starts with a function that is exported, and that nothing reached refers to.
    UnusedExport,
    /// Nothing in its file refers to what the way starts with.
    NoReference,
}

/// What lies behind a function.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct Through {
    /// The function.
    pub function: CodeLocation,
    /// Why the way to it starts where it does.
    pub root: &'static str,
    /// The way to it; empty if it is not reached.
    pub path: Vec<Step>,
    /// The calls that can be made from there on, with the way from the function to one place for each.
    pub calls: BTreeMap<SyscallNr, SiteExplanation>,
    /// Those of them that would not be allowed without this function.
    pub only_through: Vec<SyscallNr>,
}

/// What the analysis knows when it ends.
pub(crate) struct Known<'k, 'data, S> {
    pub(crate) program: &'k Program<'data>,
    pub(crate) reached: &'k Reachable<'data>,
    pub(crate) calls: &'k Calls,
    pub(crate) roots: &'k [Root],
    pub(crate) guards: &'k Guards,
    pub(crate) surroundings: &'k S,
}

/// Places that are not reached, at most.
const MOST_UNREACHED: usize = 8;
/// Values of one register, at most.
const MOST_VALUES: usize = 8;
/// Names of the registers for arguments, in the order of [`SYSCALL_ARGUMENTS`].
const REGISTER_NAMES: [(Register, &str); 6] = [
    (Register::RDI, "rdi"),
    (Register::RSI, "rsi"),
    (Register::RDX, "rdx"),
    (Register::R10, "r10"),
    (Register::R8, "r8"),
    (Register::R9, "r9"),
];

impl<S: Surroundings> Known<'_, '_, S> {
    /// Answers.
    pub(crate) fn explain(&self, question: &Question) -> Explanation {
        let behind_entry = self.behind_entry();
        let calls = question.calls.iter().map(|call| (*call, self.call(*call, &behind_entry))).collect();
        let through = question.through.as_deref().map(|name| self.through(name)).unwrap_or_default();
        Explanation { calls, through }
    }

    /// What the program's entry point alone leads to: a way from there says more than a shorter one from what a loader or
    /// a library may run.
    fn behind_entry(&self) -> Reachable<'_> {
        let roots: Vec<Root> = self.roots.iter().filter(|root| root.reason == ENTRY_POINT).copied().collect();
        solve(self.program, &roots, self.guards, self.surroundings)
    }

    fn call(&self, call: SyscallNr, behind_entry: &Reachable<'_>) -> CallExplanation {
        let is_behind_entry = |function| behind_entry.phase(function) == Some(Phase::After);
        let sites = self.sites(call).iter().map(|&(function, at)| {
            let reached = if is_behind_entry(function) { behind_entry } else { self.reached };
            self.site(reached, function, at)
        });
        let mut sites: Vec<_> = sites.collect();
        sites.sort_by_key(|site| (site.root != ENTRY_POINT, site.path.len()));
        let unreached = if self.sites(call).is_empty() { self.unreached(call) } else { Vec::new() };
        CallExplanation { sites, unreached }
    }

    fn sites(&self, call: SyscallNr) -> &[(FunctionKey, Vaddr)] {
        self.calls.sites.get(&call).map_or(&[], Vec::as_slice)
    }

    fn site(&self, reached: &Reachable<'_>, function: FunctionKey, at: Vaddr) -> SiteExplanation {
        let (root, path) = self.way(reached, function);
        SiteExplanation {
            site: location(self.program, function.0, at),
            root,
            path,
            registers: self.registers(function, at),
        }
    }

    fn way(&self, reached: &Reachable<'_>, function: FunctionKey) -> (&'static str, Vec<Step>) {
        let nodes = path(reached, Node::Function(function));
        let root = match nodes.first().and_then(|(node, _)| reached.cause(*node)) {
            Some(Cause::Root(reason)) => reason,
            _ => "",
        };
        let mut before: Option<(Node, ReferenceKind)> = None;
        let mut steps = Vec::new();
        for (node, via) in nodes {
            steps.push(Step {
                at: place(self.program, node),
                by: before.map(|(from, kind)| step_kind(from, kind, node)),
            });
            before = via.map(|kind| (node, kind));
        }
        (root, steps)
    }

    fn start(&self, key: FunctionKey) -> Vaddr {
        self.program.start_of(Node::Function(key)).unwrap_or_default()
    }

    /// What is known of the arguments of a `syscall` instruction.
    fn registers(&self, (id, function): FunctionKey, at: Vaddr) -> Vec<(&'static str, Vec<String>)> {
        let Some(arguments) = self.program.syscall_arguments((id, function), at) else { return Vec::new() };
        let values = SYSCALL_ARGUMENTS.iter().zip(&arguments);
        values.filter_map(|(register, value)| Some((register_name(*register)?, self.values(id, value)?))).collect()
    }

    /// The constants and texts that a value can be, if it can be nothing else.
    fn values(&self, id: ModuleId, value: &Value) -> Option<Vec<String>> {
        let atoms = value.atoms().filter(|atoms| !atoms.is_empty() && atoms.len() <= MOST_VALUES)?;
        let text = |atom: &Atom| match *atom {
            Atom::Constant(number) if number < 10 => Some(number.to_string()),
            Atom::Constant(number) => Some(format!("{number:#x}")),
            Atom::Address(at) => Some(match self.program.text(id, *atom) {
                Some(text) if !text.is_empty() => format!("{:?}", String::from_utf8_lossy(text)),
                _ => at.to_string(),
            }),
            _ => None,
        };
        atoms.iter().map(text).collect()
    }

    /// The places that would make a call, the nearest first.
    fn unreached(&self, call: SyscallNr) -> Vec<Unreached> {
        let mut found = Vec::new();
        for (id, module) in self.program.modules() {
            let makes_it = |value: &Value| {
                let is_number =
                    |atom: &Atom| matches!(atom, Atom::Constant(n) if *n & 0xffff_ffff == u64::from(call.0));
                value.atoms().is_some_and(|atoms| atoms.iter().any(is_number))
            };
            let mut referrers = None;
            for function in (0_u32..).map(FunctionId).take(module.summary.functions().all().len()) {
                for site in module.summary.sites(function).iter().filter(|site| makes_it(&site.number)) {
                    let referrers = referrers.get_or_insert_with(|| Referrers::new(module));
                    found.push(self.why_not((id, function), site.at, referrers));
                }
            }
        }
        found.sort_by(|a, b| (a.reason, a.path.len(), &a.site).cmp(&(b.reason, b.path.len(), &b.site)));
        found.truncate(MOST_UNREACHED);
        found
    }

    /// Goes back from a function to one that is reached, or that others could use.
    fn why_not(&self, key: FunctionKey, at: Vaddr, referrers: &Referrers) -> Unreached {
        let (id, function) = key;
        let mut next: FxHashMap<FunctionId, FunctionId> = FxHashMap::default();
        let mut queue = VecDeque::from([function]);
        let mut seen = FxHashSet::from_iter([function]);
        let start_up = self.start_up(id);
        let mut exported = None;
        let mut guarded = None;
        let mut before = (self.reached.phase(key) == Some(Phase::Before)).then_some(function);
        let mut unreferenced = None;
        while let Some(current) = queue.pop_front() {
            match self.reached.phase((id, current)) {
                Some(Phase::After) => {
                    guarded = Some(current);
                    break;
                }
                Some(Phase::Before) if current == function => break,
                _ => {}
            }
            if exported.is_none() && referrers.exports.contains_key(&current) {
                exported = Some(current);
            }
            if before.is_none() && start_up == Some(current) {
                before = start_up;
            }
            if unreferenced.is_none() && referrers.of(current).is_empty() {
                unreferenced = Some(current);
            }
            for &from in referrers.of(current) {
                if seen.insert(from) {
                    next.insert(from, current);
                    queue.push_back(from);
                }
            }
        }
        let (reason, start) = match (guarded, before, exported) {
            (Some(start), ..) => (NotReached::Guarded, start),
            (None, Some(start), _) => (NotReached::BeforeTheFilter, start),
            (None, None, Some(start)) => (NotReached::UnusedExport, start),
            (None, None, None) => (NotReached::NoReference, unreferenced.unwrap_or(function)),
        };
        let steps = std::iter::successors(Some(start), |step| next.get(step).copied().filter(|_| *step != function));
        let path = steps.map(|step| location(self.program, id, self.start((id, step)))).collect();
        let imported_by = match referrers.exports.get(&start).filter(|_| reason == NotReached::UnusedExport) {
            Some(names) => self.importers(id, names),
            None => Vec::new(),
        };
        Unreached { site: location(self.program, id, at), path, reason, imported_by }
    }

    /// The entry point of the program interpreter: all that it leads to and that is not reached ran before the program.
    fn start_up(&self, id: ModuleId) -> Option<FunctionId> {
        let module = self.program.module(id).filter(|module| module.role == ModuleRole::Interpreter)?;
        module.summary.functions().at(module.image.entry()?)
    }

    /// The other files that import one of these names.
    fn importers(&self, exporter: ModuleId, names: &[Vec<u8>]) -> Vec<std::path::PathBuf> {
        let others = self.program.modules().filter(|(id, _)| *id != exporter);
        let imports = |module: &Module<'_>| {
            module.image.symbols().iter().any(|s| !s.is_defined && names.iter().any(|name| s.name == name.as_slice()))
        };
        others.filter(|(_, module)| imports(module)).map(|(_, module)| module.path.clone()).collect()
    }

    fn through(&self, name: &str) -> Vec<Through> {
        let functions = self.named(name);
        let mut answers: Vec<Through> = functions.into_iter().map(|key| self.through_function(key)).collect();
        // Where some of a name are reached, the others are not what is meant.
        if answers.iter().any(|answer| !answer.path.is_empty()) {
            answers.retain(|answer| !answer.path.is_empty());
        }
        answers
    }

    /// The functions of a name, or at an address.
    fn named(&self, name: &str) -> BTreeSet<FunctionKey> {
        let mut found = BTreeSet::new();
        for (id, module) in self.program.modules() {
            let functions = module.summary.functions();
            let hints = module.image.function_hints().iter().filter(|hint| hint.name == name.as_bytes());
            let exports = module.image.symbols().iter().filter(|s| s.is_exported() && s.name == name.as_bytes());
            let places = hints.map(|hint| hint.address).chain(exports.map(|symbol| symbol.value));
            found.extend(places.chain(address_in(module, name)).filter_map(|at| Some((id, functions.at(at)?))));
        }
        found
    }

    fn through_function(&self, key: FunctionKey) -> Through {
        let function = location(self.program, key.0, self.start(key));
        if self.reached.phase(key).is_none() {
            return Through { function, root: "", path: Vec::new(), calls: BTreeMap::new(), only_through: Vec::new() };
        }
        let reason = "the function that was asked about";
        let root = Root { at: (key.0, self.start(key)), phase: Phase::After, reason, escapes: false };
        let behind = solve(self.program, &[root], self.guards, self.surroundings);
        let without = solve_without(self.program, self.roots, self.guards, self.surroundings, Some(key));
        let mut calls = BTreeMap::new();
        let mut only_through = Vec::new();
        for (&call, sites) in &self.calls.sites {
            // What waits behind a guard here was let in by something else there: it is none of this function's.
            let first = sites.iter().find(|(holder, _)| behind.phase(*holder) == Some(Phase::After));
            if let Some(&(holder, at)) = first {
                calls.insert(call, self.site(&behind, holder, at));
                if sites.iter().all(|(holder, _)| without.phase(*holder) != Some(Phase::After)) {
                    only_through.push(call);
                }
            }
        }
        let (root, path) = self.way(self.reached, key);
        Through { function, root, path, calls, only_through }
    }
}

/// `libc.so.6+0x1234`, if it is of this module.
fn address_in(module: &Module<'_>, text: &str) -> Option<Vaddr> {
    let (file, address) = text.rsplit_once("+0x")?;
    let is_it =
        module.path.to_str() == Some(file) || module.path.file_name().and_then(|name| name.to_str()) == Some(file);
    u64::from_str_radix(address, 16).ok().filter(|_| is_it).map(Vaddr)
}

fn register_name(register: Register) -> Option<&'static str> {
    REGISTER_NAMES.iter().find(|(known, _)| *known == register).map(|(_, name)| *name)
}

fn step_kind(from: Node, kind: ReferenceKind, to: Node) -> StepKind {
    let module = |node| match node {
        Node::Function((module, _)) | Node::Object(module, _) => module,
    };
    if matches!(from, Node::Object(..)) {
        return StepKind::Data;
    }
    match kind {
        _ if module(from) != module(to) => StepKind::Import,
        ReferenceKind::Call => StepKind::Call,
        ReferenceKind::Jump => StepKind::Jump,
        ReferenceKind::JumpTable => StepKind::JumpTable,
        ReferenceKind::LandingPad => StepKind::LandingPad,
        ReferenceKind::CallThrough => StepKind::Pointer,
        ReferenceKind::Load(_) | ReferenceKind::Store | ReferenceKind::Address => StepKind::Address,
    }
}

/// Who refers to the functions of one file, inside it, reached or not; which of them it exports.
struct Referrers {
    by_target: FxHashMap<FunctionId, Vec<FunctionId>>,
    exports: FxHashMap<FunctionId, Vec<Vec<u8>>>,
}

impl Referrers {
    fn new(module: &Module<'_>) -> Self {
        let functions = module.summary.functions();
        let data = module.summary.data();
        let mut by_target: FxHashMap<FunctionId, Vec<FunctionId>> = FxHashMap::default();
        let mut add = |target: Vaddr, from: FunctionId| {
            if let Some(to) = functions.at(target).filter(|to| *to != from) {
                by_target.entry(to).or_default().push(from);
            }
        };
        for (from, function) in (0_u32..).map(FunctionId).zip(functions.all()) {
            for reference in &function.references {
                add(reference.target, from);
                // What a data object that it refers to points to.
                if functions.at(reference.target).is_none() {
                    for pointer in data.pointers_in(&data.object_at(reference.target)) {
                        if let PointerTarget::Local(at) | PointerTarget::Resolver(at) = pointer.target {
                            add(at, from);
                        }
                    }
                }
            }
        }
        let mut exports: FxHashMap<FunctionId, Vec<Vec<u8>>> = FxHashMap::default();
        for symbol in module.image.symbols().iter().filter(|symbol| symbol.is_exported()) {
            if let Some(function) = functions.at(symbol.value).filter(|_| module.image.is_code(symbol.value)) {
                exports.entry(function).or_default().push(symbol.name.to_vec());
            }
        }
        Self { by_target, exports }
    }

    fn of(&self, function: FunctionId) -> &[FunctionId] {
        self.by_target.get(&function).map_or(&[], Vec::as_slice)
    }
}
