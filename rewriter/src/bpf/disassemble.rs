//! Shows a filter as text.
//!
//! Input: [`Program`]. Output: one line an instruction in the notation of the kernel's `bpf_asm`, with the number of
//! the instruction that a jump leads to and, as a comment, what a constant means.

use std::fmt::Write;

use chestnut_analyzer::syscall::SyscallNr;

use super::errno;
use super::instruction::{Alu, Comparison, Operand, Operation};
use super::program::Program;
use super::specification::{AUDIT_ARCH_X86_64, X32_BIT};

/// What A holds, so far as the text is concerned.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Loaded {
    Number,
    Architecture,
    Other,
}

/// The text of a filter.
#[must_use]
pub fn disassemble(program: &Program) -> String {
    let mut text = String::new();
    let mut loaded = Loaded::Other;
    for (at, operation) in program.operations().iter().enumerate() {
        loaded = match *operation {
            Operation::LoadData(0) => Loaded::Number,
            Operation::LoadData(4) => Loaded::Architecture,
            Operation::JumpIf { .. } | Operation::Jump(_) | Operation::Return(_) => loaded,
            _ => Loaded::Other,
        };
        let line = instruction(at, *operation);
        // Writing to a string cannot fail.
        let _ = match comment(*operation, loaded) {
            Some(comment) => writeln!(text, "{at:4}: {line:<40} ; {comment}"),
            None => writeln!(text, "{at:4}: {line}"),
        };
    }
    text
}

fn instruction(at: usize, operation: Operation) -> String {
    let target = |skipped: u32| {
        let next = u64::try_from(at).ok().and_then(|at| at.checked_add(1)?.checked_add(u64::from(skipped)));
        next.map_or_else(|| "?".to_owned(), |next| next.to_string())
    };
    match operation {
        Operation::LoadData(offset) => format!("ld [{offset}]"),
        Operation::LoadConstant(k) => format!("ld #{k:#x}"),
        Operation::LoadMemory(word) => format!("ld M[{word}]"),
        Operation::LoadLength => "ld len".to_owned(),
        Operation::LoadXConstant(k) => format!("ldx #{k:#x}"),
        Operation::LoadXMemory(word) => format!("ldx M[{word}]"),
        Operation::LoadXLength => "ldx len".to_owned(),
        Operation::Store(word) => format!("st M[{word}]"),
        Operation::StoreX(word) => format!("stx M[{word}]"),
        Operation::Alu(alu, operand) => format!("{} {}", alu_name(alu), operand_text(operand)),
        Operation::Negate => "neg".to_owned(),
        Operation::Jump(skipped) => format!("ja {}", target(skipped)),
        Operation::JumpIf { test, operand, jt, jf } => format!(
            "{} {}, {}, {}",
            comparison_name(test),
            operand_text(operand),
            target(u32::from(jt)),
            target(u32::from(jf))
        ),
        Operation::Return(k) => format!("ret #{k:#x}"),
        Operation::ReturnA => "ret a".to_owned(),
        Operation::CopyToX => "tax".to_owned(),
        Operation::CopyFromX => "txa".to_owned(),
    }
}

fn comment(operation: Operation, loaded: Loaded) -> Option<String> {
    match operation {
        Operation::LoadData(0) => Some("number of the call".to_owned()),
        Operation::LoadData(4) => Some("architecture".to_owned()),
        Operation::LoadData(8 | 12) => Some("instruction pointer".to_owned()),
        Operation::LoadData(offset) => Some(format!("argument {}", offset.checked_sub(16)?.checked_div(8)?)),
        Operation::JumpIf { operand: Operand::Constant(k), .. } => match (loaded, k) {
            (Loaded::Architecture, AUDIT_ARCH_X86_64) => Some("x86-64".to_owned()),
            (Loaded::Number, X32_BIT) => Some("x32".to_owned()),
            (Loaded::Number, u32::MAX) => Some("skipped by a tracer".to_owned()),
            (Loaded::Number, nr) => SyscallNr(nr).name().map(str::to_owned),
            _ => None,
        },
        Operation::Return(value) => Some(return_text(value)),
        _ => None,
    }
}

fn return_text(value: u32) -> String {
    let data = value & libc::SECCOMP_RET_DATA;
    match value & libc::SECCOMP_RET_ACTION_FULL {
        libc::SECCOMP_RET_KILL_PROCESS => "kill process".to_owned(),
        libc::SECCOMP_RET_KILL_THREAD => "kill thread".to_owned(),
        libc::SECCOMP_RET_TRAP => "trap".to_owned(),
        libc::SECCOMP_RET_LOG => "allow and log".to_owned(),
        libc::SECCOMP_RET_ALLOW => "allow".to_owned(),
        libc::SECCOMP_RET_ERRNO => {
            let name = u16::try_from(data).ok().and_then(errno::name);
            name.map_or_else(|| format!("errno {data}"), |name| format!("errno {name}"))
        }
        _ => "other".to_owned(),
    }
}

fn operand_text(operand: Operand) -> String {
    match operand {
        Operand::Constant(k) => format!("#{k:#x}"),
        Operand::X => "x".to_owned(),
    }
}

fn alu_name(alu: Alu) -> &'static str {
    match alu {
        Alu::Add => "add",
        Alu::Subtract => "sub",
        Alu::Multiply => "mul",
        Alu::Divide => "div",
        Alu::Or => "or",
        Alu::And => "and",
        Alu::ShiftLeft => "lsh",
        Alu::ShiftRight => "rsh",
        Alu::Xor => "xor",
    }
}

fn comparison_name(test: Comparison) -> &'static str {
    match test {
        Comparison::Equal => "jeq",
        Comparison::Greater => "jgt",
        Comparison::GreaterOrEqual => "jge",
        Comparison::AnyBit => "jset",
    }
}
