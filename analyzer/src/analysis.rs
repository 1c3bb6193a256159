//! From a program on disk to its policy: its own process, then the programs that it executes.
//!
//! Input: a path and [`Options`]. Output: [`Policy`]. A program that is executed inherits the filter, and so do those
//! that it executes in turn: each is analysed once, in waves, and joins the policy (DESIGN section 3, rule 7).

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use rustc_hash::FxHashSet;

use crate::always;
use crate::error::Error;
use crate::execution::{self, DEFAULT_PATH};
use crate::execution_sites::ExecutedName;
use crate::explanation::{Explanation, Question};
use crate::limits::{Clock, Excess, LimitName, Limits};
use crate::loader::{FileId, FileIndex, LoadedFile, host_path};
use crate::mapping::Mapping;
use crate::policy::{
    AllowedCall, Assumption, AssumptionKind, CodeLocation, Evidence, FileIdentity, POLICY_FORMAT, Policy,
};
use crate::regular_file;
use crate::session::Session;
use crate::startup::Start;
use crate::syscall::SyscallNr;
use crate::world::{Part, Subject, World};

/// The loader of programs for glibc (psABI, "Program Interpreter").
const LOADER: &str = "/lib64/ld-linux-x86-64.so.2";

/// What the user says about the program's world.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Options {
    /// Where the program's system is; `/` if empty.
    pub root: PathBuf,
    /// Files that stand in for libraries that the program needs.
    pub libraries: Vec<PathBuf>,
    /// Name services to expect instead of those of the root's `nsswitch.conf`.
    pub nss: Option<Vec<String>>,
    /// Libraries that the program loads and that cannot be found in it: names as `dlopen` takes them, or patterns of
    /// paths below the root. All their exports count.
    pub dlopen: Vec<String>,
    /// What becomes of executions.
    pub exec: ExecMode,
    /// Programs that it executes and that cannot be found in it.
    pub exec_targets: Vec<ExecTarget>,
    /// The program's bytes, if they are not those of its file: what that was before it was patched.
    pub original: Option<Vec<u8>>,
    /// How to read the filter of a program that was patched.
    pub filter_of: Option<FilterReader>,
    /// How much there may be of everything.
    pub limits: Limits,
    /// When the analysis began that is under way.
    pub(crate) clock: Option<Clock>,
}

/// What the filter in a file lets through, from the bytes of the file; `None` if it has none.
pub type FilterReader = fn(&[u8]) -> Option<BTreeSet<SyscallNr>>;

/// What becomes of `execve` and `execveat`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ExecMode {
    /// What is known to be executed is analysed too.
    #[default]
    Follow,
    /// They fail: nothing is executed.
    Deny,
}

/// A program that is executed, as the user names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExecTarget {
    /// The program itself.
    Own,
    /// A path of the program's system, or a name that `PATH` leads to.
    Named(String),
}

impl Options {
    pub(crate) fn root(&self) -> &Path {
        if self.root.as_os_str().is_empty() { Path::new("/") } else { &self.root }
    }
}

/// Computes the policy of `program`.
///
/// # Errors
///
/// The program, a library that it needs, or a program that an option names cannot be found, read or understood.
pub fn analyze(program: &Path, options: &Options) -> Result<Policy, Error> {
    Session::default().analyze(program, options)
}

/// The same, with what is known of the files already.
pub(crate) fn analyze_in(session: &Session, program: &Path, options: &Options) -> Result<Policy, Error> {
    answer_in(session, program, options, None).map(|(policy, _)| policy)
}

/// The same, with the answer to a question about the program's own process.
pub(crate) fn answer_in(
    session: &Session,
    program: &Path,
    options: &Options,
    question: Option<&Question>,
) -> Result<(Policy, Explanation), Error> {
    let mut options = options.clone();
    options.clock = Some(Clock::start(options.limits));
    let original = options.original.take().map(Mapping::from);
    let options = &options;
    let subject = Subject { path: program.to_owned(), original, is_own: true, start: Start::AtEntry, is_loader: false };
    let part = World::load(subject.clone(), options, session)?.solve()?;
    let again = |question| World::again(&part, subject.clone(), options, session).explain(question);
    let explanation = question.map(again).transpose()?.unwrap_or_default();
    let mut analysis = Analysis {
        options,
        session,
        own: own_path(&part),
        subject,
        done: BTreeSet::new(),
        parts: Vec::new(),
        assumptions: BTreeSet::new(),
    };
    if options.exec == ExecMode::Follow {
        analysis.follow_all(&part)?;
    }
    Ok((analysis.policy(part), explanation))
}

