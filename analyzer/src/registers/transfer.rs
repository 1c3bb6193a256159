//! What each instruction does to the machine state.
//!
//! Input: a [`State`] before an instruction. Output: the state after it.
//!
//! Over-approximates: every instruction that is not modelled makes what it writes unknown. May miss: what
//! [`crate::registers`] names.

use iced_x86::{Instruction, InstructionInfoFactory, Mnemonic, OpAccess, OpKind, Register};

use super::arithmetic::{add, constants, is_elsewhere, negate, sign_extend};
use super::{CallEffect, SYSCALL_ARGUMENTS, State, bit};
use crate::address::Vaddr;
use crate::instruction::{is_conditional_move, is_conditional_set};
use crate::memory::Memory;
use crate::value::{Atom, Value};

/// All sixteen, in the order of their bits.
const ALL: [Register; 16] = [
    Register::RAX,
    Register::RCX,
    Register::RDX,
    Register::RBX,
    Register::RSP,
    Register::RBP,
    Register::RSI,
    Register::RDI,
    Register::R8,
    Register::R9,
    Register::R10,
    Register::R11,
    Register::R12,
    Register::R13,
    Register::R14,
    Register::R15,
];

impl State {
    fn adjust_stack(&mut self, bytes: i64) {
        let moved = self.register(Register::RSP).combine(&Value::constant(bytes.cast_unsigned()), add);
        self.set(Register::RSP, moved);
    }

    /// A call has been made and has returned: what the callee may change is unknown, but for its result.
    fn call(&mut self, effect: CallEffect, at: Vaddr) {
        for register in ALL.into_iter().filter(|&register| effect.passed & bit(register) != 0) {
            self.pass_on(&[register]);
        }
        if effect.stack > 0 {
            // Nothing can be passed above the return address, which stands at 0.
            let end = |top: i64| top.saturating_add(i64::from(effect.stack)).min(0);
            let range = self.register(Register::RSP).frame_offset().map_or(i64::MIN..i64::MAX, |top| top..end(top));
            self.frame.forget(&range);
        }
        if effect.returns_twice {
            // Callee-saved registers are restored; the frame has what was stored since.
            self.frame.forget(&(i64::MIN..i64::MAX));
        }
        for register in ALL.into_iter().filter(|&register| effect.changed & bit(register) != 0) {
            self.set(register, Value::Top);
        }
        self.vectors.forget_all();
        if effect.keeps_zero {
            self.vectors.set_zero_of_go();
        }
        if effect.has_result && effect.changed & bit(Register::RAX) != 0 {
            self.set(Register::RAX, Value::One(Atom::Returned(at)));
        }
        self.frame.forget_escaped();
    }

