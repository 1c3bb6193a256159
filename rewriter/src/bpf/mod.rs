//! The filter: from a policy to classic BPF, and everything that checks or shows it.
//!
//! Input: the numbers that a policy allows and the action for all others ([`Specification`]). Output: a [`Filter`],
//! which cannot exist unless its program is one that the kernel takes and decides as specified. Follows seccomp(2) and
//! the kernel's `net/core/filter.c` (`bpf_check_classic`) and `kernel/seccomp.c` (`seccomp_check_filter`).

mod action;
mod compile;
mod disassemble;
pub(crate) mod errno;
mod instruction;
mod interpreter;
mod program;
mod specification;
mod tree;

pub use action::{Action, UnknownAction};
pub use compile::{CompileError, Filter};
pub use disassemble::disassemble;
pub use errno::name as errno_name;
pub use instruction::{Alu, Comparison, Operand, Operation, SockFilter};
pub use interpreter::SeccompData;
pub use program::{InvalidProgram, Program};
pub use specification::{Disagreement, Specification, Verdict};
