//! Which jump table an indirect jump goes through.
//!
//! Input: a function with several tables, and its graph in which every table serves every computed jump. Output: the
//! targets of those jumps whose table is known: the jump reads it itself, or the distance that it adds to a register is
//! added to the address of one (`lea table(%rip),%r12; ... movslq (%r12,%rax,4),%rax; add %r12,%rax; jmp *%rax`).
//! Without it a value that lives around one `switch` seems to live around all of them.
//!
//! Over-approximates: a jump whose table is not known keeps all of them. May miss: nothing that the tables hold.

use iced_x86::{FlowControl, Instruction, Mnemonic, OpKind, Register};
use rustc_hash::FxHashMap;

use crate::address::Vaddr;
use crate::cfg::{Cfg, MOST_EDGES};
use crate::dataflow;
use crate::functions::Function;
use crate::instruction::{ReferenceKind, fixed_memory_operand};
use crate::memory::Memory;
use crate::registers::State;
use crate::value::Atom;

/// Where indirect jumps go whose table is known.
pub type TableJumps = FxHashMap<Vaddr, Vec<Vaddr>>;

/// So often the flow is followed anew with what is known: the table of one jump shows that of another.
const MOST_ROUNDS: usize = 3;

/// Instructions with the states before them.
pub type Observed = Vec<(Instruction, Vaddr, State)>;

/// Finds the tables of the jumps of `function`; `graph` builds its graph with what is known so far. If it takes the data
/// flow of the whole function to see that no more is to be found, also what that says of the instructions that `wanted`
/// picks ([`dataflow::observe`]).
#[must_use]
pub fn find(
    memory: &Memory<'_, '_>,
    function: &Function,
    instructions: &[Instruction],
    mut graph: impl FnMut(&TableJumps) -> Cfg,
    wanted: impl Fn(&Instruction) -> bool,
) -> (TableJumps, Option<Observed>) {
    let mut found = TableJumps::default();
    let tables = tables(function, instructions);
    if tables.len() < 2 {
        return (found, None);
    }
    for (at, targets) in tables.values() {
        if instructions.binary_search_by_key(&at.0, Instruction::ip).is_ok_and(|i| is_jump(instructions.get(i))) {
            found.insert(*at, targets.clone());
        }
    }
    let mut sums = sums(instructions);
    let targets = tables.values().map(|(_, targets)| targets.len()).fold(0, usize::saturating_add);
    if sums.len().saturating_mul(targets) > MOST_EDGES {
        return (found, None);
    }
    let is_sum = |sums: &FxHashMap<Vaddr, Vaddr>, i: &Instruction| sums.contains_key(&Vaddr(i.ip()));
    for round in 0..=MOST_ROUNDS {
        sums.retain(|_, jump| !found.contains_key(jump));
        if sums.is_empty() {
            break;
        }
        let known = found.len();
        let cfg = graph(&found);
        // Who jumps to a place between them has another sum.
        sums.retain(|sum, jump| cfg.block_of(instructions, *sum) == cfg.block_of(instructions, *jump));
        let mut note = |instruction: &Instruction, at: Vaddr, state: &State| {
            let targets = sums.get(&at).and_then(|jump| Some((*jump, served(instruction, state, &tables)?)));
            found.extend(targets);
        };
        // Most compilers name the table in the same block, which is seen at once.
        if round == 0 {
            dataflow::observe_locally(memory, instructions, &cfg, |i| is_sum(&sums, i), &mut note);
        } else {
            let mut observed = Observed::new();
            dataflow::observe(
                memory,
                instructions,
                &cfg,
                |i| is_sum(&sums, i) || wanted(i),
                |instruction, at, state| {
                    note(instruction, at, state);
                    if wanted(instruction) {
                        observed.push((*instruction, at, state.clone()));
                    }
                },
            );
            if found.len() == known {
                return (found, Some(observed));
            }
        }
    }
    (found, None)
}

