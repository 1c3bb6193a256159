//! The machine state that the data-flow analysis tracks, and what each instruction does to it.
//!
//! Input: a [`State`] before an instruction; output: the state after it. Sixteen general-purpose registers and the
//! 8-byte slots of the function's own stack frame. Widths follow the architecture (SDM volume 1, 3.4.1.1): a 32-bit
//! write clears the upper half, 8- and 16-bit writes keep the rest.
//!
//! Over-approximates: every instruction that is not modelled makes what it writes unknown. May miss: a store through a
//! pointer that was not derived from the stack pointer in this function is taken not to hit a spilled value; a callee
//! keeps the callee-saved registers and the caller's frame below the addresses that were passed out (psABI 3.2.1).

use iced_x86::{Instruction, InstructionInfoFactory, Mnemonic, OpAccess, OpKind, Register};

use crate::address::Vaddr;
use crate::instruction::{is_conditional_move, is_conditional_set, is_thread_local};
use crate::memory::Memory;
use crate::value::{Atom, Value};

/// Registers that a callee may change (psABI figure 3.4).
const CALLER_SAVED: [Register; 9] = [
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

/// Bytes from the stack pointer at the entry (the return address) to the first argument on the stack.
const FIRST_STACK_ARGUMENT: i64 = 8;

/// What is known about the machine at one point of one function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    registers: [Value; 16],
    /// Written slots by offset from the stack pointer at the entry, sorted. A slot that is not here was not written.
    frame: Vec<(i64, Value)>,
    /// The lowest offset whose address was handed out; memory from there on may change behind our back.
    escaped: Option<i64>,
}

fn index_of(register: Register) -> Option<usize> {
    let full = register.full_register();
    full.is_gpr64().then(|| full.number())
}

/// Keeps the low `bytes` of a constant; other atoms survive only if nothing of their meaning is cut off.
fn truncate(atom: Atom, bytes: usize) -> Option<Atom> {
    match (atom, bytes) {
        (Atom::Constant(c), 1) => Some(Atom::Constant(c & 0xff)),
        (Atom::Constant(c), 2) => Some(Atom::Constant(c & 0xffff)),
        (Atom::Constant(c), 4) => Some(Atom::Constant(c & 0xffff_ffff)),
        (Atom::Constant(_), _) => Some(atom),
        // Arguments of system calls' number type are 32 bits wide, so the low half is all of it.
        (Atom::Parameter(_) | Atom::Global(_) | Atom::ParameterField(..) | Atom::GlobalField(..), 4 | 8) => Some(atom),
        (Atom::Address(a), 4) if u32::try_from(a.0).is_ok() => Some(atom),
        (Atom::Address(_) | Atom::Frame(_) | Atom::Element(..) | Atom::FrameElement(..), 8) => Some(atom),
        _ => None,
    }
}

fn sign_extend(number: u64, bytes: usize) -> u64 {
    let shift = 64_u32.saturating_sub(8 * u32::try_from(bytes.min(8)).unwrap_or(8));
    (number << shift).cast_signed().wrapping_shr(shift).cast_unsigned()
}

fn add(a: Atom, b: Atom) -> Option<Atom> {
    match (a, b) {
        (Atom::Constant(x), Atom::Constant(y)) => Some(Atom::Constant(x.wrapping_add(y))),
        (Atom::Address(base), Atom::Constant(x)) | (Atom::Constant(x), Atom::Address(base)) => {
            Some(Atom::Address(Vaddr(base.0.wrapping_add(x))))
        }
        (Atom::Frame(base), Atom::Constant(x)) | (Atom::Constant(x), Atom::Frame(base)) => {
            Some(Atom::Frame(base.wrapping_add(x.cast_signed())))
        }
        (Atom::Element(base, stride), Atom::Constant(x)) | (Atom::Constant(x), Atom::Element(base, stride)) => {
            Some(Atom::Element(Vaddr(base.0.wrapping_add(x)), stride))
        }
        (Atom::FrameElement(base, stride), Atom::Constant(x))
        | (Atom::Constant(x), Atom::FrameElement(base, stride)) => {
            Some(Atom::FrameElement(base.wrapping_add(x.cast_signed()), stride))
        }
        (Atom::Parameter(n), Atom::Constant(0)) | (Atom::Constant(0), Atom::Parameter(n)) => Some(Atom::Parameter(n)),
        _ => None,
    }
}

fn negate(atom: Atom) -> Option<Atom> {
    match atom {
        Atom::Constant(x) => Some(Atom::Constant(x.wrapping_neg())),
        _ => None,
    }
}

fn constants(f: impl Fn(u64, u64) -> u64) -> impl Fn(Atom, Atom) -> Option<Atom> {
    move |a, b| match (a, b) {
        (Atom::Constant(x), Atom::Constant(y)) => Some(Atom::Constant(f(x, y))),
        _ => None,
    }
}

