//! Values that come from callers: a parameter is followed up the reached call graph until it is known.
//!
//! Input: values seen in reached functions, some of which are [`Atom::Parameter`]. Output: the constants and addresses
//! that they can be, each with the place where it is written down, and the places where nobody knows (DESIGN section 3,
//! rule 5). A wrapper needs no name: a function whose parameter ends up as a system call's number is one, however many
//! levels lie between.
//!
//! Over-approximates: a parameter is joined over all reached callers. May miss: nothing; a caller that is not known as
//! such (an address that was taken, a jump into a body) makes the value unknown.

use rustc_hash::FxHashSet;

use crate::address::Vaddr;
use crate::arguments::{CallSite, Callee, call_sites};
use crate::data::PointerTarget;
use crate::instruction::ReferenceKind;
use crate::program::{ModuleId, Program};
use crate::reachability::{FunctionKey, Reachable};
use crate::value::{Atom, Value};

/// A value at a place in a reached function.
#[derive(Clone, Debug)]
pub struct Seen {
    /// The function.
    pub function: FunctionKey,
    /// The instruction.
    pub at: Vaddr,
    /// What it can be there.
    pub value: Value,
}

/// Where values come from.
#[derive(Debug, Default)]
pub struct Origins {
    /// Constants and addresses, each with the place that fixes it.
    pub known: Vec<(Atom, FunctionKey, Vaddr)>,
    /// Places where the value is not known.
    pub unknown: Vec<(FunctionKey, Vaddr)>,
}

/// The reached call graph, from callee to caller.
#[derive(Debug)]
pub struct Callers<'a, 'data> {
    program: &'a Program<'data>,
    reached: &'a Reachable<'data>,
    /// (callee, caller), sorted.
    edges: Vec<(FunctionKey, FunctionKey)>,
}

impl<'a, 'data> Callers<'a, 'data> {
    /// Collects the calls among the functions that run while the filter is on.
    #[must_use]
    pub fn new(program: &'a Program<'data>, reached: &'a Reachable<'data>) -> Self {
        let mut edges = Vec::new();
        for caller in reached.functions() {
            let Some(module) = program.module(caller.0) else { continue };
            let Some(function) = module.summary.functions().function(caller.1) else { continue };
            for reference in &function.references {
                let callee = match reference.kind {
                    ReferenceKind::Call | ReferenceKind::Jump | ReferenceKind::JumpTable => {
                        Callee::Direct(reference.target)
                    }
                    ReferenceKind::CallThrough => Callee::Through(reference.target),
                    ReferenceKind::LandingPad | ReferenceKind::Load(_) | ReferenceKind::Address => continue,
                };
                edges.extend(targets(program, caller.0, callee).into_iter().map(|(callee, _)| (callee, caller)));
            }
        }
        edges.sort_unstable();
        edges.dedup();
        Self { program, reached, edges }
    }

    /// The calls that may enter `callee`, in reached functions, with their callers.
    #[must_use]
    pub fn calls_of(&self, callee: FunctionKey) -> Vec<(FunctionKey, CallSite)> {
        self.callers(callee)
            .flat_map(|caller| self.calls(caller, callee).into_iter().map(move |site| (caller, site)))
            .collect()
    }

    /// Follows each value to where it is fixed.
    #[must_use]
    pub fn origins(&self, seen: Vec<Seen>) -> Origins {
        let mut work = seen;
        let mut done: FxHashSet<(FunctionKey, u16)> = FxHashSet::default();
        let mut found = Origins::default();
        while let Some(Seen { function, at, value }) = work.pop() {
            let Some(atoms) = value.atoms() else {
                found.unknown.push((function, at));
                continue;
            };
            for &atom in atoms {
                match atom {
                    Atom::Constant(_) | Atom::Address(_) => found.known.push((atom, function, at)),
                    Atom::Frame(_) => found.unknown.push((function, at)),
                    Atom::Parameter(number) if done.insert((function, number)) => {
                        if !self.follow(function, number, &mut work) {
                            found.unknown.push((function, at));
                        }
                    }
                    Atom::Parameter(_) => {}
                }
            }
        }
        found.known.sort_unstable();
        found.known.dedup();
        found.unknown.sort_unstable();
        found.unknown.dedup();
        found
    }

    /// Adds what each caller passes; false if there may be callers that are not known.
    fn follow(&self, function: FunctionKey, number: u16, work: &mut Vec<Seen>) -> bool {
        let mut complete = !self.reached.is_address_taken(function);
        let mut any = false;
        for caller in self.callers(function) {
            let calls = self.calls(caller, function);
            complete &= !calls.is_empty();
            for call in calls {
                any = true;
                work.push(Seen { function: caller, at: call.at, value: call.argument(number) });
            }
        }
        complete && any
    }

    fn callers(&self, callee: FunctionKey) -> impl Iterator<Item = FunctionKey> + '_ {
        let first = self.edges.partition_point(|(to, _)| *to < callee);
        self.edges.iter().skip(first).take_while(move |(to, _)| *to == callee).map(|(_, from)| *from)
    }

    /// The calls in `caller` that enter `callee` at its start; none if one enters it elsewhere.
    fn calls(&self, caller: FunctionKey, callee: FunctionKey) -> Vec<CallSite> {
        let Some(module) = self.program.module(caller.0) else { return Vec::new() };
        let Some(function) = module.summary.functions().function(caller.1) else { return Vec::new() };
        let goes_there =
            |candidate: Callee| targets(self.program, caller.0, candidate).iter().any(|(to, _)| *to == callee);
        let found = call_sites(&module.code(), function, goes_there);
        let all_at_start = found.iter().all(|site| {
            targets(self.program, caller.0, site.callee).iter().all(|(to, is_start)| *to != callee || *is_start)
        });
        if all_at_start { found } else { Vec::new() }
    }
}

/// The functions that a call in `module` can enter, and whether at their start.
fn targets(program: &Program<'_>, module: ModuleId, callee: Callee) -> Vec<(FunctionKey, bool)> {
    let Some(entry) = program.module(module) else { return Vec::new() };
    let function = |module: ModuleId, at: Vaddr| {
        let functions = program.module(module)?.summary.functions();
        let id = functions.at(at)?;
        Some(((module, id), functions.function(id)?.start == at))
    };
    match callee {
        Callee::Direct(at) => function(module, at).into_iter().collect(),
        Callee::Through(slot) => {
            let behind = slot.checked_add(1).unwrap_or(slot);
            let mut found = Vec::new();
            for pointer in entry.summary.data().pointers_in(&(slot..behind)) {
                match pointer.target {
                    PointerTarget::Local(at) => found.extend(function(module, at)),
                    PointerTarget::Symbol(index, _) => {
                        found.extend(
                            program.bind(module, index).into_iter().filter_map(|d| function(d.module, d.address)),
                        );
                    }
                    PointerTarget::Resolver(_) | PointerTarget::Copy(_) | PointerTarget::TlsDescriptor => {}
                }
            }
            found
        }
    }
}
