//! From flags to a policy: the one place that asks the analyzer.
//!
//! Input: [`Arguments`] and the program. Output: [`Policy`], computed or read from a file, with what `--allow` and
//! `--deny` change.

use std::ffi::OsStr;
use std::path::Path;

use chestnut_analyzer::Options;
use chestnut_analyzer::policy::{AllowedCall, Evidence, POLICY_FORMAT, Policy};

use crate::cli::Arguments;
use crate::failure::Failure;

/// The policy that the arguments ask for.
pub(crate) fn policy(arguments: &Arguments, original: Option<&[u8]>) -> Result<Policy, Failure> {
    if let Some(both) = arguments.allow.iter().find(|call| arguments.deny.contains(call)) {
        return Err(Failure::Usage(format!("{both} is both allowed and denied")));
    }
    let mut policy = match &arguments.policy {
        Some(path) => read(path)?,
        None => analyze(arguments, original)?,
    };
    for call in &arguments.allow {
        let evidence = Evidence::Requested { by: "--allow".to_owned() };
        policy.allowed.entry(*call).or_insert_with(|| AllowedCall { name: call.to_string(), evidence });
    }
    policy.allowed.retain(|call, _| !arguments.deny.contains(call));
    Ok(policy)
}

/// Asks the analyzer. `original` is there if the program on disk is a patched one, which must not be what is analyzed.
fn analyze(arguments: &Arguments, original: Option<&[u8]>) -> Result<Policy, Failure> {
    let flags = &arguments.analysis;
    if let Some(target) = flags.exec_target.first() {
        return Err(Failure::Usage(format!("--exec-target {target}: programs to be executed are not analyzed yet")));
    }
    let mut options = Options::default();
    options.root.clone_from(&flags.root);
    options.libraries.clone_from(&flags.libraries);
    options.nss.clone_from(&flags.nss);
    options.dlopen.clone_from(&flags.dlopen);
    let failed = |source| Failure::Analysis { path: arguments.input.clone(), source };
    let Some(original) = original else {
        return chestnut_analyzer::analyze(&arguments.input, &options).map_err(|error| failed(Box::new(error)));
    };
    let folder = tempfile::tempdir().map_err(|error| failed(Box::new(error)))?;
    let path = folder.path().join(arguments.input.file_name().unwrap_or(OsStr::new("program")));
    std::fs::write(&path, original).map_err(|error| failed(Box::new(error)))?;
    let mut policy = chestnut_analyzer::analyze(&path, &options).map_err(|error| failed(Box::new(error)))?;
    policy.program.path.clone_from(&arguments.input);
    Ok(policy)
}

fn read(path: &Path) -> Result<Policy, Failure> {
    let wrong = |reason: String| Failure::NamedFile { flag: "--policy", path: path.to_owned(), reason };
    let text = std::fs::read(path).map_err(|error| wrong(error.to_string()))?;
    let policy: Policy = serde_json::from_slice(&text).map_err(|error| wrong(error.to_string()))?;
    if policy.format == POLICY_FORMAT {
        Ok(policy)
    } else {
        Err(wrong(format!("format {}, expected {POLICY_FORMAT}", policy.format)))
    }
}

/// Writes the policy where `--emit-policy` says.
pub(crate) fn emit(arguments: &Arguments, policy: &Policy) -> Result<(), Failure> {
    let Some(path) = &arguments.emit_policy else {
        return Ok(());
    };
    let wrong = |reason: String| Failure::NamedFile { flag: "--emit-policy", path: path.clone(), reason };
    let mut text = serde_json::to_string_pretty(policy).map_err(|error| wrong(error.to_string()))?;
    text.push('\n');
    std::fs::write(path, text).map_err(|error| wrong(error.to_string()))
}
