//! From a program on disk to its policy: the pipeline, and the rounds in which libraries that are loaded by name join.
//!
//! Input: a path and [`Options`]. Output: [`Policy`]. Each round links what is loaded so far, computes what is reached,
//! and asks which further libraries that brings; it ends when a round brings none.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rayon::prelude::*;

use crate::always;
use crate::callers::Callers;
use crate::converters;
use crate::elf::{Image, SymbolKind};
use crate::error::Error;
use crate::evidence;
use crate::guards::{GuardId, Guards};
use crate::late_loading::{
    Exports, Request, configured_services, converter_folder, loads_name_services, name_service_module, named_libraries,
};
use crate::loader::{FileIndex, LoadError, LoadOptions, LoadedSet, load_closure};
use crate::mapping::Mapping;
use crate::open_sites::{self, OpenSites};
use crate::policy::{Assumption, AssumptionKind, FileIdentity, POLICY_FORMAT, Policy};
use crate::program::{Definition, Module, ModuleId, ModuleRole, Program};
use crate::reachability::{Phase, Reachable, Root};
use crate::solver::{Surroundings, solve};
use crate::startup;
use crate::summary::ModuleSummary;

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
}

/// Computes the policy of `program`.
///
/// # Errors
///
/// The program or a library that it needs cannot be found, read or understood.
pub fn analyze(program: &Path, options: &Options) -> Result<Policy, Error> {
    let mut world = World::load(program, options)?;
    loop {
        let mappings = world.mappings();
        let images = world.images(&mappings)?;
        let (linked, order) = world.link(images);
        let roots = world.roots(&linked, &order);
        let guards = Guards::new(&linked);
        let reached = solve(&linked, &roots, &guards, &Lookups { world: &world, program: &linked });
        let callers = Callers::new(&linked, &reached);
        let open = open_sites::find(&linked, &reached, &callers);
        let wanted = world.wanted(&reached, &open);
        let is_known = wanted.is_subset(&world.handled)
            && open.modules_with_open_lookups.is_subset(&world.open_lookups)
            && open.symbols.is_subset(&world.symbols);
        if is_known {
            return Ok(world
                .policy(&Outcome { program: &linked, reached: &reached, callers: &callers, guards: &guards }, open));
        }
        world.open_lookups.extend(open.modules_with_open_lookups);
        world.symbols.extend(open.symbols);
        for request in wanted {
            world.handle(request)?;
        }
    }
}

/// Everything that is loaded, and why.
struct World<'o> {
    options: &'o Options,
    root: PathBuf,
    files: LoadedSet,
    /// By file.
    summaries: Vec<Arc<ModuleSummary>>,
    /// Libraries that came by name, with what may be looked up in them.
    later: BTreeMap<FileIndex, BTreeSet<Exports>>,
    handled: BTreeSet<Request>,
    /// Modules that look up symbols whose names are not known: every text of theirs may be one.
    open_lookups: BTreeSet<ModuleId>,
    /// Symbols that are looked up by a known name.
    symbols: BTreeSet<Vec<u8>>,
    imports_of_converters: BTreeSet<Vec<u8>>,
    assumptions: BTreeSet<Assumption>,
}

/// What the last round found.
struct Outcome<'r, 'data> {
    program: &'r Program<'data>,
    reached: &'r Reachable<'data>,
    callers: &'r Callers<'r, 'data>,
    guards: &'r Guards,
}

/// What names can mean at run time.
struct Lookups<'w, 'data> {
    world: &'w World<'w>,
    program: &'w Program<'data>,
}

impl Surroundings for Lookups<'_, '_> {
    fn look_up(&self, name: &[u8], holder: ModuleId) -> Vec<Definition> {
        let anywhere = self.looks_up_anything(holder) || self.world.symbols.contains(name);
        self.program.exported(name, |module| anywhere || module.role == ModuleRole::LoadedLater)
    }

    fn looks_up_anything(&self, module: ModuleId) -> bool {
        self.world.open_lookups.contains(&module)
    }
}

