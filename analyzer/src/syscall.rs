//! Numbers and names of system calls of the x86-64 ABI (kernel: `arch/x86/entry/syscalls/syscall_64.tbl`).
//!
//! Input and output: [`SyscallNr`] to name and back. The table is that of the crate `syscalls`, which is generated
//! from the kernel's; [`SyscallNr::highest_known`] is what DESIGN calls the ENOSYS ceiling.

use std::fmt;

use serde::{Deserialize, Serialize};
use syscalls::Sysno;

/// The number of an x86-64 system call (`rax` at `syscall`, low 32 bits, without the x32 bit).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SyscallNr(pub u32);

impl SyscallNr {
    /// Replaces the program by another one.
    pub const EXECVE: Self = Self(59);
    /// `exit`.
    pub const EXIT: Self = Self(60);
    /// `exit_group`.
    pub const EXIT_GROUP: Self = Self(231);
    /// `rt_sigaction`.
    pub const RT_SIGACTION: Self = Self(13);
    /// The same, with a folder or a descriptor that the name counts from.
    pub const EXECVEAT: Self = Self(322);

    /// The number with the given name, or with the given decimal spelling.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        if let Ok(number) = name.parse::<u32>() {
            return Some(Self(number));
        }
        name.parse::<Sysno>().ok().and_then(|known| u32::try_from(known.id()).ok()).map(Self)
    }

    /// The kernel's name, if the table has the number.
    #[must_use]
    pub fn name(self) -> Option<&'static str> {
        Sysno::new(usize::try_from(self.0).ok()?).map(|known| known.name())
    }

    /// The greatest number of the table: above it a filter answers `ENOSYS`, so that a newer libc falls back.
    #[must_use]
    pub fn highest_known() -> Self {
        Sysno::iter().filter_map(|known| u32::try_from(known.id()).ok()).max().map_or(Self(0), Self)
    }

    /// All numbers of the table, ascending.
    pub fn all_known() -> impl Iterator<Item = Self> {
        Sysno::iter().filter_map(|known| u32::try_from(known.id()).ok()).map(Self)
    }
}

impl fmt::Display for SyscallNr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "{}", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::SyscallNr;

    #[test]
    fn constants_have_the_numbers_of_the_table() {
        assert_eq!(SyscallNr::from_name("execve"), Some(SyscallNr::EXECVE));
        assert_eq!(SyscallNr::from_name("execveat"), Some(SyscallNr::EXECVEAT));
    }
}
