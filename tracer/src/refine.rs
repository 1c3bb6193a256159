//! Brings traces and a policy together.
//!
//! Input: a policy and traces of its program. Output: [`Refinement`]: what the traces show that the policy lacks, what
//! it allows and they do not show, how much of it they cover; and the policy that comes of it.
//!
//! What counts: calls of the policy's program from its entry point on, and all calls of programs that were executed
//! below it, since a filter is inherited. Calls that a trace did not record because they were known beforehand count as
//! made: a trace that cannot show that a call is unused does not take it away.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use chestnut_analyzer::policy::{AllowedCall, CodeLocation, Evidence, Policy};
use chestnut_analyzer::syscall::SyscallNr;

use crate::error::Error;
use crate::trace::{Image, Phase, Refusal, Trace};

/// What a trace shows of one call.
#[derive(Clone, Debug)]
struct Seen {
    trace: String,
    /// The program that made it, if that is not the policy's.
    executed: Option<std::path::PathBuf>,
    sites: BTreeSet<CodeLocation>,
    count: u64,
}

/// A policy beside what was seen.
#[derive(Clone, Debug)]
pub struct Refinement {
    seen: BTreeMap<SyscallNr, Seen>,
    /// Calls that traces did not record.
    unrecorded: BTreeSet<SyscallNr>,
    /// Calls of other tables.
    foreign: BTreeSet<String>,
    /// Calls that only were refused by a person.
    refused: BTreeSet<String>,
    /// What is to be known about the traces.
    remarks: Vec<String>,
}

/// What is done to the policy.
#[derive(Clone, Copy, Debug, Default)]
pub struct Changes {
    /// Calls that were seen and are not allowed are added.
    pub add: bool,
    /// Calls that are allowed and were not seen are taken away.
    pub remove_unused: bool,
}

impl Refinement {
    /// Looks for what the traces show of the policy's program.
    ///
    /// # Errors
    ///
    /// None of them shows that program.
    pub fn new(policy: &Policy, traces: &[Trace]) -> Result<Self, Error> {
        let mut found = Self {
            seen: BTreeMap::new(),
            unrecorded: BTreeSet::new(),
            foreign: BTreeSet::new(),
            refused: BTreeSet::new(),
            remarks: Vec::new(),
        };
        let is_program = |image: &Image| is_program(policy, image);
        let mut is_shown = false;
        for trace in traces {
            let images = trace.images_of(&is_program);
            let name = trace.path.display().to_string();
            if images.is_empty() {
                found.remarks.push(format!("{name}: the policy's program was not executed in it"));
                continue;
            }
            is_shown = true;
            found.unrecorded.extend(&trace.header.known);
            if !trace.is_complete {
                found.remarks.push(format!("{name}: cut off before its end; what stands in it counts"));
            }
            found.remarks.extend(trace.gaps.iter().map(|gap| format!("{name}: not seen: {gap}")));
            found.take(trace, &name, &images);
        }
        if is_shown {
            return Ok(found);
        }
        let paths = traces.iter().flat_map(|trace| trace.images.values()).map(|image| image.file.path.display());
        let seen: BTreeSet<String> = paths.map(|path| path.to_string()).collect();
        let seen = seen.into_iter().take(5).collect::<Vec<_>>().join(", ");
        Err(Error::OtherProgram { program: policy.program.path.clone(), seen })
    }

    fn take(&mut self, trace: &Trace, name: &str, images: &BTreeMap<usize, bool>) {
        for (id, call) in &trace.calls {
            let Some(is_program) = images.get(&call.image) else { continue };
            if *is_program && call.phase == Phase::Before {
                continue;
            }
            if call.refused == Some(Refusal::Person) {
                self.refused.insert(call.call.clone());
                continue;
            }
            let Some(number) = call.native() else {
                self.foreign.insert(call.call.clone());
                continue;
            };
            let program = trace.images.get(&call.image).filter(|_| !is_program).map(|image| image.file.path.clone());
            let (trace_name, sites) = (name.to_owned(), BTreeSet::new());
            let seen =
                self.seen.entry(number).or_insert(Seen { trace: trace_name, executed: program, sites, count: 0 });
            seen.sites.insert(call.site.clone());
            let count = trace.counts.get(id).map_or(1, |(count, _)| (*count).max(1));
            seen.count = seen.count.saturating_add(count);
        }
    }

    /// Calls that were seen and that the policy does not allow.
    #[must_use]
    pub fn missing(&self, policy: &Policy) -> Vec<SyscallNr> {
        self.seen.keys().filter(|call| !policy.allowed.contains_key(call)).copied().collect()
    }

    /// Calls that the policy allows and that were not seen. What the kernel or the C library needs on its own account
    /// stays, and so does what a trace did not record.
    #[must_use]
    pub fn unused(&self, policy: &Policy) -> Vec<SyscallNr> {
        let is_unused = |(call, allowed): &(&SyscallNr, &AllowedCall)| {
            let is_recorded = !self.seen.contains_key(call) && !self.unrecorded.contains(call);
            is_recorded && !is_always(&allowed.evidence)
        };
        policy.allowed.iter().filter(is_unused).map(|(call, _)| *call).collect()
    }

