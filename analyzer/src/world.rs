//! One process: everything that is loaded into it, and the rounds in which libraries that are loaded by name join.
//!
//! Input: a program, since when it has the filter, and [`Options`]. Output: [`Part`] of a policy. Each round links what
//! is loaded so far, computes what is reached, and asks which further libraries that brings; it ends when a round
//! brings none.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use serde::Serialize;

use crate::analysis::Options;
use crate::cache::Key;
use crate::elf::{Image, SymbolKind};
use crate::error::Error;
use crate::evidence::Calls;
use crate::execution_sites::Executions;
use crate::explanation::{Explanation, Question};
use crate::late_loading::{Exports, Request, configured_services, name_service_module};
use crate::limits::Clock;
use crate::linked::{Linked, Shelf};
use crate::loader::{FileIndex, LoadError, LoadOptions, LoadedFile, LoadedSet, host_path, load_closure};
use crate::mapping::Mapping;
use crate::policy::{Assumption, AssumptionKind};
use crate::program::{Module, ModuleRole};
use crate::reachability::{Phase, Root};
use crate::regular_file;
use crate::round::{self, Brings, Findings, Names, Outcome};
use crate::session::Session;
use crate::startup::{self, Start};

/// Whose process it is.
#[derive(Clone, Debug)]
pub(crate) struct Subject {
    /// The executable, as a path of this machine.
    pub(crate) path: PathBuf,
    /// Its bytes, if they are not those of the file.
    pub(crate) original: Option<Mapping>,
    /// Whether it is the program that the user asks about, to which all options apply.
    pub(crate) is_own: bool,
    /// Since when it has the filter.
    pub(crate) start: Start,
    /// Whether it is the loader alone, with the C library, in place of a program that is not known.
    pub(crate) is_loader: bool,
}

/// What the analysis of one process gives.
#[derive(Debug)]
pub(crate) struct Part {
    pub(crate) files: LoadedSet,
    pub(crate) calls: Calls,
    pub(crate) executions: Executions,
    pub(crate) assumptions: BTreeSet<Assumption>,
    brought: Brought,
}

/// What the rounds have brought, beside files.
#[derive(Clone, Debug, Default)]
struct Brought {
    /// Libraries that came by name, with what may be looked up in them.
    later: BTreeMap<FileIndex, BTreeSet<Exports>>,
    handled: BTreeSet<Request>,
    names: Names,
    imports_of_converters: BTreeSet<Vec<u8>>,
    assumptions: BTreeSet<Assumption>,
}

/// Everything that is loaded, and why.
#[derive(Debug)]
pub(crate) struct World<'o> {
    options: &'o Options,
    session: &'o Session,
    subject: Subject,
    root: PathBuf,
    files: LoadedSet,
    brought: Brought,
}

/// Everything that the findings of a round depend on.
#[derive(Serialize)]
struct Inputs<'w> {
    start: Start,
    is_loader: bool,
    /// In the loader's scope order.
    modules: Vec<InputModule<'w>>,
    names: &'w Names,
    imports_of_converters: &'w BTreeSet<Vec<u8>>,
}

#[derive(Serialize)]
struct InputModule<'w> {
    path: &'w Path,
    sha256: &'w str,
    role: ModuleRole,
    exports: Option<&'w BTreeSet<Exports>>,
}

impl<'o> World<'o> {
    /// Loads the files that are there from the start.
    pub(crate) fn load(subject: Subject, options: &'o Options, session: &'o Session) -> Result<Self, Error> {
        let root = options.root().to_owned();
        let original = subject.original.clone();
        let load =
            LoadOptions { root: root.clone(), libraries: options.libraries.clone(), original, limits: options.limits };
        let files = load_closure(&subject.path, &load)?;
        let brought = Brought::default();
        let mut world = Self { options, session, subject, root, files, brought };
        if world.subject.is_loader {
            world.load_c_library();
        }
        let patterns = if world.subject.is_own { options.dlopen.as_slice() } else { &[] };
        let mut given = Vec::new();
        for pattern in patterns {
            let names = world.matches(pattern)?;
            if names.is_empty() {
                world.brought.assumptions.insert(Assumption {
                    kind: AssumptionKind::SystemConfiguration,
                    text: format!("no library is loaded by {pattern}, since no file matches it"),
                    site: None,
                    flag: Some("--dlopen".to_owned()),
                });
            }
            given.extend(names);
        }
        // They may need each other: what is loaded already is found by its DT_SONAME. In which order they come is not known.
        for name in &given {
            world.files.open_library(OsStr::new(name), world.files.program())?;
        }
        for name in given {
            world.handle(Request { name, exports: Exports::All })?;
        }
        Ok(world)
    }

