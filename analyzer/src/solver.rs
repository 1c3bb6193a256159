//! The fixed point of [`crate::reachability`]: a worklist over functions and data objects.
//!
//! Input: a [`Program`], its [`Root`]s and its [`Surroundings`]. Output: [`Reachable`]. Each node is expanded once, or
//! twice if it is first reached in the earlier phase.
//!
//! Over-approximates, and may miss: what `graph.rs` names.

use std::collections::VecDeque;
use std::ops::Range;
use std::rc::Rc;

use rustc_hash::{FxHashMap, FxHashSet};

use crate::address::Vaddr;
use crate::call_types::{CallTypes, Opened, Place};
use crate::data::{Pointer, PointerTarget};
use crate::edge::{Edge, Stands, To};
use crate::elf::SymbolKind;
use crate::graph::{Graph, is_name, name_at};
use crate::guards::{GuardId, Guards};
use crate::instruction::ReferenceKind;
use crate::program::{Definition, Module, ModuleId, Program};
use crate::reachability::{Cause, FunctionKey, Node, Phase, Reachable, Root, Visit};

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
        graphs: program.modules().map(|(_, module)| module.summary.graph(&module.image)).collect(),
        work: VecDeque::new(),
        open: FxHashSet::default(),
        held: Vec::new(),
        opened: types.as_ref().map(CallTypes::opened).unwrap_or_default(),
        types,
        waiting: Vec::new(),
        settled: program.modules().map(|(_, module)| vec![0; module.summary.functions().all().len()]).collect(),
        seen_names: Vec::new(),
        seen_texts: FxHashSet::default(),
        seen: FxHashSet::default(),
        bound: FxHashMap::default(),
    };
    solver.seen_names = solver.graphs.iter().map(|graph| vec![false; graph.names().len()]).collect();
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
            Node::Object(module, number) => solver.expand_object(module, number),
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

impl Way {
    /// Who has the address may call it whenever it likes.
    const fn to_address(self) -> Arrival {
        Arrival { phase: Phase::After, cause: self.cause, address_taken: true, waits: Some(self.place) }
    }
}

/// Where an edge begins.
#[derive(Clone, Copy)]
struct Step {
    node: Node,
    /// Where an address stands that stands in the node itself.
    here: Place,
    phase: Phase,
}

struct Solver<'p, 'data, S> {
    program: &'p Program<'data>,
    guards: &'p Guards,
    surroundings: &'p S,
    /// By module.
    graphs: Vec<&'p Graph>,
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
    /// Names that were looked at, by module and number.
    seen_names: Vec<Vec<bool>>,
    /// Texts that were found in objects: large programs say the same over and over.
    seen_texts: FxHashSet<(ModuleId, &'data [u8])>,
    /// Addresses of data that symbols and roots have led to.
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

    fn graph(&self, id: ModuleId) -> Option<&'p Graph> {
        usize::try_from(id.0).ok().and_then(|index| self.graphs.get(index)).copied()
    }

    fn expand_function(&mut self, key: FunctionKey) {
        let Some((graph, phase)) = self.graph(key.0).zip(self.reached.phase(key)) else { return };
        let node = Node::Function(key);
        self.open_types(key);
        for edge in graph.of_function(key.1) {
            self.go(Step { node, here: Place::Code(key), phase }, edge);
        }
    }

    fn expand_object(&mut self, id: ModuleId, number: u32) {
        let (Some(module), Some(graph)) = (self.module(id), self.graph(id)) else { return };
        let node = Node::Object(id, number);
        for edge in graph.of_object(number) {
            self.go(Step { node, here: Place::Elsewhere, phase: Phase::After }, edge);
        }
        if self.surroundings.looks_up_anything(id) {
            self.reach_names_inside(module, node, &module.summary.data().object(number));
        }
    }

    /// Whether going along an edge changes nothing any more, as for most: asked before anything else.
    fn is_behind(&self, id: ModuleId, to: To) -> bool {
        match to {
            To::Entered(function) => self.is_settled((id, function), AFTER),
            To::Taken(function) => self.is_settled((id, function), AFTER | ADDRESS_TAKEN),
            To::Object(number) => self.reached.objects.get(id, number).is_some(),
            _ => false,
        }
    }

    /// Goes along one edge.
    fn go(&mut self, step: Step, edge: Edge) {
        let (Node::Function((id, _)) | Node::Object(id, _)) = step.node;
        if self.is_behind(id, edge.to) {
            return;
        }
        let cause = Cause::Edge(step.node, edge.kind);
        let slot = |number: u32| self.pointer(id, number).map_or(Place::Elsewhere, |p| Place::Slot(id, p.slot));
        let place = match edge.stands {
            Stands::Here => step.here,
            Stands::Elsewhere => Place::Elsewhere,
            // Only types ask for it.
            Stands::Pointer(number) if self.types.is_some() => slot(number),
            Stands::Pointer(_) => Place::Elsewhere,
        };
        let way = Way { cause, place };
        let called = Arrival { phase: step.phase, cause, address_taken: false, waits: None };
        match edge.to {
            To::Entered(function) => self.reach_function((id, function), called),
            To::Taken(function) => self.reach_function((id, function), way.to_address()),
            To::Resolver(function) => self.reach_function((id, function), Arrival { phase: Phase::After, ..called }),
            To::Object(number) => self.reach_object(id, number, cause),
            To::Name(number) => self.reach_name(id, number, cause),
            To::Symbol(number) => self.reach_symbol(id, number, way),
            To::Imported(number) => self.reach_imported(id, number, called),
            To::Copy(symbol) => {
                for found in self.program.bind_copy(id, symbol) {
                    self.reach_definition(found, way);
                }
            }
            To::TlsDescriptor => {
                for found in self.program.exported(b"__tls_get_addr", |_| true) {
                    self.reach_definition(found, Way { place: Place::Elsewhere, ..way });
                }
            }
        }
    }

