//! What the commands of this project share: flags that decide what the analysis looks at, and how they print.
//!
//! Input: arguments, as clap parses them. Output: the analyzer's [`Policy`], text for a person.

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::fmt;
use std::io::{self, ErrorKind, Write};
use std::mem::ManuallyDrop;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use chestnut_analyzer::explanation::{Explanation, Question};
use chestnut_analyzer::limits::{Limit, Limits};
use chestnut_analyzer::plain_text;
use chestnut_analyzer::policy::{AssumptionKind, CodeLocation, Policy, UnresolvedReason, UnresolvedSite};
use chestnut_analyzer::syscall::SyscallNr;
use chestnut_analyzer::{Cache, CacheError, ExecMode, ExecTarget, Options, Session};
use clap::{Args, Parser};

use crate::bpf::errno;

/// What is told to a command that reads files without an analysis.
#[derive(Clone, Debug, Default, Args)]
pub struct LimitFlags {
    /// Sets a limit that a file goes beyond: file-size, policy-size (bytes).
    #[arg(long = "limit", value_name = "NAME=N")]
    limits: Vec<Limit>,
}

impl LimitFlags {
    /// The limits, as the flags set them.
    #[must_use]
    pub fn limits(&self) -> Limits {
        set(&self.limits)
    }
}

fn set(flags: &[Limit]) -> Limits {
    let mut limits = Limits::default();
    flags.iter().for_each(|limit| limits.set(*limit));
    limits
}

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
    #[arg(long, value_name = "NAME,..", value_delimiter = ',')]
    pub nss: Option<Vec<String>>,

    /// A library that the program opens while it runs, under a name that the analysis cannot see.
    #[arg(long, value_name = "FILE|GLOB")]
    pub dlopen: Vec<String>,

    /// A program that this one executes, as it names it (below --root); `self` for itself. Its calls are counted too,
    /// as are those of what it executes in turn. Programs named by constants are found without.
    #[arg(long, value_name = "PATH|self")]
    pub exec_target: Vec<String>,

    /// Whether the program may execute others: `follow` counts the calls of those that are known, `deny` lets every
    /// execution fail, with EACCES or the error that is named.
    #[arg(long, value_name = "follow|deny[:ERRNO]", default_value = "follow")]
    pub exec: Execution,

    /// Sets a limit that a program goes beyond: work (steps for each byte of a file), file-size and policy-size (bytes),
    /// files (of one process), programs (that are executed), time (seconds).
    #[arg(long = "limit", value_name = "NAME=N")]
    pub limits: Vec<Limit>,

    /// Where findings are kept for other runs.
    #[command(flatten)]
    pub cache: CacheFlags,
}

/// Where findings about files are kept.
#[derive(Clone, Debug, Default, Args)]
pub struct CacheFlags {
    /// Keeps findings in this folder, for other runs that meet the same files, instead of chestnut/ in $XDG_CACHE_HOME
    /// or ~/.cache.
    #[arg(long = "cache", value_name = "DIR", conflicts_with = "is_off")]
    pub folder: Option<PathBuf>,

    /// Uses no findings of other runs, and keeps none.
    #[arg(long = "no-cache")]
    pub is_off: bool,
}

impl CacheFlags {
    /// What the flags mean.
    ///
    /// # Errors
    ///
    /// The folder that they name cannot be made, or others can write to it.
    pub fn session(&self) -> Result<Session, AnalysisError> {
        Ok(Session::with_cache(match &self.folder {
            _ if self.is_off => None,
            Some(folder) => Some(Cache::open(folder)?),
            None => Cache::of_user(),
        }))
    }
}

/// The flags alone.
#[derive(Debug, Parser)]
#[command(args_override_self = true)]
struct Parsed {
    #[command(flatten)]
    flags: AnalysisFlags,
}

/// What becomes of execve and execveat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Execution {
    /// Known programs are analyzed too.
    Follow,
    /// They fail with this error number.
    Deny(u16),
}

impl FromStr for Execution {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            None if text == "follow" => Ok(Self::Follow),
            None if text == "deny" => errno::number("EACCES").map(Self::Deny).ok_or_else(|| text.to_owned()),
            Some(("deny", name)) => {
                errno::number(name).map(Self::Deny).ok_or_else(|| format!("there is no error {name:?}"))
            }
            _ => Err("expected follow, deny or deny:ERRNO, where ERRNO is a name like ENOENT".to_owned()),
        }
    }
}

