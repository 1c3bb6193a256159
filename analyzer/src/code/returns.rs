//! Whether control gets behind a call: never, once, or more than once.
//!
//! Input: a call of a function, in its [`Code`]. Output: whether it may come back, and whether more than once.
//!
//! Over-approximates: a function counts as returning unless no path from its entry to a return was found. May miss: what
//! [`crate::never_return`] names.

use iced_x86::{Decoder, DecoderOptions, FlowControl, Instruction, Mnemonic, OpKind, Register};
use rustc_hash::FxHashSet;

use super::Code;
use crate::address::Vaddr;
use crate::arguments::{Callee, callee};
use crate::cfg::{direct_jump_target, falls_through};
use crate::data::PointerTarget;
use crate::functions::{Function, FunctionId, runs_off};
use crate::never_return::{self, NEVER_RETURN, RETURN_TWICE};
use crate::registers::{bit, caller_saved};
use crate::table_jumps::TableJumps;

/// How many levels of callees are looked at to prove that a call does not return.
const MAX_DEPTH: usize = 3;

/// Larger functions are no `setjmp`.
const LARGEST_SETJMP: u64 = 1024;

/// A function that stores so many callee-saved registers saves its caller's context.
const FEWEST_SAVED: u32 = 3;

impl Code<'_, '_> {
    /// Whether control may get behind a call instruction.
    pub(super) fn comes_back(&self, call: &Instruction, depth: usize) -> bool {
        match callee(call) {
            Some(Callee::Direct(at)) => self.comes_back_from(at, depth),
            Some(Callee::Through(slot)) => match self.data.pointer_at(slot) {
                Some(PointerTarget::Local(at)) if self.image.is_constant(slot) => self.comes_back_from(at, depth),
                _ => !self.is_named_in(slot, &NEVER_RETURN),
            },
            Some(Callee::Computed) | None => true,
        }
    }

    fn comes_back_from(&self, at: Vaddr, depth: usize) -> bool {
        // Go's runtime comes back by switching stacks too, which no path through the callee shows.
        let returns = || self.is_go(at) || self.functions.at(at).is_none_or(|id| self.returns(id, depth));
        !self.is_named_so(at) && returns()
    }

    /// Whether the function at `at` has a name that says that it does not return.
    fn is_named_so(&self, at: Vaddr) -> bool {
        let named = self.answers.never_return.get_or_init(|| never_return::starts(self.image));
        named.contains(&at)
    }

    /// Whether some path through the function ends in a return, or leaves it for a place that may return.
    fn returns(&self, id: FunctionId, depth: usize) -> bool {
        if depth >= MAX_DEPTH {
            return true;
        }
        let answer = || self.functions.function(id).is_none_or(|function| self.has_way_out(function, depth + 1));
        self.answers.returns.get_or((id, depth), answer)
    }

    fn has_way_out(&self, function: &Function, depth: usize) -> bool {
        let instructions = function.instructions(self.image);
        if function.has_indirect_jump {
            return self.has_way_out_of_graph(function, &instructions, depth);
        }
        // Without computed jumps the next instruction is known by itself: most paths end soon, and need no graph.
        let at = |address: Vaddr| instructions.binary_search_by_key(&address.0, Instruction::ip).ok();
        let mut seen = vec![false; instructions.len()];
        let mut work = vec![at(function.start).unwrap_or(0)];
        while let Some(mut index) = work.pop() {
            while let Some(instruction) = instructions.get(index) {
                let is_new = seen.get_mut(index).is_some_and(|flag| !std::mem::replace(flag, true));
                if !is_new || instruction.mnemonic() == Mnemonic::Hlt {
                    break;
                }
                if self.returns_for_caller(instruction) || self.leaves_for_return(function, instruction, depth) {
                    return true;
                }
                work.extend(direct_jump_target(instruction).and_then(at));
                index += 1;
                let is_behind = instructions.get(index).is_some_and(|next| next.ip() == instruction.next_ip());
                if !is_behind && runs_off(instruction) {
                    return true;
                }
                if !is_behind || !falls_through(instruction, |call| self.comes_back(call, depth)) {
                    break;
                }
            }
        }
        false
    }

