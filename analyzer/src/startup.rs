//! Where execution stands when the filter is on, and what runs without anybody calling it: DESIGN section 3, rule 1.
//!
//! Input: a [`Program`]. Output: its [`Root`]s. With glibc, ld.so runs the constructors of libraries before it enters
//! the program (`elf/dl-init.c`) and hands over `_dl_fini`, which runs the destructors; the program's own constructors
//! run from `__libc_start_main`. With musl (`ldso/dynlink.c`) and in static files all constructors run after the entry.

use std::ops::Range;

use crate::address::Vaddr;
use crate::data::PointerTarget;
use crate::elf::{Dynamic, RelocationTarget};
use crate::loader_state::{CALLED_BEFORE_START, STAGES_OF_MUSL, binds_lazily, looked_up};
use crate::program::{Module, ModuleId, ModuleRole, Program};
use crate::reachability::{Phase, Root};

/// Since when a program has the filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub enum Start {
    /// The stub installs it at the entry point.
    AtEntry,
    /// It was there before: who executed the program had it.
    Inherited,
    /// The same, and what the program does from its entry point on is known otherwise: its loader counts, with the
    /// constructors that this runs.
    UpToEntry,
}

/// Why the entry point of a program is a [`Root`].
pub(crate) const ENTRY_POINT: &str = "entry point";

/// All roots of a program.
#[must_use]
pub fn roots(program: &Program<'_>, start: Start) -> Vec<Root> {
    let interpreter = program.modules().find(|(_, m)| m.role == ModuleRole::Interpreter);
    let glibc_loader = interpreter.filter(|(_, m)| is_glibc_loader(m));
    let mut roots = Vec::new();
    for (id, module) in program.modules() {
        let runs_early = glibc_loader.is_some() && matches!(module.role, ModuleRole::Needed | ModuleRole::Interpreter);
        let constructors = if runs_early && start == Start::AtEntry { Phase::Before } else { Phase::After };
        if start != Start::UpToEntry {
            module_roots(program, id, constructors, &mut roots);
        } else if runs_early && let Some(dynamic) = module.image.dynamic() {
            constructor_roots(program, id, dynamic, constructors, &mut roots);
        }
    }
    if let Some((id, module)) = interpreter.filter(|_| start != Start::AtEntry) {
        let reason = "start of the loader";
        let stages =
            STAGES_OF_MUSL.iter().flat_map(|name| program.exported(name, |m| m.role == ModuleRole::Interpreter));
        let starts = module.image.entry().into_iter().chain(stages.map(|found| found.address));
        roots.extend(starts.map(|at| Root { at: (id, at), phase: Phase::After, reason, escapes: false }));
    }
    if let Some((id, module)) = glibc_loader {
        loader_roots(program, id, module, start, &mut roots);
    }
    roots
}

/// What glibc's loader leaves behind in itself and in the C library.
fn loader_roots(program: &Program<'_>, id: ModuleId, module: &Module<'_>, start: Start, roots: &mut Vec<Root>) {
    let state = module.summary.loader_state(&module.image);
    let binders = state.binders().iter().filter(|_| binds_lazily(program));
    let binders = binders.map(|&at| (at, "binds functions at their first call"));
    for (at, reason) in state.kept().iter().map(|(at, kept)| (*at, kept.reason())).chain(binders) {
        roots.push(Root { at: (id, at), phase: Phase::After, reason, escapes: true });
    }
    let mut looked_up_by_name = |name: &[u8], phase, reason| {
        for found in program.exported(name, |m| m.role == ModuleRole::Needed) {
            roots.push(Root { at: (found.module, found.address), phase, reason, escapes: true });
        }
    };
    let at_start = if start == Start::AtEntry { Phase::Before } else { Phase::After };
    for name in CALLED_BEFORE_START {
        looked_up_by_name(name, at_start, "called by the loader at start");
    }
    for name in looked_up(module) {
        looked_up_by_name(name, Phase::After, "looked up by the loader");
    }
}

/// Whether a file is glibc's loader.
#[must_use]
pub fn is_glibc_loader(module: &Module<'_>) -> bool {
    let soname = module.image.dynamic().and_then(|d| d.soname);
    soname.is_some_and(|name| name.starts_with(b"ld-linux"))
}

fn module_roots(program: &Program<'_>, id: ModuleId, constructors: Phase, roots: &mut Vec<Root>) {
    let Some(module) = program.module(id) else { return };
    let add =
        |roots: &mut Vec<Root>, at, phase, reason| roots.push(Root { at: (id, at), phase, reason, escapes: false });
    if let Some(entry) = module.image.entry().filter(|_| module.role == ModuleRole::Main) {
        add(roots, entry, Phase::After, ENTRY_POINT);
    }
    if let Some(dynamic) = module.image.dynamic() {
        constructor_roots(program, id, dynamic, constructors, roots);
        destructor_roots(program, id, dynamic, roots);
    }
    if let Some(tls) = module.image.tls() {
        let end = tls.p_vaddr.checked_add(tls.p_filesz).unwrap_or(tls.p_vaddr);
        pointed(program, id, &(tls.p_vaddr..end), Phase::After, "initial value of a thread-local variable", roots);
    }
    if module.role == ModuleRole::Main && module.image.interpreter().is_none() {
        for relocation in module.image.relocations() {
            if let RelocationTarget::Irelative(resolver) = relocation.target {
                add(roots, resolver, Phase::After, "resolver of an indirect function");
            }
        }
    }
}

fn constructor_roots(program: &Program<'_>, id: ModuleId, dynamic: &Dynamic<'_>, phase: Phase, roots: &mut Vec<Root>) {
    slots(program, id, &dynamic.preinit_array, phase, "DT_PREINIT_ARRAY", roots);
    slots(program, id, &dynamic.init_array, phase, "DT_INIT_ARRAY", roots);
    roots.extend(dynamic.init.map(|at| Root { at: (id, at), phase, reason: "DT_INIT", escapes: false }));
}

fn destructor_roots(program: &Program<'_>, id: ModuleId, dynamic: &Dynamic<'_>, roots: &mut Vec<Root>) {
    let phase = Phase::After;
    slots(program, id, &dynamic.fini_array, phase, "DT_FINI_ARRAY", roots);
    roots.extend(dynamic.fini.map(|at| Root { at: (id, at), phase, reason: "DT_FINI", escapes: false }));
}

/// Adds what an array of pointers to functions points to.
fn slots(
    program: &Program<'_>,
    id: ModuleId,
    array: &[Vaddr],
    phase: Phase,
    reason: &'static str,
    roots: &mut Vec<Root>,
) {
    for &slot in array {
        pointed(program, id, &(slot..slot.checked_add(1).unwrap_or(slot)), phase, reason, roots);
    }
}

/// Adds what the pointers in a range of data point to.
fn pointed(
    program: &Program<'_>,
    id: ModuleId,
    range: &Range<Vaddr>,
    phase: Phase,
    reason: &'static str,
    roots: &mut Vec<Root>,
) {
    let Some(module) = program.module(id) else { return };
    for pointer in module.summary.data().pointers_in(range) {
        let mut add = |at| roots.push(Root { at, phase, reason, escapes: false });
        match pointer.target {
            PointerTarget::Local(at) | PointerTarget::Resolver(at) => add((id, at)),
            PointerTarget::Symbol(index, _) => {
                program.bind(id, index).into_iter().for_each(|found| add((found.module, found.address)));
            }
            PointerTarget::Copy(_) | PointerTarget::TlsDescriptor => {}
        }
    }
}
