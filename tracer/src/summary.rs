//! What the two ways to run a program have in common, and what they tell a person afterwards.
//!
//! Input: [`TraceOptions`] or [`RunOptions`]. Output: [`Outcome`].

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fmt::{self, Write};
use std::path::PathBuf;

use chestnut_analyzer::syscall::SyscallNr;

use crate::ask::Asker;
use crate::decisions::Decisions;
use crate::engine::{Ending, Engine, Plan};
use crate::error::Error;
use crate::gate::{Gate, Mode};
use crate::live::Live;
use crate::messages::Messages;
use crate::recorder::Recorder;
use crate::session;
use crate::trace::{Header, Phase, Refusal, TRACE_FORMAT};

/// What is traced.
#[derive(Clone, Debug)]
pub enum Target {
    /// A command: program and arguments.
    Command(Vec<OsString>),
    /// A process that runs.
    Process(i32),
}

/// How a program is traced.
#[derive(Clone, Debug)]
pub struct TraceOptions {
    /// What.
    pub target: Target,
    /// Where the trace goes.
    pub output: Option<PathBuf>,
    /// Calls that do not stop the program from its entry point on.
    pub known: Option<BTreeSet<SyscallNr>>,
    /// Whether paths are kept.
    pub paths: bool,
    /// Whether a line is shown while the program runs.
    pub live: bool,
    /// Where a person is told something meanwhile.
    pub messages: Messages,
}

/// How a program is run under a policy.
#[derive(Clone, Debug)]
pub struct RunOptions {
    /// Program and arguments.
    pub command: Vec<OsString>,
    /// What becomes of other calls.
    pub mode: Mode,
    /// Calls that are allowed.
    pub allowed: BTreeSet<SyscallNr>,
    /// SHA-256 of the program, before it was patched.
    pub program: String,
    /// Distance from the entry point to where the program is to begin, in a patched one, whose own filter would kill.
    pub skip: Option<i64>,
    /// Where decisions are kept.
    pub decisions: Option<PathBuf>,
    /// Asks by this command and not on the terminal.
    pub ask_command: Option<String>,
    /// Where the trace of what was not allowed goes.
    pub output: Option<PathBuf>,
    /// Whether a line is shown while the program runs.
    pub live: bool,
    /// Where a person is told something meanwhile.
    pub messages: Messages,
}

/// What was seen.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Outcome {
    /// Exit status of the program, if it has ended by itself.
    pub status: Option<i32>,
    /// Signal that has ended it.
    pub signal: Option<i32>,
    /// For a person: calls by image.
    pub report: String,
    /// In one line.
    pub summary: String,
    /// What went wrong without stopping the program, as a file that could not be written.
    pub trouble: Vec<String>,
}

/// Traces a program.
///
/// # Errors
///
/// It cannot be started or traced, or a file cannot be written.
pub fn trace(options: &TraceOptions) -> Result<Outcome, Error> {
    let command: Vec<OsString> = match &options.target {
        Target::Command(words) => words.clone(),
        Target::Process(_) => Vec::new(),
    };
    let recorder = Recorder::new(options.output.as_deref(), header(&command, options.known.clone()))?;
    let plan = Plan { known: options.known.clone(), paths: options.paths, ..Plan::default() };
    let live = live(options.live, &options.messages);
    let (engine, ending) = match &options.target {
        Target::Command(words) => session::run(&session::c_words(words)?, plan, recorder, live)?,
        Target::Process(pid) => session::attach(*pid, Plan { known: None, ..plan }, recorder, live)?,
    };
    Ok(outcome(engine, ending))
}

