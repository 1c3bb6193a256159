//! All files of a program, in the loader's order.
//!
//! Input: the program. Output: [`LoadedSet`]: program, interpreter, the closure of `DT_NEEDED`, and what is added later
//! for `dlopen`. Spec: ld.so(8); glibc `elf/dl-deps.c` (breadth-first order), `elf/dl-load.c` (`_dl_map_object`: when
//! two names mean one file); musl `ldso/dynlink.c`.
//!
//! Over-approximates: a library with a variant for newer processors is loaded with all its variants, each behind it in
//! the scope ([`LoadedFile::alternative_of`]).

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use rustc_hash::FxHashMap;

use super::LoadOptions;
use super::error::LoadError;
use super::file::{FileId, FileIndex, LoadedFile, is_absent};
use super::plug_ins::PlugIns;
use super::root::{Place, Root};
use super::search::{LoaderKind, Search, expand};
use super::seen::Seen;
use crate::elf::{HeaderField, ImageError};
use crate::limits::{LimitName, Limits};

/// The files of one program. Indices of files stay valid when more are loaded.
#[derive(Clone, Debug)]
pub struct LoadedSet {
    root: Root,
    search: Search,
    files: Vec<LoadedFile>,
    interpreter: Option<FileIndex>,
    scope: Vec<FileIndex>,
    by_id: FxHashMap<FileId, FileIndex>,
    /// Every name under which a file was asked for, and every `DT_SONAME`.
    by_name: FxHashMap<Vec<u8>, FileIndex>,
    /// `--lib`: by `DT_SONAME` and by file name.
    given: FxHashMap<Vec<u8>, Place>,
    limits: Limits,
}

/// What a search found: the file, then its variants.
type Found = Vec<LoadedFile>;

impl LoadedSet {
    /// Loads `program` and everything that it needs.
    pub(super) fn load(program: &Path, options: &LoadOptions) -> Result<Self, LoadError> {
        let read = |path: &Path| {
            let path = path.to_path_buf();
            move |source| LoadError::Read { path, source }
        };
        let root = Root::new(&options.root).map_err(read(&options.root))?;
        let place = root.place_of(program).map_err(read(program))?;
        let program_file = LoadedFile::open_as(&root, place, options.original.clone(), &options.limits)?;
        let interpreter = program_file.needs.interpreter.clone();
        let search = Search::new(kind_of(interpreter.as_deref()), &root, &options.limits)?;
        let mut given = FxHashMap::default();
        for library in &options.libraries {
            let place = root.place_of(library).map_err(read(library))?;
            let file = LoadedFile::open(&root, place.clone(), &options.limits)?;
            // Both the name that was typed and the one behind a symbolic link.
            let names =
                [library.file_name(), place.path.file_name()].map(|name| name.map(|name| name.as_bytes().to_vec()));
            for name in names.into_iter().flatten().chain(file.needs.soname.clone()) {
                given.entry(name).or_insert_with(|| place.clone());
            }
        }
        let mut set = Self {
            root,
            search,
            files: Vec::new(),
            interpreter: None,
            scope: Vec::new(),
            by_id: FxHashMap::default(),
            by_name: FxHashMap::default(),
            given,
            limits: options.limits,
        };
        let program_index = set.add(program_file, None, None);
        if let Some(path) = interpreter {
            set.load_interpreter(path)?;
        }
        set.scope = set.close(program_index)?;
        Ok(set)
    }

    /// All files, in the order in which they were loaded: the program, its interpreter if it has one, then libraries.
    #[must_use]
    pub fn files(&self) -> &[LoadedFile] {
        &self.files
    }

    /// The file with this index.
    #[must_use]
    pub fn file(&self, index: FileIndex) -> Option<&LoadedFile> {
        self.files.get(index.0)
    }

    /// The program's index.
    #[must_use]
    pub const fn program(&self) -> FileIndex {
        FileIndex(0)
    }

    /// The interpreter's index.
    #[must_use]
    pub const fn interpreter(&self) -> Option<FileIndex> {
        self.interpreter
    }

    /// Whose rules were followed.
    #[must_use]
    pub const fn loader_kind(&self) -> LoaderKind {
        self.search.kind
    }

    /// The global scope: the program and the closure of its `DT_NEEDED` in breadth-first order, in which symbols are
    /// looked up. The interpreter is in it where a library needs it.
    #[must_use]
    pub fn scope(&self) -> &[FileIndex] {
        &self.scope
    }

    /// Search paths of files that were not followed, since they depend on the working directory of the process.
    #[must_use]
    pub fn relative_search_paths(&self) -> &[(FileIndex, PathBuf)] {
        self.search.relative_paths()
    }

    /// Plug-ins that hints of a program lead to ([`super::hints`]): names as `dlopen` takes them.
    #[must_use]
    pub fn plug_ins(&self, seen: &Seen, hints: &BTreeSet<String>) -> BTreeSet<String> {
        PlugIns::named_by(&self.root, seen, self.search.system_folders(), hints)
    }

