//! Patched programs in the hands of tools that read, change, debug or load ELF files. The numbers of traps are those of
//! the list that `rewrite.rs` names too.

#![cfg(test)]

mod programs;

use std::path::Path;
use std::process::Command;

use chestnut_rewriter::{inspect, unpatch};
use programs::{Scratch, denying, patched, read, run, text, tool};

/// Trap 19: other tools can work on a patched file, and it runs afterwards, still with its filter.
#[test]
fn patched_program_survives_other_tools() {
    let scratch = Scratch::new();
    let configurations = [
        "gcc -g",
        "gcc -static-pie",
        "gcc -no-pie",
        "gcc -static",
        "gcc -fuse-ld=lld",
        "gcc -fuse-ld=mold",
        "clang -fuse-ld=lld -no-pie",
        "gcc -fuse-ld=gold",
    ];
    let tools: [(&str, &[&str]); 6] = [
        ("strip", &["-o"]),
        ("strip", &["--strip-debug", "-o"]),
        ("objcopy", &["--remove-section=.comment"]),
        ("eu-strip", &["-o"]),
        ("llvm-strip", &["-o"]),
        ("llvm-objcopy", &["--strip-all"]),
    ];
    for configuration in configurations {
        let program = scratch.build(configuration, "probe.c", "probe");
        let expected = text(&run(&program, &["argument"]).stdout);
        let patched = scratch.patch(&program, "patched", &denying(&["getppid"]));
        // LLVM's tools refuse what GNU ld makes of IFUNCs in a static file, patched or not.
        let taken = |name: &str| !(name.starts_with("llvm") && configuration == "gcc -static");
        for (name, arguments) in tools.into_iter().filter(|(name, _)| taken(name)) {
            let what = format!("{configuration}: {name} {arguments:?}");
            let result = scratch.path("result");
            let mut command = Command::new(available(name));
            // strip takes -o RESULT FILE, objcopy FILE RESULT.
            if name.ends_with("strip") {
                command.args(arguments).arg(&result).arg(&patched);
            } else {
                command.args(arguments).arg(&patched).arg(&result);
            }
            let output = command.output().unwrap_or_else(|error| panic!("{name} is needed: {error}"));
            assert!(output.status.success(), "{what}: {}", text(&output.stderr));
            let output = run(&result, &["argument"]);
            assert_eq!(text(&output.stdout), expected, "{what}: {}", text(&output.stderr));
            assert!(text(&output.stderr).ends_with(" 2\n"), "{what}: a filter is on");
            assert!(inspect(&read(&result)).is_ok(), "{what}");
            assert!(unpatch(&read(&result)).is_err(), "{what}: the original is not what it would give back");
        }
    }
}

/// The name under which a tool of LLVM is installed, which has a version in Debian.
fn available(name: &str) -> String {
    let versions = std::iter::once(name.to_owned()).chain((13..30).map(|version| format!("{name}-{version}")));
    let there = |name: &String| Command::new(name).arg("--version").output().is_ok();
    versions.into_iter().find(there).unwrap_or_else(|| panic!("{name} is needed"))
}

/// Readers find no fault that they did not find before. Traps 5, 6, 15, 16, 18.
#[test]
fn readers_find_nothing_wrong() {
    let scratch = Scratch::new();
    for path in ["/bin/ls", "/bin/true", "/usr/bin/perl"] {
        let bytes = read(Path::new(path));
        let patched = scratch.program("patched", &patched(&bytes, &denying(&[])).bytes);
        let output = run("readelf", &["-lSWsdnrV", patched.to_str().unwrap()]);
        assert_eq!(text(&output.stderr), "", "{path}");
        let lint = |path: &Path| text(&run("eu-elflint", &["--gnu-ld", path.to_str().unwrap()]).stdout);
        let before = lint(Path::new(path));
        for line in lint(&patched).lines().filter(|line| !before.contains(line)) {
            // It knows no notes but those of a few projects.
            assert!(line.contains("note type 1 with owner name 'Chestnut'"), "{path}: {line}");
        }
    }
}

/// gdb finds main, stops there and shows where it is.
#[test]
fn debugger_works() {
    let scratch = Scratch::new();
    for configuration in ["gcc -g", "gcc -g -static-pie", "gcc -g -no-pie", "gcc -g -fuse-ld=lld"] {
        let program = scratch.build(configuration, "probe.c", "probe");
        let patched = scratch.patch(&program, "patched", &denying(&["getppid"]));
        let commands = ["-nx", "-batch", "-ex", "break main", "-ex", "run", "-ex", "bt", "-ex", "info symbol $pc"];
        let said = tool("gdb", &commands, &patched);
        assert!(said.contains("Breakpoint 1, main (") && said.contains("in section .text"), "{configuration}: {said}");
    }
}

/// Traps 1 and 3: qemu's user mode computes AT_PHDR from the lowest segment. Loader and start-up code run through; then
/// the stub, for which qemu has no seccomp(), goes no further.
#[test]
fn loaders_find_the_table_under_qemu() {
    let scratch = Scratch::new();
    for configuration in [
        "gcc",
        "gcc -static-pie",
        "gcc -no-pie",
        "gcc -static",
        "gcc -fuse-ld=lld",
        "gcc -fuse-ld=gold",
        "clang -fuse-ld=lld -no-pie",
        "musl-gcc -pie -fPIE",
        "musl-gcc -fuse-ld=mold -pie -fPIE",
    ] {
        let program = scratch.build(configuration, "probe.c", "probe");
        let patched = scratch.patch(&program, "patched", &denying(&["getppid"]));
        let output = run("qemu-x86_64", &[patched.to_str().unwrap(), "argument"]);
        assert_eq!(output.status.code(), Some(127), "{configuration}: {}", text(&output.stderr));
        assert!(text(&output.stderr).starts_with("chestnut: "), "{configuration}");
        assert!(output.stdout.is_empty(), "{configuration}");
    }
}
