//! Where a program executes others, and which: DESIGN section 3, rule 7.
//!
//! Input: what is reached, and the sites of `execve` and `execveat` among it. Output: [`Executions`]: the names that
//! are known, and an assumption for each place where the name is not. Two kinds of places are looked at. Every site of
//! the two calls, whatever function it stands in, with the name followed to the callers; and the calls of the C
//! library's functions that put the name together before they execute it (`execvp`) or hand it to a child
//! (`posix_spawn`). What is not known inside those functions is no question of its own: their callers' names answer it.
//! Nor is the shell that `execvp` tries with a file that the kernel refuses: [`crate::execution`] takes such a file for
//! the shell's.
//!
//! Over-approximates: where some name is not known, every reached text of the same file that is the absolute path of a
//! program counts as one; so does a name for `PATH` that the function passes to others together with the structure that
//! it goes on with to that place. May miss: what no constant names; each such place is an assumption.

use std::collections::{BTreeMap, BTreeSet};

use rustc_hash::{FxHashMap, FxHashSet};
use serde::{Deserialize, Serialize};

use crate::address::Vaddr;
use crate::arguments::CallSite;
use crate::callers::Callers;
use crate::data::PointerTarget;
use crate::evidence::location;
use crate::functions::FunctionId;
use crate::instruction::ReferenceKind;
use crate::open_sites::functions_named;
use crate::origins::{Seen, direct_origins};
use crate::policy::{Assumption, AssumptionKind, CodeLocation};
use crate::program::{ModuleId, ModuleRole, Program};
use crate::reachability::{Cause, FunctionKey, Node, Phase, Reachable};
use crate::startup::is_glibc_loader;
use crate::syscall::SyscallNr;
use crate::value::{Atom, Value};

/// How a function of the C library finds the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lookup {
    /// Its n-th argument is a path.
    Path(u16),
    /// Its n-th argument is a path if it has a slash, else a name that `PATH` leads to.
    Search(u16),
    /// It is told a descriptor.
    Descriptor,
}

/// Functions that execute by name (exec(3), posix_spawn(3)). `execve` itself is seen by its site.
const BY_NAME: [(&[u8], Lookup); 11] = [
    (b"execv", Lookup::Path(0)),
    (b"execl", Lookup::Path(0)),
    (b"execle", Lookup::Path(0)),
    (b"execvp", Lookup::Search(0)),
    (b"execvpe", Lookup::Search(0)),
    (b"execlp", Lookup::Search(0)),
    (b"fexecve", Lookup::Descriptor),
    (b"posix_spawn", Lookup::Path(1)),
    (b"posix_spawnp", Lookup::Search(1)),
    (b"pidfd_spawn", Lookup::Path(1)),
    (b"pidfd_spawnp", Lookup::Search(1)),
];

/// The calls themselves, as functions.
const PLAIN: [&[u8]; 2] = [b"execve", b"execveat"];

/// `AT_EMPTY_PATH`: the descriptor is the program.
const EMPTY_PATH: u64 = 0x1000;

/// A program as code names it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum ExecutedName {
    /// A path.
    Path(Vec<u8>),
    /// A name without a slash, which `PATH` leads to.
    Search(Vec<u8>),
}

/// What a program executes.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Executions {
    /// Names that are known, each with one place.
    pub names: BTreeMap<ExecutedName, CodeLocation>,
    /// Each place where the name is not known.
    pub open: BTreeSet<Assumption>,
    /// Reached texts that may be meant at such a place.
    pub texts: BTreeSet<ExecutedName>,
}

