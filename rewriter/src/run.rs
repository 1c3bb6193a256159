//! What `chestnut-patch` does, step by step.
//!
//! Input: [`Arguments`] and the two streams. Output: a file, text on the streams, or a [`Failure`]. OUT is only touched
//! in the last step, after the result has been verified.

use std::borrow::Cow;
use std::io::Write;
use std::path::{Path, PathBuf};

use chestnut_analyzer::path_text;
use chestnut_analyzer::plain_text;
use chestnut_analyzer::policy::Policy;
use chestnut_analyzer::syscall::SyscallNr;
use chestnut_rewriter::output::{self, FileError, Input};
use chestnut_rewriter::{FilterOptions, Inspection, MadeWith, command_line};
use serde_json::json;

use crate::analysis;
use crate::cli::Arguments;
use crate::failure::Failure;
use crate::report::Report;

/// Does what the arguments say.
pub(crate) fn run(arguments: &Arguments, stdout: &mut dyn Write, stderr: &mut dyn Write) -> Result<(), Failure> {
    refuse_streams(arguments)?;
    analysis::check_place(arguments)?;
    let mut input = output::read(&arguments.input, &arguments.analysis.limits())?;
    let refused = |source| Failure::Refused { path: arguments.input.clone(), source };
    if arguments.unpatch {
        let old = chestnut_rewriter::unpatch(&input.bytes).map_err(refused)?;
        return restore(arguments, &input, &old, stdout, stderr);
    }
    let mut arguments = Cow::Borrowed(arguments);
    let repatched = arguments.repatch && chestnut_rewriter::is_patched(&input.bytes).map_err(refused)?;
    if repatched {
        let inspection = chestnut_rewriter::inspect(&input.bytes).map_err(refused)?;
        input.bytes = chestnut_rewriter::unpatch(&input.bytes).map_err(refused)?;
        arguments = Cow::Owned(renewed(&arguments, &inspection)?);
    }
    let arguments = arguments.as_ref();
    chestnut_rewriter::check(&input.bytes).map_err(refused)?;
    let Some(path) = arguments.output.as_ref().filter(|_| !arguments.list) else {
        let (policy, _) = analysis::policy(arguments, &mut input, repatched)?;
        analysis::emit(arguments, &policy, stdout)?;
        refuse_unresolved(arguments, &policy)?;
        return list(arguments, &policy, stdout);
    };
    if let Some(what) = input.privilege().filter(|_| !arguments.allow_setuid) {
        return Err(Failure::Privileged { path: arguments.input.clone(), what });
    }
    // Before the analysis, which takes its time.
    let place = output::place(&input, &arguments.input, path)?;
    let (policy, denied) = analysis::policy(arguments, &mut input, repatched)?;
    analysis::emit(arguments, &policy, stdout)?;
    refuse_unresolved(arguments, &policy)?;
    let warnings = [arguments.analysis.warning(&policy), denial(&denied)];
    for warning in warnings.iter().flatten().filter(|_| !arguments.quiet) {
        print(stderr, &plain_text::page(&format!("{warning}\n")))?;
    }
    let rewritten = chestnut_rewriter::rewrite(&input.bytes, &policy, &filter_options(arguments)).map_err(refused)?;
    let lost = output::write(&input, &place, &rewritten.bytes)?;
    let (input, output) = (arguments.input.as_path(), path.as_path());
    let report = Report { input, output, policy: &policy, rewritten: &rewritten, lost: &lost };
    if arguments.json {
        print(stdout, &format!("{:#}\n", report.json()))
    } else if arguments.quiet {
        Ok(())
    } else {
        print(stderr, &plain_text::page(&report.text(arguments.verbose)))
    }
}

/// A program has a place, and more than bytes; what is printed is one thing.
fn refuse_streams(arguments: &Arguments) -> Result<(), Failure> {
    let wrong = |text: &str| Err(Failure::Usage(text.to_owned()));
    let is_stream = |path: &Option<PathBuf>| path.as_deref().is_some_and(analysis::is_stream);
    if analysis::is_stream(&arguments.input) {
        return wrong("IN is -: the libraries of a program are sought from where it is: name a file");
    }
    if is_stream(&arguments.output) {
        return wrong("OUT is -: a program has a mode, an owner and attributes beside its bytes: name a file");
    }
    if is_stream(&arguments.emit_policy) && (arguments.list || arguments.json) {
        return wrong("--emit-policy -: --list and --json print to standard output, too: name a file for the policy");
    }
    Ok(())
}

