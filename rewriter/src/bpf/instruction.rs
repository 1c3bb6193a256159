//! One instruction of classic BPF: the kernel's form and a readable one.
//!
//! Input: [`SockFilter`], as it stands in a file. Output: [`Operation`], for the subset that seccomp takes; any other
//! code is `None`. Follows `linux/bpf_common.h` and the list of codes in the kernel's `seccomp_check_filter`.

/// `struct sock_filter`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SockFilter {
    /// Operation.
    pub code: u16,
    /// Instructions to skip if a test holds.
    pub jt: u8,
    /// Instructions to skip if it does not.
    pub jf: u8,
    /// Constant operand.
    pub k: u32,
}

/// Size of an encoded instruction.
pub(crate) const INSTRUCTION_LENGTH: usize = 8;

impl SockFilter {
    /// The instruction as it stands in a file or in memory.
    #[must_use]
    pub fn encode(self) -> [u8; INSTRUCTION_LENGTH] {
        let [code_0, code_1] = self.code.to_le_bytes();
        let [k_0, k_1, k_2, k_3] = self.k.to_le_bytes();
        [code_0, code_1, self.jt, self.jf, k_0, k_1, k_2, k_3]
    }

    /// The instruction that these bytes are.
    #[must_use]
    pub fn decode(bytes: [u8; INSTRUCTION_LENGTH]) -> Self {
        let [code_0, code_1, jt, jf, k_0, k_1, k_2, k_3] = bytes;
        Self { code: u16::from_le_bytes([code_0, code_1]), jt, jf, k: u32::from_le_bytes([k_0, k_1, k_2, k_3]) }
    }

    /// What the instruction does, if seccomp takes it.
    #[must_use]
    pub fn operation(self) -> Option<Operation> {
        let Self { code, jt, jf, k } = self;
        let (class, source) = (code & 0x07, if code & 0x08 == 0 { Operand::Constant(k) } else { Operand::X });
        let conditional = |test| Operation::JumpIf { test, operand: source, jt, jf };
        Some(match (class, code) {
            (_, 0x20) => Operation::LoadData(k),
            (_, 0x80) => Operation::LoadLength,
            (_, 0x00) => Operation::LoadConstant(k),
            (_, 0x60) => Operation::LoadMemory(k),
            (_, 0x81) => Operation::LoadXLength,
            (_, 0x01) => Operation::LoadXConstant(k),
            (_, 0x61) => Operation::LoadXMemory(k),
            (_, 0x02) => Operation::Store(k),
            (_, 0x03) => Operation::StoreX(k),
            (_, 0x84) => Operation::Negate,
            (4, _) => Operation::Alu(Alu::of(code & !0x0f)?, source),
            (_, 0x05) => Operation::Jump(k),
            (5, 0x15 | 0x1d) => conditional(Comparison::Equal),
            (5, 0x25 | 0x2d) => conditional(Comparison::Greater),
            (5, 0x35 | 0x3d) => conditional(Comparison::GreaterOrEqual),
            (5, 0x45 | 0x4d) => conditional(Comparison::AnyBit),
            (_, 0x06) => Operation::Return(k),
            (_, 0x16) => Operation::ReturnA,
            (_, 0x07) => Operation::CopyToX,
            (_, 0x87) => Operation::CopyFromX,
            _ => return None,
        })
    }

    /// `ld [k]`.
    pub(super) const fn load(k: u32) -> Self {
        Self { code: 0x20, jt: 0, jf: 0, k }
    }

    /// `ret k`.
    pub(super) const fn ret(k: u32) -> Self {
        Self { code: 0x06, jt: 0, jf: 0, k }
    }

    /// `jeq k, jt, jf`.
    pub(super) const fn jump_if_equal(k: u32, jt: u8, jf: u8) -> Self {
        Self { code: 0x15, jt, jf, k }
    }

    /// `ja k`.
    pub(super) const fn jump(k: u32) -> Self {
        Self { code: 0x05, jt: 0, jf: 0, k }
    }

    /// `jge k, jt, jf`.
    pub(super) const fn jump_if_greater_or_equal(k: u32, jt: u8, jf: u8) -> Self {
        Self { code: 0x35, jt, jf, k }
    }
}

/// What an instruction does. A is the accumulator, X the index register, M the sixteen words of memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// A = the word at this offset of `struct seccomp_data`.
    LoadData(u32),
    /// A = constant.
    LoadConstant(u32),
    /// A = M\[k\].
    LoadMemory(u32),
    /// A = size of `struct seccomp_data`.
    LoadLength,
    /// X = constant.
    LoadXConstant(u32),
    /// X = M\[k\].
    LoadXMemory(u32),
    /// X = size of `struct seccomp_data`.
    LoadXLength,
    /// M\[k\] = A.
    Store(u32),
    /// M\[k\] = X.
    StoreX(u32),
    /// A = A op operand.
    Alu(Alu, Operand),
    /// A = -A.
    Negate,
    /// Skips k instructions.
    Jump(u32),
    /// Skips `jt` or `jf` instructions.
    JumpIf {
        /// What is tested.
        test: Comparison,
        /// What A is compared with.
        operand: Operand,
        /// Skipped if the test holds.
        jt: u8,
        /// Skipped if it does not.
        jf: u8,
    },
    /// Ends with a constant.
    Return(u32),
    /// Ends with A.
    ReturnA,
    /// X = A.
    CopyToX,
    /// A = X.
    CopyFromX,
}

/// Second operand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operand {
    /// The instruction's own.
    Constant(u32),
    /// The index register.
    X,
}

/// Arithmetic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Alu {
    Add,
    Subtract,
    Multiply,
    Divide,
    Or,
    And,
    ShiftLeft,
    ShiftRight,
    Xor,
}

impl Alu {
    fn of(bits: u16) -> Option<Self> {
        Some(match bits {
            0x00 => Self::Add,
            0x10 => Self::Subtract,
            0x20 => Self::Multiply,
            0x30 => Self::Divide,
            0x40 => Self::Or,
            0x50 => Self::And,
            0x60 => Self::ShiftLeft,
            0x70 => Self::ShiftRight,
            0xa0 => Self::Xor,
            _ => return None,
        })
    }
}

/// Tests, all unsigned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Comparison {
    /// A == operand.
    Equal,
    /// A > operand.
    Greater,
    /// A >= operand.
    GreaterOrEqual,
    /// A & operand != 0.
    AnyBit,
}