    /// The same program once more, with the filter from its start: whatever came by name comes again.
    pub(crate) fn again(part: &Part, subject: Subject, options: &'o Options, session: &'o Session) -> Self {
        let (files, brought) = (part.files.clone(), part.brought.clone());
        Self { options, session, subject, root: options.root().to_owned(), files, brought }
    }

    /// Computes what the process can do.
    pub(crate) fn solve(mut self) -> Result<Part, Error> {
        let shelf = Shelf::default();
        let mut linked = Linked::nothing(&shelf);
        loop {
            self.in_time()?;
            let key = self.key();
            let (findings, comes_more) = match self.recall(key)? {
                Some(known) => known,
                None => self.compute(key, &mut linked)?,
            };
            if let Some(Outcome { calls, executions, mut assumptions }) = findings.outcome.filter(|_| !comes_more) {
                assumptions.extend(self.brought.assumptions.iter().cloned());
                return Ok(Part { files: self.files, calls, executions, assumptions, brought: self.brought });
            }
        }
    }

    /// What is to be known of the files for the next round: of none if its findings are.
    pub(crate) fn unknown_files(&self) -> &[LoadedFile] {
        let is_known = self.key().zip(self.session.cache()).is_some_and(|(key, cache)| cache.has(key));
        if is_known { &[] } else { self.files.files() }
    }

    /// What the findings of the next round are kept under, if they are.
    fn key(&self) -> Option<Key> {
        self.session.cache()?;
        self.session.identify(&self.files.files().iter().collect::<Vec<_>>());
        let module = |index: FileIndex| {
            let file = self.files.file(index)?;
            let (path, sha256) = (file.path(), file.identity().sha256.as_str());
            Some(InputModule { path, sha256, role: self.role(index, file), exports: self.brought.later.get(&index) })
        };
        Key::new(&Inputs {
            start: self.subject.start,
            is_loader: self.subject.is_loader,
            modules: self.scope_order().into_iter().filter_map(module).collect(),
            names: &self.brought.names,
            imports_of_converters: &self.brought.imports_of_converters,
        })
    }

    /// The findings of this round if they are known, and whether what they bring makes another one needed.
    fn recall(&mut self, key: Option<Key>) -> Result<Option<(Findings, bool)>, Error> {
        let known = self.session.cache().zip(key).and_then(|(cache, key)| cache.get::<Findings>(key));
        let Some(findings) = known else { return Ok(None) };
        let comes_more = self.bring(&findings.brings)?;
        // When it was played, more was there to bring.
        let is_incomplete = findings.outcome.is_none() && !comes_more;
        Ok((!is_incomplete).then_some((findings, comes_more)))
    }

    /// Plays this round; says the same.
    fn compute(&mut self, key: Option<Key>, linked: &mut Linked<'_>) -> Result<(Findings, bool), Error> {
        self.link(linked)?;
        let roots = self.roots(linked);
        let names = self.brought.names.clone();
        let mut comes_more = Ok(false);
        let session = self.session;
        // Copies, which others find by their contents.
        let files = self.files.files().iter().filter(|file| file.contents().are_in_a_file());
        let files: Vec<LoadedFile> = files.cloned().collect();
        // Most of a round is one thread's work; the others see to the digests meanwhile.
        let findings = rayon::in_place_scope(|others| {
            others.spawn(|_| session.identify(&files.iter().collect::<Vec<_>>()));
            round::play(&linked.program, &roots, &names, |brings| {
                comes_more = self.bring(brings);
                !matches!(comes_more, Ok(false))
            })
        });
        let (comes_more, path) = (comes_more?, &self.subject.path);
        let findings = findings.map_err(|source| Error::Limit { path: path.clone(), source })?;
        // Of what changed between its digest and now, nobody knows which bytes were looked at.
        let is_sure = || linked.order.iter().filter_map(|index| self.files.file(*index)).all(LoadedFile::is_sure);
        if let Some((key, cache)) = key.zip(self.session.cache()).filter(|_| is_sure()) {
            cache.put(key, &findings);
        }
        Ok((findings, comes_more))
    }

    /// Brings in what a round asks for. Whether that is anything that a round depends on, so that another one is needed:
    /// most names are those of files that are no libraries, or are loaded already.
    fn bring(&mut self, brings: &Brings) -> Result<bool, Error> {
        let before = self.extent();
        self.brought.names.open_lookups.extend(&brings.open_lookups);
        self.brought.names.symbols.extend(brings.symbols.iter().cloned());
        for request in self.wanted(brings) {
            self.handle(request)?;
        }
        Ok(self.extent() != before)
    }

