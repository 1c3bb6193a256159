//! Values that come from elsewhere: parameters are followed to the callers, variables to their stores.
//!
//! Input: values seen in reached functions. Output: [`Origins`]: the constants and addresses that they can be, each
//! with the place where it is written down, and the places where nobody knows (DESIGN section 3, rule 5). A wrapper
//! needs no name: a function whose parameter ends up as a system call's number is one, however many levels lie between,
//! and whether the number is passed in a register, on the stack, in a structure or in a variable.
//!
//! Over-approximates: a parameter is joined over all reached callers, a variable over all stores in its file. May miss:
//! stores to a variable through a pointer that is computed from another variable's address; calls from other files
//! through a table of functions that is no symbol.

use std::collections::BTreeSet;
use std::ops::Range;

use iced_x86::{Instruction, Mnemonic, OpKind};
use rustc_hash::FxHashSet;

use crate::address::Vaddr;
use crate::callers::Callers;
use crate::code::Code;
use crate::data::PointerTarget;
use crate::elf::SymbolKind;
use crate::evaluate::evaluate;
use crate::functions::{Function, FunctionId};
use crate::indirect_callers::uses::{Source, only_reads};
use crate::indirect_callers::{is_empty_table, is_handle, reaching};
use crate::instruction::{ReferenceKind, fixed_memory_operand};
use crate::program::{Module, ModuleId};
use crate::reachability::{FunctionKey, Node};
use crate::references::References;
use crate::registers::State;
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

/// A constant or an address, and the place that fixes it.
pub type Origin = (Atom, FunctionKey, Vaddr);

/// Where values come from.
#[derive(Debug, Default)]
pub struct Origins {
    /// What is known.
    pub known: Vec<Origin>,
    /// Places where the value is not known.
    pub unknown: Vec<(FunctionKey, Vaddr)>,
}

/// Values that wait to be followed, and those that were.
struct Search<'c, 'a, 'data> {
    callers: &'c Callers<'a, 'data>,
    work: Vec<Seen>,
    done: FxHashSet<(ModuleId, Option<FunctionKey>, Atom)>,
    found: Origins,
    /// How deep the question is nested: indirect callers ask for the origins of their targets.
    depth: usize,
}

/// So deep, indirect callers are not sought any more: the targets of indirect calls, and names.
const MAX_DEPTH: usize = 1;

/// So deep, what calls return is not followed any more.
const MAX_RESULTS: usize = 3;

/// More values are not followed for one answer, which is then that something is not known: a parameter of a function
/// whose address a large program may call from everywhere. Where an answer was found, 1,100 were enough.
const MOST_VALUES: u32 = 50_000;

/// Follows each value to where it is fixed, through tables of functions too.
#[must_use]
pub fn origins(callers: &Callers<'_, '_>, seen: Vec<Seen>) -> Origins {
    search(callers, seen, 0, |_| false)
}

/// Follows each value to where it is fixed, but not into functions that are called by address only.
#[must_use]
pub fn direct_origins(callers: &Callers<'_, '_>, seen: Vec<Seen>) -> Origins {
    search(callers, seen, MAX_DEPTH, |_| false)
}

/// All that a value can be, asked while another question is open; `None` as soon as something of it is not known.
pub(crate) fn nested(callers: &Callers<'_, '_>, seen: Seen, depth: usize) -> Option<Vec<Origin>> {
    let found = search(callers, vec![seen], depth, |found| !found.unknown.is_empty());
    found.unknown.is_empty().then_some(found.known)
}

fn search(callers: &Callers<'_, '_>, seen: Vec<Seen>, depth: usize, is_enough: impl Fn(&Origins) -> bool) -> Origins {
    let mut search = Search { callers, work: seen, done: FxHashSet::default(), found: Origins::default(), depth };
    let mut left = MOST_VALUES;
    while let Some(Seen { function, at, value }) = search.work.pop() {
        if is_enough(&search.found) {
            break;
        }
        left -= 1;
        if left == 0 {
            search.found.unknown.push((function, at));
            break;
        }
        match value.atoms() {
            None => search.found.unknown.push((function, at)),
            Some(atoms) => atoms.iter().for_each(|&atom| search.visit(atom, function, at)),
        }
    }
    let mut found = search.found;
    found.known.sort_unstable();
    found.known.dedup();
    found.unknown.sort_unstable();
    found.unknown.dedup();
    found
}

