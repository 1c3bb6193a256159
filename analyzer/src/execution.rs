//! Which files a program executes when it executes a name.
//!
//! Input: names as code or the user gives them. Output: executables of the program's system, as the kernel finds them
//! (execve(2)): symbolic links are followed below the root, a script stands for its interpreter. A name without a slash
//! is looked for in the folders that `PATH` has by default (environ(7), login(1)); a file that is neither an executable
//! nor a script is one for the shell, as `execvp` and every shell take it (POSIX, exec).
//!
//! Over-approximates: a name counts for every folder of the default `PATH` that has it. May miss: other values of
//! `PATH`.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use crate::execution_sites::ExecutedName;
use crate::loader::host_path;

/// `PATH` of a login, as Debian and Fedora set it.
pub const DEFAULT_PATH: [&str; 6] = ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"];

/// The shell of `system` and `execvp` (`_PATH_BSHELL`).
const SHELL: &str = "/bin/sh";

/// A program's own file (proc(5)).
const OWN: &str = "/proc/self/exe";

/// So many scripts may be interpreted by scripts (`fs/exec.c`, `BINPRM_MAX_RECURSION`).
const LONGEST_CHAIN: usize = 5;

/// What the kernel reads of a script (`BINPRM_BUF_SIZE`).
const LONGEST_LINE: u64 = 256;

/// Why a name leads to no program.
#[derive(Debug, thiserror::Error)]
pub enum NotExecutable {
    /// Nothing can be opened there.
    #[error("{} cannot be executed", path.display())]
    Unreadable {
        /// In the program's system.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// It is a folder, or nobody may execute it.
    #[error("{} is no program", path.display())]
    NoProgram {
        /// In the program's system.
        path: PathBuf,
    },
    /// A name without a slash.
    #[error("there is no program {name} in {}", DEFAULT_PATH.join(":"))]
    NotInPath {
        /// The name.
        name: String,
    },
}

impl NotExecutable {
    /// Whether an execution fails because nothing is there.
    #[must_use]
    pub fn is_absent(&self) -> bool {
        match self {
            Self::Unreadable { source, .. } => {
                matches!(source.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
            }
            Self::NoProgram { .. } | Self::NotInPath { .. } => true,
        }
    }
}

/// The executables that a name stands for, as paths of this machine. `own` is that of the program that executes it.
///
/// # Errors
///
/// None can be found.
pub fn find(root: &Path, own: &Path, name: &ExecutedName) -> Result<Vec<PathBuf>, NotExecutable> {
    let mut found = Vec::new();
    match name {
        ExecutedName::Path(path) => follow(root, own, Path::new(OsStr::from_bytes(path)), 0, &mut found)?,
        ExecutedName::Search(name) => search(root, own, name, 0, &mut found)?,
    }
    Ok(found)
}

/// What of a text is a name.
#[must_use]
pub fn name_of(text: &[u8]) -> ExecutedName {
    let is_path = text.contains(&b'/');
    if is_path { ExecutedName::Path(text.to_vec()) } else { ExecutedName::Search(text.to_vec()) }
}

fn search(root: &Path, own: &Path, name: &[u8], depth: usize, found: &mut Vec<PathBuf>) -> Result<(), NotExecutable> {
    let mut is_there = false;
    for folder in DEFAULT_PATH {
        match follow(root, own, &Path::new(folder).join(OsStr::from_bytes(name)), depth, found) {
            Ok(()) => is_there = true,
            Err(error) if error.is_absent() => {}
            Err(error) => return Err(error),
        }
    }
    if is_there { Ok(()) } else { Err(NotExecutable::NotInPath { name: String::from_utf8_lossy(name).into_owned() }) }
}

/// Adds the executable at a path of the program's system, or the interpreter of the script there.
fn follow(root: &Path, own: &Path, path: &Path, depth: usize, found: &mut Vec<PathBuf>) -> Result<(), NotExecutable> {
    if path == Path::new(OWN) {
        add(own.to_owned(), found);
        return Ok(());
    }
    let unreadable = |source| NotExecutable::Unreadable { path: path.to_owned(), source };
    let file = host_path(root, path).map_err(unreadable)?;
    let metadata = file.metadata().map_err(unreadable)?;
    if !metadata.is_file() || metadata.permissions().mode() & 0o111 == 0 || depth > LONGEST_CHAIN {
        return Err(NotExecutable::NoProgram { path: path.to_owned() });
    }
    let mut start = Vec::new();
    File::open(&file).and_then(|file| file.take(LONGEST_LINE).read_to_end(&mut start)).map_err(unreadable)?;
    let next = depth.saturating_add(1);
    if let Some(line) = start.strip_prefix(b"#!") {
        return script(root, own, line, next, found);
    }
    if start.starts_with(b"\x7fELF") {
        add(file, found);
        return Ok(());
    }
    follow(root, own, Path::new(SHELL), next, found)
}

/// Adds the interpreter that the first line of a script names. `env` (env(1)) is there to look for another one.
fn script(root: &Path, own: &Path, line: &[u8], depth: usize, found: &mut Vec<PathBuf>) -> Result<(), NotExecutable> {
    let line = line.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let mut words = line.split(|byte| matches!(byte, b' ' | b'\t')).filter(|word| !word.is_empty());
    let interpreter = Path::new(OsStr::from_bytes(words.next().unwrap_or_default()));
    follow(root, own, interpreter, depth, found)?;
    if interpreter.file_name() != Some(OsStr::new("env")) {
        return Ok(());
    }
    match words.find(|word| !word.starts_with(b"-") && !word.contains(&b'=')) {
        Some(name) if name.contains(&b'/') => follow(root, own, Path::new(OsStr::from_bytes(name)), depth, found),
        Some(name) => search(root, own, name, depth, found),
        None => Ok(()),
    }
}

fn add(file: PathBuf, found: &mut Vec<PathBuf>) {
    if !found.contains(&file) {
        found.push(file);
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn file(root: &Path, path: &str, content: &[u8], mode: u32) {
        let path = root.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, content).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
    }

    /// A system with a merged /usr, whose links must not lead out of it.
    fn system() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        file(root, "usr/bin/shell", b"\x7fELF", 0o755);
        symlink("usr/bin", root.join("bin")).unwrap();
        symlink("/bin/shell", root.join("usr/bin/sh")).unwrap();
        folder
    }

