//! The fixed point of [`crate::reachability`]: a worklist over functions and data objects.
//!
//! Input: a [`Program`], its [`Root`]s and its [`Surroundings`]. Output: [`Reachable`]. Each node is expanded once, or
//! twice if it is first reached in the earlier phase.
//!
//! Over-approximates: where the start of an array is uncertain (an index that does not begin at zero makes code refer
//! to addresses before it), the object behind a short gap counts too. May miss: arrays of which code knows the end
//! only.

use std::collections::VecDeque;
use std::ops::Range;
use std::rc::Rc;

use rustc_hash::{FxHashMap, FxHashSet};

use crate::address::Vaddr;
use crate::call_types::{CallTypes, Opened, Place};
use crate::data::PointerTarget;
use crate::elf::SymbolKind;
use crate::guards::{GuardId, Guards};
use crate::instruction::ReferenceKind;
use crate::program::{Definition, Module, ModuleId, Program};
use crate::reachability::{Cause, FunctionKey, Node, Phase, Reachable, Root};
use crate::visits::Visit;

/// Longer text is no file or symbol name.
const LONGEST_NAME: usize = 255;
/// An address so close before an object may be meant as the object, less an index.
const LARGEST_BIAS: u64 = 64;
/// Objects larger than this are not searched for names that nothing points to.
const LARGEST_NAME_TABLE: u64 = 64 * 1024;

/// What lies outside the program's own bytes.
pub trait Surroundings {
    /// The definitions that a look-up of `name` at run time can give, where the text stands in `holder`.
    fn look_up(&self, name: &[u8], holder: ModuleId) -> Vec<Definition>;
    /// Whether `name` is known to be looked up, and what it names called from there.
    fn is_looked_up(&self, name: &[u8]) -> bool;
    /// Whether `module` looks up names that are not known.
    fn looks_up_anything(&self, module: ModuleId) -> bool;
}

/// Computes the fixed point.
#[must_use]
pub fn solve<'data>(
    program: &Program<'data>,
    roots: &[Root],
    guards: &Guards,
    surroundings: &impl Surroundings,
) -> Reachable<'data> {
    solve_without(program, roots, guards, surroundings, None)
}

/// The same as if one function were not there: what else leads to what it leads to.
pub(crate) fn solve_without<'data>(
    program: &Program<'data>,
    roots: &[Root],
    guards: &Guards,
    surroundings: &impl Surroundings,
    without: Option<FunctionKey>,
) -> Reachable<'data> {
    let types = CallTypes::new(program);
    let mut solver = Solver {
        program,
        guards,
        surroundings,
        reached: Reachable::nothing(program),
        work: VecDeque::new(),
        open: FxHashSet::default(),
        held: Vec::new(),
        opened: types.as_ref().map(CallTypes::opened).unwrap_or_default(),
        types,
        waiting: Vec::new(),
        settled: program.modules().map(|(_, module)| vec![0; module.summary.functions().all().len()]).collect(),
        seen: FxHashSet::default(),
        bound: FxHashMap::default(),
    };
    for (id, function) in guards.functions() {
        solver.settle((id, function), GUARDED);
    }
    // What is settled is not reached again.
    if let Some(key) = without {
        solver.settle(key, AFTER | ADDRESS_TAKEN);
    }
    for root in roots {
        let (module, at) = root.at;
        let cause = Cause::Root(root.reason);
        if program.module(module).is_some_and(|m| m.image.is_code(at)) {
            solver.reach_code(
                module,
                at,
                Arrival { phase: root.phase, cause, address_taken: root.escapes, waits: None },
            );
        } else {
            solver.reach_data(module, at, cause);
        }
    }
    while let Some(node) = solver.work.pop_front() {
        match node {
            Node::Function(key) => solver.expand_function(key),
            Node::Object(module, start) => solver.expand_object(module, start),
        }
    }
    solver.reached.open = solver.open;
    solver.reached.closed = solver.held.iter().map(|(guard, ..)| *guard).collect();
    solver.reached
}

/// How a function is reached.
#[derive(Clone, Copy)]
struct Arrival {
    phase: Phase,
    cause: Cause,
    address_taken: bool,
    /// Where its address stands, if it is called by that only.
    waits: Option<Place>,
}

/// How a pointer is reached.
#[derive(Clone, Copy)]
struct Way {
    cause: Cause,
    place: Place,
}