    /// The policy with the changes that are wanted.
    #[must_use]
    pub fn apply(&self, policy: &Policy, changes: Changes) -> Policy {
        let mut refined = policy.clone();
        if changes.remove_unused {
            for call in self.unused(policy) {
                refined.allowed.remove(&call);
            }
        }
        if changes.add {
            for call in self.missing(policy) {
                let Some(seen) = self.seen.get(&call) else { continue };
                let evidence = Evidence::Observed { trace: seen.trace.clone(), site: seen.sites.first().cloned() };
                let evidence = match &seen.executed {
                    Some(program) => Evidence::Executed { program: program.clone(), evidence: Box::new(evidence) },
                    None => evidence,
                };
                refined.allowed.insert(call, AllowedCall { name: call.to_string(), evidence });
            }
        }
        refined
    }

    /// What changes, and what the traces cover, for a person.
    #[must_use]
    pub fn text(&self, policy: &Policy, changes: Changes) -> String {
        let mut text = String::new();
        // Writing to a string cannot fail.
        for call in self.missing(policy) {
            let Some(seen) = self.seen.get(&call) else { continue };
            let sign = if changes.add { "+" } else { "?" };
            let by = seen.executed.as_ref().map_or_else(String::new, |by| format!(", by {}", by.display()));
            let sites: Vec<_> = seen.sites.iter().take(3).map(site_text).collect();
            let _ = writeln!(text, "{sign} {call}: seen {}{by}, from {}", times(seen.count), sites.join(", "));
        }
        for call in self.unused(policy) {
            let sign = if changes.remove_unused { "-" } else { "." };
            let evidence = policy.allowed.get(&call).map(|allowed| evidence_text(&allowed.evidence));
            let _ = writeln!(text, "{sign} {call}: never seen; allowed for {}", evidence.unwrap_or_default());
        }
        self.coverage(policy, &mut text);
        for call in &self.foreign {
            let _ = writeln!(text, "seen, but no policy can allow it: {call}, of another table of calls");
        }
        for call in &self.refused {
            let _ = writeln!(text, "refused when asked, so not added: {call}");
        }
        for remark in &self.remarks {
            let _ = writeln!(text, "{remark}");
        }
        if !changes.add && !self.missing(policy).is_empty() {
            let _ = writeln!(text, "--add adds those with a question mark");
        }
        if !changes.remove_unused && !self.unused(policy).is_empty() {
            let _ = writeln!(text, "--remove-unused takes those with a dot away");
        }
        text
    }

    fn coverage(&self, policy: &Policy, text: &mut String) {
        let calls = policy.allowed.keys().filter(|call| self.seen.contains_key(call)).count();
        let sites: BTreeSet<_> =
            policy.allowed.values().filter_map(|allowed| site_of(&allowed.evidence)).map(exact).collect();
        let seen: BTreeSet<_> = self.seen.values().flat_map(|seen| &seen.sites).map(exact).collect();
        let _ = writeln!(
            text,
            "covered: {calls} of {} allowed calls, {} of the {} places that the policy names; {} places seen in all",
            policy.allowed.len(),
            sites.intersection(&seen).count(),
            sites.len(),
            seen.len(),
        );
        let unresolved = policy.unresolved.iter().filter(|site| seen.contains(&exact(&site.site))).count();
        if !policy.unresolved.is_empty() {
            let _ = writeln!(
                text,
                "covered: {unresolved} of {} places with a number that the analysis does not know",
                policy.unresolved.len()
            );
        }
    }
}

/// Whether an image is a policy's program, or that after it was patched.
fn is_program(policy: &Policy, image: &Image) -> bool {
    let same_build = image.file.build_id.is_some() && image.file.build_id == policy.program.build_id;
    same_build
        || image.file.sha256 == policy.program.sha256
        || image.original_sha256.as_ref() == Some(&policy.program.sha256)
}

fn is_always(evidence: &Evidence) -> bool {
    match evidence {
        Evidence::Always { .. } => true,
        Evidence::Executed { evidence, .. } => is_always(evidence),
        _ => false,
    }
}

fn site_of(evidence: &Evidence) -> Option<&CodeLocation> {
    match evidence {
        Evidence::Site { site, .. } => Some(site),
        Evidence::Observed { site, .. } => site.as_ref(),
        Evidence::Executed { evidence, .. } => site_of(evidence),
        _ => None,
    }
}

/// A place without what is only for the reader; the file by its last name, since paths go through links.
fn exact(site: &CodeLocation) -> (Option<&std::ffi::OsStr>, u64) {
    (site.file.file_name(), site.address.0)
}

fn times(count: u64) -> String {
    if count == 1 { "once".to_owned() } else { format!("{count} times") }
}

fn site_text(site: &CodeLocation) -> String {
    let symbol = site.symbol.as_ref().map_or_else(String::new, |symbol| format!(" ({symbol})"));
    format!("{}+{}{symbol}", site.file.display(), site.address)
}

