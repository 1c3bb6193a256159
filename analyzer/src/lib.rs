//! Which system calls an x86-64 Linux executable can make, from its bytes and those of its libraries alone.
//!
//! The pipeline, each stage a function from shared references to a new type: bytes → [`elf::Image`] → `ModuleSummary`
//! → `Program` → `Reachable` → [`policy::Policy`].
//!
//! [`analyze`] is all of it for one program; a [`Session`] does many, and reads each library once. Nothing is printed, and
//! nothing ends the process: what cannot be read is an [`Error`], what cannot be known stands in the policy.
//!
//! ```
//! use std::path::Path;
//!
//! use chestnut_analyzer::syscall::SyscallNr;
//! use chestnut_analyzer::{Options, analyze};
//!
//! let policy = analyze(Path::new("/bin/true"), &Options::default())?;
//! let [write, ptrace] = ["write", "ptrace"].map(|name| SyscallNr::from_name(name).expect("a call of x86-64"));
//! assert!(policy.allowed.contains_key(&write));
//! assert!(!policy.allowed.contains_key(&ptrace));
//! // A site whose number is not known is never ignored: whoever enforces the policy must decide what becomes of it.
//! assert!(policy.unresolved.is_empty());
//! # Ok::<(), chestnut_analyzer::Error>(())
//! ```
//!
//! [`explanation`] says why, [`limits`] how much work a file may make; `examples/policy.rs` is a whole program.

pub mod address;
pub mod always;
pub mod analysis;
pub(crate) mod answers;
pub mod arguments;
pub(crate) mod by_address;
pub mod cache;
pub(crate) mod call_types;
pub mod callers;
pub mod cfg;
pub mod code;
pub mod converters;
pub mod data;
pub mod dataflow;
mod edge;
pub mod elf;
pub mod error;
pub(crate) mod evaluate;
pub mod evidence;
pub mod execution;
pub mod execution_sites;
pub mod explanation;
pub mod functions;
mod graph;
pub mod guards;
mod identities;
pub mod indirect_callers;
pub mod instruction;
pub mod jump_table;
pub mod late_loading;
pub mod limits;
mod linked;
pub mod loader;
pub mod loader_state;
pub mod mapping;
pub mod memory;
pub mod never_return;
mod node_table;
pub(crate) mod note_warnings;
pub mod notes;
pub mod open_sites;
pub mod origins;
pub mod path_text;
pub mod plain_text;
pub mod policy;
pub mod program;
pub mod reachability;
pub mod references;
pub mod registers;
pub mod regular_file;
mod round;
mod session;
pub mod solver;
pub mod startup;
mod summaries;
pub mod summary;
pub mod syscall;
pub mod syscall_site;
pub mod table_jumps;
pub mod value;
mod world;
mod writable_code;

pub use analysis::{ExecMode, ExecTarget, Options, analyze};
pub use cache::{Cache, CacheError};
pub use error::Error;
pub use session::Session;
