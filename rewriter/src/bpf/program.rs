//! A program that the kernel would take.
//!
//! Input: instructions. Output: [`Program`], valid by construction. The checks are those of `bpf_check_classic`,
//! `check_load_and_stores` and `seccomp_check_filter`, so that what passes here is not refused when a patched program
//! starts, which is too late to say anything useful.

use super::instruction::{Alu, INSTRUCTION_LENGTH, Operand, Operation, SockFilter};

/// `BPF_MAXINSNS`.
const MAXIMUM_LENGTH: usize = 4096;

/// `sizeof(struct seccomp_data)`.
pub(super) const DATA_LENGTH: u32 = 64;

/// `BPF_MEMWORDS`.
pub(super) const MEMORY_WORDS: u32 = 16;

/// Why the kernel would not take a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidProgram {
    /// Empty, or longer than a filter may be.
    #[error("{found} filter instructions, expected 1 to {MAXIMUM_LENGTH}")]
    Length {
        /// Number of instructions.
        found: usize,
    },
    /// Bytes that are not a whole number of instructions.
    #[error("a filter of {found} bytes, expected a multiple of {INSTRUCTION_LENGTH}")]
    PartialInstruction {
        /// Number of bytes.
        found: usize,
    },
    /// A code that seccomp does not know.
    #[error("filter instruction {at}: code {code:#06x} is not for seccomp")]
    Code {
        /// Which instruction.
        at: usize,
        /// What it says.
        code: u16,
    },
    /// An operand out of range.
    #[error("filter instruction {at}: operand {k:#x} is out of range")]
    Operand {
        /// Which instruction.
        at: usize,
        /// What it says.
        k: u32,
    },
    /// A jump behind the end.
    #[error("filter instruction {at} jumps behind the end")]
    Jump {
        /// Which instruction.
        at: usize,
    },
    /// A word of memory that may be read before it is written.
    #[error("filter instruction {at} reads memory word {word} that may not have been written")]
    UnwrittenMemory {
        /// Which instruction.
        at: usize,
        /// Which word.
        word: u32,
    },
    /// The last instruction can be passed.
    #[error("the last filter instruction does not return")]
    End,
}

/// A filter program that the kernel takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    instructions: Vec<SockFilter>,
    operations: Vec<Operation>,
}

impl Program {
    /// Checks a program.
    ///
    /// # Errors
    ///
    /// What the kernel would answer with EINVAL.
    pub fn new(instructions: Vec<SockFilter>) -> Result<Self, InvalidProgram> {
        let found = instructions.len();
        if found == 0 || found > MAXIMUM_LENGTH {
            return Err(InvalidProgram::Length { found });
        }
        let mut operations = Vec::with_capacity(found);
        for (at, instruction) in instructions.iter().enumerate() {
            let operation = instruction.operation().ok_or(InvalidProgram::Code { at, code: instruction.code })?;
            check_operand(at, operation)?;
            operations.push(operation);
        }
        check_jumps(&operations)?;
        check_memory(&operations)?;
        match operations.last() {
            Some(Operation::Return(_) | Operation::ReturnA) => Ok(Self { instructions, operations }),
            _ => Err(InvalidProgram::End),
        }
    }

    /// Reads a program from the bytes of a file.
    ///
    /// # Errors
    ///
    /// As [`Program::new`], and a length that is not a whole number of instructions.
    pub fn decode(bytes: &[u8]) -> Result<Self, InvalidProgram> {
        let (instructions, rest) = bytes.as_chunks::<INSTRUCTION_LENGTH>();
        if !rest.is_empty() {
            return Err(InvalidProgram::PartialInstruction { found: bytes.len() });
        }
        Self::new(instructions.iter().copied().map(SockFilter::decode).collect())
    }

    /// The program as it goes into a file.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        self.instructions.iter().flat_map(|instruction| instruction.encode()).collect()
    }

    /// The instructions in the kernel's form.
    #[must_use]
    pub fn instructions(&self) -> &[SockFilter] {
        &self.instructions
    }

    /// The instructions in readable form.
    #[must_use]
    pub fn operations(&self) -> &[Operation] {
        &self.operations
    }
}

fn check_operand(at: usize, operation: Operation) -> Result<(), InvalidProgram> {
    let (good, k) = match operation {
        Operation::LoadData(k) => (k < DATA_LENGTH && k % 4 == 0, k),
        Operation::LoadMemory(k) | Operation::LoadXMemory(k) | Operation::Store(k) | Operation::StoreX(k) => {
            (k < MEMORY_WORDS, k)
        }
        Operation::Alu(Alu::Divide, Operand::Constant(k)) => (k != 0, k),
        Operation::Alu(Alu::ShiftLeft | Alu::ShiftRight, Operand::Constant(k)) => (k < 32, k),
        _ => (true, 0),
    };
    if good { Ok(()) } else { Err(InvalidProgram::Operand { at, k }) }
}

