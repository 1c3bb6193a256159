//! What becomes of the address of a function that another one loads or is passed: whether it is only called.
//!
//! Input: a function, and the instructions in it that bring the address into a register. Output: the calls and jumps
//! through that register or a copy of it, the calls that it is passed to in a register, and the variables that it is
//! stored in; `None` as soon as it goes anywhere else: is stored behind a pointer, returned, computed with. What lies
//! in an argument register that the call's target does not read is not passed.
//!
//! Over-approximates: a copy that may be there counts as there. May miss: nothing.

use std::collections::BTreeSet;

use iced_x86::{FlowControl, Instruction, InstructionInfoFactory, Mnemonic, OpAccess, OpKind, Register};
use rustc_hash::FxHashMap;

use crate::address::Vaddr;
use crate::arguments::{callee, is_call};
use crate::cfg::{BlockId, Cfg};
use crate::code::Code;
use crate::dataflow;
use crate::elf::LandingPad;
use crate::functions::Function;
use crate::instruction::{fixed_memory_operand, is_conditional_move};
use crate::registers::{ARGUMENTS, SYSCALL_ARGUMENTS, bit, caller_saved};

/// Bytes of a memory operand whose size is not known.
const WIDEST: i64 = 64;

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

/// Where an address goes in one function.
#[derive(Debug, Default)]
pub(super) struct Ways {
    /// Calls and jumps through it.
    pub(super) calls: BTreeSet<Vaddr>,
    /// Calls and jumps that it is passed to, each with the register that holds it.
    pub(super) passed: BTreeSet<(Vaddr, Register)>,
    /// Registers in which the function whose address it is gets its own address.
    pub(super) passed_to_own: BTreeSet<Register>,
    /// Variables that hold it afterwards.
    pub(super) stored: BTreeSet<Vaddr>,
}

/// What is asked of the targets of calls.
pub(super) struct Targets<'t> {
    /// The registers that the target of a call reads before it writes them, of those that a callee may change.
    pub(super) read_by: &'t dyn Fn(&Instruction) -> u16,
    /// Those that the function reads whose address is followed.
    pub(super) read_by_own: u16,
    /// How many bytes of arguments on the stack the target of a call reads.
    pub(super) stack_read_by: &'t dyn Fn(&Instruction) -> i64,
    /// How many that function does.
    pub(super) stack_read_by_own: i64,
    /// Whether half of the address, 32 bits, may be all of it: it belongs to a position-dependent file.
    pub(super) is_narrow: bool,
}

/// Whether all that the function does with the address of a variable, a [`Source::Variable`] or [`Source::Held`], is to
/// read memory behind it.
pub(crate) fn only_reads(
    code: &Code<'_, '_>,
    function: &Function,
    source: Source,
    read_by: &dyn Fn(&Instruction) -> u16,
) -> bool {
    let targets = Targets {
        read_by,
        read_by_own: u16::MAX,
        stack_read_by: &|_| i64::MAX,
        stack_read_by_own: i64::MAX,
        is_narrow: true,
    };
    let found = ways(code, function, source, &targets);
    found.is_some_and(|ways| ways.calls.is_empty() && ways.stored.is_empty())
}

/// The ways of an address that a function gets from `source`.
pub(super) fn ways(code: &Code<'_, '_>, function: &Function, source: Source, targets: &Targets<'_>) -> Option<Ways> {
    let (instructions, cfg) = code.control_flow(function);
    // No edge leads from where an address is stored to where `setjmp` returns once more.
    if instructions.iter().any(|i| callee(i).is_some() && code.effect_of(i).returns_twice) {
        return None;
    }
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
    Uses { code, instructions: &instructions, cfg: &cfg, function, places, source, targets }.follow()
}

/// What is followed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Source {
    /// The address of a function, or the slot where it stands.
    Target(Vaddr),
    /// The address of a variable.
    Variable(Vaddr),
    /// The address of a variable that stands in another one, here.
    Held(Vaddr),
    /// What the function gets in an argument register.
    Argument(Register),
}

struct Uses<'u, 'a, 'data> {
    code: &'u Code<'a, 'data>,
    instructions: &'u [Instruction],
    cfg: &'u Cfg,
    function: &'u Function,
    places: FxHashMap<Vaddr, Place>,
    source: Source,
    targets: &'u Targets<'u>,
}