/// What the user must know about `--deny`.
fn denial(denied: &[SyscallNr]) -> Option<String> {
    let names: Vec<_> = denied.iter().map(ToString::to_string).collect();
    (!names.is_empty()).then(|| {
        format!("warning: --deny takes what the program can call: {} (chestnut explain shows where)", names.join(" "))
    })
}

fn print(stream: &mut dyn Write, text: &str) -> Result<(), Failure> {
    command_line::print(stream, text).map_err(|source| FileError::Write { path: "standard output".into(), source })?;
    Ok(())
}

/// The arguments, on top of what was decided when the file was patched.
fn renewed(arguments: &Arguments, inspection: &Inspection) -> Result<Arguments, Failure> {
    let before = &inspection.made_with;
    let path = arguments.input.clone();
    if before.from_policy && arguments.policy.is_none() {
        return Err(Failure::EditedPolicy { path });
    }
    let mut now = arguments.clone();
    let wrong = |source| Failure::RecordedFlags { path, source };
    now.analysis = arguments.analysis.on_top_of(&before.flags).map_err(wrong)?;
    now.allow.extend(before.allow.iter().filter(|call| !arguments.deny.contains(call)));
    now.deny.extend(before.deny.iter().filter(|call| !arguments.allow.contains(call)));
    now.ignore_unresolved |= before.ignore_unresolved;
    now.action = arguments.action.or(Some(inspection.filter.specification().action()));
    Ok(now)
}

fn filter_options(arguments: &Arguments) -> FilterOptions {
    let made_with = MadeWith {
        flags: arguments.analysis.words(),
        allow: arguments.allow.iter().copied().collect(),
        deny: arguments.deny.iter().copied().collect(),
        ignore_unresolved: arguments.ignore_unresolved,
        from_policy: arguments.policy.is_some(),
    };
    let action = arguments.action.unwrap_or_default();
    FilterOptions { action, failing: arguments.analysis.failing(), made_with }
}

fn refuse_unresolved(arguments: &Arguments, policy: &Policy) -> Result<(), Failure> {
    if policy.unresolved.is_empty() || arguments.ignore_unresolved {
        return Ok(());
    }
    Err(Failure::Unresolved { path: arguments.input.clone(), sites: policy.unresolved.clone() })
}

fn list(arguments: &Arguments, policy: &Policy, stdout: &mut dyn Write) -> Result<(), Failure> {
    let refused = |source| Failure::Refused { path: arguments.input.clone(), source };
    let filter = chestnut_rewriter::compile(policy, &filter_options(arguments)).map_err(refused)?;
    let names: Vec<_> = filter.specification().allowed().iter().map(ToString::to_string).collect();
    if arguments.json {
        return print(stdout, &format!("{:#}\n", json!({ "allowed": names })));
    }
    print(stdout, &names.iter().map(|name| format!("{name}\n")).collect::<String>())
}

fn restore(
    arguments: &Arguments,
    input: &Input,
    old: &[u8],
    stdout: &mut dyn Write,
    stderr: &mut dyn Write,
) -> Result<(), Failure> {
    let path = arguments.output.as_deref().unwrap_or(Path::new(""));
    let place = output::place(input, &arguments.input, path)?;
    let lost = output::write(input, &place, old)?;
    if arguments.json {
        let result = json!({
            "input": path_text::text(&arguments.input),
            "output": path_text::text(path),
            "output_bytes": old.len(),
            "not_kept": lost,
        });
        return print(stdout, &format!("{result:#}\n"));
    }
    if arguments.quiet {
        return Ok(());
    }
    let losses = lost.iter().map(|loss| format!("warning: not kept: {loss}\n")).collect::<String>();
    let text = format!("{}: as it was before it was patched\n{losses}", path.display());
    print(stderr, &plain_text::page(&text))
}
