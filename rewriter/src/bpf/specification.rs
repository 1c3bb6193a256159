//! What a filter must decide, said independently of how it is compiled.
//!
//! Input: allowed numbers and the action for the others. Output: [`Specification`], which answers for any call, and
//! [`Specification::check`], which compares a program with it. The rules, first match wins:
//!
//! | call | answer | why |
//! |---|---|---|
//! | not by x86-64's `syscall` | kill the process | `int $0x80` has other numbers |
//! | number -1 | allow | no call at all: a tracer skips one; the kernel answers ENOSYS |
//! | x32 bit set | kill the process | another table behind the same instruction |
//! | above the ceiling | ENOSYS | newer than this tool: a newer libc falls back |
//! | one that is to fail | its error number | `--exec deny` |
//! | allowed | allow | |
//! | any other | the chosen action | |

use std::collections::{BTreeMap, BTreeSet};

use chestnut_analyzer::syscall::SyscallNr;

use super::action::Action;
use super::instruction::Operation;
use super::interpreter::SeccompData;
use super::program::Program;

/// `AUDIT_ARCH_X86_64`: ELF machine 62, 64-bit, little-endian.
pub(super) const AUDIT_ARCH_X86_64: u32 = 0xc000_003e;

/// `__X32_SYSCALL_BIT`.
pub(super) const X32_BIT: u32 = 0x4000_0000;

/// What a tracer writes over a call that is to be skipped.
pub(super) const SKIPPED: u32 = u32::MAX;

/// Where number and architecture end in `struct seccomp_data`, in bytes, and the instruction pointer begins.
const POINTER: u32 = 8;

/// A filter's answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The call is made.
    Allow,
    /// The call fails with this error number.
    Fail(u16),
    /// The action of the specification.
    Refuse,
    /// The process dies, whatever the action.
    Kill,
}

/// What a filter must decide.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Specification {
    allowed: BTreeSet<SyscallNr>,
    failing: BTreeMap<SyscallNr, u16>,
    action: Action,
    ceiling: SyscallNr,
}

/// Numbers with one answer, up to the next range's first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Range {
    pub(super) first: u32,
    /// What the filter returns for them.
    pub(super) answer: u32,
}

/// A program that answers otherwise than specified.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the filter answers {found:#x} to call {nr:#x} of architecture {arch:#x}, expected {expected:#x}")]
pub struct Disagreement {
    /// Number of the call.
    pub nr: u32,
    /// `AUDIT_ARCH_*`.
    pub arch: u32,
    /// What the filter returned.
    pub found: u32,
    /// What it should have returned.
    pub expected: u32,
}

impl Specification {
    /// The greatest number of which a filter says something of its own: who reads one asks it about all up to here. Linux
    /// has not come to 500 in thirty years. Numbers above it fail with ENOSYS, as the kernel has it, allowed or not; an
    /// analysis finds some where it takes more to be in a table of numbers than is.
    pub const HIGHEST: SyscallNr = SyscallNr(0xffff);

    /// `None` if an allowed number cannot be one of an x86-64 call. A call that is to fail is not allowed.
    #[must_use]
    pub fn new(
        mut allowed: BTreeSet<SyscallNr>,
        mut failing: BTreeMap<SyscallNr, u16>,
        action: Action,
    ) -> Option<Self> {
        let highest = allowed.last().max(failing.keys().last()).copied();
        if highest >= Some(SyscallNr(X32_BIT)) {
            return None;
        }
        failing.retain(|nr, _| *nr <= Self::HIGHEST);
        allowed.retain(|nr| *nr <= Self::HIGHEST && !failing.contains_key(nr));
        let highest = allowed.last().max(failing.keys().last()).copied();
        let ceiling = highest.max(Some(SyscallNr::highest_known()))?;
        Some(Self { allowed, failing, action, ceiling })
    }

    /// Allowed numbers.
    #[must_use]
    pub fn allowed(&self) -> &BTreeSet<SyscallNr> {
        &self.allowed
    }

    /// How many of the calls that are known are not allowed.
    #[must_use]
    pub fn blocked(&self) -> usize {
        SyscallNr::all_known().filter(|call| !self.allowed.contains(call)).count()
    }

    /// Calls that fail, with their error numbers.
    #[must_use]
    pub fn failing(&self) -> &BTreeMap<SyscallNr, u16> {
        &self.failing
    }

    /// What happens to a known call that is not allowed.
    #[must_use]
    pub fn action(&self) -> Action {
        self.action
    }

    /// Above this number a call is one that the kernel does not have.
    #[must_use]
    pub fn ceiling(&self) -> SyscallNr {
        self.ceiling
    }

    /// The answer to a call.
    #[must_use]
    pub fn verdict(&self, arch: u32, nr: u32) -> Verdict {
        match nr {
            _ if arch != AUDIT_ARCH_X86_64 => Verdict::Kill,
            SKIPPED => Verdict::Allow,
            X32_BIT.. => Verdict::Kill,
            _ if nr > self.ceiling.0 => Verdict::Fail(ENOSYS),
            _ if self.allowed.contains(&SyscallNr(nr)) => Verdict::Allow,
            _ => self.failing.get(&SyscallNr(nr)).map_or(Verdict::Refuse, |number| Verdict::Fail(*number)),
        }
    }

