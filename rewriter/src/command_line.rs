//! What the commands of this project share: flags that decide what the analysis looks at, and how they print.
//!
//! Input: arguments, as clap parses them. Output: the analyzer's [`Policy`], text for a person.

use std::collections::BTreeMap;
use std::error::Error;
use std::ffi::OsStr;
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};

use chestnut_analyzer::Options;
use chestnut_analyzer::policy::{CodeLocation, Policy, UnresolvedReason, UnresolvedSite};
use chestnut_analyzer::syscall::SyscallNr;
use clap::{Args, ValueEnum};

/// What the analysis is told.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "What the analysis looks at")]
pub struct AnalysisFlags {
    /// Looks for the loader, libraries and configuration below this folder.
    #[arg(long, value_name = "DIR", default_value = "/")]
    pub root: PathBuf,

    /// A library that the program loads by other means than its headers.
    #[arg(long = "lib", value_name = "FILE")]
    pub libraries: Vec<PathBuf>,

    /// The name services to count with, instead of those in nsswitch.conf.
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    pub nss: Option<Vec<String>>,

    /// A library that the program opens while it runs, under a name that the analysis cannot see.
    #[arg(long, value_name = "FILE|GLOB")]
    pub dlopen: Vec<String>,

    /// A program that this one executes; `self` for itself.
    #[arg(long, value_name = "PATH|self")]
    pub exec_target: Vec<String>,

    /// Whether the program may execute others: follow counts the calls of those that are known, deny lets every
    /// execution fail with EACCES.
    #[arg(long, value_name = "MODE", default_value = "follow")]
    pub exec: ExecMode,
}

/// What becomes of execve and execveat.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ExecMode {
    /// Known programs are analyzed too.
    Follow,
    /// They fail.
    Deny,
}

/// What an execution that is denied fails with.
const EACCES: u16 = 13;

/// Why there is no policy.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AnalysisError {
    /// `--exec-target`.
    #[error("--exec-target {0}: programs to be executed are not analyzed yet")]
    ExecTarget(String),
    /// The analyzer refuses.
    #[error(transparent)]
    Analyzer(#[from] chestnut_analyzer::Error),
    /// The program as it was before it was patched cannot be put anywhere.
    #[error("no place for the program as it was before it was patched")]
    Original(#[from] io::Error),
}

impl AnalysisFlags {
    /// Asks the analyzer. `original` is there if the program on disk is a patched one, which must not be what is
    /// analyzed.
    ///
    /// # Errors
    ///
    /// The analyzer's reason, or a flag that means nothing yet.
    pub fn analyze(&self, program: &Path, original: Option<&[u8]>) -> Result<Policy, AnalysisError> {
        if let Some(target) = self.exec_target.first() {
            return Err(AnalysisError::ExecTarget(target.clone()));
        }
        let options = self.options();
        let Some(original) = original else { return Ok(chestnut_analyzer::analyze(program, &options)?) };
        let folder = tempfile::tempdir()?;
        let path = folder.path().join(program.file_name().unwrap_or(OsStr::new("program")));
        std::fs::write(&path, original)?;
        let mut policy = chestnut_analyzer::analyze(&path, &options)?;
        policy.program.path = program.to_owned();
        Ok(policy)
    }

    fn options(&self) -> Options {
        let mut options = Options::default();
        options.root.clone_from(&self.root);
        options.libraries.clone_from(&self.libraries);
        options.nss.clone_from(&self.nss);
        options.dlopen.clone_from(&self.dlopen);
        options
    }

    /// Calls that are to fail, with their error numbers.
    #[must_use]
    pub fn failing(&self) -> BTreeMap<SyscallNr, u16> {
        if self.exec == ExecMode::Follow {
            return BTreeMap::new();
        }
        let calls = ["execve", "execveat"].into_iter().filter_map(SyscallNr::from_name);
        calls.map(|call| (call, EACCES)).collect()
    }
}

/// Parses the name or number of a system call.
///
/// # Errors
///
/// There is no such call.
pub fn call(text: &str) -> Result<SyscallNr, String> {
    SyscallNr::from_name(text).ok_or_else(|| format!("there is no system call {text:?}"))
}

/// Writes text to a stream that may have lost its reader: who has had enough is no error.
///
/// # Errors
///
/// Any other failure to write.
pub fn print(stream: &mut dyn Write, text: &str) -> io::Result<()> {
    match stream.write_all(text.as_bytes()).and_then(|()| stream.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(error),
        _ => Ok(()),
    }
}

/// An error with all its causes, in one line.
#[must_use]
pub fn one_line(error: &dyn Error) -> String {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        line.push_str(": ");
        line.push_str(&error.to_string());
        cause = error.source();
    }
    line
}

/// A place in code.
#[must_use]
pub fn location_text(location: &CodeLocation) -> String {
    let symbol = location.symbol.as_ref().map_or_else(String::new, |symbol| format!(" in {symbol}"));
    format!("{}{symbol} at {}", location.file.display(), location.address)
}

/// An unresolved site.
#[must_use]
pub fn site_text(site: &UnresolvedSite) -> String {
    let what = match site.reason {
        UnresolvedReason::Number => "",
        UnresolvedReason::ForeignEntry => " (32-bit entry)",
    };
    format!("{}{what}", location_text(&site.site))
}
