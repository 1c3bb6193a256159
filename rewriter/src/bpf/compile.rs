//! Compiles a specification to a filter.
//!
//! Input: [`Specification`]. Output: [`Filter`], checked against the specification by our own interpreter.
//!
//! The architecture is tested first, then the number by a tree of ranges (`tree.rs`). libseccomp's binary tree, which
//! knows single numbers only, is its oracle in the tests; it has 1.5 to 4 times as many instructions, takes twice the
//! steps, and 13 (`true`) to 46 (`python3.11`) microseconds more of each start. Nothing loads an argument or the
//! instruction pointer, so the kernel (5.11 and later) decides every allowed call from its bitmap and never runs the
//! filter for it.

use super::instruction::SockFilter;
use super::program::{InvalidProgram, Program};
use super::specification::{AUDIT_ARCH_X86_64, Disagreement, Specification, Verdict};
use super::tree;

/// Why there is no filter.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CompileError {
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
    /// If the kernel would not take the result (for more numbers than there are calls), or it is not what was asked
    /// for.
    pub fn compile(specification: Specification) -> Result<Self, CompileError> {
        let program = Program::new(instructions(&specification))?;
        Ok(Self::from_program(specification, program)?)
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

/// The architecture, then the tree of numbers.
fn instructions(specification: &Specification) -> Vec<SockFilter> {
    const ARCH: u32 = 4;
    const NR: u32 = 0;
    let mut code = tree::decide(&specification.ranges());
    let kill = code.answer(specification.return_value(Verdict::Kill));
    let number = code.push(SockFilter::load(NR));
    code.test(|jt, jf| SockFilter::jump_if_equal(AUDIT_ARCH_X86_64, jt, jf), number, kill);
    code.push(SockFilter::load(ARCH));
    code.into_instructions()
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};
    use std::io::{Read, Seek};

    use chestnut_analyzer::syscall::SyscallNr;
    use libseccomp::{ScmpAction, ScmpArch, ScmpFilterContext, ScmpSyscall};

    use super::super::action::Action;
    use super::super::interpreter::SeccompData;
    use super::*;

    /// The level at which libseccomp knows all actions, whatever this kernel does.
    const LIBSECCOMP_API_LEVEL: u32 = 3;

    /// `SCMP_FLTATR_CTL_OPTIMIZE`: a list by priority, a binary tree.
    const OPTIMIZATIONS: [u32; 2] = [1, 2];

    /// The same allowed and failing numbers by libseccomp, which cannot say "above this number".
    fn by_libseccomp(specification: &Specification, optimization: u32) -> Program {
        libseccomp::set_api(LIBSECCOMP_API_LEVEL).unwrap();
        let scmp = |action| match action {
            Action::KillProcess => ScmpAction::KillProcess,
            Action::KillThread => ScmpAction::KillThread,
            Action::Trap => ScmpAction::Trap,
            Action::Log => ScmpAction::Log,
            Action::Errno(number) => ScmpAction::Errno(i32::from(number)),
        };
        let mut context = ScmpFilterContext::new(scmp(specification.action())).unwrap();
        let native = ScmpArch::native();
        if native != ScmpArch::X8664 {
            context.add_arch(ScmpArch::X8664).unwrap().remove_arch(native).unwrap();
        }
        context.set_act_badarch(ScmpAction::KillProcess).unwrap().set_ctl_optimize(optimization).unwrap();
        let allowed = specification.allowed().iter().map(|nr| (nr, ScmpAction::Allow));
        let failing = specification.failing().iter().map(|(nr, number)| (nr, Action::Errno(*number)));
        // libseccomp takes no rule that says the same as the default action.
        let failing = failing.filter(|(_, action)| *action != specification.action());
        for (nr, action) in allowed.chain(failing.map(|(nr, action)| (nr, scmp(action)))) {
            context.add_rule(action, ScmpSyscall::from(i32::try_from(nr.0).unwrap())).unwrap();
        }
        let mut file = tempfile::tempfile().unwrap();
        context.export_bpf(&file).unwrap();
        let mut bytes = Vec::new();
        file.rewind().unwrap();
        file.read_to_end(&mut bytes).unwrap();
        Program::decode(&bytes).unwrap()
    }

    /// Sets of calls of every density, the densest alternation among them, and single calls at both ends.
    fn specifications() -> Vec<Specification> {
        let known: Vec<_> = SyscallNr::all_known().collect();
        let chosen = |keep: &dyn Fn(usize) -> bool| -> BTreeSet<SyscallNr> {
            known.iter().enumerate().filter(|(at, _)| keep(*at)).map(|(_, nr)| *nr).collect()
        };
        let mut sets = vec![chosen(&|_| true), chosen(&|at| at == 0), chosen(&|at| at + 1 == known.len())];
        for step in 2..9 {
            sets.push(chosen(&|at| at % step == 0));
            sets.push(chosen(&|at| at % step != 0));
            sets.push(chosen(&|at| (at * at / step) % 7 < 3));
            sets.push(chosen(&|at| at / step % 2 == 0));
        }
        let failing: BTreeMap<_, _> =
            known.iter().skip(5).step_by(9).zip(1..).map(|(nr, number)| (*nr, number)).collect();
        let actions = [Action::KillProcess, Action::Errno(1), Action::Trap];
        let mut found = Vec::new();
        for (set, action) in sets.iter().zip(actions.into_iter().cycle()) {
            for failing in [BTreeMap::new(), failing.clone()] {
                found.push(Specification::new(set.clone(), failing, action).unwrap());
            }
        }
        found
    }

    /// What `tree.rs` says that the kernel pays.
    fn cost(program: &Program) -> usize {
        let numbers = 0..=SyscallNr::highest_known().0;
        let steps: usize = numbers.map(|nr| program.walk(&SeccompData::of_call(nr)).1).sum();
        program.instructions().len() * usize::try_from(tree::INSTRUCTION).unwrap() + steps
    }

    /// libseccomp compiled both, and has been tested by many: it knows nothing of our tree.
    #[test]
    fn libseccomp_decides_the_same() {
        for specification in specifications() {
            let ours = Filter::compile(specification.clone()).unwrap();
            for theirs in OPTIMIZATIONS.map(|optimization| by_libseccomp(&specification, optimization)) {
                for nr in 0..=specification.ceiling().0 {
                    let data = SeccompData::of_call(nr);
                    assert_eq!(ours.program().run(&data), theirs.run(&data), "{nr} of {specification:?}");
                }
            }
        }
    }

    /// What a start of a program pays for: instructions that are translated, steps that are walked.
    #[test]
    fn libseccomps_trees_cost_more() {
        for specification in specifications() {
            let ours = Filter::compile(specification.clone()).unwrap();
            let theirs = by_libseccomp(&specification, 2);
            let costs = [ours.program(), &theirs].map(cost);
            assert!(costs[0] < costs[1], "{costs:?} for {specification:?}");
        }
    }

    /// A policy that a person has edited may allow more numbers than there are, beyond any search and any jump.
    #[test]
    fn many_numbers_are_halved_and_too_many_refused() {
        let every_third = |end: u32| {
            let allowed = (0..end).step_by(3).map(SyscallNr).collect();
            Filter::compile(Specification::new(allowed, BTreeMap::new(), Action::KillProcess).unwrap())
        };
        assert!(every_third(2400).unwrap().program().instructions().len() > 800);
        assert!(matches!(every_third(60000), Err(CompileError::Invalid(InvalidProgram::Length { .. }))));
    }
}
