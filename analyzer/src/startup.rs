//! Where execution stands when the filter is on, and what runs without anybody calling it: DESIGN section 3, rule 1.
//!
//! Input: a [`Program`]. Output: its [`Root`]s. With glibc, ld.so runs the constructors of libraries before it enters
//! the program (`elf/dl-init.c`) and hands over `_dl_fini`, which runs the destructors; the program's own constructors
//! run from `__libc_start_main`. With musl (`ldso/dynlink.c`) and in static files all constructors run after the entry.

use crate::address::Vaddr;
use crate::data::PointerTarget;
use crate::elf::{Dynamic, RelocationTarget};
use crate::program::{Module, ModuleId, ModuleRole, Program};
use crate::reachability::{Phase, Root};

/// Names that glibc's loader looks up and calls before the program starts, and never again in its namespace
/// (`elf/dl-call-libc-early-init.c`).
pub const CALLED_BEFORE_START: [&[u8]; 1] = [b"__libc_early_init"];

/// All roots of a program.
#[must_use]
pub fn roots(program: &Program<'_>) -> Vec<Root> {
    let runs_constructors_early =
        program.modules().any(|(_, m)| m.role == ModuleRole::Interpreter && is_glibc_loader(m));
    let mut roots = Vec::new();
    for (id, module) in program.modules() {
        let constructors = match module.role {
            ModuleRole::Needed | ModuleRole::Interpreter if runs_constructors_early => Phase::Before,
            _ => Phase::After,
        };
        module_roots(id, module, constructors, &mut roots);
    }
    for name in CALLED_BEFORE_START {
        for found in program.exported(name, |_| true) {
            let at = (found.module, found.address);
            roots.push(Root { at, phase: Phase::Before, reason: "called by the loader at start", escapes: false });
        }
    }
    roots
}

/// Whether the interpreter is glibc's.
fn is_glibc_loader(module: &Module<'_>) -> bool {
    let soname = module.image.dynamic().and_then(|d| d.soname);
    soname.is_some_and(|name| name.starts_with(b"ld-linux"))
}

fn module_roots(id: ModuleId, module: &Module<'_>, constructors: Phase, roots: &mut Vec<Root>) {
    let mut add = |at: Vaddr, phase, reason| roots.push(Root { at: (id, at), phase, reason, escapes: false });
    match (module.role, module.image.entry()) {
        (ModuleRole::Main, Some(entry)) => add(entry, Phase::After, "entry point"),
        (ModuleRole::Interpreter, Some(entry)) => add(entry, Phase::Before, "start of the loader"),
        _ => {}
    }
    if let Some(dynamic) = module.image.dynamic() {
        dynamic_roots(module, dynamic, constructors, &mut add);
    }
    if let Some(tls) = module.image.tls() {
        let end = tls.p_vaddr.checked_add(tls.p_filesz).unwrap_or(tls.p_vaddr);
        for pointer in module.summary.data().pointers_in(&(tls.p_vaddr..end)) {
            if let PointerTarget::Local(at) = pointer.target {
                add(at, Phase::After, "initial value of a thread-local variable");
            }
        }
    }
    if module.role == ModuleRole::Main && module.image.interpreter().is_none() {
        for relocation in module.image.relocations() {
            if let RelocationTarget::Irelative(resolver) = relocation.target {
                add(resolver, Phase::After, "resolver of an indirect function");
            }
        }
    }
}

/// Constructors and destructors.
fn dynamic_roots(
    module: &Module<'_>,
    dynamic: &Dynamic<'_>,
    constructors: Phase,
    add: &mut impl FnMut(Vaddr, Phase, &'static str),
) {
    let mut add_slots = |slots: &[Vaddr], phase, reason| {
        for &slot in slots {
            let behind = slot.checked_add(1).unwrap_or(slot);
            for pointer in module.summary.data().pointers_in(&(slot..behind)) {
                if let PointerTarget::Local(at) = pointer.target {
                    add(at, phase, reason);
                }
            }
        }
    };
    add_slots(&dynamic.preinit_array, constructors, "DT_PREINIT_ARRAY");
    add_slots(&dynamic.init_array, constructors, "DT_INIT_ARRAY");
    add_slots(&dynamic.fini_array, Phase::After, "DT_FINI_ARRAY");
    if let Some(init) = dynamic.init {
        add(init, constructors, "DT_INIT");
    }
    if let Some(fini) = dynamic.fini {
        add(fini, Phase::After, "DT_FINI");
    }
}
