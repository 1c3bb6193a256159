//! The system-call sites of one function: the number of each, and its arguments.
//!
//! Input: a function of a [`Code`]. Output: [`SyscallSite`]s. Most numbers are constants that the instructions right
//! before the site set, which are enough then: whatever the function does before, that is what `rax` holds. The others
//! take the data flow of the whole function, as the arguments do, which few ask for.
//!
//! Over-approximates: as [`crate::dataflow`] does. May miss: what [`crate::registers`] names.

use iced_x86::{FlowControl, Instruction, InstructionInfoFactory, Register};
use rustc_hash::FxHashSet;
use serde::{Deserialize, Serialize};

use crate::address::Vaddr;
use crate::cfg::direct_jump_target;
use crate::code::Code;
use crate::functions::Function;
use crate::instruction::{Role, role};
use crate::registers::{SYSCALL_ARGUMENTS, State};
use crate::value::{Atom, Value};

/// So many instructions before a site are looked at for its number alone.
const NEAREST: usize = 16;

/// An instruction that enters the kernel.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SyscallSite {
    /// The instruction.
    pub at: Vaddr,
    /// What `rax` can hold; the kernel looks at the low 32 bits.
    pub number: Value,
}

/// The sites of a function that control can get to.
#[must_use]
pub fn syscall_sites(code: &Code<'_, '_>, function: &Function) -> Vec<SyscallSite> {
    if function.syscalls.is_empty() {
        return Vec::new();
    }
    let mut found = numbered_nearby(code, function);
    let is_open = |at: &Vaddr| !found.iter().any(|site| site.at == *at);
    let open: Vec<Vaddr> = function.syscalls.iter().copied().filter(is_open).collect();
    observe(code, function, &open, |at, state| {
        found.push(SyscallSite { at, number: state.register(Register::RAX) });
    });
    found.sort_unstable_by_key(|site| site.at);
    found
}

/// What the six argument registers can hold at a site; `None` where control cannot get to.
#[must_use]
pub fn syscall_arguments(code: &Code<'_, '_>, function: &Function, at: Vaddr) -> Option<[Value; 6]> {
    let mut found = None;
    observe(code, function, &[at], |_, state| {
        found = Some(SYSCALL_ARGUMENTS.map(|register| state.register(register)));
    });
    found
}

/// Calls `tell` with the state before each of the sites at `wanted`.
fn observe(code: &Code<'_, '_>, function: &Function, wanted: &[Vaddr], mut tell: impl FnMut(Vaddr, &State)) {
    if wanted.is_empty() {
        return;
    }
    let is_wanted = |i: &Instruction| role(i) == Role::Syscall && wanted.contains(&Vaddr(i.ip()));
    code.observe(function, is_wanted, |_, at, state| tell(at, state));
}

/// The sites whose number is a constant that the straight line of code before them sets.
fn numbered_nearby(code: &Code<'_, '_>, function: &Function) -> Vec<SyscallSite> {
    // What no path leads to is no site there.
    if function.is_followed() {
        return Vec::new();
    }
    let instructions = function.instructions(code.image);
    let (targets, entries) = code.labels(function);
    let jumps = instructions.iter().filter_map(direct_jump_target);
    let labels: FxHashSet<Vaddr> = targets.into_iter().chain(entries).chain(jumps).chain([function.start]).collect();
    let mut factory = InstructionInfoFactory::new();
    let mut found = Vec::new();
    for (index, site) in instructions.iter().enumerate().filter(|(_, i)| role(i) == Role::Syscall) {
        let mut state = State::unknown();
        for instruction in straight_line(instructions.get(..=index).unwrap_or(&[]), &labels) {
            state.step(instruction, &code.memory(), &mut factory);
        }
        let number = state.register(Register::RAX);
        if matches!(number.single(), Some(Atom::Constant(_))) {
            found.push(SyscallSite { at: Vaddr(site.ip()), number });
        }
    }
    found
}

/// The nearest instructions before the last one of `instructions` that run right before it, however control gets to it.
fn straight_line<'i>(instructions: &'i [Instruction], labels: &FxHashSet<Vaddr>) -> &'i [Instruction] {
    let mut first = instructions.len().saturating_sub(1);
    while let Some((before, here)) = first.checked_sub(1).and_then(|i| instructions.get(i).zip(instructions.get(first)))
    {
        let runs_on = before.flow_control() == FlowControl::Next && before.next_ip() == here.ip();
        let is_far = instructions.len().saturating_sub(first) > NEAREST;
        if !runs_on || is_far || labels.contains(&Vaddr(here.ip())) {
            break;
        }
        first -= 1;
    }
    instructions.get(first..instructions.len().saturating_sub(1)).unwrap_or(&[])
}
