//! What was seen of a system's folders: the texts of many programs lead to the same places.
//!
//! Input: paths of this machine. Output: what kind of file is there, what is in a folder. Each is asked of the system
//! once; what changes meanwhile is not noticed.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustc_hash::FxHashMap;

/// Folders and files of this machine, as they were when they were asked for first.
#[derive(Debug, Default)]
pub struct Seen {
    kinds: Mutex<FxHashMap<PathBuf, Kind>>,
    names: Mutex<FxHashMap<PathBuf, Arc<[PathBuf]>>>,
}

/// What stands at a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Nothing,
    Folder,
    /// A regular file, and its length in bytes.
    File(u64),
    Other,
}

impl Seen {
    pub(super) fn kind(&self, path: &Path) -> Kind {
        if let Some(known) = lock(&self.kinds).get(path) {
            return *known;
        }
        let kind = match fs::metadata(path) {
            Ok(metadata) if metadata.is_dir() => Kind::Folder,
            Ok(metadata) if metadata.is_file() => Kind::File(metadata.len()),
            Ok(_) => Kind::Other,
            Err(_) => Kind::Nothing,
        };
        lock(&self.kinds).insert(path.to_owned(), kind);
        kind
    }

    /// The names in a folder, sorted, at most so many; none if it cannot be read.
    pub(super) fn names(&self, folder: &Path, most: usize) -> Arc<[PathBuf]> {
        if let Some(known) = lock(&self.names).get(folder) {
            return Arc::clone(known);
        }
        let entries = fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok);
        let mut names: Vec<PathBuf> = entries.map(|entry| entry.file_name().into()).collect();
        names.sort_unstable();
        names.truncate(most);
        let names: Arc<[PathBuf]> = names.into();
        lock(&self.names).insert(folder.to_owned(), Arc::clone(&names));
        names
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
