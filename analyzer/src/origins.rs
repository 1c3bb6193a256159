//! Values that come from elsewhere: parameters are followed to the callers, variables to their stores.
//!
//! Input: values seen in reached functions. Output: [`Origins`]: the constants and addresses that they can be, each with
//! the place where it is written down, and the places where nobody knows (DESIGN section 3, rule 5). A wrapper needs no
//! name: a function whose parameter ends up as a system call's number is one, however many levels lie between, and
//! whether the number is passed in a register, on the stack, in a structure or in a variable.
//!
//! Over-approximates: a parameter is joined over all reached callers, a variable over all stores in its file. May miss:
//! stores to a variable through a pointer that is computed from another variable's address; calls from other files
//! through a table of functions that is no symbol.

use iced_x86::{Instruction, Mnemonic, OpKind};
use rustc_hash::FxHashSet;

use crate::address::Vaddr;
use crate::callers::Callers;
use crate::data::PointerTarget;
use crate::dataflow;
use crate::functions::{Function, FunctionId};
use crate::indirect_callers;
use crate::instruction::{ReferenceKind, fixed_memory_operand};
use crate::program::{Module, ModuleId};
use crate::reachability::FunctionKey;
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

/// Where values come from.
#[derive(Debug, Default)]
pub struct Origins {
    /// Constants and addresses, each with the place that fixes it.
    pub known: Vec<(Atom, FunctionKey, Vaddr)>,
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

/// Follows each value to where it is fixed, through tables of functions too.
#[must_use]
pub fn origins(callers: &Callers<'_, '_>, seen: Vec<Seen>) -> Origins {
    nested(callers, seen, 0)
}

/// Follows each value to where it is fixed, but not into functions that are called by address only.
#[must_use]
pub fn direct_origins(callers: &Callers<'_, '_>, seen: Vec<Seen>) -> Origins {
    nested(callers, seen, MAX_DEPTH)
}

/// The same, asked while another question is open.
pub(crate) fn nested(callers: &Callers<'_, '_>, seen: Vec<Seen>, depth: usize) -> Origins {
    let mut search = Search { callers, work: seen, done: FxHashSet::default(), found: Origins::default(), depth };
    while let Some(Seen { function, at, value }) = search.work.pop() {
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
            Atom::Parameter(number) => self.from_callers(function, number, &|value, _| Some(value)),
            Atom::ParameterField(number, offset) => {
                self.from_callers(function, number, &|value, state| field(&value, offset, state))
            }
            Atom::Global(slot) => self.from_stores(function.0, slot, true, &|value, _| Some(value)),
            Atom::GlobalField(slot, offset) => {
                self.from_stores(function.0, slot, false, &|value, state| field(&value, offset, state))
            }
        };
        if !complete {
            self.found.unknown.push((function, at));
        }
    }

