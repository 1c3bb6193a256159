//! Everything that ends `chestnut` without success, and its exit status.
//!
//! Status 1: the program is refused. Status 2: the command line is wrong, or a file cannot be read. A message is one
//! line: file, what, and what helps.

use std::io;
use std::path::PathBuf;

use chestnut_rewriter::command_line::{AnalysisError, one_line};

/// Why a run failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error("{}: cannot be read", path.display())]
    Unreadable { path: PathBuf, source: io::Error },
    #[error("{}: not a regular file", path.display())]
    NotRegular { path: PathBuf },
    #[error("{}", path.display())]
    Refused { path: PathBuf, source: chestnut_rewriter::Error },
    #[error("{}: cannot be analyzed", path.display())]
    Analysis { path: PathBuf, source: AnalysisError },
    #[error("{}: the flags in its record are not understood", path.display())]
    RecordedFlags { path: PathBuf, source: clap::Error },
    #[error("a result that JSON cannot hold")]
    Json(#[from] serde_json::Error),
    #[error("standard output: cannot be written")]
    Output(#[source] io::Error),
}

impl Failure {
    /// The exit status.
    pub(crate) fn status(&self) -> u8 {
        match self {
            Self::Refused { .. } | Self::RecordedFlags { .. } | Self::NotRegular { .. } | Self::Json(_) => 1,
            Self::Analysis { source, .. } if source.is_usage() => 2,
            Self::Analysis { .. } => 1,
            Self::Unreadable { .. } | Self::Output(_) => 2,
        }
    }

    /// The message with all its causes, in one line.
    pub(crate) fn line(&self) -> String {
        one_line(self)
    }
}