impl<'o> World<'o> {
    fn load(program: &Path, options: &'o Options) -> Result<Self, Error> {
        let root = if options.root.as_os_str().is_empty() { PathBuf::from("/") } else { options.root.clone() };
        let load = LoadOptions { root: root.clone(), libraries: options.libraries.clone() };
        let files = load_closure(program, &load)?;
        let mut world = Self {
            options,
            root,
            files,
            summaries: Vec::new(),
            later: BTreeMap::new(),
            handled: BTreeSet::new(),
            open_lookups: BTreeSet::new(),
            symbols: BTreeSet::new(),
            imports_of_converters: BTreeSet::new(),
            assumptions: BTreeSet::new(),
        };
        for pattern in &options.dlopen {
            let names = world.matches(pattern)?;
            if names.is_empty() {
                world.assumptions.insert(Assumption {
                    kind: AssumptionKind::SystemConfiguration,
                    text: format!("no library is loaded by {pattern}, since no file matches it"),
                    site: None,
                    flag: Some("--dlopen".to_owned()),
                });
            }
            for name in names {
                world.handle(Request { name, exports: Exports::All })?;
            }
        }
        Ok(world)
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

    /// The bytes of all files; a copy keeps them mapped.
    fn mappings(&self) -> Vec<Mapping> {
        self.files.files().iter().map(|file| file.data().clone()).collect()
    }

    /// Parses every file, and analyses those that are new.
    fn images<'m>(&mut self, mappings: &'m [Mapping]) -> Result<Vec<Image<'m>>, Error> {
        let parsed: Result<Vec<Image<'m>>, Error> = mappings
            .par_iter()
            .zip(self.files.files())
            .map(|(data, file)| {
                Image::parse(data).map_err(|source| Error::Image { path: file.path().to_owned(), source })
            })
            .collect();
        let images = parsed?;
        let new = images.get(self.summaries.len()..).unwrap_or(&[]);
        let mut summaries: Vec<_> = new.par_iter().map(|image| Arc::new(ModuleSummary::new(image))).collect();
        self.summaries.append(&mut summaries);
        Ok(images)
    }

    /// Links the files in the loader's scope order, those that come later last.
    fn link<'m>(&self, images: Vec<Image<'m>>) -> (Program<'m>, Vec<FileIndex>) {
        let order = self.scope_order();
        let mut images: Vec<Option<Image<'m>>> = images.into_iter().map(Some).collect();
        let modules = order.iter().filter_map(|&index| {
            let file = self.files.file(index)?;
            let role = if index == self.files.program() {
                ModuleRole::Main
            } else if file.is_interpreter() {
                ModuleRole::Interpreter
            } else if self.files.scope().contains(&index) {
                ModuleRole::Needed
            } else {
                ModuleRole::LoadedLater
            };
            let image = images.get_mut(index.0)?.take()?;
            let summary = Arc::clone(self.summaries.get(index.0)?);
            Some(Module { path: file.path().to_owned(), role, image, summary })
        });
        (Program::new(modules.collect()), order)
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
    fn roots(&self, program: &Program<'_>, order: &[FileIndex]) -> Vec<Root> {
        let mut roots = startup::roots(program);
        for (id, module) in program.modules() {
            let index = usize::try_from(id.0).ok().and_then(|position| order.get(position));
            for exports in index.and_then(|index| self.later.get(index)).into_iter().flatten() {
                let prefix: &[u8] = match exports {
                    Exports::Named | Exports::Converters => continue,
                    Exports::Prefixed(prefix) => prefix.as_bytes(),
                    Exports::All => b"",
                };
                for symbol in module.image.symbols().iter().filter(|s| s.is_exported() && s.name.starts_with(prefix)) {
                    if symbol.kind != SymbolKind::Tls {
                        let reason = "export of a library that is loaded by name";
                        roots.push(Root { at: (id, symbol.value), phase: Phase::After, reason, escapes: true });
                    }
                }
            }
        }
        for name in &self.imports_of_converters {
            for found in program.exported(name, |_| true) {
                let reason = "import of a character set converter";
                roots.push(Root { at: (found.module, found.address), phase: Phase::After, reason, escapes: true });
            }
        }
        roots
    }

    /// What a round brings.
    fn wanted(&self, reached: &Reachable<'_>, open: &OpenSites) -> BTreeSet<Request> {
        let mut wanted = named_libraries(reached);
        let named = open.libraries.iter().map(|name| Request { name: name.clone(), exports: Exports::Named });
        wanted.extend(named);
        if loads_name_services(reached) {
            wanted.extend(self.services().iter().map(|service| name_service_module(service)));
        }
        if let Some(folder) = converter_folder(reached) {
            wanted.insert(Request { name: folder.to_string_lossy().into_owned(), exports: Exports::Converters });
        }
        wanted
    }

    fn services(&self) -> BTreeSet<String> {
        match &self.options.nss {
            Some(services) => services.iter().cloned().collect(),
            None => configured_services(std::fs::read_to_string(self.root.join("etc/nsswitch.conf")).ok().as_deref()),
        }
    }

    /// Brings in what a request names.
    fn handle(&mut self, request: Request) -> Result<(), Error> {
        if !self.handled.insert(request.clone()) {
            return Ok(());
        }
        if request.exports == Exports::Converters {
            let below_root = Path::new(&request.name).strip_prefix("/").unwrap_or(Path::new(&request.name));
            let found = converters::read(&self.root.join(below_root));
            self.imports_of_converters.extend(found.imports);
            let folder = Path::new(&request.name);
            for file in found.conspicuous {
                let name = folder.join(file).to_string_lossy().into_owned();
                self.handle(Request { name, exports: Exports::All })?;
            }
            return Ok(());
        }
        match self.files.load_library(OsStr::new(&request.name), self.files.program()) {
            Ok(scope) => {
                if let Some(&index) = scope.first().filter(|index| !self.files.scope().contains(index)) {
                    self.later.entry(index).or_default().insert(request.exports);
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
            self.assumptions.insert(Assumption {
                kind: AssumptionKind::SystemConfiguration,
                text: format!("the name service module {} stays absent: {error}", request.name),
                site: None,
                flag: Some("--nss".to_owned()),
            });
        }
    }

    fn policy(&self, outcome: &Outcome<'_, '_>, open: OpenSites) -> Policy {
        let &Outcome { program, reached, callers, guards } = outcome;
        let evidence::Calls { mut allowed, unresolved } = evidence::calls(program, reached, callers, guards);
        always::add(&mut allowed);
        let mut identities = self.files.identities().into_iter().cloned();
        let program = identities.next().unwrap_or_else(|| FileIdentity {
            path: PathBuf::new(),
            build_id: None,
            sha256: String::new(),
        });
        let mut assumptions = self.assumptions.clone();
        assumptions.extend(open.assumptions);
        assumptions.extend(reached.closed_guards().filter_map(GuardId::assumption));
        Policy {
            format: POLICY_FORMAT,
            tool: concat!("chestnut ", env!("CARGO_PKG_VERSION")).to_owned(),
            program,
            libraries: identities.collect(),
            allowed,
            unresolved,
            assumptions: assumptions.into_iter().collect(),
        }
    }
}
