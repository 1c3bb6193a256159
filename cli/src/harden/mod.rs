//! `chestnut harden`: many programs of a tree, each patched as `chestnut-patch` would, each library analyzed once.
//!
//! Input: a tree and which of its programs. Output: patched files, in their places or in another tree; what became of
//! each. Programs are independent: one that is refused stops no other, and what is done stays done if the run is ended.
//! A second run passes over what is as the first one left it.

mod program;
mod summary;
mod tree;

use std::process::ExitCode;

use chestnut_analyzer::Session;
use chestnut_analyzer::plain_text;
use chestnut_tracer::Messages;
use indicatif::ProgressBar;

use crate::arguments::Harden;
use crate::failure::Failure;
use crate::many;
use crate::style::Style;
use program::{Outcome, harden};
use summary::Summary;
use tree::Program;

/// Does what the arguments say.
pub(crate) fn run(command: &Harden, style: Style, messages: &Messages) -> Result<(String, ExitCode), Failure> {
    let programs = tree::programs(command)?;
    let session = session(command)?;
    let bar = many::progress(programs.len());
    let done = many::each(&programs, many::jobs(command.jobs), |program| {
        let outcome = harden(command, program, &session);
        tell(&bar, messages, command.quiet, program, &outcome);
        (program, outcome)
    });
    bar.finish_and_clear();
    let summary = Summary::new(done);
    if let Some(folder) = &command.report {
        summary.write(folder)?;
    }
    let text = if command.json { summary.json() } else { summary.text(style) };
    Ok((text, if summary.is_complete() { ExitCode::SUCCESS } else { ExitCode::FAILURE }))
}

fn session(command: &Harden) -> Result<Session, Failure> {
    let unusable = |source| Failure::Analysis { path: command.analysis.root.clone(), source };
    command.analysis.cache.session().map_err(unusable)
}

fn tell(bar: &ProgressBar, messages: &Messages, is_quiet: bool, program: &Program, outcome: &Outcome) {
    bar.set_message(program.name().to_owned());
    bar.inc(1);
    if is_quiet || !bar.is_hidden() && outcome.is_good() {
        return;
    }
    bar.suspend(|| {
        messages.say(format_args!("{}\n", plain_text::line(&format!("{}: {outcome}", program.path.display()))))
    });
}
