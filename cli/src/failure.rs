//! Everything that ends `chestnut` without success, and its exit status.
//!
//! Status 1: the program is refused. Status 2: the command line is wrong, or a file cannot be read. A message is one
//! line: file, what, and what helps.

use std::io;
use std::path::PathBuf;

use chestnut_analyzer::policy::UnresolvedSite;
use chestnut_rewriter::command_line::{AnalysisError, one_line, unresolved_text};
use chestnut_rewriter::output::FileError;

/// Why a run failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error(transparent)]
    File(#[from] FileError),
    #[error("{}", path.display())]
    Refused { path: PathBuf, source: chestnut_rewriter::Error },
    #[error("{}: cannot be analyzed", path.display())]
    Analysis { path: PathBuf, source: AnalysisError },
    #[error("{}: --exec deny needs --at-entry: what executes the program does so under the filter", path.display())]
    DeniedAtStart { path: PathBuf },
    #[error("{}", unresolved_text(path, sites))]
    Unresolved { path: PathBuf, sites: Vec<UnresolvedSite> },
    #[error("{}: the flags in its record are not understood", path.display())]
    RecordedFlags { path: PathBuf, source: clap::Error },
    #[error("{}: not a policy that this version reads: {reason}", path.display())]
    NotAPolicy { path: PathBuf, reason: String },
    #[error("{}: not a table of vulnerabilities: {reason}", path.display())]
    NotATable { path: PathBuf, reason: String },
    #[error("standard input: a policy can come from there, and no program: its libraries are sought from where it is")]
    ProgramWithoutPlace,
    #[error("-o -: the program that is traced writes to standard output itself: name a file for the trace")]
    TraceToStream,
    #[error("a page is about one program: --table compares many")]
    ManyPrograms,
    #[error("{}: the policy of {}, and not of {}", path.display(), of.display(), program.display())]
    OtherProgram { path: PathBuf, of: PathBuf, program: PathBuf },
    #[error("{}: there is no such program", path.display())]
    NotFound { path: PathBuf },
    #[error(transparent)]
    Tracer(#[from] chestnut_tracer::Error),
    #[error("a result that JSON cannot hold")]
    Json(#[from] serde_json::Error),
    #[error("{}: its notes are ignored", path.display())]
    Notes { path: PathBuf, source: chestnut_analyzer::notes::Problem },
    #[error("standard output: cannot be written")]
    Output(#[source] io::Error),
}

impl Failure {
    /// The exit status.
    pub(crate) fn status(&self) -> u8 {
        match self {
            Self::Refused { .. }
            | Self::Unresolved { .. }
            | Self::Notes { .. }
            | Self::RecordedFlags { .. }
            | Self::File(FileError::NotRegular { .. })
            | Self::Json(_) => 1,
            Self::Analysis { source, .. } if source.is_usage() => 2,
            Self::Analysis { .. } => 1,
            Self::File(_) | Self::Output(_) | Self::NotAPolicy { .. } | Self::OtherProgram { .. } => 2,
            Self::TraceToStream
            | Self::NotATable { .. }
            | Self::ManyPrograms
            | Self::ProgramWithoutPlace
            | Self::DeniedAtStart { .. } => 2,
            Self::NotFound { .. } => NOT_FOUND,
            Self::Tracer(error) => tracer_status(error),
        }
    }

    /// The message with all its causes, in one line.
    pub(crate) fn line(&self) -> String {
        one_line(self)
    }
}

/// As env(1), timeout(1) and the like: what runs another program and cannot.
const CANNOT_TRACE: u8 = 125;
const CANNOT_EXECUTE: u8 = 126;
const NOT_FOUND: u8 = 127;

fn tracer_status(error: &chestnut_tracer::Error) -> u8 {
    match error {
        chestnut_tracer::Error::Start { source, .. } if source.kind() == io::ErrorKind::NotFound => NOT_FOUND,
        chestnut_tracer::Error::Start { .. } => CANNOT_EXECUTE,
        chestnut_tracer::Error::OtherProgram { .. } => 1,
        error if error.is_usage() => 2,
        _ => CANNOT_TRACE,
    }
}
