//! The programs of a tree.
//!
//! Input: a folder, and all of it or a list. Output: [`Program`]s, sorted by path, each file once with all its names.
//! Whether an ELF file is a program that can be patched is not decided here, but that it is none of Linux on x86-64, or
//! has no permission bit for execution.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io::Read;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use chestnut_analyzer::limits::Limits;
use chestnut_analyzer::loader::host_path;
use chestnut_rewriter::output::FileError;
use walkdir::WalkDir;

use crate::arguments::Harden;
use crate::failure::Failure;
use crate::program;

/// A file that may be a program.
pub(super) struct Program {
    /// Its first name on this machine.
    pub(super) path: PathBuf,
    /// Where its patched form goes.
    pub(super) output: PathBuf,
    /// The other names of the same file (hard links), and where they go.
    pub(super) links: Vec<PathBuf>,
    /// How many names it has that are not among these: they keep the old file.
    pub(super) other_names: u64,
    /// Whether somebody named it, so that it is an error if it is no program.
    pub(super) is_named: bool,
}

impl Program {
    /// For a person who watches.
    pub(super) fn name(&self) -> &str {
        self.path.file_name().and_then(|name| name.to_str()).unwrap_or("")
    }
}

/// The programs that the arguments are about.
pub(super) fn programs(command: &Harden) -> Result<Vec<Program>, Failure> {
    let root = command.analysis.root.as_path();
    let unreadable = |path: &Path, source| FileError::Read { path: path.to_owned(), source };
    let root = root.canonicalize().map_err(|source| unreadable(root, source))?;
    let (paths, is_named) = match &command.list {
        Some(list) => (listed(&root, list, &command.analysis.limits())?, true),
        // What another run has written is not there to be patched again.
        None => (all(&root, command.out.as_ref().and_then(|out| out.canonicalize().ok()).as_deref())?, false),
    };
    let mut files: BTreeMap<(u64, u64), (u64, Vec<PathBuf>)> = BTreeMap::new();
    for path in paths {
        match std::fs::metadata(&path) {
            Ok(metadata) => {
                let file = files.entry((metadata.dev(), metadata.ino())).or_default();
                file.0 = metadata.nlink();
                file.1.push(path);
            }
            // It has gone since the tree was read.
            Err(error) if !is_named && error.kind() == std::io::ErrorKind::NotFound => {}
            Err(source) => return Err(unreadable(&path, source).into()),
        }
    }
    let place = |path: &PathBuf| match &command.out {
        Some(folder) => folder.join(path.strip_prefix(&root).unwrap_or(path)),
        None => path.clone(),
    };
    let mut programs: Vec<Program> = files
        .into_values()
        .filter_map(|(number, mut names)| {
            names.sort();
            names.dedup();
            let other_names = number.saturating_sub(u64::try_from(names.len()).unwrap_or(u64::MAX));
            let path = names.first()?.clone();
            let output = place(&path);
            Some(Program { path, output, links: names.iter().skip(1).map(place).collect(), other_names, is_named })
        })
        .collect();
    programs.sort_by(|one, other| one.path.cmp(&other.path));
    Ok(programs)
}

/// The files that a list names, a path of the tree a line; links are followed within the tree.
fn listed(root: &Path, list: &Path, limits: &Limits) -> Result<Vec<PathBuf>, Failure> {
    let text = program::read_text(list, "bytes of the list", limits)?;
    // Bytes, as paths are.
    let paths = text.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii);
    paths
        .filter(|line| !line.is_empty() && !line.starts_with(b"#"))
        .map(|line| {
            let line = Path::new(OsStr::from_bytes(line));
            let path = Path::new("/").join(line);
            let unreadable = |source| FileError::Read { path: line.to_owned(), source };
            Ok(host_path(root, &path).map_err(unreadable)?)
        })
        .collect()
}

/// Every ELF executable below a folder, on its file system, but for those below `except`.
fn all(root: &Path, except: Option<&Path>) -> Result<Vec<PathBuf>, Failure> {
    let mut found = Vec::new();
    let tree = WalkDir::new(root).same_file_system(true).sort_by_file_name().into_iter();
    for entry in tree.filter_entry(|entry| Some(entry.path()) != except) {
        let entry = match entry {
            Ok(entry) => entry,
            // What comes and goes while the tree is read.
            Err(error) if error.io_error().is_some_and(|e| e.kind() == std::io::ErrorKind::NotFound) => continue,
            Err(error) => {
                let path = error.path().unwrap_or(root).to_owned();
                return Err(FileError::Read { path, source: error.into() }.into());
            }
        };
        let is_executable = |mode: u32| mode & 0o111 != 0;
        let is_file = entry.file_type().is_file();
        if is_file && entry.metadata().is_ok_and(|m| is_executable(m.mode())) && begins_like_a_program(entry.path()) {
            found.push(entry.into_path());
        }
    }
    Ok(found)
}

/// Whether the file header says ELF, 64-bit, little-endian, x86-64, ET_EXEC or ET_DYN (gABI, "ELF Header").
fn begins_like_a_program(path: &Path) -> bool {
    let mut head = [0_u8; 20];
    let is_read = File::open(path).and_then(|mut file| file.read_exact(&mut head)).is_ok();
    is_read && head.starts_with(b"\x7fELF\x02\x01") && matches!(head, [.., 2 | 3, 0, 62, 0])
}
