//! From a path to bytes and to a policy.
//!
//! Input: the file that a command is about. Output: its bytes, or the policy of the program in it. Refused for the same
//! reasons as by `chestnut-patch`: a script, a library, a damaged file.

use std::path::Path;

use chestnut_analyzer::policy::Policy;
use chestnut_rewriter::command_line::AnalysisFlags;

use crate::failure::Failure;

/// Reads a file.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    let unreadable = |source| Failure::Unreadable { path: path.to_owned(), source };
    // Before it is opened: opening a pipe waits for somebody to write to it.
    let metadata = std::fs::metadata(path).map_err(unreadable)?;
    if !metadata.is_file() {
        return Err(Failure::NotRegular { path: path.to_owned() });
    }
    std::fs::read(path).map_err(unreadable)
}

/// The policy of a program; of a patched one, that of the program as it was before. Calls that are to fail are not
/// allowed ones.
pub(crate) fn policy(path: &Path, flags: &AnalysisFlags) -> Result<Policy, Failure> {
    let bytes = read(path)?;
    let refused = |source| Failure::Refused { path: path.to_owned(), source };
    let is_patched = chestnut_rewriter::is_patched(&bytes).map_err(refused)?;
    let original = is_patched.then(|| chestnut_rewriter::unpatch(&bytes)).transpose().map_err(refused)?;
    chestnut_rewriter::check(original.as_deref().unwrap_or(&bytes)).map_err(refused)?;
    let analysis = |source| Failure::Analysis { path: path.to_owned(), source };
    let mut policy = flags.analyze(path, original.as_deref()).map_err(analysis)?;
    let failing = flags.failing();
    policy.allowed.retain(|call, _| !failing.contains_key(call));
    Ok(policy)
}