struct Solver<'p, 'data, S> {
    program: &'p Program<'data>,
    guards: &'p Guards,
    surroundings: &'p S,
    reached: Reachable<'data>,
    work: VecDeque<Node>,
    /// Guards that something reached has opened.
    open: FxHashSet<GuardId>,
    /// What waits behind guards.
    held: Vec<(GuardId, FunctionKey, Arrival)>,
    /// Which functions can be called by their addresses, if compilers wrote it down.
    types: Option<CallTypes<'p, 'data>>,
    opened: Opened<'p>,
    /// What waits for a call of its type.
    waiting: Vec<(FunctionKey, Place, Arrival)>,
    /// What is known of each function, by module: most edges lead to one that no edge changes any more.
    settled: Vec<Vec<u8>>,
    /// Addresses of data that were looked at.
    seen: FxHashSet<(ModuleId, Vaddr)>,
    /// What symbols bind to.
    bound: FxHashMap<(ModuleId, u32), Rc<[Definition]>>,
}

/// A function is reached while the filter is on.
const AFTER: u8 = 1;
/// Its address is taken, too.
const ADDRESS_TAKEN: u8 = 2;
/// Guards may stand before it or be opened by it.
const GUARDED: u8 = 4;

impl<'p, 'data, S: Surroundings> Solver<'p, 'data, S> {
    fn module(&self, id: ModuleId) -> Option<&'p Module<'data>> {
        self.program.module(id)
    }

    fn expand_function(&mut self, key: FunctionKey) {
        let (id, function) = key;
        let Some(module) = self.module(id) else { return };
        let Some(function) = module.summary.functions().function(function) else { return };
        let Some(phase) = self.reached.phase(key) else { return };
        self.open_types(key);
        for reference in &function.references {
            let at = function.start.checked_add(u64::from(reference.from)).unwrap_or(function.start);
            let cause = Cause::Edge(Node::Function(key), at, reference.kind);
            let target = reference.target;
            match reference.kind {
                ReferenceKind::Call | ReferenceKind::Jump | ReferenceKind::JumpTable | ReferenceKind::LandingPad => {
                    self.reach_code(id, target, Arrival { phase, cause, address_taken: false, waits: None });
                }
                ReferenceKind::CallThrough => self.reach_through(id, target, phase, cause),
                ReferenceKind::Store => {}
                ReferenceKind::Load(bytes) => {
                    self.reach_loaded(id, target, bytes, Way { cause, place: Place::Code(key) })
                }
                // A label inside the function itself (a jump table in the text, a computed goto) is no new function.
                ReferenceKind::Address if function.contains(target) && target != function.start => {}
                ReferenceKind::Address => {
                    let way = Way { cause, place: Place::Code(key) };
                    self.reach_address(id, target, way);
                    self.reach_array(module, id, target, way);
                }
            }
        }
    }

    fn expand_object(&mut self, id: ModuleId, start: Vaddr) {
        let Some(module) = self.module(id) else { return };
        let data = module.summary.data();
        let range = data.object_at(start);
        let node = Node::Object(id, start);
        for pointer in data.pointers_in(&range).iter().filter(|p| !p.is_linkage) {
            let cause = Cause::Edge(node, pointer.slot, ReferenceKind::Address);
            self.reach_pointer(id, pointer.target, Way { cause, place: Place::Slot(id, pointer.slot) });
        }
        self.reach_copies(id, &range, Cause::Edge(node, start, ReferenceKind::Address));
        if self.surroundings.looks_up_anything(id) {
            self.reach_names_inside(module, id, &range);
        }
    }

    /// Names that stand in an object one after the other, without pointers to them. A number that happens to be an
    /// address of the table of the loader's names makes none of them one that the program says.
    fn reach_names_inside(&mut self, module: &Module<'data>, id: ModuleId, range: &Range<Vaddr>) {
        if module.image.is_in_string_table(range.start) {
            return;
        }
        let size = range.end.checked_offset_from(range.start).unwrap_or(0);
        let Some(bytes) = module.image.bytes(range.start, size).filter(|_| size <= LARGEST_NAME_TABLE) else { return };
        let cause = Cause::Edge(Node::Object(id, range.start), range.start, ReferenceKind::Address);
        for text in bytes.split(|&byte| byte == 0).filter(|text| is_name(text)) {
            self.reach_text(id, text, cause);
        }
    }

    /// The memory that an instruction reads.
    fn reach_loaded(&mut self, id: ModuleId, at: Vaddr, bytes: u8, way: Way) {
        let Some(module) = self.module(id) else { return };
        // A wide load may take in several pointers, a narrow one a part of a pointer.
        let range = Vaddr(at.0.saturating_sub(7))..Vaddr(at.0.saturating_add(u64::from(bytes)));
        for pointer in module.summary.data().pointers_in(&range) {
            let place = if pointer.is_linkage { way.place } else { Place::Slot(id, pointer.slot) };
            self.reach_pointer(id, pointer.target, Way { place, ..way });
        }
        self.reach_copies(id, &(at..range.end), way.cause);
    }