impl State {
    /// The state at a function's entry: each argument is itself, the stack pointer is the frame's origin.
    #[must_use]
    pub fn at_entry() -> Self {
        let mut state = Self::unknown();
        for (number, register) in (0_u16..).zip(ARGUMENTS) {
            state.set(register, Value::One(Atom::Parameter(number)));
        }
        state.set(Register::RSP, Value::One(Atom::Frame(0)));
        state
    }

    /// The state where nothing is known.
    #[must_use]
    pub fn unknown() -> Self {
        Self { registers: std::array::from_fn(|_| Value::Top), frame: Vec::new(), escaped: None }
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
        match ARGUMENTS.get(usize::from(number)) {
            Some(&register) => self.register(register),
            None => match self.register(Register::RSP).frame_offset() {
                Some(top) => self.slot(top.wrapping_add(skip + 8 * i64::from(number.saturating_sub(6)))),
                None => Value::Top,
            },
        }
    }

    /// Joins `other` in; true if that changed anything. With `widen`, what changes becomes unknown.
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
            let value = joined(mine, theirs);
            if value != *mine {
                *mine = value;
                changed = true;
            }
        }
        if self.frame != other.frame {
            let mut offsets: Vec<i64> = self.frame.iter().chain(&other.frame).map(|(o, _)| *o).collect();
            offsets.sort_unstable();
            offsets.dedup();
            let frame: Vec<(i64, Value)> =
                offsets.into_iter().map(|o| (o, joined(&self.slot(o), &other.slot(o)))).collect();
            if frame != self.frame {
                self.frame = frame;
                changed = true;
            }
        }
        let escaped = [self.escaped, other.escaped, lost].into_iter().flatten().min();
        changed |= escaped != self.escaped;
        self.escaped = escaped;
        changed
    }

    fn set(&mut self, register: Register, value: Value) {
        if let Some(place) = index_of(register).and_then(|index| self.registers.get_mut(index)) {
            *place = value;
        }
    }

    /// The 8 bytes at `offset` of the frame.
    fn slot(&self, offset: i64) -> Value {
        match self.frame.binary_search_by_key(&offset, |(o, _)| *o) {
            Ok(index) => self.frame.get(index).map_or(Value::Top, |(_, value)| value.clone()),
            Err(_) => offset
                .checked_sub(FIRST_STACK_ARGUMENT)
                .filter(|distance| *distance >= 0 && distance % 8 == 0)
                .and_then(|distance| u16::try_from(distance / 8 + 6).ok())
                .map_or(Value::Top, |number| Value::One(Atom::Parameter(number))),
        }
    }

    fn set_slot(&mut self, offset: i64, value: Value) {
        // Slots that the write overlaps only in part become unknown.
        for (other, old) in &mut self.frame {
            if *other != offset && other.abs_diff(offset) < 8 {
                *old = Value::Top;
            }
        }
        match self.frame.binary_search_by_key(&offset, |(o, _)| *o) {
            Ok(index) => {
                if let Some((_, old)) = self.frame.get_mut(index) {
                    *old = value;
                }
            }
            Err(index) => self.frame.insert(index, (offset, value)),
        }
    }

    /// Memory behind addresses that were handed out may have changed.
    fn forget_escaped(&mut self) {
        if let Some(lowest) = self.escaped {
            for (offset, value) in &mut self.frame {
                if *offset >= lowest {
                    *value = Value::Top;
                }
            }
        }
    }

    /// The value of the address that the instruction's memory operand names.
    fn effective_address(&self, instruction: &Instruction) -> Value {
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
            if let (Value::Top, Some(Atom::Address(start))) = (&sum, base.single()) {
                // An array that is indexed by something unknown. Elements are as wide as the scale, or the access.
                let width =
                    instruction.memory_index_scale().max(u32::try_from(instruction.memory_size().size()).unwrap_or(1));
                return Value::One(Atom::Element(start, width.max(1)));
            }
        }
        sum
    }

    /// Reads `bytes` from memory where the address is known.
    fn load(&self, address: &Value, bytes: usize, memory: &Memory<'_, '_>) -> Value {
        let Some(atoms) = address.atoms() else { return Value::Top };
        let mut result = Value::Bottom;
        for &atom in atoms {
            let loaded = match atom {
                Atom::Frame(offset) => self.slot(offset).map(|a| truncate(a, bytes)),
                Atom::FrameElement(start, stride) => self.elements(start, stride).map(|a| truncate(a, bytes)),
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

    /// The elements of an array in the frame, as far as it was written.
    fn elements(&self, start: i64, stride: u32) -> Value {
        let step = usize::try_from(stride).unwrap_or(usize::MAX).max(1);
        let offsets = (start..).step_by(step);
        let written = |offset: i64| {
            let index = self.frame.binary_search_by_key(&offset, |(o, _)| *o).ok()?;
            self.frame.get(index).map(|(_, value)| value)
        };
        offsets.map_while(written).fold(Value::Bottom, |all, value| all.join(value))
    }

    /// Reads what the instruction's memory operand names: a field of something that the function was given, if its
    /// base is such a thing.
    fn load_operand(&self, instruction: &Instruction, memory: &Memory<'_, '_>) -> Value {
        let bytes = instruction.memory_size().size();
        let field = self.field(instruction).filter(|_| matches!(bytes, 4 | 8));
        field.map_or_else(|| self.load(&self.effective_address(instruction), bytes, memory), Value::One)
    }

    fn field(&self, instruction: &Instruction) -> Option<Atom> {
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

    /// What a pointer to `base` of the frame sees there, so many bytes on.
    #[must_use]
    pub fn frame_field(&self, base: i64, offset: i64) -> Value {
        base.checked_add(offset).map_or(Value::Top, |at| self.slot(at))
    }

    /// What an instruction with a memory destination stores there.
    #[must_use]
    pub fn stored_value(&self, instruction: &Instruction, memory: &Memory<'_, '_>) -> Value {
        match instruction.mnemonic() {
            Mnemonic::Mov => self.operand(instruction, 1, memory),
            _ => Value::Top,
        }
    }

    /// Where an indirect call or jump goes.
    #[must_use]
    pub fn branch_target(&self, instruction: &Instruction, memory: &Memory<'_, '_>) -> Value {
        self.operand(instruction, 0, memory)
    }

    fn store(&mut self, address: &Value, bytes: usize, value: Value) {
        self.escape(value.lowest_frame_offset());
        match address.frame_offset() {
            Some(offset) if bytes == 8 => self.set_slot(offset, value),
            // A 32-bit store of a constant is all that a 32-bit load will see of it.
            Some(offset) if bytes == 4 => {
                let kept = value.map(|atom| truncate(atom, 4));
                self.set_slot(offset, kept);
            }
            Some(offset) => {
                let end = offset.saturating_add(i64::try_from(bytes).unwrap_or(i64::MAX));
                let mut at = offset;
                while at < end {
                    self.set_slot(at, Value::Top);
                    at = at.saturating_add(8);
                }
            }
            None if address.atoms().is_some_and(|atoms| atoms.iter().all(|a| matches!(a, Atom::Address(_)))) => {}
            None => self.forget_escaped(),
        }
    }

    /// Reads operand `number` at its own width.
    fn operand(&self, instruction: &Instruction, number: u32, memory: &Memory<'_, '_>) -> Value {
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
    fn sub_register(&self, register: Register) -> Value {
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
    fn assign(&mut self, instruction: &Instruction, value: Value) {
        match instruction.op0_kind() {
            OpKind::Register => self.assign_register(instruction.op0_register(), value),
            OpKind::Memory => {
                let address = self.effective_address(instruction);
                self.store(&address, instruction.memory_size().size(), value);
            }
            _ => {}
        }
    }

    fn assign_register(&mut self, register: Register, value: Value) {
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

    fn adjust_stack(&mut self, bytes: i64) {
        let moved = self.register(Register::RSP).combine(&Value::constant(bytes.cast_unsigned()), add);
        self.set(Register::RSP, moved);
    }

    /// A call has returned: what the callee may change is unknown.
    fn returned(&mut self) {
        for register in CALLER_SAVED {
            self.set(register, Value::Top);
        }
        self.forget_escaped();
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
                    Atom::Parameter(_) => Some(atom),
                    _ => None,
                });
                self.assign(instruction, value);
            }
            Mnemonic::Lea => {
                let value = self.effective_address(instruction);
                self.assign(instruction, value);
            }
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
            Mnemonic::Call => {
                self.pass_on(&ARGUMENTS);
                self.returned();
            }
            Mnemonic::Syscall => {
                self.pass_on(&SYSCALL_ARGUMENTS);
                self.forget_escaped();
                for register in [Register::RAX, Register::RCX, Register::R11] {
                    self.set(register, Value::Top);
                }
            }
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
        let info = factory.info(instruction);
        for used in info.used_registers().iter().filter(|used| writes(used.access())) {
            self.set(used.register(), Value::Top);
        }
        if info.used_memory().iter().any(|used| writes(used.access())) {
            let address = self.effective_address(instruction);
            match address.frame_offset() {
                Some(_) => self.store(&address, instruction.memory_size().size().max(8), Value::Top),
                None => self.forget_escaped(),
            }
        }
    }

    /// Somebody else may write to the frame from `offset` on.
    fn escape(&mut self, offset: Option<i64>) {
        self.escaped = [self.escaped, offset].into_iter().flatten().min();
    }

    /// Addresses in the frame that are passed on in registers.
    fn pass_on(&mut self, registers: &[Register]) {
        for &register in registers {
            self.escape(self.register(register).lowest_frame_offset());
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
