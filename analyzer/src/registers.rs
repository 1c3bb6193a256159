//! The machine state that the data-flow analysis tracks.
//!
//! Sixteen general-purpose registers, pairs in vector registers, and the function's own stack frame. [`State::step`]
//! says what an instruction makes of a [`State`], [`State::refine`] what a branch that was taken tells about one.
//! Widths follow the architecture (SDM volume 1, 3.4.1.1): a 32-bit write clears the upper half, 8- and 16-bit writes
//! keep the rest.
//!
//! Over-approximates: every instruction that is not modelled makes what it writes unknown. May miss: a store through a
//! pointer that was not derived from the stack pointer in this function is taken not to hit a spilled value; a callee
//! keeps the callee-saved registers and the caller's frame below the addresses that were passed out (psABI 3.2.1).

mod arithmetic;
mod frame;
mod operand;
mod transfer;
mod vector;

use iced_x86::Register;

use crate::value::{Atom, Value};
use frame::Frame;
use vector::Vectors;

/// Registers that a callee may change (psABI figure 3.4).
pub const CALLER_SAVED: [Register; 9] = [
    Register::RAX,
    Register::RCX,
    Register::RDX,
    Register::RSI,
    Register::RDI,
    Register::R8,
    Register::R9,
    Register::R10,
    Register::R11,
];

/// Registers of integer arguments in order (psABI 3.2.3).
pub const ARGUMENTS: [Register; 6] =
    [Register::RDI, Register::RSI, Register::RDX, Register::RCX, Register::R8, Register::R9];

/// Registers of a system call's arguments in order (psABI A.2.1).
pub const SYSCALL_ARGUMENTS: [Register; 6] =
    [Register::RDI, Register::RSI, Register::RDX, Register::R10, Register::R8, Register::R9];

/// Registers that carry arguments of Go's functions only (Go's `abi-internal.md`; the others are among [`ARGUMENTS`]).
pub const GO_ARGUMENTS: [Register; 4] = [Register::RAX, Register::RBX, Register::R10, Register::R11];

/// The number of the parameter in the first of [`GO_ARGUMENTS`]; lower ones stand on the stack.
const FIRST_GO_ARGUMENT: u16 = 0xfff0;

/// What a call does to the state of the function that makes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CallEffect {
    /// Registers that may have changed when it comes back.
    pub changed: u16,
    /// Registers by which an address in the frame can be handed out.
    pub passed: u16,
    /// How many bytes above the stack pointer at the call are the callee's.
    pub stack: u32,
    /// Whether what it leaves in `rax` is looked for in the callee (Go's results are not).
    pub has_result: bool,
    /// Whether `xmm15` is zero when it comes back (Go's `abi-internal.md`).
    pub keeps_zero: bool,
    /// Whether it may come back more than once (`setjmp`), the frame as it is then.
    pub returns_twice: bool,
}

/// What is known about the machine at one point of one function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    registers: [Value; 16],
    vectors: Vectors,
    frame: Frame,
}

fn index_of(register: Register) -> Option<usize> {
    let full = register.full_register();
    full.is_gpr64().then(|| full.number())
}

/// The set that holds one register: a bit of 16.
#[must_use]
pub fn bit(register: Register) -> u16 {
    index_of(register).and_then(|index| u32::try_from(index).ok()).map_or(0, |index| 1 << index)
}

/// The set that holds these.
pub fn bits(registers: impl IntoIterator<Item = Register>) -> u16 {
    registers.into_iter().fold(0, |set, register| set | bit(register))
}

/// The set of registers that a callee may change.
#[must_use]
pub fn caller_saved() -> u16 {
    bits(CALLER_SAVED)
}

impl State {
    /// The state at a function's entry: each argument is itself, the stack pointer is the frame's origin, and `xmm15` is
    /// zero where Go's compiler keeps it so.
    #[must_use]
    pub fn at_entry(is_go: bool, keeps_zero: bool) -> Self {
        let mut state = Self::unknown();
        for (number, register) in (FIRST_GO_ARGUMENT..).zip(GO_ARGUMENTS).filter(|_| is_go) {
            state.set(register, Value::One(Atom::Parameter(number)));
        }
        for (number, register) in (0_u16..).zip(ARGUMENTS) {
            state.set(register, Value::One(Atom::Parameter(number)));
        }
        state.set(Register::RSP, Value::One(Atom::Frame(0)));
        if keeps_zero {
            state.vectors.set_zero_of_go();
        }
        state
    }

    /// The state where nothing is known.
    #[must_use]
    pub fn unknown() -> Self {
        Self { registers: std::array::from_fn(|_| Value::Top), vectors: Vectors::default(), frame: Frame::default() }
    }

