//! Types of functions, those that are one to the source joined.
//!
//! Input: the notes of all modules. Output: [`Classes`].

use std::collections::BTreeMap;

use rustc_hash::{FxHashMap, FxHashSet};

use super::Opened;
use super::bodies::has_its_name;
use crate::address::Vaddr;
use crate::program::Program;

/// A set of types that are one to the source.
pub(super) type Class = u32;

/// What functions of the types of one class return. One without a parameter list is compatible with every other one
/// that returns the same (C17 6.7.6.3).
#[derive(Debug, Default)]
pub(super) struct Results<'p> {
    pub(super) unprototyped: FxHashSet<&'p str>,
    pub(super) all: FxHashSet<&'p str>,
}

impl Results<'_> {
    pub(super) fn may_be_called(&self, opened: &Opened<'_>) -> bool {
        self.unprototyped.iter().any(|result| opened.returned.contains(result))
            || self.all.iter().any(|result| opened.unprototyped.contains(result))
    }
}

/// How a function is known by name, in all modules.
#[derive(Debug, Default)]
pub(super) struct Seen {
    kinds: Vec<Class>,
    is_data: bool,
    is_number: bool,
    /// How many sources use its address.
    sources: usize,
}

/// How a function may be called by its address.
#[derive(Clone, Debug, Default)]
pub(super) struct Uses {
    /// The types.
    pub(super) own: Vec<Class>,
    /// As a pointer to data.
    pub(super) is_data: bool,
    /// In a way that is not known.
    pub(super) is_number: bool,
    /// As a handler of signals.
    pub(super) is_handler: bool,
}

/// The types of a program, those that are one joined.
#[derive(Debug, Default)]
pub(super) struct Classes<'p> {
    numbers: FxHashMap<&'p str, Class>,
    pub(super) from_data: FxHashSet<Class>,
    pub(super) to_data: FxHashSet<Class>,
    pub(super) handlers: FxHashSet<Class>,
    pub(super) seen: BTreeMap<&'p str, Seen>,
}

impl<'p> Classes<'p> {
    pub(super) fn new(program: &'p Program<'_>) -> Self {
        let mut joined = Joined::default();
        let modules = || program.modules().flat_map(|(_, module)| &module.summary.notes().modules);
        for note in program.modules().flat_map(|(_, module)| &module.summary.notes().functions) {
            joined.number(&note.kind);
            let handed = note.handed.iter().map(|handed| &handed.kind);
            note.indirect.iter().chain(handed).for_each(|kind| _ = joined.number(kind));
        }
        for note in modules() {
            let single = note.from_data.iter().chain(&note.to_data).chain(note.seen.iter().flat_map(|s| &s.kinds));
            single.for_each(|kind| _ = joined.number(kind));
            note.callers.iter().flat_map(|caller| &caller.kinds).for_each(|kind| _ = joined.number(kind));
            for (one, other) in &note.united {
                joined.join(one, other);
            }
        }
        let mut classes = Self { numbers: joined.classes(), ..Self::default() };
        for note in modules() {
            classes.from_data.extend(note.from_data.iter().map(|kind| Self::class(&classes.numbers, kind)));
            classes.to_data.extend(note.to_data.iter().map(|kind| Self::class(&classes.numbers, kind)));
            for function in &note.seen {
                let kinds = function.kinds.iter().map(|kind| Self::class(&classes.numbers, kind));
                let seen = classes.seen.entry(&function.name).or_default();
                seen.kinds.extend(kinds);
                seen.is_data |= function.is_data;
                seen.is_number |= function.is_number;
                seen.sources = seen.sources.saturating_add(1);
            }
        }
        classes.handlers = classes.numbers.iter().filter(|(kind, _)| is_handler(kind)).map(|(_, c)| *c).collect();
        classes
    }

