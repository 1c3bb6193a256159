//! Which system calls an x86-64 Linux executable can make, from its bytes and those of its libraries alone.
//!
//! The pipeline, each stage a function from shared references to a new type: bytes → [`elf::Image`] → `ModuleSummary`
//! → `Program` → `Reachable` → [`policy::Policy`].

pub mod address;
pub mod always;
pub mod analysis;
pub(crate) mod answers;
pub mod arguments;
pub mod by_address;
pub mod cache;
pub(crate) mod call_types;
pub mod callers;
pub mod cfg;
pub mod code;
pub mod converters;
pub mod data;
pub mod dataflow;
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
pub mod table_jumps;
pub mod value;
mod world;

pub use analysis::{ExecMode, ExecTarget, Options, analyze};
pub use cache::{Cache, CacheError};
pub use error::Error;
pub use session::Session;
