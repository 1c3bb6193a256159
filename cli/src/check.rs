//! `chestnut check`: whether the libraries of a patched program are still those that its filter was made for.
//!
//! Input: a patched file. Output: which files differ, and which calls the filter would refuse although they are needed
//! now. The analysis is done anew, with the flags that the file was patched with: a changed configuration
//! (`nsswitch.conf`) or a library that came along counts too.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use chestnut_analyzer::path_text;
use chestnut_analyzer::policy::{FileIdentity, Policy};
use chestnut_analyzer::syscall::SyscallNr;
use chestnut_rewriter::command_line::site_text;
use chestnut_rewriter::{Inspection, RecordedFile, Rest};
use serde_json::json;

use crate::arguments::Check;
use crate::failure::Failure;
use crate::program;
use crate::style::Style;
use crate::subject;

/// What became of the files that were analyzed, and what that means.
struct Drift {
    changed: Vec<PathBuf>,
    added: Vec<PathBuf>,
    gone: Vec<PathBuf>,
    /// How many files there were that are not recorded one by one, and how many there are, if these are others.
    rest: Option<(usize, usize)>,
    refused: Vec<SyscallNr>,
    /// Sites whose numbers are not known, where there was none.
    unresolved: Vec<String>,
}

/// Does what the arguments say.
pub(crate) fn run(command: &Check, style: Style) -> Result<(String, ExitCode), Failure> {
    let bytes = program::read(&command.file, &command.analysis.limits())?;
    let refused = |source| Failure::Refused { path: command.file.clone(), source };
    let found = chestnut_rewriter::inspect(&bytes).map_err(refused)?;
    let policy = subject::needs(&command.file, &command.analysis)?;
    let drift = Drift::new(&found, &policy);
    let text = if command.json { drift.json() } else { drift.text(&command.file, style) };
    Ok((text, if drift.is_covered() { ExitCode::SUCCESS } else { ExitCode::FAILURE }))
}

impl Drift {
    fn new(found: &Inspection, policy: &Policy) -> Self {
        let before: BTreeMap<&Path, &RecordedFile> =
            found.files.iter().map(|file| (file.path.as_path(), file)).collect();
        // The first is the program, whose bytes are in the file; it is only read if it is executed.
        let program = found.files.first().map(|file| file.path.as_path());
        let now: BTreeMap<&Path, &FileIdentity> =
            policy.libraries.iter().chain(&policy.executed).map(|file| (file.path.as_path(), file)).collect();
        let others: Vec<&FileIdentity> =
            now.iter().filter(|(path, _)| !before.contains_key(*path)).map(|(_, file)| *file).collect();
        let is_same = Rest::of(others.iter().copied()) == found.rest;
        let rest = found.rest.as_ref().filter(|_| !is_same).map(|rest| (rest.count, others.len()));
        let added = if found.rest.is_some() { Vec::new() } else { others };
        let differs = |path: &&Path| before.get(path).is_some_and(|old| now.get(path).is_some_and(|new| !old.is(new)));
        let is_gone = |path: &&&Path| !now.contains_key(**path) && Some(**path) != program;
        let allowed = found.filter.specification().allowed();
        let is_refused = |call: &SyscallNr| !allowed.contains(call) && !found.made_with.deny.contains(call);
        let unresolved =
            if found.unresolved > 0 { Vec::new() } else { policy.unresolved.iter().map(site_text).collect() };
        Self {
            changed: before.keys().filter(|path| differs(path)).map(|path| path.to_path_buf()).collect(),
            added: added.into_iter().map(|file| file.path.clone()).collect(),
            gone: before.keys().filter(is_gone).map(|path| path.to_path_buf()).collect(),
            rest,
            refused: policy.allowed.keys().copied().filter(is_refused).collect(),
            unresolved,
        }
    }

    fn is_same(&self) -> bool {
        self.changed.is_empty() && self.added.is_empty() && self.gone.is_empty() && self.rest.is_none()
    }

    fn is_covered(&self) -> bool {
        self.refused.is_empty() && self.unresolved.is_empty()
    }

    fn text(&self, file: &Path, style: Style) -> String {
        let mut text = String::new();
        for (what, paths) in [("changed", &self.changed), ("new", &self.added), ("no longer read", &self.gone)] {
            for path in paths {
                // Writing to a string cannot fail.
                let _ = writeln!(text, "{what}: {}", path.display());
            }
        }
        if let Some((before, now)) = self.rest {
            let _ = writeln!(text, "changed: some of {before} files that are not recorded one by one ({now} now)");
        }
        for site in &self.unresolved {
            let _ = writeln!(text, "a call with a number that is not known: {site}");
        }
        let names: Vec<_> = self.refused.iter().map(ToString::to_string).collect();
        let verdict = match (self.is_covered(), self.is_same()) {
            (true, true) => "the same libraries as when it was patched".to_owned(),
            (true, false) => "other libraries, and the filter allows all that they need".to_owned(),
            (false, _) if names.is_empty() => style.warning("the filter may refuse calls that are needed now"),
            (false, _) => style.warning(&format!("the filter refuses what is needed now: {}", names.join(" "))),
        };
        let _ = writeln!(text, "{}: {verdict}", file.display());
        if !self.is_covered() {
            let _ = writeln!(text, "chestnut-patch --repatch brings it up to date");
        }
        text
    }

    fn json(&self) -> String {
        let refused: Vec<_> = self.refused.iter().map(ToString::to_string).collect();
        let drift = json!({
            "same": self.is_same(),
            "covered": self.is_covered(),
            "changed": path_text::texts(&self.changed),
            "new": path_text::texts(&self.added),
            "gone": path_text::texts(&self.gone),
            "rest_changed": self.rest.is_some(),
            "refused": refused,
            "unresolved": self.unresolved,
        });
        format!("{drift:#}\n")
    }
}