    fn pointer(&self, id: ModuleId, number: u32) -> Option<&'p Pointer> {
        self.module(id)?.summary.data().pointers().get(usize::try_from(number).ok()?)
    }

    /// What a pointer to a symbol points to.
    fn reach_symbol(&mut self, id: ModuleId, pointer: u32, way: Way) {
        let target = self.pointer(id, pointer).map(|pointer| pointer.target);
        let Some(PointerTarget::Symbol(index, addend)) = target else { return };
        for &found in self.bind(id, index).iter() {
            let at = found.address.0.checked_add_signed(addend).map_or(found.address, Vaddr);
            self.reach_definition(Definition { address: at, ..found }, way);
        }
    }

    /// What a call through a pointer to a symbol enters.
    fn reach_imported(&mut self, id: ModuleId, pointer: u32, arrival: Arrival) {
        let target = self.pointer(id, pointer).map(|pointer| pointer.target);
        let Some(PointerTarget::Symbol(index, _)) = target else { return };
        for &found in self.bind(id, index).iter() {
            self.reach_code(found.module, found.address, arrival);
        }
    }

    /// Names that stand in an object one after the other, without pointers to them. A number that happens to be an
    /// address of the table of the loader's names makes none of them one that the program says.
    fn reach_names_inside(&mut self, module: &Module<'data>, node: Node, range: &Range<Vaddr>) {
        if module.image.is_in_string_table(range.start) {
            return;
        }
        let size = range.end.checked_offset_from(range.start).unwrap_or(0);
        let Some(bytes) = module.image.bytes(range.start, size).filter(|_| size <= LARGEST_NAME_TABLE) else { return };
        let (Node::Function((id, _)) | Node::Object(id, _)) = node;
        let cause = Cause::Edge(node, ReferenceKind::Address);
        for text in bytes.split(|&byte| byte == 0).filter(|text| is_name(text)) {
            if self.seen_texts.insert((id, text)) {
                self.reach_text(id, text, cause);
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

    /// An address that a symbol has.
    fn reach_address(&mut self, id: ModuleId, at: Vaddr, way: Way) {
        let Some(module) = self.module(id) else { return };
        match module.summary.functions().at(at) {
            Some(function) if module.image.is_code(at) => self.reach_function((id, function), way.to_address()),
            Some(_) => {}
            None => self.reach_data(id, at, way.cause),
        }
    }

    fn reach_data(&mut self, id: ModuleId, at: Vaddr, cause: Cause) {
        let Some(module) = self.module(id).filter(|_| self.seen.insert((id, at))) else { return };
        self.reach_object(id, module.summary.data().object_number(at), cause);
        if let Some(text) = name_at(&module.image, at) {
            self.reach_text(id, text, cause);
        }
    }

    fn reach_object(&mut self, id: ModuleId, number: u32, cause: Cause) {
        if self.reached.objects.insert(id, number, cause) {
            self.work.push_back(Node::Object(id, number));
        }
    }

    fn reach_name(&mut self, id: ModuleId, number: u32, cause: Cause) {
        let (module, name) =
            (usize::try_from(id.0).unwrap_or(usize::MAX), usize::try_from(number).unwrap_or(usize::MAX));
        let seen = self.seen_names.get_mut(module).and_then(|names| names.get_mut(name));
        if seen.is_none_or(|seen| std::mem::replace(seen, true)) {
            return;
        }
        let at = self.graph(id).and_then(|graph| graph.names().get(name));
        let text = at.zip(self.module(id)).and_then(|(at, module)| name_at(&module.image, *at));
        if let Some(text) = text {
            self.reach_text(id, text, cause);
        }
    }

    fn reach_text(&mut self, id: ModuleId, text: &'data [u8], cause: Cause) {
        self.reached.strings.push((text, id));
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

    /// Whether a function is reached in all ways that are needed, so that arriving in these changes nothing any more.
    fn is_settled(&self, (id, function): FunctionKey, needed: u8) -> bool {
        let module = usize::try_from(id.0).ok().and_then(|index| self.settled.get(index));
        let known = usize::try_from(function.0).ok().and_then(|index| module?.get(index)).copied().unwrap_or(0);
        known & (needed | GUARDED) == needed
    }

    fn reach_function(&mut self, key: FunctionKey, arrival: Arrival) {
        if self.is_settled(key, if arrival.address_taken { AFTER | ADDRESS_TAKEN } else { AFTER }) {
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
        match self.reached.functions.get_mut(key.0, key.1.0) {
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
                self.reached.functions.insert(key.0, key.1.0, Visit { phase, cause, address_taken });
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
