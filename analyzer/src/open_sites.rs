//! Calls by which a process brings in what its files do not name in their headers: `dlopen`, `dlsym`.
//!
//! Input: what is reached. Output: [`OpenSites`]: the names that are known, and an assumption for each place where the
//! name is not (DESIGN section 3, rule 6). Programs that are executed: [`crate::execution_sites`].

use std::collections::BTreeSet;

use crate::callers::Callers;
use crate::evidence::location;
use crate::origins::{Seen, direct_origins};
use crate::policy::{Assumption, AssumptionKind};
use crate::program::{ModuleId, Program};
use crate::reachability::{FunctionKey, Phase, Reachable};
use crate::value::{Atom, Value};

/// Functions of the C library that load or look up by name, and which argument is the name.
const BY_NAME: [(&[u8], u16, AssumptionKind); 4] = [
    (b"dlopen", 0, AssumptionKind::OpenLoad),
    (b"dlmopen", 1, AssumptionKind::OpenLoad),
    (b"dlsym", 1, AssumptionKind::OpenLookup),
    (b"dlvsym", 1, AssumptionKind::OpenLookup),
];

/// What the calls by name say.
#[derive(Debug, Default)]
pub struct OpenSites {
    /// Libraries passed as constants.
    pub libraries: BTreeSet<String>,
    /// Symbols passed as constants.
    pub symbols: BTreeSet<Vec<u8>>,
    /// Modules that look up symbols whose names are not known.
    pub modules_with_open_lookups: BTreeSet<ModuleId>,
    /// Each place where a name is not known.
    pub assumptions: BTreeSet<Assumption>,
}

/// Looks at every reached call by name.
#[must_use]
pub fn find(program: &Program<'_>, reached: &Reachable<'_>, callers: &Callers<'_, '_>) -> OpenSites {
    let mut found = OpenSites::default();
    for (name, argument, kind) in BY_NAME {
        for key in functions_named(program, name) {
            if reached.phase(key) == Some(Phase::After) {
                look_at(program, callers, key, argument, kind, &mut found);
            }
        }
    }
    found
}

/// The functions that some file exports under a name.
#[must_use]
pub fn functions_named(program: &Program<'_>, name: &[u8]) -> BTreeSet<FunctionKey> {
    let definitions = program.exported(name, |_| true).into_iter();
    definitions.filter_map(|d| Some((d.module, program.module(d.module)?.summary.functions().at(d.address)?))).collect()
}

fn look_at(
    program: &Program<'_>,
    callers: &Callers<'_, '_>,
    callee: FunctionKey,
    argument: u16,
    kind: AssumptionKind,
    found: &mut OpenSites,
) {
    let Some(start) = program.module(callee.0).and_then(|m| m.summary.functions().function(callee.1)).map(|f| f.start)
    else {
        return;
    };
    let seen = Seen { function: callee, at: start, value: Value::One(Atom::Parameter(argument)) };
    let origins = direct_origins(callers, vec![seen]);
    for (atom, function, at) in origins.known {
        // A null name means the program itself: it brings nothing new.
        if atom == Atom::Constant(0) {
            continue;
        }
        match (kind, program.text(function.0, atom)) {
            (AssumptionKind::OpenLoad, Some(name)) => {
                found.libraries.insert(String::from_utf8_lossy(name).into_owned());
            }
            (AssumptionKind::OpenLookup, Some(name)) => {
                found.symbols.insert(name.to_vec());
            }
            _ => open(program, function, at, kind, found),
        }
    }
    for (function, at) in origins.unknown {
        open(program, function, at, kind, found);
    }
}

fn open(
    program: &Program<'_>,
    function: FunctionKey,
    at: crate::address::Vaddr,
    kind: AssumptionKind,
    found: &mut OpenSites,
) {
    let (text, flag) = match kind {
        AssumptionKind::OpenLoad => ("no library is loaded here but those that texts of the program name", "--dlopen"),
        _ => (
            "no symbol is looked up here but those that texts of the file name, and none to pass it a system call's number",
            "--allow",
        ),
    };
    if kind == AssumptionKind::OpenLookup {
        found.modules_with_open_lookups.insert(function.0);
    }
    let site = Some(location(program, function.0, at));
    found.assumptions.insert(Assumption { kind, text: text.to_owned(), site, flag: Some(flag.to_owned()) });
}
