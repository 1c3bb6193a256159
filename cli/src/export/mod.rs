//! `chestnut export`: a program's policy in the form that something else enforces.
//!
//! Input: a program. Output: a profile of a container runtime, a unit's drop-in, a sandbox's profile, or the filter
//! itself. Whoever takes it puts the filter on before the program is executed, so that its loader, the constructors of
//! its libraries and `execve` itself run under it: their calls are in the profile, as for a program that another one
//! executes. With `--at-entry` they are not: for those who install the filter at the entry point.

mod container;
mod filter;
mod sandbox;
mod unit;

use std::path::Path;

use chestnut_analyzer::plain_text;
use chestnut_analyzer::policy::{AllowedCall, Evidence, Policy};
use chestnut_analyzer::syscall::SyscallNr;
use chestnut_rewriter::FilterOptions;
use chestnut_rewriter::bpf::{Action, Filter};
use chestnut_rewriter::command_line::AnalysisError;

use crate::arguments::{Export, Format};
use crate::failure::Failure;
use crate::program;
use crate::subject::Subject;

/// What the forms have in common.
struct Profile<'run> {
    program: &'run Path,
    policy: &'run Policy,
    filter: &'run Filter,
}

/// Does what the arguments say.
pub(crate) fn run(command: &Export) -> Result<Vec<u8>, Failure> {
    program::check_place(command.output.as_ref(), &command.file)?;
    let mut flags = command.analysis.clone();
    if !command.at_entry {
        flags.exec_target.push("self".to_owned());
    }
    let subject = Subject::of(&command.file, &flags).map_err(|failure| match failure {
        Failure::Analysis { path, source: AnalysisError::DeniedTarget(target) }
            if !command.at_entry && target == "self" =>
        {
            Failure::DeniedAtStart { path }
        }
        other => other,
    })?;
    let failing = subject.failing.clone();
    let mut policy = subject.unfiltered();
    if !command.at_entry {
        let by = "chestnut export: the program is executed under the filter".to_owned();
        let evidence = Evidence::Requested { by };
        let name = SyscallNr::EXECVE.to_string();
        policy.allowed.entry(SyscallNr::EXECVE).or_insert(AllowedCall { name, evidence });
    }
    if !command.filter.ignore_unresolved && !policy.unresolved.is_empty() {
        return Err(Failure::Unresolved { path: command.file.clone(), sites: policy.unresolved });
    }
    let options = FilterOptions { action: command.filter.action, failing, ..FilterOptions::default() };
    let refused = |source| Failure::Refused { path: command.file.clone(), source };
    let filter = chestnut_rewriter::compile(&policy, &options).map_err(refused)?;
    let profile = Profile { program: &command.file, policy: &policy, filter: &filter };
    let bytes = profile.write(command.format)?;
    let Some(path) = command.output.as_ref().filter(|path| !program::is_stream(path)) else { return Ok(bytes) };
    program::write(path, bytes)?;
    Ok(Vec::new())
}

impl Profile<'_> {
    fn write(&self, format: Format) -> Result<Vec<u8>, Failure> {
        let text = match format {
            Format::Oci => container::oci(self)?,
            Format::Docker | Format::Podman => container::docker(self)?,
            Format::KubernetesSpo => container::kubernetes(self)?,
            Format::Systemd => unit::systemd(self),
            Format::Minijail => sandbox::minijail(self),
            Format::Firejail => sandbox::firejail(self),
            Format::Bpf => return Ok(self.filter.program().encode()),
            Format::BpfAsm => filter::assembly(self),
            Format::C => filter::c(self),
            Format::Json => format!("{}\n", serde_json::to_string_pretty(self.policy)?),
        };
        Ok(text.into_bytes())
    }

    /// Names of the allowed calls, in the order of their numbers.
    fn names(&self) -> Vec<String> {
        self.filter.specification().allowed().iter().map(ToString::to_string).collect()
    }

    fn action(&self) -> Action {
        self.filter.specification().action()
    }

    /// For the head of a file: for which program, and how many calls.
    fn title(&self) -> String {
        let allowed = self.filter.specification().allowed();
        let title = format!("{}: {} system calls, by {}", self.program.display(), allowed.len(), self.policy.tool);
        // It stands in a comment, which must not end before it does: at its line's end, or where C ends one.
        plain_text::line(&title).replace("*/", "*\\/")
    }
}