impl fmt::Display for Execution {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Follow => f.write_str("follow"),
            Self::Deny(number) => match errno::name(number) {
                Some(name) => write!(f, "deny:{name}"),
                None => write!(f, "deny:{number}"),
            },
        }
    }
}

/// Why there is no policy.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AnalysisError {
    /// A program is to be executed, and none may be.
    #[error("--exec-target {0}: --exec deny lets no program be executed")]
    DeniedTarget(String),
    /// The analyzer refuses.
    #[error(transparent)]
    Analyzer(#[from] chestnut_analyzer::Error),
    /// The folder for findings cannot be used.
    #[error(transparent)]
    Cache(#[from] CacheError),
}

impl AnalysisError {
    /// Whether the command line, or a file that one of its flags names, is wrong, and not the program.
    #[must_use]
    pub const fn is_usage(&self) -> bool {
        match self {
            Self::DeniedTarget(_) | Self::Cache(_) => true,
            Self::Analyzer(error) => matches!(error, chestnut_analyzer::Error::ExecTarget { .. }),
        }
    }
}

impl AnalysisFlags {
    /// Asks the analyzer. `original` is there if the program on disk is a patched one, which must not be what is
    /// analyzed. What was found out about its libraries stays in memory, so that this is for who asks once.
    ///
    /// # Errors
    ///
    /// The analyzer's reason, or flags that contradict each other.
    pub fn analyze(&self, program: &Path, original: Option<&[u8]>) -> Result<Policy, AnalysisError> {
        // What it knows is left to the end of the process, which is faster than to give it back piece by piece.
        let session = ManuallyDrop::new(self.cache.session()?);
        self.analyze_in(&session, program, original)
    }

    /// The same for one of many programs.
    ///
    /// # Errors
    ///
    /// As [`Self::analyze`].
    pub fn analyze_in(
        &self,
        session: &Session,
        program: &Path,
        original: Option<&[u8]>,
    ) -> Result<Policy, AnalysisError> {
        Ok(session.analyze(program, &self.options(original)?)?)
    }

    /// The same, with the answer to a question about the program.
    ///
    /// # Errors
    ///
    /// As [`Self::analyze`].
    pub fn explain(
        &self,
        program: &Path,
        original: Option<&[u8]>,
        question: &Question,
    ) -> Result<(Policy, Explanation), AnalysisError> {
        Ok(self.cache.session()?.explain(program, &self.options(original)?, question)?)
    }

    /// The limits, as the flags set them.
    #[must_use]
    pub fn limits(&self) -> Limits {
        set(&self.limits)
    }

    fn options(&self, original: Option<&[u8]>) -> Result<Options, AnalysisError> {
        if let (Some(target), Execution::Deny(_)) = (self.exec_target.first(), self.exec) {
            return Err(AnalysisError::DeniedTarget(target.clone()));
        }
        let mut options = Options::default();
        options.original = original.map(<[u8]>::to_vec);
        options.root.clone_from(&self.root);
        options.libraries.clone_from(&self.libraries);
        options.nss.clone_from(&self.nss);
        options.dlopen.clone_from(&self.dlopen);
        options.exec = if self.exec == Execution::Follow { ExecMode::Follow } else { ExecMode::Deny };
        let target = |text: &String| match text.as_str() {
            "self" => ExecTarget::Own,
            name => ExecTarget::Named(name.to_owned()),
        };
        options.exec_targets = self.exec_target.iter().map(target).collect();
        options.filter_of = Some(filter_of);
        options.limits = self.limits();
        Ok(options)
    }

    /// What the user must know about programs that are executed and of which nothing is known; `None` if there are
    /// none, or if the user has named some.
    #[must_use]
    pub fn warning(&self, policy: &Policy) -> Option<String> {
        let open = policy.assumptions.iter().filter(|a| a.kind == AssumptionKind::OpenExec && a.site.is_some());
        let places: Vec<String> = open.filter_map(|a| a.site.as_ref()).map(location_text).collect();
        let first = places.first().filter(|_| self.exec_target.is_empty() && self.exec == Execution::Follow)?;
        let more = places.len().saturating_sub(1);
        let others = if more == 0 { String::new() } else { format!(" and {more} more") };
        Some(format!(
            "warning: programs are executed whose names or calls are not all known ({first}{others}): they may make only the system \
             calls that are allowed here; --exec-target PATH adds what one of them needs, --exec deny forbids executions"
        ))
    }

    /// The flags as words of a command line, but for `--root`, `--limit` and those of the cache, which change
    /// nothing about the program.
    #[must_use]
    pub fn words(&self) -> Vec<String> {
        let mut words = Vec::new();
        let mut add = |flag: &str, value: String| words.push(format!("{flag}={value}"));
        self.libraries.iter().for_each(|library| add("--lib", library.to_string_lossy().into_owned()));
        self.nss.iter().for_each(|services| add("--nss", services.join(",")));
        self.dlopen.iter().for_each(|pattern| add("--dlopen", pattern.clone()));
        self.exec_target.iter().for_each(|target| add("--exec-target", target.clone()));
        if self.exec != Execution::Follow {
            add("--exec", self.exec.to_string());
        }
        words
    }

    /// Flags that a file was patched with, and on top of them those given now.
    ///
    /// # Errors
    ///
    /// The words are no flags.
    pub fn on_top_of(&self, words: &[String]) -> Result<Self, clap::Error> {
        let name = ["chestnut".to_owned()];
        let all = name.into_iter().chain(words.iter().cloned()).chain(self.words());
        let Parsed { mut flags } = Parsed::try_parse_from(all)?;
        flags.nss = self.nss.clone().or(flags.nss);
        flags.root.clone_from(&self.root);
        flags.cache.clone_from(&self.cache);
        flags.limits.clone_from(&self.limits);
        if self.exec != Execution::Follow {
            flags.exec_target.clone_from(&self.exec_target);
        }
        Ok(flags)
    }

    /// Calls that are to fail, with their error numbers.
    #[must_use]
    pub fn failing(&self) -> BTreeMap<SyscallNr, u16> {
        match self.exec {
            Execution::Follow => BTreeMap::new(),
            Execution::Deny(number) => {
                BTreeMap::from([SyscallNr::EXECVE, SyscallNr::EXECVEAT].map(|call| (call, number)))
            }
        }
    }
}

/// What the filter in a file lets through, or fails: what the file may call is among it; `None` if there is none.
fn filter_of(bytes: &[u8]) -> Option<BTreeSet<SyscallNr>> {
    let found = crate::inspect(bytes).ok()?;
    let specification = found.filter.specification();
    Some(specification.allowed().iter().chain(specification.failing().keys()).copied().collect())
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
pub fn print(stream: &mut dyn Write, text: &(impl AsRef<[u8]> + ?Sized)) -> io::Result<()> {
    match stream.write_all(text.as_ref()).and_then(|()| stream.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(error),
        _ => Ok(()),
    }
}

/// An error with all its causes, in one line, whatever the names in it are.
#[must_use]
pub fn one_line(error: &dyn Error) -> String {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        line.push_str(": ");
        line.push_str(&error.to_string());
        cause = error.source();
    }
    plain_text::line(&line).into_owned()
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

/// More sites are counted, not named.
const NAMED_SITES: usize = 8;

/// What stops a program with unresolved sites, and what helps.
#[must_use]
pub fn unresolved_text(path: &Path, sites: &[UnresolvedSite]) -> String {
    let named: Vec<_> = sites.iter().take(NAMED_SITES).map(site_text).collect();
    let more = match sites.len().saturating_sub(NAMED_SITES) {
        0 => String::new(),
        more => format!(" and {more} more, which `chestnut analyze` names"),
    };
    format!(
        "{}: {} reached system call{} with a number that is not known: {}{more}; --ignore-unresolved goes on without what they call, --allow NAME adds it",
        path.display(),
        sites.len(),
        if sites.len() == 1 { "" } else { "s" },
        named.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use chestnut_analyzer::address::Vaddr;

    use super::*;

    #[test]
    fn a_refusal_names_some_sites_and_counts_the_others() {
        let site = |at| UnresolvedSite {
            site: CodeLocation { file: "/lib".into(), address: Vaddr(at), symbol: None },
            reason: UnresolvedReason::Number,
        };
        let sites: Vec<_> = (0..118).map(site).collect();
        let text = unresolved_text(Path::new("/bin/many"), &sites);
        assert!(text.starts_with("/bin/many: 118 reached system calls"), "{text}");
        assert!(text.contains("/lib at 0x7 and 110 more, which `chestnut analyze` names; --ignore"), "{text}");
        let text = unresolved_text(Path::new("/bin/many"), &sites[..8]);
        assert!(text.contains("/lib at 0x7; --ignore"), "{text}");
    }
}
