//! From a path to bytes and to a policy.
//!
//! Input: the file that a command is about. Output: its bytes, or the policy of the program in it. Refused for the same
//! reasons as by `chestnut-patch`: a script, a library, a damaged file.

use std::io::Read;
use std::path::{Path, PathBuf};

use chestnut_analyzer::Session;
use chestnut_analyzer::explanation::{Explanation, Question};
use chestnut_analyzer::policy::{POLICY_FORMAT, Policy};
use chestnut_rewriter::command_line::AnalysisFlags;
use chestnut_rewriter::output::{self, FileError};

use crate::failure::Failure;

/// Reads a file; `-` is standard input.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    if !is_stream(path) {
        return Ok(output::read(path)?.bytes);
    }
    let mut bytes = Vec::new();
    let unreadable = |source| FileError::Read { path: "standard input".into(), source };
    std::io::stdin().lock().read_to_end(&mut bytes).map_err(unreadable)?;
    Ok(bytes)
}

/// Whether a path stands for standard input or output.
pub(crate) fn is_stream(path: &Path) -> bool {
    path.as_os_str() == "-"
}

/// Writes a file that is no program.
pub(crate) fn write(path: &Path, bytes: impl AsRef<[u8]>) -> Result<(), Failure> {
    std::fs::write(path, bytes).map_err(|source| FileError::Write { path: path.to_owned(), source }.into())
}

/// The policy of a program; of a patched one, that of the program as it was before. Calls that are to fail are not
/// allowed ones. A file that holds a policy stands for its program.
pub(crate) fn policy(path: &Path, flags: &AnalysisFlags) -> Result<Policy, Failure> {
    let session = flags.cache.session().map_err(|source| Failure::Analysis { path: path.to_owned(), source })?;
    policy_in(&session, path, flags)
}

/// The same for one of many programs.
pub(crate) fn policy_in(session: &Session, path: &Path, flags: &AnalysisFlags) -> Result<Policy, Failure> {
    let bytes = read(path)?;
    if bytes.starts_with(b"{") {
        return parse_policy(path, &bytes);
    }
    if is_stream(path) {
        return Err(Failure::ProgramWithoutPlace);
    }
    let original = original(path, &bytes)?;
    let analysis = |source| Failure::Analysis { path: path.to_owned(), source };
    let policy = flags.analyze_in(session, path, original.as_deref()).map_err(analysis)?;
    Ok(without_failing(policy, flags))
}

/// The same, with the answer to a question.
pub(crate) fn explain(
    path: &Path,
    flags: &AnalysisFlags,
    question: &Question,
) -> Result<(Policy, Explanation), Failure> {
    let original = original(path, &read(path)?)?;
    let analysis = |source| Failure::Analysis { path: path.to_owned(), source };
    let (policy, explanation) = flags.explain(path, original.as_deref(), question).map_err(analysis)?;
    Ok((without_failing(policy, flags), explanation))
}

/// What the program was before it was patched, if it is; refused if it is none.
fn original(path: &Path, bytes: &[u8]) -> Result<Option<Vec<u8>>, Failure> {
    let refused = |source| Failure::Refused { path: path.to_owned(), source };
    let is_patched = chestnut_rewriter::is_patched(bytes).map_err(refused)?;
    let original = is_patched.then(|| chestnut_rewriter::unpatch(bytes)).transpose().map_err(refused)?;
    chestnut_rewriter::check(original.as_deref().unwrap_or(bytes)).map_err(refused)?;
    Ok(original)
}

fn without_failing(mut policy: Policy, flags: &AnalysisFlags) -> Policy {
    let failing = flags.failing();
    policy.allowed.retain(|call, _| !failing.contains_key(call));
    policy
}

/// Reads a policy.
pub(crate) fn read_policy(path: &Path) -> Result<Policy, Failure> {
    parse_policy(path, &read(path)?)
}

fn parse_policy(path: &Path, bytes: &[u8]) -> Result<Policy, Failure> {
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
pub(crate) fn policy_for(path: &Path, program: &Path, bytes: &[u8]) -> Result<Policy, Failure> {
    let policy = read_policy(path)?;
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
