//! What machine code calls, beside what notes say of it.
//!
//! Input: one function. Output: where its body lies, and what it calls through registers and memory.
//!
//! Over-approximates: a jump of a `switch` in a function without a note is one to anywhere; so is a return from one that
//! sets the stack pointer, or writes where it returns to.

use iced_x86::{FlowControl, Instruction, Mnemonic, OpKind, Register};

use crate::address::Vaddr;
use crate::arguments::{Callee, call_sites};
use crate::functions::Function;
use crate::instruction::{Role, fixed_memory_operand, role};
use crate::notes::FunctionNote;
use crate::program::Module;
use crate::value::Atom;

/// Whether the symbols of a note's address, if there are any, have one of its names: else somebody moved code behind the
/// linker.
pub(crate) fn has_its_name(module: &Module<'_>, note: &FunctionNote) -> bool {
    let hints = module.image.function_hints();
    let first = hints.partition_point(|hint| hint.address < note.address);
    let mut here = hints.iter().skip(first).take_while(|hint| hint.address == note.address).peekable();
    let is_its = |name: &[u8]| {
        let plain = name.split(|&byte| byte == b'@').next().unwrap_or(name);
        std::iter::once(&note.name).chain(&note.aliases).any(|own| own.as_bytes() == plain)
    };
    here.peek().is_none() || here.any(|hint| is_its(hint.name))
}

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
    let instructions = function.instructions(&module.image);
    if !function.has_indirect_call && !function.has_indirect_jump {
        return if returns_elsewhere(&instructions) { Computed::Anything } else { Computed::Nothing };
    }
    let data = module.summary.data();
    let is_bound = |slot: Vaddr| {
        let range = slot..slot.checked_add(1).unwrap_or(slot);
        data.pointers_in(&range).iter().any(|pointer| pointer.is_linkage)
            || (data.pointer_at(slot).is_some() && module.image.is_constant(slot))
    };
    let leaves = |i: &Instruction| matches!(role(i), Role::IndirectCall | Role::IndirectJump);
    let is_computed = |i: &&Instruction| leaves(i) && !fixed_memory_operand(i).is_some_and(is_bound);
    let computed: Vec<_> = instructions.iter().filter(is_computed).collect();
    if restores_context(&instructions, &computed) && has_counterpart(module, &computed) {
        return Computed::Nothing;
    }
    if returns_elsewhere(&instructions) {
        return Computed::Anything;
    }
    if computed.is_empty() {
        return Computed::Nothing;
    }
    match parameters(module, function, &computed, is_bound) {
        Some(numbers) if numbers.is_empty() => Computed::Nothing,
        Some(numbers) => Computed::Parameters(numbers),
        None => Computed::Anything,
    }
}

/// The parameters that all computed calls enter, if they enter nothing else but what the code names.
fn parameters(
    module: &Module<'_>,
    function: &Function,
    computed: &[&Instruction],
    is_bound: impl Fn(Vaddr) -> bool,
) -> Option<Vec<u16>> {
    let sites = call_sites(&module.code(), function, |callee| !matches!(callee, Callee::Direct(_)));
    let mut found = Vec::new();
    for instruction in computed {
        let site = sites.iter().find(|site| site.at == Vaddr(instruction.ip()))?;
        match site.target.single() {
            Some(Atom::Parameter(number)) => found.push(number),
            Some(Atom::Address(_)) => {}
            Some(Atom::Global(slot)) if is_bound(slot) => {}
            _ => return None,
        }
    }
    Some(found)
}

/// Whether a function may return to where no call has come from: it takes the stack pointer from somewhere else than the
/// frame pointer, or writes the place of its return address, or pushes one, right before it returns.
fn returns_elsewhere(instructions: &[Instruction]) -> bool {
    let on_stack = |i: &Instruction| i.memory_base() == Register::RSP && i.memory_index() == Register::None;
    let sets_stack = |i: &Instruction| match i.mnemonic() {
        Mnemonic::Mov => i.op0_register() == Register::RSP && i.op1_register() != Register::RBP,
        Mnemonic::Lea => i.op0_register() == Register::RSP && !on_stack(i) && i.memory_base() != Register::RBP,
        Mnemonic::Pop => i.op0_register() == Register::RSP,
        Mnemonic::Xchg => i.op0_register() == Register::RSP || i.op1_register() == Register::RSP,
        _ => false,
    };
    let writes_return = |i: &Instruction| {
        let is_place = i.op0_kind() == OpKind::Memory && on_stack(i) && i.memory_displacement64() == 0;
        i.mnemonic() == Mnemonic::Push || (is_place && i.mnemonic() != Mnemonic::Cmp && i.mnemonic() != Mnemonic::Test)
    };
    let before_return = |pair: &[Instruction]| match pair {
        [first, second] => second.flow_control() == FlowControl::Return && writes_return(first),
        _ => false,
    };
    instructions.iter().any(|i| i.flow_control() == FlowControl::Return)
        && (instructions.iter().any(sets_stack) || instructions.windows(2).any(before_return))
}

/// Whether a function is like `longjmp`: it loads the stack pointer, and goes on at an address beside it, which nobody
/// but its counterpart stores there (C17 7.13.2.1): it stores nothing itself.
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

/// Whether another function of the file stores where it returns to, at the place that the jump reads: `setjmp`.
fn has_counterpart(module: &Module<'_>, computed: &[&Instruction]) -> bool {
    let [jump] = computed else { return false };
    let place = jump.memory_displacement64();
    let reads_return = |i: &Instruction| match i.mnemonic() {
        Mnemonic::Mov => {
            i.op1_kind() == OpKind::Memory && i.memory_base() == Register::RSP && i.memory_displacement64() == 0
        }
        Mnemonic::Pop => true,
        _ => false,
    };
    let stores = |i: &Instruction, register: Register| {
        let is_place = i.memory_base() == Register::RDI && i.memory_displacement64() == place;
        i.mnemonic() == Mnemonic::Mov && i.op0_kind() == OpKind::Memory && is_place && i.op1_register() == register
    };
    module.summary.functions().all().iter().any(|function| {
        let instructions = function.instructions(&module.image);
        let mut addresses = instructions.iter().filter(|i| reads_return(i)).map(Instruction::op0_register);
        addresses.any(|register| instructions.iter().any(|i| stores(i, register)))
    })
}
