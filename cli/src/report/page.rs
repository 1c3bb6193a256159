//! The report about one program: one page of HTML, complete in itself.
//!
//! Input: a policy, its filter, and what is known of the kernel's vulnerabilities. Output: HTML that loads nothing, runs
//! nothing (its content security policy forbids both), and reads without JavaScript.

use std::fmt::Write;

use chestnut_analyzer::policy::{Assumption, CodeLocation, Evidence, FileIdentity};
use chestnut_analyzer::syscall::SyscallNr;
use chestnut_rewriter::bpf::{Filter, disassemble};
use chestnut_rewriter::command_line::site_text;

use super::html::{details, element, escape, table};
use super::{picture, tree};
use crate::contribution::route;
use crate::groups;
use crate::place;
use crate::subject::Subject;
use crate::vulnerabilities::{Effect, Tally, Vulnerability};

const CSS: &str = include_str!("page.css");

/// What a page is made of.
pub(super) struct Page<'run> {
    pub(super) subject: &'run Subject,
    pub(super) filter: &'run Filter,
    pub(super) vulnerabilities: &'run [Vulnerability],
}

impl Page<'_> {
    /// The whole page.
    pub(super) fn html(&self) -> String {
        let path = escape(&self.subject.policy.program.path.display().to_string());
        let sections = [
            ("dangerous", "Calls that an attacker wants most", self.dangerous()),
            ("groups", "Allowed and blocked calls", self.groups()),
            ("files", "What each file contributes", picture::html(&self.subject.policy)),
            ("unknown", "What is not known, and what is assumed", self.unknown()),
            ("vulnerabilities", "Known vulnerabilities of the kernel", self.vulnerabilities()),
            ("filter", "The filter", self.tree()),
            ("identity", "The files that were read", self.identity()),
        ];
        let links: String = sections.iter().map(|(id, title, _)| format!("<a href=\"#{id}\">{title}</a> ")).collect();
        let sections: String = sections
            .iter()
            .map(|(id, title, html)| format!("<section id=\"{id}\">\n<h2>{title}</h2>\n{html}</section>\n"))
            .collect();
        format!(
            "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
             <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
             <title>System calls of {path}</title>\n<style>\n{CSS}</style>\n</head>\n<body>\n<h1>System calls of {path}</h1>\n\
             {summary}<nav>{links}</nav>\n{sections}<p><small>By {tool}.</small></p>\n</body>\n</html>\n",
            summary = self.summary(),
            tool = escape(&self.subject.policy.tool),
        )
    }

    fn summary(&self) -> String {
        let known = SyscallNr::all_known().count();
        let blocked = self.subject.policy.blocked();
        let Tally { mitigated, partly, all } = Tally::new(self.vulnerabilities, &self.subject.policy);
        format!(
            "<p><b>{} system calls allowed, {blocked} of {known} blocked.</b> Of {all} known vulnerabilities of the kernel, \
             {mitigated} cannot be reached, and {partly} by some of their calls only.</p>\n\
             <meter min=\"0\" max=\"{known}\" value=\"{blocked}\">{blocked} of {known} blocked</meter>\n{}",
            self.subject.policy.allowed.len(),
            self.refused(),
        )
    }

    /// What the program in a patched file could call, and does not get.
    fn refused(&self) -> String {
        if self.subject.refused.is_empty() {
            return String::new();
        }
        let rows = self.subject.refused.iter().map(|(call, needed)| {
            let name = element("code", "blocked", &escape(&call.to_string()));
            let summary = format!("{name} <small>{}</small>", escape(self.subject.why_refused(*call)));
            details(&summary, &way(&needed.evidence), false)
        });
        let rows: String = rows.collect();
        format!("<p class=\"warning\">The filter in the file refuses what the program can call:</p>\n{rows}")
    }

    fn dangerous(&self) -> String {
        let rows = groups::dangerous().map(|(call, why)| {
            let verdict = match self.subject.policy.allowed.get(&call) {
                None => element("span", "blocked", "blocked"),
                Some(allowed) => {
                    let summary =
                        format!("{}: {}", element("span", "allowed", "allowed"), escape(&route(&allowed.evidence)));
                    details(&summary, &way(&allowed.evidence), false)
                }
            };
            vec![element("code", "", &escape(&call.to_string())), escape(why), verdict]
        });
        // Those that are allowed are what the reader must see.
        let (allowed, blocked): (Vec<_>, Vec<_>) =
            rows.partition(|row| row.iter().any(|cell| cell.contains("<details")));
        table(&["Call", "What it is used for", "Here"], allowed.into_iter().chain(blocked))
    }

    fn groups(&self) -> String {
        let mut html = String::new();
        for split in groups::split(&self.subject.policy) {
            let all = split.allowed.len().saturating_add(split.blocked.len());
            let summary = format!("<b>{}</b>: {} of {all} allowed", escape(split.name), split.allowed.len());
            let mut calls = String::new();
            for call in &split.allowed {
                if let Some(allowed) = self.subject.policy.allowed.get(call) {
                    let name = element("code", "allowed", &escape(&call.to_string()));
                    let summary = format!("{name} <small>{}</small>", escape(&route(&allowed.evidence)));
                    calls.push_str(&details(&summary, &way(&allowed.evidence), false));
                }
            }
            let mut body = element("div", "grid", &calls);
            let blocked: Vec<_> = split.blocked.iter().map(ToString::to_string).collect();
            if !blocked.is_empty() {
                // Writing to a string cannot fail.
                let _ = writeln!(
                    body,
                    "<p class=\"calls\">Blocked: <span class=\"blocked\">{}</span></p>",
                    escape(&blocked.join(" "))
                );
            }
            html.push_str(&details(&summary, &body, !split.allowed.is_empty()));
        }
        html
    }

    fn unknown(&self) -> String {
        let mut html = String::new();
        if self.subject.policy.unresolved.is_empty() {
            html.push_str("<p>The number of every system call that can be reached is known.</p>\n");
        } else {
            let sites: String = self
                .subject
                .policy
                .unresolved
                .iter()
                .map(|site| element("li", "", &escape(&site_text(site))))
                .collect();
            let _ = writeln!(
                html,
                "<p class=\"warning\">The numbers of these calls are not known; what they call is not among the allowed:</p><ul>{sites}</ul>"
            );
        }
        if self.subject.policy.assumptions.is_empty() {
            html.push_str("<p>Nothing is assumed.</p>\n");
            return html;
        }
        let rows = self.subject.policy.assumptions.iter().map(|Assumption { text, site, flag, .. }| {
            let site = site.as_ref().map_or_else(String::new, |site| escape(&place::long(site)));
            let flag = flag.as_ref().map_or_else(String::new, |flag| element("code", "", &escape(flag)));
            vec![escape(text), element("code", "", &site), flag]
        });
        let rows = table(&["Assumed", "Place", "Flag that tells"], rows);
        html.push_str(&details(&format!("{} assumptions", self.subject.policy.assumptions.len()), &rows, true));
        html
    }

    fn vulnerabilities(&self) -> String {
        let mut rows: Vec<_> = self.vulnerabilities.iter().map(|one| (one.effect(&self.subject.policy), one)).collect();
        rows.sort_by(|(one, a), (other, b)| one.cmp(other).then_with(|| b.name.cmp(&a.name)));
        let rows = rows.into_iter().map(|(effect, one)| {
            let verdict = match effect {
                Effect::Mitigated => element("span", "blocked", "mitigated: all its calls are blocked"),
                Effect::Partly => element("span", "", "partly: some of its calls are blocked"),
                Effect::Open => element("span", "allowed", "can be reached"),
            };
            let mark = |call: &SyscallNr| {
                let class = if self.subject.policy.allowed.contains_key(call) { "allowed" } else { "blocked" };
                element("code", class, &escape(&call.to_string()))
            };
            let calls: Vec<_> = one.calls.iter().map(mark).collect();
            vec![escape(&one.name), verdict, calls.join(" "), escape(&one.source)]
        });
        let note = "<p>By the system calls through which a vulnerability is reached, any one of which suffices; whether the kernel \
                    has the error is not looked at.</p>\n";
        format!("{note}{}", table(&["Name", "Here", "Calls", "Source"], rows))
    }

    fn tree(&self) -> String {
        let program = self.filter.program();
        let listing = element("pre", "", &escape(&disassemble(program)));
        let number = program.instructions().len();
        format!(
            "{}{}",
            details("As a tree of questions", &tree::html(program), true),
            details(&format!("As {number} instructions"), &listing, false)
        )
    }

    fn identity(&self) -> String {
        let kinds = std::iter::once(("program", &self.subject.policy.program))
            .chain(self.subject.policy.libraries.iter().map(|file| ("library", file)))
            .chain(self.subject.policy.executed.iter().map(|file| ("executed", file)));
        let rows = kinds.map(|(kind, FileIdentity { path, build_id, sha256 })| {
            let digest = |text: &str| element("span", "digest", &escape(text));
            let build_id = build_id.as_deref().map_or_else(String::new, digest);
            vec![escape(&path.display().to_string()), escape(kind), build_id, digest(sha256)]
        });
        table(&["File", "What", "Build-id", "SHA-256"], rows)
    }
}

/// The way to a call, a step a line.
fn way(evidence: &Evidence) -> String {
    let step = |location: &CodeLocation| element("li", "", &escape(&place::long(location)));
    match evidence {
        Evidence::Site { site, path } => {
            let steps: String = path.iter().map(step).collect();
            format!("<ol>{steps}<li>{}: system call</li></ol>", escape(&place::long(site)))
        }
        Evidence::Executed { program, evidence } => {
            format!("<p>{}, which is executed:</p>{}", escape(&program.display().to_string()), way(evidence))
        }
        other => element("p", "", &escape(place::lines(other, "").trim_end())),
    }
}
