//! Vector registers, as far as compilers use them to move two integers or pointers at once.
//!
//! Input: moves of 16 bytes, and the instructions that put two values of 8 bytes together. Output: the two halves of
//! the lowest 16 bytes of a register (SDM volume 1, 10.2). Whatever else writes a register makes it unknown.
//!
//! Over-approximates: lanes of other widths are not told apart. May miss: nothing.

use iced_x86::{Instruction, InstructionInfoFactory, Mnemonic, OpKind, Register};

use super::State;
use super::arithmetic::{add, truncate};
use crate::memory::Memory;
use crate::value::{Atom, Value};

/// The halves of one register, the lower one first.
pub(super) type Halves = [Value; 2];

/// The registers of which something is known, sorted by number.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub(super) struct Vectors(Vec<(usize, Halves)>);

const UNKNOWN: Halves = [Value::Top, Value::Top];

fn number(register: Register) -> Option<usize> {
    (register.is_xmm() || register.is_ymm() || register.is_zmm()).then(|| register.number())
}

impl Vectors {
    fn get(&self, register: Register) -> Halves {
        let index = number(register).and_then(|number| self.0.binary_search_by_key(&number, |(n, _)| *n).ok());
        index.and_then(|index| self.0.get(index)).map_or(UNKNOWN, |(_, halves)| halves.clone())
    }

    fn set(&mut self, register: Register, halves: Halves) {
        let Some(number) = number(register) else { return };
        match (self.0.binary_search_by_key(&number, |(n, _)| *n), halves == UNKNOWN) {
            (Ok(index), true) => drop(self.0.remove(index)),
            (Ok(index), false) => {
                if let Some(entry) = self.0.get_mut(index) {
                    entry.1 = halves;
                }
            }
            (Err(_), true) => {}
            (Err(index), false) => self.0.insert(index, (number, halves)),
        }
    }

    /// Nothing is known of a register any more.
    pub(super) fn forget(&mut self, register: Register) {
        self.set(register, UNKNOWN);
    }

    /// What Go's compiler makes is entered, and comes back, with zero in this one (Go's `abi-internal.md`). After a call
    /// to assembly, which need not keep it, the compiler clears it.
    pub(super) fn set_zero_of_go(&mut self) {
        self.set(Register::XMM15, [Value::constant(0), Value::constant(0)]);
    }

    /// Nothing is known of any (psABI figure 3.4: a callee may change all of them).
    pub(super) fn forget_all(&mut self) {
        self.0.clear();
    }

    /// Joins `other` in, each pair of halves with `joined`; true if that changed anything.
    pub(super) fn join(&mut self, other: &Self, mut joined: impl FnMut(&Value, &Value) -> Value) -> bool {
        if self == other {
            return false;
        }
        let mut result = Self::default();
        let numbers: std::collections::BTreeSet<usize> = self.0.iter().chain(&other.0).map(|(n, _)| *n).collect();
        let halves = |of: &Self, number: usize| {
            of.0.iter().find(|(n, _)| *n == number).map_or(UNKNOWN, |(_, halves)| halves.clone())
        };
        for number in numbers {
            let (mine, theirs) = (halves(self, number), halves(other, number));
            let both = [0, 1].map(|half: usize| match (mine.get(half), theirs.get(half)) {
                (Some(a), Some(b)) if a == b => a.clone(),
                (Some(a), Some(b)) => joined(a, b),
                _ => Value::Top,
            });
            if both != UNKNOWN {
                result.0.push((number, both));
            }
        }
        let changed = result != *self;
        *self = result;
        changed
    }
}

/// The address 8 bytes further on.
fn behind(address: &Value) -> Value {
    address.combine(&Value::constant(8), add)
}

