//! What became of all programs.
//!
//! Input: outcomes. Output: a table for a person, JSON, and a folder of policies.

use std::fmt::Write as _;
use std::path::Path;

use chestnut_analyzer::path_text;
use chestnut_analyzer::policy::Policy;
use chestnut_analyzer::syscall::SyscallNr;
use chestnut_rewriter::output::FileError;
use serde_json::{Value, json};

use super::program::Outcome;
use super::tree::Program;
use crate::failure::Failure;
use crate::program;
use crate::style::Style;

/// Outcomes in the order of the programs' paths; libraries are left out.
pub(super) struct Summary<'run> {
    outcomes: Vec<(&'run Program, Outcome)>,
}

impl<'run> Summary<'run> {
    pub(super) fn new(mut outcomes: Vec<(&'run Program, Outcome)>) -> Self {
        outcomes.retain(|(_, outcome)| !matches!(outcome, Outcome::NoProgram));
        outcomes.sort_by(|(one, _), (other, _)| one.path.cmp(&other.path));
        Self { outcomes }
    }

    /// Whether no program was refused.
    pub(super) fn is_complete(&self) -> bool {
        self.outcomes.iter().all(|(_, outcome)| outcome.is_good())
    }

    fn policies(&self) -> impl Iterator<Item = (&Program, &Policy)> {
        self.outcomes.iter().filter_map(|(program, outcome)| match outcome {
            Outcome::Hardened { policy, .. } => Some((*program, policy.as_ref())),
            _ => None,
        })
    }

    fn number(&self, is_wanted: impl Fn(&Outcome) -> bool) -> usize {
        self.outcomes.iter().filter(|(_, outcome)| is_wanted(outcome)).count()
    }

    /// Calls blocked of those that are known, as shares of 100, for the programs that were patched now.
    fn shares(&self) -> Vec<f64> {
        let number = |number: usize| u32::try_from(number).map_or(f64::NAN, f64::from);
        let known = number(SyscallNr::all_known().count());
        self.policies().map(|(_, policy)| 100.0 * number(policy.blocked()) / known).collect()
    }

    fn mean_blocked(&self) -> Option<f64> {
        let shares = self.shares();
        let number: f64 = u32::try_from(shares.len()).ok().filter(|number| *number > 0)?.into();
        Some(shares.iter().sum::<f64>() / number)
    }

    /// For a person.
    pub(super) fn text(&self, style: Style) -> String {
        let shares = self.shares();
        let percent = |value: f64| format!("{value:.1} %");
        let [mean, least, most] = match self.mean_blocked() {
            Some(mean) => {
                [mean, shares.iter().copied().fold(mean, f64::min), shares.iter().copied().fold(mean, f64::max)]
                    .map(percent)
            }
            None => [const { String::new() }; 3],
        };
        let row = |name: &str, number: &str, shares: [&str; 3]| {
            let [mean, least, most] = shares;
            format!("{name:<12} {number:>8}  {mean:>19}  {least:>7}  {most:>7}").trim_end().to_owned()
        };
        let number = |is_wanted: fn(&Outcome) -> bool| self.number(is_wanted).to_string();
        let rows = [
            style.bold(&row("", "programs", ["calls blocked: mean", "least", "most"])),
            row("patched", &number(|outcome| matches!(outcome, Outcome::Hardened { .. })), [&mean, &least, &most]),
            row("done before", &number(|outcome| matches!(outcome, Outcome::Unchanged)), [""; 3]),
            row("refused", &number(|outcome| !outcome.is_good()), [""; 3]),
        ];
        let mut text = rows.join("\n") + "\n";
        for (program, outcome) in self.outcomes.iter().filter(|(_, outcome)| !outcome.is_good()) {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "  {}: {}", program.path.display(), style.warning(&outcome.to_string()));
        }
        text
    }

    /// For a program.
    pub(super) fn json(&self) -> String {
        let programs: Vec<_> = self.outcomes.iter().map(|(program, outcome)| entry(program, outcome)).collect();
        format!("{:#}\n", json!({ "programs": programs, "mean_blocked_percent": self.mean_blocked() }))
    }

    /// Writes `summary.json`, and each policy under the path of its program.
    pub(super) fn write(&self, folder: &Path) -> Result<(), Failure> {
        let write = |path: &Path, text: String| {
            let parent = path.parent().unwrap_or(folder);
            std::fs::create_dir_all(parent).map_err(|source| FileError::Write { path: parent.to_owned(), source })?;
            program::write(path, text)
        };
        write(&folder.join("summary.json"), self.json())?;
        for (_, policy) in self.policies() {
            let place = policy.program.path.strip_prefix("/").unwrap_or(&policy.program.path);
            let mut name = folder.join("policies").join(place).into_os_string();
            name.push(".json");
            write(Path::new(&name), format!("{}\n", serde_json::to_string_pretty(policy)?))?;
        }
        Ok(())
    }
}

fn entry(program: &Program, outcome: &Outcome) -> Value {
    let (status, details) = match outcome {
        Outcome::Hardened { policy, warnings } => {
            ("hardened", json!({ "allowed": policy.allowed.len(), "warnings": warnings }))
        }
        Outcome::Unchanged => ("unchanged", json!({})),
        Outcome::NoProgram => ("library", json!({})),
        Outcome::Refused(refusal) => {
            ("refused", json!({ "reason": chestnut_rewriter::command_line::one_line(refusal) }))
        }
    };
    let mut value = json!({
        "path": path_text::text(&program.path),
        "output": path_text::text(&program.output),
        "links": path_text::texts(&program.links),
        "status": status,
    });
    if let (Some(value), Value::Object(details)) = (value.as_object_mut(), details) {
        value.extend(details);
    }
    value
}