    /// Loads what `dlopen(name)` in `requester` would, with what that needs, and returns its local scope: the library
    /// first, then its closure in breadth-first order. Files that are loaded already keep their index.
    ///
    /// # Errors
    ///
    /// The library, or one that it needs, is not found or cannot be analysed. Files that were loaded before the error
    /// stay in the set; they are in no scope.
    pub fn load_library(&mut self, name: &OsStr, requester: FileIndex) -> Result<Vec<FileIndex>, LoadError> {
        let index = self.load_name(name.as_bytes(), requester)?;
        self.close(index)
    }

    /// The file that `dlopen(name)` in `requester` would open, without what that needs: its `DT_SONAME` is known then.
    ///
    /// # Errors
    ///
    /// The library is not found or cannot be analysed.
    pub fn open_library(&mut self, name: &OsStr, requester: FileIndex) -> Result<FileIndex, LoadError> {
        self.load_name(name.as_bytes(), requester)
    }

    /// The closure of `start` in breadth-first order, which is the order of lookup: filtees stand before their filter,
    /// variants behind their file.
    fn close(&mut self, start: FileIndex) -> Result<Vec<FileIndex>, LoadError> {
        let mut order = vec![start];
        self.append_variants(start, &mut order);
        let mut position = 0_usize;
        while let Some(index) = order.get(position).copied() {
            self.load_needs(index)?;
            let (mut filtees, dependencies) = match self.files.get(index.0) {
                Some(file) => (file.filtees.clone(), file.dependencies.clone()),
                None => break,
            };
            filtees.retain(|filtee| !order.contains(filtee));
            if !filtees.is_empty() {
                // The first of them is next; the filter's turn comes again, with none left.
                order.splice(position..position, filtees);
                continue;
            }
            for dependency in dependencies {
                if !order.contains(&dependency) {
                    order.push(dependency);
                    self.append_variants(dependency, &mut order);
                }
            }
            position = position.saturating_add(1);
        }
        Ok(order)
    }

    fn append_variants(&self, of: FileIndex, order: &mut Vec<FileIndex>) {
        let indices = (0..self.files.len()).map(FileIndex);
        let variants = indices.zip(&self.files).filter(|(_, file)| file.alternative_of == Some(of));
        order.extend(variants.map(|(index, _)| index));
    }

