//! Tables of system calls other than that of x86-64.
//!
//! Input: what ptrace says of a call (`AUDIT_ARCH_*` of `linux/audit.h`, number). Output: [`Architecture`], and names
//! by libseccomp, which has all tables.

use chestnut_analyzer::syscall::SyscallNr;
use libseccomp::{ScmpArch, ScmpSyscall};
use serde::{Deserialize, Serialize};

use crate::kernel::AUDIT_ARCH_X86_64;

/// `AUDIT_ARCH_I386`.
pub(crate) const AUDIT_ARCH_I386: u32 = 0x4000_0003;

/// `__X32_SYSCALL_BIT`.
const X32_BIT: u64 = 0x4000_0000;

/// A table of calls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Architecture {
    /// `syscall` of a 64-bit program.
    #[default]
    X86_64,
    /// `int $0x80` and `sysenter`.
    I386,
    /// `syscall` with the x32 bit.
    X32,
    /// `AUDIT_ARCH_*` of anything else.
    Other(u32),
}

impl Architecture {
    /// The table of a call, and the number in it.
    pub(crate) fn of(arch: u32, nr: u64) -> (Self, u64) {
        match arch {
            AUDIT_ARCH_X86_64 if nr & X32_BIT != 0 && nr <= u64::from(u32::MAX >> 1) => (Self::X32, nr & !X32_BIT),
            AUDIT_ARCH_X86_64 => (Self::X86_64, nr),
            AUDIT_ARCH_I386 => (Self::I386, nr),
            other => (Self::Other(other), nr),
        }
    }

    /// Whether it is that of x86-64.
    #[must_use]
    pub fn is_native(&self) -> bool {
        *self == Self::X86_64
    }

    /// Name of a call, `i386:open` for one of another table; its number if there is none.
    #[must_use]
    pub fn name(self, nr: u64) -> String {
        let foreign = |arch| {
            let number = i32::try_from(nr).ok()?;
            ScmpSyscall::from(number).get_name_by_arch(arch).ok()
        };
        let name = match self {
            Self::X86_64 => u32::try_from(nr).ok().and_then(|nr| SyscallNr(nr).name()).map(str::to_owned),
            Self::I386 => foreign(ScmpArch::X86),
            Self::X32 => foreign(ScmpArch::X32),
            Self::Other(_) => None,
        };
        let name = name.unwrap_or_else(|| nr.to_string());
        match self {
            Self::X86_64 => name,
            Self::I386 => format!("i386:{name}"),
            Self::X32 => format!("x32:{name}"),
            Self::Other(arch) => format!("{arch:#x}:{name}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_table() {
        assert_eq!(Architecture::of(AUDIT_ARCH_X86_64, 0).0.name(0), "read");
        assert_eq!(Architecture::I386.name(5), "i386:open");
        assert_eq!(Architecture::of(AUDIT_ARCH_X86_64, X32_BIT | 1), (Architecture::X32, 1));
        assert_eq!(Architecture::X86_64.name(9999), "9999");
    }
}
