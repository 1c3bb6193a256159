//! What `chestnut`'s commands are given by mistake, or by somebody who means harm: names that are no text, input that
//! does not end, pipes, devices, and a place for the result where the program is.

#![cfg(test)]

mod programs;

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use chestnut_rewriter::{FilterOptions, rewrite};
use programs::{Scratch, read, text};
use serde_json::Value;

/// Runs chestnut with a limit to its time and its memory, and this as its standard input.
fn chestnut(words: &[&OsStr], input: &str) -> Output {
    let script = "ulimit -v 6000000; exec timeout 60 \"$@\"";
    let command = ["-c", script, "sh", env!("CARGO_BIN_EXE_chestnut")];
    let input: Stdio = std::fs::File::open(input).unwrap().into();
    Command::new("sh").args(command).args(words).stdin(input).output().unwrap()
}

fn words<'w>(words: &'w [&'w str]) -> Vec<&'w OsStr> {
    words.iter().map(OsStr::new).collect()
}

/// A patched program and its policy, under names that are no text.
fn odd(scratch: &Scratch) -> [PathBuf; 2] {
    let [program, patched] =
        [&b"program\xff"[..], b"patched\xff"].map(|name| scratch.path("").join(OsString::from_vec(name.to_vec())));
    std::fs::copy("/bin/true", &program).unwrap();
    let mut options = chestnut_analyzer::Options::default();
    options.nss = Some(vec!["files".to_owned()]);
    let policy = chestnut_analyzer::analyze(&program, &options).unwrap();
    let bytes = rewrite(&read(&program), &policy, &FilterOptions::default()).unwrap().bytes;
    std::fs::write(&patched, bytes).unwrap();
    [program, patched]
}

/// Each command prints JSON about such a program, and the names in it are the same.
#[test]
fn names_that_are_no_text() {
    let scratch = Scratch::new();
    let [program, patched] = odd(&scratch);
    let commands: [(&[&str], &Path, &[&str]); 8] = [
        (&["analyze", "--json"], &program, &[]),
        (&["analyze"], &program, &[]),
        (&["explain", "--json"], &program, &["write", "execve"]),
        (&["explain", "--json", "--all-paths-through", "exit"], &program, &[]),
        (&["inspect", "--json"], &patched, &[]),
        (&["check", "--json"], &patched, &[]),
        (&["report", "--table", "--json"], &program, &[]),
        (&["export", "--format", "json"], &program, &[]),
    ];
    for (before, file, behind) in commands {
        let all = [&words(before)[..], &[file.as_os_str()], &words(behind)].concat();
        let output = chestnut(&all, "/dev/null");
        assert!(output.status.success(), "{before:?}: {}", text(&output.stderr));
        if before.iter().any(|word| word.contains("json")) {
            serde_json::from_slice::<Value>(&output.stdout).unwrap();
            assert!(before[0] == "check" || text(&output.stdout).contains(r"/program\\xff"), "{before:?}");
        }
    }
}

/// The list of `harden` has paths, which are bytes; so have its summary and its tree.
#[test]
fn lists_of_names_that_are_no_text() {
    let scratch = Scratch::new();
    let root = scratch.path("root");
    for folder in ["lib64", "lib/x86_64-linux-gnu", "bin"] {
        std::fs::create_dir_all(root.join(folder)).unwrap();
    }
    for file in ["lib64/ld-linux-x86-64.so.2", "lib/x86_64-linux-gnu/libc.so.6"] {
        std::fs::copy(Path::new("/").join(file), root.join(file)).unwrap();
    }
    let program = PathBuf::from(OsString::from_vec(b"bin/\xe4rger".to_vec()));
    std::fs::copy("/bin/true", root.join(&program)).unwrap();
    let (list, out, report) = (scratch.path("list"), scratch.path("out"), scratch.path("report"));
    std::fs::write(&list, b"# names\n/bin/\xe4rger\n").unwrap();
    let flags = ["harden", "--nss", "files", "--json", "--quiet", "--root"];
    let more = ["--list", list.to_str().unwrap(), "--out", out.to_str().unwrap(), "--report", report.to_str().unwrap()];
    let output = chestnut(&[&words(&flags)[..], &[root.as_os_str()], &words(&more)].concat(), "/dev/null");
    assert!(output.status.success(), "{}", text(&output.stderr));
    let said: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(said["programs"][0]["path"].as_str().unwrap().ends_with(r"/bin/\xe4rger"), "{said}");
    assert!(out.join(&program).exists());
}

/// What has no end is read up to a limit, which a flag sets.
#[test]
fn input_without_an_end() {
    let limit = ["--limit", "file-size=1000000"];
    for command in [&["inspect"][..], &["notes"], &["explain-violation"]] {
        let output = chestnut(&words(&[command, &limit[..], &["-"]].concat()), "/dev/zero");
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{command:?}: {said}");
        let expected = "bytes of standard input: 1000001, over the limit of 1000000; --limit file-size=N raises it";
        assert!(said.contains(expected) && said.lines().count() == 1, "{said}");
    }
    let scratch = Scratch::new();
    let policy = scratch.path("policy.json");
    let emitted = chestnut(&words(&["analyze", "--nss", "files", "--json", "/bin/true"]), "/dev/null");
    std::fs::write(&policy, emitted.stdout).unwrap();
    let policy = policy.to_str().unwrap();
    let out = scratch.path("out");
    let endless: [(&[&str], &str); 3] = [
        (&["refine", "--limit", "file-size=1000000", policy, "/dev/zero"], "bytes of the trace: 1000001"),
        (&["refine", "--limit", "policy-size=10", policy, "/dev/null"], "bytes of the policy: "),
        (
            &["harden", "--limit", "policy-size=1000000", "--list", "/dev/zero", "--out", out.to_str().unwrap()],
            "bytes of the list: 1000001",
        ),
    ];
    for (command, expected) in endless {
        let output = chestnut(&words(command), "/dev/null");
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{command:?}: {said}");
        assert!(said.contains(expected) && said.contains("-size=N raises it"), "{said}");
    }
}

/// A result is not written over the program that it is about.
#[test]
fn results_have_a_place_of_their_own() {
    let scratch = Scratch::new();
    let (program, link) = (scratch.path("program"), scratch.path("link"));
    std::fs::copy("/bin/true", &program).unwrap();
    std::fs::hard_link(&program, &link).unwrap();
    let [file, out] = [&program, &link].map(|path| path.to_str().unwrap());
    let policy = scratch.path("policy.json");
    let commands: [&[&str]; 4] = [
        &["report", "--nss", "files", "-o", out, file],
        &["export", "--nss", "files", "--format", "json", "-o", out, file],
        &["trace", "-o", out, file],
        &["run", "--learn", "-o", out, file],
    ];
    for command in commands {
        let output = chestnut(&words(command), "/dev/null");
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{command:?}: {said}");
        assert!(said.contains(&format!("{out}: the same file as {file}: write to another one")), "{said}");
        assert_eq!(read(&program), read(Path::new("/bin/true")));
    }
    // What is written elsewhere is whole, or the old file stays.
    std::fs::write(&policy, "old").unwrap();
    let (script, place) = ("ulimit -f 8; trap '' XFSZ; exec \"$@\"", policy.to_str().unwrap());
    let command = [env!("CARGO_BIN_EXE_chestnut"), "report", "--nss", "files", "-o", place, "/bin/true"];
    let output = Command::new("sh").args(["-c", script, "sh"]).args(command).output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{}", text(&output.stderr));
    assert_eq!(read(&policy), b"old");
    assert!(Command::new(command[0]).args(&command[1..]).status().unwrap().success());
    assert!(read(&policy).starts_with(b"<!"));
}

/// A file without notes has none; a file that can have none is no file of a compiler.
#[test]
fn notes_are_of_object_files() {
    let output = chestnut(&words(&["notes", "/bin/true"]), "/dev/null");
    let said: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((output.status.code(), &said["functions"]), (Some(0), &serde_json::json!([])));
    for no_object in ["/etc/passwd", "-"] {
        let output = chestnut(&words(&["notes", no_object]), "/dev/null");
        assert_eq!(output.status.code(), Some(1));
        assert!(text(&output.stderr).contains("not an ELF file"), "{}", text(&output.stderr));
    }
}

/// Replaces bytes of a file wherever they stand.
fn replaced(bytes: &[u8], old: &[u8], new: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    let places: Vec<_> = (0..bytes.len()).filter(|at| bytes[*at..].starts_with(old)).collect();
    assert!(!places.is_empty() && old.len() == new.len());
    places.iter().for_each(|at| bytes[*at..at + new.len()].copy_from_slice(new));
    bytes
}

/// Symbols, libraries and paths do nothing to a terminal, forge no line, and end no comment.
#[test]
fn names_that_a_terminal_obeys() {
    let scratch = Scratch::new();
    let (source, program) = (scratch.path("source.s"), scratch.path("program"));
    let code = "\t.globl _start\n\t.type _start, @function\n_start:\n\tcall victim_of_names\n\tmov $231,%eax\n\tsyscall\n\
                \t.type victim_of_names, @function\nvictim_of_names:\n\tmov $110,%eax\n\tsyscall\n\tret\n";
    std::fs::write(&source, code).unwrap();
    let built = Command::new("gcc").args(["-nostdlib", "-static", "-o"]).args([&program, &source]).status().unwrap();
    assert!(built.success());
    std::fs::write(&program, replaced(&read(&program), b"victim_of_names", b"\x1b[2J\x1b[Hno\nline\r")).unwrap();
    let file = program.to_str().unwrap();
    for command in [&["explain", file, "getppid"][..], &["analyze", "-v", file]] {
        let output = chestnut(&words(command), "/dev/null");
        let said = text(&output.stdout);
        assert!(said.contains(r"\u{1b}[2J\u{1b}[Hno\u{a}line\u{d}"), "{said}");
        assert!(!said.contains(|character: char| character.is_control() && character != '\n'), "{said:?}");
    }
    // A library that is not there, of which the one line of the failure speaks.
    std::fs::write(&program, replaced(&read(Path::new("/bin/true")), b"libc.so.6\0", b"\x1b[2Jx\nok\n\0")).unwrap();
    let output = chestnut(&words(&["analyze", file]), "/dev/null");
    let said = text(&output.stderr);
    assert_eq!((output.status.code(), said.lines().count()), (Some(1), 1), "{said:?}");
    assert!(said.contains(r"the library \u{1b}[2Jx\u{a}ok\u{a} that"), "{said:?}");
    // A path in the comment of a profile.
    let folder = scratch.path("a*");
    std::fs::create_dir(&folder).unwrap();
    let program = folder.join("b\nSystemCallFilter=~read");
    std::fs::copy("/bin/true", &program).unwrap();
    for (format, end) in [("systemd", "\nSystemCallFilter=~read"), ("c", "*/b")] {
        let output =
            chestnut(&words(&["export", "--nss", "files", "--format", format, program.to_str().unwrap()]), "/dev/null");
        let said = text(&output.stdout);
        assert!(output.status.success() && said.contains("SystemCallFilter=~read") && !said.contains(end), "{said}");
    }
}