    /// How much there is of everything that a round depends on, and that only grows.
    fn extent(&self) -> [usize; 5] {
        let Brought { later, names, imports_of_converters, .. } = &self.brought;
        // Names alone make no root (`roots`).
        let makes_roots = |exports: &&Exports| !matches!(exports, Exports::Named | Exports::Converters);
        [
            self.files.files().len(),
            later.values().flatten().filter(makes_roots).count(),
            names.open_lookups.len(),
            names.symbols.len(),
            imports_of_converters.len(),
        ]
    }

    /// Answers a question about a process whose rounds are over.
    pub(crate) fn explain(&self, question: &Question) -> Result<Explanation, Error> {
        let shelf = Shelf::default();
        let mut linked = Linked::nothing(&shelf);
        self.link(&mut linked)?;
        Ok(round::explain(&linked.program, &self.roots(&linked), &self.brought.names, question))
    }

    /// What glibc's loader calls in the C library at start (`elf/dl-call-libc-early-init.c`). A system without one has
    /// no program that is started so.
    fn load_c_library(&mut self) {
        let _ = self.files.load_library(OsStr::new("libc.so.6"), self.files.program());
    }

    /// The names that a `dlopen` option stands for: itself, or the files that its pattern matches.
    fn matches(&self, pattern: &str) -> Result<Vec<String>, Error> {
        if !pattern.contains(['*', '?', '[']) {
            return Ok(vec![pattern.to_owned()]);
        }
        let on_this_machine = self.root.join(pattern.trim_start_matches('/'));
        let paths = glob::glob(&on_this_machine.to_string_lossy())
            .map_err(|source| Error::Pattern { pattern: pattern.to_owned(), source })?;
        let inside = paths.filter_map(Result::ok).filter_map(|path| {
            let relative = path.strip_prefix(&self.root).ok()?;
            Some(Path::new("/").join(relative).to_string_lossy().into_owned())
        });
        let names: Vec<String> = inside.collect();
        Ok(names)
    }

    /// Links the files that are new: in the loader's scope order, those that come later last.
    fn link(&self, linked: &mut Linked<'_>) -> Result<(), Error> {
        let order = self.scope_order();
        let new = order.iter().skip(linked.order.len());
        let files: Vec<(FileIndex, &LoadedFile)> = new.filter_map(|&i| Some((i, self.files.file(i)?))).collect();
        // A copy keeps the bytes mapped.
        let mappings = linked.keep(files.iter().map(|(_, file)| file.data().clone()).collect());
        let work = files.par_iter().with_max_len(1).zip(mappings);
        let modules: Result<Vec<Module<'_>>, Error> =
            work.map(|(&(index, file), data)| self.module(index, file, data)).collect();
        linked.program.extend(modules?);
        linked.order = order;
        self.in_time()
    }

