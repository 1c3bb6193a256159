//! Paths of the program's system, which may lie below a folder of this one (`--root`).
//!
//! Input: paths as the program's system has them. Output: paths of this machine. Symbolic links are followed as if the
//! root were `/` (chroot(2)): an absolute link, or `..` at the top, never leaves it.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::io;
use std::path::{Component, Path, PathBuf};

/// Links followed before a path counts as a loop, as the kernel's `MAXSYMLINKS`.
const LINKS_LIMIT: usize = 40;

/// An absolute path, and in which system it is one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Place {
    /// Absolute.
    pub(super) path: PathBuf,
    /// Whether it counts from the root of the program's system; else from this machine's.
    pub(super) in_root: bool,
}

impl Place {
    /// Below this place.
    pub(super) fn join(&self, name: impl AsRef<Path>) -> Self {
        Self { path: self.path.join(name), in_root: self.in_root }
    }

    /// In the program's system.
    pub(super) fn in_root(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), in_root: true }
    }
}

/// The root of the program's system.
#[derive(Clone, Debug)]
pub(super) struct Root {
    /// Canonical.
    directory: PathBuf,
}

impl Root {
    pub(super) fn new(directory: &Path) -> io::Result<Self> {
        Ok(Self { directory: directory.canonicalize()? })
    }

    /// The place of a file that the user names by a path of this machine.
    pub(super) fn place_of(&self, path: &Path) -> io::Result<Place> {
        let path = path.canonicalize()?;
        Ok(match path.strip_prefix(&self.directory) {
            Ok(below) => Place { path: Path::new("/").join(below), in_root: true },
            Err(_) => Place { path, in_root: false },
        })
    }

    /// The path of this machine by which `place` can be opened.
    pub(super) fn host_path(&self, place: &Place) -> io::Result<PathBuf> {
        if !place.in_root || self.directory == Path::new("/") {
            return Ok(place.path.clone());
        }
        self.walk(&place.path)
    }

    /// Follows `path` component by component.
    fn walk(&self, path: &Path) -> io::Result<PathBuf> {
        let mut pending: VecDeque<OsString> = names(path);
        let mut reached = PathBuf::new();
        let mut links = 0_usize;
        while let Some(name) = pending.pop_front() {
            if name == ".." {
                // At the top there is nothing above.
                reached.pop();
                continue;
            }
            let next = self.directory.join(&reached).join(&name);
            // A name that does not exist is left to the caller's open(2) to report.
            if !next.is_symlink() {
                reached.push(name);
                continue;
            }
            links = links.saturating_add(1);
            if links > LINKS_LIMIT {
                return Err(io::Error::from(io::ErrorKind::TooManyLinks));
            }
            let target = next.read_link()?;
            if target.is_absolute() {
                reached.clear();
            }
            for name in names(&target).into_iter().rev() {
                pending.push_front(name);
            }
        }
        Ok(self.directory.join(reached))
    }
}

/// The components of a path that lead somewhere.
fn names(path: &Path) -> VecDeque<OsString> {
    let components = path.components();
    let names = components.filter(|component| matches!(component, Component::Normal(_) | Component::ParentDir));
    names.map(|component| component.as_os_str().to_os_string()).collect()
}
