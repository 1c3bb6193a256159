//! Who calls a function whose address stands in a table.
//!
//! Input: a function whose address was taken. Output: the indirect calls that may enter it, or `None` if nobody can tell.
//! The address must stand in data of its own file only, under no name that other files know; then the calls are sought
//! among the reached indirect calls of that file. A call is left out where what it reads is known to be something else,
//! or where it reads so many bytes behind an object that none of the tables has the function there.
//!
//! Over-approximates: any address that code or data takes may be the start of a table. May miss: calls from other files
//! that are handed the table.

use rustc_hash::FxHashSet;

use crate::address::Vaddr;
use crate::arguments::CallSite;
use crate::callers::Callers;
use crate::data::PointerTarget;
use crate::instruction::ReferenceKind;
use crate::origins::{Seen, nested};
use crate::program::Module;
use crate::reachability::FunctionKey;
use crate::value::Atom;

/// Where the address of a function stands.
struct Table {
    /// The function.
    start: Vaddr,
    slots: FxHashSet<Vaddr>,
    /// Every address of data that something takes: where tables may begin.
    bases: FxHashSet<Vaddr>,
}

/// The indirect calls that may enter `callee`.
#[must_use]
pub fn find(callers: &Callers<'_, '_>, callee: FunctionKey, depth: usize) -> Option<Vec<(FunctionKey, CallSite)>> {
    let module = callers.program.module(callee.0)?;
    let start = module.summary.functions().function(callee.1)?.start;
    let table = Table { start, slots: table_slots(module, start)?, bases: table_bases(module) };
    let mut found = Vec::new();
    for key in callers.reached.functions().into_iter().filter(|key| key.0 == callee.0) {
        let Some(function) = module.summary.functions().function(key.1) else { continue };
        // The indirect jumps of a function with jump tables are its `switch`es.
        let has_tables = function.references.iter().any(|r| r.kind == ReferenceKind::JumpTable);
        if !function.has_indirect_call && (!function.has_indirect_jump || has_tables) {
            continue;
        }
        for site in callers.computed_calls(key).iter().filter(|site| !site.is_jump || !has_tables) {
            if may_enter(callers, key, site, &table, depth) {
                found.push((key, site.clone()));
            }
        }
    }
    Some(found)
}

/// Where in data the address stands; `None` if it is known elsewhere too.
fn table_slots(module: &Module<'_>, start: Vaddr) -> Option<FxHashSet<Vaddr>> {
    let is_exported = module.image.symbols().iter().any(|s| s.is_exported() && s.value == start);
    let mut references = module.summary.functions().all().iter().flat_map(|f| &f.references);
    let is_in_code = references.any(|r| r.kind == ReferenceKind::Address && r.target == start);
    if is_exported || is_in_code {
        return None;
    }
    let pointers = module.summary.data().pointers().iter();
    let slots: FxHashSet<Vaddr> =
        pointers.filter(|p| p.target == PointerTarget::Local(start)).map(|p| p.slot).collect();
    (!slots.is_empty()).then_some(slots)
}

/// Every address of data that something takes.
fn table_bases(module: &Module<'_>) -> FxHashSet<Vaddr> {
    let references = module.summary.functions().all().iter().flat_map(|f| &f.references);
    let in_code = references.filter(|r| r.kind == ReferenceKind::Address).map(|r| r.target);
    let in_data = module.summary.data().pointers().iter().filter_map(|p| match p.target {
        PointerTarget::Local(at) => Some(at),
        _ => None,
    });
    in_code.chain(in_data).collect()
}

fn may_enter(callers: &Callers<'_, '_>, caller: FunctionKey, site: &CallSite, table: &Table, depth: usize) -> bool {
    let offset = match site.target.single() {
        Some(Atom::ParameterField(_, offset) | Atom::GlobalField(_, offset)) => Some(offset),
        _ => site.displacement,
    };
    let stands_there = |offset: i64| {
        let starts = |slot: &Vaddr| slot.0.checked_add_signed(offset.wrapping_neg()).map(Vaddr);
        table.slots.iter().filter_map(starts).any(|base| table.bases.contains(&base))
    };
    if offset.is_some_and(|offset| !stands_there(offset)) {
        return false;
    }
    let seen = Seen { function: caller, at: site.at, value: site.target.clone() };
    let origins = nested(callers, vec![seen], depth + 1);
    !origins.unknown.is_empty() || origins.known.iter().any(|(atom, _, _)| *atom == Atom::Address(table.start))
}
