//! The folders that the program's system searches for libraries.
//!
//! Input: `/etc/ld.so.conf` and what it includes (ldconfig(8)), or musl's `/etc/ld-musl-x86_64.path`. Output: folders
//! in the order of the search. The text is read rather than `/etc/ld.so.cache`, which ldconfig makes from it: a root
//! that somebody unpacked need not have a cache.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path, PathBuf};

use rustc_hash::FxHashSet;

use super::error::LoadError;
use super::root::{Place, Root};
use crate::limits::{Excess, LimitName, Limits};
use crate::regular_file;

/// Where every glibc looks last: Debian's names for it, Fedora's, and the plain ones.
const GLIBC_FOLDERS: [&str; 6] =
    ["/lib/x86_64-linux-gnu", "/usr/lib/x86_64-linux-gnu", "/lib64", "/usr/lib64", "/lib", "/usr/lib"];

/// What there may be too many of.
const INCLUDED: &str = "files that ld.so.conf includes";

/// Where musl looks if nothing is configured.
const MUSL_FOLDERS: [&str; 3] = ["/lib", "/usr/local/lib", "/usr/lib"];

/// glibc: the configured folders, then the built-in ones; each once.
pub(super) fn glibc_folders(root: &Root, limits: &Limits) -> Result<Vec<PathBuf>, LoadError> {
    let mut reader = Reader { root, limits, folders: Vec::new(), files: FxHashSet::default() };
    reader.read(Path::new("/etc/ld.so.conf"))?;
    let mut folders = reader.folders;
    folders.extend(GLIBC_FOLDERS.map(PathBuf::from));
    let mut unique = Vec::new();
    for folder in folders {
        if !unique.contains(&folder) {
            unique.push(folder);
        }
    }
    Ok(unique)
}

/// musl: the configured folders, or else the built-in ones (`ldso/dynlink.c`, `load_library`).
pub(super) fn musl_folders(root: &Root, limits: &Limits) -> Result<Vec<PathBuf>, LoadError> {
    let Some(text) = text(root, Path::new("/etc/ld-musl-x86_64.path"), limits)? else {
        return Ok(MUSL_FOLDERS.map(PathBuf::from).to_vec());
    };
    let names = text.split(|byte| matches!(byte, b'\n' | b':')).filter(|name| name.starts_with(b"/"));
    Ok(names.map(|name| PathBuf::from(OsStr::from_bytes(name))).collect())
}

/// The content of a configuration file; `None` if there is none.
fn text(root: &Root, path: &Path, limits: &Limits) -> Result<Option<Vec<u8>>, LoadError> {
    let place = Place::in_root(path);
    match root.host_path(&place).and_then(|host| regular_file::read(&host, limits)) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(LoadError::Read { path: path.to_path_buf(), source }),
    }
}

/// Reads `ld.so.conf` and what it includes.
struct Reader<'run> {
    root: &'run Root,
    limits: &'run Limits,
    folders: Vec<PathBuf>,
    /// Files read so far: one that includes itself is read once.
    files: FxHashSet<PathBuf>,
}

/// What is still to be read.
enum Rest {
    File(PathBuf),
    Line { from: PathBuf, line: Vec<u8> },
}

