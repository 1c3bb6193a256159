//! Forward data flow over one function: what every register holds before chosen instructions.
//!
//! Input: a function's instructions, its [`Cfg`] and its memory. Output: the [`State`] before each instruction that the
//! caller asked for. The solver iterates [`State::step`] over blocks until nothing grows (a worklist in address order,
//! which is close to reverse post-order in compiled code). It ends because each [`crate::value::Value`] can only climb
//! a lattice of bounded height, and climbs it at once where it keeps climbing.
//!
//! Over-approximates: joins at block starts forget which path was taken. May miss: what [`crate::registers`] names.

use std::collections::BTreeSet;

use iced_x86::{Instruction, InstructionInfoFactory};

use crate::address::Vaddr;
use crate::cfg::{BlockId, Cfg};
use crate::memory::Memory;
use crate::registers::State;

/// Visits of one block after which whatever still changes there becomes unknown (widening): the sets of a loop counter
/// would otherwise grow one number at a time.
const PATIENCE: u32 = 6;

/// Runs the analysis and calls `observe` once for each instruction that `wanted` picks, with the state before it.
/// Instructions that no path reaches are observed with everything unknown.
pub fn observe(
    memory: &Memory<'_, '_>,
    instructions: &[Instruction],
    cfg: &Cfg,
    wanted: impl Fn(&Instruction) -> bool,
    mut observe: impl FnMut(&Instruction, Vaddr, &State),
) {
    let mut factory = InstructionInfoFactory::new();
    let entry_states = solve(memory, instructions, cfg, &mut factory);
    for (block, entry) in cfg.blocks().iter().zip(&entry_states) {
        let body = instructions.get(block.instructions.clone()).unwrap_or(&[]);
        if !body.iter().any(&wanted) {
            continue;
        }
        let mut state = entry.clone().unwrap_or_else(State::unknown);
        for instruction in body {
            if wanted(instruction) {
                observe(instruction, Vaddr(instruction.ip()), &state);
            }
            state.step(instruction, memory, &mut factory);
        }
    }
}

/// The state at the start of each block; `None` where no path leads.
fn solve(
    memory: &Memory<'_, '_>,
    instructions: &[Instruction],
    cfg: &Cfg,
    factory: &mut InstructionInfoFactory,
) -> Vec<Option<State>> {
    let mut states: Vec<Option<State>> = vec![None; cfg.blocks().len()];
    let mut work: BTreeSet<BlockId> = BTreeSet::new();
    for orphan in cfg.orphans() {
        seed(&mut states, orphan, &State::unknown(), false);
        work.insert(orphan);
    }
    seed(&mut states, cfg.entry(), &State::at_entry(), false);
    work.insert(cfg.entry());

    let mut visits = vec![0_u32; cfg.blocks().len()];
    while let Some(id) = work.pop_first() {
        let (Some(block), Some(Some(entry))) = (cfg.blocks().get(id), states.get(id)) else { continue };
        let mut state = entry.clone();
        for instruction in instructions.get(block.instructions.clone()).unwrap_or(&[]) {
            state.step(instruction, memory, factory);
        }
        let Some(count) = visits.get_mut(id) else { continue };
        *count = count.saturating_add(1);
        for &successor in &block.successors {
            let widen = visits.get(successor).is_some_and(|count| *count > PATIENCE);
            if seed(&mut states, successor, &state, widen) {
                work.insert(successor);
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
