//! `chestnut explain`: why a program may make a call, or may not; what lies behind a function; what another program or
//! version may call more.
//!
//! Input: a program and calls, a function, or a second program. Output: for each call every place that makes it, with the
//! way from where the program starts, step by step; or why nothing makes it. What executed programs call is shown as the
//! policy has it.

mod difference;

use std::fmt::Write;
use std::path::Path;

use chestnut_analyzer::explanation::{
    CallExplanation, Explanation, NotReached, Question, SiteExplanation, Step, StepKind, Through, Unreached,
};
use chestnut_analyzer::policy::Evidence;
use chestnut_analyzer::syscall::SyscallNr;
use chestnut_rewriter::command_line::Execution;
use serde_json::{Map, Value, json};

use crate::analyze::count;
use crate::arguments::Explain;
use crate::failure::Failure;
use crate::place;
use crate::style::Style;
use crate::subject::Subject;

/// Of more places that make a call, the short form shows the first ones without the way there.
const SHORT_LIST: usize = 12;

/// Does what the arguments say.
pub(crate) fn run(command: &Explain, style: Style) -> Result<String, Failure> {
    if let Some(other) = &command.diff {
        return difference::run(command, other, style);
    }
    let question =
        Question { calls: command.calls.iter().copied().collect(), through: command.all_paths_through.clone() };
    let (subject, explanation) = Subject::explained(&command.file, &command.analysis, &question)?;
    if command.json {
        return json(command, &subject, &explanation);
    }
    let answer = Answer { command, subject: &subject, style };
    let mut text = match &command.all_paths_through {
        Some(name) => answer.through(name, &explanation.through),
        None => command.calls.iter().map(|call| answer.call(*call, explanation.calls.get(call))).collect(),
    };
    if !subject.policy.unresolved.is_empty() {
        let sites = count(subject.policy.unresolved.len(), "system call");
        let _ =
            writeln!(text, "{}", style.warning(&format!("{sites} with a number that is not known may be any call")));
    }
    Ok(text)
}

fn json(command: &Explain, subject: &Subject, explanation: &Explanation) -> Result<String, Failure> {
    let found = command.calls.iter().map(|call| (call.to_string(), json!(subject.policy.allowed.get(call))));
    let refused = command.calls.iter().filter_map(|call| Some((call.to_string(), json!(subject.refused.get(call)?))));
    let details = explanation.calls.iter().map(|(call, found)| (call.to_string(), json!(found)));
    let value = json!({
        "program": subject.policy.program,
        "calls": found.collect::<Map<String, Value>>(),
        "refused": refused.collect::<Map<String, Value>>(),
        "details": details.collect::<Map<String, Value>>(),
        "through": explanation.through.iter().map(through_json).collect::<Vec<_>>(),
    });
    Ok(format!("{value:#}\n"))
}

fn through_json(through: &Through) -> Value {
    let calls = through.calls.iter().map(|(call, site)| (call.to_string(), json!(site)));
    json!({
        "function": through.function,
        "root": through.root,
        "path": through.path,
        "calls": calls.collect::<Map<String, Value>>(),
        "only_through": through.only_through.iter().map(ToString::to_string).collect::<Vec<_>>(),
    })
}

struct Answer<'run> {
    command: &'run Explain,
    subject: &'run Subject,
    style: Style,
}

