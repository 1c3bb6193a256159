//! What can run once the filter is on: the least fixed point over functions and data objects.
//!
//! Input: a [`Program`] and its [`Root`]s. Output: [`Reachable`]: each function and object that is reached, with the
//! edge that reached it first, so that a path from a root can be shown (DESIGN section 3, rules 1 to 4).
//!
//! A function may be reached in two ways. `Before` the filter is on (constructors of libraries): its system calls need not be allowed, but every address that it takes may be called later. `After`: all of
//! it counts. A direct call passes the caller's phase on; an address that is taken is always `After`.
//!
//! Over-approximates: whole bodies, whole objects; an address counts wherever it was taken. May miss: what
//! [`crate::functions`] and [`crate::data`] name.

use std::collections::VecDeque;

use rustc_hash::{FxHashMap, FxHashSet};

use crate::address::Vaddr;
use crate::data::PointerTarget;
use crate::elf::SymbolKind;
use crate::functions::FunctionId;
use crate::instruction::{Reference, ReferenceKind};
use crate::program::{Definition, Module, ModuleId, Program};

/// A function of a program.
pub type FunctionKey = (ModuleId, FunctionId);

/// When a function runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Before the filter is installed, and only then.
    Before,
    /// While the filter is on.
    After,
}

/// Something reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Node {
    /// A function.
    Function(FunctionKey),
    /// A data object, by its first address.
    Object(ModuleId, Vaddr),
}

/// How a node was reached first.
#[derive(Clone, Copy, Debug)]
pub enum Cause {
    /// It is a root, for the reason given.
    Root(&'static str),
    /// From another node: at this address of its module, in this way.
    Edge(Node, Vaddr, ReferenceKind),
}

/// Where reachability starts.
#[derive(Clone, Copy, Debug)]
pub struct Root {
    /// Module and address, of code or data.
    pub at: (ModuleId, Vaddr),
    /// When it runs.
    pub phase: Phase,
    /// Why it is a root, for the reader.
    pub reason: &'static str,
    /// Whether its address is known to code that was not seen, so that its arguments are unknown.
    pub escapes: bool,
}

#[derive(Debug)]
struct Visit {
    phase: Phase,
    cause: Cause,
    /// Whether its address was taken: then callers that are not known as such may exist.
    address_taken: bool,
}

/// The outcome.
#[derive(Debug, Default)]
pub struct Reachable<'data> {
    functions: FxHashMap<FunctionKey, Visit>,
    objects: FxHashMap<(ModuleId, Vaddr), Cause>,
    /// Zero-terminated text that reached code or data points to.
    strings: FxHashMap<&'data [u8], Vec<ModuleId>>,
    work: VecDeque<Node>,
}

/// Longer text is no file or symbol name.
const LONGEST_NAME: usize = 255;

impl<'data> Reachable<'data> {
    /// Computes the fixed point. `lookup` is asked once for each text that is reached: the definitions that a look-up of
    /// that name at run time can give.
    #[must_use]
    pub fn new(program: &Program<'data>, roots: &[Root], lookup: impl Fn(&[u8], ModuleId) -> Vec<Definition>) -> Self {
        let mut reached = Self::default();
        for root in roots {
            let cause = Cause::Root(root.reason);
            let (module, at) = root.at;
            if program.module(module).is_some_and(|m| m.image.is_code(at)) {
                reached.reach_code(program, module, at, root.phase, cause, root.escapes);
            } else {
                reached.reach_data(program, module, at, cause, &lookup);
            }
        }
        while let Some(node) = reached.work.pop_front() {
            match node {
                Node::Function(key) => reached.expand_function(program, key, &lookup),
                Node::Object(module, start) => reached.expand_object(program, module, start, &lookup),
            }
        }
        reached
    }

    /// When a function runs; `None` if it does not.
    #[must_use]
    pub fn phase(&self, key: FunctionKey) -> Option<Phase> {
        self.functions.get(&key).map(|visit| visit.phase)
    }

    /// Whether a function's address was taken by something that is reached.
    #[must_use]
    pub fn is_address_taken(&self, key: FunctionKey) -> bool {
        self.functions.get(&key).is_some_and(|visit| visit.address_taken)
    }

    /// The functions that run while the filter is on, in stable order.
    #[must_use]
    pub fn functions(&self) -> Vec<FunctionKey> {
        let mut keys: Vec<_> =
            self.functions.iter().filter(|(_, v)| v.phase == Phase::After).map(|(k, _)| *k).collect();
        keys.sort_unstable();
        keys
    }

