//! Libraries whose names a program composes or reads from its configuration: plug-ins.
//!
//! Input: the texts of a program that opens libraries under names that are not known. Output: files of its system that
//! those texts lead to. Nothing here knows a program; these are the ways in which programs find plug-ins:
//!
//! * a template: `/usr/lib/app/lib%s.so`, `/usr/lib/x86_64-linux-gnu/lua/5.4/?.so` (package.cpath, Lua manual 6.3);
//! * a configuration file, or a folder of them, that a text names: words that end in `.so`, absolute or in a folder
//!   that a text names, and files that it includes (`load_module` of nginx, `LoadModule` of httpd, pam.d(5),
//!   openssl(5));
//! * extension modules of Python: files that end in the interpreter's tag (PEP 3149) below its library folders;
//! * extension modules of Perl: `auto/**.so` in a folder of `@INC` that a text names (XSLoader(3perl)).
//!
//! Over-approximates: whichever of the texts a name is composed of. May miss: folders and names that come from the
//! environment or from the command line; the place stays an assumption of the policy.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use super::root::{Place, Root};
use super::seen::{Kind, Seen};

/// Longest configuration file that is read, in bytes.
const LONGEST_CONFIGURATION: u64 = 1 << 20;

/// Most configuration files that are read, and most files of one tree that are looked at.
const MOST_FILES: usize = 4096;

/// How deep a tree of extension modules is searched.
const DEEPEST: usize = 12;

/// Endings of configuration files whose folder stands in another text.
const CONFIGURATION_ENDINGS: [&str; 4] = [".conf", ".cnf", ".cfg", ".ini"];

/// Trees that hold no configuration (hier(7)).
const OUTSIDE: [&str; 4] = ["/proc/", "/sys/", "/dev/", "/tmp/"];

/// Below which folders Python looks for packages, if the last part begins with `python` (site(3), Debian's policy).
const PYTHON_PARENTS: [&str; 4] = ["/usr/lib", "/usr/lib64", "/usr/local/lib", "/usr/local/lib64"];

/// The parts of a program's texts that may lead to plug-ins.
#[must_use]
pub fn hints<'t>(texts: impl Iterator<Item = &'t str>) -> BTreeSet<String> {
    let is_place = |part: &str| part.starts_with('/') && !OUTSIDE.iter().any(|outside| part.starts_with(outside));
    let says_where = |part: &&str| is_place(part) || is_configuration(part) || is_python_tag(part);
    let parts = texts.flat_map(|text| text.split([':', ';'])).filter(|part| is_plain(part));
    parts.filter(says_where).map(str::to_owned).collect()
}

/// What the texts of a program say about where plug-ins are.
pub(super) struct PlugIns<'r> {
    root: &'r Root,
    seen: &'r Seen,
    /// Folders that every program shares: a template there says nothing.
    shared: &'r [PathBuf],
    folders: BTreeSet<PathBuf>,
    configurations: Vec<PathBuf>,
    read: BTreeSet<PathBuf>,
    found: BTreeSet<PathBuf>,
    names: BTreeSet<String>,
}

impl<'r> PlugIns<'r> {
    /// The libraries that [`hints`] lead to: absolute paths in the root, and plain names to be searched for.
    pub(super) fn named_by(
        root: &'r Root,
        seen: &'r Seen,
        shared: &'r [PathBuf],
        hints: &BTreeSet<String>,
    ) -> BTreeSet<String> {
        let mut search = Self {
            root,
            seen,
            shared,
            folders: BTreeSet::new(),
            configurations: Vec::new(),
            read: BTreeSet::new(),
            found: BTreeSet::new(),
            names: BTreeSet::new(),
        };
        let parts = || hints.iter().map(String::as_str);
        for part in parts().filter(|part| part.starts_with('/')) {
            search.look_at(part);
        }
        for name in parts().filter(|part| is_configuration(part)) {
            let folders: Vec<PathBuf> =
                search.folders.iter().map(|folder| folder.join(name.trim_start_matches('/'))).collect();
            search.configurations.extend(folders);
        }
        search.read_configurations();
        search.python(parts().filter(|part| is_python_tag(part)).collect());
        search.perl();
        let paths = search.found.into_iter().map(|path| path.to_string_lossy().into_owned());
        paths.chain(search.names).collect()
    }