/// Looks at every place that executes a program; `sites` are those of the two calls.
#[must_use]
pub fn find(callers: &Callers<'_, '_>, sites: &[(SyscallNr, FunctionKey, Vaddr)]) -> Executions {
    let (program, reached) = (callers.program, callers.reached);
    let mut search = Search {
        program,
        callers,
        library: CLibrary::new(callers),
        found: Executions::default(),
        open_modules: BTreeSet::new(),
    };
    // glibc's loader executes a program if it was started by its own name (`elf/rtld.c`, `rtld_chain_load`): it is no
    // program's interpreter then.
    let is_loader = |id| program.module(id).is_some_and(|m| m.role == ModuleRole::Interpreter && is_glibc_loader(m));
    for &(call, function, at) in sites.iter().filter(|(_, function, _)| !is_loader(function.0)) {
        search.site(call, function, at);
    }
    for (name, lookup) in BY_NAME {
        for key in functions_named(program, name) {
            if reached.phase(key) == Some(Phase::After) {
                search.function(key, lookup);
            }
        }
    }
    let Search { mut found, open_modules, .. } = search;
    for (text, holder) in reached.strings() {
        if text.starts_with(b"/") && open_modules.contains(&holder) {
            found.texts.insert(ExecutedName::Path(text.to_vec()));
        }
    }
    found
}

struct Search<'s, 'a, 'data> {
    program: &'s Program<'data>,
    callers: &'s Callers<'a, 'data>,
    library: CLibrary<'s, 'a, 'data>,
    found: Executions,
    /// Files with places where the name is not known.
    open_modules: BTreeSet<ModuleId>,
}

impl Search<'_, '_, '_> {
    /// A place that fixes the number of `execve` or `execveat`.
    fn site(&mut self, call: SyscallNr, function: FunctionKey, at: Vaddr) {
        // It is not the site itself if the number is passed to a function like `syscall`.
        let Some([first, second, _, _, fifth, _]) = self.program.syscall_arguments(function, at) else {
            return self.open(function, at);
        };
        let is_by_descriptor = call == SyscallNr::EXECVEAT
            && !matches!(fifth.single(), Some(Atom::Constant(flags)) if flags & EMPTY_PATH == 0);
        if is_by_descriptor {
            return self.open(function, at);
        }
        let name = if call == SyscallNr::EXECVEAT { second } else { first };
        self.follow(Seen { function, at, value: name }, false);
    }

    fn function(&mut self, key: FunctionKey, lookup: Lookup) {
        let functions = self.program.module(key.0).map(|m| m.summary.functions());
        let Some(start) = functions.and_then(|f| f.function(key.1)).map(|f| f.start) else { return };
        let (argument, searches) = match lookup {
            Lookup::Path(argument) => (argument, false),
            Lookup::Search(argument) => (argument, true),
            Lookup::Descriptor => {
                let callers: Vec<FunctionKey> = self.callers.callers(key).collect();
                return callers.into_iter().for_each(|caller| self.open(caller, self.start(caller)));
            }
        };
        self.follow(Seen { function: key, at: start, value: Value::One(Atom::Parameter(argument)) }, searches);
    }

    fn start(&self, key: FunctionKey) -> Vaddr {
        let functions = self.program.module(key.0).map(|m| m.summary.functions());
        functions.and_then(|f| f.function(key.1)).map(|f| f.start).unwrap_or_default()
    }

    /// Follows a name to where it is written down.
    fn follow(&mut self, seen: Seen, searches: bool) {
        let origins = direct_origins(self.callers, vec![seen]);
        for (atom, function, at) in origins.known {
            // No name: the call fails.
            if atom == Atom::Constant(0) {
                continue;
            }
            match self.program.text(function.0, atom) {
                Some(b"") => {}
                Some(text) if text.starts_with(b"/") => self.add(ExecutedName::Path(text.to_vec()), function, at),
                Some(text) if searches && !text.contains(&b'/') => {
                    self.add(ExecutedName::Search(text.to_vec()), function, at);
                }
                // Counts from the working directory.
                _ => self.open(function, at),
            }
        }
        for (function, at) in origins.unknown {
            self.open(function, at);
            if searches {
                self.handed_over(function, at);
            }
        }
    }

    /// Finds the names that a function passes to others together with a structure in its frame that it passes on to the
    /// call at `at`: one of them may have put the name into it.
    fn handed_over(&mut self, function: FunctionKey, at: Vaddr) {
        let Some(site) = self.callers.call_at(function, at) else { return };
        let is_structure = |atom: &Atom| matches!(atom, Atom::Frame(_));
        let structures: BTreeSet<Atom> = arguments(&site).into_iter().filter(is_structure).collect();
        for call in self.callers.named_calls(function).iter() {
            let passed = arguments(call);
            if passed.is_disjoint(&structures) {
                continue;
            }
            let texts = passed.into_iter().filter_map(|atom| self.program.text(function.0, atom));
            let names = texts.filter(|text| !text.is_empty() && !text.contains(&b'/'));
            self.found.texts.extend(names.map(|name| ExecutedName::Search(name.to_vec())));
        }
    }

    fn add(&mut self, name: ExecutedName, function: FunctionKey, at: Vaddr) {
        if self.library.is_inside(function) {
            return;
        }
        self.found.names.entry(name).or_insert_with(|| location(self.program, function.0, at));
    }

    fn open(&mut self, function: FunctionKey, at: Vaddr) {
        if self.library.is_inside(function) {
            return;
        }
        self.open_modules.insert(function.0);
        self.found.open.insert(Assumption {
            kind: AssumptionKind::OpenExec,
            text: "what is executed here needs no other calls than those that are allowed".to_owned(),
            site: Some(location(self.program, function.0, at)),
            flag: Some("--exec-target".to_owned()),
        });
    }
}