impl Uses<'_, '_, '_> {
    fn follow(&self) -> Option<Ways> {
        let mut factory = InstructionInfoFactory::new();
        let mut ways = Ways::default();
        let mut entries: Vec<Copies> = vec![Copies::default(); self.cfg.blocks().len()];
        let pads = self.pads();
        if let (Source::Argument(register), Some(entry)) = (self.source, entries.get_mut(self.cfg.entry())) {
            entry.registers = bit(register);
        }
        let mut work: Vec<BlockId> = (0..entries.len()).rev().collect();
        while let Some(id) = work.pop() {
            let (Some(block), Some(entry)) = (self.cfg.blocks().get(id), entries.get(id)) else { continue };
            let mut copies = entry.clone();
            for instruction in self.instructions.get(block.instructions.clone()).unwrap_or(&[]) {
                self.step(instruction, &mut copies, &mut factory, &mut ways)?;
                let at = Vaddr(instruction.ip());
                let caught = pads.iter().filter(|(_, pad)| pad.calls.0 <= at && at < pad.calls.1);
                let caught = caught.filter(|_| callee(instruction).is_some());
                for &(pad, _) in caught {
                    // The unwinder restores what the callee saved.
                    let kept = Copies { registers: copies.registers & !caller_saved(), slots: copies.slots.clone() };
                    match pad {
                        Some(pad) => join(&mut entries, pad, &kept, &mut work),
                        None if kept == Copies::default() => {}
                        None => return None,
                    }
                }
            }
            for &successor in &block.successors {
                join(&mut entries, successor, &copies, &mut work);
            }
        }
        Some(ways)
    }

    /// Whether a computed jump is a `switch` of the function.
    fn stays(&self, jump: &Instruction) -> bool {
        let index = self.instructions.binary_search_by_key(&jump.ip(), Instruction::ip).ok();
        let behind = index.and_then(|index| index.checked_add(1));
        let block = self.cfg.blocks().iter().find(|block| Some(block.instructions.end) == behind);
        block.is_some_and(|block| !block.successors.is_empty())
    }

    /// Where exceptions enter the function, by block; `None` for another part of it.
    fn pads(&self) -> Vec<(Option<BlockId>, LandingPad)> {
        let pads = self.code.landing_pads(self.function).into_iter();
        let block_at = |at: Vaddr| {
            let index = self.instructions.binary_search_by_key(&at.0, Instruction::ip).ok()?;
            self.cfg.blocks().iter().position(|block| block.instructions.start == index)
        };
        pads.map(|pad| (block_at(pad.target), pad)).collect()
    }

    /// Whether the instruction brings the address into its first operand.
    fn is_source(&self, instruction: &Instruction) -> bool {
        let is_named = match self.source {
            Source::Target(at) => fixed_memory_operand(instruction) == Some(at),
            // Who reads or writes the variable itself does not take its address.
            Source::Variable(at) => {
                instruction.mnemonic() == Mnemonic::Lea && fixed_memory_operand(instruction) == Some(at)
            }
            Source::Held(slot) => {
                let is_read = instruction.op0_kind() == OpKind::Register;
                is_read && fixed_memory_operand(instruction) == Some(slot)
            }
            Source::Argument(_) => false,
        };
        is_named || self.is_number(instruction)
    }

    /// Whether the address stands in the instruction as a number.
    fn is_number(&self, instruction: &Instruction) -> bool {
        let (Source::Target(source) | Source::Variable(source)) = self.source else { return false };
        let is_variable = self.is_variable();
        let is_named = (0..instruction.op_count()).any(|operand| {
            use OpKind::{Immediate32, Immediate32to64, Immediate64, Memory};
            match instruction.op_kind(operand) {
                Immediate32 | Immediate64 | Immediate32to64 => instruction.immediate(operand) == source.0,
                // An array that a register indexes.
                Memory => is_variable && is_indexed(instruction) && instruction.memory_displacement64() == source.0,
                _ => false,
            }
        });
        is_named && !self.code.image.is_position_independent()
    }

    /// Whether the instruction only reads memory behind a copy of a variable's address.
    fn reads_behind(&self, instruction: &Instruction, copies: &Copies) -> bool {
        let holds = |register: Register| copies.registers & bit(register) != 0;
        let has_memory = instruction.op1_kind() == OpKind::Memory && !is_indexed(instruction);
        let is_load = has_memory && instruction.op0_kind() == OpKind::Register && instruction.op_count() == 2;
        let is_base = holds(instruction.memory_base()) && !holds(instruction.memory_index());
        self.is_variable() && is_plain_move(instruction) && is_load && is_base
    }

    /// Whether the address is one of a variable, which may be read through it.
    const fn is_variable(&self) -> bool {
        matches!(self.source, Source::Variable(_) | Source::Held(_))
    }

    /// Follows one instruction; `None` if the address gets out.
    fn step(
        &self,
        instruction: &Instruction,
        copies: &mut Copies,
        factory: &mut InstructionInfoFactory,
        ways: &mut Ways,
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
                return self.leave(instruction, copies, place, ways);
            }
            Mnemonic::Mov | Mnemonic::Lea if to_register && self.is_source(instruction) => {
                // Half an address, or one that is part of a sum, is not looked after.
                let is_address = is_whole || !self.code.image.is_position_independent();
                copies.registers |= bit(instruction.op0_register());
                return is_address.then_some(());
            }
            Mnemonic::Mov
                if instruction.op0_kind() == OpKind::Memory && fixed_memory_operand(instruction).is_some() =>
            {
                let is_held = instruction.op1_kind() == OpKind::Register && holds(copies, instruction.op1_register());
                if !is_held && !self.is_number(instruction) {
                    return Some(());
                }
                ways.stored.extend(fixed_memory_operand(instruction));
                let is_target = !self.is_variable();
                return (is_target && instruction.memory_size().size() == 8).then_some(());
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
            // The kernel calls no address that it gets in a register; that of a variable it may write to.
            Mnemonic::Syscall if SYSCALL_ARGUMENTS.into_iter().any(|register| holds(copies, register)) => {
                return (!self.is_variable()).then_some(());
            }
            _ => {}
        }
        plain(instruction, copies, place, self.targets.is_narrow, factory)
    }

    /// A call, a jump or a return.
    fn leave(&self, instruction: &Instruction, copies: &mut Copies, place: Place, ways: &mut Ways) -> Option<()> {
        // Through the variable that holds it.
        if matches!(self.source, Source::Target(slot) if fixed_memory_operand(instruction) == Some(slot)) {
            ways.calls.insert(Vaddr(instruction.ip()));
        }
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
        // A jump to another part of the same function takes everything along; before a tail call all is given back.
        let is_jump = !is_call(instruction);
        let is_kept = copies.registers & !caller_saved() != 0 || !copies.slots.is_empty() && place.top != Some(0);
        if is_jump && is_kept && !self.stays(instruction) {
            return None;
        }
        let through = (instruction.op0_kind() == OpKind::Register).then(|| instruction.op0_register());
        let through = through.filter(|&register| holds(register));
        if through.is_some() {
            ways.calls.insert(Vaddr(instruction.ip()));
        }
        if instruction.op0_kind() == OpKind::Memory {
            // Through a copy in the frame; through what a copy points to would be something else.
            if holds(instruction.memory_base()) || holds(instruction.memory_index()) {
                return None;
            }
            if place.operand.is_some_and(|at| copies.slots.contains(&at)) {
                ways.calls.insert(Vaddr(instruction.ip()));
            }
        }
        self.pass(instruction, through, copies, place, ways)
    }

    /// What a call gets of the address, `through` which register it is made if that holds it.
    fn pass(
        &self,
        instruction: &Instruction,
        through: Option<Register>,
        copies: &mut Copies,
        place: Place,
        ways: &mut Ways,
    ) -> Option<()> {
        let effect = self.code.effect_of(instruction);
        let held = copies.registers & effect.passed;
        let is_jump = !is_call(instruction);
        // A part of the same function may go on with any register.
        let left = copies.registers & caller_saved() & !effect.passed;
        if is_jump && through.is_none() && left & (self.targets.read_by)(instruction) != 0 {
            return None;
        }
        copies.registers &= !effect.changed;
        // Go passes more registers than these, and which bytes of the stack is not looked at.
        if self.code.is_go(Vaddr(instruction.ip())) {
            let seen = held & caller_saved();
            let read = if seen == 0 { 0 } else { seen & (self.targets.read_by)(instruction) };
            return (held & !seen | read == 0 && copies.slots.is_empty()).then_some(());
        }
        // Where nothing but the target itself lies among the arguments, the target is the function that is followed.
        let is_own = through.is_some_and(|register| held & !bit(register) == 0);
        if !copies.slots.is_empty() {
            let bytes = if is_own { self.targets.stack_read_by_own } else { (self.targets.stack_read_by)(instruction) };
            let is_argument = |slot: i64| {
                // A jump leaves the return address where it was: below the arguments.
                let first = place.top.map(|top| if is_jump { top.saturating_add(8) } else { top });
                first.is_none_or(|first| slot.saturating_add(8) > first && slot < first.saturating_add(bytes))
            };
            if bytes > 0 && copies.slots.iter().any(|&slot| is_argument(slot)) {
                return None;
            }
        }
        let read = match held {
            0 => 0,
            held if is_own => held & self.targets.read_by_own,
            held => held & (self.targets.read_by)(instruction),
        };
        let passed = ARGUMENTS.into_iter().filter(|&register| read & bit(register) != 0);
        if is_own {
            ways.passed_to_own.extend(passed);
        } else {
            ways.passed.extend(passed.map(|register| (Vaddr(instruction.ip()), register)));
        }
        let is_followed = !self.is_variable() && (is_own || through.is_none());
        (read == 0 || is_followed).then_some(())
    }
}

