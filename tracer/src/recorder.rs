//! What has been seen, in memory and in a file that grows as it is seen.
//!
//! Input: images and calls, as the engine meets them. Output: lines of a trace ([`Record`]), each written at once, so
//! that nothing complete is lost with the tracer; and what a summary needs.

use std::collections::{BTreeSet, HashMap};
use std::fs::File;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use chestnut_analyzer::address::Vaddr;
use chestnut_analyzer::policy::{CodeLocation, FileIdentity};

use crate::architecture::Architecture;
use crate::error::Error;
use crate::facts;
use crate::kernel::Tid;
use crate::maps::Mapping;
use crate::module::{self, Module};
use crate::trace::{Header, Image, Phase, Record, Refusal, SeenCall};

/// How many different sets of arguments, and how many paths, are kept of one call from one place.
const MOST_FACTS: usize = 32;

/// How often an executed program may be its own ancestor in the tree before its places are not told apart any more.
const MOST_REPEATS: usize = 2;

/// Length of a `syscall`, `int $0x80` and `sysenter` instruction.
const CALL_LENGTH: u64 = 2;

/// One call from one place.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) seen: SeenCall,
    pub(crate) count: u64,
    pub(crate) at_least: bool,
    interesting: &'static [usize],
    facts: BTreeSet<Vec<u64>>,
    paths: BTreeSet<String>,
}

/// Device, inode and time of the last change.
type FileKey = (u64, u64, i64, i64);

/// A file, and SHA-256 of what it was before it was patched.
type Identity = (FileIdentity, Option<String>);

type SiteKey = (usize, Phase, Architecture, u64, PathBuf, u64, Option<Refusal>);

/// What has been seen.
#[derive(Debug)]
pub(crate) struct Recorder {
    file: Option<(PathBuf, File)>,
    failure: Option<Error>,
    images: Vec<Image>,
    entries: Vec<Entry>,
    sites: HashMap<SiteKey, usize>,
    modules: HashMap<(String, u64), Rc<Module>>,
    identities: HashMap<FileKey, Identity>,
    gaps: Vec<String>,
    /// How many calls have stopped a program.
    pub(crate) stops: u64,
}

impl Recorder {
    /// Begins a trace.
    pub(crate) fn new(path: Option<&Path>, header: Header) -> Result<Self, Error> {
        let create = |path: &Path| match File::create(path) {
            Ok(file) => Ok((path.to_owned(), file)),
            Err(source) => Err(Error::Write { path: path.to_owned(), source }),
        };
        let file = path.map(create).transpose()?;
        let mut recorder = Self {
            file,
            failure: None,
            images: Vec::new(),
            entries: Vec::new(),
            sites: HashMap::new(),
            modules: HashMap::new(),
            identities: HashMap::new(),
            gaps: Vec::new(),
            stops: 0,
        };
        recorder.write(&Record::Header(header));
        recorder.failure.take().map_or(Ok(recorder), Err)
    }

    /// One line. The first failure is kept; the program goes on.
    fn write(&mut self, record: &Record) {
        let Some((path, file)) = &mut self.file else { return };
        let line = serde_json::to_vec(record).map_err(std::io::Error::other).map(|mut line| {
            line.push(b'\n');
            line
        });
        if let Err(source) = line.and_then(|line| file.write_all(&line)) {
            let path = path.clone();
            self.failure.get_or_insert(Error::Write { path, source });
            self.file = None;
        }
    }

    /// What went wrong with the file.
    pub(crate) fn take_failure(&mut self) -> Option<Error> {
        self.failure.take()
    }

    /// All calls.
    pub(crate) fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// All images.
    pub(crate) fn images(&self) -> &[Image] {
        &self.images
    }

    /// What could not be seen.
    pub(crate) fn gaps(&self) -> &[String] {
        &self.gaps
    }

    /// Notes what could not be seen, once.
    pub(crate) fn gap(&mut self, text: String) {
        if !self.gaps.contains(&text) {
            self.write(&Record::Gap { text: text.clone() });
            self.gaps.push(text);
        }
    }

    /// The image that a process now is, below the one that it was.
    pub(crate) fn image(&mut self, pid: Tid, parent: Option<usize>, entry_known: bool) -> usize {
        let (file, original_sha256) = self.identity(pid);
        let is_it = |image: &&Image| image.file == file && image.entry_known == entry_known;
        let mut same = self.ancestors(parent).filter(is_it).map(|image| image.id);
        let repeated = same.next().filter(|_| same.count().saturating_add(1) >= MOST_REPEATS);
        let known = self.images.iter().filter(is_it).find(|image| image.parent == parent).map(|image| image.id);
        if let Some(id) = repeated.or(known) {
            return id;
        }
        let image = Image { id: self.images.len(), parent, file, original_sha256, entry_known };
        self.write(&Record::Image(image.clone()));
        let id = image.id;
        self.images.push(image);
        id
    }

    fn ancestors(&self, from: Option<usize>) -> impl Iterator<Item = &Image> {
        std::iter::successors(from.and_then(|id| self.images.get(id)), |image| self.images.get(image.parent?))
    }

    fn identity(&mut self, pid: Tid) -> Identity {
        let link = PathBuf::from(format!("/proc/{pid}/exe"));
        let path = std::fs::read_link(&link).map_or_else(|_| PathBuf::from("[gone]"), |path| module::living(&path));
        let key = std::fs::metadata(&link).ok().map(|data| (data.dev(), data.ino(), data.mtime(), data.mtime_nsec()));
        if let Some((file, original)) = key.and_then(|key| self.identities.get(&key)) {
            return (FileIdentity { path, ..file.clone() }, original.clone());
        }
        let bytes = std::fs::read(&link).unwrap_or_default();
        let found = (module::identity(&path, &bytes), chestnut_rewriter::original_sha256(&bytes));
        if let Some(key) = key {
            self.identities.insert(key, found.clone());
        }
        found
    }

