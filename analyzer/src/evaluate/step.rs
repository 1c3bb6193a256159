//! One instruction of a run.
//!
//! Input: a machine before an instruction. Output: the machine after it, or `None` where the run cannot go on: the
//! instruction is not known, or the way depends on something unknown.
//!
//! Over-approximates: nothing. May miss: nothing.

use iced_x86::{FlowControl, Instruction, Mnemonic, OpKind, Register};

use super::Machine;
use super::arithmetic::{Flags, Word, add, extend, low, subtract};
use crate::instruction::{is_conditional_move, is_conditional_set, is_thread_local};

/// Where the thread's stack protector value stands behind `fs` (glibc: `sysdeps/x86_64/nptl/tls.h`).
const STACK_PROTECTOR: u64 = 0x28;

fn index_of(register: Register) -> Option<usize> {
    let full = register.full_register();
    full.is_gpr64().then(|| full.number())
}

const fn is_high(register: Register) -> bool {
    matches!(register, Register::AH | Register::BH | Register::CH | Register::DH)
}

impl Machine<'_, '_, '_> {
    /// A register, or a part of one.
    pub(super) fn get(&self, register: Register) -> Word {
        let &(word, known) = self.registers.get(index_of(register)?)?;
        let shift = if is_high(register) { 8 } else { 0 };
        let is_known = low(!known >> shift, register.size()) == 0;
        is_known.then(|| low(word >> shift, register.size()))
    }

    /// Writes a register that is `bytes` wide.
    pub(super) fn set(&mut self, register: Register, bytes: usize, word: Word) {
        let Some(place) = index_of(register).and_then(|index| self.registers.get_mut(index)) else { return };
        // A 32-bit write clears the upper half, narrower ones keep the rest (SDM volume 1, 3.4.1.1).
        let shift = if is_high(register) { 8 } else { 0 };
        let mask = if bytes == 4 { u64::MAX } else { low(u64::MAX, bytes) << shift };
        let known = if word.is_some() { mask } else { 0 };
        let new = low(word.unwrap_or(0), bytes) << shift;
        *place = (place.0 & !mask | new, place.1 & !mask | known);
    }

    pub(super) fn push(&mut self, word: Word) -> Option<()> {
        let top = self.get(Register::RSP)?.checked_sub(8)?;
        self.set(Register::RSP, 8, Some(top));
        self.write(top, 8, word)
    }

    /// The outer `None` if there is no stack, the inner one if the word is unknown.
    pub(super) fn pop(&mut self) -> Option<Word> {
        let top = self.get(Register::RSP)?;
        self.set(Register::RSP, 8, Some(top.checked_add(8)?));
        Some(self.read(top, 8))
    }

    fn address(&self, instruction: &Instruction) -> Word {
        if instruction.is_ip_rel_memory_operand() {
            return Some(instruction.ip_rel_memory_address());
        }
        let part = |register| if register == Register::None { Some(0) } else { self.get(register) };
        let index = part(instruction.memory_index())?.wrapping_mul(instruction.memory_index_scale().into());
        let sum = part(instruction.memory_base())?.wrapping_add(index);
        Some(sum.wrapping_add(instruction.memory_displacement64()))
    }

    fn width(instruction: &Instruction, operand: u32) -> usize {
        match instruction.op_kind(operand) {
            OpKind::Register => instruction.op_register(operand).size(),
            OpKind::Memory => instruction.memory_size().size(),
            _ => 8,
        }
    }

    fn operand(&self, instruction: &Instruction, operand: u32) -> Word {
        match instruction.op_kind(operand) {
            OpKind::Register => self.get(instruction.op_register(operand)),
            OpKind::Memory if is_thread_local(instruction) => {
                // Any number will do: it is only compared with itself.
                let is_protector = instruction.memory_base() == Register::None
                    && instruction.memory_displacement64() == STACK_PROTECTOR;
                is_protector.then_some(0)
            }
            OpKind::Memory => {
                let bytes = instruction.memory_size().size();
                matches!(bytes, 1 | 2 | 4 | 8).then(|| self.address(instruction))?.and_then(|at| self.read(at, bytes))
            }
            OpKind::NearBranch64 => Some(instruction.near_branch_target()),
            _ => instruction.try_immediate(operand).ok(),
        }
    }

    /// Writes operand 0; `None` if nobody knows where that is, or others would see it.
    fn assign(&mut self, instruction: &Instruction, word: Word) -> Option<()> {
        match instruction.op0_kind() {
            OpKind::Register if index_of(instruction.op0_register()).is_some() => {
                self.set(instruction.op0_register(), instruction.op0_register().size(), word);
                Some(())
            }
            OpKind::Memory if !is_thread_local(instruction) => {
                let bytes = instruction.memory_size().size();
                self.write(self.address(instruction)?, matches!(bytes, 1 | 2 | 4 | 8).then_some(bytes)?, word)
            }
            _ => None,
        }
    }

    /// Runs one instruction; `self.at` is behind it already.
    pub(super) fn step(&mut self, instruction: &Instruction) -> Option<()> {
        match instruction.flow_control() {
            FlowControl::Next => self.compute(instruction),
            FlowControl::UnconditionalBranch | FlowControl::IndirectBranch => {
                self.at = self.operand(instruction, 0)?;
                Some(())
            }
            FlowControl::ConditionalBranch => {
                if self.flags.holds(instruction.condition_code())? {
                    self.at = self.operand(instruction, 0)?;
                }
                Some(())
            }
            FlowControl::Call | FlowControl::IndirectCall if instruction.mnemonic() == Mnemonic::Call => {
                let target = self.operand(instruction, 0)?;
                self.push(Some(self.at))?;
                self.at = target;
                Some(())
            }
            FlowControl::Return if instruction.op_count() == 0 => {
                self.at = self.pop()??;
                Some(())
            }
            _ => None,
        }
    }

    fn compute(&mut self, instruction: &Instruction) -> Option<()> {
        let bytes = Self::width(instruction, 0);
        let source = |machine: &Self| machine.operand(instruction, 1);
        match instruction.mnemonic() {
            Mnemonic::Nop | Mnemonic::Endbr64 => Some(()),
            Mnemonic::Mov | Mnemonic::Movzx => self.assign(instruction, source(self)),
            Mnemonic::Movsx | Mnemonic::Movsxd => {
                let width = Self::width(instruction, 1);
                self.assign(instruction, source(self).map(|word| extend(word, width)))
            }
            Mnemonic::Lea => self.assign(instruction, self.address(instruction)),
            Mnemonic::Cdqe => {
                let word = self.get(Register::EAX).map(|word| extend(word, 4));
                self.set(Register::RAX, 8, word);
                Some(())
            }
            Mnemonic::Push => self.push(self.operand(instruction, 0)),
            Mnemonic::Pop => {
                let word = self.pop()?;
                self.assign(instruction, word)
            }
            Mnemonic::Leave => {
                self.set(Register::RSP, 8, self.get(Register::RBP));
                let saved = self.pop()?;
                self.set(Register::RBP, 8, saved);
                Some(())
            }
            Mnemonic::Cmp => {
                self.flags = subtract(self.operand(instruction, 0), source(self), bytes).1;
                Some(())
            }
            Mnemonic::Test => {
                let both = self.operand(instruction, 0).zip(source(self)).map(|(a, b)| a & b);
                self.flags = Flags::logical(both, bytes);
                Some(())
            }
            _ if is_conditional_set(instruction) => {
                let word = self.flags.holds(instruction.condition_code()).map(u64::from);
                self.assign(instruction, word)
            }
            _ if is_conditional_move(instruction) => {
                let word = match self.flags.holds(instruction.condition_code()) {
                    Some(true) => source(self),
                    Some(false) => self.operand(instruction, 0),
                    None => None,
                };
                self.assign(instruction, word)
            }
            _ => self.calculate(instruction, bytes),
        }
    }

    /// Instructions that change operand 0 and the flags.
    fn calculate(&mut self, instruction: &Instruction, bytes: usize) -> Option<()> {
        let is_same = instruction.op_count() == 2
            && instruction.op0_kind() == OpKind::Register
            && instruction.op1_kind() == OpKind::Register
            && instruction.op0_register() == instruction.op1_register();
        let (old, other) = (self.operand(instruction, 0), self.operand(instruction, 1));
        let logical = |word: Word| (word, Flags::logical(word, bytes));
        let shifted = |shift: fn(u64, u32) -> Option<u64>| {
            let count = other.map(|count| count & if bytes == 8 { 63 } else { 31 }).and_then(|n| u32::try_from(n).ok());
            let word = old.zip(count).and_then(|(word, count)| shift(word, count)).map(|word| low(word, bytes));
            // Shifted by nothing, the flags stay; that a count is unknown or zero makes them unknown here.
            (word, if count == Some(0) { Flags::default() } else { Flags::of(word, bytes) })
        };
        let (word, flags) = match instruction.mnemonic() {
            Mnemonic::Xor | Mnemonic::Sub if is_same => logical(Some(0)),
            Mnemonic::Xor => logical(old.zip(other).map(|(a, b)| a ^ b)),
            Mnemonic::And => logical(old.zip(other).map(|(a, b)| a & b)),
            Mnemonic::Or => logical(old.zip(other).map(|(a, b)| a | b)),
            Mnemonic::Add => add(old, other, bytes),
            Mnemonic::Sub => subtract(old, other, bytes),
            Mnemonic::Neg => subtract(Some(0), old, bytes),
            Mnemonic::Not => (old.map(|word| !word), self.flags),
            Mnemonic::Inc => {
                let (word, flags) = add(old, Some(1), bytes);
                (word, flags.with_carry_of(self.flags))
            }
            Mnemonic::Dec => {
                let (word, flags) = subtract(old, Some(1), bytes);
                (word, flags.with_carry_of(self.flags))
            }
            Mnemonic::Shl => shifted(u64::checked_shl),
            Mnemonic::Shr => shifted(u64::checked_shr),
            Mnemonic::Sar => {
                let (word, flags) = shifted(|_, _| None);
                let count = other.map(|count| count & if bytes == 8 { 63 } else { 31 });
                let known = old.zip(count.and_then(|count| u32::try_from(count).ok()));
                let known = known.map(|(word, count)| extend(word, bytes).cast_signed().wrapping_shr(count));
                (known.map(i64::cast_unsigned).or(word), flags)
            }
            Mnemonic::Imul if instruction.op_count() >= 2 => {
                let factors =
                    if instruction.op_count() == 3 { (other, self.operand(instruction, 2)) } else { (old, other) };
                (factors.0.zip(factors.1).map(|(a, b)| low(a.wrapping_mul(b), bytes)), Flags::default())
            }
            _ => return None,
        };
        self.flags = flags;
        self.assign(instruction, word)
    }
}