impl State {
    /// What a vector move does; false if it is none that is modelled, and nothing was done.
    pub(super) fn move_vector(&mut self, instruction: &Instruction, memory: &Memory<'_, '_>) -> bool {
        use Mnemonic::{
            Movapd, Movaps, Movd, Movdqa, Movdqu, Movhps, Movq, Movupd, Movups, Pinsrq, Punpcklqdq, Pxor, Xorpd, Xorps,
        };
        let (to, from) = (instruction.op0_register(), instruction.op1_register());
        let to_register = instruction.op0_kind() == OpKind::Register;
        let is_same = to_register && instruction.op1_kind() == OpKind::Register && to == from;
        match instruction.mnemonic() {
            Movaps | Movapd | Movups | Movupd | Movdqa | Movdqu => {
                let halves = self.halves(instruction, memory);
                if to_register { self.vectors.set(to, halves) } else { self.store_halves(instruction, &halves) }
            }
            Pxor | Xorps | Xorpd if is_same => self.vectors.set(to, [Value::constant(0), Value::constant(0)]),
            Movq | Movd if to_register && to.is_xmm() && !from.is_xmm() => {
                let value = self.operand(instruction, 1, memory);
                let bytes = if instruction.mnemonic() == Movd && from.size() == 4 { 4 } else { 8 };
                let low = value.map(|atom| truncate(atom, bytes));
                self.vectors.set(to, [low, Value::constant(0)]);
            }
            Movq | Movd if from.is_xmm() => {
                let [low, _] = self.vectors.get(from);
                if to.is_xmm() {
                    self.vectors.set(to, [low, Value::constant(0)])
                } else {
                    self.assign(instruction, low)
                }
            }
            Punpcklqdq if instruction.op1_kind() == OpKind::Register => {
                let ([low, _], [high, _]) = (self.vectors.get(to), self.vectors.get(from));
                self.vectors.set(to, [low, high]);
            }
            Movhps | Pinsrq if to_register => {
                let is_upper = instruction.mnemonic() == Movhps || instruction.immediate8() & 1 == 1;
                let ([low, high], value) = (self.vectors.get(to), self.operand(instruction, 1, memory));
                self.vectors.set(to, if is_upper { [low, value] } else { [value, high] });
            }
            Movhps => {
                let [_, high] = self.vectors.get(from);
                self.assign(instruction, high);
            }
            _ => return false,
        }
        true
    }

    /// What a move of 16 bytes reads.
    fn halves(&self, instruction: &Instruction, memory: &Memory<'_, '_>) -> Halves {
        if instruction.op1_kind() == OpKind::Register {
            return self.vectors.get(instruction.op1_register());
        }
        match self.field(instruction) {
            Some(Atom::ParameterField(number, offset)) => {
                [offset, offset.wrapping_add(8)].map(|offset| Value::One(Atom::ParameterField(number, offset)))
            }
            Some(Atom::GlobalField(at, offset)) => {
                [offset, offset.wrapping_add(8)].map(|offset| Value::One(Atom::GlobalField(at, offset)))
            }
            _ => {
                let address = self.effective_address(instruction);
                [self.load(&address, 8, memory), self.load(&behind(&address), 8, memory)]
            }
        }
    }

    fn store_halves(&mut self, instruction: &Instruction, halves: &Halves) {
        let address = self.effective_address(instruction);
        match address.frame_offset() {
            Some(_) => {
                let [low, high] = halves;
                self.store(&address, 8, low.clone());
                self.store(&behind(&address), 8, high.clone());
            }
            None => {
                halves.iter().for_each(|half| self.escape(half));
                self.store_somewhere(&address);
            }
        }
    }

    /// What a move of 16 bytes stores in the 8 bytes so far behind the start of its memory operand.
    pub(super) fn stored_half(&self, instruction: &Instruction, distance: u64) -> Value {
        let [low, high] = self.vectors.get(instruction.op1_register());
        match distance {
            0 => low,
            8 => high,
            _ if [low, high].iter().all(|half| *half == Value::constant(0)) => Value::constant(0),
            _ => Value::Top,
        }
    }

    /// Addresses in the frame that lie in the vector registers which an instruction names, and all that it writes.
    pub(super) fn give_up_vectors(&mut self, instruction: &Instruction, factory: &mut InstructionInfoFactory) {
        for used in factory.info(instruction).used_registers() {
            if number(used.register()).is_some() {
                self.vectors.get(used.register()).iter().for_each(|half| self.escape(half));
                if used.access() != iced_x86::OpAccess::Read {
                    self.vectors.forget(used.register());
                }
            }
        }
    }
}