    pub(super) fn results(&self) -> FxHashMap<Class, Results<'p>> {
        let mut results: FxHashMap<Class, Results<'p>> = FxHashMap::default();
        for (&kind, &class) in &self.numbers {
            let Some((result, parameters)) = kind.split_once(" (") else { continue };
            let entry = results.entry(class).or_default();
            entry.all.insert(result);
            if parameters == "...)" {
                entry.unprototyped.insert(result);
            }
        }
        results
    }

    fn class(numbers: &FxHashMap<&'p str, Class>, kind: &str) -> Class {
        numbers.get(kind).copied().unwrap_or(Class::MAX)
    }

    /// Takes in that a function has a type.
    pub(super) fn add(&self, uses: &mut Uses, kind: &str) {
        self.add_class(uses, self.of(kind));
    }

    fn add_class(&self, uses: &mut Uses, class: Class) {
        uses.own.push(class);
        uses.is_data |= self.to_data.contains(&class);
        uses.is_handler |= self.handlers.contains(&class);
    }

    /// Takes in how a function is known by one of its names.
    pub(super) fn add_seen(&self, uses: &mut Uses, seen: &Seen) {
        seen.kinds.iter().for_each(|&class| self.add_class(uses, class));
        uses.is_data |= seen.is_data;
        uses.is_number |= seen.is_number;
    }

    /// The names of functions without a note whose addresses notes have, with what is known of them.
    pub(super) fn strangers(
        &self,
        noted: &NotedNames<'p>,
        program: &'p Program<'_>,
    ) -> FxHashMap<&'p str, Option<Uses>> {
        let notes = || program.modules().map(|(_, module)| module.summary.notes());
        let in_code = notes().flat_map(|notes| notes.functions.iter().flat_map(|note| &note.taken));
        let in_data = notes().flat_map(|notes| notes.variables.iter().flat_map(|note| &note.taken));
        let mut strangers = FxHashMap::default();
        for name in in_code.chain(in_data) {
            let seen = self.seen.get(name.as_str());
            if !noted.has(name, seen.map_or(1, |seen| seen.sources)) {
                let uses = |seen| {
                    let mut uses = Uses::default();
                    self.add_seen(&mut uses, seen);
                    uses
                };
                strangers.entry(name.as_str()).or_insert_with(|| seen.map(uses));
            }
        }
        strangers
    }

    /// The types that functions call which are compiled, and have no note: the linker dropped them, or folded them into
    /// others, which then call by these types too.
    pub(super) fn folded(&self, noted: &NotedNames<'p>, program: &'p Program<'_>) -> Vec<Class> {
        let callers = || {
            let modules = program.modules().flat_map(|(_, module)| &module.summary.notes().modules);
            modules.flat_map(|note| &note.callers)
        };
        let mut sources: FxHashMap<&str, usize> = FxHashMap::default();
        for caller in callers() {
            let count = sources.entry(&caller.name).or_default();
            *count = count.saturating_add(1);
        }
        let is_gone = |name: &str| !noted.has(name, sources.get(name).copied().unwrap_or(1));
        callers().filter(|caller| is_gone(&caller.name)).flat_map(|c| &c.kinds).map(|kind| self.of(kind)).collect()
    }

    pub(super) fn of(&self, kind: &str) -> Class {
        Self::class(&self.numbers, kind)
    }
}

/// How many functions have notes, by name.
#[derive(Debug)]
pub(super) struct NotedNames<'p>(FxHashMap<&'p str, usize>);

impl<'p> NotedNames<'p> {
    pub(super) fn new(program: &'p Program<'_>) -> Self {
        let mut counts: FxHashMap<&str, usize> = FxHashMap::default();
        let all = program.modules().flat_map(|(_, m)| m.summary.notes().functions.iter().map(move |note| (m, note)));
        for (_, note) in all.filter(|(module, note)| note.address != Vaddr(0) && has_its_name(module, note)) {
            for name in std::iter::once(&note.name).chain(&note.aliases) {
                let count = counts.entry(name).or_default();
                *count = if note.is_local { count.saturating_add(1) } else { usize::MAX };
            }
        }
        Self(counts)
    }

    /// Whether all functions of this name have one that so many sources tell of. Of several that no other object can
    /// name, each source has a note of its own.
    fn has(&self, name: &str, sources: usize) -> bool {
        self.0.get(name).is_some_and(|count| *count >= sources)
    }
}

/// Whether the kernel may call a function of this type for a signal (sigaction(2)).
fn is_handler(kind: &str) -> bool {
    let parameters = kind.split_once(" (").map_or("", |(_, rest)| rest.trim_end_matches(')'));
    let mut list = parameters.split(", ");
    matches!(list.next(), Some("" | "..." | "i32")) && list.count() <= 2
}

/// Types, each with another one that it is one with, up to the first of them.
#[derive(Debug, Default)]
struct Joined<'p> {
    numbers: FxHashMap<&'p str, usize>,
    parents: Vec<usize>,
}

impl<'p> Joined<'p> {
    fn number(&mut self, kind: &'p str) -> usize {
        let new = self.parents.len();
        let number = *self.numbers.entry(kind).or_insert(new);
        if number == new {
            self.parents.push(new);
        }
        number
    }

    fn root(&self, mut number: usize) -> usize {
        while let Some(&parent) = self.parents.get(number).filter(|&&parent| parent != number) {
            number = parent;
        }
        number
    }

    fn join(&mut self, one: &'p str, other: &'p str) {
        let (one, other) = (self.number(one), self.number(other));
        let (one, other) = (self.root(one), self.root(other));
        if let Some(parent) = self.parents.get_mut(one.max(other)) {
            *parent = one.min(other);
        }
    }

    fn classes(&self) -> FxHashMap<&'p str, Class> {
        let class = |number: usize| Class::try_from(self.root(number)).unwrap_or(Class::MAX);
        self.numbers.iter().map(|(&kind, &number)| (kind, class(number))).collect()
    }
}
