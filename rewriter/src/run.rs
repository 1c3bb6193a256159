//! What `chestnut-patch` does, step by step.
//!
//! Input: [`Arguments`] and the two streams. Output: a file, text on the streams, or a [`Failure`]. OUT is only touched
//! in the last step, after the result has been verified.

use std::io::Write;
use std::path::Path;

use chestnut_analyzer::policy::Policy;
use chestnut_rewriter::{FilterOptions, command_line};
use serde_json::json;

use crate::cli::Arguments;
use crate::failure::Failure;
use crate::output::Input;
use crate::report::Report;
use crate::{analysis, output};

/// Does what the arguments say.
pub(crate) fn run(arguments: &Arguments, stdout: &mut dyn Write, stderr: &mut dyn Write) -> Result<(), Failure> {
    let mut input = output::read(&arguments.input)?;
    let mut repatched = false;
    let refused = |source| Failure::Refused { path: arguments.input.clone(), source };
    if arguments.unpatch {
        let old = chestnut_rewriter::unpatch(&input.bytes).map_err(refused)?;
        return restore(arguments, &input, &old, stdout, stderr);
    }
    if arguments.repatch && chestnut_rewriter::is_patched(&input.bytes).map_err(refused)? {
        input.bytes = chestnut_rewriter::unpatch(&input.bytes).map_err(refused)?;
        repatched = true;
    }
    chestnut_rewriter::check(&input.bytes).map_err(refused)?;
    let original = repatched.then_some(input.bytes.as_slice());
    let Some(path) = arguments.output.as_ref().filter(|_| !arguments.list) else {
        let policy = analysis::policy(arguments, original)?;
        analysis::emit(arguments, &policy)?;
        refuse_unresolved(arguments, &policy)?;
        return list(arguments, &policy, stdout);
    };
    if let Some(what) = input.privilege().filter(|_| !arguments.allow_setuid) {
        return Err(Failure::Privileged { path: arguments.input.clone(), what });
    }
    // Before the analysis, which takes its time.
    let place = output::place(&input, &arguments.input, path)?;
    let policy = analysis::policy(arguments, original)?;
    analysis::emit(arguments, &policy)?;
    refuse_unresolved(arguments, &policy)?;
    if let Some(warning) = arguments.analysis.warning(&policy) {
        print(stderr, &format!("{warning}\n"))?;
    }
    let rewritten = chestnut_rewriter::rewrite(&input.bytes, &policy, &filter_options(arguments)).map_err(refused)?;
    let lost = output::write(&input, &place, &rewritten.bytes)?;
    let (input, output) = (arguments.input.as_path(), path.as_path());
    let report = Report { input, output, policy: &policy, rewritten: &rewritten, lost: &lost };
    if arguments.json {
        print(stdout, &format!("{:#}\n", report.json()))
    } else {
        print(stderr, &report.text(arguments.verbose))
    }
}

fn print(stream: &mut dyn Write, text: &str) -> Result<(), Failure> {
    command_line::print(stream, text).map_err(|source| Failure::Output { path: "standard output".into(), source })
}

fn filter_options(arguments: &Arguments) -> FilterOptions {
    FilterOptions { action: arguments.action, failing: arguments.analysis.failing() }
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
        let result = json!({ "input": arguments.input, "output": path, "output_bytes": old.len(), "not_kept": lost });
        return print(stdout, &format!("{result:#}\n"));
    }
    let losses = lost.iter().map(|loss| format!("warning: not kept: {loss}\n")).collect::<String>();
    print(stderr, &format!("{}: as it was before it was patched\n{losses}", path.display()))
}
