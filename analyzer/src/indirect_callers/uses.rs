//! What becomes of the address of a function that another one loads: whether it is only called.
//!
//! Input: a function, and the instructions in it that bring the address into a register. Output: the calls and jumps
//! through that register or a copy of it; `None` as soon as the address goes anywhere else: is stored outside the frame,
//! passed to a call, returned, computed with. What lies in an argument register that the call's target does not read is
//! not passed.
//!
//! Over-approximates: a copy that may be there counts as there. May miss: nothing.

use iced_x86::{FlowControl, Instruction, InstructionInfoFactory, Mnemonic, OpAccess, OpKind, Register};
use rustc_hash::{FxHashMap, FxHashSet};

use crate::address::Vaddr;
use crate::arguments::callee;
use crate::cfg::{BlockId, Cfg};
use crate::code::Code;
use crate::dataflow;
use crate::functions::Function;
use crate::instruction::{fixed_memory_operand, is_conditional_move};
use crate::registers::{SYSCALL_ARGUMENTS, bit};

/// Bytes above the stack pointer at a call that are taken for arguments.
const STACK_ARGUMENTS: i64 = 48;

/// Where the address may be.
#[derive(Clone, Default, PartialEq, Eq)]
struct Copies {
    registers: u16,
    slots: Vec<i64>,
}

/// The memory operand of an instruction as an offset in the frame, the stack pointer, and the lowest escaped offset.
#[derive(Clone, Copy, Default)]
struct Place {
    operand: Option<i64>,
    /// The operand is in the frame, but nobody knows where.
    is_vague: bool,
    top: Option<i64>,
    escaped: Option<i64>,
}

/// The calls through the address that `slot_or_start` gives, when it is loaded from there or is that address. `read_by`
/// tells which argument registers a call's target reads.
pub(super) fn calls_through(
    code: &Code<'_, '_>,
    function: &Function,
    slot_or_start: Vaddr,
    read_by: &dyn Fn(&Instruction) -> u16,
) -> Option<Vec<Vaddr>> {
    follow(code, function, Source::Target(slot_or_start), read_by)
}

/// Whether all that the function does with the address of a variable is to read memory behind it.
pub(crate) fn only_reads(
    code: &Code<'_, '_>,
    function: &Function,
    variable: Vaddr,
    read_by: &dyn Fn(&Instruction) -> u16,
) -> bool {
    follow(code, function, Source::Variable(variable), read_by).is_some_and(|calls| calls.is_empty())
}

fn follow(
    code: &Code<'_, '_>,
    function: &Function,
    source: Source,
    read_by: &dyn Fn(&Instruction) -> u16,
) -> Option<Vec<Vaddr>> {
    let (instructions, cfg) = code.control_flow(function);
    let mut places: FxHashMap<Vaddr, Place> = FxHashMap::default();
    dataflow::observe(
        &code.memory(),
        &instructions,
        &cfg,
        |_| true,
        |instruction, at, state| {
            let address = state.memory_address(instruction);
            let operand = address.frame_offset();
            let is_vague = operand.is_none() && address.lowest_frame_offset().is_some();
            let top = state.register(Register::RSP).frame_offset();
            places.insert(at, Place { operand, is_vague, top, escaped: state.lowest_escaped() });
        },
    );
    Uses { code, instructions: &instructions, cfg: &cfg, places, source, read_by }.follow()
}

/// What is followed.
#[derive(Clone, Copy)]
enum Source {
    /// The address of a function, or the slot where it stands.
    Target(Vaddr),
    /// The address of a variable.
    Variable(Vaddr),
}

struct Uses<'u, 'a, 'data> {
    code: &'u Code<'a, 'data>,
    instructions: &'u [Instruction],
    cfg: &'u Cfg,
    places: FxHashMap<Vaddr, Place>,
    source: Source,
    read_by: &'u dyn Fn(&Instruction) -> u16,
}

