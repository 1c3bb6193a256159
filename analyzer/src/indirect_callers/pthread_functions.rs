//! Who calls the functions that glibc's thread library hands to its C library in a table.
//!
//! Input: the slots of a table in which the address of a function stands. Output: the calls through the copy of the table
//! that `__libc_pthread_init` makes, or `None` if the table is another one. Until 2.33 the two were files of their own
//! (glibc 2.33, `sysdeps/nptl/pthread-functions.h`, `nptl/libc_pthread_init.c`): the C library keeps the addresses
//! mangled, and calls them by name of the slot.
//!
//! Over-approximates: whoever reads a slot of the copy may make each of its computed calls through it. May miss: a C
//! library that hands the copy on, which glibc's does not.

use std::sync::Arc;

use rustc_hash::FxHashSet;

use crate::address::Vaddr;
use crate::arguments::CallSite;
use crate::callers::Callers;
use crate::instruction::ReferenceKind;
use crate::open_sites::functions_named;
use crate::program::ModuleId;
use crate::reachability::FunctionKey;
use crate::references::References;
use crate::value::{Atom, Value};

/// The function that gets the table.
const KEEPER: &[u8] = b"__libc_pthread_init";

/// The calls through the copies of `slots`, which are in the module `id`.
pub(super) fn find(
    callers: &Callers<'_, '_>,
    id: ModuleId,
    slots: &FxHashSet<Vaddr>,
) -> Option<Vec<(FunctionKey, Arc<CallSite>)>> {
    let references = callers.references(id)?;
    let mut found = Vec::new();
    // Somebody reads the copy, if not among what is reached: who finds nobody has not seen it.
    let mut is_copied = false;
    for &slot in slots {
        let table = callers.program.module(id)?.summary.data().object_at(slot).start;
        let keeper = keeper(callers, id, references, table)?;
        let offset = slot.checked_offset_from(table)?;
        let copies = copies(callers, keeper)?;
        for variable in copies.into_iter().filter_map(|copy| copy.checked_add(offset)) {
            let readers = callers.references(keeper.0)?;
            let readers: Vec<FunctionKey> = readers.loading(variable).map(|function| (keeper.0, function)).collect();
            is_copied |= !readers.is_empty();
            for reader in readers.into_iter().filter(|key| callers.reached.phase(*key).is_some()) {
                found.extend(callers.computed_calls(reader).iter().map(|site| (reader, Arc::clone(site))));
            }
        }
    }
    is_copied.then_some(found)
}

/// The function that gets the address of the table, if it goes nowhere else.
fn keeper(callers: &Callers<'_, '_>, id: ModuleId, references: &References, table: Vaddr) -> Option<FunctionKey> {
    let named: Vec<FunctionKey> = functions_named(callers.program, KEEPER).into_iter().collect();
    let &[keeper] = named.as_slice() else { return None };
    let here = table..table.checked_add(1)?;
    let entered = |caller, site: &CallSite| callers.callees(caller, site, 0).unwrap_or_default();
    // An entry of the procedure linkage table stands between the two.
    let leads_there = |key: &FunctionKey| {
        *key == keeper || callers.named_calls(*key).iter().any(|site| site.is_jump && entered(*key, site) == [keeper])
    };
    let passes = |taker, site: &CallSite| {
        let is_passed = site.arguments().any(|value| value == Value::One(Atom::Address(table)));
        is_passed && entered(taker, site).iter().any(leads_there)
    };
    let is_handed_over = |taker| callers.named_calls((id, taker)).iter().any(|site| passes((id, taker), site));
    let is_kept = !references.is_pointed_into(&here) && references.taking(&here).all(is_handed_over);
    is_kept.then_some(keeper)
}

/// The data whose address the function takes: its copy of the table is among it.
fn copies(callers: &Callers<'_, '_>, keeper: FunctionKey) -> Option<Vec<Vaddr>> {
    let module = callers.program.module(keeper.0)?;
    let references = &module.summary.functions().function(keeper.1)?.references;
    Some(references.iter().filter(|r| r.kind == ReferenceKind::Address).map(|r| r.target).collect())
}
