//! `chestnut cc` and `chestnut c++`: clang with the plug-in that writes notes.
//!
//! Input: the arguments of a compiler. Output: what clang makes of them; its process takes the place of this one, so
//! that status, messages and signals are its own.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The plug-in's file, beside this program or in `../lib/chestnut`.
const PLUGIN: &str = "chestnut-notes.so";
/// Where else it is.
const PLUGIN_VARIABLE: &str = "CHESTNUT_NOTES_PLUGIN";

/// Why no compiler runs.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error(
        "the plug-in {PLUGIN} is neither beside this program nor where {PLUGIN_VARIABLE} says; make sourcalyzer builds it"
    )]
    NoPlugin,
    #[error("{} cannot be executed", compiler.display())]
    Compiler { compiler: PathBuf, source: io::Error },
}

/// The arguments for a compiler, if the command line is for one: with which compiler by default, and the variable that
/// names another.
pub(crate) fn asked(arguments: &[OsString]) -> Option<(Language, &[OsString])> {
    match arguments.split_first()? {
        (command, rest) if command == "cc" => Some((Language::C, rest)),
        (command, rest) if command == "c++" => Some((Language::Cxx, rest)),
        // Flags of chestnut's own before the command.
        (flag, rest) if flag == "--color" => asked(rest.get(1..)?),
        (flag, rest) if flag.as_encoded_bytes().starts_with(b"--color=") => asked(rest),
        _ => None,
    }
}

/// For which language the compiler is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Language {
    /// C.
    C,
    /// C++.
    Cxx,
}

/// Becomes the compiler; comes back if that fails.
pub(crate) fn run(language: Language, arguments: &[OsString]) -> Failure {
    let (variable, default) = match language {
        Language::C => ("CHESTNUT_CLANG", "clang-14"),
        Language::Cxx => ("CHESTNUT_CLANGXX", "clang++-14"),
    };
    let compiler = PathBuf::from(std::env::var_os(variable).unwrap_or_else(|| default.into()));
    let mut command = Command::new(&compiler);
    if has_notes(arguments) {
        let Some(plugin) = plugin() else { return Failure::NoPlugin };
        let mut flag = OsString::from("-fpass-plugin=");
        flag.push(plugin);
        // It has no use where only assembly is read, or files are linked; that is no reason to warn.
        command.arg("--start-no-unused-arguments").arg(flag).arg("--end-no-unused-arguments");
    }
    let source = command.args(arguments).exec();
    Failure::Compiler { compiler, source }
}

fn plugin() -> Option<PathBuf> {
    if let Some(path) = std::env::var_os(PLUGIN_VARIABLE) {
        return std::path::absolute(path).ok().filter(|path| path.is_file());
    }
    let own = std::env::current_exe().ok()?;
    let folder = own.parent()?;
    let places = [folder.join(PLUGIN), folder.join("../lib/chestnut").join(PLUGIN)];
    places.into_iter().find(|path| path.is_file())
}

/// Whether notes on what is compiled stay right: not where functions are changed once more behind the compiler
/// (link-time optimisation, LLVM's own formats, a sanitizer that gives all functions new names), and casts are gone
/// where such a format is read.
fn has_notes(arguments: &[OsString]) -> bool {
    if arguments.first().is_some_and(|first| first.as_bytes().starts_with(b"-cc1")) {
        return false;
    }
    let mut is_linked_late = false;
    let mut before: &[u8] = b"";
    for argument in arguments {
        let bytes = argument.as_bytes();
        match bytes {
            b"-fno-lto" => is_linked_late = false,
            _ if bytes.starts_with(b"-flto") => is_linked_late = true,
            _ if changes_late(before, bytes) => return false,
            [b'@', path @ ..] if says_so(Path::new(OsStr::from_bytes(path))) => return false,
            _ => {}
        }
        before = bytes;
    }
    !is_linked_late
}

/// Whether an argument, and the one before it, ask for code without notes.
fn changes_late(before: &[u8], argument: &[u8]) -> bool {
    let is_language = before == b"-x" && argument == b"ir";
    let is_sanitizer = argument
        .strip_prefix(b"-fsanitize=")
        .is_some_and(|list| list.split(|&byte| byte == b',').any(|name| name == b"dataflow"));
    matches!(argument, b"-emit-llvm" | b"-fembed-bitcode" | b"-xir")
        || is_language
        || is_sanitizer
        || [&b".ll"[..], b".bc"].iter().any(|end| argument.ends_with(end))
}

/// Whether a response file has one of these flags, or names another one; of `-flto` the plug-in sees it too.
fn says_so(path: &Path) -> bool {
    says_so_within(path, 0)
}

fn says_so_within(path: &Path, depth: u8) -> bool {
    let text = std::fs::read(path).unwrap_or_default();
    let is_mark = |byte: &u8| matches!(byte, b'"' | b'\'');
    let mut before: Vec<u8> = Vec::new();
    for word in text.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty()) {
        let word: Vec<u8> = word.iter().copied().filter(|byte| !is_mark(byte)).collect();
        let is_other = || match word.strip_prefix(b"@") {
            Some(other) if depth < 8 => says_so_within(Path::new(OsStr::from_bytes(other)), depth.saturating_add(1)),
            _ => false,
        };
        if changes_late(&before, &word) || is_other() {
            return true;
        }
        before = word;
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn has(arguments: &[&str]) -> bool {
        has_notes(&arguments.iter().map(OsString::from).collect::<Vec<_>>())
    }

    #[test]
    fn code_that_changes_behind_the_compiler_has_no_notes() {
        assert!(has(&["-c", "a.c"]) && has(&["-flto", "-fno-lto", "a.c"]));
        assert!(!has(&["-flto=thin", "a.c"]) && !has(&["-emit-llvm", "-c", "a.c"]) && !has(&["-O2", "a.ll"]));
        assert!(!has(&["-cc1", "-O2"]) && !has(&["-x", "ir", "-c", "a"]) && !has(&["-xir", "a"]));
        assert!(!has(&["-fsanitize=address,dataflow", "a.c"]) && has(&["-fsanitize=address", "-x", "c", "a"]));
    }

    #[test]
    fn response_files_are_read() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            format!("@{}", path.display())
        };
        let plain = write("plain", "-O2\n-DA='b c' a.c");
        assert!(has(&[&plain]) && has(&["@missing"]));
        let input = write("input", "-O2 \"old.bc\"");
        let outer = write("outer", &format!("-c {input}"));
        assert!(!has(&[&input]) && !has(&[&outer]) && !has(&[&write("language", "-x ir a")]));
    }
}