impl Uses<'_, '_, '_> {
    fn follow(&self) -> Option<Vec<Vaddr>> {
        let mut factory = InstructionInfoFactory::new();
        let mut calls: FxHashSet<Vaddr> = FxHashSet::default();
        let mut entries: Vec<Copies> = vec![Copies::default(); self.cfg.blocks().len()];
        let mut work: Vec<BlockId> = (0..entries.len()).rev().collect();
        while let Some(id) = work.pop() {
            let (Some(block), Some(entry)) = (self.cfg.blocks().get(id), entries.get(id)) else { continue };
            let mut copies = entry.clone();
            for instruction in self.instructions.get(block.instructions.clone()).unwrap_or(&[]) {
                self.step(instruction, &mut copies, &mut factory, &mut calls)?;
            }
            for &successor in &block.successors {
                if let Some(entry) = entries.get_mut(successor) {
                    let mut joined = entry.clone();
                    joined.registers |= copies.registers;
                    joined.slots.extend(&copies.slots);
                    joined.slots.sort_unstable();
                    joined.slots.dedup();
                    if joined != *entry {
                        *entry = joined;
                        work.push(successor);
                    }
                }
            }
        }
        let mut calls: Vec<Vaddr> = calls.into_iter().collect();
        calls.sort_unstable();
        Some(calls)
    }

    /// Whether the instruction brings the address into its first operand.
    fn is_source(&self, instruction: &Instruction) -> bool {
        let (source, loads) = match self.source {
            Source::Target(at) => (at, true),
            // Who reads or writes the variable itself does not take its address.
            Source::Variable(at) => (at, instruction.mnemonic() == Mnemonic::Lea),
        };
        let is_here = loads && fixed_memory_operand(instruction) == Some(source);
        let is_number = (0..instruction.op_count()).any(|operand| {
            use OpKind::{Immediate32, Immediate32to64, Immediate64, Memory};
            match instruction.op_kind(operand) {
                Immediate32 | Immediate64 | Immediate32to64 => instruction.immediate(operand) == source.0,
                // An array that a register indexes.
                Memory => !loads && is_indexed(instruction) && instruction.memory_displacement64() == source.0,
                _ => false,
            }
        });
        is_here || is_number && !self.code.image.is_position_independent()
    }

    /// Whether the instruction only reads memory behind a copy of a variable's address.
    fn reads_behind(&self, instruction: &Instruction, copies: &Copies) -> bool {
        let holds = |register: Register| copies.registers & bit(register) != 0;
        let has_memory = instruction.op1_kind() == OpKind::Memory && !is_indexed(instruction);
        let is_load = has_memory && instruction.op0_kind() == OpKind::Register && instruction.op_count() == 2;
        let is_base = holds(instruction.memory_base()) && !holds(instruction.memory_index());
        let is_plain = matches!(instruction.mnemonic(), Mnemonic::Mov | Mnemonic::Movsxd | Mnemonic::Movzx);
        matches!(self.source, Source::Variable(_)) && is_plain && is_load && is_base
    }

    /// Follows one instruction; `None` if the address gets out.
    fn step(
        &self,
        instruction: &Instruction,
        copies: &mut Copies,
        factory: &mut InstructionInfoFactory,
        calls: &mut FxHashSet<Vaddr>,
    ) -> Option<()> {
        let place = self.places.get(&Vaddr(instruction.ip())).copied().unwrap_or_default();
        if copies.slots.iter().any(|&slot| place.is_vague || place.escaped.is_some_and(|lowest| slot >= lowest)) {
            return None;
        }
        let holds = |copies: &Copies, register: Register| copies.registers & bit(register) != 0;
        let to_register = instruction.op0_kind() == OpKind::Register;
        let is_whole = instruction.op0_register().is_gpr64();
        if self.reads_behind(instruction, copies) {
            set(copies, instruction.op0_register(), false);
            return Some(());
        }
        match instruction.mnemonic() {
            Mnemonic::Cmp | Mnemonic::Test | Mnemonic::Nop => return Some(()),
            _ if callee(instruction).is_some() || instruction.flow_control() == FlowControl::Return => {
                return self.leave(instruction, copies, place, calls);
            }
            Mnemonic::Mov | Mnemonic::Lea if to_register && self.is_source(instruction) => {
                // Half an address, or one that is part of a sum, is not looked after.
                let is_address = is_whole || !self.code.image.is_position_independent();
                copies.registers |= bit(instruction.op0_register());
                return is_address.then_some(());
            }
            _ if self.is_source(instruction) => return None,
            Mnemonic::Mov if to_register && instruction.op1_kind() == OpKind::Register => {
                let is_copied = holds(copies, instruction.op1_register());
                set(copies, instruction.op0_register(), is_copied);
                return (is_whole || !is_copied).then_some(());
            }
            Mnemonic::Mov if to_register && instruction.op1_kind() == OpKind::Memory && place.operand.is_some() => {
                let is_copied = copies.slots.iter().any(|&slot| place.operand.is_some_and(|at| at.abs_diff(slot) < 8));
                set(copies, instruction.op0_register(), is_copied);
                return (is_whole || !is_copied).then_some(());
            }
            Mnemonic::Mov if instruction.op0_kind() == OpKind::Memory && place.operand.is_some() => {
                copies.slots.retain(|&slot| Some(slot) != place.operand);
                if instruction.op1_kind() == OpKind::Register && holds(copies, instruction.op1_register()) {
                    copies.slots.extend(place.operand);
                }
                return Some(());
            }
            _ if is_conditional_move(instruction)
                && to_register
                && instruction.op1_kind() == OpKind::Register
                && holds(copies, instruction.op1_register()) =>
            {
                copies.registers |= bit(instruction.op0_register());
                return is_whole.then_some(());
            }
            Mnemonic::Syscall if SYSCALL_ARGUMENTS.into_iter().any(|register| holds(copies, register)) => return None,
            _ => {}
        }
        plain(instruction, copies, place, factory)
    }

    /// A call, a jump or a return.
    fn leave(
        &self,
        instruction: &Instruction,
        copies: &mut Copies,
        place: Place,
        calls: &mut FxHashSet<Vaddr>,
    ) -> Option<()> {
        if copies.registers == 0 && copies.slots.is_empty() {
            return Some(());
        }
        let is_inside = crate::cfg::direct_jump_target(instruction)
            .is_some_and(|at| self.instructions.binary_search_by_key(&at.0, Instruction::ip).is_ok());
        if is_inside {
            return Some(());
        }
        let holds = |register: Register| copies.registers & bit(register) != 0;
        if instruction.flow_control() == FlowControl::Return {
            let is_result = |register| holds(register) || self.code.is_go(Vaddr(instruction.ip()));
            return (!is_result(Register::RAX) && !is_result(Register::RDX)).then_some(());
        }
        if instruction.op0_kind() == OpKind::Register && holds(instruction.op0_register()) {
            calls.insert(Vaddr(instruction.ip()));
        }
        if instruction.op0_kind() == OpKind::Memory {
            // Through a copy in the frame; through what a copy points to would be something else.
            if holds(instruction.memory_base()) || holds(instruction.memory_index()) {
                return None;
            }
            if place.operand.is_some_and(|at| copies.slots.contains(&at)) {
                calls.insert(Vaddr(instruction.ip()));
            }
        }
        let is_argument =
            |slot: i64| place.top.is_none_or(|top| (0..STACK_ARGUMENTS).contains(&(slot.saturating_sub(top))));
        let effect = self.code.effect_of(instruction);
        // Which registers Go's functions read is not looked at.
        let is_go = self.code.is_go(Vaddr(instruction.ip()));
        let is_read = || is_go || (self.read_by)(instruction) & copies.registers != 0;
        let is_passed = |slot: i64| is_go || is_argument(slot);
        let passes =
            copies.registers & effect.passed != 0 && is_read() || copies.slots.iter().any(|&slot| is_passed(slot));
        copies.registers &= !effect.changed;
        (!passes).then_some(())
    }
}

