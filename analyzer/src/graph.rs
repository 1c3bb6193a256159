//! What the functions and data objects of one file lead to.
//!
//! Input: functions with their references, data with its pointers. Output: [`Graph`]: edges whose ends are known by number,
//! as far as they stand in the same file; ends elsewhere are symbols, which a program binds. The fixed point
//! ([`crate::solver`]) goes along the same edges in every round and for every process, so each address is looked up once.
//!
//! Over-approximates: where the start of an array is uncertain (an index that does not begin at zero makes code refer to
//! addresses before it), the object behind a short gap counts too. May miss: arrays of which code knows the end only.

use rayon::prelude::*;
use rustc_hash::FxHashSet;

use crate::address::Vaddr;
use crate::data::{Data, Pointer, PointerTarget};
use crate::edge::{Edge, PackedEdge, Stands, To};
use crate::elf::Image;
use crate::functions::{Function, FunctionId, Functions};
use crate::instruction::{Reference, ReferenceKind};
use crate::limits::{Budget, Excess};

/// Longer text is no file or symbol name.
const LONGEST_NAME: usize = 255;
/// An address so close before an object may be meant as the object, less an index.
const LARGEST_BIAS: u64 = 64;
/// Functions that one thread looks at before it asks for more.
const BATCH: usize = 512;

/// Edges of many nodes, one node after the other.
#[derive(Debug, Default)]
struct Edges {
    /// By node, how many edges stand before its own; one more for all.
    first: Vec<usize>,
    edges: Vec<PackedEdge>,
}

impl Edges {
    fn of(&self, node: u32) -> impl Iterator<Item = Edge> + Clone + use<'_> {
        let bound = |node: usize| self.first.get(node).copied();
        let node = usize::try_from(node).unwrap_or(usize::MAX);
        let range = bound(node).zip(bound(node.saturating_add(1)));
        let found = range.and_then(|(first, behind)| self.edges.get(first..behind)).unwrap_or(&[]);
        found.iter().map(|edge| Edge::from(*edge))
    }

    fn renumber_names(&mut self, numbers: &[u32]) {
        self.edges.par_iter_mut().for_each(|edge| {
            if let Some(number) = edge.name_mut() {
                let new = usize::try_from(*number).ok().and_then(|number| numbers.get(number));
                *number = new.copied().unwrap_or(u32::MAX);
            }
        });
    }
}

/// The edges of one file.
#[derive(Debug)]
pub(crate) struct Graph {
    functions: Edges,
    objects: Edges,
    names: Vec<Vaddr>,
    excess: Option<Excess>,
}

impl Graph {
    /// Looks up the ends of all references and pointers.
    pub(crate) fn new(image: &Image<'_>, functions: &Functions, data: &Data) -> Self {
        let shared = "entries of tables and copied objects, which several references share";
        let shared = Budget::new(shared, image.size() / 8, image.limits());
        let file = File { image, functions, data, shared: &shared };
        let mut names = Vec::new();
        let of_functions: Vec<Part> =
            functions.all().par_chunks(BATCH).map(|batch| Part::new(&file, batch, Part::add_function)).collect();
        let numbers: Vec<u32> = (0..=u32::try_from(data.object_count()).unwrap_or(u32::MAX)).collect();
        let of_objects: Vec<Part> =
            numbers.par_chunks(BATCH).map(|batch| Part::new(&file, batch, Part::add_object)).collect();
        let (mut functions, mut objects) = (join(of_functions, &mut names), join(of_objects, &mut names));
        let mut each: Vec<Vaddr> = names.clone();
        each.par_sort_unstable();
        each.dedup();
        let number = |at: &Vaddr| u32::try_from(each.partition_point(|other| other < at)).unwrap_or(u32::MAX);
        let numbers: Vec<u32> = names.par_iter().map(number).collect();
        functions.renumber_names(&numbers);
        objects.renumber_names(&numbers);
        Self { functions, objects, names: each, excess: shared.excess() }
    }

    /// The limit that the file goes beyond: these are not all edges then.
    pub(crate) const fn excess(&self) -> Option<Excess> {
        self.excess
    }

    /// The edges from a function.
    pub(crate) fn of_function(&self, id: FunctionId) -> impl Iterator<Item = Edge> + Clone + use<'_> {
        self.functions.of(id.0)
    }

    /// The edges from a data object.
    pub(crate) fn of_object(&self, number: u32) -> impl Iterator<Item = Edge> + use<'_> {
        self.objects.of(number)
    }

    /// Names that edges lead to, zero-terminated.
    pub(crate) fn names(&self) -> &[Vaddr] {
        &self.names
    }
}

