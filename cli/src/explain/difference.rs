//! `chestnut explain --diff`: what one program, version or policy may call and another may not.
//!
//! Input: two files, each a program, patched or not, or a policy. Output: calls that only the first may make, with file and
//! way; calls that only the second may make; files that differ.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

use chestnut_analyzer::explanation::Question;
use chestnut_analyzer::policy::{AllowedCall, Evidence, FileIdentity, Policy};
use chestnut_analyzer::syscall::SyscallNr;
use serde_json::{Map, Value, json};

use super::Answer;
use crate::analyze::count;
use crate::arguments::Explain;
use crate::contribution::asker;
use crate::failure::Failure;
use crate::place;
use crate::style::Style;
use crate::subject::Subject;

/// Does what the arguments say.
pub(super) fn run(command: &Explain, other: &Path, style: Style) -> Result<String, Failure> {
    let subject = Subject::of(&command.file, &command.analysis)?;
    let policy = &subject.policy;
    let before = Subject::of(other, &command.analysis)?.policy;
    let is_wanted = |call: &SyscallNr| command.calls.is_empty() || command.calls.contains(call);
    let more: Vec<_> = only_in(policy, &before).filter(|(call, _)| is_wanted(call)).collect();
    let fewer: Vec<_> = only_in(&before, policy).filter(|(call, _)| is_wanted(call)).collect();
    let files = changed(policy, &before);
    if command.json {
        let calls = |calls: &[(SyscallNr, &AllowedCall)]| -> Map<String, Value> {
            calls.iter().map(|(call, allowed)| (call.to_string(), json!(allowed))).collect()
        };
        let value = json!({ "added": calls(&more), "removed": calls(&fewer), "files": files });
        return Ok(format!("{value:#}\n"));
    }
    let names = [&command.file, other].map(|path| style.bold(&path.display().to_string()));
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = writeln!(text, "{} may make {} that {} may not:", names[0], count(more.len(), "system call"), names[1]);
    let question = Question { calls: more.iter().map(|(call, _)| *call).collect(), through: None };
    let explanation = Subject::explanation(&command.file, &command.analysis, &question)?;
    let answer = Answer { command, subject: &subject, style };
    for (call, allowed) in &more {
        let found = explanation.as_ref().and_then(|found| found.calls.get(call));
        let asked = match &allowed.evidence {
            evidence @ Evidence::Site { .. } => style.faint(&format!("  asked for by {}", asker(evidence))),
            _ => String::new(),
        };
        let _ = write!(text, "  {}{asked}\n{}", style.bold(&allowed.name), answer.first(&allowed.evidence, found));
    }
    let _ = writeln!(text, "{} may make {} that {} may not:", names[1], count(fewer.len(), "system call"), names[0]);
    for (_, allowed) in &fewer {
        let _ = writeln!(text, "  {}  {}", style.bold(&allowed.name), place::line(&allowed.evidence, style));
    }
    if !files.is_empty() {
        let _ = writeln!(text, "Files:");
        for (path, what) in &files {
            let _ = writeln!(text, "  {path}: {what}");
        }
    }
    Ok(text)
}

fn only_in<'p>(one: &'p Policy, other: &'p Policy) -> impl Iterator<Item = (SyscallNr, &'p AllowedCall)> {
    one.allowed.iter().filter(|(call, _)| !other.allowed.contains_key(call)).map(|(call, allowed)| (*call, allowed))
}

/// Libraries that only one of them loads, and those that are not the same.
fn changed(one: &Policy, other: &Policy) -> BTreeMap<String, &'static str> {
    let files = |policy: &Policy| -> BTreeMap<String, FileIdentity> {
        let files = policy.libraries.iter().chain(&policy.executed);
        files.map(|file| (file.path.display().to_string(), file.clone())).collect()
    };
    let (now, before) = (files(one), files(other));
    let mut changed = BTreeMap::new();
    for (path, file) in &now {
        match before.get(path) {
            None => changed.insert(path.clone(), "read for the first only"),
            Some(old) if old.sha256 != file.sha256 => changed.insert(path.clone(), "not the same"),
            Some(_) => None,
        };
    }
    changed.extend(
        before.keys().filter(|path| !now.contains_key(*path)).map(|path| (path.clone(), "read for the second only")),
    );
    changed
}
