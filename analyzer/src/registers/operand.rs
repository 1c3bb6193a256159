//! Operands: addresses, loads and stores.
//!
//! Input: an operand of an instruction in a [`State`]. Output: the value that it has, or the state with it written.
//!
//! Over-approximates: a load through an address that is not known gives anything. May miss: what [`super::frame`] and
//! [`crate::memory`] name.

use iced_x86::{Instruction, Mnemonic, OpKind, Register};

use super::arithmetic::{add, constants, truncate};
use super::{State, index_of};
use crate::address::Vaddr;
use crate::instruction::is_thread_local;
use crate::memory::Memory;
use crate::value::{Atom, Value};

impl State {
    /// The value of the address that the instruction's memory operand names.
    pub(super) fn effective_address(&self, instruction: &Instruction) -> Value {
        if instruction.is_ip_rel_memory_operand() {
            return Value::One(Atom::Address(Vaddr(instruction.ip_rel_memory_address())));
        }
        if is_thread_local(instruction) {
            return Value::Top;
        }
        let displacement = Value::constant(instruction.memory_displacement64());
        let mut sum = displacement;
        if instruction.memory_base() != Register::None {
            sum = sum.combine(&self.register(instruction.memory_base()), add);
        }
        if instruction.memory_index() != Register::None {
            let scale = u64::from(instruction.memory_index_scale());
            let index = self.register(instruction.memory_index()).map(|atom| match atom {
                Atom::Constant(x) => Some(Atom::Constant(x.wrapping_mul(scale))),
                other => (scale == 1).then_some(other),
            });
            let base = sum.clone();
            sum = sum.combine(&index, add);
            let start = match base.single() {
                Some(Atom::Address(start)) => Some(start),
                // In a position-dependent file the displacement is the array.
                Some(Atom::Constant(at)) if at != 0 && instruction.memory_base() == Register::None => Some(Vaddr(at)),
                _ => None,
            };
            if let (Value::Top, Some(start)) = (&sum, start) {
                // An array that is indexed by something unknown. Elements are as wide as the scale, or the access.
                let width =
                    instruction.memory_index_scale().max(u32::try_from(instruction.memory_size().size()).unwrap_or(1));
                return Value::One(Atom::Element(start, width.max(1)));
            }
        }
        sum
    }

    /// Reads `bytes` from memory where the address is known.
    pub(super) fn load(&self, address: &Value, bytes: usize, memory: &Memory<'_, '_>) -> Value {
        let Some(atoms) = address.atoms() else { return Value::Top };
        let mut result = Value::Bottom;
        for &atom in atoms {
            let loaded = match atom {
                Atom::Frame(offset) => self.frame.read(offset, bytes),
                Atom::FrameElement(start, stride) => self.frame.read_elements(start, stride, bytes),
                Atom::Element(start, stride) => memory.read_elements(start, stride, bytes),
                Atom::Address(at) => memory.read(at, bytes),
                // In a position-dependent file an absolute address is a plain number.
                Atom::Constant(at) if !memory.image.is_position_independent() => memory.read(Vaddr(at), bytes),
                _ => Value::Top,
            };
            result = result.join(&loaded);
        }
        result
    }

    /// Reads what the instruction's memory operand names: a field of something that the function was given, if its
    /// base is such a thing.
    fn load_operand(&self, instruction: &Instruction, memory: &Memory<'_, '_>) -> Value {
        let bytes = instruction.memory_size().size();
        let field = self.field(instruction).filter(|_| matches!(bytes, 4 | 8));
        field.map_or_else(|| self.load(&self.effective_address(instruction), bytes, memory), Value::One)
    }

    pub(super) fn field(&self, instruction: &Instruction) -> Option<Atom> {
        if instruction.memory_index() != Register::None || instruction.is_ip_rel_memory_operand() {
            return None;
        }
        if is_thread_local(instruction) {
            return None;
        }
        let offset = instruction.memory_displacement64().cast_signed();
        match self.register(instruction.memory_base()).single()? {
            Atom::Parameter(number) => Some(Atom::ParameterField(number, offset)),
            Atom::Global(at) => Some(Atom::GlobalField(at, offset)),
            _ => None,
        }
    }

