//! Which functions an indirect call can enter, by the types that the compiler wrote down.
//!
//! Input: the notes of all modules ([`crate::notes`]). Output: [`CallTypes`]: whether a function whose address is taken
//! waits until a call of one of its types is reached, and what a reached function lets in. C lets a function be called
//! through its own type only; where the source casts, both types count as one, and a function whose address becomes a
//! pointer to data waits for calls of types that pointers to data were cast to. The kernel calls handlers of signals:
//! they wait for `rt_sigaction`.
//!
//! Over-approximates: a function without a note lets everything in if it calls through a register or a variable, and so
//! does one whose body is not the one that the note is of; an address that no note accounts for (a table of assembly,
//! a constant pool, what a name looks up) waits for nothing. May miss: a value that changes its type in memory without
//! a cast of a pointer to it, which C forbids (C17 6.5, 6.3.2.3); assembly that enters a function by `push` and `ret`.

mod bodies;
mod classes;

use rustc_hash::{FxHashMap, FxHashSet};

use crate::address::Vaddr;
use crate::data::PointerTarget;
use crate::functions::FunctionId;
use crate::instruction::ReferenceKind;
use crate::notes::{FunctionNote, VariableNote};
use crate::program::{Module, ModuleId, Program};
use crate::reachability::FunctionKey;
use crate::syscall::SyscallNr;
use crate::value::Atom;
pub(crate) use bodies::has_its_name;
use bodies::{Computed, computed_calls, lies_in};
use classes::{Class, Classes, NotedNames, Results, Uses};

/// Where the address of a function stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// In the code of a function.
    Code(FunctionKey),
    /// In data.
    Slot(ModuleId, Vaddr),
    /// Somewhere else: nothing is known of who calls it.
    Elsewhere,
}

/// What lets functions in.
#[derive(Debug, Default)]
pub(crate) struct Opened<'p> {
    classes: FxHashSet<Class>,
    /// What functions of types without parameter lists that are called return.
    unprototyped: FxHashSet<&'p str>,
    /// What all functions that are called return.
    returned: FxHashSet<&'p str>,
    /// A type is called that pointers to data were cast to.
    data: bool,
    /// Handlers of signals can be installed.
    signals: bool,
    /// Anything may be called.
    all: bool,
}

impl Opened<'_> {
    /// Grows with every change.
    fn size(&self) -> usize {
        let flags = [self.data, self.signals, self.all].into_iter().map(usize::from).sum::<usize>();
        let sizes = [self.classes.len(), self.unprototyped.len(), self.returned.len(), flags];
        sizes.into_iter().fold(0, usize::saturating_add)
    }
}

/// What is known of one function.
#[derive(Debug, Default)]
struct Noted<'p> {
    notes: Vec<&'p FunctionNote>,
    uses: Uses,
    /// The types that it calls.
    calls: Vec<Class>,
    /// The types of functions that it passes on, by parameter.
    passed: Vec<(u32, Class)>,
    /// Its body has something that the notes do not tell of.
    is_open: bool,
}

impl<'p> Noted<'p> {
    /// What it calls by name.
    fn called(&self) -> impl Iterator<Item = &'p String> {
        self.notes.iter().flat_map(|note| &note.called)
    }
}

/// Types and casts of a whole program.
#[derive(Debug)]
pub(crate) struct CallTypes<'p, 'data> {
    program: &'p Program<'data>,
    functions: FxHashMap<FunctionKey, Noted<'p>>,
    variables: FxHashMap<ModuleId, Vec<&'p VariableNote>>,
    /// Where functions with notes start.
    starts: FxHashMap<ModuleId, Vec<(Vaddr, FunctionId)>>,
    /// How functions are used that have no note, by name: two of one body, of which the linker kept one.
    strangers: FxHashMap<&'p str, Option<Uses>>,
    /// What functions without notes call that may be one with others.
    folded: Vec<Class>,
    from_data: FxHashSet<Class>,
    results: FxHashMap<Class, Results<'p>>,
}

