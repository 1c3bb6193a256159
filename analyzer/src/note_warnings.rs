//! Where compilers' notes are not believed.
//!
//! Input: a program and what of it is reached. Output: assumptions for the policy: files whose notes are ignored,
//! functions whose symbols have other names than their note, and such whose code makes system calls that their note does
//! not have. Code counts in any case.
//!
//! May miss: contradictions in functions whose size is not known.

use std::collections::BTreeSet;

use crate::address::Vaddr;
use crate::call_types::has_its_name;
use crate::evidence::location;
use crate::notes::FunctionNote;
use crate::policy::{Assumption, AssumptionKind};
use crate::program::{Module, Program};
use crate::reachability::Reachable;

/// What is to be said about the notes of all modules.
#[must_use]
pub(crate) fn find(program: &Program<'_>, reached: &Reachable<'_>) -> BTreeSet<Assumption> {
    let mut found = BTreeSet::new();
    for (id, module) in program.modules() {
        if let Some(problem) = module.summary.notes_problem() {
            let text =
                format!("the compiler's notes in {} are ignored, its code counts: {problem}", module.path.display());
            found.insert(Assumption { kind: AssumptionKind::CompilerNotes, text, site: None, flag: None });
        }
        let functions = module.summary.functions();
        for note in &module.summary.notes().functions {
            if note.address != Vaddr(0) && !has_its_name(module, note) {
                let text = format!(
                    "the compiler's note of {} is ignored, its code counts: the symbols of its address have other names",
                    note.name
                );
                let site = Some(location(program, id, note.address));
                found.insert(Assumption { kind: AssumptionKind::CompilerNotes, text, site, flag: None });
                continue;
            }
            let is_silent = !note.is_opaque && note.syscalls.iter().all(|call| !call.is_instruction);
            let Some(key) = functions.at(note.address).filter(|_| is_silent).map(|function| (id, function)) else {
                continue;
            };
            let sites = functions.function(key.1).map_or(&[][..], |function| &function.syscalls);
            let site = sites.iter().copied().find(|&site| is_inside(module, note, site));
            if let Some(site) = site.filter(|_| reached.phase(key).is_some()) {
                let text = format!(
                    "{} makes a system call here that its compiler's note does not have; both count",
                    note.name
                );
                let site = Some(location(program, id, site));
                found.insert(Assumption { kind: AssumptionKind::CompilerNotes, text, site, flag: None });
            }
        }
    }
    found
}

/// Whether an instruction is known to be the function's own: by its symbol, or by its frame description.
fn is_inside(module: &Module<'_>, note: &FunctionNote, at: Vaddr) -> bool {
    let hints = module.image.function_hints();
    let first = hints.partition_point(|hint| hint.address < note.address);
    let mut own = hints.iter().skip(first).take_while(|hint| hint.address == note.address);
    let by_symbol = own.any(|hint| hint.address.checked_add(hint.size).is_some_and(|end| at < end));
    let frame = module.image.frame_before(at).filter(|frame| frame.start == note.address && at < frame.end);
    by_symbol || frame.is_some()
}