    /// Loads the direct needs of a file, if that was not done before.
    fn load_needs(&mut self, index: FileIndex) -> Result<(), LoadError> {
        let Some(file) = self.files.get(index.0) else { return Ok(()) };
        let done = !file.dependencies.is_empty() || !file.filtees.is_empty();
        if done || (file.needs.needed.is_empty() && file.needs.filters.is_empty()) {
            return Ok(());
        }
        let (needed, filters) = (file.needs.needed.clone(), file.needs.filters.clone());
        let mut filtees = Vec::new();
        for name in filters {
            // A filtee that is missing leaves the filter's own definitions.
            match self.load_name(&name, index) {
                Ok(found) => filtees.push(found),
                Err(LoadError::MissingLibrary { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        let mut dependencies = Vec::with_capacity(needed.len());
        for name in needed {
            // Not a file: the kernel maps it.
            if name.starts_with(b"linux-vdso.so") || name.starts_with(b"linux-gate.so") {
                continue;
            }
            dependencies.push(self.load_name(&name, index)?);
        }
        if let Some(file) = self.files.get_mut(index.0) {
            file.filtees = filtees;
            file.dependencies = dependencies;
        }
        Ok(())
    }

    /// The file that `requester` means by `name`.
    fn load_name(&mut self, name: &[u8], requester: FileIndex) -> Result<FileIndex, LoadError> {
        if let Some(known) = self.by_name.get(name) {
            return Ok(*known);
        }
        if self.search.kind == LoaderKind::Musl
            && let Some(interpreter) = self.interpreter
            && is_part_of_musl(name)
        {
            return Ok(interpreter);
        }
        let mut found = self.find(name, requester)?.into_iter();
        let Some(file) = found.next() else {
            // `find` returns at least one file or an error.
            return Err(self.missing(name, requester, &[], Vec::new()));
        };
        let path = file.host_path.clone();
        let index = self.add(file, Some(requester), None);
        let count = u64::try_from(self.files.len()).unwrap_or(u64::MAX);
        let checked = self.limits.check(LimitName::Files, "files that one process loads", count);
        checked.map_err(|source| LoadError::Limit { path, source })?;
        self.by_name.entry(name.to_vec()).or_insert(index);
        for variant in found {
            self.add(variant, Some(requester), Some(index));
        }
        Ok(index)
    }

    /// Searches for a file that is not loaded under this name.
    fn find(&mut self, name: &[u8], requester: FileIndex) -> Result<Found, LoadError> {
        let path = Path::new(OsStr::from_bytes(name));
        let given = path.file_name().and_then(|file| self.given.get(name).or_else(|| self.given.get(file.as_bytes())));
        if let Some(place) = given {
            return Ok(vec![LoadedFile::open(&self.root, place.clone(), &self.limits)?]);
        }
        let mut foreign = Vec::new();
        if name.contains(&b'/') {
            let places = self.files.get(requester.0).map(|file| expand(file, name)).unwrap_or_default();
            for place in places.into_iter().filter(|place| place.path.is_absolute()) {
                if let Some(file) = self.candidate(place, &mut foreign)? {
                    return Ok(vec![file]);
                }
            }
            return Err(self.missing(name, requester, &[], foreign));
        }
        let folders = self.search.folders(&self.files, requester)?;
        let mut variants = Vec::new();
        for folder in &folders {
            let places: Vec<Place> = self.search.variants(&self.root, folder).iter().map(|at| at.join(path)).collect();
            for place in places {
                variants.extend(self.candidate(place, &mut foreign)?);
            }
            if let Some(file) = self.candidate(folder.join(path), &mut foreign)? {
                let mut found = vec![file];
                found.append(&mut variants);
                return Ok(found);
            }
        }
        // Only variants: a system that runs the program at all has one of these processors.
        if variants.is_empty() { Err(self.missing(name, requester, &folders, foreign)) } else { Ok(variants) }
    }

    /// The file at `place`, if ld.so would take it: files of another class or machine are skipped, damaged ones are
    /// not.
    fn candidate(&self, place: Place, foreign: &mut Vec<PathBuf>) -> Result<Option<LoadedFile>, LoadError> {
        let path = place.path.clone();
        match LoadedFile::open(&self.root, place, &self.limits) {
            Ok(file) => Ok(Some(file)),
            Err(error) if is_absent(&error) => Ok(None),
            Err(LoadError::Image {
                source: ImageError::Header { field: HeaderField::Class | HeaderField::Machine, .. },
                ..
            }) => {
                foreign.push(path);
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    fn missing(&self, name: &[u8], requester: FileIndex, folders: &[Place], foreign: Vec<PathBuf>) -> LoadError {
        let needed_by = self.files.get(requester.0).map(|file| file.place.path.clone()).unwrap_or_default();
        let searched = folders.iter().map(|folder| folder.path.clone()).collect();
        LoadError::MissingLibrary { name: String::from_utf8_lossy(name).into_owned(), needed_by, searched, foreign }
    }

    /// Adds a file, unless it is there already under another name.
    fn add(
        &mut self,
        mut file: LoadedFile,
        loaded_by: Option<FileIndex>,
        alternative_of: Option<FileIndex>,
    ) -> FileIndex {
        if let Some(known) = self.by_id.get(&file.id()) {
            return *known;
        }
        let index = FileIndex(self.files.len());
        file.loaded_by = loaded_by;
        file.alternative_of = alternative_of;
        self.by_id.insert(file.id(), index);
        // The program's and the variants' names are nobody's dependencies; a library's DT_SONAME is one of its names.
        if let Some(soname) = file.needs.soname.clone().filter(|_| alternative_of.is_none()) {
            self.by_name.entry(soname).or_insert(index);
        }
        self.files.push(file);
        index
    }

    fn load_interpreter(&mut self, path: PathBuf) -> Result<(), LoadError> {
        let program = self.files.first().map(|file| file.place.path.clone()).unwrap_or_default();
        let failed = |source| LoadError::Interpreter { interpreter: path.clone(), program, source: Box::new(source) };
        // A relative interpreter counts from the working directory of whoever starts the program; the root is as good.
        let place = Place::in_root(Path::new("/").join(&path));
        let mut file = LoadedFile::open(&self.root, place, &self.limits).map_err(failed)?;
        file.is_interpreter = true;
        let index = self.add(file, None, None);
        // Libraries may name it by the path of PT_INTERP; musl compares with the last component.
        self.by_name.entry(path.as_os_str().as_bytes().to_vec()).or_insert(index);
        if let Some(name) = path.file_name() {
            self.by_name.entry(name.as_bytes().to_vec()).or_insert(index);
        }
        self.interpreter = Some(index);
        Ok(())
    }
}

/// glibc's rules hold where nothing says otherwise.
fn kind_of(interpreter: Option<&Path>) -> LoaderKind {
    let name = interpreter.and_then(Path::file_name).map(OsStr::as_bytes).unwrap_or_default();
    if name.starts_with(b"ld-musl-") { LoaderKind::Musl } else { LoaderKind::Glibc }
}

/// The names that musl's loader takes for itself, whatever stands behind the dot: `libm.so.6`, `libc.musl-x86_64.so.1`.
fn is_part_of_musl(name: &[u8]) -> bool {
    let Some(rest) = name.strip_prefix(b"lib") else { return false };
    let stem = rest.split(|byte| *byte == b'.').next().unwrap_or_default();
    let names: [&[u8]; 7] = [b"c", b"pthread", b"rt", b"m", b"dl", b"util", b"xnet"];
    stem.len() < rest.len() && names.contains(&stem)
}