    /// The full 64 bits of a general-purpose register.
    #[must_use]
    pub fn register(&self, register: Register) -> Value {
        index_of(register).and_then(|index| self.registers.get(index)).cloned().unwrap_or(Value::Top)
    }

    /// The n-th integer argument of a call that is about to be made, counted from 0; those on the stack begin `skip`
    /// bytes above the stack pointer.
    #[must_use]
    pub fn argument(&self, number: u16, skip: i64) -> Value {
        let go = number.checked_sub(FIRST_GO_ARGUMENT).and_then(|number| GO_ARGUMENTS.get(usize::from(number)));
        match ARGUMENTS.get(usize::from(number)).or(go) {
            Some(&register) => self.register(register),
            None => match self.register(Register::RSP).frame_offset() {
                Some(top) => self.frame.read(top.wrapping_add(skip + 8 * i64::from(number.saturating_sub(6))), 8),
                None => Value::Top,
            },
        }
    }

    /// Joins `other` in; true if that changed anything. With `widen`, what changes becomes unknown or an array.
    pub fn join(&mut self, other: &Self, widen: bool) -> bool {
        let mut changed = false;
        let mut lost: Option<i64> = None;
        let mut joined = |mine: &Value, theirs: &Value| {
            let value = if widen { mine.widen(theirs) } else { mine.join(theirs) };
            if value == Value::Top {
                // An address in the frame that nobody follows any more is one that anybody may write to.
                let offsets = [mine.lowest_frame_offset(), theirs.lowest_frame_offset(), lost];
                lost = offsets.into_iter().flatten().min();
            }
            value
        };
        for (mine, theirs) in self.registers.iter_mut().zip(&other.registers) {
            if mine == theirs {
                continue;
            }
            let value = joined(mine, theirs);
            if value != *mine {
                *mine = value;
                changed = true;
            }
        }
        changed |= self.vectors.join(&other.vectors, &mut joined);
        changed |= self.frame.join(&other.frame, joined);
        if let Some(offset) = lost {
            changed |= self.frame.escape(offset);
        }
        changed
    }

    fn set(&mut self, register: Register, value: Value) {
        if let Some(place) = index_of(register).and_then(|index| self.registers.get_mut(index)) {
            *place = value;
        }
    }

    /// What a pointer to `base` of the frame sees there, so many bytes on.
    #[must_use]
    pub fn frame_field(&self, base: i64, offset: i64) -> Value {
        let Some(at) = base.checked_add(offset) else { return Value::Top };
        match self.frame.read(at, 8) {
            // A number that was written in 4 bytes is read in 4 bytes.
            Value::Top => self.frame.read(at, 4),
            value => value,
        }
    }

    /// The lowest offset of the frame that others may write to.
    #[must_use]
    pub fn lowest_escaped(&self) -> Option<i64> {
        self.frame.lowest_escaped()
    }

    /// A comparison of `register`, `bytes` wide, with `number` came out `equal`; false if it cannot have.
    pub fn refine(&mut self, register: Register, bytes: usize, number: u64, equal: bool) -> bool {
        let old = self.register(register);
        let matches = |atom: Atom| arithmetic::truncate(atom, bytes) == Some(Atom::Constant(number));
        let is_number = |atom: &Atom| matches!(atom, Atom::Constant(_));
        let refined = match (old.atoms(), equal) {
            (None, true) if bytes == 8 => Value::constant(number),
            (None, _) => return true,
            (Some(atoms), true) if atoms.iter().all(is_number) => {
                Value::from_atoms(atoms.iter().copied().filter(|&atom| matches(atom)).collect())
            }
            (Some(_), true) if bytes == 8 => Value::constant(number),
            (Some(atoms), false) => Value::from_atoms(atoms.iter().copied().filter(|&atom| !matches(atom)).collect()),
            _ => return true,
        };
        let is_possible = refined != Value::Bottom;
        self.set(register, refined);
        is_possible
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_comparison_fixes_a_register_or_rules_a_number_out() {
        let mut state = State::unknown();
        assert!(state.refine(Register::RAX, 8, 0, true));
        assert_eq!(state.register(Register::RAX), Value::constant(0));
        state.set(Register::RBX, Value::from_atoms(vec![Atom::Constant(1), Atom::Constant(2)]));
        assert!(state.refine(Register::RBX, 4, 1, false));
        assert_eq!(state.register(Register::RBX), Value::constant(2));
        assert!(!state.refine(Register::RBX, 8, 7, true));
    }

    #[test]
    fn half_a_register_that_is_compared_says_nothing_about_the_rest() {
        let mut state = State::unknown();
        assert!(state.refine(Register::RAX, 4, 5, true));
        assert_eq!(state.register(Register::RAX), Value::Top);
    }
}