    fn has_way_out_of_graph(&self, function: &Function, instructions: &[Instruction], depth: usize) -> bool {
        let cfg = self.graph(function, instructions, &TableJumps::default(), depth);
        let mut seen: FxHashSet<usize> = FxHashSet::default();
        let mut work = vec![cfg.entry()];
        while let Some(id) = work.pop() {
            let Some(block) = cfg.blocks().get(id).filter(|_| seen.insert(id)) else { continue };
            let body = instructions.get(block.instructions.clone()).unwrap_or(&[]);
            if body.iter().any(|i| i.mnemonic() == Mnemonic::Hlt) {
                continue;
            }
            if body.iter().any(|i| self.returns_for_caller(i)) {
                return true;
            }
            let behind = instructions.get(block.instructions.end);
            let leaves = body.last().is_some_and(|last| match (last.flow_control(), callee(last)) {
                _ if runs_off(last) && behind.is_none_or(|behind| behind.ip() != last.next_ip()) => true,
                (FlowControl::IndirectBranch, Some(Callee::Through(_))) => self.comes_back(last, depth),
                (FlowControl::IndirectBranch, _) => block.successors.is_empty(),
                _ => self.leaves_for_return(function, last, depth),
            });
            if leaves {
                return true;
            }
            work.extend(&block.successors);
        }
        false
    }

    /// Whether an instruction returns, or jumps out of the function to a place that may return.
    fn leaves_for_return(&self, function: &Function, instruction: &Instruction, depth: usize) -> bool {
        match instruction.flow_control() {
            FlowControl::Return => true,
            FlowControl::UnconditionalBranch | FlowControl::ConditionalBranch => direct_jump_target(instruction)
                .is_some_and(|at| {
                    !function.contains(at) && self.functions.at(at).is_none_or(|id| self.returns(id, depth))
                }),
            _ => false,
        }
    }

    /// Whether an instruction calls code that first of all writes over its return address: what it returns to takes the
    /// place of the caller (a retpoline, LLVM's `X86IndirectThunks.cpp`).
    fn returns_for_caller(&self, call: &Instruction) -> bool {
        let is_place = |i: &Instruction| {
            i.op0_kind() == OpKind::Memory && i.memory_base() == Register::RSP && i.memory_displacement64() == 0
        };
        if !call.is_call_near() {
            return false;
        }
        let target = call.near_branch_target();
        let bytes = self.image.bytes_from(Vaddr(target)).unwrap_or(&[]);
        let first = Decoder::with_ip(64, bytes, target, DecoderOptions::NONE).decode();
        first.mnemonic() == Mnemonic::Mov && is_place(&first)
    }

    /// Whether the pointer at `slot` is one to a function of another file with one of these names.
    fn is_named_in(&self, slot: Vaddr, names: &[&[u8]]) -> bool {
        match self.data.pointer_at(slot) {
            Some(PointerTarget::Symbol(index, 0)) => {
                let symbol = usize::try_from(index).ok().and_then(|index| self.image.symbols().get(index));
                symbol.is_some_and(|symbol| names.contains(&symbol.name))
            }
            _ => false,
        }
    }

    /// Whether control may get behind a call, or what a jump enters, more than once.
    pub(super) fn may_return_twice(&self, call: &Instruction, depth: usize) -> bool {
        let at = match callee(call) {
            Some(Callee::Direct(at)) => at,
            Some(Callee::Through(slot)) => match self.data.pointer_at(slot) {
                Some(PointerTarget::Local(at)) => at,
                _ => return self.is_named_in(slot, &RETURN_TWICE),
            },
            Some(Callee::Computed) | None => return false,
        };
        let Some(id) = self.functions.at(at).filter(|_| depth < MAX_DEPTH && self.functions.starts_at(at)) else {
            return false;
        };
        let answer = || self.functions.function(id).is_some_and(|function| self.saves_context(function, depth));
        self.answers.returns_twice.get_or((id, depth), answer)
    }

    /// Whether a function has the name or the form of `setjmp`: it stores callee-saved registers, as they are at its
    /// entry, behind its first argument; or it jumps to such a one.
    fn saves_context(&self, function: &Function, depth: usize) -> bool {
        let size =
            function.extents.iter().map(|(start, end)| end.0.saturating_sub(start.0)).fold(0, u64::saturating_add);
        let hints = self.image.function_hints();
        let first = hints.partition_point(|hint| hint.address < function.start);
        let mut named = hints.iter().skip(first).take_while(|hint| hint.address == function.start);
        if named.any(|hint| RETURN_TWICE.contains(&hint.name)) {
            return true;
        }
        if size > LARGEST_SETJMP {
            return false;
        }
        let (mut written, mut saved) = (0, 0);
        for instruction in &function.instructions(self.image) {
            let is_save = instruction.mnemonic() == Mnemonic::Mov
                && instruction.op0_kind() == OpKind::Memory
                && instruction.memory_base() == Register::RDI;
            if is_save {
                saved |= bit(instruction.op1_register()) & !caller_saved() & !written;
            } else if instruction.op0_kind() == OpKind::Register {
                written |= bit(instruction.op0_register());
            }
            let is_jump =
                matches!(instruction.flow_control(), FlowControl::UnconditionalBranch | FlowControl::IndirectBranch);
            if is_jump && self.may_return_twice(instruction, depth + 1) {
                return true;
            }
        }
        saved.count_ones() >= FEWEST_SAVED
    }
}
