//! What a run says: a few lines for a person, or JSON.
//!
//! Input: policy, filter and layout of a file that was written. Output: text. Names are sorted by number; nothing here
//! depends on time or on the order in which files were read.

use std::fmt::Write;
use std::path::Path;

use chestnut_analyzer::path_text;
use chestnut_analyzer::policy::{AllowedCall, Evidence, FileIdentity, Policy};
use chestnut_analyzer::syscall::SyscallNr;
use chestnut_rewriter::Rewritten;
use chestnut_rewriter::command_line::{location_text, site_text};
use serde_json::{Value, json};

/// A finished run.
pub(crate) struct Report<'run> {
    pub(crate) input: &'run Path,
    pub(crate) output: &'run Path,
    pub(crate) policy: &'run Policy,
    pub(crate) rewritten: &'run Rewritten,
    /// What of the old file could not be kept.
    pub(crate) lost: &'run [String],
}

impl Report<'_> {
    fn known(&self) -> usize {
        SyscallNr::all_known().count()
    }

    fn blocked(&self) -> usize {
        self.rewritten.filter.specification().blocked()
    }

    /// How many executed programs are in it, and how many calls are there for their sake only.
    fn executed(&self) -> String {
        let is_foreign = |call: &&AllowedCall| matches!(call.evidence, Evidence::Executed { .. });
        let calls = self.policy.allowed.values().filter(is_foreign).count();
        let programs = match self.policy.executed.len() {
            0 => String::new(),
            1 => ", and a program that it executes".to_owned(),
            number => format!(", and {number} programs that it executes"),
        };
        if calls == 0 {
            programs
        } else {
            format!("{programs}; {calls} of the calls for the sake of what it executes only")
        }
    }

    /// For a person.
    pub(crate) fn text(&self, verbose: bool) -> String {
        let specification = self.rewritten.filter.specification();
        let mut text = String::new();
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "{}: {} system calls allowed, {} of {} blocked (action: {}); {} libraries read{}",
            self.output.display(),
            specification.allowed().len(),
            self.blocked(),
            self.known(),
            specification.action(),
            self.policy.libraries.len(),
            self.executed(),
        );
        for site in &self.policy.unresolved {
            let _ = writeln!(text, "warning: ignored: {}", site_text(site));
        }
        if !self.policy.assumptions.is_empty() && !verbose {
            let _ = writeln!(text, "{} assumptions (-v shows them)", self.policy.assumptions.len());
        }
        if !self.rewritten.layout.placement.survives_gnu_strip() {
            let _ = writeln!(text, "note: GNU strip and objcopy would break this file: strip before patching");
        }
        for loss in self.lost {
            let _ = writeln!(text, "warning: not kept: {loss}");
        }
        if verbose {
            self.details(&mut text);
        }
        text
    }

    fn details(&self, text: &mut String) {
        for library in &self.policy.libraries {
            let build_id = library.build_id.as_ref().map_or_else(String::new, |id| format!(" (build-id {id})"));
            let _ = writeln!(text, "library: {}{build_id}", library.path.display());
        }
        for program in &self.policy.executed {
            let _ = writeln!(text, "executed: {}", program.path.display());
        }
        for assumption in &self.policy.assumptions {
            let flag = assumption.flag.as_ref().map_or_else(String::new, |flag| format!(" ({flag} tells)"));
            let site = assumption.site.as_ref().map_or_else(String::new, |site| format!(", {}", location_text(site)));
            let _ = writeln!(text, "assumed: {}{site}{flag}", assumption.text);
        }
        let allowed = self.rewritten.filter.specification().allowed();
        let names: Vec<_> = allowed.iter().map(ToString::to_string).collect();
        let _ = writeln!(text, "allowed: {}", names.join(" "));
        let layout = &self.rewritten.layout;
        let _ = writeln!(
            text,
            "filter: {} instructions; stub at {:#x}; program headers: {:?}; {} to {} bytes",
            self.rewritten.filter.program().instructions().len(),
            layout.stub_address(),
            layout.placement,
            layout.old_length,
            layout.length,
        );
    }

    /// For a program.
    pub(crate) fn json(&self) -> Value {
        let specification = self.rewritten.filter.specification();
        let layout = &self.rewritten.layout;
        let paths = |files: &[FileIdentity]| path_text::texts(files.iter().map(|file| &file.path));
        json!({
            "input": path_text::text(self.input),
            "output": path_text::text(self.output),
            "allowed": specification.allowed().iter().map(ToString::to_string).collect::<Vec<_>>(),
            "blocked": self.blocked(),
            "known": self.known(),
            "action": specification.action(),
            "libraries": paths(&self.policy.libraries),
            "executed": paths(&self.policy.executed),
            "unresolved": self.policy.unresolved,
            "assumptions": self.policy.assumptions,
            "not_kept": self.lost,
            "filter_instructions": self.rewritten.filter.program().instructions().len(),
            "stub_address": layout.stub_address(),
            "program_headers": layout.placement,
            "input_bytes": layout.old_length,
            "output_bytes": layout.length,
        })
    }
}
