//! Compiles a specification to a filter, by libseccomp, behind a prologue of our own.
//!
//! Input: [`Specification`]. Output: [`Filter`], checked against the specification by our own interpreter.
//!
//! libseccomp (binary tree, `SCMP_FLTATR_CTL_OPTIMIZE` 2) compiles the tree of allowed numbers. It has no way to say
//! "above this number", so that rule stands in front of it, with the architecture and the x32 bit, which it then tests
//! once more without harm. Jumps in classic BPF are relative: what stands in front changes none of them. Nothing loads
//! an argument or the instruction pointer, so the kernel (5.11 and later) decides every allowed call from its bitmap
//! and never runs the filter for it.

use std::io::{Read, Seek};

use libseccomp::{ScmpAction, ScmpArch, ScmpFilterContext, ScmpSyscall};

use super::action::Action;
use super::instruction::SockFilter;
use super::program::{InvalidProgram, Program};
use super::specification::{AUDIT_ARCH_X86_64, Disagreement, ENOSYS, SKIPPED, Specification, X32_BIT};

/// The level at which libseccomp knows all actions used here. Set by hand: the machine that patches need not be the one
/// that runs the result, so its kernel must not decide.
const LIBSECCOMP_API_LEVEL: u32 = 3;

/// `SCMP_FLTATR_CTL_OPTIMIZE`: a binary tree.
const BINARY_TREE: u32 = 2;

/// Why there is no filter.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CompileError {
    /// libseccomp refused something.
    #[error("libseccomp cannot compile the filter")]
    Libseccomp(#[from] libseccomp::error::SeccompError),
    /// What libseccomp wrote could not be read.
    #[error("the compiled filter cannot be read back")]
    Export(#[from] std::io::Error),
    /// A program that the kernel would refuse.
    #[error("the compiled filter is not valid")]
    Invalid(#[from] InvalidProgram),
    /// A program that decides otherwise than it should.
    #[error("the compiled filter is wrong")]
    Wrong(#[from] Disagreement),
}

/// A specification with a program that decides as it says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filter {
    specification: Specification,
    program: Program,
}

impl Filter {
    /// Compiles a specification, and checks the result.
    ///
    /// # Errors
    ///
    /// Any failure of libseccomp, and any result that is not what was asked for.
    pub fn compile(specification: Specification) -> Result<Self, CompileError> {
        let mut instructions = prologue(&specification).to_vec();
        instructions.extend_from_slice(tree(&specification)?.instructions());
        Ok(Self::from_program(specification, Program::new(instructions)?)?)
    }

    /// Takes a program that was read from a file.
    ///
    /// # Errors
    ///
    /// If it does not decide as the specification says.
    pub fn from_program(specification: Specification, program: Program) -> Result<Self, Disagreement> {
        specification.check(&program)?;
        Ok(Self { specification, program })
    }

    /// What the filter decides.
    #[must_use]
    pub fn specification(&self) -> &Specification {
        &self.specification
    }

    /// How it does so.
    #[must_use]
    pub fn program(&self) -> &Program {
        &self.program
    }
}

/// Everything that does not depend on single numbers.
fn prologue(specification: &Specification) -> [SockFilter; 10] {
    const ARCH: u32 = 4;
    const NR: u32 = 0;
    let kill = SockFilter::ret(Action::KillProcess.return_value());
    [
        SockFilter::load(ARCH),
        SockFilter::jump_if_equal(AUDIT_ARCH_X86_64, 1, 0),
        kill,
        SockFilter::load(NR),
        SockFilter::jump_if_greater(specification.ceiling().0, 0, 5),
        SockFilter::jump_if_equal(SKIPPED, 3, 0),
        SockFilter::jump_if_greater_or_equal(X32_BIT, 1, 0),
        SockFilter::ret(Action::Errno(ENOSYS).return_value()),
        kill,
        SockFilter::ret(libc::SECCOMP_RET_ALLOW),
    ]
}

/// Allowed numbers against all others.
fn tree(specification: &Specification) -> Result<Program, CompileError> {
    if specification.allowed().is_empty() && specification.failing().is_empty() {
        // libseccomp issue 370: a tree without rules loses its default action.
        return Ok(Program::new(vec![SockFilter::ret(specification.action().return_value())])?);
    }
    libseccomp::set_api(LIBSECCOMP_API_LEVEL)?;
    let mut context = ScmpFilterContext::new(scmp_action(specification.action()))?;
    // Not the architecture that this code runs on.
    let native = ScmpArch::native();
    if native != ScmpArch::X8664 {
        context.add_arch(ScmpArch::X8664)?.remove_arch(native)?;
    }
    context.set_act_badarch(ScmpAction::KillProcess)?.set_ctl_optimize(BINARY_TREE)?;
    let allowed = specification.allowed().iter().map(|nr| (nr, ScmpAction::Allow));
    let failing = specification.failing().iter().map(|(nr, number)| (nr, Action::Errno(*number)));
    // libseccomp takes no rule that says the same as the default action.
    let failing = failing.filter(|(_, action)| *action != specification.action());
    for (nr, action) in allowed.chain(failing.map(|(nr, action)| (nr, scmp_action(action)))) {
        // By number: the library's own table of names is older than the kernel's.
        let number = i32::try_from(nr.0).map_err(std::io::Error::other)?;
        context.add_rule(action, ScmpSyscall::from(number))?;
    }
    let mut file = tempfile::tempfile()?;
    context.export_bpf(&file)?;
    let mut bytes = Vec::new();
    file.rewind()?;
    file.read_to_end(&mut bytes)?;
    Ok(Program::decode(&bytes)?)
}

fn scmp_action(action: Action) -> ScmpAction {
    match action {
        Action::KillProcess => ScmpAction::KillProcess,
        Action::KillThread => ScmpAction::KillThread,
        Action::Trap => ScmpAction::Trap,
        Action::Log => ScmpAction::Log,
        Action::Errno(number) => ScmpAction::Errno(i32::from(number)),
    }
}
