//! `chestnut explain-violation`: what the kernel's log says of a refused call, in words.
//!
//! Input: text with lines of the audit log. Output: for each refused call its name, the function that makes it, and
//! what would allow it.

use std::io::Read;

use chestnut_rewriter::output::FileError;

use crate::arguments::ExplainViolation;
use crate::failure::Failure;
use crate::program;

/// Does what the arguments say.
pub(crate) fn run(command: &ExplainViolation) -> Result<String, Failure> {
    let bytes = match &command.log {
        Some(path) => program::read(path)?,
        None => {
            let mut bytes = Vec::new();
            let unreadable = |source| FileError::Read { path: "standard input".into(), source };
            std::io::stdin().lock().read_to_end(&mut bytes).map_err(unreadable)?;
            bytes
        }
    };
    Ok(chestnut_tracer::explain_violations(&String::from_utf8_lossy(&bytes)))
}
