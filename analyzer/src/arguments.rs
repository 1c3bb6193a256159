//! The arguments of calls: what a function passes to another one.
//!
//! Input: one function and the calls in it that matter. Output: a [`CallSite`] for each of them. With it a number or a
//! name that is a parameter is followed to the callers, level by level (DESIGN section 3, rules 5 to 7).

use std::sync::Arc;

use iced_x86::{FlowControl, Instruction, OpKind, Register};

use crate::address::Vaddr;
use crate::cfg::direct_jump_target;
use crate::code::Code;
use crate::functions::Function;
use crate::instruction::fixed_memory_operand;
use crate::registers::{ARGUMENTS, State};
use crate::value::Value;

/// How a call names its target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Callee {
    /// The address of the target, or of a stub of the procedure linkage table.
    Direct(Vaddr),
    /// The memory slot that holds the address of the target.
    Through(Vaddr),
    /// A register, or memory that a register points to.
    Computed,
}

/// A call or tail call with the machine state in which it is made.
#[derive(Clone, Debug)]
pub struct CallSite {
    /// The instruction.
    pub at: Vaddr,
    /// Whom it calls.
    pub callee: Callee,
    /// What a computed target can be.
    pub target: Value,
    /// How many bytes behind a register's address a computed target is read.
    pub displacement: Option<i64>,
    /// Whether it is a jump, which leaves the return address where it was.
    pub is_jump: bool,
    /// What the caller's registers and stack hold before the instruction.
    pub state: State,
}

/// Call sites of one function.
pub type Sites = Arc<[Arc<CallSite>]>;

impl CallSite {
    /// The callee's n-th integer argument, counted from 0.
    #[must_use]
    pub fn argument(&self, number: u16) -> Value {
        self.state.argument(number, if self.is_jump { 8 } else { 0 })
    }

    /// The integer arguments in registers.
    pub(crate) fn arguments(&self) -> impl Iterator<Item = Value> {
        (0..).zip(ARGUMENTS).map(|(number, _)| self.argument(number))
    }
}

/// Whether the instruction calls: of those that have a [`callee`], the others are jumps.
#[must_use]
pub fn is_call(instruction: &Instruction) -> bool {
    matches!(instruction.flow_control(), FlowControl::Call | FlowControl::IndirectCall)
}

/// The target of a call or of a jump that may leave the function; `None` for other instructions.
#[must_use]
pub fn callee(instruction: &Instruction) -> Option<Callee> {
    match instruction.flow_control() {
        FlowControl::Call if instruction.is_call_near() => {
            Some(Callee::Direct(Vaddr(instruction.near_branch_target())))
        }
        FlowControl::UnconditionalBranch | FlowControl::ConditionalBranch => {
            direct_jump_target(instruction).map(Callee::Direct)
        }
        FlowControl::IndirectCall | FlowControl::IndirectBranch => {
            Some(fixed_memory_operand(instruction).map_or(Callee::Computed, Callee::Through))
        }
        _ => None,
    }
}

/// The calls of `function` whose callee `wanted` picks.
#[must_use]
pub fn call_sites(code: &Code<'_, '_>, function: &Function, wanted: impl Fn(Callee) -> bool) -> Vec<CallSite> {
    let leaves = |c| !matches!(c, Callee::Direct(at) if function.contains(at) && at != function.start);
    let picks = |i: &Instruction| callee(i).is_some_and(|c| leaves(c) && wanted(c));
    let mut found = Vec::new();
    code.observe(function, picks, |instruction, at, state| {
        if let Some(callee) = callee(instruction) {
            let is_jump = !is_call(instruction);
            let target = match callee {
                Callee::Computed => state.branch_target(instruction, &code.memory()),
                Callee::Direct(_) | Callee::Through(_) => Value::Bottom,
            };
            let is_table = callee == Callee::Computed && instruction.op0_kind() == OpKind::Memory;
            let displacement = (is_table && instruction.memory_index() == Register::None)
                .then(|| instruction.memory_displacement64().cast_signed());
            found.push(CallSite { at, callee, target, displacement, is_jump, state: state.clone() });
        }
    });
    found
}
