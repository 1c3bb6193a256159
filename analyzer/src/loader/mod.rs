//! Finds and opens the files that a program is made of.
//!
//! Input: the path of a program and [`LoadOptions`]. Output: [`LoadedSet`]. This is the one stage that reads files; it
//! looks for libraries where the program's own loader would, below an optional root, and reads of them no more than
//! that search needs ([`crate::elf::Outline`]). Spec: ld.so(8), ldconfig(8).

mod configuration;
mod error;
mod file;
mod plug_ins;
mod root;
mod search;
mod seen;
mod set;

#[cfg(test)]
mod tests;

use std::io;
use std::path::{Path, PathBuf};

use crate::limits::Limits;
use crate::mapping::Mapping;
pub use error::LoadError;
pub use file::{Contents, FileId, FileIndex, LoadedFile, identity};
pub use plug_ins::hints;
pub use search::LoaderKind;
pub use seen::Seen;
pub use set::LoadedSet;

/// Where to find the files.
#[derive(Clone, Debug)]
pub struct LoadOptions {
    /// The root of the program's system: what its absolute paths, and absolute symbolic links, count from.
    pub root: PathBuf,
    /// Files of this machine that stand in for libraries with their `DT_SONAME` or their file name, before any search.
    pub libraries: Vec<PathBuf>,
    /// The program's bytes, if they are not those of the file at its path.
    pub original: Option<Mapping>,
    /// How large files may be, and how many.
    pub limits: Limits,
}

impl Default for LoadOptions {
    fn default() -> Self {
        Self { root: PathBuf::from("/"), libraries: Vec::new(), original: None, limits: Limits::default() }
    }
}

/// Loads `program` (a path of this machine), its interpreter, and the closure of its `DT_NEEDED`.
///
/// # Errors
///
/// A file that cannot be read or analysed, or a library that is not found.
pub fn load_closure(program: &Path, options: &LoadOptions) -> Result<LoadedSet, LoadError> {
    LoadedSet::load(program, options)
}

/// The path of this machine, free of symbolic links, by which a path of the program's system can be opened.
///
/// # Errors
///
/// What the system says; [`io::ErrorKind::NotFound`] if nothing is there.
pub fn host_path(root: &Path, path: &Path) -> io::Result<PathBuf> {
    root::Root::new(root)?.host_path(&root::Place::in_root(path))?.canonicalize()
}
