//! `chestnut-patch IN OUT`: parse, run, say what happened.

mod analysis;
mod cli;
mod failure;
mod report;
mod run;

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;
use serde_json::json;

use cli::Arguments;

#[expect(clippy::disallowed_methods, reason = "all others are given the streams")]
fn main() -> ExitCode {
    let arguments = Arguments::parse();
    // Not locked: the message of a panic in another thread would wait for the lock, and this thread for the other.
    let (mut stdout, mut stderr) = (std::io::stdout().lock(), std::io::stderr());
    let Err(failure) = run::run(&arguments, &mut stdout, &mut stderr) else {
        return ExitCode::SUCCESS;
    };
    // Nobody is left to be told if these fail; the status says it.
    let _ = writeln!(stderr, "chestnut-patch: {}", failure.line());
    if arguments.json {
        let _ = writeln!(stdout, "{:#}", json!({ "error": failure.line(), "status": failure.status() }));
    }
    ExitCode::from(failure.status())
}