    /// One absolute path: a template, a folder or a file.
    fn look_at(&mut self, part: &str) {
        if let Some((head, tail)) = placeholder(part) {
            let (folder, prefix) = head.rsplit_once('/').unwrap_or(("", head));
            if tail.starts_with(".so") || tail.contains(".so.") {
                self.fill(Path::new(folder), prefix, tail);
            } else if self.is_folder(Path::new(folder)) {
                self.folders.insert(PathBuf::from(folder));
            }
            return;
        }
        let path = PathBuf::from(part.trim_end_matches('/'));
        if self.is_folder(&path) {
            let is_configuration = path.starts_with("/etc") && path.components().count() > 2
                || path.extension().is_some_and(|extension| extension == "d");
            if is_configuration {
                let files = self.entries(&path);
                self.configurations.extend(files);
            }
            self.folders.insert(path);
        } else if path.starts_with("/etc") || is_configuration(part) {
            self.configurations.push(path);
        }
    }

    /// The files that a template can mean.
    fn fill(&mut self, folder: &Path, prefix: &str, tail: &str) {
        if self.shared.iter().any(|shared| shared == folder) {
            return;
        }
        for path in self.entries(folder) {
            let name = path.file_name().map(OsStr::to_string_lossy).unwrap_or_default();
            if name.len() > prefix.len() + tail.len() && name.starts_with(prefix) && name.ends_with(tail) {
                self.found.insert(path);
            }
        }
    }

    fn read_configurations(&mut self) {
        while let Some(path) = self.configurations.pop() {
            let is_new = self.read.len() < MOST_FILES && self.read.insert(path.clone());
            if let Some(text) = is_new.then(|| self.configuration(&path)).flatten() {
                self.take_in(&text, path.parent().unwrap_or(Path::new("/")));
            }
        }
    }

    fn take_in(&mut self, text: &str, folder: &Path) {
        for line in text.lines().filter_map(|line| line.split('#').next()) {
            let separators = |c: char| c.is_whitespace() || "\"'=,;(){}<>[]".contains(c);
            let mut words = line.split(separators).filter(|word| !word.is_empty()).peekable();
            let is_include = words.next_if(|word| is_include(word)).is_some();
            for word in words {
                if is_library(word) {
                    self.library(word, folder);
                } else if is_include && word.chars().any(char::is_alphanumeric) {
                    let folders = self.folders.iter().map(PathBuf::as_path).chain([folder]);
                    let paths: Vec<PathBuf> = folders.flat_map(|folder| self.matching(&folder.join(word))).collect();
                    let new = paths.into_iter().filter(|path| !self.read.contains(path));
                    self.configurations.extend(new);
                }
            }
        }
    }

    /// A library that a configuration names.
    fn library(&mut self, word: &str, folder: &Path) {
        if !word.contains('/') {
            self.names.insert(word.to_owned());
        }
        let folders = self.folders.iter().map(PathBuf::as_path).chain([folder]);
        let paths: Vec<PathBuf> = folders.map(|folder| folder.join(word)).filter(|path| self.is_file(path)).collect();
        self.found.extend(paths);
    }

    fn python(&mut self, tags: Vec<&str>) {
        if tags.is_empty() {
            return;
        }
        for parent in PYTHON_PARENTS {
            for folder in self.entries(Path::new(parent)) {
                if folder.file_name().is_some_and(|name| name.to_string_lossy().starts_with("python")) {
                    self.tree(&folder, &|name| tags.iter().any(|tag| name.ends_with(tag)), DEEPEST);
                }
            }
        }
    }

    fn perl(&mut self) {
        let trees: Vec<PathBuf> =
            self.folders.iter().map(|folder| folder.join("auto")).filter(|auto| self.is_folder(auto)).collect();
        for tree in trees {
            self.tree(&tree, &|name| name.ends_with(".so"), DEEPEST);
        }
    }

