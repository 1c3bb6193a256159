//! `chestnut explain-violation`: what the kernel's log says of a refused call, in words.
//!
//! Input: text with lines of the audit log. Output: for each refused call its name, the function that makes it, and
//! what would allow it.

use std::path::Path;

use crate::arguments::ExplainViolation;
use crate::failure::Failure;
use crate::program;

/// Does what the arguments say.
pub(crate) fn run(command: &ExplainViolation) -> Result<String, Failure> {
    let text = program::read_text(
        command.log.as_deref().unwrap_or(Path::new("-")),
        "bytes of the log",
        &command.limits.limits(),
    )?;
    Ok(chestnut_tracer::explain_violations(&String::from_utf8_lossy(&text)))
}
