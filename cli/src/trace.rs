//! `chestnut trace`: which calls a program makes.
//!
//! Input: a command or a process. Output: a trace, or a report; the exit status of the program.

use std::collections::BTreeSet;
use std::io::{IsTerminal, Write};
use std::process::ExitCode;

use chestnut_analyzer::syscall::SyscallNr;
use chestnut_tracer::{Outcome, Target, TraceOptions};

use crate::arguments::Trace;
use crate::failure::Failure;
use crate::program;

/// Does what the arguments say.
pub(crate) fn run(command: &Trace) -> Result<(String, ExitCode), Failure> {
    let target = match command.pid {
        Some(pid) => Target::Process(pid),
        None => Target::Command(command.command.clone()),
    };
    let is_terminal = std::io::stderr().is_terminal();
    let options = TraceOptions {
        target,
        output: command.output.clone(),
        known: known(command)?,
        paths: command.paths,
        live: is_terminal && !command.quiet && has_terminal_for_itself(command.pid.is_some()),
    };
    let outcome = chestnut_tracer::trace(&options)?;
    let name = command.output.as_ref().map(|path| path.display().to_string());
    Ok((String::new(), finish(&outcome, name.as_deref(), command.quiet)))
}

/// A program that is started here may draw on the terminal, unless its output goes elsewhere.
pub(crate) fn has_terminal_for_itself(is_attached: bool) -> bool {
    is_attached || !std::io::stdout().is_terminal()
}

fn known(command: &Trace) -> Result<Option<BTreeSet<SyscallNr>>, Failure> {
    let (Some(path), Some(name)) = (&command.policy, command.command.first()) else { return Ok(None) };
    let executable = program::executable(name)?;
    let bytes = program::read(&executable)?;
    let policy = program::policy_for(path, &executable, &bytes)?;
    Ok(Some(policy.allowed.into_keys().collect()))
}

/// Says what was seen, and ends as the program has ended.
pub(crate) fn finish(outcome: &Outcome, file: Option<&str>, is_quiet: bool) -> ExitCode {
    // The program has ended; what cannot be written about it changes nothing of that.
    let mut stderr = std::io::stderr();
    if !is_quiet {
        let _ = match file {
            Some(file) => writeln!(stderr, "chestnut: {file}: {}", outcome.summary),
            None => write!(stderr, "{}", outcome.report),
        };
    }
    for trouble in &outcome.trouble {
        let _ = writeln!(stderr, "chestnut: {trouble}");
    }
    ExitCode::from(chestnut_tracer::end_as(outcome.status, outcome.signal))
}