impl Search<'_, '_, '_> {
    fn visit(&mut self, atom: Atom, function: FunctionKey, at: Vaddr) {
        let local = matches!(atom, Atom::Parameter(_) | Atom::ParameterField(..)).then_some(function);
        let is_new = |search: &mut Self| search.done.insert((function.0, local, atom));
        let complete = match atom {
            Atom::Constant(_) | Atom::Address(_) => {
                self.found.known.push((atom, function, at));
                true
            }
            Atom::Frame(_) | Atom::FrameElement(..) | Atom::Element(..) => false,
            _ if !is_new(self) => true,
            Atom::Parameter(number) => self.follow_callers(function, number, &|value, _| Some(value)),
            Atom::ParameterField(number, offset) => {
                self.follow_callers(function, number, &|value, state| field(&value, offset, state))
            }
            Atom::Returned(call) => self.follow_result(function, call),
            Atom::Global(slot) => self.follow_stores(function.0, slot, &|value, _| Some(value)),
            Atom::GlobalField(slot, offset) => {
                self.follow_stores(function.0, slot, &|value, state| field(&value, offset, state))
            }
        };
        if !complete {
            self.found.unknown.push((function, at));
        }
    }

    /// Adds what each caller passes, through `see`; false if there may be callers that are not known.
    fn follow_callers(&mut self, function: FunctionKey, number: u16, see: See<'_>) -> bool {
        let (mut complete, mut any) = (true, false);
        let mut calls = Vec::new();
        for caller in self.callers.callers(function) {
            let found = self.callers.calls(caller, function);
            complete &= found.is_some();
            any |= found.is_some();
            calls.extend(found.into_iter().flatten().map(|site| (caller, site)));
        }
        if self.callers.reached.is_address_taken(function) {
            match self.callers.by_address(function, self.depth, self.depth < MAX_DEPTH) {
                // None at all is an answer too: nobody who is reached calls it.
                Some(found) => {
                    any = true;
                    calls.extend(found.iter().cloned());
                }
                None => complete = false,
            }
        }
        for (caller, site) in calls {
            any = true;
            match see(site.argument(number), &site.state) {
                Some(value) => self.work.push(Seen { function: caller, at: site.at, value }),
                None => complete = false,
            }
        }
        complete && any
    }

    /// Adds what a call returned: computed where its arguments tell, else what the callees return at all.
    fn follow_result(&mut self, caller: FunctionKey, at: Vaddr) -> bool {
        let site = self.callers.call_at(caller, at).filter(|_| self.depth < MAX_RESULTS);
        let callees = site.and_then(|site| Some((self.callers.callees(caller, &site, self.depth + 1)?, site)));
        let Some((callees, site)) = callees else { return false };
        let mut complete = true;
        for callee in callees {
            if let Some((atom, module)) = evaluate(self.callers, callee, (caller, &site), self.depth) {
                let holder = if module == caller.0 { caller } else { (module, FunctionId(0)) };
                self.found.known.push((atom, holder, at));
                continue;
            }
            match self.callers.results(callee) {
                Some(results) => self.work.extend(results.iter().map(|(at, value)| Seen {
                    function: callee,
                    at: *at,
                    value: value.clone(),
                })),
                None => complete = false,
            }
        }
        complete
    }

    /// Adds what the variable at `slot` holds at first and what is stored there; false if others may store too.
    fn follow_stores(&mut self, id: ModuleId, slot: Vaddr, see: See<'_>) -> bool {
        let Some(module) = self.callers.program.module(id) else { return false };
        if module.image.is_constant(slot) {
            return self.follow_initial((id, FunctionId(0)), slot, see);
        }
        let (Some(references), Some(code)) = (self.callers.references(id), self.callers.code(id)) else { return false };
        if self.is_shared(module, (id, slot), references) {
            return false;
        }
        // Where no symbol says where a structure begins, it may be a part of what begins before it. Go's compiler names the
        // parts of its variables each by itself.
        let near = module.summary.data().object_at(slot).start..reaching(module, slot).start;
        let is_apart = module.image.go_table().is_some() || !self.is_written_behind(module, id, &near, references);
        let bytes = width(module, references, slot);
        let near = Vaddr(slot.0.saturating_sub(WIDEST_STORE))..Vaddr(slot.0.saturating_add(8));
        let stores = self.callers.stores((id, slot), || {
            let mut found = Vec::new();
            // What is never reached never stores.
            let reached = |function: &FunctionId| self.callers.reached.phase((id, *function)).is_some();
            let holders: BTreeSet<FunctionId> = references.accessing(&near).filter(reached).collect();
            for function in holders {
                let body = module.summary.functions().function(function);
                let stores = body.map(|body| stores_in(&code, body, slot, bytes)).unwrap_or_default();
                found.extend(stores.into_iter().map(|(at, value, state)| ((id, function), at, value, state)));
            }
            found
        });
        let mut complete = is_apart;
        for (function, at, value, state) in stores.iter() {
            match see(value.clone(), state) {
                Some(value) => self.work.push(Seen { function: *function, at: *at, value }),
                None => complete = false,
            }
        }
        let holder = stores.first().map(|store| store.0);
        let place = holder.unwrap_or((id, FunctionId(0)));
        complete & self.follow_initial(place, slot, see)
    }

    /// Whether code that was not seen may write a variable: another file knows its name, or somebody has its address
    /// who does more with it than to read.
    fn is_shared(&self, module: &Module<'_>, (id, slot): (ModuleId, Vaddr), references: &References) -> bool {
        let here = reaching(module, slot);
        let is_pointed = || references.is_pointed_into(&here) && self.is_in_data(id, &here, module);
        is_exported(self.callers, id, slot) || is_pointed() || self.is_written_behind(module, id, &here, references)
    }

    /// Whether somebody who has an address in the range does more with it than to read. What has one in data is looked
    /// at where it is loaded by name; structures that hold it are not.
    fn is_written_behind(
        &self,
        module: &Module<'_>,
        id: ModuleId,
        range: &Range<Vaddr>,
        references: &References,
    ) -> bool {
        let functions = module.summary.functions();
        let Some(code) = self.callers.code(id) else { return true };
        let reads = |taker: FunctionId, source: Source| {
            let read_by = |call: &Instruction| self.callers.read_by(id, call);
            // What is never reached does nothing.
            let is_reached = self.callers.reached.phase((id, taker)).is_some();
            !is_reached || functions.function(taker).is_some_and(|f| only_reads(&code, f, source, &read_by))
        };
        let mut takers = references.taken_in(range).iter().filter(|(at, _)| !is_handle(module, *at));
        let is_written = |&(at, taker): &(Vaddr, FunctionId)| {
            !reads(taker, Source::Variable(at)) && !is_empty_table(module, taker, at)
        };
        let holders = references.pointing_into(range).filter(|slot| !is_handle(module, *slot));
        let mut held = holders.flat_map(|slot| references.loading(slot).map(move |taker| (taker, slot)));
        takers.any(is_written) || !held.all(|(taker, slot)| reads(taker, Source::Held(slot)))
    }

    /// Whether reached data of the file holds one of these addresses.
    fn is_in_data(&self, id: ModuleId, range: &Range<Vaddr>, module: &Module<'_>) -> bool {
        let data = module.summary.data();
        let points = |target| matches!(target, PointerTarget::Local(at) if range.contains(&at));
        let mut pointers = data.pointers().iter().filter(|p| points(p.target) && !p.is_linkage);
        pointers.any(|p| self.callers.reached.cause(Node::Object(id, data.object_number(p.slot))).is_some())
    }

    /// Adds what the file or the loader puts into the variable at `slot`; false if that is not known.
    fn follow_initial(&mut self, place: FunctionKey, slot: Vaddr, see: See<'_>) -> bool {
        let Some(module) = self.callers.program.module(place.0) else { return false };
        let mut targets = Vec::new();
        match module.summary.data().pointer_at(slot) {
            Some(PointerTarget::Local(at)) => targets.push((place, Value::One(Atom::Address(at)))),
            Some(PointerTarget::Symbol(index, addend)) => {
                for found in self.callers.program.bind(place.0, index) {
                    if found.kind == SymbolKind::IndirectFunction {
                        return false;
                    }
                    let at = Vaddr(found.address.0.wrapping_add_signed(addend));
                    let functions = self.callers.program.module(found.module).map(|m| m.summary.functions());
                    let function = functions.and_then(|functions| functions.at(at)).unwrap_or(FunctionId(0));
                    targets.push(((found.module, function), Value::One(Atom::Address(at))));
                }
            }
            Some(_) => return false,
            None => targets.push((place, Value::constant(module.image.read_u64(slot).unwrap_or(0)))),
        }
        let mut complete = true;
        for (function, target) in targets {
            match see(target, &State::unknown()) {
                Some(value) => self.work.push(Seen { function, at: slot, value }),
                None => complete = false,
            }
        }
        complete
    }
}