impl<'p, 'data> CallTypes<'p, 'data> {
    /// Joins the notes of all modules; `None` if there are none.
    pub(crate) fn new(program: &'p Program<'data>) -> Option<Self> {
        if program.modules().all(|(_, module)| module.summary.notes().is_empty()) {
            return None;
        }
        let classes = Classes::new(program);
        let noted = NotedNames::new(program);
        let mut types = Self {
            program,
            functions: FxHashMap::default(),
            variables: FxHashMap::default(),
            starts: FxHashMap::default(),
            strangers: classes.strangers(&noted, program),
            folded: classes.folded(&noted, program),
            from_data: classes.from_data.clone(),
            results: classes.results(),
        };
        for (id, module) in program.modules() {
            let notes = module.summary.notes();
            let mut variables: Vec<_> = notes.variables.iter().filter(|v| v.address != Vaddr(0)).collect();
            variables.sort_by_key(|variable| variable.address);
            types.variables.insert(id, variables);
            for note in notes.functions.iter().filter(|note| note.address != Vaddr(0)) {
                types.add(id, module, note, &classes);
            }
        }
        for (id, _) in program.modules() {
            let noted = types.functions.iter().filter(|((module, _), noted)| *module == id && !noted.notes.is_empty());
            let mut starts: Vec<_> =
                noted.filter_map(|((_, function), noted)| Some((noted.notes.first()?.address, *function))).collect();
            starts.sort_unstable();
            types.starts.insert(id, starts);
        }
        let open: Vec<_> = types.functions.keys().copied().filter(|key| !types.is_whole(*key)).collect();
        for key in open {
            types.functions.entry(key).or_default().is_open = true;
        }
        Some(types)
    }

    fn add(&mut self, id: ModuleId, module: &Module<'_>, note: &'p FunctionNote, classes: &Classes<'p>) {
        let functions = module.summary.functions();
        let Some(holder) = functions.at(note.address) else { return };
        let noted = self.functions.entry((id, holder)).or_default();
        if !functions.starts_at(note.address) {
            noted.is_open = true;
            return;
        }
        if !has_its_name(module, note) {
            return;
        }
        noted.notes.push(note);
        noted.is_open |= note.is_opaque;
        noted.calls.extend(note.indirect.iter().map(|kind| classes.of(kind)));
        noted.passed.extend(note.handed.iter().map(|handed| (handed.parameter, classes.of(&handed.kind))));
        classes.add(&mut noted.uses, &note.kind);
        let names = std::iter::once(&note.name).chain(&note.aliases);
        let seen: Vec<_> = names.filter_map(|name| classes.seen.get(name.as_str())).collect();
        // The source does not use its address: the compiler made it (a part of a coroutine).
        noted.uses.is_number |= seen.is_empty();
        seen.iter().for_each(|seen| classes.add_seen(&mut noted.uses, seen));
    }

    /// Whether a function whose address is taken at `place` can be called there where `opened` is reached.
    pub(crate) fn lets_in(&self, callee: FunctionKey, place: Place, opened: &Opened<'p>) -> bool {
        let Some(noted) = self.functions.get(&callee).filter(|noted| !noted.notes.is_empty()) else { return true };
        let is_stranger = |uses: &Option<Uses>| uses.as_ref().is_none_or(|uses| self.may_be_called(uses, opened));
        opened.all
            || !self.accounts_for(place, noted)
            || self.may_be_called(&noted.uses, opened)
            || (!self.strangers.is_empty() && self.strangers_at(place).any(is_stranger))
    }

    fn may_be_called(&self, uses: &Uses, opened: &Opened<'p>) -> bool {
        uses.is_number
            || uses.own.iter().any(|class| opened.classes.contains(class))
            || uses.own.iter().filter_map(|class| self.results.get(class)).any(|own| own.may_be_called(opened))
            || (uses.is_data && (opened.data || opened.signals))
            || (uses.is_handler && opened.signals)
    }

