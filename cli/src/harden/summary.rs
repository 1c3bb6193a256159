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
use crate::analyze::count;
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

    /// Calls blocked of those that are known, as a share of 100, over the programs that were patched now.
    fn mean_blocked(&self) -> Option<f64> {
        let known: f64 = u32::try_from(SyscallNr::all_known().count()).ok()?.into();
        let shares: Vec<f64> = self
            .policies()
            .filter_map(|(_, policy)| Some(f64::from(u32::try_from(policy.blocked()).ok()?) / known))
            .collect();
        let number: f64 = u32::try_from(shares.len()).ok().filter(|number| *number > 0)?.into();
        Some(100.0 * shares.iter().sum::<f64>() / number)
    }

    /// For a person.
    pub(super) fn text(&self, style: Style) -> String {
        let hardened = self.number(|outcome| matches!(outcome, Outcome::Hardened { .. }));
        let mut text = style.bold(&format!("{} patched", count(hardened, "program")));
        // Writing to a string cannot fail.
        if let Some(share) = self.mean_blocked() {
            let _ = write!(text, ", {share:.1} % of the system calls blocked on average");
        }
        let before = self.number(|outcome| matches!(outcome, Outcome::Unchanged));
        if before > 0 {
            let _ = write!(text, "; {before} done before");
        }
        let refused = self.number(|outcome| !outcome.is_good());
        let _ = writeln!(text, "; {refused} refused");
        for (program, outcome) in self.outcomes.iter().filter(|(_, outcome)| !outcome.is_good()) {
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