/// Runs a program under the permission system.
///
/// # Errors
///
/// It cannot be started, traced or given a filter, there is nobody to ask, or a file cannot be read or written.
pub fn run(options: &RunOptions) -> Result<Outcome, Error> {
    let decisions = Decisions::read(options.decisions.as_deref(), &options.program)?;
    let asker = match options.mode {
        Mode::Ask => Some(Asker::new(options.ask_command.as_deref())?),
        Mode::Learn | Mode::Log => None,
    };
    let gate = Gate::new(options.mode, decisions, asker, options.messages.clone()).map_err(Error::Wait)?;
    let recorder = Recorder::new(options.output.as_deref(), header(&options.command, Some(options.allowed.clone())))?;
    let plan = Plan { known: Some(options.allowed.clone()), gate: Some(gate), skip: options.skip, ..Plan::default() };
    let live = live(options.live, &options.messages);
    let (engine, ending) = session::run(&session::c_words(&options.command)?, plan, recorder, live)?;
    Ok(outcome(engine, ending))
}

fn live(is_on: bool, messages: &Messages) -> Live {
    Live::new(is_on.then(|| messages.clone()))
}

fn header(command: &[OsString], known: Option<BTreeSet<SyscallNr>>) -> Header {
    Header {
        format: TRACE_FORMAT,
        tool: format!("chestnut {}", env!("CARGO_PKG_VERSION")),
        command: command.iter().map(|word| word.to_string_lossy().into_owned()).collect(),
        known: known.unwrap_or_default(),
    }
}

fn outcome(mut engine: Engine, ending: Ending) -> Outcome {
    engine.recorder.end(ending.status, ending.signal);
    let gate = engine.plan.gate.as_mut().and_then(|gate| gate.failure.take());
    let trouble: Vec<String> = gate
        .into_iter()
        .chain(engine.recorder.take_failure())
        .map(|error| chestnut_rewriter::command_line::one_line(&error))
        .collect();
    let recorder = &engine.recorder;
    let calls: BTreeSet<&str> = recorder.entries().iter().map(|entry| entry.seen.call.as_str()).collect();
    let summary = format!(
        "{} from {}, {}, {}; {}",
        counted(calls.len(), "different call", "s"),
        counted(recorder.entries().len(), "place", "s"),
        counted(recorder.images().len(), "program", "s"),
        counted(engine.tree.seen, "process", "es"),
        counted(recorder.stops, "stop", "s"),
    );
    Outcome { status: ending.status, signal: ending.signal, report: report(recorder), summary, trouble }
}

/// `1 place`, `2 places`.
fn counted(number: impl fmt::Display + PartialEq + From<u8>, noun: &str, plural: &str) -> String {
    let end = if number == 1.into() { "" } else { plural };
    format!("{number} {noun}{end}")
}

/// For each image its calls, those behind the entry point first.
fn report(recorder: &Recorder) -> String {
    let mut text = String::new();
    for image in recorder.images() {
        let parent = image.parent.and_then(|parent| recorder.images().get(parent));
        let by = parent.map_or_else(String::new, |parent| format!(", executed by {}", parent.file.path.display()));
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{}{by}", image.file.path.display());
        if recorder.entries().iter().all(|entry| entry.seen.image != image.id) {
            let _ = writeln!(text, "  nothing but what the policy allows");
        }
        for (phase, heading) in [(Phase::After, "from the entry point on"), (Phase::Before, "before the entry point")] {
            let mut calls: BTreeMap<(u64, &str, Option<Refusal>), (u64, bool)> = BTreeMap::new();
            let here = |entry: &&crate::recorder::Entry| entry.seen.image == image.id && entry.seen.phase == phase;
            for entry in recorder.entries().iter().filter(here) {
                let key = (entry.seen.number, entry.seen.call.as_str(), entry.seen.refused);
                let sum = calls.entry(key).or_default();
                *sum = (sum.0.saturating_add(entry.count), sum.1 | entry.at_least);
            }
            if calls.is_empty() {
                continue;
            }
            let _ = writeln!(text, "  {heading}:");
            for ((_, call, refused), (count, at_least)) in calls {
                let more = if at_least { " or more" } else { "" };
                let refused = match refused {
                    None => "",
                    Some(Refusal::Filter) => ", refused by its filter",
                    Some(Refusal::Person) => ", refused",
                };
                let _ = writeln!(text, "    {call} ({count}{more}{refused})");
            }
        }
    }
    for gap in recorder.gaps() {
        let _ = writeln!(text, "not seen: {gap}");
    }
    text
}
