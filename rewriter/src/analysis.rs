//! From flags to a policy.
//!
//! Input: [`Arguments`] and the program. Output: [`Policy`], computed or read from a file, with what `--allow` and
//! `--deny` change.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

use chestnut_analyzer::limits::{LimitName, Limits};
use chestnut_analyzer::policy::{AllowedCall, Evidence, POLICY_FORMAT, Policy};
use chestnut_analyzer::regular_file::read_all;
use chestnut_analyzer::syscall::SyscallNr;
use chestnut_rewriter::command_line::{self, one_line};
use chestnut_rewriter::output::{self, Input};

use crate::cli::Arguments;
use crate::failure::Failure;

/// The policy that the arguments ask for, and the calls that `--deny` took from it. `program` is IN, as it was before it
/// was patched if it is `repatched`.
pub(crate) fn policy(
    arguments: &Arguments,
    program: &mut Input,
    repatched: bool,
) -> Result<(Policy, Vec<SyscallNr>), Failure> {
    if let Some(both) = arguments.allow.iter().find(|call| arguments.deny.contains(call)) {
        return Err(Failure::Usage(format!("{both} is both allowed and denied")));
    }
    let mut policy = match &arguments.policy {
        Some(path) => read_for(arguments, path, &program.bytes)?,
        None => program.policy(&arguments.input, repatched, |original| analyze(arguments, original))?,
    };
    for call in &arguments.allow {
        let evidence = Evidence::Requested { by: "--allow".to_owned() };
        policy.allowed.entry(*call).or_insert_with(|| AllowedCall { name: call.to_string(), evidence });
    }
    let denied = policy.allowed.extract_if(.., |call, _| arguments.deny.contains(call)).map(|(call, _)| call).collect();
    Ok((policy, denied))
}

/// Whether a path stands for standard input or output.
pub(crate) fn is_stream(path: &Path) -> bool {
    path.as_os_str() == "-"
}

/// Asks the analyzer. `original` is there if the program on disk is a patched one.
fn analyze(arguments: &Arguments, original: Option<&[u8]>) -> Result<Policy, Failure> {
    arguments.analysis.analyze(&arguments.input, original).map_err(|error| {
        if error.is_usage() {
            return Failure::Usage(one_line(&error));
        }
        Failure::Analysis { path: arguments.input.clone(), source: Box::new(error) }
    })
}

/// Reads a policy that was made for the program. The file as a whole counts, and not its build-id as when it is only
/// looked at: another interpreter or library can be put into its headers, and the build-id stays.
fn read_for(arguments: &Arguments, path: &Path, program: &[u8]) -> Result<Policy, Failure> {
    let policy = read(path, &arguments.analysis.limits())?;
    let found = chestnut_rewriter::program_sha256(program);
    if policy.program.sha256 == found {
        return Ok(policy);
    }
    let (path, program, policy_of) = (path.to_owned(), arguments.input.clone(), Box::new(policy.program));
    Err(Failure::OtherProgram { path, policy_of, program, found })
}

fn read(path: &Path, limits: &Limits) -> Result<Policy, Failure> {
    let wrong = |reason: String| Failure::NamedFile { flag: "--policy", path: path.to_owned(), reason };
    let what = "bytes of the policy";
    // A pipe is as good as a file: a shell makes one of `<(command)`.
    let text = if is_stream(path) {
        read_all(io::stdin().lock(), 0, LimitName::PolicySize, what, limits)
    } else {
        let length = std::fs::metadata(path).map_or(0, |metadata| metadata.len().saturating_add(1));
        File::open(path).and_then(|file| read_all(file, length, LimitName::PolicySize, what, limits))
    };
    let text = text.map_err(|error| wrong(error.to_string()))?;
    let policy: Policy = serde_json::from_slice(&text).map_err(|error| wrong(error.to_string()))?;
    if policy.format == POLICY_FORMAT {
        Ok(policy)
    } else {
        Err(wrong(format!("format {}, expected {POLICY_FORMAT}", policy.format)))
    }
}

/// Makes sure that the policy does not go where a program is, or is about to be.
pub(crate) fn check_place(arguments: &Arguments) -> Result<(), Failure> {
    let Some(path) = &arguments.emit_policy else { return Ok(()) };
    // A name that is not there yet can only be the same by its letters.
    let is_same = |other: &Path| path == other || output::is_same_file(path, other);
    let mut programs = std::iter::once(&arguments.input).chain(&arguments.output);
    match programs.find(|other| is_same(other)) {
        Some(other) => {
            let reason = format!("the same file as {}: write to another one", other.display());
            Err(Failure::NamedFile { flag: "--emit-policy", path: path.clone(), reason })
        }
        None => Ok(()),
    }
}

/// Writes the policy where `--emit-policy` says.
pub(crate) fn emit(arguments: &Arguments, policy: &Policy, stdout: &mut dyn Write) -> Result<(), Failure> {
    let Some(path) = &arguments.emit_policy else {
        return Ok(());
    };
    let wrong = |reason: String| Failure::NamedFile { flag: "--emit-policy", path: path.clone(), reason };
    let mut text = serde_json::to_string_pretty(policy).map_err(|error| wrong(error.to_string()))?;
    text.push('\n');
    let written = if is_stream(path) {
        command_line::print(stdout, &text).map(drop)
    } else {
        output::write_text(path, text.as_bytes())
    };
    written.map_err(|error| wrong(error.to_string()))
}
