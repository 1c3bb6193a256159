//! Forward data flow over one function: what every register holds before chosen instructions.
//!
//! Input: a function's instructions, its [`Cfg`] and its memory. Output: the [`State`] before each instruction that the
//! caller asked for. The solver iterates [`State::step`] over blocks until nothing grows (a worklist in reverse
//! post-order, so that a block is visited when those before it have been, loops apart). It ends because each
//! [`crate::value::Value`] can only climb a lattice of bounded height, and climbs it at once where it keeps climbing.
//!
//! Over-approximates: joins at block starts forget which path was taken. May miss: what [`crate::registers`] names.

use std::collections::BTreeSet;

use iced_x86::{FlowControl, Instruction, InstructionInfoFactory, Mnemonic, OpAccess, OpKind, Register, RflagsBits};

use crate::address::Vaddr;
use crate::cfg::{Block, BlockId, Cfg, direct_jump_target};
use crate::memory::Memory;
use crate::registers::State;

/// Visits of one block after which whatever still changes there becomes unknown (widening): the sets of a loop counter
/// would otherwise grow one number at a time.
const PATIENCE: u32 = 6;

/// In functions with more blocks nothing is known where one starts: their states would take all memory. The largest
/// interpreters have some thousands.
const MOST_BLOCKS: usize = 1 << 18;

/// Runs the analysis and calls `observe` once for each instruction that `wanted` picks, with the state before it.
/// Instructions that no path reaches are observed with everything unknown, unless they are dead.
pub fn observe(
    memory: &Memory<'_, '_>,
    instructions: &[Instruction],
    cfg: &Cfg,
    wanted: impl Fn(&Instruction) -> bool,
    mut observe: impl FnMut(&Instruction, Vaddr, &State),
) {
    if cfg.blocks().len() > MOST_BLOCKS {
        return observe_locally(memory, instructions, cfg, wanted, observe);
    }
    let mut factory = InstructionInfoFactory::new();
    let chosen = containing(instructions, cfg, &wanted);
    if chosen.is_empty() {
        return;
    }
    let entry_states = solve(memory, instructions, cfg, &cfg.leading_to(&chosen), &mut factory);
    for id in chosen {
        let (Some(block), Some(entry)) = (cfg.blocks().get(id), entry_states.get(id)) else { continue };
        if entry.is_none() && cfg.is_followed() {
            continue;
        }
        let entry = entry.clone().unwrap_or_else(State::unknown);
        observe_block(memory, body(instructions, block), entry, &wanted, &mut observe, &mut factory);
    }
}

/// Like [`observe`], but each block for itself: nothing is known where it starts.
pub fn observe_locally(
    memory: &Memory<'_, '_>,
    instructions: &[Instruction],
    cfg: &Cfg,
    wanted: impl Fn(&Instruction) -> bool,
    mut observe: impl FnMut(&Instruction, Vaddr, &State),
) {
    let mut factory = InstructionInfoFactory::new();
    for block in containing(instructions, cfg, &wanted).into_iter().filter_map(|id| cfg.blocks().get(id)) {
        observe_block(memory, body(instructions, block), State::unknown(), &wanted, &mut observe, &mut factory);
    }
}

/// The blocks in which there are wanted instructions.
fn containing(instructions: &[Instruction], cfg: &Cfg, wanted: impl Fn(&Instruction) -> bool) -> Vec<BlockId> {
    let is_wanted = |block: &Block| body(instructions, block).iter().any(&wanted);
    cfg.blocks().iter().enumerate().filter(|(_, block)| is_wanted(block)).map(|(id, _)| id).collect()
}

/// Calls `observe` for the wanted instructions of a block that is entered with `state`.
fn observe_block(
    memory: &Memory<'_, '_>,
    body: &[Instruction],
    mut state: State,
    wanted: impl Fn(&Instruction) -> bool,
    mut observe: impl FnMut(&Instruction, Vaddr, &State),
    factory: &mut InstructionInfoFactory,
) {
    for instruction in body {
        if wanted(instruction) {
            observe(instruction, Vaddr(instruction.ip()), &state);
        }
        state.step(instruction, memory, factory);
    }
}

/// The instructions of a block.
fn body<'i>(instructions: &'i [Instruction], block: &Block) -> &'i [Instruction] {
    instructions.get(block.instructions.clone()).unwrap_or(&[])
}

