//! Tests of the loader: against ldd(1) and ld.so's own account of its scopes, with roots that are folders, with search
//! paths of every kind, and with files that are refused.

mod plug_ins;
mod refused;
mod roots;
mod search_paths;
mod system;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::*;

/// File names of the given files.
fn names(set: &LoadedSet, indices: &[FileIndex]) -> Vec<String> {
    let name = |index: &FileIndex| set.files()[index.0].path().file_name().unwrap().to_string_lossy().into_owned();
    indices.iter().map(name).collect()
}

/// Compiles with `gcc` (or a compiler named first); panics with the compiler's words if it cannot.
fn compile(folder: &Path, output: &str, source: &str, arguments: &[&str]) -> PathBuf {
    try_compile("gcc", folder, output, source, arguments).unwrap_or_else(|problem| panic!("{problem}"))
}

fn try_compile(
    compiler: &str,
    folder: &Path,
    output: &str,
    source: &str,
    arguments: &[&str],
) -> Result<PathBuf, String> {
    let path = folder.join(output);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let input = path.with_extension("source.c");
    fs::write(&input, source).unwrap();
    let mut command = Command::new(compiler);
    command.current_dir(folder).arg("-o").arg(&path).arg(&input).args(arguments);
    let result = command.output().map_err(|error| format!("{compiler}: {error}"))?;
    if result.status.success() { Ok(path) } else { Err(String::from_utf8_lossy(&result.stderr).into_owned()) }
}

/// A library with one function, and a soname.
fn library(folder: &Path, output: &str, arguments: &[&str]) -> PathBuf {
    let soname = format!("-Wl,-soname,{}", Path::new(output).file_name().unwrap().to_string_lossy());
    let stem = Path::new(output).file_stem().unwrap().to_string_lossy().replace(['-', '.'], "_");
    let source = format!("int {stem}(void) {{ return 1; }}");
    compile(folder, output, &source, &[&["-shared", "-fPIC", &soname, "-Wl,--no-as-needed"], arguments].concat())
}
