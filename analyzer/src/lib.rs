//! Which system calls an x86-64 Linux executable can make, from its bytes and those of its libraries alone.
//!
//! The pipeline, each stage a function from shared references to a new type: bytes → [`elf::Image`] → `ModuleSummary`
//! → `Program` → `Reachable` → [`policy::Policy`].

pub mod address;
pub mod elf;
pub mod policy;
pub mod syscall;