    /// What the instruction does.
    pub fn step(&mut self, instruction: &Instruction, memory: &Memory<'_, '_>, factory: &mut InstructionInfoFactory) {
        match instruction.mnemonic() {
            Mnemonic::Mov | Mnemonic::Movzx => {
                let value = self.operand(instruction, 1, memory);
                self.assign(instruction, value);
            }
            Mnemonic::Movsx | Mnemonic::Movsxd => {
                let bytes = if instruction.op1_kind() == OpKind::Memory {
                    instruction.memory_size().size()
                } else {
                    instruction.op1_register().size()
                };
                let value = self.operand(instruction, 1, memory).map(|atom| match atom {
                    Atom::Constant(x) => Some(Atom::Constant(sign_extend(x, bytes))),
                    // A number of a system call is 32 bits wide, whatever its sign.
                    other => is_elsewhere(other).then_some(other),
                });
                self.assign(instruction, value);
            }
            // The only operand that it has is `rax`.
            Mnemonic::Cdqe => {
                let value = self.sub_register(Register::EAX).map(|atom| match atom {
                    Atom::Constant(x) => Some(Atom::Constant(sign_extend(x, 4))),
                    other => is_elsewhere(other).then_some(other),
                });
                self.set(Register::RAX, value);
            }
            // Go looks whether the stack is large enough: no address of anything that stands on it.
            Mnemonic::Lea if is_stack_check(instruction) && memory.is_go(instruction) => {
                self.assign(instruction, Value::Top);
            }
            Mnemonic::Lea => {
                let value = self.effective_address(instruction);
                if let Some(offset) = value.frame_offset().filter(|_| instruction.op0_register() != Register::RSP) {
                    self.frame.take(offset);
                }
                self.assign(instruction, value);
            }
            // A comparison hands no address out and writes nothing but flags.
            Mnemonic::Cmp | Mnemonic::Test => {}
            Mnemonic::Push => {
                let value = self.operand(instruction, 0, memory);
                self.adjust_stack(-8);
                let top = self.register(Register::RSP);
                self.store(&top, 8, value);
            }
            Mnemonic::Pop if instruction.op0_kind() == OpKind::Register => {
                let value = self.load(&self.register(Register::RSP), 8, memory);
                self.adjust_stack(8);
                self.assign(instruction, value);
            }
            Mnemonic::Leave => {
                let frame = self.register(Register::RBP);
                let saved = self.load(&frame, 8, memory);
                self.set(Register::RSP, frame);
                self.adjust_stack(8);
                self.set(Register::RBP, saved);
            }
            Mnemonic::Xchg
                if instruction.op0_kind() == OpKind::Register && instruction.op1_kind() == OpKind::Register =>
            {
                let (a, b) = (self.operand(instruction, 0, memory), self.operand(instruction, 1, memory));
                self.assign_register(instruction.op0_register(), b);
                self.assign_register(instruction.op1_register(), a);
            }
            Mnemonic::Call => self.call(memory.effect_of(instruction), Vaddr(instruction.ip())),
            Mnemonic::Syscall => {
                self.pass_on(&SYSCALL_ARGUMENTS);
                self.frame.forget_escaped();
                for register in [Register::RAX, Register::RCX, Register::R11] {
                    self.set(register, Value::Top);
                }
            }
            _ if self.move_vector(instruction, memory) => {}
            _ => self.step_arithmetic(instruction, memory, factory),
        }
    }

    fn step_arithmetic(
        &mut self,
        instruction: &Instruction,
        memory: &Memory<'_, '_>,
        factory: &mut InstructionInfoFactory,
    ) {
        let same = instruction.op_count() == 2
            && instruction.op0_kind() == OpKind::Register
            && instruction.op1_kind() == OpKind::Register
            && instruction.op0_register() == instruction.op1_register();
        let binary = |state: &Self, f: &dyn Fn(Atom, Atom) -> Option<Atom>| {
            state.operand(instruction, 0, memory).combine(&state.operand(instruction, 1, memory), f)
        };
        let value = match instruction.mnemonic() {
            Mnemonic::Xor | Mnemonic::Sub if same => Value::constant(0),
            Mnemonic::Xor => binary(self, &constants(|a, b| a ^ b)),
            Mnemonic::Add => binary(self, &add),
            Mnemonic::Sub => binary(self, &|a, b| add(a, negate(b)?)),
            Mnemonic::And => self.and(instruction, memory),
            Mnemonic::Or
                if instruction.op1_kind() != OpKind::Register
                    && self.operand(instruction, 1, memory) == Value::constant(u64::MAX) =>
            {
                Value::constant(u64::MAX)
            }
            Mnemonic::Or => binary(self, &constants(|a, b| a | b)),
            Mnemonic::Shl => binary(self, &constants(|a, b| a.wrapping_shl(u32::try_from(b & 63).unwrap_or(0)))),
            Mnemonic::Shr => binary(self, &constants(|a, b| a.wrapping_shr(u32::try_from(b & 63).unwrap_or(0)))),
            Mnemonic::Inc => self.operand(instruction, 0, memory).combine(&Value::constant(1), add),
            Mnemonic::Dec => self.operand(instruction, 0, memory).combine(&Value::constant(u64::MAX), add),
            Mnemonic::Neg => self.operand(instruction, 0, memory).map(negate),
            Mnemonic::Not => {
                self.operand(instruction, 0, memory).combine(&Value::constant(u64::MAX), constants(|a, b| a ^ b))
            }
            // The borrow of an earlier comparison: all bits or none.
            Mnemonic::Sbb if same => Value::from_atoms(vec![Atom::Constant(0), Atom::Constant(u64::MAX)]),
            _ if is_conditional_set(instruction) => Value::from_atoms(vec![Atom::Constant(0), Atom::Constant(1)]),
            _ if is_conditional_move(instruction) => {
                self.operand(instruction, 0, memory).join(&self.operand(instruction, 1, memory))
            }
            _ => {
                self.pass_on_operands(instruction);
                self.give_up_vectors(instruction, factory);
                return self.forget_written(instruction, factory);
            }
        };
        if value == Value::Top {
            self.pass_on_operands(instruction);
        }
        self.assign(instruction, value);
    }

