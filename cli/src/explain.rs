//! `chestnut explain`: why a program may make a call.
//!
//! Input: a program and calls. Output: for each the way from where the program starts to the place that makes it, step
//! by step; or that there is none.

use std::fmt::Write;

use serde_json::{Map, Value, json};

use crate::analyze::count;
use crate::arguments::Explain;
use crate::failure::Failure;
use crate::style::Style;
use crate::{place, program};

/// Does what the arguments say.
pub(crate) fn run(command: &Explain, style: Style) -> Result<String, Failure> {
    let policy = program::policy(&command.file, &command.analysis)?;
    if command.json {
        let found = command.calls.iter().map(|call| Ok((call.to_string(), json!(policy.allowed.get(call)))));
        let calls = found.collect::<Result<Map<String, Value>, Failure>>()?;
        return Ok(format!("{:#}\n", json!({ "program": policy.program, "calls": calls })));
    }
    let mut text = String::new();
    for call in &command.calls {
        // Writing to a string cannot fail.
        let name = style.bold(&call.to_string());
        let _ = match policy.allowed.get(call) {
            Some(allowed) => write!(text, "{name} is allowed:\n{}", place::lines(&allowed.evidence, "    ")),
            None if command.analysis.failing().contains_key(call) => {
                writeln!(text, "{name} fails: --exec {}", command.analysis.exec)
            }
            None => writeln!(text, "{name} is not allowed: nothing that is reached makes it"),
        };
    }
    if !policy.unresolved.is_empty() {
        let sites = count(policy.unresolved.len(), "system call");
        let _ =
            writeln!(text, "{}", style.warning(&format!("{sites} with a number that is not known may be any call")));
    }
    Ok(text)
}