/// The tables of a function by address, each with an instruction that names it and its targets.
fn tables(function: &Function, instructions: &[Instruction]) -> FxHashMap<Vaddr, (Vaddr, Vec<Vaddr>)> {
    let mut tables: FxHashMap<Vaddr, (Vaddr, Vec<Vaddr>)> = FxHashMap::default();
    for reference in function.references.iter().filter(|r| r.kind == ReferenceKind::JumpTable) {
        let at = function.start.checked_add(u64::from(reference.from)).unwrap_or(function.start);
        let index = instructions.binary_search_by_key(&at.0, Instruction::ip).ok();
        let Some(namer) = index.and_then(|index| instructions.get(index)) else { continue };
        if let Some(table) = named(namer) {
            tables.entry(table).or_insert_with(|| (at, Vec::new())).1.push(reference.target);
        }
    }
    for (_, targets) in tables.values_mut() {
        targets.sort_unstable();
        targets.dedup();
    }
    tables
}

/// The address that an instruction names.
fn named(instruction: &Instruction) -> Option<Vaddr> {
    use OpKind::{Immediate32, Immediate32to64, Immediate64, Memory};
    let immediate = (0..instruction.op_count())
        .find(|&operand| matches!(instruction.op_kind(operand), Immediate32 | Immediate32to64 | Immediate64));
    let has_memory = (0..instruction.op_count()).any(|operand| instruction.op_kind(operand) == Memory);
    match (fixed_memory_operand(instruction), immediate) {
        (Some(at), _) => Some(at),
        (None, Some(operand)) => Some(Vaddr(instruction.immediate(operand))),
        (None, None) => has_memory.then(|| Vaddr(instruction.memory_displacement64())),
    }
}

fn is_jump(instruction: Option<&Instruction>) -> bool {
    instruction.is_some_and(|instruction| instruction.flow_control() == FlowControl::IndirectBranch)
}

/// Where the target of a jump is computed as a sum, shortly before it: from the sum to the jump.
fn sums(instructions: &[Instruction]) -> FxHashMap<Vaddr, Vaddr> {
    let mut sums = FxHashMap::default();
    for (index, jump) in instructions.iter().enumerate() {
        if !is_jump(Some(jump)) || jump.op0_kind() != OpKind::Register {
            continue;
        }
        let register = jump.op0_register();
        let before = instructions.get(..index).unwrap_or(&[]).iter().rev();
        let straight = before.take_while(|i| i.flow_control() == FlowControl::Next);
        let last = straight.take(MOST_BETWEEN).find(|i| i.op0_register().full_register() == register);
        if let Some(sum) = last.filter(|i| addends(i).is_some()) {
            sums.insert(Vaddr(sum.ip()), Vaddr(jump.ip()));
        }
    }
    sums
}

/// Instructions between a sum and its jump.
const MOST_BETWEEN: usize = 8;

/// The registers that an instruction adds up.
fn addends(instruction: &Instruction) -> Option<[Register; 2]> {
    let is_register = |operand| instruction.op_kind(operand) == OpKind::Register;
    match instruction.mnemonic() {
        Mnemonic::Add if is_register(0) && is_register(1) => {
            Some([instruction.op0_register(), instruction.op1_register()])
        }
        Mnemonic::Lea if instruction.memory_index_scale() == 1 && instruction.memory_displacement64() == 0 => {
            Some([instruction.memory_base(), instruction.memory_index()])
        }
        _ => None,
    }
}

/// The targets of the tables to whose address a sum adds.
fn served(
    instruction: &Instruction,
    state: &State,
    tables: &FxHashMap<Vaddr, (Vaddr, Vec<Vaddr>)>,
) -> Option<Vec<Vaddr>> {
    let table = |atom: &Atom| match atom {
        Atom::Address(at) => tables.get(at),
        _ => None,
    };
    addends(instruction)?.into_iter().find_map(|register| {
        let value = state.register(register);
        let served: Option<Vec<_>> = value.atoms().filter(|atoms| !atoms.is_empty())?.iter().map(table).collect();
        let mut targets: Vec<Vaddr> = served?.iter().flat_map(|(_, targets)| targets).copied().collect();
        targets.sort_unstable();
        targets.dedup();
        Some(targets)
    })
}