    fn found(root: &Path, text: &str) -> Result<Vec<PathBuf>, NotExecutable> {
        find(root, Path::new("/own"), &name_of(text.as_bytes()))
    }

    #[test]
    fn links_are_followed_inside_the_root() {
        let system = system();
        let root = system.path().canonicalize().unwrap();
        let shell = root.join("usr/bin/shell");
        for name in ["/bin/sh", "/usr/bin/sh", "sh", "shell"] {
            assert_eq!(found(&root, name).unwrap(), [shell.as_path()], "{name}");
        }
        assert_eq!(found(&root, "/proc/self/exe").unwrap(), [Path::new("/own")]);
    }

    #[test]
    fn scripts_stand_for_their_interpreters() {
        let system = system();
        let root = system.path().canonicalize().unwrap();
        file(&root, "usr/bin/env", b"\x7fELF", 0o755);
        file(&root, "plain", b"#! /bin/sh -e\n", 0o755);
        file(&root, "by-env", b"#!/usr/bin/env -S A=b sh\n", 0o755);
        file(&root, "bare", b"echo\n", 0o755);
        file(&root, "nested", b"#!/plain\n", 0o755);
        file(&root, "endless", b"#!/endless\n", 0o755);
        let [shell, env] = ["usr/bin/shell", "usr/bin/env"].map(|path| root.join(path));
        for name in ["/plain", "/bare", "/nested"] {
            assert_eq!(found(&root, name).unwrap(), [shell.as_path()], "{name}");
        }
        assert_eq!(found(&root, "/by-env").unwrap(), [env, shell]);
        assert!(found(&root, "/endless").is_err());
    }

    #[test]
    fn what_nobody_can_execute_is_absent() {
        let system = system();
        file(system.path(), "data", b"\x7fELF", 0o644);
        for name in ["/data", "/usr", "/not/there", "not-there"] {
            assert!(found(system.path(), name).unwrap_err().is_absent(), "{name}");
        }
    }
}