/// Adds copies to those at the start of a block.
fn join(entries: &mut [Copies], id: BlockId, copies: &Copies, work: &mut Vec<BlockId>) {
    let Some(entry) = entries.get_mut(id) else { return };
    let mut joined = entry.clone();
    joined.registers |= copies.registers;
    joined.slots.extend(&copies.slots);
    joined.slots.sort_unstable();
    joined.slots.dedup();
    if joined != *entry {
        *entry = joined;
        work.push(id);
    }
}

/// Whether an instruction copies its second operand, as it is or widened, and does nothing else.
fn is_plain_move(instruction: &Instruction) -> bool {
    use Mnemonic::{Mov, Movapd, Movaps, Movd, Movdqa, Movdqu, Movq, Movsx, Movsxd, Movupd, Movups, Movzx};
    let vector = matches!(instruction.mnemonic(), Movapd | Movaps | Movd | Movdqa | Movdqu | Movq | Movupd | Movups);
    vector || matches!(instruction.mnemonic(), Mov | Movsx | Movsxd | Movzx)
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

/// Whether the memory operand of an instruction, at `operand`, takes in a part of the 8 bytes at `slot`.
fn overlaps(instruction: &Instruction, operand: i64, slot: i64) -> bool {
    let bytes = match instruction.memory_size().size() {
        0 => WIDEST,
        known => i64::try_from(known).unwrap_or(WIDEST),
    };
    operand < slot.saturating_add(8) && slot < operand.saturating_add(bytes)
}

/// Any other instruction must not read the address; what it writes is something else afterwards.
fn plain(
    instruction: &Instruction,
    copies: &mut Copies,
    place: Place,
    is_narrow: bool,
    factory: &mut InstructionInfoFactory,
) -> Option<()> {
    if copies.registers == 0 && copies.slots.is_empty() {
        return Some(());
    }
    let touches_slot = copies.slots.iter().any(|&slot| place.operand.is_some_and(|at| overlaps(instruction, at, slot)));
    let is_pure_address = instruction.mnemonic() == Mnemonic::Lea;
    if touches_slot && !is_pure_address {
        return None;
    }
    for used in factory.info(instruction).used_registers() {
        let is_read = !matches!(used.access(), OpAccess::Write | OpAccess::CondWrite | OpAccess::None);
        let is_whole = is_narrow || used.register().size() == 8;
        if is_read && is_whole && copies.registers & bit(used.register()) != 0 {
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
