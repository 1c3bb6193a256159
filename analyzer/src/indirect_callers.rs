//! Who calls a function whose address stands in a table.
//!
//! Input: a function whose address was taken. Output: the calls that may enter it by that address, or `None` if nobody
//! can tell. Two ways are followed. The address stands in data of its own file: then the calls are sought among the
//! reached indirect calls of that file, and one is left out where what it reads is known to be something else, or where
//! it reads so many bytes behind an object that none of the tables has the function there. Or code of any file loads
//! the address and does nothing but call it (`uses`).
//!
//! Over-approximates: any address that code or data takes may be the start of a table. May miss: calls from other files
//! that are handed the table.

mod pthread_functions;
pub(crate) mod uses;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;

use iced_x86::Instruction;
use rustc_hash::FxHashSet;

use crate::address::Vaddr;
use crate::arguments::{CallSite, Callee};
use crate::callers::Callers;
use crate::data::PointerTarget;
use crate::functions::{Function, FunctionId};
use crate::instruction::ReferenceKind;
use crate::origins::is_exported;
use crate::program::{Module, ModuleId};
use crate::reachability::{Cause, FunctionKey, Node};
use crate::references::References;
use crate::value::Atom;
use uses::{Source, Targets};

/// Calls with the functions that make them, by the distance at which they read whom they call, if it is known.
pub(crate) type ComputedSites = BTreeMap<Option<i64>, Vec<(FunctionKey, Arc<CallSite>)>>;

/// Where the address of a function stands.
struct Table<'r> {
    slots: FxHashSet<Vaddr>,
    /// Who takes which address: where tables may begin.
    references: &'r References,
}

impl Table<'_> {
    /// Whether the address stands so many bytes behind what may be the start of a table.
    fn stands_behind(&self, offset: i64) -> bool {
        let starts = |slot: &Vaddr| slot.0.checked_add_signed(offset.wrapping_neg()).map(Vaddr);
        self.slots.iter().filter_map(starts).any(|base| self.references.is_base(base))
    }
}

/// The calls that may enter `callee` by its address; with `tables`, through tables of functions too.
#[must_use]
pub fn find(
    callers: &Callers<'_, '_>,
    callee: FunctionKey,
    depth: usize,
    tables: bool,
) -> Option<Vec<(FunctionKey, Arc<CallSite>)>> {
    let module = callers.program.module(callee.0)?;
    let start = module.summary.functions().function(callee.1)?.start;
    if is_known_elsewhere(callers, callee, start) {
        return None;
    }
    let references = callers.references(callee.0)?;
    let slots = table_slots(module, references, start);
    let mut found = loaded(callers, callee, start, &slots, depth)?;
    if slots.is_empty() {
        return Some(found);
    }
    // Any function value of Go may be called anywhere.
    if !tables || callers.code(callee.0)?.is_go(start) {
        return None;
    }
    if let Some(calls) = pthread_functions::find(callers, callee.0, &slots) {
        found.extend(calls);
        return Some(found);
    }
    let table = Table { slots, references };
    let sites = callers.computed_sites(callee.0);
    let steps = sites.len().saturating_mul(table.slots.len());
    if !callers.budget.take(u64::try_from(steps).unwrap_or(u64::MAX)) {
        return None;
    }
    let first = found.len();
    for (offset, sites) in &*sites {
        if offset.is_some_and(|offset| !table.stands_behind(offset)) {
            continue;
        }
        let enters = |(key, site): &&(FunctionKey, Arc<CallSite>)| may_enter(callers, *key, site, start, depth);
        found.extend(sites.iter().filter(enters).cloned());
    }
    found.get_mut(first..).unwrap_or_default().sort_by_key(|(key, site)| (*key, site.at));
    Some(found)
}

/// The reached calls of a module that compute whom they call, and are no `switch`, by how many bytes behind an address
/// what they call stands.
pub(crate) fn computed_sites(callers: &Callers<'_, '_>, module: ModuleId) -> ComputedSites {
    let mut found = ComputedSites::new();
    let Some(entry) = callers.program.module(module) else { return found };
    for key in callers.reached.functions().into_iter().filter(|key| key.0 == module) {
        let Some(function) = entry.summary.functions().function(key.1) else { continue };
        // The indirect jumps of a function with jump tables are its `switch`es.
        let has_tables = function.references.iter().any(|r| r.kind == ReferenceKind::JumpTable);
        if !function.has_indirect_call && (!function.has_indirect_jump || has_tables) {
            continue;
        }
        for site in callers.computed_calls(key).iter().filter(|site| !site.is_jump || !has_tables) {
            let offset = match site.target.single() {
                Some(Atom::ParameterField(_, offset) | Atom::GlobalField(_, offset)) => Some(offset),
                _ => site.displacement,
            };
            found.entry(offset).or_default().push((key, Arc::clone(site)));
        }
    }
    found
}

