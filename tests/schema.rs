//! What commands print with `--json` is what the schemas in docs/schema/ say, for Debian's python3-jsonschema.

#![cfg(test)]

mod programs;

use std::path::{Path, PathBuf};
use std::process::Command;

use programs::{Scratch, text};

/// Of the distribution, and no other that comes first by PATH.
const VALIDATOR: &str = "/usr/bin/jsonschema";

fn schemas() -> PathBuf {
    std::fs::canonicalize(Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/schema")).unwrap()
}

/// Whether what a command prints satisfies a schema, and what the validator says.
fn validate(schema: &str, value: &Path) -> (bool, String) {
    let base = format!("file://{}/", schemas().display());
    let output = Command::new(VALIDATOR)
        .args(["--base-uri", &base, "-i"])
        .arg(value)
        .arg(schemas().join(format!("{schema}.json")))
        .output()
        .unwrap();
    (output.status.success(), text(&output.stderr) + &text(&output.stdout))
}

#[test]
fn every_command_prints_what_its_schema_says() {
    if !Path::new(VALIDATOR).exists() {
        assert!(std::env::var_os("CHESTNUT_REQUIRE_ALL").is_none(), "python3-jsonschema is not installed");
        eprintln!("skipped: {VALIDATOR} is not installed");
        return;
    }
    let scratch = Scratch::new();
    let (list, hardened) = (scratch.path("list"), scratch.path("hardened"));
    std::fs::write(&list, "/bin/true\n/etc/passwd\n").unwrap();
    let patched = scratch.path("patched");
    let original = programs::read(Path::new("/bin/true"));
    let policy = chestnut_analyzer::analyze(Path::new("/bin/true"), &chestnut_analyzer::Options::default()).unwrap();
    std::fs::write(&patched, programs::patched(&original, &policy).bytes).unwrap();
    let [list, hardened, patched] = [&list, &hardened, &patched].map(|path| path.to_str().unwrap());
    let commands: [(&str, &[&str]); 11] = [
        ("policy", &["analyze", "--json", "/bin/sh"]),
        ("policy", &["analyze", "--json", "/usr/bin/env"]),
        ("explain", &["explain", "--json", "/bin/sh", "write", "execve", "ptrace"]),
        ("explain", &["explain", "--json", "--all-paths-through", "fclose", "/bin/true"]),
        ("explain", &["explain", "--json", "--diff", "/bin/true", "/bin/cat"]),
        ("check", &["check", "--json", patched]),
        ("inspect", &["inspect", "--json", patched]),
        ("report-table", &["report", "--table", "--json", "/bin/true", "/etc/passwd"]),
        ("harden", &["harden", "--list", list, "--out", hardened, "--json", "--quiet"]),
        ("error", &["inspect", "--json", "/bin/true"]),
        ("error", &["analyze", "--json", "/not/there"]),
    ];
    let printed = scratch.path("printed.json");
    for (schema, arguments) in commands {
        let output = Command::new(env!("CARGO_BIN_EXE_chestnut")).args(arguments).output().unwrap();
        std::fs::write(&printed, &output.stdout).unwrap();
        let (is_valid, said) = validate(schema, &printed);
        assert!(is_valid, "{arguments:?}: {said}");
        // No schema takes everything.
        let other = if schema == "policy" { "error" } else { "policy" };
        assert!(!validate(other, &printed).0, "{arguments:?} is a {other}, too");
    }
}
