//! What one instruction refers to: other code, memory slots, addresses.
//!
//! Input: a decoded instruction of an image. Output: [`Reference`]s, each with its kind, and the ways into the kernel.
//! In position-independent code every address is relative to `rip`; in position-dependent code displacements and
//! immediates that fall into the image count as addresses too (DESIGN section 3, rule 2), but in Go's, whose compiler
//! and assembler write `lea` for every address (`cmd/internal/obj/x86/obj6.go`).
//!
//! Over-approximates: an integer constant that happens to look like an address of a position-dependent image counts as
//! one. May miss: addresses that code computes from parts, none of which is an address.

use iced_x86::{ConditionCode, FlowControl, Instruction, Mnemonic, OpKind, Register};
use serde::{Deserialize, Serialize};

use crate::address::Vaddr;
use crate::cfg::direct_jump_target;
use crate::elf::Image;

/// How an instruction refers to an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum ReferenceKind {
    /// Direct call.
    Call,
    /// Direct jump.
    Jump,
    /// Entry of a jump table.
    JumpTable,
    /// Landing pad for exceptions, from the language-specific data area.
    LandingPad,
    /// Call or jump through the pointer there.
    CallThrough,
    /// The memory there is read: this many bytes.
    Load(u8),
    /// The memory there is written and not read.
    Store,
    /// The address itself is used.
    Address,
}

/// One reference out of a function.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Reference {
    /// Where to.
    pub target: Vaddr,
    /// How.
    pub kind: ReferenceKind,
    /// The instruction, in bytes from the function's start.
    pub from: u32,
}

/// What an instruction is to the analysis, its references apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Nothing special.
    Plain,
    /// `syscall`.
    Syscall,
    /// `int $0x80`, `sysenter`: the call table of 32-bit programs.
    ForeignSyscall,
    /// A call whose target is in a register or in memory.
    IndirectCall,
    /// A jump whose target is in a register or in memory.
    IndirectJump,
}

/// Classifies an instruction.
#[must_use]
pub fn role(instruction: &Instruction) -> Role {
    match instruction.mnemonic() {
        Mnemonic::Syscall => Role::Syscall,
        Mnemonic::Sysenter => Role::ForeignSyscall,
        Mnemonic::Int if instruction.immediate8() == 0x80 => Role::ForeignSyscall,
        _ if instruction.flow_control() == FlowControl::IndirectBranch => Role::IndirectJump,
        _ if instruction.flow_control() == FlowControl::IndirectCall => Role::IndirectCall,
        _ => Role::Plain,
    }
}

/// Calls `add` with each address that the instruction refers to, and how; `has_absolute` says whether its numbers can
/// be addresses.
pub fn references(
    instruction: &Instruction,
    image: &Image<'_>,
    has_absolute: bool,
    mut add: impl FnMut(Vaddr, ReferenceKind),
) {
    if let Some(target) = direct_jump_target(instruction) {
        return add(target, ReferenceKind::Jump);
    }
    if instruction.is_call_near() {
        return add(Vaddr(instruction.near_branch_target()), ReferenceKind::Call);
    }
    for operand in 0..instruction.op_count() {
        match instruction.op_kind(operand) {
            OpKind::Memory => memory_reference(instruction, image, has_absolute, &mut add),
            OpKind::Immediate32 | OpKind::Immediate32to64 | OpKind::Immediate64 if has_absolute => {
                let value = Vaddr(instruction.immediate(operand));
                if image.is_code(value) || image.is_data(value) {
                    add(value, ReferenceKind::Address);
                }
            }
            _ => {}
        }
    }
}

fn memory_reference(
    instruction: &Instruction,
    image: &Image<'_>,
    has_absolute: bool,
    add: &mut impl FnMut(Vaddr, ReferenceKind),
) {
    if let Some(at) = fixed_memory_operand(instruction) {
        if !image.is_code(at) && !image.is_data(at) {
            return;
        }
        let through = matches!(instruction.flow_control(), FlowControl::IndirectCall | FlowControl::IndirectBranch);
        let bytes = u8::try_from(instruction.memory_size().size()).unwrap_or(u8::MAX);
        if instruction.mnemonic() == Mnemonic::Lea {
            add(at, ReferenceKind::Address);
        } else if through {
            add(at, ReferenceKind::CallThrough);
        } else if only_stores(instruction) {
            add(at, ReferenceKind::Store);
        } else {
            add(at, ReferenceKind::Load(bytes.max(1)));
        }
    } else if has_absolute && !is_thread_local(instruction) {
        // An array that a register indexes: all of it.
        let at = Vaddr(instruction.memory_displacement64());
        if image.is_code(at) || image.is_data(at) {
            add(at, ReferenceKind::Address);
        }
    }
}

/// The address of a memory operand that no register but `rip` takes part in.
#[must_use]
pub fn fixed_memory_operand(instruction: &Instruction) -> Option<Vaddr> {
    if instruction.is_ip_rel_memory_operand() {
        return Some(Vaddr(instruction.ip_rel_memory_address()));
    }
    let is_absolute = instruction.memory_base() == Register::None
        && instruction.memory_index() == Register::None
        && !is_thread_local(instruction);
    let is_memory = (0..instruction.op_count()).any(|operand| instruction.op_kind(operand) == OpKind::Memory);
    (is_memory && is_absolute).then(|| Vaddr(instruction.memory_displacement64()))
}

/// Whether the instruction writes its memory operand without reading it. A "no" is always safe.
fn only_stores(instruction: &Instruction) -> bool {
    use Mnemonic::{
        Mov, Movapd, Movaps, Movd, Movdqa, Movdqu, Movhpd, Movhps, Movlpd, Movlps, Movntdq, Movnti, Movntps, Movq,
        Movsd, Movss, Movupd, Movups, Vmovaps, Vmovd, Vmovdqa, Vmovdqu, Vmovq, Vmovsd, Vmovss, Vmovups,
    };
    instruction.op0_kind() == OpKind::Memory
        && (is_conditional_set(instruction)
            || matches!(
                instruction.mnemonic(),
                Mov | Movaps
                    | Movapd
                    | Movd
                    | Movdqa
                    | Movdqu
                    | Movhpd
                    | Movhps
                    | Movlpd
                    | Movlps
                    | Movntdq
                    | Movnti
                    | Movntps
                    | Movq
                    | Movsd
                    | Movss
                    | Movupd
                    | Movups
                    | Vmovaps
                    | Vmovd
                    | Vmovdqa
                    | Vmovdqu
                    | Vmovq
                    | Vmovsd
                    | Vmovss
                    | Vmovups
            ))
}

/// Whether the memory operand is relative to the thread pointer.
#[must_use]
pub fn is_thread_local(instruction: &Instruction) -> bool {
    matches!(instruction.memory_segment(), Register::FS | Register::GS)
}

/// Whether the instruction is one of `setcc`: a condition, written as 0 or 1 to its only operand.
#[must_use]
pub fn is_conditional_set(instruction: &Instruction) -> bool {
    has_condition(instruction) && instruction.op_count() == 1
}

/// Whether the instruction is one of `cmovcc`.
#[must_use]
pub fn is_conditional_move(instruction: &Instruction) -> bool {
    has_condition(instruction) && instruction.op_count() == 2
}

fn has_condition(instruction: &Instruction) -> bool {
    instruction.condition_code() != ConditionCode::None && instruction.flow_control() == FlowControl::Next
}