    /// Parses a file, and analyses it if it is new.
    fn module<'m>(&self, index: FileIndex, file: &LoadedFile, data: &'m Mapping) -> Result<Module<'m>, Error> {
        let path = file.path().to_owned();
        let wrong = |source| Error::Image { path: path.clone(), source };
        let image = Image::parse(data).map_err(wrong)?.limited(self.options.limits);
        let summary = self.session.summaries().of(file, &image, self.session.cache());
        if let Some(source) = summary.excess().or(summary.graph(&image).excess()) {
            return Err(Error::Limit { path, source });
        }
        let role = self.role(index, file);
        if role == ModuleRole::Interpreter {
            // Not later: here other files are analysed at the same time.
            summary.loader_state(&image);
        }
        Ok(Module { role, path, image, summary })
    }

    /// Whether there is time left.
    fn in_time(&self) -> Result<(), Error> {
        let limit = |source| Error::Limit { path: self.subject.path.clone(), source };
        self.options.clock.as_ref().map_or(Ok(()), Clock::check).map_err(limit)
    }

    fn role(&self, index: FileIndex, file: &LoadedFile) -> ModuleRole {
        if self.subject.is_loader {
            if index == self.files.program() { ModuleRole::Interpreter } else { ModuleRole::Needed }
        } else if index == self.files.program() {
            ModuleRole::Main
        } else if file.is_interpreter() {
            ModuleRole::Interpreter
        } else if self.files.scope().contains(&index) {
            ModuleRole::Needed
        } else {
            ModuleRole::LoadedLater
        }
    }

    fn scope_order(&self) -> Vec<FileIndex> {
        let mut order = self.files.scope().to_vec();
        order.extend(self.files.interpreter().filter(|index| !order.contains(index)));
        let rest = (0..self.files.files().len()).map(FileIndex).filter(|index| !order.contains(index));
        let rest: Vec<FileIndex> = rest.collect();
        order.extend(rest);
        order
    }

    /// Where execution starts, with the exports of libraries that are looked up without a known name.
    fn roots(&self, linked: &Linked<'_>) -> Vec<Root> {
        let Linked { program, order, .. } = linked;
        let mut roots = startup::roots(program, self.subject.start);
        for (id, module) in program.modules() {
            let index = usize::try_from(id.0).ok().and_then(|position| order.get(position));
            for exports in index.and_then(|index| self.brought.later.get(index)).into_iter().flatten() {
                let prefix: &[u8] = match exports {
                    Exports::Named | Exports::Converters => continue,
                    Exports::Prefixed(prefix) => prefix.as_bytes(),
                    Exports::All | Exports::PlugIn => b"",
                };
                for symbol in module.image.symbols().iter().filter(|s| s.is_exported() && s.name.starts_with(prefix)) {
                    if symbol.kind != SymbolKind::Tls {
                        let reason = "export of a library that is loaded by name";
                        roots.push(Root { at: (id, symbol.value), phase: Phase::After, reason, escapes: true });
                    }
                }
            }
        }
        for name in &self.brought.imports_of_converters {
            for found in program.exported(name, |_| true) {
                let reason = "import of a character set converter";
                roots.push(Root { at: (found.module, found.address), phase: Phase::After, reason, escapes: true });
            }
        }
        roots
    }

    /// The libraries that what a round brings may mean on this system.
    fn wanted(&self, brings: &Brings) -> BTreeSet<Request> {
        let named = brings.libraries.iter().map(|name| Request { name: name.clone(), exports: Exports::Named });
        let mut wanted: BTreeSet<Request> = named.collect();
        let plug_ins = self.files.plug_ins(self.session.seen(), &brings.hints).into_iter();
        wanted.extend(plug_ins.map(|name| Request { name, exports: Exports::PlugIn }));
        if brings.name_services {
            wanted.extend(self.services().iter().map(|service| name_service_module(service)));
        }
        if let Some(folder) = &brings.converters {
            wanted.insert(Request { name: folder.to_string_lossy().into_owned(), exports: Exports::Converters });
        }
        wanted
    }

    fn services(&self) -> BTreeSet<String> {
        match &self.options.nss {
            Some(services) => services.iter().cloned().collect(),
            None => {
                let file = host_path(self.options.root(), Path::new("/etc/nsswitch.conf"));
                let text = file.and_then(|file| regular_file::read(&file, &self.options.limits)).ok();
                configured_services(text.and_then(|text| String::from_utf8(text).ok()).as_deref())
            }
        }
    }

    /// Brings in what a request names.
    fn handle(&mut self, request: Request) -> Result<(), Error> {
        if !self.brought.handled.insert(request.clone()) {
            return Ok(());
        }
        if request.exports == Exports::Converters {
            let below_root = Path::new(&request.name).strip_prefix("/").unwrap_or(Path::new(&request.name));
            let found = self.session.converters(&self.root.join(below_root), &self.options.limits);
            self.brought.imports_of_converters.extend(found.imports.iter().cloned());
            let folder = Path::new(&request.name);
            for file in &found.conspicuous {
                let name = folder.join(file).to_string_lossy().into_owned();
                self.handle(Request { name, exports: Exports::All })?;
            }
            return Ok(());
        }
        match self.files.load_library(OsStr::new(&request.name), self.files.program()) {
            Ok(scope) => {
                if let Some(&index) = scope.first().filter(|index| !self.files.scope().contains(index)) {
                    self.brought.later.entry(index).or_default().insert(request.exports);
                }
                Ok(())
            }
            // What is not there, or is no library, cannot be loaded at run time either.
            Err(error) if request.exports != Exports::All => {
                self.note_absent(&request, &error);
                Ok(())
            }
            Err(error) => Err(error.into()),
        }
    }

    fn note_absent(&mut self, request: &Request, error: &LoadError) {
        if matches!(request.exports, Exports::Prefixed(_))
            && !request.name.starts_with("libnss_files.")
            && !request.name.starts_with("libnss_dns.")
        {
            self.brought.assumptions.insert(Assumption {
                kind: AssumptionKind::SystemConfiguration,
                text: match error {
                    LoadError::MissingLibrary { .. } => {
                        format!("the name service module {} stays absent", request.name)
                    }
                    _ => format!("the name service module {} stays absent: {error}", request.name),
                },
                site: None,
                flag: Some("--nss".to_owned()),
            });
        }
    }
}
