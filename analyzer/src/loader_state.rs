//! What the loader leaves behind when it enters the program.
//!
//! Input: the interpreter. Output: addresses in it that run later, and names that it has looked up in the C library.
//! Its start-up itself ran before the filter was on, and glibc's never runs again in the same process. What stays of it
//! (glibc: `sysdeps/x86_64/dl-machine.h`, `elf/rtld.c`, `elf/dl-minimal.c`, `sysdeps/nptl/dl-mutex.c`):
//!
//! * the address that its entry code hands to the program in a register: `_dl_fini`;
//! * addresses of its functions that it has stored in global variables;
//! * functions of the C library that it has looked up by name: `malloc` and its kin, mutexes;
//! * the trampolines that bind a function at its first call, which are in no table: they save the vector registers.
//!
//! Over-approximates: every function that stores an address, and every name that it knows, counts as if it had run.
//! May miss: addresses that the start-up stores through pointers.

use std::collections::BTreeSet;

use iced_x86::{Instruction, Mnemonic, OpKind};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::address::Vaddr;
use crate::code::Code;
use crate::dataflow;
use crate::elf::{Image, RelocationTarget, SymbolRelocationKind};
use crate::functions::{Function, code_bytes};
use crate::instruction::{ReferenceKind, fixed_memory_operand};
use crate::program::{Module, Program};
use crate::registers::State;
use crate::value::{Atom, Value};

/// Names that the loader looks up and calls before the program starts, and never again in its namespace
/// (`elf/dl-call-libc-early-init.c`).
pub const CALLED_BEFORE_START: [&[u8]; 1] = [b"__libc_early_init"];

/// Names under which musl's loader looks up its own later stages, once it has relocated itself (`ldso/dynlink.c`).
pub const STAGES_OF_MUSL: [&[u8]; 2] = [b"__dls2b", b"__dls3"];

/// Code of an interpreter that may run although nothing refers to it any more.
#[derive(Debug, Serialize, Deserialize)]
pub struct LoaderState {
    kept: Vec<(Vaddr, Kept)>,
    binders: Vec<Vaddr>,
}

/// Why an address in the loader is known outside of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kept {
    /// Its entry code leaves it in a register.
    HandedOver,
    /// It is in a variable.
    Stored,
}

impl Kept {
    /// The same in words.
    #[must_use]
    pub const fn reason(self) -> &'static str {
        match self {
            Self::HandedOver => "handed over by the loader",
            Self::Stored => "stored by the loader",
        }
    }
}

impl LoaderState {
    /// Looks through the code of an interpreter.
    #[must_use]
    pub fn new(code: &Code<'_, '_>) -> Self {
        let functions = code.functions;
        let entry = code.image.entry().and_then(|at| functions.at(at)).and_then(|id| functions.function(id));
        let handed_over = entry.into_iter().flat_map(code_addresses).map(|at| (at, Kept::HandedOver));
        let stored: Vec<Vaddr> =
            functions.all().par_iter().with_max_len(1).flat_map_iter(|f| stored_addresses(code, f)).collect();
        let stored = stored.into_iter().map(|at| (at, Kept::Stored));
        let mut kept: Vec<(Vaddr, Kept)> = handed_over.chain(stored).collect();
        kept.retain(|(at, _)| code.image.is_code(*at));
        let binders = functions.all().par_iter().filter(|function| saves_vector_registers(code.image, function));
        Self { kept, binders: binders.map(|function| function.start).collect() }
    }

    /// Addresses that it handed over or stored, and how.
    #[must_use]
    pub fn kept(&self) -> &[(Vaddr, Kept)] {
        &self.kept
    }

    /// Functions that bind others at their first call.
    #[must_use]
    pub fn binders(&self) -> &[Vaddr] {
        &self.binders
    }
}

/// Names of functions that the interpreter may have looked up.
#[must_use]
pub fn looked_up<'data>(interpreter: &Module<'data>) -> Vec<&'data [u8]> {
    let taken = interpreter.summary.functions().all().iter().flat_map(|f| &f.references);
    let texts = taken.filter(|r| r.kind == ReferenceKind::Address).filter_map(|r| interpreter.image.c_string(r.target));
    let mut names: Vec<&[u8]> = texts.filter(|name| !CALLED_BEFORE_START.contains(name)).collect();
    names.sort_unstable();
    names.dedup();
    names
}

/// Whether some module leaves functions to be bound at their first call.
#[must_use]
pub fn binds_lazily(program: &Program<'_>) -> bool {
    program.modules().any(|(_, module)| {
        let is_eager = module.image.dynamic().is_none_or(|dynamic| dynamic.bind_now);
        let is_slot = |target: &RelocationTarget| {
            matches!(target, RelocationTarget::Symbol { kind: SymbolRelocationKind::JumpSlot, .. })
        };
        !is_eager && module.image.relocations().iter().any(|r| is_slot(&r.target))
    })
}

fn code_addresses(function: &Function) -> impl Iterator<Item = Vaddr> {
    function.references.iter().filter(|r| r.kind == ReferenceKind::Address).map(|r| r.target)
}

