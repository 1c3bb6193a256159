//! Programs that a patched program executes: they inherit its filter, which must let through what they need.

#![cfg(test)]

mod programs;

use std::path::{Path, PathBuf};

use programs::{Scratch, read_policy, run, text};

const SOURCE: &str = "execute.c";

/// Patches with flags, and returns the new file and what was said.
fn patch(scratch: &Scratch, input: &Path, name: &str, flags: &[&str]) -> (PathBuf, String) {
    let output = scratch.path(name);
    let files = [input.to_str().unwrap(), output.to_str().unwrap()];
    let ended = run(env!("CARGO_BIN_EXE_chestnut-patch"), &[flags, &files].concat());
    assert!(ended.status.success(), "{}", text(&ended.stderr));
    (output, text(&ended.stderr))
}

/// A program that executes `target`, a constant in it.
fn executing(scratch: &Scratch, target: &Path, name: &str) -> PathBuf {
    scratch.build(&format!("gcc -O2 -DTARGET=\"{}\"", target.display()), SOURCE, name)
}

fn says(program: &Path, arguments: &[&str]) -> String {
    text(&run(program, arguments).stdout)
}

#[test]
fn the_interpreter_of_a_script_is_followed() {
    let scratch = Scratch::new();
    for (name, line) in [("plain", "#!/bin/sh"), ("env", "#!/usr/bin/env sh"), ("bare", "echo the kernel refuses this")]
    {
        let script = scratch.program(name, format!("{line}\necho script; umask; exit 4\n").as_bytes());
        let program = executing(&scratch, &script, &format!("{name}.executing"));
        let (patched, said) = patch(&scratch, &program, &format!("{name}.patched"), &[]);
        assert!(said.contains("executes"), "{said}");
        assert_eq!(says(&patched, &[]), says(&program, &[]), "{line}");
    }
    assert!(says(&scratch.path("plain.patched"), &[]).contains("script\n"));
}

#[test]
fn a_program_executes_itself_by_its_path() {
    let scratch = Scratch::new();
    let path = scratch.path("own");
    let command = format!("gcc -O2 -DOWN -DTARGET=\"{}\"", path.display());
    let program = scratch.build(&command, SOURCE, "own");
    let expected = says(&program, &[]);
    assert_eq!(expected, "once more\nended with 0, signal 0\n");
    let (patched, _) = patch(&scratch, &program, "new", &[]);
    std::fs::rename(patched, &path).unwrap();
    assert_eq!(says(&path, &[]), expected);
}

/// What the last of them executes is known to whoever patched it only: the filter in it tells the others.
#[test]
fn a_patched_program_runs_a_patched_program_that_runs_one() {
    let scratch = Scratch::new();
    let last = scratch.build("gcc -O2", SOURCE, "last");
    let (last, said) = patch(&scratch, &last, "last.patched", &["--exec-target", "/usr/bin/stat"]);
    assert!(!said.contains("warning"), "{said}");
    let middle = executing(&scratch, &last, "middle");
    let (middle, _) = patch(&scratch, &middle, "middle.patched", &[]);
    let first = executing(&scratch, &middle, "first");
    let (first, _) = patch(&scratch, &first, "first.patched", &[]);
    let found = says(&first, &["/usr/bin/stat"]);
    assert_eq!(found.matches("ended with 0, signal 0").count(), 2, "{found}");
    assert!(found.starts_with("ended with 1, signal 0\n"), "stat says that it wants an operand: {found}");
}