/// What to follow of a value that somebody passes or stores.
type See<'s> = &'s dyn Fn(Value, &State) -> Option<Value>;

/// What stands so many bytes behind an address; `None` if nobody knows.
fn field(address: &Value, offset: i64, state: &State) -> Option<Value> {
    let mut result = Value::Bottom;
    for &atom in address.atoms()? {
        let value = match atom {
            Atom::Frame(base) => state.frame_field(base, offset),
            Atom::Parameter(number) => Value::One(Atom::ParameterField(number, offset)),
            Atom::Global(slot) => Value::One(Atom::GlobalField(slot, offset)),
            Atom::Address(base) => Value::One(Atom::Global(Vaddr(base.0.checked_add_signed(offset)?))),
            // A null pointer is not followed at run time either.
            Atom::Constant(0) => Value::Bottom,
            _ => return None,
        };
        result = result.join(&value);
    }
    Some(result)
}

/// Whether another file may know the variable: it binds to its name, or a text that is reached says it.
pub(crate) fn is_exported(callers: &Callers<'_, '_>, id: ModuleId, slot: Vaddr) -> bool {
    let Some(module) = callers.program.module(id) else { return true };
    let exported = |symbol: &crate::elf::Symbol<'_>| {
        symbol.is_exported()
            && !symbol.is_function()
            && symbol.value <= slot
            && symbol.value.checked_add(symbol.size).is_some_and(|end| slot < end)
            // A program may export all that it has, to nobody.
            && (callers.program.is_bound_by_name(id, symbol.name) || callers.reached.says(symbol.name))
    };
    module.image.symbols().iter().any(exported)
}

