//! From a path to bytes, and from bytes to a policy.
//!
//! Input: the file that a command is about, or a name by which it is executed. Output: its bytes, its path, or the policy
//! that it holds.

use std::fs::File;
use std::path::{Path, PathBuf};

use chestnut_analyzer::limits::{LimitName, Limits};
use chestnut_analyzer::policy::{POLICY_FORMAT, Policy};
use chestnut_analyzer::regular_file::read_all;
use chestnut_rewriter::output::{self, FileError};

use crate::failure::Failure;

/// Reads a file; `-` is standard input.
pub(crate) fn read(path: &Path, limits: &Limits) -> Result<Vec<u8>, Failure> {
    if !is_stream(path) {
        return Ok(output::read(path, limits)?.bytes);
    }
    let unreadable = |source| FileError::Read { path: "standard input".into(), source };
    let input = std::io::stdin().lock();
    Ok(read_all(input, 0, LimitName::FileSize, "bytes of standard input", limits).map_err(unreadable)?)
}

/// Reads a text from a file of any kind, such as a pipe that a shell has made; `-` is standard input. `what` it has are
/// bytes of something.
pub(crate) fn read_text(path: &Path, what: &'static str, limits: &Limits) -> Result<Vec<u8>, Failure> {
    if is_stream(path) {
        return read(path, limits);
    }
    let bytes = File::open(path).and_then(|file| read_all(file, 0, LimitName::PolicySize, what, limits));
    Ok(bytes.map_err(|source| FileError::Read { path: path.to_owned(), source })?)
}

/// Whether a path stands for standard input or output.
pub(crate) fn is_stream(path: &Path) -> bool {
    path.as_os_str() == "-"
}

/// Writes a file that is no program.
pub(crate) fn write(path: &Path, bytes: impl AsRef<[u8]>) -> Result<(), Failure> {
    let failed = |source| FileError::Write { path: path.to_owned(), source };
    Ok(output::write_text(path, bytes.as_ref()).map_err(failed)?)
}

/// Makes sure that what a command writes does not go where the program is that it is about.
pub(crate) fn check_place(output: Option<&PathBuf>, input: &Path) -> Result<(), Failure> {
    match output.filter(|output| output::is_same_file(output, input)) {
        Some(output) => Err(FileError::SameFile { input: input.to_owned(), output: output.clone() }.into()),
        None => Ok(()),
    }
}

/// Reads a policy.
pub(crate) fn read_policy(path: &Path, limits: &Limits) -> Result<Policy, Failure> {
    let bytes = read(path, limits)?;
    let too_large = |source| FileError::TooLarge { path: path.to_owned(), source };
    let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
    limits.check(LimitName::PolicySize, "bytes of the policy", length).map_err(too_large)?;
    parse_policy(path, &bytes)
}

/// Parses a policy.
pub(crate) fn parse_policy(path: &Path, bytes: &[u8]) -> Result<Policy, Failure> {
    let wrong = |reason: String| Failure::NotAPolicy { path: path.to_owned(), reason };
    // The version first: other fields of another version would be the lesser news.
    let value: serde_json::Value = serde_json::from_slice(bytes).map_err(|error| wrong(error.to_string()))?;
    match value.get("format").and_then(serde_json::Value::as_u64) {
        Some(format) if format == u64::from(POLICY_FORMAT) => {}
        Some(format) => return Err(wrong(format!("format {format}, expected {POLICY_FORMAT}"))),
        None => return Err(wrong("it has no format".to_owned())),
    }
    serde_json::from_value(value).map_err(|error| wrong(error.to_string()))
}

/// Reads the policy of a program that is to be executed; a script has none of its own, so that anything goes.
pub(crate) fn policy_for(path: &Path, program: &Path, bytes: &[u8], limits: &Limits) -> Result<Policy, Failure> {
    let policy = read_policy(path, limits)?;
    let is_script = bytes.starts_with(b"#!");
    if is_script || chestnut_tracer::is_program_of(&policy, bytes) {
        return Ok(policy);
    }
    let (path, of, program) = (path.to_owned(), policy.program.path, program.to_owned());
    Err(Failure::OtherProgram { path, of, program })
}

/// The file that executing a name executes, by `PATH`.
pub(crate) fn executable(name: &std::ffi::OsStr) -> Result<PathBuf, Failure> {
    let path = PathBuf::from(name);
    if path.components().count() > 1 || name.as_encoded_bytes().contains(&b'/') {
        return Ok(path);
    }
    let folders = std::env::var_os("PATH").unwrap_or_else(|| "/bin:/usr/bin".into());
    let found = std::env::split_paths(&folders).map(|folder| folder.join(&path)).find(|path| path.is_file());
    found.ok_or(Failure::NotFound { path })
}