    /// The entry for a call at an address behind its instruction.
    pub(crate) fn entry(
        &mut self,
        pid: Tid,
        at: &Place<'_>,
        call: (Architecture, u64),
        refused: Option<Refusal>,
    ) -> usize {
        let (file, address, symbol) = self.locate(pid, at);
        let (architecture, number) = call;
        let key = (at.image, at.phase, architecture, number, file, address, refused);
        if let Some(id) = self.sites.get(&key) {
            return *id;
        }
        let name = architecture.name(number);
        let site = CodeLocation { file: key.4.clone(), address: Vaddr(address), symbol };
        let (id, image, phase) = (self.entries.len(), at.image, at.phase);
        let interesting = if architecture.is_native() { facts::of_interest(&name) } else { &[] };
        let seen = SeenCall { id, image, call: name, number, architecture, phase, site, refused };
        self.write(&Record::Call(seen.clone()));
        let (facts, paths) = (BTreeSet::new(), BTreeSet::new());
        self.entries.push(Entry { seen, count: 0, at_least: false, interesting, facts, paths });
        self.sites.insert(key, id);
        id
    }

    /// Where the instruction before an address is.
    pub(crate) fn location(&mut self, pid: Tid, at: &Place<'_>) -> CodeLocation {
        let (file, address, symbol) = self.locate(pid, at);
        CodeLocation { file, address: Vaddr(address), symbol }
    }

    /// File, address in it and symbol of the instruction before an address.
    fn locate(&mut self, pid: Tid, at: &Place<'_>) -> (PathBuf, u64, Option<String>) {
        let address = at.ip.wrapping_sub(CALL_LENGTH);
        let Some(mapping) = at.mapping else {
            return (PathBuf::from("[unmapped]"), address, None);
        };
        let offset = mapping.offset_of(address).unwrap_or_default();
        if !mapping.is_file() {
            let name = if mapping.path.as_os_str().is_empty() { Path::new("[anonymous]") } else { &mapping.path };
            // Addresses in code that is made at run time are those of this run.
            let is_vdso = name == Path::new("[vdso]");
            return (name.to_owned(), if is_vdso { offset } else { address }, None);
        }
        let module = self.module(pid, mapping);
        let address = module.address(offset).unwrap_or(offset);
        (module::living(&mapping.path), address, module.symbol(address))
    }

    fn module(&mut self, pid: Tid, mapping: &Mapping) -> Rc<Module> {
        if let Some(module) = self.modules.get(&mapping.file) {
            return Rc::clone(module);
        }
        // The first is right whatever the process sees below "/"; it needs privileges in older kernels.
        let exact = format!("/proc/{pid}/map_files/{:x}-{:x}", mapping.start, mapping.end);
        let inside = format!("/proc/{pid}/root{}", mapping.path.display());
        let bytes = std::fs::read(exact).or_else(|_| std::fs::read(inside));
        let module = Rc::new(bytes.map_or_else(|_| Module::default(), |bytes| Module::parse(&bytes)));
        self.modules.insert(mapping.file.clone(), Rc::clone(&module));
        module
    }

    /// Counts a call; keeps its arguments, if they are of interest and new.
    pub(crate) fn count(&mut self, id: usize, args: &[u64; 6]) {
        let Some(entry) = self.entries.get_mut(id) else { return };
        entry.count = entry.count.saturating_add(1);
        if entry.interesting.is_empty() || entry.facts.len() >= MOST_FACTS {
            return;
        }
        let values: Vec<u64> = entry.interesting.iter().filter_map(|at| args.get(*at).copied()).collect();
        if entry.facts.contains(&values) {
            return;
        }
        entry.facts.insert(values.clone());
        let values: Vec<(usize, u64)> = entry.interesting.iter().copied().zip(values).collect();
        self.write(&Record::Arguments { call: id, values });
    }

    /// Keeps a path, if it is new.
    pub(crate) fn path(&mut self, id: usize, path: String) {
        let Some(entry) = self.entries.get_mut(id) else { return };
        if entry.paths.len() < MOST_FACTS && entry.paths.insert(path.clone()) {
            self.write(&Record::Path { call: id, path });
        }
    }

    /// From now on the call does not stop the program.
    pub(crate) fn no_longer_counted(&mut self, id: usize) {
        if let Some(entry) = self.entries.get_mut(id) {
            entry.at_least = true;
        }
    }

    /// Writes how often everything was seen.
    pub(crate) fn counts(&mut self) {
        for id in 0..self.entries.len() {
            if let Some(Entry { count, at_least, .. }) = self.entries.get(id) {
                let record = Record::Count { call: id, count: *count, at_least: *at_least };
                self.write(&record);
            }
        }
    }

    /// Writes the end.
    pub(crate) fn end(&mut self, status: Option<i32>, signal: Option<i32>) {
        self.counts();
        self.write(&Record::End { status, signal });
    }
}

/// Where a call comes from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place<'maps> {
    pub(crate) image: usize,
    pub(crate) phase: Phase,
    /// Address behind the instruction.
    pub(crate) ip: u64,
    pub(crate) mapping: Option<&'maps Mapping>,
}
