//! Who calls a function: the reached call graph, from callee to caller.
//!
//! Input: what is reached. Output: for any function its call sites, with the state of the machine at each.
//!
//! Over-approximates: nothing. May miss: callers that know a function by its address only; whoever asks must see to
//! them ([`Reachable::is_address_taken`]).

mod edges;
mod live_in;

use std::cell::{OnceCell, RefCell};
use std::collections::BTreeSet;
use std::rc::Rc;
use std::sync::Arc;

use rayon::prelude::*;
use rustc_hash::FxHashMap;

use crate::address::Vaddr;
use crate::arguments::{CallSite, Sites};
use crate::code::Code;
use crate::functions::StartEvidence;
use crate::indirect_callers::{self, ComputedSites};
use crate::instruction::ReferenceKind;
use crate::limits::Budget;
use crate::origins::{Origin, Seen, nested};
use crate::program::{ModuleId, Program};
use crate::reachability::{FunctionKey, Reachable};
use crate::references::References;
use crate::registers::State;
use crate::value::Value;
use edges::{Edges, targets};

/// The reached call graph, from callee to caller.
#[derive(Debug)]
pub struct Callers<'a, 'data> {
    /// The modules.
    pub program: &'a Program<'data>,
    /// What is reached.
    pub reached: &'a Reachable<'data>,
    /// Names that code is known to look up while the program runs.
    pub looked_up: &'a BTreeSet<Vec<u8>>,
    edges: Edges,
    /// What was computed already: the same functions are asked for again and again.
    computed_sites: RefCell<FxHashMap<ModuleId, Rc<ComputedSites>>>,
    importers: OnceCell<Importers<'a>>,
    by_address: RefCell<FxHashMap<(FunctionKey, usize, bool), Option<AddressCalls>>>,
    stores: RefCell<StoreMemo>,
    targets: RefCell<TargetMemo>,
    live_in: live_in::LiveIn,
    results: RefCell<FxHashMap<FunctionKey, Option<live_in::Results>>>,
    /// Of tables of functions, for each function in one: distances at which calls read.
    pub(crate) budget: Budget,
}

/// Symbols by name: module and index.
type Importers<'a> = FxHashMap<&'a [u8], Vec<(ModuleId, u32)>>;

/// Calls with the functions that make them.
pub type AddressCalls = Rc<[(FunctionKey, Arc<CallSite>)]>;

/// A value that is stored: who does it, where, what, and in which state.
pub type Store = (FunctionKey, Vaddr, Value, State);

/// What is stored in variables.
type StoreMemo = FxHashMap<(ModuleId, Vaddr), Rc<[Store]>>;

/// What may be called at a place, by how deep the question was nested.
type TargetMemo = FxHashMap<(FunctionKey, Vaddr, usize), Option<Rc<[Origin]>>>;

impl<'a, 'data> Callers<'a, 'data> {
    /// Collects the calls among the functions that run while the filter is on.
    #[must_use]
    pub fn new(program: &'a Program<'data>, reached: &'a Reachable<'data>, looked_up: &'a BTreeSet<Vec<u8>>) -> Self {
        let size = program.modules().map(|(_, module)| module.image.size()).fold(0, u64::saturating_add);
        let limits = program.modules().next().map(|(_, module)| *module.image.limits()).unwrap_or_default();
        Self {
            program,
            reached,
            looked_up,
            edges: Edges::new(program, &reached.functions()),
            computed_sites: RefCell::default(),
            importers: OnceCell::new(),
            by_address: RefCell::default(),
            stores: RefCell::default(),
            targets: RefCell::default(),
            live_in: live_in::LiveIn::default(),
            results: RefCell::default(),
            budget: Budget::new("distances at which calls read tables, for each function in a table", size, &limits),
        }
    }