// Writing to a string cannot fail.
impl Answer<'_> {
    fn call(&self, call: SyscallNr, found: Option<&CallExplanation>) -> String {
        let name = self.style.bold(&call.to_string());
        let sites = found.map_or(&[][..], |found| found.sites.as_slice());
        let made = |evidence: &Evidence| {
            let others = match (sites.split_first(), evidence) {
                (Some((_, others)), Evidence::Site { .. }) => self.others(others),
                _ => String::new(),
            };
            self.first(evidence, found) + &others
        };
        let subject = self.subject;
        match (subject.policy.allowed.get(&call), subject.refused.get(&call), subject.failing.get(&call)) {
            (Some(allowed), ..) => format!("{name} is allowed:\n{}", made(&allowed.evidence)),
            (None, Some(needed), _) => {
                let what = self.style.warning("is refused by the filter in the file");
                let (why, way) = (subject.why_refused(call), made(&needed.evidence));
                let file = self.command.file.display();
                let hint = format!("to allow it: chestnut-patch --repatch --allow {call} {file} NEW");
                format!("{name} {what} ({why}), although the program can make it:\n{way}  {hint}\n")
            }
            (.., Some(&number)) => format!("{name} fails: --exec {}\n", Execution::Deny(number)),
            (None, None, None) => {
                let unreached = found.map_or(&[][..], |found| found.unreached.as_slice());
                format!("{name} is not allowed: {}", self.why_not(unreached))
            }
        }
    }

    /// The first way to a call: with the kinds of steps, if they are known.
    fn first(&self, evidence: &Evidence, found: Option<&CallExplanation>) -> String {
        match (found.and_then(|found| found.sites.first()), evidence) {
            (Some(site), Evidence::Site { .. }) => self.way(site),
            (_, evidence) => place::lines(evidence, "    "),
        }
    }

    fn way(&self, site: &SiteExplanation) -> String {
        let mut text = self.steps(&site.path, "    ", &start(site.root));
        let _ = writeln!(text, "    {}: system call{}", place::long(&site.site), registers(site));
        text
    }

    /// A line for each step; `start` is what makes the first one one.
    fn steps(&self, path: &[Step], indent: &str, start: &str) -> String {
        let mut text = String::new();
        for step in path {
            let kind = step.by.map_or_else(|| start.to_owned(), |kind| format!("{} ", word(kind)));
            let _ = writeln!(text, "{indent}{}{}", self.style.faint(&kind), place::long(&step.at));
        }
        text
    }

    fn others(&self, sites: &[SiteExplanation]) -> String {
        if sites.is_empty() {
            return String::new();
        }
        let mut text = format!("  and by {}:\n", count(sites.len(), "other place"));
        let shown = if self.command.verbose { sites.len() } else { SHORT_LIST };
        for site in sites.iter().take(shown) {
            if self.command.verbose {
                text.push_str(&self.way(site));
                text.push('\n');
            } else {
                let _ = writeln!(text, "    {}{}", place::short(&site.site), registers(site));
            }
        }
        let hidden = sites.len().saturating_sub(shown);
        if hidden > 0 {
            let _ = writeln!(text, "    {}", self.style.faint(&format!("and {hidden} more (-v shows them)")));
        }
        text
    }

    fn why_not(&self, places: &[Unreached]) -> String {
        let Some((nearest, others)) = places.split_first() else {
            return "no code that was read makes it by a number that is fixed there\n".to_owned();
        };
        let mut text = format!("nothing that is reached makes it; nearest is {}\n", place::long(&nearest.site));
        let start = nearest.path.first().map_or_else(String::new, place::long);
        let _ = match nearest.reason {
            NotReached::Guarded => {
                writeln!(
                    text,
                    "    {start} is reached, and leads there only if something ran first that is not reached"
                )
            }
            NotReached::BeforeTheFilter => writeln!(text, "    {start} runs before the filter is on, and only then"),
            NotReached::UnusedExport => writeln!(text, "    {start} is exported; {}", importers(&nearest.imported_by)),
            NotReached::NoReference => writeln!(text, "    nothing in the file refers to {start}"),
        };
        for step in nearest.path.iter().skip(1) {
            let _ = writeln!(text, "    {} {}", self.style.faint("leads to"), place::long(step));
        }
        if !others.is_empty() {
            let _ = writeln!(text, "    {}", self.style.faint(&format!("and {}", count(others.len(), "other place"))));
        }
        text
    }

    fn through(&self, name: &str, found: &[Through]) -> String {
        if found.is_empty() {
            return format!(
                "there is no function {name} in the files that were read; by its name as nm has it, or as FILE+0xADDRESS\n"
            );
        }
        found.iter().map(|through| self.behind(through)).collect()
    }

    fn behind(&self, through: &Through) -> String {
        let name = self.style.bold(&place::long(&through.function));
        if through.path.is_empty() {
            return format!("{name} is not reached\n");
        }
        let mut text = format!("{name} is reached:\n{}", self.steps(&through.path, "    ", &start(through.root)));
        let wanted = |call: &SyscallNr| self.command.calls.is_empty() || self.command.calls.contains(call);
        let calls: Vec<_> = through.calls.iter().filter(|(call, _)| wanted(call)).collect();
        let _ = writeln!(text, "from there to {}:", count(calls.len(), "system call"));
        for (call, site) in calls {
            let only = if through.only_through.contains(call) { " (by no other way)" } else { "" };
            let _ = writeln!(text, "  {}{}", self.style.bold(&call.to_string()), self.style.warning(only));
            let steps = site.path.get(1..).unwrap_or_default();
            let _ = write!(text, "{}", self.steps(steps, "      ", ""));
            let _ = writeln!(text, "      {}: system call{}", place::long(&site.site), registers(site));
        }
        text
    }
}

/// Before the first step: why the way starts there.
fn start(root: &str) -> String {
    if root.is_empty() { String::new() } else { format!("{root}: ") }
}

fn registers(site: &SiteExplanation) -> String {
    let known = site.registers.iter().map(|(name, values)| format!("{name} = {}", values.join(" or ")));
    let known: Vec<_> = known.collect();
    if known.is_empty() { String::new() } else { format!(", {}", known.join(", ")) }
}

fn importers(files: &[std::path::PathBuf]) -> String {
    let names: Vec<_> = files.iter().map(|path| path.file_name().map_or(path.as_path(), Path::new).display()).collect();
    match names.as_slice() {
        [] => "no other file imports it".to_owned(),
        [one] => format!("{one} imports it, and nothing that is reached there uses it"),
        [one, others @ ..] => {
            format!("{one} and {} more import it, and nothing that is reached there uses it", others.len())
        }
    }
}

/// What the step before does.
fn word(kind: StepKind) -> &'static str {
    match kind {
        StepKind::Call => "calls",
        StepKind::Jump => "jumps to",
        StepKind::JumpTable => "jumps by a table to",
        StepKind::LandingPad => "on an exception goes to",
        StepKind::Import => "imports",
        StepKind::Pointer => "calls through a pointer",
        StepKind::Address => "takes the address of",
        StepKind::Data => "holds the address of",
    }
}