    /// `and` with a constant has few outcomes even where the other side is unknown: `and $2,%eax` gives 0 or 2.
    fn and(&self, instruction: &Instruction, memory: &Memory<'_, '_>) -> Value {
        let (left, right) = (self.operand(instruction, 0, memory), self.operand(instruction, 1, memory));
        match (&left, right.single()) {
            (_, Some(Atom::Constant(0))) => Value::constant(0),
            (Value::Top, Some(Atom::Constant(mask))) if mask.count_ones() == 1 => {
                Value::from_atoms(vec![Atom::Constant(0), Atom::Constant(mask)])
            }
            // Aligning the stack pointer keeps it a frame address, though not a known one.
            _ => left.combine(&right, constants(|a, b| a & b)),
        }
    }

    /// Everything that an instruction without a model writes is unknown after it.
    fn forget_written(&mut self, instruction: &Instruction, factory: &mut InstructionInfoFactory) {
        let writes = |access| {
            matches!(access, OpAccess::Write | OpAccess::CondWrite | OpAccess::ReadWrite | OpAccess::ReadCondWrite)
        };
        let target = self.register(Register::RDI);
        let info = factory.info(instruction);
        for used in info.used_registers().iter().filter(|used| writes(used.access())) {
            self.set(used.register(), Value::Top);
        }
        if info.used_memory().iter().any(|used| writes(used.access())) {
            let is_string = (0..instruction.op_count()).any(|n| {
                matches!(instruction.op_kind(n), OpKind::MemoryESDI | OpKind::MemoryESEDI | OpKind::MemoryESRDI)
            });
            if is_string {
                return self.store_somewhere(&target);
            }
            let address = self.effective_address(instruction);
            match address.frame_offset() {
                Some(offset) => self.frame.overwrite(offset, instruction.memory_size().size().max(8)),
                None => self.store_somewhere(&address),
            }
        }
    }

    /// Addresses in the frame that are passed on in registers.
    fn pass_on(&mut self, registers: &[Register]) {
        for &register in registers {
            let value = self.register(register);
            self.escape(&value);
        }
    }

    /// Addresses in the frame that an instruction without a model reads.
    fn pass_on_operands(&mut self, instruction: &Instruction) {
        for operand in 0..instruction.op_count() {
            if instruction.op_kind(operand) == OpKind::Register {
                self.pass_on(&[instruction.op_register(operand)]);
            }
        }
    }
}

/// Whether the instruction is the first of Go's check for a large frame: `lea -SIZE(%rsp),%r12`.
fn is_stack_check(instruction: &Instruction) -> bool {
    let is_scratch = matches!(instruction.op0_register(), Register::R12 | Register::R13);
    is_scratch
        && instruction.memory_base() == Register::RSP
        && instruction.memory_index() == Register::None
        && instruction.memory_displacement64().cast_signed() < 0
}