/// Whether a text may name a file or a symbol.
pub(crate) fn is_name(text: &[u8]) -> bool {
    !text.is_empty() && text.len() <= LONGEST_NAME && text.iter().all(u8::is_ascii_graphic)
}

/// The name that stands at an address.
pub(crate) fn name_at<'data>(image: &Image<'data>, at: Vaddr) -> Option<&'data [u8]> {
    image.c_string_within(at, LONGEST_NAME).filter(|text| is_name(text))
}

/// Puts parts together; their names get the numbers that they have in `names`.
fn join(parts: Vec<Part>, names: &mut Vec<Vaddr>) -> Edges {
    let count = parts.iter().map(|part| part.edges.len()).fold(0, usize::saturating_add);
    let mut all = Edges { first: vec![0], edges: Vec::with_capacity(count) };
    for mut part in parts {
        let before = u32::try_from(names.len()).unwrap_or(u32::MAX);
        names.append(&mut part.names);
        for edge in &mut part.edges {
            if let Some(number) = edge.name_mut() {
                *number = number.saturating_add(before);
            }
        }
        let behind = all.edges.len();
        all.first.extend(part.ends.iter().map(|end| behind.saturating_add(*end)));
        all.edges.append(&mut part.edges);
    }
    all
}

struct File<'f, 'data> {
    image: &'f Image<'data>,
    functions: &'f Functions,
    data: &'f Data,
    /// What one place can make many edges of.
    shared: &'f Budget,
}

/// The edges of some nodes.
#[derive(Default)]
struct Part {
    edges: Vec<PackedEdge>,
    /// By node, how many edges there are up to its last one.
    ends: Vec<usize>,
    names: Vec<Vaddr>,
    /// What the node at hand has already.
    seen: FxHashSet<(To, Stands)>,
    seen_names: FxHashSet<Vaddr>,
}

/// How an edge begins.
#[derive(Clone, Copy)]
struct Origin {
    kind: ReferenceKind,
    stands: Stands,
}

impl Part {
    fn new<T>(file: &File<'_, '_>, nodes: &[T], add: impl Fn(&mut Self, &File<'_, '_>, &T)) -> Self {
        let mut part = Self::default();
        for node in nodes {
            part.seen.clear();
            part.seen_names.clear();
            add(&mut part, file, node);
            part.ends.push(part.edges.len());
        }
        part
    }

    fn add_function(&mut self, file: &File<'_, '_>, function: &Function) {
        for reference in &function.references {
            self.add_reference(file, function, *reference);
        }
    }

    fn add_reference(&mut self, file: &File<'_, '_>, function: &Function, reference: Reference) {
        let Reference { target, kind, .. } = reference;
        let origin = Origin { kind, stands: Stands::Here };
        match kind {
            ReferenceKind::Call | ReferenceKind::Jump | ReferenceKind::JumpTable | ReferenceKind::LandingPad => {
                self.enter(file, target, origin);
            }
            ReferenceKind::CallThrough => self.call_through(file, target, origin),
            ReferenceKind::Store => {}
            ReferenceKind::Load(bytes) => self.load(file, target, bytes, origin),
            // A label inside the function itself (a jump table in the text, a computed goto) is no new function.
            ReferenceKind::Address if function.contains(target) && target != function.start => {}
            ReferenceKind::Address => {
                self.take(file, target, origin);
                self.take_array(file, target, origin);
            }
        }
    }

    /// All pointers of an object, but for entries of the global offset table, which belong to none.
    fn add_object(&mut self, file: &File<'_, '_>, number: &u32) {
        let range = file.data.object(*number);
        for (pointer, index) in file.data.numbered_pointers_in(&range).filter(|(p, _)| !p.is_linkage) {
            let origin = Origin { kind: ReferenceKind::Address, stands: Stands::Pointer(index) };
            self.follow(file, (pointer, index), origin);
        }
        let origin = Origin { kind: ReferenceKind::Address, stands: Stands::Elsewhere };
        self.copies(file, &range, origin);
    }

    fn add(&mut self, to: To, origin: Origin) {
        let Origin { kind, stands } = origin;
        if self.seen.insert((to, stands)) {
            self.edges.push(Edge { to, stands, kind }.into());
        }
    }