    /// The value that a filter returns for a verdict.
    #[must_use]
    pub fn return_value(&self, verdict: Verdict) -> u32 {
        match verdict {
            Verdict::Allow => libc::SECCOMP_RET_ALLOW,
            Verdict::Fail(number) => Action::Errno(number).return_value(),
            Verdict::Refuse => self.action.return_value(),
            Verdict::Kill => Action::KillProcess.return_value(),
        }
    }

    /// All numbers of x86-64, sorted, no two neighbours with the same answer.
    pub(super) fn ranges(&self) -> Vec<Range> {
        let rules = self.allowed.iter().chain(self.failing.keys()).flat_map(|nr| [nr.0, nr.0 + 1]);
        let firsts: BTreeSet<_> = rules.chain([0, self.ceiling.0 + 1, X32_BIT, SKIPPED]).collect();
        let mut ranges: Vec<Range> = Vec::new();
        for first in firsts {
            let answer = self.return_value(self.verdict(AUDIT_ARCH_X86_64, first));
            if ranges.last().is_none_or(|last| last.answer != answer) {
                ranges.push(Range { first, answer });
            }
        }
        ranges
    }

    /// Runs a program over every number that could make a difference, and over foreign architectures.
    ///
    /// # Errors
    ///
    /// The first call that is decided otherwise.
    pub fn check(&self, program: &Program) -> Result<(), Disagreement> {
        let numbers = self.interesting_numbers();
        // No rule looks at arguments or the instruction pointer, so a filter that does has been compiled from something
        // else.
        let looks_further =
            |operation: &Operation| matches!(operation, Operation::LoadData(offset) if *offset >= POINTER);
        let has_more = program.operations().iter().any(looks_further);
        let fills = if has_more { &[0, u64::MAX][..] } else { &[0] };
        for arch in ARCHITECTURES {
            for &nr in &numbers {
                let expected = self.return_value(self.verdict(arch, nr));
                for &fill in fills {
                    let data = SeccompData { nr, arch, instruction_pointer: fill, args: [fill; 6] };
                    let found = program.run(&data);
                    if found != expected {
                        return Err(Disagreement { nr, arch, found, expected });
                    }
                }
            }
        }
        Ok(())
    }

    /// All numbers up to 1023, and both sides of every value at which an answer changes.
    fn interesting_numbers(&self) -> BTreeSet<u32> {
        let edges = [0, 1024, self.ceiling.0, 0x7fff_ffff, X32_BIT, 0x8000_0000, SKIPPED].into_iter();
        let around = |value: u32| [value.wrapping_sub(1), value, value.wrapping_add(1)];
        let allowed = self.allowed.iter().chain(self.failing.keys()).map(|nr| nr.0);
        let x32 = (0..1024).map(|nr| nr | X32_BIT);
        (0..1024).chain(x32).chain(edges.chain(allowed).flat_map(around)).collect()
    }
}

/// `ENOSYS`.
pub(super) const ENOSYS: u16 = 38;

/// x86-64 first; then i386, aarch64, arm, riscv64, and x86-64 less its 64-bit or little-endian mark.
const ARCHITECTURES: [u32; 7] =
    [AUDIT_ARCH_X86_64, 0x4000_0003, 0xc000_00b7, 0x4000_0028, 0xc000_00f3, 0x4000_003e, 0x8000_003e];

#[cfg(test)]
mod tests {
    use super::super::compile::Filter;
    use super::super::instruction::SockFilter;
    use super::*;

    /// As the kernel has it, also where an analysis takes such a number for one of a call; those of x32 are refused.
    #[test]
    fn numbers_above_all_calls_fail() {
        let with = |nr| {
            let allowed = [0, nr].map(SyscallNr).into_iter().collect();
            Specification::new(allowed, BTreeMap::new(), Action::default())
        };
        for nr in [Specification::HIGHEST.0 + 1, 991_575_808, X32_BIT - 1] {
            let specification = with(nr).unwrap();
            assert_eq!(specification, with(0).unwrap());
            assert_eq!(specification.verdict(AUDIT_ARCH_X86_64, nr), Verdict::Fail(ENOSYS));
        }
        let highest = with(Specification::HIGHEST.0).unwrap();
        assert_eq!(highest.verdict(AUDIT_ARCH_X86_64, Specification::HIGHEST.0), Verdict::Allow);
        assert_eq!(with(X32_BIT), None);
    }

    /// A filter that decides as specified for some arguments, or some places of the call, only.
    #[test]
    fn filters_that_look_further_are_wrong() {
        let specification =
            Specification::new([SyscallNr(0)].into_iter().collect(), BTreeMap::new(), Action::default()).unwrap();
        let right = Filter::compile(specification.clone()).unwrap();
        assert_eq!(specification.check(right.program()), Ok(()));
        for word in (POINTER..64).step_by(4) {
            let mut instructions = vec![
                SockFilter::load(word),
                SockFilter::jump_if_equal(u32::MAX, 0, 1),
                SockFilter::ret(Action::KillThread.return_value()),
            ];
            instructions.extend(right.program().instructions());
            let program = Program::new(instructions).unwrap();
            assert!(specification.check(&program).is_err(), "{word}");
        }
    }
}
