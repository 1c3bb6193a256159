//! From what is reached to what the policy says: numbers with their sites and paths, readable places.
//!
//! Input: [`Program`], [`Reachable`] and the values that [`Callers`] found. Output: the parts of a
//! [`crate::policy::Policy`].

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::address::Vaddr;
use crate::callers::Callers;
use crate::guards::Guards;
use crate::origins::{Origins, Seen, origins};
use crate::plain_text;
use crate::policy::{AllowedCall, CodeLocation, Evidence, UnresolvedReason, UnresolvedSite};
use crate::program::{ModuleId, Program};
use crate::reachability::{FunctionKey, Node, Reachable, path};
use crate::syscall::SyscallNr;
use crate::value::Atom;

/// Numbers with this bit belong to the x32 ABI (`__X32_SYSCALL_BIT`).
const X32_BIT: u32 = 0x4000_0000;

/// The calls that reached sites make.
#[derive(Debug, Serialize, Deserialize)]
pub struct Calls {
    /// Calls by number, each with the first site found.
    pub allowed: BTreeMap<SyscallNr, AllowedCall>,
    /// All places that fix their numbers; findings that were kept have none.
    #[serde(skip)]
    pub sites: BTreeMap<SyscallNr, Vec<(FunctionKey, Vaddr)>>,
    /// Sites whose number is not known.
    pub unresolved: Vec<UnresolvedSite>,
    /// Where another program is executed: which of the two calls, and the place that fixes its number.
    pub executions: Vec<(SyscallNr, FunctionKey, Vaddr)>,
}

/// Resolves the number of every reached site.
#[must_use]
pub fn calls(program: &Program<'_>, reached: &Reachable<'_>, callers: &Callers<'_, '_>, guards: &Guards) -> Calls {
    let mut seen = Vec::new();
    let mut unresolved = Vec::new();
    for key in reached.functions() {
        let Some(module) = program.module(key.0) else { continue };
        for site in module.summary.sites(key.1) {
            seen.push(Seen { function: key, at: site.at, value: site.number.clone() });
        }
        for &at in module.summary.functions().function(key.1).map_or(&[][..], |f| &f.foreign_syscalls) {
            unresolved
                .push(UnresolvedSite { site: location(program, key.0, at), reason: UnresolvedReason::ForeignEntry });
        }
    }
    let Origins { known, unknown } = origins(callers, seen);
    let mut allowed: BTreeMap<SyscallNr, AllowedCall> = BTreeMap::new();
    let mut sites: BTreeMap<SyscallNr, Vec<(FunctionKey, Vaddr)>> = BTreeMap::new();
    let mut executions = Vec::new();
    for (atom, function, at) in known {
        // An address as a number is a site that nobody understands.
        let Atom::Constant(number) = atom else {
            unresolved
                .push(UnresolvedSite { site: location(program, function.0, at), reason: UnresolvedReason::Number });
            continue;
        };
        // The kernel looks at the low half of the register (arch/x86/entry/entry_64.S).
        let Ok(number) = u32::try_from(number & 0xffff_ffff) else { continue };
        // No call of x86-64 has such a number: the kernel answers ENOSYS, or takes it for one of x32, which no filter
        // of ours lets through. They come from reading on behind an array whose end is not known.
        if number >= X32_BIT {
            continue;
        }
        let number = SyscallNr(number);
        if guards.before_site(function, number).is_some_and(|guard| !reached.is_open(guard)) {
            continue;
        }
        if matches!(number, SyscallNr::EXECVE | SyscallNr::EXECVEAT) {
            executions.push((number, function, at));
        }
        sites.entry(number).or_default().push((function, at));
        allowed.entry(number).or_insert_with(|| AllowedCall {
            name: number.to_string(),
            evidence: Evidence::Site {
                site: location(program, function.0, at),
                path: steps(program, reached, function),
            },
        });
    }
    unresolved.extend(unknown.into_iter().map(|(function, at)| UnresolvedSite {
        site: location(program, function.0, at),
        reason: UnresolvedReason::Number,
    }));
    unresolved.sort_by(|a, b| (&a.site, a.reason).cmp(&(&b.site, b.reason)));
    unresolved.dedup();
    Calls { allowed, sites, unresolved, executions }
}

/// The functions from a root to `function`, by their first edges.
fn steps(program: &Program<'_>, reached: &Reachable<'_>, function: FunctionKey) -> Vec<CodeLocation> {
    path(reached, Node::Function(function)).into_iter().map(|(node, _)| place(program, node)).collect()
}

/// Where a node begins, as the policy names it.
pub(crate) fn place(program: &Program<'_>, node: Node) -> CodeLocation {
    let (Node::Function((module, _)) | Node::Object(module, _)) = node;
    location(program, module, program.start_of(node).unwrap_or_default())
}

/// A place as the policy names it.
#[must_use]
pub fn location(program: &Program<'_>, module: ModuleId, address: Vaddr) -> CodeLocation {
    let Some(module) = program.module(module) else {
        return CodeLocation { file: std::path::PathBuf::new(), address, symbol: None };
    };
    CodeLocation { file: module.path.clone(), address, symbol: symbol(module, address) }
}

/// The symbol that covers `address`, or the nearest one before it in the same function.
fn symbol(module: &crate::program::Module<'_>, address: Vaddr) -> Option<String> {
    let functions = module.summary.functions();
    let start = functions.at(address).and_then(|id| functions.function(id)).map_or(address, |f| f.start);
    let hints = module.image.function_hints();
    let behind = hints.partition_point(|hint| hint.address <= address);
    let hint = behind.checked_sub(1).and_then(|index| hints.get(index))?;
    let covers = hint.address.checked_add(hint.size).is_some_and(|end| address < end);
    if !covers && hint.address < start {
        return None;
    }
    let name = String::from_utf8_lossy(hint.name);
    let name = plain_text::line(&name);
    match address.checked_offset_from(hint.address)? {
        0 => Some(name.into_owned()),
        distance => Some(format!("{name}+{distance:#x}")),
    }
}