    fn enter(&mut self, file: &File<'_, '_>, at: Vaddr, origin: Origin) {
        if let Some(function) = file.functions.at(at) {
            self.add(To::Entered(function), origin);
        }
    }

    /// A call or jump through the pointer at `slot`.
    fn call_through(&mut self, file: &File<'_, '_>, slot: Vaddr, origin: Origin) {
        let range = slot..slot.checked_add(1).unwrap_or(slot);
        for (pointer, index) in file.data.numbered_pointers_in(&range) {
            match pointer.target {
                PointerTarget::Local(at) | PointerTarget::Resolver(at) => self.enter(file, at, origin),
                PointerTarget::Symbol(..) => self.add(To::Imported(index), origin),
                PointerTarget::Copy(_) | PointerTarget::TlsDescriptor => {}
            }
        }
        self.copies(file, &range, origin);
    }

    /// The memory that an instruction reads.
    fn load(&mut self, file: &File<'_, '_>, at: Vaddr, bytes: u8, origin: Origin) {
        // A wide load may take in several pointers, a narrow one a part of a pointer.
        let range = Vaddr(at.0.saturating_sub(7))..Vaddr(at.0.saturating_add(u64::from(bytes)));
        for (pointer, index) in file.data.numbered_pointers_in(&range) {
            let stands = if pointer.is_linkage { origin.stands } else { Stands::Pointer(index) };
            self.follow(file, (pointer, index), Origin { stands, ..origin });
        }
        self.copies(file, &(at..range.end), origin);
    }

    /// Objects of other modules whose copies stand in a range.
    fn copies(&mut self, file: &File<'_, '_>, range: &std::ops::Range<Vaddr>, origin: Origin) {
        for index in file.data.copies_in(range).take_while(|_| file.shared.take(1)) {
            self.add(To::Copy(index), Origin { stands: Stands::Elsewhere, ..origin });
        }
    }

    fn follow(&mut self, file: &File<'_, '_>, (pointer, index): (&Pointer, u32), origin: Origin) {
        match pointer.target {
            PointerTarget::Local(at) => self.take(file, at, origin),
            PointerTarget::Resolver(at) => {
                if let Some(function) = file.functions.at(at) {
                    self.add(To::Resolver(function), origin);
                }
            }
            PointerTarget::Symbol(..) => self.add(To::Symbol(index), origin),
            PointerTarget::Copy(symbol) => self.add(To::Copy(symbol), origin),
            PointerTarget::TlsDescriptor => self.add(To::TlsDescriptor, origin),
        }
    }

    /// An address that somebody may use.
    fn take(&mut self, file: &File<'_, '_>, at: Vaddr, origin: Origin) {
        match file.functions.at(at) {
            Some(function) if file.image.is_code(at) => self.add(To::Taken(function), origin),
            Some(_) => {}
            // An executable segment may hold data too (`-z noseparate-code`).
            None => self.take_data(file, at, origin),
        }
    }

    fn take_data(&mut self, file: &File<'_, '_>, at: Vaddr, origin: Origin) {
        self.add(To::Object(file.data.object_number(at)), origin);
        if name_at(file.image, at).is_some() && self.seen_names.insert(at) {
            let number = u32::try_from(self.names.len()).unwrap_or(u32::MAX);
            self.names.push(at);
            self.add(To::Name(number), origin);
        }
    }

    /// What code may mean by the address of data, beyond the object that stands there.
    fn take_array(&mut self, file: &File<'_, '_>, at: Vaddr, origin: Origin) {
        if file.functions.at(at).is_some() {
            return;
        }
        let end = file.data.object_at(at).end;
        let is_short = end.checked_offset_from(at).is_some_and(|gap| gap <= LARGEST_BIAS);
        if is_short && file.data.pointers_in(&(at..end)).is_empty() {
            self.take_data(file, end, origin);
        }
        // A table of distances from itself to functions.
        if file.image.is_constant(at) {
            let entries =
                std::iter::successors(Some(at), |entry| entry.checked_add(4)).take_while(|entry| *entry < end);
            let targets = entries.map_while(|entry| {
                let distance = file.image.read_i32(entry)?;
                let target = at.0.checked_add_signed(i64::from(distance)).map(Vaddr)?;
                file.functions.starts_at(target).then_some(target)
            });
            for target in targets.take_while(|_| file.shared.take(1)) {
                self.take(file, target, origin);
            }
        }
    }
}