    /// The functions that call or jump to `callee` by name.
    pub fn callers(&self, callee: FunctionKey) -> impl Iterator<Item = FunctionKey> + '_ {
        self.edges.callers(callee)
    }

    /// The calls in `caller` that enter `callee` at its start; `None` if it may be entered in another way.
    #[must_use]
    pub fn calls(&self, caller: FunctionKey, callee: FunctionKey) -> Option<Vec<Arc<CallSite>>> {
        let mut found = Vec::new();
        for site in self.named_calls(caller).iter() {
            for (target, is_start) in targets(self.program, caller.0, site.callee) {
                if target == callee && !is_start {
                    return None;
                }
                if target == callee {
                    found.push(Arc::clone(site));
                }
            }
        }
        // Without any, it is entered by a table of jumps, unless the call stands in dead code.
        let function = self.program.module(caller.0)?.summary.functions().function(caller.1)?;
        let has_tables = function.references.iter().any(|r| r.kind == ReferenceKind::JumpTable);
        let may_be_dead = function.evidence == StartEvidence::Reference && !function.has_indirect_jump && !has_tables;
        (!found.is_empty() || may_be_dead).then_some(found)
    }

    /// The calls in `caller` whose target is computed.
    #[must_use]
    pub fn computed_calls(&self, caller: FunctionKey) -> Sites {
        self.code(caller.0).map(|code| code.computed_calls(caller.1)).unwrap_or_default()
    }

    /// The reached calls of a module that compute whom they call ([`indirect_callers::computed_sites`]).
    #[must_use]
    pub(crate) fn computed_sites(&self, module: ModuleId) -> Rc<ComputedSites> {
        if let Some(known) = self.computed_sites.borrow().get(&module) {
            return Rc::clone(known);
        }
        let found = Rc::new(indirect_callers::computed_sites(self, module));
        self.computed_sites.borrow_mut().insert(module, Rc::clone(&found));
        found
    }

    /// The calls of a function that say whom they call.
    #[must_use]
    pub fn named_calls(&self, caller: FunctionKey) -> Sites {
        self.code(caller.0).map(|code| code.named_calls(caller.1)).unwrap_or_default()
    }

    /// The call at an address of `caller`.
    #[must_use]
    pub fn call_at(&self, caller: FunctionKey, at: Vaddr) -> Option<Arc<CallSite>> {
        let found = self.named_calls(caller).iter().find(|site| site.at == at).cloned();
        found.or_else(|| self.computed_calls(caller).iter().find(|site| site.at == at).cloned())
    }

    /// The code of a module.
    #[must_use]
    pub fn code(&self, module: ModuleId) -> Option<Code<'a, 'data>> {
        Some(self.program.module(module)?.code())
    }

    /// The calls that enter `callee` by its address ([`indirect_callers::find`]); `None` if nobody can tell.
    #[must_use]
    pub fn by_address(&self, callee: FunctionKey, depth: usize, tables: bool) -> Option<AddressCalls> {
        if let Some(known) = self.by_address.borrow().get(&(callee, depth, tables)) {
            return known.clone();
        }
        let found = indirect_callers::find(self, callee, depth, tables).map(Into::into);
        self.by_address.borrow_mut().insert((callee, depth, tables), found.clone());
        found
    }

    /// Who refers to what in a module.
    #[must_use]
    pub fn references(&self, module: ModuleId) -> Option<&'a References> {
        Some(self.program.module(module)?.summary.references())
    }

    /// The symbols of a name to which pointers in data point: module and index.
    #[must_use]
    pub fn importers(&self, name: &[u8]) -> &[(ModuleId, u32)] {
        let all = self.importers.get_or_init(|| {
            let mut found = Importers::default();
            let modules: Vec<_> = self.program.modules().collect();
            let references = modules.into_par_iter().map(|(id, module)| (id, module, module.summary.references()));
            for (id, module, references) in references.collect::<Vec<_>>() {
                for index in references.symbols() {
                    let symbol = usize::try_from(index).ok().and_then(|index| module.image.symbols().get(index));
                    if let Some(symbol) = symbol {
                        found.entry(symbol.name).or_default().push((id, index));
                    }
                }
            }
            found
        });
        all.get(name).map_or(&[], Vec::as_slice)
    }

    /// What is stored in a variable, computed with `find` the first time.
    pub(crate) fn stores(&self, at: (ModuleId, Vaddr), find: impl FnOnce() -> Vec<Store>) -> Rc<[Store]> {
        if let Some(known) = self.stores.borrow().get(&at) {
            return Rc::clone(known);
        }
        let found: Rc<[Store]> = find().into();
        self.stores.borrow_mut().insert(at, Rc::clone(&found));
        found
    }

    /// What a computed call can enter, sought `depth` questions deep; `None` if not all of it is known.
    #[must_use]
    pub fn targets_of(&self, caller: FunctionKey, site: &CallSite, depth: usize) -> Option<Rc<[Origin]>> {
        let key = (caller, site.at, depth);
        if let Some(known) = self.targets.borrow().get(&key) {
            return known.clone();
        }
        let seen = Seen { function: caller, at: site.at, value: site.target.clone() };
        let found: Option<Rc<[Origin]>> = nested(self, seen, depth).map(Into::into);
        self.targets.borrow_mut().insert(key, found.clone());
        found
    }
}