/// The state at the start of each block that `is_needed` names; `None` where no path leads.
fn solve(
    memory: &Memory<'_, '_>,
    instructions: &[Instruction],
    cfg: &Cfg,
    is_needed: &[bool],
    factory: &mut InstructionInfoFactory,
) -> Vec<Option<State>> {
    let mut states: Vec<Option<State>> = vec![None; cfg.blocks().len()];
    let ranks = cfg.reverse_postorder();
    let ranked = |id: BlockId| (ranks.get(id).copied().unwrap_or(usize::MAX), id);
    let mut work: BTreeSet<(usize, BlockId)> = BTreeSet::new();
    for orphan in cfg.orphans() {
        seed(&mut states, orphan, &State::unknown(), false);
        work.insert(ranked(orphan));
    }
    let first = cfg.blocks().get(cfg.entry()).and_then(|block| instructions.get(block.instructions.start));
    let entry = first.map_or_else(State::unknown, |first| memory.at_entry(Vaddr(first.ip())));
    seed(&mut states, cfg.entry(), &entry, false);
    work.insert(ranked(cfg.entry()));

    let mut visits = vec![0_u32; cfg.blocks().len()];
    while let Some((_, id)) = work.pop_first() {
        let (Some(block), Some(Some(entry))) = (cfg.blocks().get(id), states.get(id)) else { continue };
        let needed = |id: &BlockId| is_needed.get(*id).copied().unwrap_or(false);
        if !block.successors.iter().any(needed) {
            continue;
        }
        let body = body(instructions, block);
        let mut state = entry.clone();
        for instruction in body {
            state.step(instruction, memory, factory);
        }
        let Some(count) = visits.get_mut(id) else { continue };
        *count = count.saturating_add(1);
        let branch = Branch::at_end_of(body, factory);
        for &successor in block.successors.iter().filter(|id| needed(id)) {
            let first = cfg.blocks().get(successor).and_then(|block| instructions.get(block.instructions.start));
            let edge = branch.as_ref().and_then(|branch| Some((branch, branch.outcome(first?.ip())?)));
            let taken = edge.map(|(branch, equal)| {
                let mut taken = state.clone();
                taken.refine(branch.register, branch.bytes, branch.number, equal).then_some(taken)
            });
            let state = match &taken {
                Some(Some(refined)) => refined,
                Some(None) => continue,
                None => &state,
            };
            let widen = visits.get(successor).is_some_and(|count| *count > PATIENCE);
            if seed(&mut states, successor, state, widen) {
                work.insert(ranked(successor));
            }
        }
    }
    states
}

/// Joins `state` into the one at the start of block `id`; true if that changed it.
fn seed(states: &mut [Option<State>], id: BlockId, state: &State, widen: bool) -> bool {
    match states.get_mut(id) {
        Some(Some(old)) => old.join(state, widen),
        Some(empty) => {
            *empty = Some(state.clone());
            true
        }
        None => false,
    }
}

/// Whether the last of these instructions that writes a register writes its lower half, which clears the rest.
fn is_cleared_above(instructions: &[Instruction], full: Register, factory: &mut InstructionInfoFactory) -> bool {
    use Mnemonic::{Add, And, Lea, Mov, Movsx, Movzx, Or, Sub, Xor};
    let is_plain = |i: &Instruction| matches!(i.mnemonic(), Add | And | Lea | Mov | Movsx | Movzx | Or | Sub | Xor);
    let mut writes = |i: &&Instruction| {
        let used = factory.info(i).used_registers();
        used.iter().any(|u| {
            let is_read = matches!(u.access(), OpAccess::Read | OpAccess::CondRead | OpAccess::None);
            !is_read && u.register().full_register() == full
        }) || i.flow_control() != FlowControl::Next
    };
    let last = instructions.iter().rev().find(|i| writes(i));
    last.is_some_and(|i| is_plain(i) && i.op0_register().size() == 4 && i.op0_register().full_register() == full)
}

/// A jump that depends on whether a register equals a number.
struct Branch {
    register: Register,
    bytes: usize,
    number: u64,
    /// Where it goes if so, and if not.
    equal: u64,
    different: u64,
}

impl Branch {
    /// The one that ends a block, if it ends in one.
    fn at_end_of(block: &[Instruction], factory: &mut InstructionInfoFactory) -> Option<Self> {
        let (last, before) = block.split_last()?;
        let (target, behind) = (direct_jump_target(last)?.0, last.next_ip());
        let (equal, different) = match last.mnemonic() {
            Mnemonic::Je => (target, behind),
            Mnemonic::Jne => (behind, target),
            _ => return None,
        };
        let (index, compare) =
            before.iter().enumerate().rev().find(|(_, i)| i.rflags_modified() != RflagsBits::NONE)?;
        let is_register = |operand| compare.op_kind(operand) == OpKind::Register;
        let number = match compare.mnemonic() {
            Mnemonic::Test if is_register(1) && compare.op0_register() == compare.op1_register() => 0,
            Mnemonic::Cmp if !is_register(1) && compare.op1_kind() != OpKind::Memory => compare.immediate(1),
            // ZF says whether the result, which the first operand gets, is zero (SDM volume 1, 7.3.2 and 7.3.5).
            Mnemonic::Add
            | Mnemonic::Sub
            | Mnemonic::And
            | Mnemonic::Or
            | Mnemonic::Xor
            | Mnemonic::Inc
            | Mnemonic::Dec
            | Mnemonic::Neg => 0,
            _ => return None,
        };
        let register = compare.op0_register();
        // A write of half a register clears the rest (SDM volume 1, 3.4.1.1), so that a result of zero is zero as a
        // whole.
        let is_result = !matches!(compare.mnemonic(), Mnemonic::Test | Mnemonic::Cmp);
        let full = register.full_register();
        let is_extended = register.size() == 4 && (is_result || is_cleared_above(before.get(..index)?, full, factory));
        let bytes = if is_extended { 8 } else { register.size() };
        let is_kept = before.iter().skip(index + 1).all(|i| {
            matches!(i.mnemonic(), Mnemonic::Mov | Mnemonic::Lea | Mnemonic::Movzx | Mnemonic::Movsxd)
                && (i.op0_kind() != OpKind::Register || i.op0_register().full_register() != full)
        });
        let number = if bytes == 4 { number & 0xffff_ffff } else { number };
        let is_whole = is_register(0) && full.is_gpr64() && matches!(bytes, 4 | 8);
        (is_kept && is_whole).then_some(Self { register: full, bytes, number, equal, different })
    }

    /// Whether the register equals the number where control gets to `address`; `None` if both ways lead there.
    fn outcome(&self, address: u64) -> Option<bool> {
        (self.equal != self.different).then_some(address == self.equal)
    }
}