/// Whether code that was not seen may have the address: it is a root, or its name is looked up while the program runs.
/// That nobody passes a number to what is looked up under a name that is not known is an assumption of the policy.
fn is_known_elsewhere(callers: &Callers<'_, '_>, callee: FunctionKey, start: Vaddr) -> bool {
    if !matches!(callers.reached.cause(Node::Function(callee)), Some(Cause::Edge(..))) {
        return true;
    }
    let names = names(callers, callee.0, start);
    names.iter().any(|&name| name == b"__tls_get_addr" || callers.looked_up.contains(name))
}

/// The names under which other files know an address.
fn names<'data>(callers: &Callers<'_, 'data>, module: ModuleId, start: Vaddr) -> Vec<&'data [u8]> {
    let symbols = callers.program.module(module).map_or(&[][..], |module| module.image.symbols());
    symbols.iter().filter(|s| s.is_exported() && s.value == start).map(|s| s.name).collect()
}

/// The calls in functions that load the address, other than from `tables`; `None` if one of them does something else
/// with it, or if it stands in reached data under a name.
fn loaded(
    callers: &Callers<'_, '_>,
    callee: FunctionKey,
    start: Vaddr,
    tables: &FxHashSet<Vaddr>,
    depth: usize,
) -> Option<Vec<(FunctionKey, Arc<CallSite>)>> {
    let here = start..start.checked_add(1)?;
    let local = callers.references(callee.0)?.pointing_into(&here).filter(|slot| !tables.contains(slot));
    let mut places: Vec<(ModuleId, Vaddr, bool)> = local.map(|slot| (callee.0, slot, false)).collect();
    for name in names(callers, callee.0, start) {
        for &(id, symbol) in callers.importers(name) {
            let mut found = callers.program.bind(id, symbol).into_iter();
            if found.any(|definition| (definition.module, definition.address) == (callee.0, start)) {
                places.extend(callers.references(id)?.naming(symbol).map(|slot| (id, slot, true)));
            }
        }
    }
    places.sort_unstable();
    places.dedup();
    let mut sources = vec![(callee.0, start)];
    for (id, slot, is_named) in places {
        let data = callers.program.module(id)?.summary.data();
        let is_in_object = data.pointers_in(&(slot..slot.checked_add(1)?)).iter().any(|pointer| !pointer.is_linkage);
        let object = Node::Object(id, data.object_number(slot));
        if is_named && is_in_object && callers.reached.cause(object).is_some() {
            return None;
        }
        sources.push((id, slot));
    }
    spread(callers, callee, sources, depth)
}

/// More places are not looked at for one address.
const MOST_PLACES: usize = 256;

/// The calls through an address that stands at these places, and wherever it goes from there: into parameters of
/// functions that are known, and into variables that nobody else can reach.
fn spread(
    callers: &Callers<'_, '_>,
    callee: FunctionKey,
    places: Vec<(ModuleId, Vaddr)>,
    depth: usize,
) -> Option<Vec<(FunctionKey, Arc<CallSite>)>> {
    let read_by_own = callers.live_in(callee);
    let stack_read_by_own = callers.stack_read(callee, 0);
    let is_narrow = !callers.program.module(callee.0)?.image.is_position_independent();
    let mut found = Vec::new();
    let mut done: BTreeSet<(FunctionKey, Source)> = BTreeSet::new();
    let mut work: Vec<(FunctionKey, Source)> = Vec::new();
    for (id, place) in places {
        work.extend(takers(callers, id, place)?);
    }
    while let Some((taker, source)) = work.pop() {
        if !done.insert((taker, source)) {
            continue;
        }
        if done.len() > MOST_PLACES {
            return None;
        }
        let (module, code) = (callers.program.module(taker.0)?, callers.code(taker.0)?);
        let function = module.summary.functions().function(taker.1)?;
        let read_by = |call: &Instruction| callers.read_by(taker.0, call);
        let stack_read_by = |call: &Instruction| callers.stack_read_by(taker.0, call);
        let targets =
            Targets { read_by: &read_by, read_by_own, stack_read_by: &stack_read_by, stack_read_by_own, is_narrow };
        let ways = uses::ways(&code, function, source, &targets)?;
        found.extend(ways.calls.iter().filter_map(|&at| Some((taker, callers.call_at(taker, at)?))));
        work.extend(ways.passed_to_own.into_iter().map(|register| (callee, Source::Argument(register))));
        for (at, register) in ways.passed {
            let site = callers.call_at(taker, at)?;
            if site.callee == Callee::Computed && depth > 0 {
                return None;
            }
            let entered = callers.callees(taker, &site, depth + 1)?;
            work.extend(entered.into_iter().map(|key| (key, Source::Argument(register))));
        }
        for slot in ways.stored {
            if !is_private(callers, taker.0, slot)? {
                return None;
            }
            let calling = callers.references(taker.0)?.calling(slot).collect::<Vec<_>>();
            work.extend(takers(callers, taker.0, slot)?);
            work.extend(calling.into_iter().map(|id| ((taker.0, id), Source::Target(slot))));
        }
    }
    Some(found)
}