/// All that the arguments of a call in registers can be.
fn arguments(site: &CallSite) -> BTreeSet<Atom> {
    site.arguments().flat_map(|value| value.atoms().unwrap_or_default().to_vec()).collect()
}

/// The inside of the functions that execute by name.
struct CLibrary<'s, 'a, 'data> {
    program: &'s Program<'data>,
    reached: &'s Reachable<'data>,
    callers: &'s Callers<'a, 'data>,
    by_name: FxHashSet<FunctionKey>,
    plain: FxHashSet<FunctionKey>,
    /// Whether a text that is reached names one of those.
    says_plain: bool,
    /// From a function to those of its file that refer to it; by whether it is more than a call.
    users: FxHashMap<FunctionKey, FxHashSet<(FunctionKey, bool)>>,
}

impl<'s, 'a, 'data> CLibrary<'s, 'a, 'data> {
    fn new(callers: &'s Callers<'a, 'data>) -> Self {
        let (program, reached) = (callers.program, callers.reached);
        let named = |names: &[&[u8]]| names.iter().flat_map(|name| functions_named(program, name)).collect();
        let by_name: FxHashSet<FunctionKey> = named(&BY_NAME.map(|(name, _)| name));
        let modules: FxHashSet<ModuleId> = by_name.iter().map(|key| key.0).collect();
        let mut users: FxHashMap<FunctionKey, FxHashSet<(FunctionKey, bool)>> = FxHashMap::default();
        for user in reached.functions().into_iter().filter(|key| modules.contains(&key.0)) {
            for (used, is_more) in used_by(program, user) {
                users.entry(used).or_default().insert((user, is_more));
            }
        }
        let says_plain = PLAIN.iter().any(|name| reached.says(name));
        Self { program, reached, callers, by_name, plain: named(&PLAIN), says_plain, users }
    }

