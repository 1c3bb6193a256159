//! The table about many programs: what filters take away.
//!
//! Input: programs. Output: a line for each: calls blocked by number and share, whether execve and mprotect are, and how
//! many known vulnerabilities of the kernel can no longer be reached; the means at the end. As text or JSON.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use chestnut_analyzer::path_text;
use chestnut_analyzer::policy::Policy;
use chestnut_analyzer::syscall::SyscallNr;
use serde_json::{Value, json};

use crate::arguments::Report;
use crate::failure::Failure;
use crate::many;
use crate::style::Style;
use crate::subject::Subject;
use crate::vulnerabilities::{Tally, Vulnerability};

/// One program.
struct Line {
    path: PathBuf,
    blocked: usize,
    executes_nothing: bool,
    protects_memory: bool,
    tally: Tally,
    is_uncertain: bool,
}

/// Does what the arguments say.
pub(super) fn run(command: &Report, known: &[Vulnerability], style: Style) -> Result<(String, ExitCode), Failure> {
    let failed = |source| Failure::Analysis { path: command.files.first().cloned().unwrap_or_default(), source };
    let session = command.analysis.cache.session().map_err(failed)?;
    let bar = many::progress(command.files.len());
    let found = many::each(&command.files, many::jobs(command.jobs), |path| {
        bar.set_message(path.display().to_string());
        let found = Subject::one_of(&session, path, &command.analysis);
        bar.inc(1);
        found.map(|subject| Line::new(path, &subject.policy, known)).map_err(|failure| reason(path, &failure))
    });
    bar.finish_and_clear();
    let mut lines = Vec::new();
    let mut refused = Vec::new();
    for (path, found) in command.files.iter().zip(found) {
        match found {
            Ok(line) => lines.push(line),
            Err(reason) => refused.push((path.as_path(), reason)),
        }
    }
    let text = if command.json { json(&lines, &refused) } else { text(&lines, &refused, style) };
    Ok((text, if refused.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }))
}

/// Why there is no line for a file, whose name stands before it.
fn reason(path: &Path, failure: &Failure) -> String {
    let line = failure.line();
    line.strip_prefix(&format!("{}: ", path.display())).map_or_else(|| line.clone(), str::to_owned)
}

impl Line {
    fn new(path: &Path, policy: &Policy, known: &[Vulnerability]) -> Self {
        let is_blocked =
            |name: &str| SyscallNr::from_name(name).is_some_and(|call| !policy.allowed.contains_key(&call));
        Self {
            path: path.to_owned(),
            blocked: policy.blocked(),
            executes_nothing: is_blocked("execve") && is_blocked("execveat"),
            protects_memory: is_blocked("mprotect") && is_blocked("pkey_mprotect"),
            tally: Tally::new(known, policy),
            is_uncertain: !policy.unresolved.is_empty(),
        }
    }
}

/// One number of another, in percent.
fn share(part: usize, all: usize) -> f64 {
    let [part, all] = [part, all].map(|number| f64::from(u32::try_from(number).unwrap_or(u32::MAX)));
    if all > 0.0 { 100.0 * part / all } else { 0.0 }
}

fn mean(lines: &[Line], value: impl Fn(&Line) -> f64) -> f64 {
    let number = u32::try_from(lines.len()).unwrap_or(u32::MAX).max(1);
    lines.iter().map(value).sum::<f64>() / f64::from(number)
}

fn text(lines: &[Line], refused: &[(&Path, String)], style: Style) -> String {
    let known = SyscallNr::all_known().count();
    let width = lines.iter().map(|line| line.path.display().to_string().chars().count()).max().unwrap_or(0).max(16);
    let head = format!(
        "{:width$}  {:>14}  {:8}  {:8}  {:>25}",
        "program", "calls blocked", "exec", "mprotect", "vulnerabilities mitigated"
    );
    let mut text = format!("{}\n", style.bold(head.trim_end()));
    let word = |is_blocked: bool| if is_blocked { "blocked" } else { "allowed" };
    // Writing to a string cannot fail.
    for line in lines {
        let _ = writeln!(
            text,
            "{:width$}  {:>5} {:>6.1} %  {:8}  {:8}  {:>14} {:>8.1} %{}",
            line.path.display().to_string(),
            line.blocked,
            share(line.blocked, known),
            word(line.executes_nothing),
            word(line.protects_memory),
            line.tally.mitigated,
            share(line.tally.mitigated, line.tally.all),
            if line.is_uncertain { "  numbers of some calls are not known" } else { "" },
        );
    }
    if lines.len() > 1 {
        let number = |wanted: fn(&Line) -> bool| {
            format!("{} of {}", lines.iter().filter(|line| wanted(line)).count(), lines.len())
        };
        let blocked = |line: &Line| share(line.blocked, known);
        let vulnerabilities = |line: &Line| share(line.tally.mitigated, line.tally.all);
        let _ = writeln!(
            text,
            "{:width$}  {:>12.1} %  {:8}  {:8}  {:>23.1} %",
            "mean; blocked in",
            mean(lines, blocked),
            number(|line| line.executes_nothing),
            number(|line| line.protects_memory),
            mean(lines, vulnerabilities),
        );
    }
    for (path, reason) in refused {
        let _ = writeln!(text, "{}", style.warning(&format!("{}: refused: {reason}", path.display())));
    }
    text
}

fn json(lines: &[Line], refused: &[(&Path, String)]) -> String {
    let known = SyscallNr::all_known().count();
    let programs: Vec<Value> = lines
        .iter()
        .map(|line| {
            json!({
                "path": path_text::text(&line.path),
                "blocked": line.blocked,
                "blocked_percent": share(line.blocked, known),
                "exec_blocked": line.executes_nothing,
                "mprotect_blocked": line.protects_memory,
                "vulnerabilities": { "mitigated": line.tally.mitigated, "partly": line.tally.partly, "all": line.tally.all },
                "unresolved": line.is_uncertain,
            })
        })
        .collect();
    let refused: Vec<_> =
        refused.iter().map(|(path, reason)| json!({ "path": path_text::text(path), "reason": reason })).collect();
    format!("{:#}\n", json!({ "known": known, "programs": programs, "refused": refused }))
}
