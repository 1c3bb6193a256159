//! `chestnut run`: the permission system.
//!
//! Input: a command, and a policy or what stands in its place: that of the patched program, or what the analysis finds.
//! Output: the exit status of the program; answers in a file of decisions.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::ExitCode;

use chestnut_analyzer::syscall::SyscallNr;
use chestnut_rewriter::command_line::AnalysisFlags;
use chestnut_tracer::{Messages, Mode, RunOptions};
use clap::Parser;

use crate::arguments::Run;
use crate::failure::Failure;
use crate::{program, subject, trace};

/// The analysis as it is without flags.
#[derive(Debug, Parser)]
struct Plain {
    #[command(flatten)]
    flags: AnalysisFlags,
}

/// Does what the arguments say.
pub(crate) fn run(command: &Run, messages: &Messages) -> Result<(String, ExitCode), Failure> {
    let Some(name) = command.command.first() else { return Ok((String::new(), ExitCode::FAILURE)) };
    let executable = program::executable(name)?;
    program::check_place(command.output.as_ref(), &executable)?;
    let limits = command.limits.limits();
    let bytes = program::read(&executable, &limits)?;
    let patched = chestnut_rewriter::inspect(&bytes).ok();
    let allowed: BTreeSet<SyscallNr> = match (&command.policy, &patched) {
        (Some(path), _) => program::policy_for(path, &executable, &bytes, &limits)?.allowed.into_keys().collect(),
        (None, Some(found)) => found.filter.specification().allowed().clone(),
        (None, None) => {
            let wrong = |source| Failure::RecordedFlags { path: executable.clone(), source };
            let Plain { flags } = Plain::try_parse_from(["chestnut"]).map_err(wrong)?;
            subject::needs(&executable, &flags)?.allowed.into_keys().collect()
        }
    };
    let program = chestnut_rewriter::program_sha256(&bytes);
    let decisions = command.decisions.clone().or_else(|| default_decisions(&executable, &program));
    let options = RunOptions {
        command: command.command.clone(),
        mode: mode(command),
        allowed,
        program,
        // Its own filter would kill it before anybody could be asked.
        skip: patched.map(|found| found.entry.wrapping_sub(found.stub_address).cast_signed()),
        decisions,
        ask_command: command.ask_command.clone(),
        output: command.output.clone(),
        live: !command.ask && trace::may_draw(false),
        messages: messages.clone(),
    };
    let outcome = chestnut_tracer::run(&options)?;
    let file = command.output.as_ref().map(|path| path.display().to_string());
    Ok((String::new(), trace::finish(&outcome, file.as_deref(), file.is_none() && !command.learn, messages)))
}

const fn mode(command: &Run) -> Mode {
    match (command.ask, command.learn) {
        (true, _) => Mode::Ask,
        (_, true) => Mode::Learn,
        _ => Mode::Log,
    }
}

/// `$XDG_STATE_HOME/chestnut/NAME-SHA256.json` (XDG base directories); nothing is kept without a home.
fn default_decisions(executable: &std::path::Path, program: &str) -> Option<PathBuf> {
    let folder = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let state = folder("XDG_STATE_HOME").or_else(|| folder("HOME").map(|home| home.join(".local/state")))?;
    let name = executable.file_name()?.to_string_lossy().into_owned();
    Some(state.join("chestnut").join(format!("{name}-{}.json", program.get(..16)?)))
}