/// As in a system whose programs are patched one after the other, and by a launcher that knows none of them.
#[test]
fn a_program_that_was_patched_first_runs_one_that_is_patched_later() {
    let scratch = Scratch::new();
    let plain = PathBuf::from("/bin/true");
    let path = scratch.path("later");
    std::fs::copy(&plain, &path).unwrap();
    let (named, _) = patch(&scratch, &executing(&scratch, &path, "named"), "named.patched", &[]);
    let launcher = scratch.build("gcc -O2", SOURCE, "launcher");
    let (launcher, _) = patch(&scratch, &launcher, "launcher.patched", &[]);
    let (patched, _) = patch(&scratch, &plain, "true.patched", &[]);
    std::fs::rename(patched, &path).unwrap();
    assert_eq!(says(&named, &[]), "ended with 0, signal 0\n");
    assert_eq!(says(&launcher, &[path.to_str().unwrap()]), "ended with 0, signal 0\n");
}

#[test]
fn a_name_that_goes_into_a_structure_is_found_in_the_function_that_puts_it_there() {
    let scratch = Scratch::new();
    let program = scratch.build("gcc -O2", "command.c", "command");
    let (patched, _) = patch(&scratch, &program, "command.patched", &[]);
    assert_eq!(says(&patched, &["/"]), "directory\n");
}

#[test]
fn executions_that_are_denied_fail_with_the_error_that_is_named() {
    let scratch = Scratch::new();
    let program = executing(&scratch, Path::new("/bin/true"), "program");
    for (flag, number) in [("deny:ENOENT", 2), ("deny", 13)] {
        let (patched, _) = patch(&scratch, &program, &format!("{flag}.patched"), &["--exec", flag]);
        assert_eq!(says(&patched, &[]), format!("ended with {number}, signal 0\n"));
    }
    let contradiction =
        run(env!("CARGO_BIN_EXE_chestnut-patch"), &["--exec", "deny", "--exec-target", "ls", "--list", "/bin/true"]);
    assert_eq!(contradiction.status.code(), Some(2), "{}", text(&contradiction.stderr));
}

#[test]
fn a_launcher_is_warned_about_until_its_targets_are_named() {
    let scratch = Scratch::new();
    let program = scratch.build("gcc -O2", SOURCE, "launcher");
    let (patched, said) = patch(&scratch, &program, "warned", &[]);
    assert!(said.starts_with("warning: ") && said.contains("--exec-target"), "{said}");
    // The loader alone is no reason for a failure, but `stat` needs more.
    assert!(says(&patched, &["/bin/true"]).contains("ended with 0, signal 0"));
    assert!(says(&patched, &["/usr/bin/stat", "/"]).contains("signal 31"));
    let policy = scratch.path("policy.json");
    let flags = ["--exec-target", "stat", "--emit-policy", policy.to_str().unwrap()];
    let (patched, said) = patch(&scratch, &program, "told", &flags);
    assert!(!said.contains("warning"), "{said}");
    assert!(says(&patched, &["stat", "/"]).contains("ended with 0, signal 0"));
    let policy = read_policy(&policy);
    assert_eq!(policy.executed.first().map(|file| file.path.as_path()), Some(Path::new("/usr/bin/stat")));
}

/// Refused on its own account; for those who execute it, it is one more program of which not all is known.
#[test]
fn numbers_that_an_executed_program_is_given_are_assumed_not_to_matter() {
    let scratch = Scratch::new();
    let given = scratch.build("gcc -O2", "number.c", "given");
    let refused = run(env!("CARGO_BIN_EXE_chestnut-patch"), &["--list", given.to_str().unwrap()]);
    assert!(text(&refused.stderr).contains("with a number that is not known"), "{}", text(&refused.stderr));
    let program = executing(&scratch, &given, "program");
    let policy = scratch.path("policy.json");
    let (patched, said) = patch(&scratch, &program, "patched", &["--emit-policy", policy.to_str().unwrap()]);
    assert!(said.starts_with("warning: ") && said.contains("given in main+"), "{said}");
    assert_eq!(says(&patched, &[]), says(&program, &[]));
    let policy = read_policy(&policy);
    assert!(policy.unresolved.is_empty(), "{:?}", policy.unresolved);
    let expected = format!("{} needs no other calls", given.display());
    assert!(policy.assumptions.iter().any(|assumption| assumption.text.starts_with(&expected)));
}