impl Reader<'_> {
    /// Reads a file, and each that it includes where it includes it. A list and no recursion, since a file can include one
    /// that includes another, and so on.
    fn read(&mut self, path: &Path) -> Result<(), LoadError> {
        let mut rest = vec![Rest::File(path.to_path_buf())];
        while let Some(next) = rest.pop() {
            match next {
                Rest::File(path) => self.lines(&path, &mut rest)?,
                Rest::Line { from, line } => self.line(&from, &line, &mut rest)?,
            }
        }
        Ok(())
    }

    fn lines(&mut self, path: &Path, rest: &mut Vec<Rest>) -> Result<(), LoadError> {
        if !self.files.insert(path.to_path_buf()) {
            return Ok(());
        }
        self.check(path, INCLUDED, self.files.len())?;
        let Some(text) = text(self.root, path, self.limits)? else { return Ok(()) };
        // The last one first: what is put there last is taken first.
        for line in text.split(|byte| *byte == b'\n').rev() {
            let line = line.split(|byte| *byte == b'#').next().unwrap_or_default().trim_ascii();
            if !line.is_empty() {
                rest.push(Rest::Line { from: path.to_path_buf(), line: line.to_vec() });
            }
        }
        Ok(())
    }

    fn line(&mut self, from: &Path, line: &[u8], rest: &mut Vec<Rest>) -> Result<(), LoadError> {
        let word_end = line.iter().position(u8::is_ascii_whitespace).unwrap_or(line.len());
        match line.split_at_checked(word_end) {
            Some((b"include", patterns)) => return self.include(from, patterns, rest),
            // Kernel capabilities of old; they name no folder.
            Some((b"hwcap", _)) => {}
            _ => return self.add_folders(from, line),
        }
        Ok(())
    }

    fn include(&self, from: &Path, patterns: &[u8], rest: &mut Vec<Rest>) -> Result<(), LoadError> {
        for pattern in patterns.split(u8::is_ascii_whitespace).filter(|pattern| !pattern.is_empty()).rev() {
            // A relative pattern counts from the folder of the file that it stands in.
            let folder = from.parent().unwrap_or(Path::new("/"));
            let files = self.matches(&folder.join(OsStr::from_bytes(pattern)))?;
            rest.extend(files.into_iter().rev().map(Rest::File));
        }
        Ok(())
    }

    /// The files that match a pattern of glob(7) with `*` and `?`, sorted by name as glob(3) sorts them.
    fn matches(&self, pattern: &Path) -> Result<Vec<PathBuf>, LoadError> {
        let mut found = vec![PathBuf::from("/")];
        for component in pattern.components() {
            let Component::Normal(name) = component else { continue };
            let is_pattern = name.as_bytes().iter().any(|byte| matches!(byte, b'*' | b'?'));
            if !is_pattern {
                found = found.into_iter().map(|folder| folder.join(name)).collect();
                continue;
            }
            let mut below = Vec::new();
            for folder in &found {
                below.extend(entries_matching(self.root, folder, name.as_bytes()));
                // A folder that is a link to one above it makes more of them with each `*`.
                self.check(pattern, INCLUDED, below.len())?;
            }
            found = below;
        }
        Ok(found)
    }

    /// Refuses more of something than a process may load files.
    fn check(&self, path: &Path, what: &'static str, found: usize) -> Result<(), LoadError> {
        let found = u64::try_from(found).unwrap_or(u64::MAX);
        let excess = |source: Excess| LoadError::Limit { path: path.to_path_buf(), source };
        self.limits.check(LimitName::Files, what, found).map_err(excess)
    }

    /// Folders separated by spaces, colons or commas; a `=TYPE` behind one is for the old libc5.
    fn add_folders(&mut self, from: &Path, line: &[u8]) -> Result<(), LoadError> {
        for word in line.split(|byte| byte.is_ascii_whitespace() || matches!(byte, b':' | b',')) {
            let folder = word.split(|byte| *byte == b'=').next().unwrap_or_default();
            if folder.starts_with(b"/") {
                self.folders.push(PathBuf::from(OsStr::from_bytes(folder)));
            }
        }
        self.check(from, "folders that ld.so.conf names", self.folders.len())
    }
}

fn entries_matching(root: &Root, folder: &Path, pattern: &[u8]) -> Vec<PathBuf> {
    // A folder that cannot be listed has nothing to include, for ldconfig too.
    let listing = root.host_path(&Place::in_root(folder)).and_then(fs::read_dir);
    let entries = listing.into_iter().flatten().filter_map(Result::ok).map(|entry| entry.file_name());
    let is_hidden = |name: &OsStr| name.as_bytes().starts_with(b".") && !pattern.starts_with(b".");
    let mut found: Vec<PathBuf> = entries
        .filter(|name| !is_hidden(name) && name_matches(pattern, name.as_bytes()))
        .map(|name| folder.join(name))
        .collect();
    found.sort_unstable();
    found
}

/// Whether `name` matches a pattern with `*` and `?`.
fn name_matches(pattern: &[u8], name: &[u8]) -> bool {
    // Standard two-pointer match: on a mismatch, let the last star take one byte more.
    let (mut at, mut position) = (0_usize, 0_usize);
    let mut retry: Option<(usize, usize)> = None;
    while let Some(byte) = name.get(position) {
        match pattern.get(at) {
            Some(b'*') => {
                at = at.saturating_add(1);
                retry = Some((at, position));
            }
            Some(wanted) if *wanted == b'?' || wanted == byte => {
                at = at.saturating_add(1);
                position = position.saturating_add(1);
            }
            _ => {
                let Some((star, taken)) = retry else { return false };
                at = star;
                position = taken.saturating_add(1);
                retry = Some((star, position));
            }
        }
    }
    pattern.get(at..).unwrap_or_default().iter().all(|byte| *byte == b'*')
}

#[cfg(test)]
mod tests {
    use super::name_matches;

    #[test]
    fn patterns_match_as_in_the_shell() {
        assert!(name_matches(b"*.conf", b"libc.conf"));
        assert!(name_matches(b"*", b""));
        assert!(name_matches(b"a*b*c", b"aXbYbZc"));
        assert!(name_matches(b"?.conf", b"x.conf"));
        assert!(!name_matches(b"*.conf", b"libc.conf.dpkg-old"));
        assert!(!name_matches(b"?", b""));
        assert!(!name_matches(b"a", b"ab"));
    }
}