    /// Text that reached code or data points to, with the modules that hold it.
    pub fn strings(&self) -> impl Iterator<Item = (&'data [u8], &[ModuleId])> {
        self.strings.iter().map(|(text, modules)| (*text, modules.as_slice()))
    }

    /// The first edge to a node; `None` if it is not reached.
    #[must_use]
    pub fn cause(&self, node: Node) -> Option<Cause> {
        match node {
            Node::Function(key) => self.functions.get(&key).map(|visit| visit.cause),
            Node::Object(module, start) => self.objects.get(&(module, start)).copied(),
        }
    }

    fn expand_function(
        &mut self,
        program: &Program<'data>,
        key: FunctionKey,
        lookup: &impl Fn(&[u8], ModuleId) -> Vec<Definition>,
    ) {
        let (module, id) = key;
        let Some((entry, function)) =
            program.module(module).and_then(|m| Some((m, m.summary.functions().function(id)?)))
        else {
            return;
        };
        let Some(phase) = self.phase(key) else { return };
        for reference in &function.references {
            let at = function.start.checked_add(u64::from(reference.from)).unwrap_or(function.start);
            let cause = Cause::Edge(Node::Function(key), at, reference.kind);
            match reference.kind {
                ReferenceKind::Call | ReferenceKind::Jump | ReferenceKind::JumpTable | ReferenceKind::LandingPad => {
                    self.reach_code(program, module, reference.target, phase, cause, false);
                }
                ReferenceKind::CallThrough => {
                    self.reach_through(program, module, reference.target, phase, cause);
                }
                ReferenceKind::Store => {}
                ReferenceKind::Load(bytes) => {
                    self.reach_loaded(program, entry, module, reference, bytes, cause, lookup)
                }
                ReferenceKind::Address => {
                    // A label inside the function itself (a jump table in the text, a computed goto) is no new function.
                    if !function.contains(reference.target) || reference.target == function.start {
                        self.reach_address(program, module, reference.target, cause, lookup);
                    }
                }
            }
        }
    }

    #[expect(clippy::too_many_arguments, reason = "one call, and a struct for it would only rename them")]
    fn reach_loaded(
        &mut self,
        program: &Program<'data>,
        entry: &Module<'data>,
        module: ModuleId,
        reference: &Reference,
        bytes: u8,
        cause: Cause,
        lookup: &impl Fn(&[u8], ModuleId) -> Vec<Definition>,
    ) {
        // A wide load may take in several pointers, a narrow one a part of a pointer.
        let first = Vaddr(reference.target.0.saturating_sub(7));
        let end = Vaddr(reference.target.0.saturating_add(u64::from(bytes)));
        for pointer in entry.summary.data().pointers_in(&(first..end)) {
            self.reach_pointer(program, module, pointer.target, cause, lookup);
        }
    }

    fn expand_object(
        &mut self,
        program: &Program<'data>,
        module: ModuleId,
        start: Vaddr,
        lookup: &impl Fn(&[u8], ModuleId) -> Vec<Definition>,
    ) {
        let Some(entry) = program.module(module) else { return };
        let data = entry.summary.data();
        let node = Node::Object(module, start);
        for pointer in data.pointers_in(&data.object_at(start)).iter().filter(|p| !p.is_linkage) {
            let cause = Cause::Edge(node, pointer.slot, ReferenceKind::Address);
            self.reach_pointer(program, module, pointer.target, cause, lookup);
        }
    }

    fn reach_pointer(
        &mut self,
        program: &Program<'data>,
        module: ModuleId,
        target: PointerTarget,
        cause: Cause,
        lookup: &impl Fn(&[u8], ModuleId) -> Vec<Definition>,
    ) {
        match target {
            PointerTarget::Local(at) => self.reach_address(program, module, at, cause, lookup),
            PointerTarget::Resolver(at) => self.reach_code(program, module, at, Phase::After, cause, false),
            PointerTarget::Symbol(index, addend) => {
                for found in program.bind(module, index) {
                    let at = found.address.0.checked_add_signed(addend).map_or(found.address, Vaddr);
                    self.reach_definition(program, Definition { address: at, ..found }, cause, lookup);
                }
            }
            PointerTarget::Copy(index) => {
                for found in program.bind_copy(module, index) {
                    self.reach_definition(program, found, cause, lookup);
                }
            }
            PointerTarget::TlsDescriptor => {
                for found in program.exported(b"__tls_get_addr", |_| true) {
                    self.reach_definition(program, found, cause, lookup);
                }
            }
        }
    }