    /// Whether `function` is reached by way of functions that execute by name only. Of `execve` itself, which others
    /// may call directly, this is asked of those who take its address: its calls are known.
    fn is_inside(&self, function: FunctionKey) -> bool {
        // Somebody who is not known calls it.
        if self.by_name.contains(&function) {
            return false;
        }
        let is_plain = self.plain.contains(&function);
        if is_plain && self.is_known_outside(function) {
            return false;
        }
        let mut seen = FxHashSet::from_iter([function]);
        let mut work = vec![function];
        let mut is_used = false;
        while let Some(at) = work.pop() {
            let is_plain = is_plain && at == function;
            if self.by_name.contains(&at) {
                is_used = true;
                continue;
            }
            if !is_plain && !self.is_private(at) {
                return false;
            }
            for &(user, is_more) in self.users.get(&at).into_iter().flatten() {
                if (is_more || !is_plain) && seen.insert(user) {
                    work.push(user);
                }
            }
        }
        is_used
    }

    /// Whether nothing but code of the same file can refer to the function.
    fn is_private(&self, key: FunctionKey) -> bool {
        let Some(start) = self.start(key) else { return false };
        let Some(module) = self.program.module(key.0) else { return false };
        let is_exported = module.image.symbols().iter().any(|s| s.is_exported() && s.value == start);
        let Some(references) = self.callers.references(key.0) else { return false };
        let is_root = matches!(self.reached.cause(Node::Function(key)), Some(Cause::Root(_)) | None);
        !is_exported && !is_root && !references.is_pointed_into(&(start..start.checked_add(1).unwrap_or(start)))
    }

    /// Whether code of other files has the address of the function, or can look it up.
    fn is_known_outside(&self, key: FunctionKey) -> bool {
        if self.says_plain || matches!(self.reached.cause(Node::Function(key)), Some(Cause::Root(_)) | None) {
            return true;
        }
        self.program.modules().filter(|(id, _)| *id != key.0).any(|(id, module)| {
            let Some(references) = self.callers.references(id) else { return true };
            module.summary.data().pointers().iter().any(|pointer| {
                let PointerTarget::Symbol(index, _) = pointer.target else { return false };
                let is_name = |s: &crate::elf::Symbol<'_>| PLAIN.contains(&s.name);
                let symbol = usize::try_from(index).ok().and_then(|index| module.image.symbols().get(index));
                let slot = pointer.slot..pointer.slot.checked_add(1).unwrap_or(pointer.slot);
                symbol.is_some_and(is_name) && (!pointer.is_linkage || references.accessing(&slot).next().is_some())
            })
        })
    }

    fn start(&self, key: FunctionKey) -> Option<Vaddr> {
        Some(self.program.module(key.0)?.summary.functions().function(key.1)?.start)
    }
}

/// The functions of the same file that a function refers to, and whether it does more than to call them.
fn used_by(program: &Program<'_>, user: FunctionKey) -> Vec<(FunctionKey, bool)> {
    let Some(module) = program.module(user.0) else { return Vec::new() };
    let functions = module.summary.functions();
    let references = functions.function(user.1).map_or(&[][..], |f| &f.references);
    let pointed = |slot: Vaddr| match module.summary.data().pointer_at(slot) {
        Some(PointerTarget::Local(at)) => vec![at],
        Some(PointerTarget::Symbol(index, _)) => {
            let found = program.bind(user.0, index).into_iter();
            found.filter(|d| d.module == user.0).map(|d| d.address).collect()
        }
        _ => Vec::new(),
    };
    let mut used = Vec::new();
    let mut add = |at: Vaddr, is_more| {
        let function: Option<FunctionId> = functions.at(at);
        used.extend(function.map(|id| ((user.0, id), is_more)));
    };
    for reference in references {
        match reference.kind {
            ReferenceKind::Call | ReferenceKind::Jump | ReferenceKind::JumpTable | ReferenceKind::LandingPad => {
                add(reference.target, false);
            }
            ReferenceKind::CallThrough => pointed(reference.target).into_iter().for_each(|at| add(at, false)),
            ReferenceKind::Address => add(reference.target, true),
            ReferenceKind::Load(_) => pointed(reference.target).into_iter().for_each(|at| add(at, true)),
            ReferenceKind::Store => {}
        }
    }
    used
}
