//! What must be true of a patched fixture: the header of `end_to_end.rs` lists it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use chestnut_analyzer::syscall::SyscallNr;

use super::config::{Compiler, Config, Libc};
use super::fixture::{Fixture, Killed};
use super::process::{self, Ending};
use super::{Trouble, chestnut_patch, compile, supervisor, wrong};

/// Builds, patches, runs and compares.
pub(crate) fn check(fixture: &Fixture, config: &Config) -> Result<(), Trouble> {
    needs(fixture)?;
    let built = compile::build(fixture, config)?;
    let patched = built.folder.join("patched");
    if let Some(text) = &fixture.refuse {
        return refused(fixture, &built.program, &patched, text);
    }
    let list = list(fixture, &built.program)?;
    let policy = built.folder.join("policy.json");
    let emit = ["--emit-policy".to_owned(), policy.display().to_string()];
    let ending = tool(fixture, &emit, &[&built.program, &patched])?;
    if !ending.status.success() {
        return wrong(format!("chestnut-patch: {ending}"));
    }
    let mut complaints = Vec::new();
    expected_list(fixture, config, &list, &mut complaints);
    assumptions(fixture, &policy, &mut complaints)?;
    for arguments in &fixture.runs {
        same(&built, &patched, arguments, &list, &mut complaints)?;
    }
    for killed in &fixture.killed {
        dies(&built, &patched, killed, &mut complaints)?;
    }
    if config.compiler == Compiler::Gcc && config.libc == Libc::Glibc {
        unpatch(&built, &patched, &mut complaints)?;
    }
    if complaints.is_empty() { Ok(()) } else { wrong(complaints.join("\n")) }
}

fn needs(fixture: &Fixture) -> Result<(), Trouble> {
    for need in &fixture.needs {
        match need.as_str() {
            "ia32" => {
                // A kernel that cannot run 32-bit programs at all has no `int $0x80` either.
                if !Path::new("/proc/sys/abi/vsyscall32").exists() {
                    return Err(Trouble::Missing(
                        "the kernel has no 32-bit system calls (CONFIG_IA32_EMULATION)".into(),
                    ));
                }
            }
            "network" => {
                let loopback = std::fs::read_to_string("/sys/class/net/lo/operstate").unwrap_or_default();
                if !matches!(loopback.trim(), "unknown" | "up") {
                    return Err(Trouble::Missing("no loopback network".into()));
                }
            }
            other => return wrong(format!("no feature {other:?}")),
        }
    }
    Ok(())
}

fn tool(fixture: &Fixture, flags: &[String], files: &[&PathBuf]) -> Result<Ending, Trouble> {
    process::wait(Command::new(chestnut_patch()).args(&fixture.patch).args(flags).args(files))
}

fn number(name: &str) -> Result<u64, Trouble> {
    if let Some(digits) = name.strip_prefix("0x") {
        return u64::from_str_radix(digits, 16).map_err(|_| Trouble::Wrong(format!("{name:?} is no number")));
    }
    SyscallNr::from_name(name)
        .map(|known| u64::from(known.0))
        .ok_or_else(|| Trouble::Wrong(format!("no call {name:?}")))
}

fn name(number: u64) -> String {
    u32::try_from(number).map_or_else(|_| number.to_string(), |number| SyscallNr(number).to_string())
}

fn names(numbers: impl IntoIterator<Item = u64>) -> String {
    numbers.into_iter().map(name).collect::<Vec<_>>().join(" ")
}

/// `--list`: one name a line.
fn list(fixture: &Fixture, program: &PathBuf) -> Result<BTreeSet<u64>, Trouble> {
    let ending = tool(fixture, &["--list".into()], &[program])?;
    if !ending.status.success() {
        return wrong(format!("chestnut-patch --list: {ending}"));
    }
    ending.stdout.lines().map(|line| number(line.trim())).collect()
}

fn expected_list(fixture: &Fixture, config: &Config, list: &BTreeSet<u64>, complaints: &mut Vec<String>) {
    let of_libc = match config.libc {
        Libc::Glibc => &fixture.allow_glibc,
        Libc::Musl => &fixture.allow_musl,
    };
    for (wanted, names) in [(true, &fixture.allow), (true, of_libc), (false, &fixture.block)] {
        for call in names {
            let found = number(call).is_ok_and(|number| list.contains(&number));
            if found != wanted {
                let what = if wanted {
                    "is not allowed, and the source needs it"
                } else {
                    "is allowed, and nothing reaches it"
                };
                complaints.push(format!("{call} {what}"));
            }
        }
    }
}

