//! `chestnut COMMAND`: parse, run, print.
//!
//! Human text and JSON go to standard output, the one line about a failure to standard error.

mod analyze;
mod arguments;
mod cc;
mod check;
mod contribution;
mod explain;
mod export;
mod failure;
mod groups;
mod harden;
mod help;
mod inspect;
mod many;
mod notes;
mod place;
mod program;
mod refine;
mod report;
mod run;
mod style;
mod subject;
mod symbol;
mod trace;
mod violation;
mod vulnerabilities;

use std::io::Write;
use std::process::ExitCode;

use chestnut_analyzer::plain_text;
use chestnut_rewriter::command_line::{one_line, print};
use chestnut_tracer::Messages;
use clap::FromArgMatches;
use serde_json::json;

use arguments::{Arguments, Command};
use failure::Failure;
use style::Style;

/// No compiler was run.
const CANNOT_COMPILE: u8 = 127;

#[expect(clippy::disallowed_methods, reason = "all others are given the streams")]
fn main() -> ExitCode {
    let given: Vec<_> = std::env::args_os().skip(1).collect();
    if let Some((language, arguments)) = cc::asked(&given) {
        let failure = cc::run(language, arguments);
        let _ = writeln!(std::io::stderr().lock(), "chestnut: {}", one_line(&failure));
        return ExitCode::from(CANNOT_COMPILE);
    }
    let matches = arguments::command().get_matches();
    let Arguments { color, command } = Arguments::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    let mut stdout = std::io::stdout().lock();
    let answer = run(&command, Style::of(&stdout, color), &Messages::new(std::io::stderr()));
    let printed = answer.and_then(|(text, status)| {
        print(&mut stdout, &text).map_err(Failure::Output)?;
        Ok(status)
    });
    let failure = match printed {
        Ok(status) => return status,
        Err(failure) => failure,
    };
    // Nobody is left to be told if these fail; the status says it.
    let _ = writeln!(std::io::stderr().lock(), "chestnut: {}", failure.line());
    if command.is_json() {
        let _ = writeln!(stdout, "{:#}", json!({ "error": failure.line(), "status": failure.status() }));
    }
    ExitCode::from(failure.status())
}

/// What is to be printed, and the exit status.
fn run(asked: &Command, style: Style, messages: &Messages) -> Result<(Vec<u8>, ExitCode), Failure> {
    let text = match asked {
        Command::Analyze(command) => analyze::run(command, style)?,
        Command::Check(command) => return with_status(check::run(command, style)?, asked),
        Command::Explain(command) => explain::run(command, style)?,
        Command::Inspect(command) => inspect::run(command, style)?,
        Command::Notes { file, limits } => notes::run(file, &limits.limits())?,
        // What is asked of a compiler never comes here.
        Command::Cc { .. } | Command::Cxx { .. } => String::new(),
        Command::Export(command) => return Ok((export::run(command)?, ExitCode::SUCCESS)),
        Command::Harden(command) => return with_status(harden::run(command, style, messages)?, asked),
        Command::Report(command) => return with_status(report::run(command, style)?, asked),
        Command::Trace(command) => return with_status(trace::run(command, messages)?, asked),
        Command::Refine(command) => refine::run(command, messages)?,
        Command::Run(command) => return with_status(run::run(command, messages)?, asked),
        Command::ExplainViolation(command) => violation::run(command)?,
    };
    Ok((shown(text, asked), ExitCode::SUCCESS))
}

/// Nothing that a file calls itself may do something to the terminal. JSON has escapes of its own.
fn shown(text: String, command: &Command) -> Vec<u8> {
    let is_json = command.is_json() || matches!(command, Command::Refine(_));
    if is_json { text.into_bytes() } else { plain_text::page(&text).into_owned().into_bytes() }
}

fn with_status((text, status): (String, ExitCode), command: &Command) -> Result<(Vec<u8>, ExitCode), Failure> {
    Ok((shown(text, command), status))
}
