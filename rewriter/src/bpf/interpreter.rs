//! Runs a filter as the kernel does.
//!
//! Input: a [`Program`] and the `struct seccomp_data` of one call. Output: the value that the filter returns. This is
//! the second opinion on what was compiled; it runs on every filter before the filter is written. Semantics:
//! `net/core/filter.c`, where division by a zero X ends the program with 0 and shifts count modulo 32.

use super::instruction::{Alu, Comparison, Operand, Operation};
use super::program::{DATA_LENGTH, Program};
use super::specification::AUDIT_ARCH_X86_64;

/// `struct seccomp_data`: what a filter can see of a call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SeccompData {
    /// Number of the call.
    pub nr: u32,
    /// `AUDIT_ARCH_*` of the way it was made.
    pub arch: u32,
    /// Address behind the instruction.
    pub instruction_pointer: u64,
    /// Arguments.
    pub args: [u64; 6],
}

impl SeccompData {
    /// A call by x86-64's `syscall`.
    #[must_use]
    pub fn of_call(nr: u32) -> Self {
        Self { nr, arch: AUDIT_ARCH_X86_64, ..Self::default() }
    }

    /// The word at an offset, as the kernel lays them out; there is none at an offset that is no multiple of four.
    fn word(&self, offset: u32) -> Option<u32> {
        let half = |value: u64, half: u32| u32::try_from(value >> (32 * half) & 0xffff_ffff).ok();
        let (index, rest) = (offset / 4, offset % 4);
        match index {
            _ if rest != 0 => None,
            0 => Some(self.nr),
            1 => Some(self.arch),
            2 | 3 => half(self.instruction_pointer, index % 2),
            _ => half(*self.args.get(usize::try_from(index / 2).ok()?.checked_sub(2)?)?, index % 2),
        }
    }
}

#[derive(Default)]
struct State {
    a: u32,
    x: u32,
    memory: [u32; 16],
}

impl State {
    fn operand(&self, operand: Operand) -> u32 {
        match operand {
            Operand::Constant(k) => k,
            Operand::X => self.x,
        }
    }

    fn memory(&self, word: u32) -> u32 {
        usize::try_from(word).ok().and_then(|word| self.memory.get(word)).copied().unwrap_or(0)
    }

    fn store(&mut self, word: u32, value: u32) {
        if let Some(slot) = usize::try_from(word).ok().and_then(|word| self.memory.get_mut(word)) {
            *slot = value;
        }
    }

    /// `None` is a division by zero, which ends the program.
    fn alu(&self, operation: Alu, operand: u32) -> Option<u32> {
        Some(match operation {
            Alu::Add => self.a.wrapping_add(operand),
            Alu::Subtract => self.a.wrapping_sub(operand),
            Alu::Multiply => self.a.wrapping_mul(operand),
            Alu::Divide => self.a.checked_div(operand)?,
            Alu::Or => self.a | operand,
            Alu::And => self.a & operand,
            Alu::ShiftLeft => self.a.wrapping_shl(operand),
            Alu::ShiftRight => self.a.wrapping_shr(operand),
            Alu::Xor => self.a ^ operand,
        })
    }

    fn holds(&self, test: Comparison, operand: u32) -> bool {
        match test {
            Comparison::Equal => self.a == operand,
            Comparison::Greater => self.a > operand,
            Comparison::GreaterOrEqual => self.a >= operand,
            Comparison::AnyBit => self.a & operand != 0,
        }
    }
}

impl Program {
    /// What the filter says to a call.
    #[must_use]
    pub fn run(&self, data: &SeccompData) -> u32 {
        self.walk(data).0
    }

