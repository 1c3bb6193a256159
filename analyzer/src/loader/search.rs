//! Where a library is looked for.
//!
//! Input: a name, and the chain of files that asked for it. Output: folders in order, each with those of its
//! subfolders that hold variants for newer processors. Spec: ld.so(8) "Dynamic string tokens", "Hardware capabilities";
//! glibc `elf/dl-load.c` (`_dl_map_object`); musl `ldso/dynlink.c` (`load_library`).
//!
//! May miss: `LD_LIBRARY_PATH`, `LD_PRELOAD`, `/etc/ld.so.preload` and relative search paths, which depend on how and
//! where the program is started; the last are reported ([`super::LoadedSet::relative_search_paths`]).

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use rustc_hash::{FxHashMap, FxHashSet};

use super::configuration;
use super::error::LoadError;
use super::file::{FileIndex, LoadedFile};
use super::root::{Place, Root};
use crate::limits::{LimitName, Limits};

/// Subfolders that glibc prefers on processors that have the features: `glibc-hwcaps` since 2.33, the others (and
/// their combinations with `tls`) up to 2.36.
const VARIANT_FOLDERS: [&str; 9] = [
    "glibc-hwcaps/x86-64-v4",
    "glibc-hwcaps/x86-64-v3",
    "glibc-hwcaps/x86-64-v2",
    "tls/haswell",
    "tls/x86_64",
    "tls",
    "haswell/avx512_1",
    "haswell",
    "x86_64",
];

/// `DF_1_NODEFLIB`: the configured and built-in folders are not searched for this file's libraries.
const NO_DEFAULT_FOLDERS: u64 = object::elf::DF_1_NODEFLIB.0;

/// Whose rules apply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoaderKind {
    /// glibc's ld.so.
    Glibc,
    /// musl's, which is its C library too.
    Musl,
}

/// The search paths of a system.
#[derive(Clone, Debug)]
pub(super) struct Search {
    pub(super) kind: LoaderKind,
    system_folders: Vec<PathBuf>,
    /// Which variant folders exist, by folder: asking the system once per folder instead of once per library.
    variants: FxHashMap<Place, Vec<Place>>,
    /// Search paths that depend on the working directory, by file.
    relative: Vec<(FileIndex, PathBuf)>,
    limits: Limits,
}

impl Search {
    pub(super) fn new(kind: LoaderKind, root: &Root, limits: &Limits) -> Result<Self, LoadError> {
        let system_folders = match kind {
            LoaderKind::Glibc => configuration::glibc_folders(root, limits)?,
            LoaderKind::Musl => configuration::musl_folders(root, limits)?,
        };
        Ok(Self { kind, system_folders, variants: FxHashMap::default(), relative: Vec::new(), limits: *limits })
    }

    /// The configured and built-in folders.
    pub(super) fn system_folders(&self) -> &[PathBuf] {
        &self.system_folders
    }

    /// Search paths that were not followed, since they depend on the working directory of the process.
    pub(super) fn relative_paths(&self) -> &[(FileIndex, PathBuf)] {
        &self.relative
    }

    /// The folders to search for a library that the last file of `files[requester]`'s chain asks for, in order; refused if
    /// they are more than a process may load files, since each is looked into for each library.
    pub(super) fn folders(&mut self, files: &[LoadedFile], requester: FileIndex) -> Result<Vec<Place>, LoadError> {
        let mut folders = Vec::new();
        let chain = chain(files, requester);
        let own = chain.first();
        let uses_defaults = own.is_none_or(|(_, file)| file.needs.flags_1 & NO_DEFAULT_FOLDERS == 0);
        match self.kind {
            LoaderKind::Glibc => {
                // DT_RPATH counts for the libraries' libraries too, but not for a file that has DT_RUNPATH.
                if own.is_none_or(|(_, file)| file.needs.runpath.is_none()) {
                    for (index, file) in chain.iter().filter(|(_, file)| file.needs.runpath.is_none()) {
                        self.add_paths(*index, file, file.needs.rpath.as_deref(), &mut folders)?;
                    }
                }
                if let Some((index, file)) = own {
                    self.add_paths(*index, file, file.needs.runpath.as_deref(), &mut folders)?;
                }
            }
            LoaderKind::Musl => {
                // musl takes both for the same, and inherits both.
                for (index, file) in &chain {
                    let paths = file.needs.runpath.as_deref().or(file.needs.rpath.as_deref());
                    self.add_paths(*index, file, paths, &mut folders)?;
                }
            }
        }
        if uses_defaults {
            folders.extend(self.system_folders.iter().map(Place::in_root));
        }
        let mut known = FxHashSet::default();
        folders.retain(|folder| known.insert(folder.clone()));
        Ok(folders)
    }

