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
/// (link-time optimisation, LLVM's own formats), and casts are gone where such a format is read.
fn has_notes(arguments: &[OsString]) -> bool {
    if arguments.first().is_some_and(|first| first.as_bytes().starts_with(b"-cc1")) {
        return false;
    }
    let mut is_linked_late = false;
    for argument in arguments {
        let bytes = argument.as_bytes();
        match bytes {
            b"-emit-llvm" | b"-fembed-bitcode" => return false,
            b"-fno-lto" => is_linked_late = false,
            _ if bytes.starts_with(b"-flto") => is_linked_late = true,
            _ if bytes.ends_with(b".ll") || bytes.ends_with(b".bc") => return false,
            [b'@', path @ ..] if says_so(Path::new(OsStr::from_bytes(path))) => return false,
            _ => {}
        }
    }
    !is_linked_late
}

/// Whether a response file has one of these flags; of `-flto` the plug-in sees it too.
fn says_so(path: &Path) -> bool {
    let text = std::fs::read(path).unwrap_or_default();
    text.split(u8::is_ascii_whitespace).any(|word| matches!(word, b"-emit-llvm" | b"-fembed-bitcode"))
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
        assert!(!has(&["-cc1", "-O2"]));
    }
}