/// The program's own file, as a path of this machine without symbolic links.
fn own_path(part: &Part) -> PathBuf {
    part.files.file(part.files.program()).map(|file| file.host_path().to_owned()).unwrap_or_default()
}

/// A program that is to be analysed because something executes it.
struct Candidate {
    path: PathBuf,
    /// The option that names it, or the place that executes it.
    by: Result<String, CodeLocation>,
}

/// A program that was analysed because something executes it.
struct ExecutedPart {
    /// A path of this machine.
    path: PathBuf,
    part: Part,
    /// What its own filter lets through, if it has one.
    filter: Option<BTreeSet<SyscallNr>>,
    /// Whether it is the loader of whatever else is executed.
    is_loader: bool,
}

struct Analysis<'o> {
    options: &'o Options,
    session: &'o Session,
    own: PathBuf,
    /// The program itself.
    subject: Subject,
    /// Programs that were analysed, or cannot be.
    done: BTreeSet<PathBuf>,
    parts: Vec<ExecutedPart>,
    assumptions: BTreeSet<Assumption>,
}

impl Analysis<'_> {
    /// Analyses what the program executes, what that executes, and so on.
    fn follow_all(&mut self, part: &Part) -> Result<(), Error> {
        let mut wave = self.given()?;
        if part.calls.executions.is_empty() {
            if !wave.is_empty() {
                self.assume(
                    AssumptionKind::OpenExec,
                    "nothing that is reached executes a program, although --exec-target names one".to_owned(),
                    None,
                );
            }
        } else {
            let own = self.own.clone();
            wave.extend(self.named(&own, part));
        }
        while !wave.is_empty() {
            let new = self.analyze_wave(wave, part)?;
            wave = Vec::new();
            for executed in new {
                // With a filter of its own it executes nothing that this does not let it.
                if executed.filter.is_none() {
                    wave.extend(self.named(&executed.path, &executed.part));
                }
                self.parts.push(executed);
            }
        }
        if part.calls.executions.is_empty() { Ok(()) } else { self.start_up_of_others(part) }
    }

    /// The programs that options name.
    fn given(&self) -> Result<Vec<Candidate>, Error> {
        let mut given = Vec::new();
        for target in &self.options.exec_targets {
            let ExecTarget::Named(text) = target else {
                given.push(Candidate { path: self.own.clone(), by: Ok("self".to_owned()) });
                continue;
            };
            let found = execution::find(self.options.root(), &self.own, &execution::name_of(text.as_bytes()))
                .map_err(|source| Error::ExecTarget { target: text.clone(), source: Box::new(source) })?;
            given.extend(found.into_iter().map(|path| Candidate { path, by: Ok(text.clone()) }));
        }
        Ok(given)
    }

    /// The programs that the code of `program` names.
    fn named(&mut self, program: &Path, part: &Part) -> Vec<Candidate> {
        let mut candidates = Vec::new();
        for (name, site) in &part.executions.names {
            let (ExecutedName::Path(text) | ExecutedName::Search(text)) = name;
            let text = String::from_utf8_lossy(text);
            match execution::find(self.options.root(), program, name) {
                Ok(found) => {
                    let by = |path| Candidate { path, by: Err(site.clone()) };
                    candidates.extend(found.into_iter().map(by));
                    if matches!(name, ExecutedName::Search(_)) {
                        let folders = DEFAULT_PATH.join(":");
                        let text = format!("{text}, which is executed here, is one of those in {folders}");
                        self.assume(AssumptionKind::SystemConfiguration, text, Some(site));
                    }
                }
                Err(error) if error.is_absent() => {
                    let text = format!("{text}, which is executed here, stays absent");
                    self.assume(AssumptionKind::SystemConfiguration, text, Some(site));
                }
                Err(error) => self.cannot_follow(&text, &error, site),
            }
        }
        let site = part.executions.open.first().and_then(|assumption| assumption.site.clone());
        for text in &part.executions.texts {
            // A text that names no program is none that is meant.
            let found = execution::find(self.options.root(), program, text);
            for (path, site) in found.into_iter().flatten().zip(site.iter().cycle()) {
                candidates.push(Candidate { path, by: Err(site.clone()) });
            }
        }
        candidates
    }

    /// Analyses those candidates that are new, at the same time; `own` is what is known of the program itself.
    fn analyze_wave(&mut self, wave: Vec<Candidate>, own: &Part) -> Result<Vec<ExecutedPart>, Error> {
        let mut new: BTreeMap<PathBuf, Candidate> = BTreeMap::new();
        for candidate in wave.into_iter().filter(|candidate| !self.done.contains(&candidate.path)) {
            let is_given = candidate.by.is_ok();
            let known = new.entry(candidate.path.clone()).or_insert(candidate);
            if is_given && known.by.is_err() {
                known.by = Ok(known.path.display().to_string());
            }
        }
        self.done.extend(new.keys().cloned());
        let count = u64::try_from(self.done.len()).unwrap_or(u64::MAX);
        let checked = self.options.limits.check(LimitName::Programs, "programs that are executed", count);
        checked.map_err(|source| Error::Limit { path: self.own.clone(), source })?;
        let loaded: Vec<_> = new
            .into_values()
            .map(|candidate| {
                let (subject, filter) = self.subject_of(&candidate.path);
                let world = if candidate.path == self.own {
                    Ok(World::again(own, subject, self.options, self.session))
                } else {
                    World::load(subject, self.options, self.session)
                };
                (candidate, filter, world)
            })
            .collect();
        let worlds = loaded.iter().filter_map(|(_, _, world)| world.as_ref().ok());
        let files = worlds.flat_map(World::unknown_files);
        self.session.summaries().prepare(files, &self.options.limits, self.session.cache());
        let solved: Vec<_> = loaded
            .into_par_iter()
            .map(|(candidate, filter, world)| (candidate, filter, world.and_then(World::solve)))
            .collect();
        let mut parts = Vec::new();
        for (Candidate { path, by }, filter, part) in solved {
            match (part, by) {
                (Ok(part), _) => parts.push(ExecutedPart { path, part, filter, is_loader: false }),
                // What has no time left says nothing about the others.
                (Err(error @ Error::Limit { source: Excess { name: LimitName::Time, .. }, .. }), _) => {
                    return Err(error);
                }
                (Err(source), Ok(target)) => return Err(Error::ExecTarget { target, source: Box::new(source) }),
                (Err(source), Err(site)) => self.cannot_follow(&path.display().to_string(), &source, &site),
            }
        }
        Ok(parts)
    }

    /// How an executed program is to be analysed, and what its own filter lets through if it has one.
    fn subject_of(&self, path: &Path) -> (Subject, Option<BTreeSet<SyscallNr>>) {
        if *path == self.own {
            return (Subject { start: Start::Inherited, ..self.subject.clone() }, None);
        }
        let subject =
            Subject { path: path.to_owned(), original: None, is_own: false, start: Start::Inherited, is_loader: false };
        let filter = self.options.filter_of.and_then(|filter_of| filter_of(&self.read(path)?));
        match filter {
            Some(_) => (Subject { start: Start::UpToEntry, ..subject }, filter),
            None => (subject, None),
        }
    }

    /// The bytes of a file that is not larger than one may be.
    fn read(&self, path: &Path) -> Option<Vec<u8>> {
        regular_file::read(path, &self.options.limits).ok()
    }

    /// Whatever is executed is started by a loader, which runs under the filter.
    fn start_up_of_others(&mut self, part: &Part) -> Result<(), Error> {
        let own = part.files.interpreter().and_then(|index| part.files.file(index));
        let path = match own {
            Some(loader) => loader.host_path().to_owned(),
            None => match host_path(self.options.root(), Path::new(LOADER)) {
                Ok(path) => path,
                Err(_) => return Ok(()),
            },
        };
        let subject =
            Subject { path: path.clone(), original: None, is_own: false, start: Start::UpToEntry, is_loader: true };
        let part = World::load(subject, self.options, self.session)?.solve()?;
        self.parts.push(ExecutedPart { path, part, filter: None, is_loader: true });
        Ok(())
    }

    fn cannot_follow(&mut self, name: &str, error: &dyn std::error::Error, site: &CodeLocation) {
        let text = format!(
            "{name}, which is executed here, needs no other calls than those that are allowed; it is not analysed: {error}"
        );
        self.assume(AssumptionKind::OpenExec, text, Some(site));
    }

    fn assume(&mut self, kind: AssumptionKind, text: String, site: Option<&CodeLocation>) {
        let flag = Some("--exec-target".to_owned());
        self.assumptions.insert(Assumption { kind, text, site: site.cloned(), flag });
    }

    /// Joins everything.
    fn policy(self, part: Part) -> Policy {
        let mut files = Files::default();
        let mut allowed = part.calls.allowed.clone();
        always::add(&mut allowed);
        let mut unresolved = part.calls.unresolved.clone();
        let mut assumptions = part.assumptions.clone();
        if self.options.exec == ExecMode::Follow {
            assumptions.extend(part.executions.open.iter().cloned());
            if !part.calls.executions.is_empty() {
                always::add_stub(&mut allowed);
            }
        }
        assumptions.extend(self.assumptions);
        files.add(&part, true);
        for executed in &self.parts {
            let is_own = executed.path == self.own;
            for (call, entry) in executed.calls() {
                allowed.entry(call).or_insert(entry);
            }
            if is_own || executed.is_loader {
                unresolved.extend(executed.part.calls.unresolved.iter().cloned());
            }
            assumptions.extend(executed.assumptions(is_own));
            files.add(&executed.part, !executed.is_loader);
        }
        unresolved.sort_by(|a, b| (&a.site, a.reason).cmp(&(&b.site, b.reason)));
        unresolved.dedup();
        let [programs, libraries] = [files.programs, files.libraries].map(|files| {
            self.session.identify(&files);
            files.into_iter().map(|file| file.identity().clone()).collect::<Vec<_>>()
        });
        let mut programs = programs.into_iter();
        let nothing = || FileIdentity { path: PathBuf::new(), build_id: None, sha256: String::new() };
        Policy {
            format: POLICY_FORMAT,
            tool: concat!("chestnut ", env!("CARGO_PKG_VERSION")).to_owned(),
            program: programs.next().unwrap_or_else(nothing),
            libraries,
            executed: programs.collect(),
            allowed,
            unresolved,
            assumptions: assumptions.into_iter().collect(),
        }
    }
}

