//! Everything that can go wrong in the tracer. A variant says what was being done, and with what.

use std::io;
use std::path::PathBuf;

/// Why something could not be done.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The program cannot be executed.
    #[error("{program}: cannot be started")]
    Start {
        /// As it was named.
        program: String,
        /// Why not.
        source: io::Error,
    },
    /// A running process cannot be traced.
    #[error("process {pid}: cannot be traced")]
    Attach {
        /// Its number.
        pid: i32,
        /// Why not.
        source: io::Error,
    },
    /// The kernel lets nobody trace.
    #[error("this process may not trace others (ptrace): a container may forbid it, or kernel.yama.ptrace_scope")]
    Ptrace(#[source] io::Error),
    /// A filter could not be put into the program.
    #[error("process {pid}: the system call filter cannot be installed ({why})")]
    Filter {
        /// Its number.
        pid: i32,
        /// Why not.
        why: String,
    },
    /// A request of ptrace failed.
    #[error("thread {tid}: {what}")]
    Request {
        /// Its number.
        tid: i32,
        /// What was asked for.
        what: &'static str,
        /// Why it failed.
        source: io::Error,
    },
    /// Waiting for events failed.
    #[error("waiting for the program")]
    Wait(#[source] io::Error),
    /// A file cannot be read.
    #[error("{}: cannot be read", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A file cannot be written.
    #[error("{}: cannot be written", path.display())]
    Write {
        /// Which.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A file is not what it should be.
    #[error("{}: not a trace that this version reads: {what}", path.display())]
    NotATrace {
        /// Which.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// A file of decisions is not what it should be.
    #[error("{}: not a file of decisions that this version reads: {what}", path.display())]
    NotDecisions {
        /// Which.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// None of the traces has to do with the policy.
    #[error("the policy is that of {}, which was executed in none of the traces (these show: {seen})", program.display())]
    OtherProgram {
        /// The policy's program.
        program: PathBuf,
        /// What was executed.
        seen: String,
    },
    /// There is nobody to ask.
    #[error("there is no terminal to ask on; --ask-command CMD asks otherwise")]
    NoTerminal(#[source] io::Error),
}

impl Error {
    /// Whether the command line, or a file that it names, is at fault.
    #[must_use]
    pub const fn is_usage(&self) -> bool {
        !matches!(
            self,
            Self::Ptrace(_)
                | Self::Attach { .. }
                | Self::Filter { .. }
                | Self::Request { .. }
                | Self::Wait(_)
                | Self::OtherProgram { .. }
        )
    }
}
