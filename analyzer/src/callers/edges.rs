//! The reached call graph, from callee to caller.
//!
//! Input: a [`Program`] and its reached functions. Output: [`Edges`]: calls and jumps that say whom they enter, by address,
//! by an import or by a jump table; each pair of functions once.

use rayon::prelude::*;
use rustc_hash::FxHashMap;

use crate::address::Vaddr;
use crate::arguments::Callee;
use crate::data::PointerTarget;
use crate::functions::FunctionId;
use crate::instruction::ReferenceKind;
use crate::program::{ModuleId, Program};
use crate::reachability::FunctionKey;

/// Callee and caller, sorted: each pair as one number, since there are millions to compare.
#[derive(Debug)]
pub(super) struct Edges {
    numbers: Numbers,
    edges: Vec<u64>,
}

/// The functions of all modules, one after the other.
#[derive(Debug)]
struct Numbers {
    /// By module, how many functions stand before its own.
    before: Vec<u32>,
}

impl Numbers {
    fn new(program: &Program<'_>) -> Self {
        let mut count = 0_u32;
        let mut before = Vec::new();
        for (_, module) in program.modules() {
            before.push(count);
            // So many that they cannot be counted so would take half a terabyte of memory.
            let more = u32::try_from(module.summary.functions().all().len()).unwrap_or(u32::MAX);
            count = count.saturating_add(more);
        }
        Self { before }
    }

    /// `None` for a function of a module that is not there.
    fn of(&self, (module, function): FunctionKey) -> Option<u32> {
        let before = usize::try_from(module.0).ok().and_then(|module| self.before.get(module));
        before?.checked_add(function.0)
    }

    fn function(&self, number: u32) -> FunctionKey {
        // Of modules without functions, which stand at the same place as the next one, none is the last one there.
        let module = self.before.partition_point(|before| *before <= number).saturating_sub(1);
        let before = self.before.get(module).copied().unwrap_or(0);
        (ModuleId(u32::try_from(module).unwrap_or(u32::MAX)), FunctionId(number.saturating_sub(before)))
    }
}

fn edge(callee: u32, caller: u32) -> u64 {
    u64::from(callee) << 32 | u64::from(caller)
}

impl Edges {
    /// `callers` are sorted.
    pub(super) fn new(program: &Program<'_>, callers: &[FunctionKey]) -> Self {
        let numbers = Numbers::new(program);
        let modules: Vec<&[FunctionKey]> = callers.chunk_by(|one, other| one.0 == other.0).collect();
        let found: Vec<Vec<u64>> =
            modules.into_par_iter().with_max_len(1).map(|callers| edges_from(program, callers, &numbers)).collect();
        let mut edges = found.concat();
        drop(found);
        edges.par_sort_unstable();
        Self { numbers, edges }
    }

    /// The functions that call or jump to `callee`.
    pub(super) fn callers(&self, callee: FunctionKey) -> impl Iterator<Item = FunctionKey> + '_ {
        let bounds = self.numbers.of(callee).map(|to| edge(to, 0)..=edge(to, u32::MAX));
        let found = bounds.into_iter().flat_map(|bounds| {
            let first = self.edges.partition_point(|other| other < bounds.start());
            self.edges.iter().skip(first).take_while(move |edge| *edge <= bounds.end())
        });
        found.map(|edge| self.numbers.function(u32::try_from(edge & u64::from(u32::MAX)).unwrap_or(u32::MAX)))
    }
}

/// The edges from functions of one module.
fn edges_from(program: &Program<'_>, callers: &[FunctionKey], numbers: &Numbers) -> Vec<u64> {
    let mut edges = Vec::new();
    let mut imported: FxHashMap<Vaddr, Vec<FunctionKey>> = FxHashMap::default();
    for &caller in callers {
        let function = program.module(caller.0).and_then(|m| m.summary.functions().function(caller.1));
        let Some(function) = function else { continue };
        let mut callees = Vec::new();
        for reference in &function.references {
            let target = reference.target;
            match reference.kind {
                ReferenceKind::Call | ReferenceKind::Jump | ReferenceKind::JumpTable => {
                    callees.extend(function_at(program, caller.0, target).map(|(callee, _)| callee));
                }
                ReferenceKind::CallThrough => {
                    let found = imported.entry(target).or_insert_with(|| {
                        targets(program, caller.0, Callee::Through(target))
                            .into_iter()
                            .map(|(callee, _)| callee)
                            .collect()
                    });
                    callees.extend_from_slice(found);
                }
                ReferenceKind::LandingPad | ReferenceKind::Load(_) | ReferenceKind::Store | ReferenceKind::Address => {}
            }
        }
        callees.sort_unstable();
        callees.dedup();
        let Some(caller) = numbers.of(caller) else { continue };
        edges.extend(callees.into_iter().filter_map(|callee| Some(edge(numbers.of(callee)?, caller))));
    }
    edges
}

/// The functions that a call in `module` can enter, and whether at their start.
pub(super) fn targets(program: &Program<'_>, module: ModuleId, callee: Callee) -> Vec<(FunctionKey, bool)> {
    match callee {
        Callee::Direct(at) => function_at(program, module, at).into_iter().collect(),
        Callee::Through(slot) => {
            let target = program.module(module).and_then(|module| module.summary.data().pointer_at(slot));
            match target {
                Some(PointerTarget::Local(at)) => function_at(program, module, at).into_iter().collect(),
                Some(PointerTarget::Symbol(index, _)) => {
                    let found = program.bind(module, index).into_iter();
                    found.filter_map(|d| function_at(program, d.module, d.address)).collect()
                }
                Some(PointerTarget::Resolver(_) | PointerTarget::Copy(_) | PointerTarget::TlsDescriptor) | None => {
                    Vec::new()
                }
            }
        }
        Callee::Computed => Vec::new(),
    }
}

fn function_at(program: &Program<'_>, module: ModuleId, at: Vaddr) -> Option<(FunctionKey, bool)> {
    let functions = program.module(module)?.summary.functions();
    let id = functions.at(at)?;
    Some(((module, id), functions.function(id)?.start == at))
}
