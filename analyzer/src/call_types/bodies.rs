//! What machine code calls, beside what notes say of it.
//!
//! Input: one function. Output: where its body lies, and what it calls through registers and memory.
//!
//! Over-approximates: a jump of a `switch` in a function without a note is one to anywhere.

use iced_x86::{FlowControl, Instruction, Mnemonic, OpKind, Register};

use crate::address::Vaddr;
use crate::arguments::{Callee, call_sites};
use crate::functions::Function;
use crate::instruction::{Role, fixed_memory_operand, role};
use crate::program::Module;
use crate::value::Atom;

/// Whether all of a body lies between two addresses.
pub(super) fn lies_in(function: &Function, start: Vaddr, end: Vaddr) -> bool {
    function.extents.iter().all(|&(from, to)| start <= from && to <= end)
}

/// What a function without a note calls beyond what its instructions name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Computed {
    /// Nothing.
    Nothing,
    /// What its callers pass as these parameters.
    Parameters(Vec<u16>),
    /// Anything.
    Anything,
}

/// What a function's code calls or jumps to through a register, or through memory other than a pointer that the linker
/// filled.
pub(super) fn computed_calls(module: &Module<'_>, function: &Function) -> Computed {
    if !function.has_indirect_call && !function.has_indirect_jump {
        return Computed::Nothing;
    }
    let instructions = function.instructions(&module.image);
    let data = module.summary.data();
    let is_bound = |instruction: &Instruction| {
        fixed_memory_operand(instruction).is_some_and(|slot| {
            let range = slot..slot.checked_add(1).unwrap_or(slot);
            data.pointers_in(&range).iter().any(|pointer| pointer.is_linkage)
                || (data.pointer_at(slot).is_some() && module.image.is_constant(slot))
        })
    };
    let is_computed = |i: &&Instruction| matches!(role(i), Role::IndirectCall | Role::IndirectJump) && !is_bound(i);
    let computed: Vec<_> = instructions.iter().filter(is_computed).collect();
    if computed.is_empty() || restores_context(&instructions, &computed) {
        return Computed::Nothing;
    }
    parameters(module, function, &computed).map_or(Computed::Anything, Computed::Parameters)
}

/// The parameters that all computed calls enter, if they enter nothing else.
fn parameters(module: &Module<'_>, function: &Function, computed: &[&Instruction]) -> Option<Vec<u16>> {
    let sites = call_sites(&module.code(), function, |callee| !matches!(callee, Callee::Direct(_)));
    let mut found = Vec::new();
    for instruction in computed {
        let site = sites.iter().find(|site| site.at == Vaddr(instruction.ip()))?;
        match site.target.single() {
            Some(Atom::Parameter(number)) => found.push(number),
            _ => return None,
        }
    }
    Some(found)
}

/// Whether a function is like `longjmp`: it loads the stack pointer, and goes on at an address beside it, which nobody
/// but its counterpart can have stored there (C17 7.13.2.1): it stores nothing itself.
fn restores_context(instructions: &[Instruction], computed: &[&Instruction]) -> bool {
    let [jump] = computed else { return false };
    let loads_stack = |i: &Instruction| {
        i.mnemonic() == Mnemonic::Mov
            && i.op0_register() == Register::RSP
            && i.op1_kind() == OpKind::Memory
            && i.memory_base() == Register::RDI
    };
    let stores = |i: &Instruction| {
        i.op0_kind() == OpKind::Memory && matches!(i.mnemonic(), Mnemonic::Mov) || i.mnemonic() == Mnemonic::Push
    };
    jump.flow_control() == FlowControl::IndirectBranch
        && jump.op0_kind() == OpKind::Memory
        && jump.memory_base() == Register::RDI
        && instructions.iter().any(loads_stack)
        && !instructions.iter().any(stores)
}