impl ExecutedPart {
    /// Its path in the program's system.
    fn program(&self) -> PathBuf {
        self.part.files.file(self.part.files.program()).map(|file| file.path().to_owned()).unwrap_or_default()
    }

    /// What it calls, with its name in the evidence.
    fn calls(&self) -> BTreeMap<SyscallNr, AllowedCall> {
        let mut calls = self.part.calls.allowed.clone();
        always::add(&mut calls);
        for &call in self.filter.iter().flatten() {
            always::insert(&mut calls, call, "its own filter lets it through");
        }
        let program = self.program();
        for call in calls.values_mut() {
            let evidence = Box::new(call.evidence.clone());
            call.evidence = Evidence::Executed { program: program.clone(), evidence };
        }
        calls
    }

    /// What its part of the policy rests on; of the places where it executes others, one stands for all.
    fn assumptions(&self, is_own: bool) -> BTreeSet<Assumption> {
        let mut assumptions = self.part.assumptions.clone();
        let first = self.part.executions.open.first();
        if let Some(open) = first.filter(|_| self.filter.is_none() && !self.is_loader && !is_own) {
            let text =
                format!("what {} executes needs no other calls than those that are allowed", self.program().display());
            assumptions.insert(Assumption { text, ..open.clone() });
        }
        // What is not known of another program weighs no more than a program that is not known: it may be what a script
        // gives it. Of one with a filter of its own these are sites up to its entry point.
        let unknown = &self.part.calls.unresolved;
        if let Some(first) = unknown.first().filter(|_| !is_own && !self.is_loader) {
            let program = self.program();
            let text = format!(
                "{} needs no other calls than those that are allowed, although the numbers of {} are not known",
                program.display(),
                unknown.len()
            );
            let flag = Some("--allow".to_owned());
            let site = Some(first.site.clone());
            assumptions.insert(Assumption { kind: AssumptionKind::OpenExec, text, site, flag });
        }
        assumptions
    }
}

/// The files of several processes, each once.
#[derive(Default)]
struct Files<'p> {
    programs: Vec<&'p LoadedFile>,
    libraries: Vec<&'p LoadedFile>,
    known: FxHashSet<FileId>,
}

impl<'p> Files<'p> {
    /// Adds those of one process, its executable to the programs if `has_program`.
    fn add(&mut self, part: &'p Part, has_program: bool) {
        let program = part.files.program();
        for (file, index) in part.files.files().iter().zip((0..).map(FileIndex)) {
            if !self.known.insert(file.id()) {
                continue;
            }
            let list = if has_program && index == program { &mut self.programs } else { &mut self.libraries };
            list.push(file);
        }
    }
}
