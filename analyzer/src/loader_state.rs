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
use crate::functions::Function;
use crate::instruction::{ReferenceKind, fixed_memory_operand};
use crate::program::{Module, Program};
use crate::registers::State;
use crate::value::Atom;

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
            functions.all().par_iter().flat_map_iter(|function| stored_addresses(code, function)).collect();
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
    let (mut nearby, mut all) = (BTreeSet::new(), BTreeSet::new());
    let note = |found: &mut BTreeSet<Vaddr>, store: &Instruction, state: &State| {
        let value = state.register(store.op1_register());
        let addresses = value.atoms().unwrap_or(&[]).iter().filter_map(|atom| match atom {
            Atom::Address(at) => Some(*at),
            _ => None,
        });
        found.extend(addresses.filter(|at| code.image.is_code(*at)));
    };
    let (memory, (instructions, cfg)) = (code.memory(), code.coarse_control_flow(function));
    dataflow::observe_locally(&memory, &instructions, &cfg, is_store, |i, _, state| note(&mut nearby, i, state));
    dataflow::observe(&memory, &instructions, &cfg, is_store, |i, _, state| note(&mut all, i, state));
    // What is taken where it is stored is so whatever the paths are.
    if all != nearby && function.has_indirect_jump {
        let (instructions, cfg) = code.control_flow(function);
        all.clear();
        dataflow::observe(&memory, &instructions, &cfg, is_store, |i, _, state| note(&mut all, i, state));
    }
    all
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
        let length = end.checked_offset_from(start).unwrap_or(0);
        let bytes = image.bytes(start, length).unwrap_or(&[]);
        bytes.windows(2).any(|pair| matches!(pair, [0x0f, 0xae | 0xc7]))
    });
    let saves = |i: &Instruction| matches!(i.mnemonic(), Fxsave | Fxsave64 | Xsave | Xsave64 | Xsavec | Xsavec64);
    may_save && function.instructions(image).iter().any(saves)
}