    /// Adds what each caller passes, through `see`; false if there may be callers that are not known.
    fn from_callers(
        &mut self,
        function: FunctionKey,
        number: u16,
        see: &dyn Fn(Value, &State) -> Option<Value>,
    ) -> bool {
        let mut complete = true;
        let mut any = false;
        let mut calls = Vec::new();
        for caller in self.callers.callers(function) {
            let found = self.callers.calls(caller, function);
            complete &= !found.is_empty();
            calls.extend(found.into_iter().map(|site| (caller, site)));
        }
        if self.callers.reached.is_address_taken(function) {
            let is_sought = self.depth < MAX_DEPTH;
            match is_sought.then(|| indirect_callers::find(self.callers, function, self.depth)).flatten() {
                // None at all is an answer too: nobody who is reached calls it.
                Some(found) => {
                    any = true;
                    calls.extend(found);
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

    /// Adds what the variable at `slot` holds at first and what is stored there; false if others may store too.
    fn from_stores(
        &mut self,
        id: ModuleId,
        slot: Vaddr,
        with_initial: bool,
        see: &dyn Fn(Value, &State) -> Option<Value>,
    ) -> bool {
        let Some(module) = self.callers.program.module(id) else { return false };
        if is_shared(module, slot) {
            return false;
        }
        let mut complete = true;
        let anywhere = (0_u32..).map(FunctionId).zip(module.summary.functions().all());
        let mut holder = None;
        for (function, body) in anywhere {
            let near = slot.0.saturating_sub(WIDEST_STORE)..slot.0.saturating_add(8);
            // What is never reached never stores.
            if self.callers.reached.phase((id, function)).is_none() {
                continue;
            }
            if body.references.iter().any(|r| near.contains(&r.target.0) && accesses(r.kind)) {
                for (at, value, state) in stores_in(module, body, slot) {
                    holder = Some((id, function));
                    match see(value, &state) {
                        Some(value) => self.work.push(Seen { function: (id, function), at, value }),
                        None => complete = false,
                    }
                }
            }
        }
        if let Some(initial) = initial(module, slot).filter(|_| with_initial) {
            let function = holder.unwrap_or((id, FunctionId(0)));
            self.work.push(Seen { function, at: slot, value: initial });
        }
        complete
    }
}

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

/// Whether code that was not seen may write the variable: its address is taken, or another file knows its name.
fn is_shared(module: &Module<'_>, slot: Vaddr) -> bool {
    let is_taken = |kind| kind == ReferenceKind::Address;
    let mut references = module.summary.functions().all().iter().flat_map(|f| &f.references);
    let exported = |symbol: &crate::elf::Symbol<'_>| {
        symbol.is_exported()
            && !symbol.is_function()
            && symbol.value <= slot
            && symbol.value.checked_add(symbol.size).is_some_and(|end| slot < end)
    };
    references.any(|r| r.target == slot && is_taken(r.kind)) || module.image.symbols().iter().any(exported)
}

/// The initial content of a variable: what the file or a relocation puts there, zero where the file has nothing.
fn initial(module: &Module<'_>, slot: Vaddr) -> Option<Value> {
    let behind = slot.checked_add(1)?;
    match module.summary.data().pointers_in(&(slot..behind)).first().map(|pointer| pointer.target) {
        Some(PointerTarget::Local(at)) => Some(Value::One(Atom::Address(at))),
        Some(_) => None,
        None => Some(Value::constant(module.image.read_u64(slot).unwrap_or(0))),
    }
}

/// A store may begin so many bytes before the variable and still write it (a vector register).
const WIDEST_STORE: u64 = 63;

/// A reference that may write.
fn accesses(kind: ReferenceKind) -> bool {
    matches!(kind, ReferenceKind::Store | ReferenceKind::Load(_))
}

/// The values that a function stores at `slot`.
fn stores_in(module: &Module<'_>, body: &Function, slot: Vaddr) -> Vec<(Vaddr, Value, State)> {
    let code = module.code();
    let (instructions, cfg) = code.control_flow(body);
    let mut found = Vec::new();
    dataflow::observe(
        &code.memory(),
        &instructions,
        &cfg,
        |i| writes(i, slot),
        |instruction, at, state| {
            let is_exact = fixed_memory_operand(instruction) == Some(slot);
            let value = if is_exact { state.stored_value(instruction, &code.memory()) } else { Value::Top };
            found.push((at, value, state.clone()));
        },
    );
    found
}

/// Whether an instruction may write the variable.
fn writes(instruction: &Instruction, slot: Vaddr) -> bool {
    use Mnemonic::{Bt, Call, Cmp, Jmp, Push, Test};
    let Some(start) = fixed_memory_operand(instruction).filter(|_| instruction.op0_kind() == OpKind::Memory) else {
        return false;
    };
    let size = u64::try_from(instruction.memory_size().size()).unwrap_or(u64::MAX);
    let overlaps = start.0 < slot.0.saturating_add(8) && slot.0 < start.0.saturating_add(size);
    overlaps && !matches!(instruction.mnemonic(), Bt | Call | Cmp | Jmp | Push | Test)
}