fn assumptions(fixture: &Fixture, policy: &Path, complaints: &mut Vec<String>) -> Result<(), Trouble> {
    if fixture.assume.is_empty() {
        return Ok(());
    }
    let text = std::fs::read_to_string(policy)?;
    let policy: serde_json::Value = serde_json::from_str(&text).map_err(|error| Trouble::Wrong(error.to_string()))?;
    let kinds: BTreeSet<&str> =
        policy["assumptions"].as_array().into_iter().flatten().filter_map(|one| one["kind"].as_str()).collect();
    for kind in fixture.assume.iter().filter(|kind| !kinds.contains(kind.as_str())) {
        complaints.push(format!("the policy does not state an assumption of the kind {kind}; it has {kinds:?}"));
    }
    Ok(())
}

/// Same output, same status; every call of the original is allowed; every thread of the patched program has a filter.
fn same(
    built: &compile::Built,
    patched: &Path,
    arguments: &[String],
    list: &BTreeSet<u64>,
    complaints: &mut Vec<String>,
) -> Result<(), Trouble> {
    let original = process::run(&built.folder, &built.program, arguments)?;
    if original.status.code().is_none() {
        complaints.push(format!("{arguments:?}: the original does not end by itself: {original}"));
    }
    let account = supervisor::observe(&built.folder, &built.program, arguments)?;
    if !account.entered {
        complaints.push(format!("{arguments:?}: the original did not reach its entry point under the tracer"));
    }
    // Numbers that no kernel knew when this was built get ENOSYS, allowed or not.
    let known = |number: &u64| *number <= u64::from(SyscallNr::highest_known().0);
    let missed: BTreeSet<u64> = account.calls.difference(list).copied().filter(known).collect();
    if !missed.is_empty() {
        complaints.push(format!("{arguments:?}: called by the original and not in the list: {}", names(missed)));
    }
    let found = process::run(&built.folder, patched, arguments)?;
    let account = supervisor::observe(&built.folder, patched, arguments)?;
    if found != original {
        let at = if found.is_sigsys() { names(account.refused) } else { String::new() };
        complaints.push(format!("{arguments:?}: original: {original}\npatched: {found}\nkilled at: {at}"));
    } else if account.unfiltered {
        complaints.push(format!("{arguments:?}: a thread of the patched program ended without a filter"));
    }
    Ok(())
}

/// The original succeeds, the patched program dies of SIGSYS at the call that is named.
fn dies(built: &compile::Built, patched: &Path, killed: &Killed, complaints: &mut Vec<String>) -> Result<(), Trouble> {
    let arguments = &killed.arguments;
    let original = process::run(&built.folder, &built.program, arguments)?;
    if !original.status.success() {
        complaints.push(format!("{arguments:?}: the original must succeed: {original}"));
    }
    let found = process::run(&built.folder, patched, arguments)?;
    if !found.is_sigsys() {
        complaints.push(format!("{arguments:?}: must die of SIGSYS: {found}"));
        return Ok(());
    }
    let account = supervisor::observe(&built.folder, patched, arguments)?;
    if !account.refused.contains(&number(&killed.call)?) {
        complaints.push(format!("{arguments:?}: must die at {}, died at {}", killed.call, names(account.refused)));
    }
    Ok(())
}

fn unpatch(built: &compile::Built, patched: &Path, complaints: &mut Vec<String>) -> Result<(), Trouble> {
    let restored = built.folder.join("restored");
    let ending = process::wait(Command::new(chestnut_patch()).arg("--unpatch").arg(patched).arg(&restored))?;
    if !ending.status.success() {
        complaints.push(format!("chestnut-patch --unpatch: {ending}"));
    } else if std::fs::read(&restored)? != std::fs::read(&built.program)? {
        complaints.push("--unpatch did not give back the original".into());
    }
    Ok(())
}

fn refused(fixture: &Fixture, program: &PathBuf, patched: &PathBuf, text: &str) -> Result<(), Trouble> {
    let ending = tool(fixture, &[], &[program, patched])?;
    if ending.status.code() != Some(1) || !ending.stderr.contains(text) {
        return wrong(format!("must be refused with status 1 and {text:?} on stderr: {ending}"));
    }
    if patched.exists() {
        return wrong("refused, and yet a file was written");
    }
    Ok(())
}
