//! `chestnut refine`: a policy beside what traces show.
//!
//! Input: a policy and traces. Output: the differences, for a person; the policy with the changes that are wanted.

use chestnut_analyzer::plain_text;
use chestnut_tracer::{Changes, Messages, Refinement, Trace};

use crate::arguments::Refine;
use crate::failure::Failure;
use crate::program;

/// Does what the arguments say.
pub(crate) fn run(command: &Refine, messages: &Messages) -> Result<String, Failure> {
    let limits = command.limits.limits();
    for trace in &command.traces {
        program::check_place(command.output.as_ref(), trace)?;
    }
    let policy = program::read_policy(&command.policy, &limits)?;
    let traces = command.traces.iter().map(|path| Trace::read(path, &limits)).collect::<Result<Vec<_>, _>>()?;
    let found = Refinement::new(&policy, &traces)?;
    let changes = Changes { add: command.add, remove_unused: command.remove_unused };
    let text = found.text(&policy, changes);
    let refined = format!("{}\n", serde_json::to_string_pretty(&found.apply(&policy, changes))?);
    if let Some(path) = command.output.as_ref().filter(|path| !program::is_stream(path)) {
        program::write(path, refined)?;
        return Ok(text);
    }
    if command.output.is_none() && !command.add && !command.remove_unused {
        return Ok(text);
    }
    // The policy goes where another program reads it, so the differences go where a person does.
    messages.say(format_args!("{}", plain_text::page(&text)));
    Ok(refined)
}
