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
pub(super) struct Edges(Vec<u128>);

fn number((module, function): FunctionKey) -> u64 {
    u64::from(module.0) << 32 | u64::from(function.0)
}

fn edge(callee: FunctionKey, caller: FunctionKey) -> u128 {
    u128::from(number(callee)) << 64 | u128::from(number(caller))
}

fn caller_of(edge: u128) -> FunctionKey {
    let half = |bits: u32| u32::try_from(edge >> bits & u128::from(u32::MAX)).unwrap_or(u32::MAX);
    (ModuleId(half(32)), FunctionId(half(0)))
}

impl Edges {
    /// `callers` are sorted.
    pub(super) fn new(program: &Program<'_>, callers: &[FunctionKey]) -> Self {
        let modules: Vec<&[FunctionKey]> = callers.chunk_by(|one, other| one.0 == other.0).collect();
        let found = modules.into_par_iter().map(|callers| edges_from(program, callers));
        let mut edges = found.reduce(Vec::new, |mut all, mut more| {
            all.append(&mut more);
            all
        });
        edges.par_sort_unstable();
        Self(edges)
    }

    /// The functions that call or jump to `callee`.
    pub(super) fn callers(&self, callee: FunctionKey) -> impl Iterator<Item = FunctionKey> + '_ {
        let to = u128::from(number(callee));
        let first = self.0.partition_point(|edge| edge >> 64 < to);
        self.0.iter().skip(first).take_while(move |edge| **edge >> 64 == to).map(|edge| caller_of(*edge))
    }
}

/// The edges from functions of one module.
fn edges_from(program: &Program<'_>, callers: &[FunctionKey]) -> Vec<u128> {
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
        edges.extend(callees.into_iter().map(|callee| edge(callee, caller)));
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