    fn reach_definition(
        &mut self,
        program: &Program<'data>,
        found: Definition,
        cause: Cause,
        lookup: &impl Fn(&[u8], ModuleId) -> Vec<Definition>,
    ) {
        if found.kind == SymbolKind::IndirectFunction {
            self.reach_code(program, found.module, found.address, Phase::After, cause, false);
        } else {
            self.reach_address(program, found.module, found.address, cause, lookup);
        }
    }

    /// A call or jump through the pointer at `slot`.
    fn reach_through(&mut self, program: &Program<'data>, module: ModuleId, slot: Vaddr, phase: Phase, cause: Cause) {
        let Some(entry) = program.module(module) else { return };
        let behind = slot.checked_add(1).unwrap_or(slot);
        for pointer in entry.summary.data().pointers_in(&(slot..behind)) {
            match pointer.target {
                PointerTarget::Local(at) => self.reach_code(program, module, at, phase, cause, false),
                PointerTarget::Resolver(at) => self.reach_code(program, module, at, phase, cause, false),
                PointerTarget::Symbol(index, _) => {
                    for found in program.bind(module, index) {
                        self.reach_code(program, found.module, found.address, phase, cause, false);
                    }
                }
                PointerTarget::Copy(_) | PointerTarget::TlsDescriptor => {}
            }
        }
    }

    fn reach_address(
        &mut self,
        program: &Program<'data>,
        module: ModuleId,
        at: Vaddr,
        cause: Cause,
        lookup: &impl Fn(&[u8], ModuleId) -> Vec<Definition>,
    ) {
        let Some(entry) = program.module(module) else { return };
        if entry.image.is_code(at) {
            self.reach_code(program, module, at, Phase::After, cause, true);
        } else {
            self.reach_data(program, module, at, cause, lookup);
        }
    }

    fn reach_data(
        &mut self,
        program: &Program<'data>,
        module: ModuleId,
        at: Vaddr,
        cause: Cause,
        lookup: &impl Fn(&[u8], ModuleId) -> Vec<Definition>,
    ) {
        let Some(entry) = program.module(module) else { return };
        let start = entry.summary.data().object_at(at).start;
        self.objects.entry((module, start)).or_insert_with(|| {
            self.work.push_back(Node::Object(module, start));
            cause
        });
        if let Some(text) = entry.image.c_string(at).filter(|t| is_name(t)) {
            let holders = self.strings.entry(text).or_default();
            if !holders.contains(&module) {
                holders.push(module);
                for found in lookup(text, module) {
                    self.reach_definition(program, found, cause, lookup);
                }
            }
        }
    }

    fn reach_code(
        &mut self,
        program: &Program<'data>,
        module: ModuleId,
        at: Vaddr,
        phase: Phase,
        cause: Cause,
        taken: bool,
    ) {
        let Some(id) = program.module(module).and_then(|m| m.summary.functions().at(at)) else { return };
        let key = (module, id);
        match self.functions.get_mut(&key) {
            Some(visit) => {
                visit.address_taken |= taken;
                if visit.phase < phase {
                    visit.phase = phase;
                    visit.cause = cause;
                    self.work.push_back(Node::Function(key));
                }
            }
            None => {
                self.functions.insert(key, Visit { phase, cause, address_taken: taken });
                self.work.push_back(Node::Function(key));
            }
        }
    }
}

fn is_name(text: &[u8]) -> bool {
    !text.is_empty() && text.len() <= LONGEST_NAME && text.iter().all(u8::is_ascii_graphic)
}

/// Functions that a set of causes leads through, from the root to `node`.
#[must_use]
pub fn path(reached: &Reachable<'_>, node: Node) -> Vec<(Node, Option<(Vaddr, ReferenceKind)>)> {
    let mut steps = Vec::new();
    let mut seen = FxHashSet::default();
    let mut at = Some((node, None));
    while let Some((node, via)) = at.filter(|(node, _)| seen.insert(*node)) {
        steps.push((node, via));
        at = match reached.cause(node) {
            Some(Cause::Edge(from, address, kind)) => Some((from, Some((address, kind)))),
            _ => None,
        };
    }
    steps.reverse();
    steps
}
