//! The modules of one process and how their symbols bind.
//!
//! Input: images with their summaries, in the loader's scope order. Output: [`Program`], which tells for every symbol
//! reference what it can mean. Binding follows ld.so (glibc: `elf/dl-lookup.c`): scope order, then version; weak
//! definitions count like others; a reference with a version matches a definition of that version or one without
//! versions, one without a version matches all.
//!
//! Over-approximates: a library that `dlopen` brings sees every other such library. May miss: `LD_PRELOAD`,
//! `LD_LIBRARY_PATH`, audit modules: they are the user's own change of the program.

use std::path::PathBuf;
use std::sync::Arc;

use rustc_hash::FxHashMap;
use serde::{Deserialize, Serialize};

use crate::address::Vaddr;
use crate::code::Code;
use crate::data::PointerTarget;
use crate::elf::{Image, Symbol, SymbolBinding, SymbolKind, SymbolVisibility};
use crate::reachability::{FunctionKey, Node};
use crate::summary::ModuleSummary;
use crate::syscall_site::syscall_arguments;
use crate::value::{Atom, Value};

/// Index of a module in its [`Program`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ModuleId(pub u32);

/// How a module comes into the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum ModuleRole {
    /// The executable.
    Main,
    /// A library that is there from the start.
    Needed,
    /// The program interpreter.
    Interpreter,
    /// A library that `dlopen` or the C library itself loads later.
    LoadedLater,
}

/// One file of the process.
#[derive(Debug)]
pub struct Module<'data> {
    /// Path without the root prefix.
    pub path: PathBuf,
    /// Its role.
    pub role: ModuleRole,
    /// The file.
    pub image: Image<'data>,
    /// What it says.
    pub summary: Arc<ModuleSummary>,
}

impl<'data> Module<'data> {
    /// Its code, for data flow.
    #[must_use]
    pub fn code(&self) -> Code<'_, 'data> {
        self.summary.code(&self.image)
    }
}

/// What a symbol can mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Definition {
    /// Where it is defined.
    pub module: ModuleId,
    /// At which address of that module.
    pub address: Vaddr,
    /// What it is there.
    pub kind: SymbolKind,
}

/// All modules of a process.
#[derive(Debug, Default)]
pub struct Program<'data> {
    modules: Vec<Module<'data>>,
    exports: Exports<'data>,
}

/// Exported symbols by name: for each name a chain through one list, in scope order.
#[derive(Debug, Default)]
struct Exports<'data> {
    /// The first and the last link of each name.
    chains: FxHashMap<&'data [u8], (usize, usize)>,
    links: Vec<Export>,
}

#[derive(Debug)]
struct Export {
    module: ModuleId,
    symbol: u32,
    next: Option<usize>,
}

impl<'data> Exports<'data> {
    fn add_all(&mut self, module: &Module<'data>, id: ModuleId) {
        for (symbol, index) in module.image.symbols().iter().zip(0_u32..).filter(|(s, _)| s.is_exported()) {
            self.add(symbol.name, Export { module: id, symbol: index, next: None });
        }
    }

    fn add(&mut self, name: &'data [u8], export: Export) {
        let new = self.links.len();
        let (_, last) = self.chains.entry(name).or_insert((new, new));
        if let Some(last) = self.links.get_mut(*last) {
            last.next = Some(new);
        }
        *last = new;
        self.links.push(export);
    }

    fn named(&self, name: &[u8]) -> impl Iterator<Item = (ModuleId, u32)> {
        let link = |place: Option<usize>| self.links.get(place?);
        let first = link(self.chains.get(name).map(|(first, _)| *first));
        std::iter::successors(first, move |export| link(export.next)).map(|export| (export.module, export.symbol))
    }
}

impl<'data> Program<'data> {
    /// Links further modules, which ld.so searches behind those that are there, and in this order.
    pub fn extend(&mut self, modules: Vec<Module<'data>>) {
        for (module, id) in modules.iter().zip((0_u32..).map(ModuleId).skip(self.modules.len())) {
            self.exports.add_all(module, id);
        }
        self.modules.extend(modules);
    }

    /// The modules with their ids, in scope order.
    pub fn modules(&self) -> impl Iterator<Item = (ModuleId, &Module<'data>)> {
        (0_u32..).map(ModuleId).zip(&self.modules)
    }