    /// The variant folders of `folder` that exist.
    pub(super) fn variants(&mut self, root: &Root, folder: &Place) -> &[Place] {
        if self.kind == LoaderKind::Musl {
            return &[];
        }
        self.variants.entry(folder.clone()).or_insert_with(|| {
            let is_folder = |place: &Place| root.host_path(place).is_ok_and(|path| path.is_dir());
            VARIANT_FOLDERS.iter().map(|name| folder.join(name)).filter(is_folder).collect()
        })
    }

    /// Adds the elements of a `DT_RPATH` or `DT_RUNPATH` of `file`.
    fn add_paths(
        &mut self,
        index: FileIndex,
        file: &LoadedFile,
        paths: Option<&[u8]>,
        folders: &mut Vec<Place>,
    ) -> Result<(), LoadError> {
        let Some(paths) = paths else { return Ok(()) };
        for element in paths.split(|byte| *byte == b':') {
            for place in expand(file, element) {
                if place.path.is_absolute() {
                    folders.push(place);
                } else if !self.relative.iter().any(|(known, path)| (*known, path) == (index, &place.path)) {
                    self.relative.push((index, place.path));
                }
            }
            let found = u64::try_from(folders.len().saturating_add(self.relative.len())).unwrap_or(u64::MAX);
            let checked = self.limits.check(LimitName::Files, "folders that libraries are sought in", found);
            checked.map_err(|source| LoadError::Limit { path: file.host_path().to_owned(), source })?;
        }
        Ok(())
    }
}

/// The requester, who loaded it, and so on up to the program. The program's paths count in any case, also where it
/// did not load the chain's last file itself (the interpreter).
fn chain(files: &[LoadedFile], requester: FileIndex) -> Vec<(FileIndex, &LoadedFile)> {
    let mut chain: Vec<(FileIndex, &LoadedFile)> = Vec::new();
    let mut next = Some(requester);
    while let Some(index) = next {
        // Who loaded a file was loaded before it, so that indices descend; the program has index 0.
        let Some(file) = files.get(index.0) else { break };
        chain.push((index, file));
        next = file.loaded_by.filter(|above| *above < index);
    }
    if let Some(program) = files.first()
        && !chain.iter().any(|(index, _)| *index == FileIndex(0))
    {
        chain.push((FileIndex(0), program));
    }
    chain
}

/// Values of `$LIB` (Debian, Fedora) and `$PLATFORM` (the kernel's, and those of glibc up to 2.36): which one holds,
/// the system decides.
const LIB: [&str; 2] = ["lib/x86_64-linux-gnu", "lib64"];
const PLATFORM: [&str; 3] = ["x86_64", "haswell", "xeon_phi"];

/// A path of `file` with `$ORIGIN`, `$LIB` and `$PLATFORM` replaced: one place for each system that there may be.
pub(super) fn expand(file: &LoadedFile, path: &[u8]) -> Vec<Place> {
    let origin = file.place.path.parent().unwrap_or(Path::new("/")).as_os_str().as_bytes();
    let mut places: Vec<Place> = Vec::new();
    for lib in LIB {
        for platform in PLATFORM {
            let (bytes, is_from_origin) = replace(path, origin, lib.as_bytes(), platform.as_bytes());
            // Only what counts from the file itself may lie outside the root.
            let place = Place {
                path: PathBuf::from(OsStr::from_bytes(&bytes)),
                in_root: !is_from_origin || file.place.in_root,
            };
            if !places.contains(&place) {
                places.push(place);
            }
        }
    }
    places
}

/// `path` with its tokens replaced, and whether `$ORIGIN` was one of them.
fn replace(path: &[u8], origin: &[u8], lib: &[u8], platform: &[u8]) -> (Vec<u8>, bool) {
    let mut replaced = Vec::with_capacity(path.len());
    let mut is_from_origin = false;
    let mut rest = path;
    while let Some((first, behind)) = rest.split_first() {
        let (value, length) = match token(rest) {
            Some((b"ORIGIN", length)) => {
                is_from_origin = true;
                (origin, length)
            }
            Some((b"LIB", length)) => (lib, length),
            Some((b"PLATFORM", length)) => (platform, length),
            // Any other dollar is one, as for ld.so.
            _ => (std::slice::from_ref(first), 0),
        };
        replaced.extend_from_slice(value);
        rest = behind.get(length..).unwrap_or_default();
    }
    (replaced, is_from_origin)
}

/// The token that `text` starts with: its name, and how many bytes it takes behind the `$`.
fn token(text: &[u8]) -> Option<(&[u8], usize)> {
    let rest = text.strip_prefix(b"$")?;
    if let Some(inner) = rest.strip_prefix(b"{") {
        // The longest name has 8 bytes; looking further would only cost time.
        let end = inner.iter().take(9).position(|byte| *byte == b'}')?;
        return Some((inner.get(..end)?, end.checked_add(2)?));
    }
    let end = rest.iter().take(9).position(|byte| !(byte.is_ascii_alphanumeric() || *byte == b'_'));
    let end = end.unwrap_or(rest.len().min(9));
    Some((rest.get(..end)?, end))
}
