//! What can run once the filter is on: the least fixed point over functions and data objects.
//!
//! Input: roots; [`crate::solver`] computes the rest. Output: [`Reachable`]: each function and object that is reached,
//! with the edge that reached it first, so that a path from a root can be shown (DESIGN section 3, rules 1 to 4).
//!
//! A function may be reached in two ways. `Before` the filter is on (constructors of libraries): its system calls need
//! not be allowed, but every address that it takes may be called later. `After`: all of it counts. A direct call passes
//! the caller's phase on; an address that is taken is always `After`.
//!
//! Over-approximates: whole bodies, whole objects; an address counts wherever it was taken. May miss: what
//! [`crate::functions`] and [`crate::data`] name.

use std::collections::BTreeSet;

use rustc_hash::FxHashSet;

use crate::address::Vaddr;
use crate::functions::FunctionId;
use crate::guards::GuardId;
use crate::instruction::ReferenceKind;
use crate::node_table::NodeTable;
use crate::program::{ModuleId, Program};

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
    /// A data object, by its number.
    Object(ModuleId, u32),
}

/// How a node was reached first.
#[derive(Clone, Copy, Debug)]
pub enum Cause {
    /// It is a root, for the reason given.
    Root(&'static str),
    /// From another node, in this way.
    Edge(Node, ReferenceKind),
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

/// How and when a function was reached.
#[derive(Debug)]
pub(crate) struct Visit {
    pub(crate) phase: Phase,
    pub(crate) cause: Cause,
    /// Whether its address was taken: then callers that are not known as such may exist.
    pub(crate) address_taken: bool,
}

/// The outcome.
#[derive(Debug)]
pub struct Reachable<'data> {
    pub(crate) functions: NodeTable<Visit>,
    /// Data objects, by their numbers and as the edge that reached them.
    pub(crate) objects: NodeTable<Cause>,
    /// Zero-terminated text that reached code or data points to, with the module that holds it; some of it twice.
    pub(crate) strings: Vec<(&'data [u8], ModuleId)>,
    /// Guards that kept something out.
    pub(crate) closed: BTreeSet<GuardId>,
    /// Guards that something reached has opened.
    pub(crate) open: FxHashSet<GuardId>,
}

impl<'data> Reachable<'data> {
    /// Nothing yet.
    pub(crate) fn nothing(program: &Program<'_>) -> Self {
        Self {
            functions: NodeTable::new(program.modules().map(|(_, module)| module.summary.functions().all().len())),
            // The last object lies behind the last boundary.
            objects: NodeTable::new(program.modules().map(|(_, m)| m.summary.data().object_count().saturating_add(1))),
            strings: Vec::new(),
            closed: BTreeSet::new(),
            open: FxHashSet::default(),
        }
    }

    /// When a function runs; `None` if it does not.
    #[must_use]
    pub fn phase(&self, key: FunctionKey) -> Option<Phase> {
        self.functions.get(key.0, key.1.0).map(|visit| visit.phase)
    }

    /// Whether a function's address was taken by something that is reached.
    #[must_use]
    pub fn is_address_taken(&self, key: FunctionKey) -> bool {
        self.functions.get(key.0, key.1.0).is_some_and(|visit| visit.address_taken)
    }

    /// The functions that run while the filter is on, in stable order.
    #[must_use]
    pub fn functions(&self) -> Vec<FunctionKey> {
        let while_filtered = self.functions.iter().filter(|(.., visit)| visit.phase == Phase::After);
        let mut keys: Vec<_> = while_filtered.map(|(module, number, _)| (*module, FunctionId(*number))).collect();
        keys.sort_unstable();
        keys
    }

    /// Text that reached code or data points to, with the module that holds it; some of it twice.
    pub fn strings(&self) -> impl Iterator<Item = (&'data [u8], ModuleId)> {
        self.strings.iter().copied()
    }

    /// Whether a text is among them.
    #[must_use]
    pub fn says(&self, text: &[u8]) -> bool {
        self.strings().any(|(said, _)| said == text)
    }

    /// The guards that kept code out: what they rest on is an assumption.
    pub fn closed_guards(&self) -> impl Iterator<Item = GuardId> + '_ {
        self.closed.iter().copied()
    }

    /// Whether something that is reached has opened a guard.
    #[must_use]
    pub fn is_open(&self, guard: GuardId) -> bool {
        self.open.contains(&guard)
    }

    /// The first edge to a node; `None` if it is not reached.
    #[must_use]
    pub fn cause(&self, node: Node) -> Option<Cause> {
        match node {
            Node::Function((module, function)) => self.functions.get(module, function.0).map(|visit| visit.cause),
            Node::Object(module, number) => self.objects.get(module, number).copied(),
        }
    }
}

/// Functions that a set of causes leads through, from the root to `node`.
#[must_use]
pub fn path(reached: &Reachable<'_>, node: Node) -> Vec<(Node, Option<ReferenceKind>)> {
    let mut steps = Vec::new();
    let mut seen = FxHashSet::default();
    let mut at = Some((node, None));
    while let Some((node, via)) = at.filter(|(node, _)| seen.insert(*node)) {
        steps.push((node, via));
        at = match reached.cause(node) {
            Some(Cause::Edge(from, kind)) => Some((from, Some(kind))),
            _ => None,
        };
    }
    steps.reverse();
    steps
}