    /// One module; `None` for an id of another program.
    #[must_use]
    pub fn module(&self, id: ModuleId) -> Option<&Module<'data>> {
        usize::try_from(id.0).ok().and_then(|index| self.modules.get(index))
    }

    /// What the argument registers can hold at a `syscall` instruction of a function; `None` if there is none that control
    /// gets to.
    pub(crate) fn syscall_arguments(&self, (id, function): FunctionKey, at: Vaddr) -> Option<[Value; 6]> {
        let module = self.module(id)?;
        let code = module.code();
        syscall_arguments(&code, code.functions.function(function)?, at)
    }

    /// Where a function or an object begins.
    pub(crate) fn start_of(&self, node: Node) -> Option<Vaddr> {
        match node {
            Node::Function((module, id)) => Some(self.module(module)?.summary.functions().function(id)?.start),
            Node::Object(module, number) => Some(self.module(module)?.summary.data().object(number).start),
        }
    }

    /// The address that a value in code of a module is; in a position-dependent file that is a plain number.
    #[must_use]
    pub fn address(&self, module: ModuleId, atom: Atom) -> Option<Vaddr> {
        match atom {
            Atom::Address(at) => Some(at),
            Atom::Constant(number) if !self.module(module)?.image.is_position_independent() => Some(Vaddr(number)),
            _ => None,
        }
    }

    /// The text whose address a value in code of a module is.
    #[must_use]
    pub fn text(&self, module: ModuleId, atom: Atom) -> Option<&'data [u8]> {
        self.module(module)?.image.c_string(self.address(module, atom)?)
    }

    /// What symbol number `index` of a module binds to.
    #[must_use]
    pub fn bind(&self, from: ModuleId, index: u32) -> Vec<Definition> {
        let Some((module, symbol)) = self.symbol(from, index) else { return Vec::new() };
        let is_private = symbol.binding == SymbolBinding::Local || symbol.visibility != SymbolVisibility::Default;
        if symbol.is_defined && is_private {
            return definition(from, symbol).into_iter().collect();
        }
        let found = self.lookup(symbol, |_| true, module.role);
        match (found.is_empty(), symbol.is_defined) {
            (true, true) => definition(from, symbol).into_iter().collect(),
            _ => found,
        }
    }

    /// What a copy relocation against symbol `index` of a module copies.
    #[must_use]
    pub fn bind_copy(&self, from: ModuleId, index: u32) -> Vec<Definition> {
        let Some((module, symbol)) = self.symbol(from, index) else { return Vec::new() };
        self.lookup(symbol, |candidate| candidate != from, module.role)
    }

    /// Every definition of `name`, whatever its version, in modules that `in_scope` picks.
    #[must_use]
    pub fn exported(&self, name: &[u8], in_scope: impl Fn(&Module<'data>) -> bool) -> Vec<Definition> {
        let found = self.exports.named(name).filter(|(id, _)| self.module(*id).is_some_and(&in_scope));
        found.filter_map(|(id, index)| definition(id, self.symbol(id, index)?.1)).collect()
    }

    /// Whether anything binds to the object that a module exports as `name`: another module knows the name, or the
    /// module itself reaches its own object by it.
    #[must_use]
    pub fn is_bound_by_name(&self, exporter: ModuleId, name: &[u8]) -> bool {
        self.modules().any(|(id, module)| {
            let symbols = module.image.symbols();
            if id != exporter {
                return symbols.iter().any(|symbol| symbol.name == name);
            }
            let symbol = |index: u32| usize::try_from(index).ok().and_then(|index| symbols.get(index));
            let mut pointers = module.summary.data().pointers().iter();
            pointers.any(|pointer| match pointer.target {
                PointerTarget::Symbol(index, _) | PointerTarget::Copy(index) => {
                    symbol(index).is_some_and(|s| s.name == name)
                }
                _ => false,
            })
        })
    }

    fn symbol(&self, id: ModuleId, index: u32) -> Option<(&Module<'data>, &Symbol<'data>)> {
        let module = self.module(id)?;
        Some((module, module.image.symbols().get(usize::try_from(index).ok()?)?))
    }

    /// The first module in scope order that has a match, with all its matches; libraries that are loaded later come
    /// last, and there every match of every one counts.
    fn lookup(&self, wanted: &Symbol<'_>, may_be: impl Fn(ModuleId) -> bool, from: ModuleRole) -> Vec<Definition> {
        let mut found: Vec<Definition> = Vec::new();
        for (id, index) in self.exports.named(wanted.name).filter(|(id, _)| may_be(*id)) {
            let Some((module, symbol)) = self.symbol(id, index) else { continue };
            let is_later = module.role == ModuleRole::LoadedLater;
            if found.first().is_some_and(|first| first.module != id && (!is_later || self.is_at_start(first.module))) {
                break;
            }
            if version_matches(wanted, symbol) && (!is_later || from == ModuleRole::LoadedLater) {
                found.extend(definition(id, symbol));
            }
        }
        found
    }

    /// Whether a module is there from the start.
    fn is_at_start(&self, id: ModuleId) -> bool {
        self.module(id).is_some_and(|module| module.role != ModuleRole::LoadedLater)
    }
}

fn definition(module: ModuleId, symbol: &Symbol<'_>) -> Option<Definition> {
    // The value of a thread-local symbol is an offset, not an address.
    (symbol.kind != SymbolKind::Tls).then_some(Definition { module, address: symbol.value, kind: symbol.kind })
}

/// Whether ld.so would take `definition` for `reference`, by version.
fn version_matches(reference: &Symbol<'_>, definition: &Symbol<'_>) -> bool {
    match (&reference.version, &definition.version) {
        (_, None) | (None, _) => true,
        (Some(wanted), Some(version)) => wanted.name == version.name,
    }
}
