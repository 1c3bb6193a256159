//! One round: what a process can do with the files that are loaded so far, and what that brings.
//!
//! Input: a [`Program`], its roots, and [`Names`]. Output: [`Findings`]. They depend on nothing else, and nothing here
//! looks at the system, so that they can be kept for the next run ([`crate::cache`]).

use std::collections::BTreeSet;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::callers::Callers;
use crate::evidence::{self, Calls};
use crate::execution_sites::{self, Executions};
use crate::explanation::{Explanation, Known, Question};
use crate::guards::{GuardId, Guards};
use crate::late_loading::{converter_folder, loads_name_services, named_libraries};
use crate::limits::Excess;
use crate::loader::hints;
use crate::note_warnings;
use crate::open_sites;
use crate::policy::{Assumption, AssumptionKind};
use crate::program::{Definition, ModuleId, ModuleRole, Program};
use crate::reachability::{Cause, Phase, Reachable, Root};
use crate::solver::{Surroundings, solve};
use crate::writable_code;

/// What names can mean at run time, as far as earlier rounds have found out.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Names {
    /// Modules that look up symbols whose names are not known: every text of theirs may be one.
    pub(crate) open_lookups: BTreeSet<ModuleId>,
    /// Symbols that are looked up by a known name.
    pub(crate) symbols: BTreeSet<Vec<u8>>,
}

/// What a round says.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Findings {
    /// For the next round, if it is more than is there.
    pub(crate) brings: Brings,
    /// What the process can do; only if there is nothing more to bring.
    pub(crate) outcome: Option<Outcome>,
}

/// What reached code loads and looks up.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Brings {
    /// Libraries that texts or constant arguments name.
    pub(crate) libraries: BTreeSet<String>,
    /// Symbols that are looked up by a constant name: those of which that says more than is known.
    pub(crate) symbols: BTreeSet<Vec<u8>>,
    /// Modules that look up symbols whose names are not known.
    pub(crate) open_lookups: BTreeSet<ModuleId>,
    /// What reached texts say about where plug-ins are; nothing if no library is loaded whose name is not known.
    pub(crate) hints: BTreeSet<String>,
    /// Whether the C library may load modules for name services.
    pub(crate) name_services: bool,
    /// Where the C library finds character set converters, if it may load some.
    pub(crate) converters: Option<PathBuf>,
}

/// What a process can do.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Outcome {
    pub(crate) calls: Calls,
    pub(crate) executions: Executions,
    pub(crate) assumptions: BTreeSet<Assumption>,
}

/// Computes what is reached. `brings_more` says whether anything of what this brings is not there yet: then all of it is
/// computed again with that, and the rest of this round is left out.
///
/// # Errors
///
/// The files ask for more work than their size explains.
pub(crate) fn play(
    program: &Program<'_>,
    roots: &[Root],
    names: &Names,
    mut brings_more: impl FnMut(&Brings) -> bool,
) -> Result<Findings, Excess> {
    let guards = Guards::new(program);
    let reached = solve(program, roots, &guards, &Lookups { names, program });
    // Texts are known without a look at the arguments of calls.
    let mut brings = Brings {
        libraries: named_libraries(&reached),
        name_services: loads_name_services(&reached),
        converters: converter_folder(&reached),
        ..Brings::default()
    };
    if brings_more(&brings) {
        return Ok(Findings { brings, outcome: None });
    }
    let callers = Callers::new(program, &reached, &names.symbols);
    let open = open_sites::find(program, &reached, &callers);
    brings.symbols = open.symbols;
    brings
        .symbols
        .retain(|name| program.exported(name, |_| true).iter().any(|found| !is_open_root(program, &reached, *found)));
    brings.libraries.extend(open.libraries);
    brings.open_lookups = open.modules_with_open_lookups;
    if open.assumptions.iter().any(|assumption| assumption.kind == AssumptionKind::OpenLoad) {
        brings.hints = hints(texts(&reached));
    }
    let outcome = (!brings_more(&brings)).then(|| {
        let calls = evidence::calls(program, &reached, &callers, &guards);
        let executions = execution_sites::find(&callers, &calls.executions);
        let mut assumptions = open.assumptions;
        assumptions.extend(note_warnings::find(program, &reached));
        assumptions.extend(writable_code::find(program));
        assumptions.extend(reached.closed_guards().filter_map(GuardId::assumption));
        Outcome { calls, executions, assumptions }
    });
    callers.budget.excess().map_or(Ok(Findings { brings, outcome }), Err)
}

/// Answers a question about a process to which nothing more comes.
pub(crate) fn explain(program: &Program<'_>, roots: &[Root], names: &Names, question: &Question) -> Explanation {
    let guards = &Guards::new(program);
    let surroundings = &Lookups { names, program };
    let reached = &solve(program, roots, guards, surroundings);
    let callers = Callers::new(program, reached, &names.symbols);
    let calls = &evidence::calls(program, reached, &callers, guards);
    Known { program, reached, calls, roots, guards, surroundings }.explain(question)
}

/// Whether a function runs in any case, and with any arguments: that its name is looked up changes nothing.
fn is_open_root(program: &Program<'_>, reached: &Reachable<'_>, found: Definition) -> bool {
    let function = program.module(found.module).and_then(|module| module.summary.functions().at(found.address));
    let visit = function.and_then(|function| reached.functions.get(found.module, function.0));
    visit.is_some_and(|visit| {
        visit.phase == Phase::After && visit.address_taken && matches!(visit.cause, Cause::Root(_))
    })
}

fn texts<'data>(reached: &Reachable<'data>) -> impl Iterator<Item = &'data str> {
    reached.strings().filter_map(|(text, _)| std::str::from_utf8(text).ok())
}

/// What names can mean at run time.
struct Lookups<'r, 'data> {
    names: &'r Names,
    program: &'r Program<'data>,
}

impl Surroundings for Lookups<'_, '_> {
    fn look_up(&self, name: &[u8], holder: ModuleId) -> Vec<Definition> {
        // Most texts are the name of nothing.
        let anywhere = || self.looks_up_anything(holder) || self.is_looked_up(name);
        self.program.exported(name, |module| module.role == ModuleRole::LoadedLater || anywhere())
    }

    fn is_looked_up(&self, name: &[u8]) -> bool {
        self.names.symbols.contains(name)
    }

    fn looks_up_anything(&self, module: ModuleId) -> bool {
        self.names.open_lookups.contains(&module)
    }
}