    /// Whether the compiler wrote down that the function's address is a value there.
    fn accounts_for(&self, place: Place, callee: &Noted<'_>) -> bool {
        let is_callee = |name: &String| callee.notes.iter().any(|n| n.name == *name || n.aliases.contains(name));
        let is_called = || match place {
            Place::Code(taker) => self.owner(taker).is_some_and(|taker| taker.called().any(is_callee)),
            Place::Slot(..) | Place::Elsewhere => false,
        };
        self.taken_at(place).any(is_callee) && !is_called()
    }

    /// How functions without notes are used whose addresses notes have there.
    fn strangers_at(&self, place: Place) -> impl Iterator<Item = &Option<Uses>> {
        self.taken_at(place).filter_map(|name| self.strangers.get(name.as_str()))
    }

    /// The functions whose addresses notes have there.
    fn taken_at(&self, place: Place) -> impl Iterator<Item = &'p String> {
        let (code, data) = match place {
            Place::Code(taker) => (self.owner(taker), &[][..]),
            Place::Slot(id, slot) => (None, self.variables_at(id, slot)),
            Place::Elsewhere => (None, &[][..]),
        };
        let notes = code.into_iter().flat_map(|taker| taker.notes.iter().copied());
        notes.flat_map(|note| &note.taken).chain(data.iter().copied().flat_map(|variable| &variable.taken))
    }

    /// The variables that a slot lies in: more than one where the linker made one of them.
    fn variables_at(&self, id: ModuleId, slot: Vaddr) -> &[&'p VariableNote] {
        let variables = self.variables.get(&id).map_or(&[][..], Vec::as_slice);
        let behind = variables.partition_point(|variable| variable.address <= slot);
        let before = variables.get(..behind).unwrap_or(&[]);
        let Some(last) = before.last() else { return &[] };
        let first = before.partition_point(|variable| variable.address < last.address);
        let found = before.get(first..).unwrap_or(&[]);
        let is_inside = |variable: &&VariableNote| {
            slot.checked_offset_from(variable.address).is_some_and(|offset| offset < variable.size)
        };
        if found.iter().all(is_inside) { found } else { &[] }
    }

    /// What is let in before anything is reached.
    pub(crate) fn opened(&self) -> Opened<'p> {
        let mut opened = Opened::default();
        self.open_classes(&self.folded, &mut opened);
        opened
    }

    /// Takes in what a reached function calls; whether that lets in more.
    pub(crate) fn open(&self, caller: FunctionKey, opened: &mut Opened<'p>) -> bool {
        if opened.all {
            return false;
        }
        let before = opened.size();
        opened.signals |= self.may_install_handlers(caller);
        match self.owner(caller) {
            Some(noted) => self.open_classes(&noted.calls, opened),
            None => match self.calls_of(caller) {
                Some(classes) => self.open_classes(&classes, opened),
                None => opened.all = true,
            },
        }
        before != opened.size()
    }

    /// Whether a function makes the call that tells the kernel of handlers, or one whose number is not known here.
    fn may_install_handlers(&self, (id, function): FunctionKey) -> bool {
        let sites = self.program.module(id).map_or(&[][..], |module| module.summary.sites(function));
        let is_sigaction = |atom: &Atom| match atom {
            Atom::Constant(number) => number & 0xffff_ffff == u64::from(SyscallNr::RT_SIGACTION.0),
            _ => true,
        };
        sites.iter().any(|site| site.number.atoms().is_none_or(|atoms| atoms.iter().any(is_sigaction)))
    }

    /// Whether a function's body is that of its notes: one range up to the next function, without a computed call that
    /// they lack. An indirect jump alone is a `switch`, which they do not have.
    fn is_whole(&self, (id, function): FunctionKey) -> bool {
        let Some(module) = self.program.module(id) else { return false };
        let Some(body) = module.summary.functions().function(function) else { return false };
        let Some(noted) = self.functions.get(&(id, function)) else { return false };
        let has_calls = noted.notes.iter().any(|note| !note.indirect.is_empty());
        lies_in(body, body.start, self.end_behind(id, body.start))
            && (has_calls || !body.has_indirect_call || computed_calls(module, body) == Computed::Nothing)
    }

    /// Where the next function with a note or a symbol starts.
    fn end_behind(&self, id: ModuleId, start: Vaddr) -> Vaddr {
        let starts = self.starts.get(&id).map_or(&[][..], Vec::as_slice);
        let noted = starts.get(starts.partition_point(|(at, _)| *at <= start)).map(|(at, _)| *at);
        let hints = self.program.module(id).map_or(&[][..], |module| module.image.function_hints());
        let named = hints.get(hints.partition_point(|hint| hint.address <= start)).map(|hint| hint.address);
        noted.into_iter().chain(named).min().unwrap_or(Vaddr(u64::MAX))
    }

    /// The function with a note that code belongs to: what starts inside a body is a label of it.
    fn owner(&self, (id, function): FunctionKey) -> Option<&Noted<'p>> {
        let functions = self.program.module(id)?.summary.functions();
        let body = functions.function(function)?;
        let starts = self.starts.get(&id)?;
        let (start, holder) = starts.get(starts.partition_point(|(at, _)| *at <= body.start).checked_sub(1)?)?;
        let is_inside =
            functions.function(*holder)?.contains(body.start) && lies_in(body, *start, self.end_behind(id, *start));
        self.functions.get(&(id, *holder)).filter(|noted| is_inside && !noted.is_open)
    }

    fn open_classes(&self, classes: &[Class], opened: &mut Opened<'p>) {
        opened.data |= classes.iter().any(|class| self.from_data.contains(class));
        opened.classes.extend(classes);
        for results in classes.iter().filter_map(|class| self.results.get(class)) {
            opened.unprototyped.extend(&results.unprototyped);
            opened.returned.extend(&results.all);
        }
    }

    /// The types that a function without a note calls; `None` if that may be any.
    fn calls_of(&self, (id, function): FunctionKey) -> Option<Vec<Class>> {
        let module = self.program.module(id)?;
        match computed_calls(module, module.summary.functions().function(function)?) {
            Computed::Nothing => Some(Vec::new()),
            Computed::Parameters(numbers) => self.passed_to((id, function), &numbers),
            Computed::Anything => None,
        }
    }

    /// The types of what callers pass a function as these parameters, if notes say so of all who may call it.
    fn passed_to(&self, (id, callee): FunctionKey, numbers: &[u16]) -> Option<Vec<Class>> {
        let module = self.program.module(id)?;
        let functions = module.summary.functions();
        let start = functions.function(callee)?.start;
        let is_known =
            module.summary.data().pointers().iter().any(|pointer| pointer.target == PointerTarget::Local(start))
                || module.image.symbols().iter().any(|symbol| symbol.is_exported() && symbol.value == start);
        if is_known {
            return None;
        }
        let mut passed = Vec::new();
        for (function, caller) in functions.all().iter().zip((0..).map(FunctionId)) {
            let to_callee = || function.references.iter().filter(|reference| reference.target == start);
            if to_callee().next().is_none() {
                continue;
            }
            let noted = self.owner((id, caller))?;
            if !to_callee().all(|r| matches!(r.kind, ReferenceKind::Call | ReferenceKind::Jump)) {
                return None;
            }
            for number in numbers {
                let before = passed.len();
                passed.extend(noted.passed.iter().filter(|(n, _)| n == &u32::from(*number)).map(|(_, class)| *class));
                if passed.len() == before {
                    return None;
                }
            }
        }
        Some(passed)
    }
}