/// How many bytes of a variable are read at once: 4, or 8 if that is not known.
fn width(module: &Module<'_>, references: &References, slot: Vaddr) -> u64 {
    let here = slot..slot.checked_add(1).unwrap_or(slot);
    let functions = module.summary.functions();
    let readers = references.accessing(&here).filter_map(|id| functions.function(id));
    let reads = readers.flat_map(|function| &function.references).filter(|r| r.target == slot);
    let is_narrow = |kind| !matches!(kind, ReferenceKind::Load(5..) | ReferenceKind::Address);
    let is_taken = references.taking(&here).next().is_some();
    if !is_taken && reads.map(|r| r.kind).all(is_narrow) { 4 } else { 8 }
}

/// A store may begin so many bytes before the variable and still write it (a vector register).
const WIDEST_STORE: u64 = 63;

/// The values that a function stores in the `bytes` at `slot`.
fn stores_in(code: &Code<'_, '_>, body: &Function, slot: Vaddr, bytes: u64) -> Vec<(Vaddr, Value, State)> {
    let mut found = Vec::new();
    code.observe(
        body,
        |i| writes(i, slot, bytes),
        |instruction, at, state| {
            let distance = fixed_memory_operand(instruction).and_then(|start| slot.checked_offset_from(start));
            let value =
                distance.map_or(Value::Top, |distance| state.stored_value(instruction, distance, &code.memory()));
            let low = |atom| match atom {
                Atom::Constant(number) if bytes == 4 => Atom::Constant(number & 0xffff_ffff),
                other => other,
            };
            let value = value.map(|atom| Some(low(atom)));
            found.push((at, value, state.clone()));
        },
    );
    found
}

/// Whether an instruction may write the variable.
fn writes(instruction: &Instruction, slot: Vaddr, bytes: u64) -> bool {
    use Mnemonic::{Bt, Call, Cmp, Jmp, Push, Test};
    let Some(start) = fixed_memory_operand(instruction).filter(|_| instruction.op0_kind() == OpKind::Memory) else {
        return false;
    };
    let size = u64::try_from(instruction.memory_size().size()).unwrap_or(u64::MAX);
    let overlaps = start.0 < slot.0.saturating_add(bytes) && slot.0 < start.0.saturating_add(size);
    overlaps && !matches!(instruction.mnemonic(), Bt | Call | Cmp | Jmp | Push | Test)
}
