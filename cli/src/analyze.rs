//! `chestnut analyze`: which calls a program can make, each with one reason, and what is not known.
//!
//! Input: a program. Output: text for a person in the order of the call numbers, or the policy as JSON.

use std::collections::BTreeMap;
use std::fmt::Write;

use chestnut_analyzer::policy::{Assumption, AssumptionKind, CodeLocation, Policy, UnresolvedReason};
use chestnut_analyzer::syscall::SyscallNr;
use chestnut_rewriter::command_line::Execution;

use crate::arguments::Analyze;
use crate::contribution::contributions;
use crate::failure::Failure;
use crate::groups::{self, Split};
use crate::place;
use crate::style::Style;
use crate::subject::Subject;
use crate::vulnerabilities::{self, Tally, Vulnerability};

/// How many places of one assumption the short form shows.
const SHORT_LIST: usize = 3;

/// Does what the arguments say.
pub(crate) fn run(command: &Analyze, style: Style) -> Result<String, Failure> {
    let subject = Subject::of(&command.file, &command.analysis)?;
    if command.json {
        return Ok(format!("{}\n", serde_json::to_string_pretty(&subject.policy)?));
    }
    let report = Report { policy: &subject.policy, style, is_long: command.verbose };
    let mut text = report.summary();
    text.push_str(&report.groups());
    text.push_str(&report.dangerous());
    text.push_str(&report.contributions());
    text.push_str(&report.vulnerabilities(&vulnerabilities::read(&[], &command.analysis.limits())?));
    text.push_str(&report.allowed());
    for (call, number) in &subject.failing {
        let _ = writeln!(text, "  {call} fails (--exec {})", Execution::Deny(*number));
    }
    text.push_str(&report.refused(&subject));
    text.push_str(&report.unresolved());
    text.push_str(&report.assumptions());
    if command.verbose {
        text.push_str(&report.files());
    }
    Ok(text)
}

struct Report<'run> {
    policy: &'run Policy,
    style: Style,
    is_long: bool,
}

