//! `chestnut trace`: which calls a program makes.
//!
//! Input: a command or a process. Output: a trace, or a report; the exit status of the program.

use std::collections::BTreeSet;
use std::io::IsTerminal;
use std::process::ExitCode;

use chestnut_analyzer::plain_text;
use chestnut_analyzer::syscall::SyscallNr;
use chestnut_tracer::{Messages, Outcome, Target, TraceOptions};

use crate::arguments::Trace;
use crate::failure::Failure;
use crate::program;

/// Does what the arguments say.
pub(crate) fn run(command: &Trace, messages: &Messages) -> Result<(String, ExitCode), Failure> {
    if command.output.as_deref().is_some_and(program::is_stream) {
        return Err(Failure::TraceToStream);
    }
    if let Some(executable) = command.command.first().and_then(|name| program::executable(name).ok()) {
        program::check_place(command.output.as_ref(), &executable)?;
    }
    let target = match command.pid {
        Some(pid) => Target::Process(pid),
        None => Target::Command(command.command.clone()),
    };
    let options = TraceOptions {
        target,
        output: command.output.clone(),
        known: known(command)?,
        paths: command.paths,
        live: !command.quiet && may_draw(command.pid.is_some()),
        messages: messages.clone(),
    };
    let outcome = chestnut_tracer::trace(&options)?;
    let name = command.output.as_ref().map(|path| path.display().to_string());
    Ok((String::new(), finish(&outcome, name.as_deref(), command.quiet, messages)))
}

/// Whether a line may be renewed on the terminal. A program that is started here may draw there itself, unless its
/// output goes elsewhere.
#[expect(clippy::disallowed_methods, reason = "nothing is written")]
pub(crate) fn may_draw(is_attached: bool) -> bool {
    std::io::stderr().is_terminal() && (is_attached || !std::io::stdout().is_terminal())
}

fn known(command: &Trace) -> Result<Option<BTreeSet<SyscallNr>>, Failure> {
    let (Some(path), Some(name)) = (&command.policy, command.command.first()) else { return Ok(None) };
    let executable = program::executable(name)?;
    let limits = command.limits.limits();
    let bytes = program::read(&executable, &limits)?;
    let policy = program::policy_for(path, &executable, &bytes, &limits)?;
    Ok(Some(policy.allowed.into_keys().collect()))
}

/// Says what was seen, and ends as the program has ended.
pub(crate) fn finish(outcome: &Outcome, file: Option<&str>, is_quiet: bool, messages: &Messages) -> ExitCode {
    match file {
        _ if is_quiet => {}
        Some(file) => messages.say(format_args!("chestnut: {file}: {}\n", outcome.summary)),
        None => messages.say(format_args!("{}", plain_text::page(&outcome.report))),
    }
    for trouble in &outcome.trouble {
        messages.say(format_args!("chestnut: {trouble}\n"));
    }
    ExitCode::from(chestnut_tracer::end_as(outcome.status, outcome.signal))
}