/// Addresses of code that the function stores at fixed places.
fn stored_addresses(code: &Code<'_, '_>, function: &Function) -> BTreeSet<Vaddr> {
    if !code_addresses(function).any(|at| code.image.is_code(at)) {
        return BTreeSet::new();
    }
    let mut found = BTreeSet::new();
    let note = |found: &mut BTreeSet<Vaddr>, store: &Instruction, state: &State| {
        let value = state.register(store.op1_register());
        let addresses = value.atoms().unwrap_or(&[]).iter().filter_map(|atom| match atom {
            Atom::Address(at) => Some(*at),
            _ => None,
        });
        found.extend(addresses.filter(|at| code.image.is_code(*at)));
    };
    // What is known of a store without a look at the paths to it is so on all of them.
    let (memory, (instructions, cfg)) = (code.memory(), code.coarse_control_flow(function));
    let mut is_enough = true;
    dataflow::observe_locally(&memory, &instructions, &cfg, is_store, |i, _, state| {
        is_enough &= state.register(i.op1_register()) != Value::Top;
        note(&mut found, i, state);
    });
    if !is_enough {
        code.observe(function, is_store, |i, _, state| note(&mut found, i, state));
    }
    found
}

fn is_store(instruction: &Instruction) -> bool {
    instruction.mnemonic() == Mnemonic::Mov
        && instruction.op0_kind() == OpKind::Memory
        && instruction.op1_kind() == OpKind::Register
        && fixed_memory_operand(instruction).is_some()
}

fn saves_vector_registers(image: &Image<'_>, function: &Function) -> bool {
    use Mnemonic::{Fxsave, Fxsave64, Xsave, Xsave64, Xsavec, Xsavec64};
    // Their opcodes begin so (SDM volume 2): few functions have such bytes, and need be decoded.
    let may_save = function.extents.iter().any(|&(start, end)| {
        code_bytes(image, start, end).unwrap_or(&[]).windows(2).any(|pair| matches!(pair, [0x0f, 0xae | 0xc7]))
    });
    let saves = |i: &Instruction| matches!(i.mnemonic(), Fxsave | Fxsave64 | Xsave | Xsave64 | Xsavec | Xsavec64);
    may_save && function.instructions(image).iter().any(saves)
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;
    use crate::summary::ModuleSummary;

    /// A library of these instructions.
    fn library(assembly: &str) -> Vec<u8> {
        let folder = tempfile::tempdir().unwrap();
        let (source, library) = (folder.path().join("main.s"), folder.path().join("main.so"));
        std::fs::write(&source, assembly).unwrap();
        let result =
            Command::new("cc").args(["-shared", "-nostdlib", "-o"]).arg(&library).arg(&source).output().unwrap();
        assert!(result.status.success(), "{}", String::from_utf8_lossy(&result.stderr));
        std::fs::read(library).unwrap()
    }

    fn with_state<T>(library: &[u8], look: impl FnOnce(&Image<'_>, &LoaderState) -> T) -> T {
        let image = Image::parse(library).unwrap();
        let summary = ModuleSummary::new(&image);
        look(&image, summary.loader_state(&image))
    }

    fn symbol(image: &Image<'_>, name: &str) -> Vaddr {
        image.function_hints().iter().find(|hint| hint.name == name.as_bytes()).unwrap().address
    }

    /// Through the table of the second switch nothing gets to the store, and all registers would be unknown there.
    #[test]
    fn an_address_is_stored_behind_one_of_two_switches() {
        let text = "\
            .type target, @function\n.type store, @function\n\
            target: .cfi_startproc\n mov $110, %eax\n syscall\n ret\n .cfi_endproc\n\
            store: .cfi_startproc\n lea target(%rip), %rdx\n cmp $1, %rsi\n ja 9f\n\
            lea first(%rip), %rcx\n movslq (%rcx,%rsi,4), %rax\n add %rcx, %rax\n jmp *%rax\n\
            1: mov %rdx, slot(%rip)\n jmp 9f\n\
            2: rdtsc\n lea second(%rip), %rcx\n movslq (%rcx,%rsi,4), %rax\n add %rcx, %rax\n jmp *%rax\n\
            3: mov $1, %eax\n ret\n 4: mov $2, %eax\n ret\n 9: ret\n .cfi_endproc\n\
            .section .rodata\n .p2align 2\n first: .long 1b-first, 2b-first\n second: .long 3b-second, 4b-second\n\
            .data\n slot: .quad 0\n";
        with_state(&library(text), |image, state| {
            assert_eq!(state.kept(), [(symbol(image, "target"), Kept::Stored)]);
        });
    }

    /// A description that says more than there is makes no difference.
    #[test]
    fn binders_save_vector_registers() {
        const LENGTH: u32 = 0x2a3;
        let text = format!(
            ".type binder, @function\n.type other, @function\n\
            binder: .cfi_startproc\n sub $512, %rsp\n fxsave (%rsp)\n add $512, %rsp\n ret\n\
            .skip {LENGTH} - (. - binder), 0x90\n .cfi_endproc\n\
            other: .cfi_startproc\n ret\n .cfi_endproc\n"
        );
        let mut library = library(&text);
        with_state(&library, |image, state| assert_eq!(state.binders(), [symbol(image, "binder")]));
        let length = library.windows(4).position(|bytes| bytes == LENGTH.to_le_bytes()).unwrap();
        library[length..length + 4].copy_from_slice(&0x8000_u32.to_le_bytes());
        with_state(&library, |image, state| assert!(state.binders().contains(&symbol(image, "binder"))));
    }
}