    /// Objects of other modules whose copies stand in a range.
    fn reach_copies(&mut self, id: ModuleId, range: &Range<Vaddr>, cause: Cause) {
        let Some(module) = self.module(id) else { return };
        for index in module.summary.data().copies_in(range) {
            self.reach_pointer(id, PointerTarget::Copy(index), Way { cause, place: Place::Elsewhere });
        }
    }

    fn reach_pointer(&mut self, id: ModuleId, target: PointerTarget, way: Way) {
        match target {
            PointerTarget::Local(at) => self.reach_address(id, at, way),
            PointerTarget::Resolver(at) => {
                self.reach_code(
                    id,
                    at,
                    Arrival { phase: Phase::After, cause: way.cause, address_taken: false, waits: None },
                );
            }
            PointerTarget::Symbol(index, addend) => {
                for &found in self.bind(id, index).iter() {
                    let at = found.address.0.checked_add_signed(addend).map_or(found.address, Vaddr);
                    self.reach_definition(Definition { address: at, ..found }, way);
                }
            }
            PointerTarget::Copy(index) => {
                for found in self.program.bind_copy(id, index) {
                    self.reach_definition(found, way);
                }
            }
            PointerTarget::TlsDescriptor => {
                for found in self.program.exported(b"__tls_get_addr", |_| true) {
                    self.reach_definition(found, Way { place: Place::Elsewhere, ..way });
                }
            }
        }
    }

    fn reach_definition(&mut self, found: Definition, way: Way) {
        if found.kind == SymbolKind::IndirectFunction {
            let arrival = Arrival { phase: Phase::After, cause: way.cause, address_taken: false, waits: None };
            self.reach_code(found.module, found.address, arrival);
        } else {
            self.reach_address(found.module, found.address, way);
        }
    }

    fn bind(&mut self, id: ModuleId, index: u32) -> Rc<[Definition]> {
        Rc::clone(self.bound.entry((id, index)).or_insert_with(|| self.program.bind(id, index).into()))
    }

    /// A call or jump through the pointer at `slot`.
    fn reach_through(&mut self, id: ModuleId, slot: Vaddr, phase: Phase, cause: Cause) {
        let Some(module) = self.module(id) else { return };
        let range = slot..slot.checked_add(1).unwrap_or(slot);
        let arrival = Arrival { phase, cause, address_taken: false, waits: None };
        if let Some(target) = module.summary.data().pointer_at(slot) {
            match target {
                PointerTarget::Local(at) | PointerTarget::Resolver(at) => self.reach_code(id, at, arrival),
                PointerTarget::Symbol(index, _) => {
                    for &found in self.bind(id, index).iter() {
                        self.reach_code(found.module, found.address, arrival);
                    }
                }
                PointerTarget::Copy(_) | PointerTarget::TlsDescriptor => {}
            }
        }
        self.reach_copies(id, &range, cause);
    }

    fn reach_address(&mut self, id: ModuleId, at: Vaddr, way: Way) {
        let Way { cause, place } = way;
        let Some(module) = self.module(id) else { return };
        if module.image.is_code(at) {
            self.reach_code(id, at, Arrival { phase: Phase::After, cause, address_taken: true, waits: Some(place) });
        }
        // An executable segment may hold data too (`-z noseparate-code`).
        if module.summary.functions().at(at).is_none() {
            self.reach_data(id, at, cause);
        }
    }

    /// What code may mean by the address of data, beyond the object that stands there.
    fn reach_array(&mut self, module: &Module<'data>, id: ModuleId, at: Vaddr, way: Way) {
        if module.summary.functions().at(at).is_some() {
            return;
        }
        let data = module.summary.data();
        let end = data.object_at(at).end;
        let is_short = end.checked_offset_from(at).is_some_and(|gap| gap <= LARGEST_BIAS);
        if is_short && data.pointers_in(&(at..end)).is_empty() {
            self.reach_data(id, end, way.cause);
        }
        // A table of distances from itself to functions.
        if module.image.is_constant(at) {
            let entries =
                std::iter::successors(Some(at), |entry| entry.checked_add(4)).take_while(|entry| *entry < end);
            let targets = entries.map_while(|entry| {
                let distance = module.image.read_i32(entry)?;
                let target = at.0.checked_add_signed(i64::from(distance)).map(Vaddr)?;
                module.summary.functions().starts_at(target).then_some(target)
            });
            for target in targets {
                self.reach_address(id, target, way);
            }
        }
    }

    fn reach_data(&mut self, id: ModuleId, at: Vaddr, cause: Cause) {
        let Some(module) = self.module(id).filter(|_| self.seen.insert((id, at))) else { return };
        let start = module.summary.data().object_at(at).start;
        self.reached.objects.entry((id, start)).or_insert_with(|| {
            self.work.push_back(Node::Object(id, start));
            cause
        });
        if let Some(text) = module.image.c_string_within(at, LONGEST_NAME).filter(|text| is_name(text)) {
            self.reach_text(id, text, cause);
        }
    }