    /// What an instruction with a memory destination stores so many bytes behind its start.
    #[must_use]
    pub fn stored_value(&self, instruction: &Instruction, distance: u64, memory: &Memory<'_, '_>) -> Value {
        use Mnemonic::{Mov, Movapd, Movaps, Movdqa, Movdqu, Movupd, Movups};
        match instruction.mnemonic() {
            Mov if distance == 0 => self.operand(instruction, 1, memory),
            Movaps | Movapd | Movups | Movupd | Movdqa | Movdqu => self.stored_half(instruction, distance),
            _ => Value::Top,
        }
    }

    /// The address of an instruction's memory operand; `Bottom` if it has none.
    #[must_use]
    pub fn memory_address(&self, instruction: &Instruction) -> Value {
        let has_memory = (0..instruction.op_count()).any(|n| instruction.op_kind(n) == OpKind::Memory);
        if has_memory { self.effective_address(instruction) } else { Value::Bottom }
    }

    /// Where an indirect call or jump goes.
    #[must_use]
    pub fn branch_target(&self, instruction: &Instruction, memory: &Memory<'_, '_>) -> Value {
        self.operand(instruction, 0, memory)
    }

    /// Writes `value` to memory.
    pub(super) fn store(&mut self, address: &Value, bytes: usize, value: Value) {
        self.escape(&value);
        match (address.frame_offset(), u8::try_from(bytes)) {
            (Some(offset), Ok(width @ (1 | 2 | 4 | 8))) => {
                let kept = value.map(|atom| truncate(atom, bytes));
                self.frame.write(offset, width, kept);
            }
            (Some(offset), _) => self.frame.overwrite(offset, bytes),
            (None, _) => self.store_somewhere(address),
        }
    }

    /// Something unknown is written at an address that is not one place of the frame.
    pub(super) fn store_somewhere(&mut self, address: &Value) {
        let is_image = |atom: &Atom| matches!(atom, Atom::Address(_) | Atom::Element(..));
        if address.atoms().is_some_and(|atoms| atoms.iter().all(is_image)) {
            return;
        }
        if let Some(offset) = address.lowest_frame_offset() {
            self.frame.overwrite_from(offset);
        }
        self.frame.forget_escaped();
    }

    /// The addresses in the frame that are in `value` are known to others from now on.
    pub(super) fn escape(&mut self, value: &Value) {
        for offset in value.frame_offsets() {
            self.frame.escape(offset);
        }
    }

    /// Reads operand `number` at its own width.
    pub(super) fn operand(&self, instruction: &Instruction, number: u32, memory: &Memory<'_, '_>) -> Value {
        match instruction.op_kind(number) {
            OpKind::Register => self.sub_register(instruction.op_register(number)),
            OpKind::Memory => self.load_operand(instruction, memory),
            OpKind::Immediate8
            | OpKind::Immediate16
            | OpKind::Immediate32
            | OpKind::Immediate64
            | OpKind::Immediate8to16
            | OpKind::Immediate8to32
            | OpKind::Immediate8to64
            | OpKind::Immediate32to64 => Value::constant(instruction.immediate(number)),
            _ => Value::Top,
        }
    }

    /// The part of a register that a name such as `%bl` stands for.
    pub(super) fn sub_register(&self, register: Register) -> Value {
        if index_of(register).is_none() {
            return Value::Top;
        }
        let full = self.register(register);
        if matches!(register, Register::AH | Register::BH | Register::CH | Register::DH) {
            return full.map(|atom| match atom {
                Atom::Constant(x) => Some(Atom::Constant(x >> 8 & 0xff)),
                _ => None,
            });
        }
        full.map(|atom| truncate(atom, register.size()))
    }

    /// Writes operand 0 with the semantics of its width.
    pub(super) fn assign(&mut self, instruction: &Instruction, value: Value) {
        match instruction.op0_kind() {
            OpKind::Register => self.assign_register(instruction.op0_register(), value),
            OpKind::Memory => {
                let address = self.effective_address(instruction);
                self.store(&address, instruction.memory_size().size(), value);
            }
            _ => {}
        }
    }

    pub(super) fn assign_register(&mut self, register: Register, value: Value) {
        let merged = |keep: u64, shift: u32| {
            self.register(register).combine(&value, constants(|old, new| old & keep | (new << shift & !keep)))
        };
        let full = match register.size() {
            8 => value,
            4 => value.map(|atom| truncate(atom, 4)),
            2 => merged(!0xffff, 0),
            1 if matches!(register, Register::AH | Register::BH | Register::CH | Register::DH) => merged(!0xff00, 8),
            _ => merged(!0xff, 0),
        };
        self.set(register, full);
    }
}