    /// The files of a tree with names that are wanted.
    fn tree(&mut self, folder: &Path, is_wanted: &dyn Fn(&str) -> bool, depth: usize) {
        for path in self.entries(folder) {
            let name = path.file_name().map(OsStr::to_string_lossy).unwrap_or_default();
            if is_wanted(&name) {
                self.found.insert(path);
            } else if depth > 0 && !name.contains('.') && self.is_folder(&path) {
                self.tree(&path, is_wanted, depth - 1);
            }
        }
    }

    /// The paths in the root that a pattern of it means.
    fn matching(&self, pattern: &Path) -> Vec<PathBuf> {
        let Some(folder) = pattern.parent() else { return Vec::new() };
        let name = pattern.file_name().map(OsStr::to_string_lossy).unwrap_or_default();
        if !name.contains(['*', '?', '[']) {
            return if self.is_folder(pattern) { self.entries(pattern) } else { vec![pattern.to_owned()] };
        }
        let Ok(pattern) = glob::Pattern::new(&name) else { return Vec::new() };
        let is_match = |path: &PathBuf| path.file_name().is_some_and(|name| pattern.matches(&name.to_string_lossy()));
        self.entries(folder).into_iter().filter(is_match).collect()
    }

    /// What is in a folder, sorted; nothing if it cannot be read.
    fn entries(&self, folder: &Path) -> Vec<PathBuf> {
        let host = self.root.host_path(&Place::in_root(folder));
        let names = host.map(|host| self.seen.names(&host, MOST_FILES));
        names.iter().flat_map(|names| names.iter()).map(|name| folder.join(name)).collect()
    }

    fn kind(&self, path: &Path) -> Kind {
        self.root.host_path(&Place::in_root(path)).map_or(Kind::Nothing, |host| self.seen.kind(&host))
    }

    fn is_folder(&self, path: &Path) -> bool {
        self.kind(path) == Kind::Folder
    }

    fn is_file(&self, path: &Path) -> bool {
        matches!(self.kind(path), Kind::File(_))
    }

    /// The text of a configuration file; `None` if it is something else.
    fn configuration(&self, path: &Path) -> Option<String> {
        let is_text = matches!(self.kind(path), Kind::File(length) if length <= LONGEST_CONFIGURATION);
        let host = is_text.then(|| self.root.host_path(&Place::in_root(path)).ok())??;
        String::from_utf8(fs::read(host).ok()?).ok().filter(|text| !text.contains('\0'))
    }
}

/// Whether a text may be a path.
fn is_plain(part: &str) -> bool {
    part.len() > 1 && part.len() < 512 && !part.contains(|c: char| c.is_whitespace() || c.is_control())
}

/// Whether a name is one of a configuration file.
fn is_configuration(name: &str) -> bool {
    CONFIGURATION_ENDINGS.iter().any(|ending| name.ends_with(ending))
}

/// Whether a line that begins with this word names other configuration files: `include`, `@include`, `IncludeOptional`,
/// `!includedir`, `.include`.
fn is_include(word: &str) -> bool {
    word.trim_start_matches(['@', '!', '.']).to_ascii_lowercase().starts_with("include")
}

/// Whether a word of a configuration names a library.
fn is_library(word: &str) -> bool {
    let file = word.rsplit('/').next().unwrap_or(word);
    file.len() > 3 && (file.ends_with(".so") || file.contains(".so.")) && !file.starts_with('.') && !word.contains('$')
}

/// The tag that ends the names of an interpreter's extension modules: `.cpython-311-x86_64-linux-gnu.so`, `.abi3.so`.
fn is_python_tag(part: &str) -> bool {
    let tag = part.strip_prefix('.').and_then(|rest| rest.strip_suffix(".so"));
    tag.is_some_and(|tag| tag.starts_with("cpython-") || tag.starts_with("abi"))
}

/// What stands before and behind the first placeholder of a template (printf(3), or the question mark of Lua).
fn placeholder(part: &str) -> Option<(&str, &str)> {
    let at = part.find(['%', '?'])?;
    let (head, rest) = part.split_at_checked(at)?;
    let mark = rest.chars().next()?;
    let rest = rest.get(1..)?;
    let tail = if mark == '?' {
        rest
    } else {
        rest.trim_start_matches(['.', '*', '-']).trim_start_matches(char::is_numeric).get(1..).unwrap_or("")
    };
    Some((head, tail))
}
