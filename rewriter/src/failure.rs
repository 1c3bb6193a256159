//! Everything that ends `chestnut-patch` without success, and its exit status.
//!
//! Status 1: the program cannot be patched, or its patched form cannot be written. Status 2: the command line, or a
//! file that one of its flags names, is wrong. A message is one line: file, what, and what helps.

use std::path::PathBuf;

use chestnut_analyzer::policy::{FileIdentity, UnresolvedSite};
use chestnut_rewriter::command_line::{one_line, unresolved_text};
use chestnut_rewriter::output::FileError;

/// Why a run failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error("{}", path.display())]
    Refused { path: PathBuf, source: chestnut_rewriter::Error },
    #[error(transparent)]
    File(#[from] FileError),
    #[error("{}: {what}: whoever may start it gets the rights of another; --allow-setuid goes on", path.display())]
    Privileged { path: PathBuf, what: &'static str },
    #[error("{}", unresolved_text(path, sites))]
    Unresolved { path: PathBuf, sites: Vec<UnresolvedSite> },
    #[error("{}: cannot be analyzed", path.display())]
    Analysis { path: PathBuf, source: Box<dyn std::error::Error + Send + Sync> },
    #[error("{}: its calls come from a policy that somebody edited: give it again with --policy", path.display())]
    EditedPolicy { path: PathBuf },
    #[error("{}: the flags in its record are not understood", path.display())]
    RecordedFlags { path: PathBuf, source: clap::Error },
    #[error("{flag} {}: {reason}", path.display())]
    NamedFile { flag: &'static str, path: PathBuf, reason: String },
    #[error(
        "--policy {}: the policy of {} (SHA-256 {}), and not of {} (SHA-256 {found}): make one of it with --list \
         --emit-policy FILE; or write this digest to \"sha256\" of \"program\" in the policy, if it is meant",
        path.display(), policy_of.path.display(), policy_of.sha256, program.display()
    )]
    OtherProgram { path: PathBuf, policy_of: Box<FileIdentity>, program: PathBuf, found: String },
    #[error("{0}")]
    Usage(String),
}

impl Failure {
    /// The exit status.
    pub(crate) fn status(&self) -> u8 {
        match self {
            Self::NamedFile { .. } | Self::OtherProgram { .. } | Self::Usage(_) => 2,
            _ => 1,
        }
    }

    /// The message with all its causes, in one line.
    pub(crate) fn line(&self) -> String {
        one_line(self)
    }
}
