//! One program of a tree.
//!
//! Input: [`Program`]. Output: its patched form where it belongs, and an [`Outcome`]. Mode, owner, extended attributes,
//! times and hard links stay; whoever looks sees the old file or the whole new one.

use std::fmt;
use std::fs::{File, FileTimes};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use chestnut_analyzer::Session;
use chestnut_analyzer::loader::{host_path, identity};
use chestnut_analyzer::policy::{Policy, UnresolvedSite};
use chestnut_analyzer::regular_file;
use chestnut_rewriter::command_line::{AnalysisError, one_line, unresolved_text};
use chestnut_rewriter::output::{self, FileError, Input};
use chestnut_rewriter::{FilterOptions, Inspection, MadeWith, RecordedFile};

use super::tree::Program;
use crate::arguments::Harden;

/// What became of a program.
pub(super) enum Outcome {
    /// It was patched.
    Hardened {
        /// Its policy.
        policy: Box<Policy>,
        /// What could not be kept of the old file, and what the policy cannot know.
        warnings: Vec<String>,
    },
    /// It is as an earlier run left it.
    Unchanged,
    /// It is a library, which runs under the filters of programs.
    NoProgram,
    /// It is as it was.
    Refused(Refusal),
}

/// Why a program was not patched.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refusal {
    #[error(transparent)]
    Rewriter(#[from] chestnut_rewriter::Error),
    #[error(transparent)]
    Analysis(#[from] AnalysisError),
    #[error(transparent)]
    File(#[from] FileError),
    #[error("{what}: whoever may start it gets the rights of another; --allow-setuid goes on")]
    Privileged { what: &'static str },
    #[error("{}", unresolved(path, sites))]
    Unresolved { path: PathBuf, sites: Vec<UnresolvedSite> },
    #[error("{}: the name of a file that is patched cannot be renewed", path.display())]
    Link { path: PathBuf, source: io::Error },
}

/// Which calls are not known, of a program whose name stands before.
fn unresolved(path: &Path, sites: &[UnresolvedSite]) -> String {
    let text = unresolved_text(path, sites);
    text.strip_prefix(&format!("{}: ", path.display())).map_or_else(|| text.clone(), str::to_owned)
}

impl Outcome {
    pub(super) fn is_good(&self) -> bool {
        !matches!(self, Self::Refused(_))
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Hardened { policy, warnings } => {
                write!(f, "{} system calls allowed, {} blocked", policy.allowed.len(), policy.blocked())?;
                warnings.iter().try_for_each(|warning| write!(f, "; {warning}"))
            }
            Self::Unchanged => f.write_str("done before"),
            Self::NoProgram => f.write_str("a library"),
            Self::Refused(refusal) => write!(f, "refused: {}", one_line(refusal)),
        }
    }
}

/// Patches a program, unless that was done before.
pub(super) fn harden(command: &Harden, program: &Program, session: &Session) -> Outcome {
    match patch(command, program, session) {
        Err(Refusal::Rewriter(chestnut_rewriter::Error::SharedLibrary { .. })) if !program.is_named => {
            Outcome::NoProgram
        }
        Err(refusal) => Outcome::Refused(refusal),
        Ok(outcome) => outcome,
    }
}

fn patch(command: &Harden, program: &Program, session: &Session) -> Result<Outcome, Refusal> {
    let mut input = output::read(&program.path, &command.analysis.limits())?;
    let options = FilterOptions {
        action: command.filter.action,
        failing: command.analysis.failing(),
        made_with: MadeWith {
            flags: command.analysis.words(),
            ignore_unresolved: command.filter.ignore_unresolved,
            ..MadeWith::default()
        },
    };
    let was_patched = chestnut_rewriter::is_patched(&input.bytes)?;
    let patched = if was_patched {
        let original = chestnut_rewriter::unpatch(&input.bytes)?;
        Some(std::mem::replace(&mut input.bytes, original))
    } else {
        None
    };
    let there =
        if command.in_place { patched } else { regular_file::read(&program.output, &command.analysis.limits()).ok() };
    if !command.again && there.is_some_and(|there| is_done(command, program, &input, &there, &options)) {
        return Ok(Outcome::Unchanged);
    }
    chestnut_rewriter::check(&input.bytes)?;
    if let Some(what) = input.privilege().filter(|_| !command.allow_setuid) {
        return Err(Refusal::Privileged { what });
    }
    let policy = input.policy(&program.path, was_patched, |original| {
        command.analysis.analyze_in(session, &program.path, original).map_err(Refusal::from)
    })?;
    if !policy.unresolved.is_empty() && !command.filter.ignore_unresolved {
        return Err(Refusal::Unresolved { path: program.path.clone(), sites: policy.unresolved });
    }
    let rewritten = chestnut_rewriter::rewrite(&input.bytes, &policy, &options)?;
    let mut warnings = write(command, program, &input, &rewritten.bytes)?;
    if command.in_place && program.other_names > 0 {
        warnings.push(format!("warning: {} more names of the file keep the old one", program.other_names));
    }
    warnings.extend(command.analysis.warning(&policy));
    Ok(Outcome::Hardened { policy: Box::new(policy), warnings })
}

/// Whether the file in the place of the result is what this would make again: of the same program and libraries, with the
/// same flags, under all names.
fn is_done(command: &Harden, program: &Program, input: &Input, there: &[u8], options: &FilterOptions) -> bool {
    let Ok(found) = chestnut_rewriter::inspect(there) else { return false };
    let is_same = found.made_with == options.made_with && found.filter.specification().action() == options.action;
    let is_of_this = found.old_sha256 == chestnut_rewriter::sha256(&input.bytes);
    let inode = |path: &Path| std::fs::metadata(path).ok().map(|m| (m.dev(), m.ino()));
    is_same
        && is_of_this
        && found.tool == concat!("chestnut ", env!("CARGO_PKG_VERSION"))
        && program.links.iter().all(|link| inode(link) == inode(&program.output))
        && are_libraries_the_same(command, &found)
}

/// Whether the files that were analyzed with the program are those that are there now. Of a program with so many that its
/// record has no room for all of them, nobody knows.
fn are_libraries_the_same(command: &Harden, found: &Inspection) -> bool {
    let is_same = |recorded: &RecordedFile| {
        let path = host_path(&command.analysis.root, &recorded.path);
        let bytes = path.and_then(|path| regular_file::read(&path, &command.analysis.limits()));
        bytes.is_ok_and(|bytes| recorded.is(&identity(&recorded.path, &bytes)))
    };
    // The first is the program.
    found.rest.is_none() && found.files.iter().skip(1).all(is_same)
}

/// Writes the result under all names; returns what could not be kept.
fn write(command: &Harden, program: &Program, input: &Input, bytes: &[u8]) -> Result<Vec<String>, Refusal> {
    let path = &program.output;
    for name in std::iter::once(path).chain(&program.links).filter(|_| command.out.is_some()) {
        let folder = name.parent().unwrap_or(Path::new("."));
        std::fs::create_dir_all(folder).map_err(|source| FileError::Write { path: folder.to_owned(), source })?;
    }
    let old = std::fs::metadata(&program.path).and_then(|m| Ok((m.accessed()?, m.modified()?)));
    let place = if command.in_place { path.clone() } else { output::place(input, &program.path, path)? };
    let mut lost: Vec<_> =
        output::write(input, &place, bytes)?.into_iter().map(|what| format!("not kept: {what}")).collect();
    let times = old.map(|(accessed, modified)| FileTimes::new().set_accessed(accessed).set_modified(modified));
    if times.and_then(|times| File::open(&place)?.set_times(times)).is_err() {
        lost.push("not kept: times".to_owned());
    }
    for link in &program.links {
        renew_link(&place, link).map_err(|source| Refusal::Link { path: link.clone(), source })?;
    }
    Ok(lost)
}

/// Makes `link` a name of `file`, by way of a name beside it, so that it is never absent.
fn renew_link(file: &Path, link: &Path) -> io::Result<()> {
    let folder = link.parent().unwrap_or(Path::new("."));
    let temporary = tempfile::Builder::new().prefix(".chestnut-harden-").tempdir_in(folder)?;
    let beside = temporary.path().join("link");
    std::fs::hard_link(file, &beside)?;
    std::fs::rename(&beside, link)
}