    fn reach_text(&mut self, id: ModuleId, text: &'data [u8], cause: Cause) {
        let holders = self.reached.strings.entry(text).or_default();
        if !holders.contains(&id) {
            holders.push(id);
            for found in self.surroundings.look_up(text, id) {
                let is_code = self.module(found.module).is_some_and(|m| m.image.is_code(found.address));
                if is_code {
                    // Who looks it up may call it with any arguments. That nobody does so who looks up names that are not
                    // known is what the policy says of them.
                    let address_taken = self.surroundings.is_looked_up(text);
                    let arrival = Arrival { phase: Phase::After, cause, address_taken, waits: None };
                    self.reach_code(found.module, found.address, arrival);
                } else {
                    self.reach_definition(found, Way { cause, place: Place::Elsewhere });
                }
            }
        }
    }

    fn reach_code(&mut self, id: ModuleId, at: Vaddr, arrival: Arrival) {
        if let Some(function) = self.module(id).and_then(|m| m.summary.functions().at(at)) {
            self.reach_function((id, function), arrival);
        }
    }

    fn settle(&mut self, (id, function): FunctionKey, state: u8) {
        let module = usize::try_from(id.0).ok().and_then(|index| self.settled.get_mut(index));
        if let Some(known) = usize::try_from(function.0).ok().and_then(|index| module?.get_mut(index)) {
            *known |= state;
        }
    }

    /// Whether arriving at a function in this way changes nothing any more.
    fn is_settled(&self, (id, function): FunctionKey, arrival: &Arrival) -> bool {
        let module = usize::try_from(id.0).ok().and_then(|index| self.settled.get(index));
        let known = usize::try_from(function.0).ok().and_then(|index| module?.get(index)).copied().unwrap_or(0);
        let needed = if arrival.address_taken { AFTER | ADDRESS_TAKEN } else { AFTER };
        known & (needed | GUARDED) == needed
    }

    fn reach_function(&mut self, key: FunctionKey, arrival: Arrival) {
        if self.is_settled(key, &arrival) {
            return;
        }
        if let Some((types, place)) = self.types.as_ref().zip(arrival.waits)
            && !types.lets_in(key, place, &self.opened)
        {
            self.waiting.push((key, place, arrival));
            return;
        }
        let caller = match arrival.cause {
            Cause::Edge(Node::Function(caller), ..) => Some(caller),
            _ => None,
        };
        if let Some(guard) = self.guards.before(key, caller).filter(|guard| !self.open.contains(guard)) {
            self.held.push((guard, key, arrival));
            return;
        }
        self.open_guards(key, caller);
        let taken = if arrival.address_taken { ADDRESS_TAKEN } else { 0 };
        self.settle(key, if arrival.phase == Phase::After { AFTER | taken } else { taken });
        match self.reached.functions.get_mut(key) {
            Some(visit) => {
                visit.address_taken |= arrival.address_taken;
                if visit.phase >= arrival.phase {
                    return;
                }
                visit.phase = arrival.phase;
                visit.cause = arrival.cause;
            }
            None => {
                let Arrival { phase, cause, address_taken, .. } = arrival;
                self.reached.functions.insert(key, Visit { phase, cause, address_taken });
            }
        }
        self.work.push_back(Node::Function(key));
    }

    /// Lets in what waited for a call that `caller` makes.
    fn open_types(&mut self, caller: FunctionKey) {
        let Some(types) = &self.types else { return };
        if !types.open(caller, &mut self.opened) {
            return;
        }
        let (free, waiting): (Vec<_>, Vec<_>) = std::mem::take(&mut self.waiting)
            .into_iter()
            .partition(|(key, place, _)| types.lets_in(*key, *place, &self.opened));
        self.waiting = waiting;
        for (key, _, arrival) in free {
            self.reach_function(key, arrival);
        }
    }

    /// Lets in what waited for `key`.
    fn open_guards(&mut self, key: FunctionKey, caller: Option<FunctionKey>) {
        for guard in self.guards.opened_by(key, caller).filter(|guard| self.open.insert(*guard)).collect::<Vec<_>>() {
            let (free, held) = std::mem::take(&mut self.held).into_iter().partition(|(of, ..)| *of == guard);
            self.held = held;
            for (_, key, arrival) in free {
                self.reach_function(key, arrival);
            }
        }
    }
}

fn is_name(text: &[u8]) -> bool {
    !text.is_empty() && text.len() <= LONGEST_NAME && text.iter().all(u8::is_ascii_graphic)
}