// Writing to a string cannot fail.
impl Report<'_> {
    fn summary(&self) -> String {
        format!(
            "{}: {} system calls allowed, {} of {} blocked; {} read\n",
            self.style.bold(&self.policy.program.path.display().to_string()),
            self.policy.allowed.len(),
            self.policy.blocked(),
            SyscallNr::all_known().count(),
            count(self.policy.libraries.len().saturating_add(self.policy.executed.len()).saturating_add(1), "file"),
        )
    }

    /// How much of each group is allowed.
    fn groups(&self) -> String {
        let group = |split: &Split| {
            let all = split.allowed.len().saturating_add(split.blocked.len());
            format!("{} {} of {all}", split.name, split.allowed.len())
        };
        let groups: Vec<_> =
            groups::split(self.policy).iter().filter(|split| !split.allowed.is_empty()).map(group).collect();
        format!("By group: {}\n", groups.join(", "))
    }

    /// What an attacker would miss least.
    fn dangerous(&self) -> String {
        let all = groups::dangerous().count();
        let allowed: Vec<_> =
            groups::dangerous().map(|(call, _)| call).filter(|call| self.policy.allowed.contains_key(call)).collect();
        let names: Vec<_> = allowed.iter().map(ToString::to_string).collect();
        match names.as_slice() {
            [] => format!("Calls that an attacker wants most: none of {all}\n"),
            names => format!("Calls that an attacker wants most: {} of {all}: {}\n", names.len(), names.join(" ")),
        }
    }

    /// Which files ask for calls.
    fn contributions(&self) -> String {
        let files = contributions(self.policy).into_iter().filter(|file| file.asks > 0);
        let files: Vec<_> = files.map(|file| format!("{} {}", file.name, file.asks)).collect();
        format!("By the file that asks for them: {}\n", files.join(", "))
    }

    fn vulnerabilities(&self, known: &[Vulnerability]) -> String {
        let Tally { mitigated, partly, all } = Tally::new(known, self.policy);
        format!(
            "Known vulnerabilities of the kernel: {mitigated} of {all} cannot be reached, {partly} by some of their calls only\n"
        )
    }

    fn heading(&self, text: &str) -> String {
        format!("\n{}\n", self.style.bold(text))
    }

    fn allowed(&self) -> String {
        let calls = self.policy.allowed.values();
        let width = calls.clone().map(|call| call.name.len()).max().unwrap_or(0);
        let mut text = self.heading("Allowed, and one place that makes each call:");
        for call in calls {
            if self.is_long {
                let _ = write!(text, "  {}\n{}", self.style.bold(&call.name), place::lines(&call.evidence, "      "));
            } else {
                let padding = " ".repeat(width.saturating_sub(call.name.len()));
                let line = place::line(&call.evidence, self.style);
                let _ = writeln!(text, "  {}{padding}  {line}", self.style.bold(&call.name));
            }
        }
        text
    }

    /// What the filter of a patched file takes from its program.
    fn refused(&self, subject: &Subject) -> String {
        if subject.refused.is_empty() {
            return String::new();
        }
        let mut text = self.heading("Refused by the filter in the file, although the program can make them:");
        for (call, needed) in &subject.refused {
            let why = subject.why_refused(*call);
            let _ = writeln!(
                text,
                "  {}  ({why})  {}",
                self.style.warning(&needed.name),
                place::line(&needed.evidence, self.style)
            );
        }
        text
    }

    fn unresolved(&self) -> String {
        if self.policy.unresolved.is_empty() {
            return String::new();
        }
        let mut text = self.heading(&format!(
            "{} reached with a number that is not known (chestnut-patch: --allow NAME adds it, --ignore-unresolved goes on):",
            count(self.policy.unresolved.len(), "system call"),
        ));
        for site in &self.policy.unresolved {
            let what = match site.reason {
                UnresolvedReason::Number => "",
                UnresolvedReason::ForeignEntry => ", the 32-bit entry",
            };
            let _ = writeln!(text, "  {}{what}", self.style.warning(&self.location(&site.site)));
        }
        text
    }

    fn location(&self, location: &CodeLocation) -> String {
        if self.is_long { place::long(location) } else { place::short(location) }
    }

    fn assumptions(&self) -> String {
        let mut groups: BTreeMap<_, BTreeMap<&str, Vec<&CodeLocation>>> = BTreeMap::new();
        for Assumption { kind, text, site, flag } in &self.policy.assumptions {
            let places = groups.entry((*kind, flag)).or_default().entry(text.as_str()).or_default();
            places.extend(site);
        }
        let mut text = String::new();
        for ((kind, flag), members) in groups {
            let flag = flag.as_ref().map_or_else(String::new, |flag| format!(" ({flag} tells)"));
            text.push_str(&self.heading(&format!("Assumed about {}{flag}:", subject(kind))));
            for (member, places) in members {
                let _ = writeln!(text, "  {member}");
                let shown = if self.is_long { places.len() } else { SHORT_LIST };
                for place in places.iter().take(shown) {
                    let _ = writeln!(text, "      {}", self.location(place));
                }
                let hidden = places.len().saturating_sub(shown);
                if hidden > 0 {
                    let _ = writeln!(text, "      {}", self.style.faint(&format!("and {hidden} more (-v shows them)")));
                }
            }
        }
        text
    }

    fn files(&self) -> String {
        let mut text = self.heading("Files read:");
        for file in std::iter::once(&self.policy.program).chain(&self.policy.libraries).chain(&self.policy.executed) {
            let identity = match &file.build_id {
                Some(build_id) => format!("build-id {build_id}"),
                None => format!("SHA-256 {}", file.sha256),
            };
            let _ = writeln!(text, "  {}  {}", file.path.display(), self.style.faint(&identity));
        }
        text
    }
}

fn subject(kind: AssumptionKind) -> &'static str {
    match kind {
        AssumptionKind::OpenLoad => "libraries that are loaded under a name that is not known",
        AssumptionKind::OpenLookup => "symbols that are looked up under a name that is not known",
        AssumptionKind::OpenExec => "programs that are executed under a name that is not known",
        AssumptionKind::SystemConfiguration => "the configuration of the system",
        AssumptionKind::CompilerNotes => "code, where it differs from what its compiler wrote down",
        AssumptionKind::WritableCode => "code that is written at run time",
        AssumptionKind::Environment => "the environment in which the program runs",
    }
}

/// `1 place`, `2 places`.
pub(crate) fn count(number: usize, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}