fn evidence_text(evidence: &Evidence) -> String {
    match evidence {
        Evidence::Site { site, .. } => site_text(site),
        Evidence::Executed { program, evidence } => format!("{}: {}", program.display(), evidence_text(evidence)),
        Evidence::Always { reason } => reason.clone(),
        Evidence::Requested { by } => by.clone(),
        Evidence::Observed { trace, .. } => format!("what {trace} shows"),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use chestnut_analyzer::address::Vaddr;
    use chestnut_analyzer::policy::{FileIdentity, POLICY_FORMAT};

    use super::*;

    fn site(name: &str, address: u64) -> CodeLocation {
        CodeLocation { file: name.into(), address: Vaddr(address), symbol: None }
    }

    fn policy(calls: &[&str]) -> Policy {
        let identity = FileIdentity { path: "/bin/p".into(), build_id: None, sha256: "aa".into() };
        let allowed = calls.iter().map(|name| {
            let evidence = match *name {
                "exit_group" => Evidence::Always { reason: "all end".into() },
                _ => Evidence::Site { site: site("/lib/libc.so", 0x10), path: Vec::new() },
            };
            (SyscallNr::from_name(name).unwrap(), AllowedCall { name: (*name).to_owned(), evidence })
        });
        Policy {
            format: POLICY_FORMAT,
            tool: String::new(),
            program: identity,
            libraries: Vec::new(),
            executed: Vec::new(),
            allowed: allowed.collect(),
            unresolved: Vec::new(),
            assumptions: Vec::new(),
        }
    }

    /// A program that executes another one, seen below a third one.
    const TRACE: &str = r#"{"kind":"header","format":1,"tool":"t","command":[]KNOWN}
{"kind":"image","id":0,"file":{"path":"/bin/sh","sha256":"00"}}
{"kind":"image","id":1,"parent":0,"file":{"path":"/bin/q","sha256":"bb"},"original_sha256":"aa"}
{"kind":"image","id":2,"parent":1,"file":{"path":"/bin/r","sha256":"cc"}}
{"kind":"call","id":0,"image":0,"call":"kill","number":62,"phase":"after","site":{"file":"/bin/sh","address":1}}
{"kind":"call","id":1,"image":1,"call":"brk","number":12,"phase":"before","site":{"file":"/lib/ld.so","address":2}}
{"kind":"call","id":2,"image":1,"call":"read","number":0,"phase":"after","site":{"file":"/usr/lib/libc.so","address":16}}
{"kind":"call","id":3,"image":2,"call":"uname","number":63,"phase":"before","site":{"file":"/lib/ld.so","address":4}}
{"kind":"call","id":4,"image":1,"call":"i386:open","number":5,"architecture":"i386","phase":"after","site":{"file":"q","address":5}}
{"kind":"call","id":5,"image":1,"call":"ptrace","number":101,"phase":"after","site":{"file":"q","address":5},"refused":"person"}
{"kind":"count","call":2,"count":7,"at_least":false}
{"kind":"end","status":0}
"#;

    fn trace(known: &str) -> Trace {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("t");
        std::fs::write(&path, TRACE.replace("KNOWN", known)).unwrap();
        Trace::read(Path::new(&path), &chestnut_analyzer::limits::Limits::default()).unwrap()
    }

    fn names(calls: &[SyscallNr]) -> Vec<String> {
        calls.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn calls_count_from_the_entry_point_and_of_what_is_executed() {
        let policy = policy(&["read", "write", "exit_group"]);
        let found = Refinement::new(&policy, &[trace("")]).unwrap();
        assert_eq!(names(&found.missing(&policy)), ["uname"]);
        assert_eq!(names(&found.unused(&policy)), ["write"]);
        let changes = Changes { add: true, remove_unused: true };
        let refined = found.apply(&policy, changes);
        let calls: Vec<_> = refined.allowed.values().map(|call| call.name.as_str()).collect();
        assert_eq!(calls, ["read", "uname", "exit_group"]);
        let text = found.text(&policy, changes);
        assert!(text.contains("+ uname: seen once, by /bin/r, from /lib/ld.so+0x4\n"), "{text}");
        assert!(text.contains("covered: 1 of 3 allowed calls, 1 of the 1 places"), "{text}");
        assert!(text.contains("i386:open") && text.contains("refused when asked, so not added: ptrace"), "{text}");
    }

    #[test]
    fn what_a_trace_did_not_record_is_not_unused() {
        let policy = policy(&["read", "write"]);
        let found = Refinement::new(&policy, &[trace(r#","known":[1]"#)]).unwrap();
        assert!(found.unused(&policy).is_empty());
    }

    #[test]
    fn traces_of_other_programs_are_refused() {
        let mut policy = policy(&["read"]);
        policy.program.sha256 = "dd".into();
        let message = Refinement::new(&policy, &[trace("")]).unwrap_err().to_string();
        assert!(message.contains("/bin/p") && message.contains("/bin/q"), "{message}");
    }
}