/// The addresses by which whoever has one gets at a variable: from the start of the structure that it is a part of.
pub(crate) fn reaching(module: &Module<'_>, slot: Vaddr) -> Range<Vaddr> {
    let object = module.summary.data().object_at(slot);
    // Only a symbol says that both are parts of one structure.
    let is_certain = module.image.object_hints().binary_search_by_key(&object.start, |hint| hint.address).is_ok();
    let start = if is_certain { object.start } else { slot };
    start..slot.checked_add(1).unwrap_or(slot)
}

/// Whether a function takes an address for the end of a table that is empty, as `register_tm_clones` of each program does
/// (GCC's `crtstuff.c`): that of the first byte behind initialized data.
pub(crate) fn is_empty_table(module: &Module<'_>, taker: FunctionId, at: Vaddr) -> bool {
    let is_end = module.image.data_ranges().iter().any(|range| range.end == at);
    let takes_nothing_else = |function: &Function| {
        let mut taken = function.references.iter().filter(|r| r.kind == ReferenceKind::Address);
        function.has_indirect_jump && !function.has_indirect_call && taken.all(|r| r.target == at)
    };
    is_end && module.summary.functions().function(taker).is_some_and(takes_nothing_else)
}

/// Whether what stands there holds its own address, as what names a library does (`__dso_handle`, Itanium C++ ABI
/// 3.3.5.1).
pub(crate) fn is_handle(module: &Module<'_>, at: Vaddr) -> bool {
    module.summary.data().pointer_at(at) == Some(PointerTarget::Local(at))
}

/// Whether only instructions that name the variable at `slot` get at it, each at all of it or at none.
fn is_private(callers: &Callers<'_, '_>, id: ModuleId, slot: Vaddr) -> Option<bool> {
    let module = callers.program.module(id)?;
    let references = callers.references(id)?;
    let here = slot..slot.checked_add(8)?;
    let near = Vaddr(slot.0.saturating_sub(u64::from(u8::MAX)))..here.end;
    let functions = module.summary.functions();
    let reads_a_part = |function: FunctionId| {
        functions.function(function).is_none_or(|function| {
            function.references.iter().any(|reference| match reference.kind {
                ReferenceKind::Load(bytes) => {
                    let end = Vaddr(reference.target.0.saturating_add(u64::from(bytes)));
                    reference.target != slot && reference.target < here.end && slot < end
                }
                _ => false,
            })
        })
    };
    // Who has the address of the structure that it is a part of may read it, too. Without symbols that is whatever
    // begins before it; what has its address in data is looked at where it is loaded by name.
    let structure = module.summary.data().object_at(slot).start..here.end;
    let is_reached = |function: FunctionId| callers.reached.phase((id, function)).is_some();
    let is_other = |holder: &Vaddr| !is_handle(module, *holder);
    let mut holders = references.pointing_into(&structure).filter(is_other).flat_map(|at| references.loading(at));
    let is_held = holders.any(is_reached);
    let is_pointed = references.is_pointed_into(&(reaching(module, slot).start..here.end));
    let mut takers = references.taken_in(&structure).iter();
    let is_taken = takers.any(|&(at, taker)| is_reached(taker) && !is_empty_table(module, taker, at));
    let is_known = is_taken || is_held || is_pointed || is_exported(callers, id, slot);
    let is_filled = !module.summary.data().pointers_in(&here).is_empty();
    Some(!is_known && !is_filled && !references.accessing(&near).any(reads_a_part))
}

/// The reached functions that name a place.
fn takers(callers: &Callers<'_, '_>, id: ModuleId, place: Vaddr) -> Option<Vec<(FunctionKey, Source)>> {
    let references = callers.references(id)?;
    let here = place..place.checked_add(1)?;
    let takers: BTreeSet<FunctionId> = references.accessing(&here).chain(references.taking(&here)).collect();
    let reached = takers.into_iter().map(|taker| (id, taker)).filter(|key| callers.reached.phase(*key).is_some());
    Some(reached.map(|key| (key, Source::Target(place))).collect())
}

/// Where in data of its own file the address stands, words apart that code only loads: who does was looked at.
fn table_slots(module: &Module<'_>, references: &References, start: Vaddr) -> FxHashSet<Vaddr> {
    let data = module.summary.data();
    let is_read_by_name = |slot: Vaddr| {
        let object = data.object_at(slot);
        module.image.is_constant(slot)
            && !references.is_pointed_into(&object)
            && references.taking(&object).next().is_none()
    };
    let here = start..start.checked_add(1).unwrap_or(start);
    references.pointing_into(&here).filter(|&slot| !is_read_by_name(slot)).collect()
}

/// Whether a call may enter the function that starts at `start`.
fn may_enter(callers: &Callers<'_, '_>, caller: FunctionKey, site: &CallSite, start: Vaddr, depth: usize) -> bool {
    let is_callee =
        |atom: Atom, holder: ModuleId| holder == caller.0 && callers.program.address(holder, atom) == Some(start);
    let targets = callers.targets_of(caller, site, depth + 1);
    targets.is_none_or(|targets| targets.iter().any(|&(atom, (holder, _), _)| is_callee(atom, holder)))
}