fn is_indexed(instruction: &Instruction) -> bool {
    instruction.memory_index() != Register::None
}

fn set(copies: &mut Copies, register: Register, is_copied: bool) {
    if is_copied {
        copies.registers |= bit(register);
    } else {
        copies.registers &= !bit(register);
    }
}

/// Any other instruction must not read the address; what it writes is something else afterwards.
fn plain(
    instruction: &Instruction,
    copies: &mut Copies,
    place: Place,
    factory: &mut InstructionInfoFactory,
) -> Option<()> {
    if copies.registers == 0 && copies.slots.is_empty() {
        return Some(());
    }
    let touches_slot = copies.slots.iter().any(|&slot| place.operand.is_some_and(|at| slot.abs_diff(at) < 64));
    let is_pure_address = instruction.mnemonic() == Mnemonic::Lea;
    if touches_slot && !is_pure_address {
        return None;
    }
    for used in factory.info(instruction).used_registers() {
        let is_read = !matches!(used.access(), OpAccess::Write | OpAccess::CondWrite | OpAccess::None);
        if is_read && copies.registers & bit(used.register()) != 0 {
            return None;
        }
    }
    for used in factory.info(instruction).used_registers() {
        if used.access() == OpAccess::Write {
            copies.registers &= !bit(used.register());
        }
    }
    Some(())
}