    /// What the filter says to a call, and how many instructions that takes.
    pub(super) fn walk(&self, data: &SeccompData) -> (u32, usize) {
        let (mut state, mut steps) = (State::default(), 0);
        let mut rest = self.operations().iter();
        // Jumps only go forward, so the iterator is the program counter, and a valid program returns before its end.
        while let Some(operation) = rest.next() {
            let mut skip = 0;
            steps += 1;
            match *operation {
                Operation::LoadData(offset) => state.a = data.word(offset).unwrap_or(0),
                Operation::LoadConstant(k) => state.a = k,
                Operation::LoadMemory(word) => state.a = state.memory(word),
                Operation::LoadLength => state.a = DATA_LENGTH,
                Operation::LoadXConstant(k) => state.x = k,
                Operation::LoadXMemory(word) => state.x = state.memory(word),
                Operation::LoadXLength => state.x = DATA_LENGTH,
                Operation::Store(word) => state.store(word, state.a),
                Operation::StoreX(word) => state.store(word, state.x),
                Operation::Alu(operation, operand) => match state.alu(operation, state.operand(operand)) {
                    Some(value) => state.a = value,
                    None => return (0, steps),
                },
                Operation::Negate => state.a = state.a.wrapping_neg(),
                Operation::Jump(skipped) => skip = skipped,
                Operation::JumpIf { test, operand, jt, jf } => {
                    skip = u32::from(if state.holds(test, state.operand(operand)) { jt } else { jf });
                }
                Operation::Return(k) => return (k, steps),
                Operation::ReturnA => return (state.a, steps),
                Operation::CopyToX => state.x = state.a,
                Operation::CopyFromX => state.a = state.x,
            }
            if let Some(last_skipped) = skip.checked_sub(1) {
                rest.nth(usize::try_from(last_skipped).unwrap_or(usize::MAX));
            }
        }
        (0, steps)
    }
}

#[cfg(test)]
mod tests {
    use super::super::instruction::SockFilter;
    use super::*;

    fn run(code: &[(u16, u8, u8, u32)], data: &SeccompData) -> u32 {
        let code = code.iter().map(|&(code, jt, jf, k)| SockFilter { code, jt, jf, k }).collect();
        Program::new(code).unwrap().run(data)
    }

    #[test]
    fn every_field_of_the_data_is_where_the_kernel_has_it() {
        let data =
            SeccompData { nr: 1, arch: 2, instruction_pointer: 0x0000_0004_0000_0003, args: [0, 0, 0, 0, 0, 9 << 32] };
        for (offset, expected) in [(0, 1), (4, 2), (8, 3), (12, 4), (16, 0), (60, 9)] {
            assert_eq!(run(&[(0x20, 0, 0, offset), (0x16, 0, 0, 0)], &data), expected, "offset {offset}");
        }
    }

    #[test]
    fn arithmetic_and_memory() {
        let data = SeccompData::default();
        // A = 7; M[3] = A; X = M[3]; A = -A; A -= X; A >>= 1
        let code = [
            (0x00, 0, 0, 7),
            (0x02, 0, 0, 3),
            (0x61, 0, 0, 3),
            (0x84, 0, 0, 0),
            (0x1c, 0, 0, 0),
            (0x74, 0, 0, 1),
            (0x16, 0, 0, 0),
        ];
        assert_eq!(run(&code, &data), 0xffff_fff2 >> 1);
        // Division by X = 0 ends with 0, which kills.
        assert_eq!(run(&[(0x00, 0, 0, 7), (0x3c, 0, 0, 0), (0x06, 0, 0, 5)], &data), 0);
    }

    #[test]
    fn jumps_go_both_ways() {
        let code = [
            (0x20, 0, 0, 0),
            (0x25, 1, 0, 10),
            (0x06, 0, 0, 100),
            (0x05, 0, 0, 1),
            (0x06, 0, 0, 101),
            (0x06, 0, 0, 102),
        ];
        for (nr, expected) in [(10, 100), (11, 102), (u32::MAX, 102)] {
            assert_eq!(run(&code, &SeccompData { nr, ..SeccompData::default() }), expected);
        }
    }
}