/// The instructions that can follow the one at `at`; nothing behind a return.
fn successors(at: usize, operation: Operation) -> impl Iterator<Item = Option<usize>> {
    let after = |skipped: u32| at.checked_add(1)?.checked_add(usize::try_from(skipped).ok()?);
    let (first, second) = match operation {
        Operation::Return(_) | Operation::ReturnA => (None, None),
        Operation::Jump(skipped) => (Some(after(skipped)), None),
        Operation::JumpIf { jt, jf, .. } => (Some(after(u32::from(jt))), Some(after(u32::from(jf)))),
        _ => (Some(after(0)), None),
    };
    first.into_iter().chain(second)
}

fn check_jumps(operations: &[Operation]) -> Result<(), InvalidProgram> {
    for (at, operation) in operations.iter().enumerate() {
        let jumps = matches!(operation, Operation::Jump(_) | Operation::JumpIf { .. });
        let inside = successors(at, *operation).all(|next| next.is_some_and(|next| next < operations.len()));
        if jumps && !inside {
            return Err(InvalidProgram::Jump { at });
        }
    }
    Ok(())
}

/// All jumps go forward, so one pass sees every predecessor of an instruction before the instruction itself.
fn check_memory(operations: &[Operation]) -> Result<(), InvalidProgram> {
    // One bit a word: written on every way to the instruction. All ones: no way has been seen yet.
    let mut written = vec![u16::MAX; operations.len()];
    if let Some(first) = written.first_mut() {
        *first = 0;
    }
    for (at, operation) in operations.iter().enumerate() {
        let mut now = written.get(at).copied().unwrap_or(0);
        match *operation {
            Operation::Store(word) | Operation::StoreX(word) => now |= 1_u16.checked_shl(word).unwrap_or(0),
            Operation::LoadMemory(word) | Operation::LoadXMemory(word)
                if now & 1_u16.checked_shl(word).unwrap_or(0) == 0 =>
            {
                return Err(InvalidProgram::UnwrittenMemory { at, word });
            }
            _ => {}
        }
        for next in successors(at, *operation).flatten() {
            if let Some(state) = written.get_mut(next) {
                *state &= now;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const RET: SockFilter = SockFilter::ret(0);

    fn raw(code: u16, k: u32) -> SockFilter {
        SockFilter { code, jt: 0, jf: 0, k }
    }

    #[test]
    fn what_the_kernel_refuses_is_refused() {
        let cases = [
            (vec![], InvalidProgram::Length { found: 0 }),
            (vec![RET; 4097], InvalidProgram::Length { found: 4097 }),
            (vec![SockFilter::load(0)], InvalidProgram::End),
            (vec![SockFilter::load(2), RET], InvalidProgram::Operand { at: 0, k: 2 }),
            (vec![SockFilter::load(64), RET], InvalidProgram::Operand { at: 0, k: 64 }),
            (vec![raw(0x28, 0), RET], InvalidProgram::Code { at: 0, code: 0x28 }),
            (vec![raw(0x94, 3), RET], InvalidProgram::Code { at: 0, code: 0x94 }),
            (vec![raw(0x34, 0), RET], InvalidProgram::Operand { at: 0, k: 0 }),
            (vec![raw(0x64, 32), RET], InvalidProgram::Operand { at: 0, k: 32 }),
            (vec![raw(0x60, 16), RET], InvalidProgram::Operand { at: 0, k: 16 }),
            (vec![raw(0x60, 1), RET], InvalidProgram::UnwrittenMemory { at: 0, word: 1 }),
            (vec![raw(0x05, 1), RET], InvalidProgram::Jump { at: 0 }),
            (vec![raw(0x05, u32::MAX), RET], InvalidProgram::Jump { at: 0 }),
            (vec![SockFilter::jump_if_equal(0, 0, 1), RET], InvalidProgram::Jump { at: 0 }),
            (
                vec![SockFilter::jump_if_equal(0, 0, 1), raw(0x02, 0), raw(0x60, 0), RET],
                InvalidProgram::UnwrittenMemory { at: 2, word: 0 },
            ),
        ];
        for (instructions, expected) in cases {
            assert_eq!(Program::new(instructions.clone()).map(|_| ()), Err(expected), "{instructions:?}");
        }
        assert!(Program::new(vec![raw(0x02, 0), raw(0x60, 0), RET]).is_ok());
    }

    #[test]
    fn encoding_is_one_to_one() {
        let program = Program::new(vec![SockFilter::load(4), SockFilter::jump_if_equal(0x1234_5678, 1, 0), RET, RET]);
        let program = program.unwrap();
        assert_eq!(Program::decode(&program.encode()), Ok(program.clone()));
        assert_eq!(Program::decode(&program.encode()[1..]), Err(InvalidProgram::PartialInstruction { found: 31 }));
    }
}
