//! Notes of compilers: what `chestnut cc` writes is what `chestnut notes` reads and what the analysis believes.
//!
//! Programs of `tests/sourcalyzer`, without a C library, so that all of their code has notes. What they may call is
//! derived by hand from their sources. Each runs to success, under the filter too.

#![cfg(test)]

use std::collections::BTreeSet;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

use serde_json::Value;
use tempfile::TempDir;

const CHESTNUT: &str = env!("CARGO_BIN_EXE_chestnut");
const FREESTANDING: [&str; 6] = [
    "-ffreestanding",
    "-nostdlib",
    "-fno-stack-protector",
    "-fno-exceptions",
    "-fno-rtti",
    "-Wno-unused-command-line-argument",
];

/// A file in `tests/sourcalyzer`.
fn source(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/sourcalyzer").join(name)
}

/// The plug-in, built once.
fn plugin() -> &'static Path {
    static PLUGIN: OnceLock<PathBuf> = OnceLock::new();
    PLUGIN.get_or_init(|| {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("chestnut-notes.so");
        let build = Path::new(env!("CARGO_MANIFEST_DIR")).join("../sourcalyzer/build");
        assert!(Command::new(build).arg(&path).status().unwrap().success());
        path
    })
}

fn chestnut(arguments: &[&str], folder: &Path) -> Output {
    Command::new(CHESTNUT).args(arguments).env("CHESTNUT_NOTES_PLUGIN", plugin()).current_dir(folder).output().unwrap()
}

/// Compiles sources to a program: those that begin with `gcc:` without notes.
fn build(folder: &TempDir, sources: &[&str], flags: &[&str]) -> PathBuf {
    let mut objects = Vec::new();
    let is_linker = |flag: &&&str| flag.starts_with("-Wl,") || flag.starts_with("-fuse-ld") || **flag == "-pie";
    let (linker, compiler): (Vec<&str>, Vec<&str>) = flags.iter().partition(is_linker);
    for name in sources {
        let (is_foreign, name) = name.strip_prefix("gcc:").map_or((false, *name), |name| (true, name));
        let object = folder.path().join(name).with_extension("o");
        let mut command = if is_foreign { Command::new("gcc") } else { Command::new(CHESTNUT) };
        if !is_foreign {
            command.arg(if name.ends_with(".cc") { "c++" } else { "cc" }).env("CHESTNUT_NOTES_PLUGIN", plugin());
        }
        command.args(if is_foreign { &FREESTANDING[..3] } else { &FREESTANDING[..] }).args(&compiler);
        assert!(command.arg("-c").arg(source(name)).arg("-o").arg(&object).status().unwrap().success(), "{command:?}");
        objects.push(object);
    }
    let program = folder.path().join("program");
    let mut command = Command::new(CHESTNUT);
    command.arg("cc").env("CHESTNUT_NOTES_PLUGIN", plugin()).arg("-nostdlib").args(&linker);
    if !linker.contains(&"-pie") {
        command.arg("-static");
    }
    assert!(command.args(&objects).arg("-o").arg(&program).status().unwrap().success(), "{command:?}");
    program
}

/// The calls that the analysis allows; with its assumptions about notes.
fn analyzed(program: &Path) -> (BTreeSet<String>, Vec<String>) {
    let output = chestnut(&["analyze", "--json", program.to_str().unwrap()], Path::new("/"));
    assert!(output.status.success(), "{output:?}");
    let policy: Value = serde_json::from_slice(&output.stdout).unwrap();
    let calls = policy["allowed"].as_object().unwrap().values();
    let notes = policy["assumptions"].as_array().unwrap().iter().filter(|a| a["kind"] == "compiler-notes");
    let names = calls.map(|call| call["name"].as_str().unwrap().to_owned()).collect();
    (names, notes.map(|a| a["text"].as_str().unwrap().to_owned()).collect())
}

fn allowed(program: &Path) -> BTreeSet<String> {
    analyzed(program).0
}

/// The same file without notes.
fn without_notes(program: &Path) -> PathBuf {
    let path = program.with_extension("plain");
    let remove = ["-R", ".note.chestnut.calls"];
    assert!(Command::new("objcopy").args(remove).args([program, path.as_path()]).status().unwrap().success());
    path
}

fn has(calls: &BTreeSet<String>, names: &[&str]) -> bool {
    names.iter().all(|name| calls.contains(*name))
}

/// That a program succeeds, also under the filter that its notes lead to.
fn runs(program: &Path) {
    assert_eq!(Command::new(program).status().unwrap().code(), Some(0), "{}", program.display());
    let policy = chestnut_analyzer::analyze(program, &chestnut_analyzer::Options::default()).unwrap();
    let bytes = std::fs::read(program).unwrap();
    let patched = program.with_extension("patched");
    let rewritten = chestnut_rewriter::rewrite(&bytes, &policy, &chestnut_rewriter::FilterOptions::default()).unwrap();
    std::fs::write(&patched, rewritten.bytes).unwrap();
    std::fs::set_permissions(&patched, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let status = Command::new(&patched).status().unwrap();
    assert_eq!((status.code(), status.signal()), (Some(0), None), "{}", patched.display());
    assert!(!chestnut(&["notes", patched.to_str().unwrap()], Path::new("/")).stdout.is_empty());
}

/// Builds, runs, and says what is allowed with notes and without.
fn both(sources: &[&str], flags: &[&str]) -> (BTreeSet<String>, BTreeSet<String>) {
    let folder = TempDir::new().unwrap();
    let program = build(&folder, sources, flags);
    runs(&program);
    let (with, without) = (allowed(&program), allowed(&without_notes(&program)));
    assert!(with.is_subset(&without), "{sources:?} {flags:?}: {with:?}, {without:?}");
    (with, without)
}

#[test]
fn functions_are_called_through_their_types() {
    let variants: [&[&str]; 10] = [
        &["-O0"],
        &["-O1"],
        &["-O2"],
        &["-O3", "-g"],
        &["-Os", "-fno-asynchronous-unwind-tables"],
        &["-O2", "-ffunction-sections", "-fdata-sections", "-Wl,--gc-sections"],
        &["-O2", "-ffunction-sections", "-fuse-ld=lld", "-Wl,--gc-sections"],
        &["-O2", "-fuse-ld=gold"],
        &["-O2", "-fno-integrated-as"],
        &["-O2", "-save-temps=obj"],
    ];
    for flags in variants {
        let (with, without) = both(&["types.c"], flags);
        assert!(has(&with, &["getpid", "exit"]), "{flags:?}: {with:?}");
        let left: Vec<_> = without.difference(&with).map(String::as_str).collect();
        assert_eq!(left, ["getppid", "getuid"], "{flags:?}");
    }
}

/// The loader and the C library of the machine have no notes: with them, anything may be called.
#[test]
fn dynamic_programs_are_right() {
    let (with, _) = both(&["types.c"], &["-O2", "-fPIE", "-pie", "-Wl,--no-as-needed,-lc"]);
    assert!(has(&with, &["getpid", "getppid"]), "{with:?}");
}

#[test]
fn stripped_files_keep_their_notes() {
    let folder = TempDir::new().unwrap();
    let program = build(&folder, &["types.c"], &["-O2", "-fno-asynchronous-unwind-tables"]);
    let expected = allowed(&program);
    assert!(!has(&expected, &["getppid"]));
    assert!(Command::new("strip").arg(&program).status().unwrap().success());
    assert_eq!(allowed(&program), expected);
    // elfutils keeps notes that are notes to ELF, and drops those of sources: casts are not known.
    if let Ok(status) = Command::new("eu-strip").arg(&program).status() {
        assert!(status.success());
        runs(&program);
        assert!(has(&allowed(&program), &["getppid"]));
    }
    let merged = folder.path().join("merged.o");
    let object = folder.path().join("types.o");
    let linked = Command::new("ld").arg("-r").arg(&object).arg("-o").arg(&merged).status().unwrap();
    assert!(linked.success());
    let program = folder.path().join("again");
    let linked = Command::new("ld").arg(&merged).arg("-o").arg(&program).status().unwrap();
    assert!(linked.success());
    assert_eq!(allowed(&program), expected);
}

#[test]
fn casts_count_as_both_types() {
    for level in ["-O0", "-O2"] {
        let (with, _) = both(&["casts.c"], &[level]);
        assert!(has(&with, &["getpid", "getppid", "getuid", "getgid", "geteuid", "getegid"]), "{level}: {with:?}");
        assert!(!has(&with, &["setsid"]), "{level}: {with:?}");
    }
}

#[test]
fn the_kernel_calls_handlers_of_signals() {
    let (with, _) = both(&["handler.c"], &["-O2"]);
    assert!(has(&with, &["getppid", "rt_sigreturn"]) && !has(&with, &["getuid"]), "{with:?}");
}

#[test]
fn assembly_calls_what_its_callers_pass() {
    let (with, _) = both(&["assembly.c"], &["-O2"]);
    assert!(has(&with, &["getpid"]) && !has(&with, &["getuid"]), "{with:?}");
}

#[test]
fn parts_without_notes_may_call_anything() {
    let (with, without) = both(&["mixed.c", "gcc:mixed-other.c"], &["-O2"]);
    assert!(has(&with, &["getpid", "getppid"]) && with == without, "{with:?}");
    let (with, _) = both(&["mixed-table-main.c", "gcc:mixed-table.c"], &["-O2"]);
    assert!(has(&with, &["getppid"]), "{with:?}");
}

#[test]
fn weak_definitions_and_aliases_are_told_apart() {
    let (with, _) = both(&["weak.c", "weak-strong.c"], &["-O2"]);
    assert!(has(&with, &["getpid", "getppid"]) && !has(&with, &["getuid"]), "{with:?}");
}

#[test]
fn virtual_functions_are_called() {
    for level in ["-O0", "-O2"] {
        let (with, _) = both(&["virtual.cc"], &[level, "-std=c++17"]);
        assert!(has(&with, &["getpid", "getppid", "getgid"]) && !has(&with, &["getuid"]), "{level}: {with:?}");
    }
}

/// A function that is called through another type than its own, each by a way of its own, at all levels.
#[test]
fn functions_flow_to_calls_of_other_types() {
    let cases = [
        "STRUCT_CAST",
        "TABLE_CAST",
        "MEMBER",
        "UNION_WITH_DATA",
        "UNION_OF_STRUCTS",
        "VARIADIC",
        "LAUNDERED",
        "MACRO",
        "NAME_IN_ASSEMBLY",
        "ADDRESS_IN_ASSEMBLY",
        "STACK_SWITCH",
        "PUSHED",
        "CONTEXT",
    ];
    for case in cases {
        for level in ["-O0", "-O2"] {
            let (with, _) = both(&["flows.c"], &[level, &format!("-D{case}")]);
            assert!(has(&with, &["getppid"]), "{case} {level}: {with:?}");
            let calls_anything = ["MACRO", "STACK_SWITCH", "PUSHED", "CONTEXT"].contains(&case);
            assert_eq!(has(&with, &["setsid"]), calls_anything, "{case} {level}: {with:?}");
        }
    }
}

#[test]
fn functions_flow_from_file_to_file() {
    for case in ["WITHOUT_LIST", "WITHOUT_DECLARATION", "ARRAYS"] {
        for level in ["-O0", "-O2"] {
            let (with, _) = both(&["flows.c", "flows-other.c"], &[level, &format!("-D{case}")]);
            assert!(has(&with, &["getppid"]) && !has(&with, &["setsid"]), "{case} {level}: {with:?}");
        }
    }
    let (with, _) = both(&["scopes.cc", "scopes-other.c"], &["-O2", "-fexceptions"]);
    assert!(has(&with, &["getppid", "getpgrp"]), "{with:?}");
}

/// A file without notes calls by returning: with and without optimisation.
#[test]
fn retpolines_call() {
    for level in ["-O0", "-O2"] {
        let flags = [level, "-DRETPOLINE"];
        let folder = TempDir::new().unwrap();
        let object = folder.path().join("other.o");
        let mut gcc = Command::new("gcc");
        gcc.args(&FREESTANDING[..3]).args(flags).args(["-mindirect-branch=thunk", "-c"]);
        assert!(gcc.arg(source("flows-other.c")).arg("-o").arg(&object).status().unwrap().success());
        let program = build(&folder, &["flows.c"], &[&flags[..], &[&format!("-Wl,{}", object.display())]].concat());
        runs(&program);
        assert!(has(&allowed(&program), &["getppid", "setsid", "exit"]), "{level}");
    }
}

/// A linker that keeps one of two functions keeps the note of one.
#[test]
fn folded_functions_have_both_types() {
    for (case, linker) in [("-DFOLDED", "-Wl,--icf=all"), ("-DFOLDED_CALLERS", "-Wl,--icf=safe")] {
        let (with, _) = both(&["flows.c"], &["-O2", "-ffunction-sections", case, "-fuse-ld=lld", linker]);
        assert!(has(&with, &["getppid"]) && !has(&with, &["setsid"]), "{case}: {with:?}");
    }
}

#[test]
fn parts_of_coroutines_are_called() {
    for level in ["-O0", "-O2"] {
        let (with, _) = both(&["coroutine.cc"], &[level, "-std=c++20"]);
        assert!(has(&with, &["getppid"]), "{level}: {with:?}");
    }
}

/// A note whose function somebody moved: the symbol there has another name.
#[test]
fn notes_of_other_functions_are_named_and_ignored() {
    let folder = TempDir::new().unwrap();
    let program = build(&folder, &["types.c"], &["-O2"]);
    let without = allowed(&without_notes(&program));
    let renamed = folder.path().join("renamed");
    let names = ["--redefine-sym", "not_called=other"];
    assert!(Command::new("objcopy").args(names).args([&program, &renamed]).status().unwrap().success());
    let (calls, warnings) = analyzed(&renamed);
    assert!(has(&calls, &["getppid"]) && calls.is_subset(&without), "{calls:?}");
    let [warning] = warnings.as_slice() else { panic!("{warnings:?}") };
    assert!(warning.starts_with("the compiler's note of not_called is ignored"), "{warning}");
}

/// The form that the paper prints.
#[test]
fn notes_say_what_functions_call() {
    let folder = TempDir::new().unwrap();
    for level in ["-O0", "-O1", "-O2", "-O3"] {
        let targets = |name: &str| {
            let arguments = ["cc", level, "-c", source(name).to_str().unwrap(), "-o", "object.o"].map(str::to_owned);
            let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
            assert!(chestnut(&arguments, folder.path()).status.success());
            let notes: Value = serde_json::from_slice(&chestnut(&["notes", "object.o"], folder.path()).stdout).unwrap();
            let main = notes["functions"].as_array().unwrap().iter().find(|f| f["name"] == "main").unwrap().clone();
            (main["type"].as_str().unwrap().to_owned(), main["call_targets"].clone())
        };
        assert_eq!(targets("hello.c"), ("i32 ()".to_owned(), serde_json::json!(["puts"])));
        let copied = serde_json::json!(["open", "read", "write", "close"]);
        assert_eq!(targets("copy.c"), ("i32 (i32, i8**)".to_owned(), copied), "{level}");
    }
}

/// Bytes that nobody writes: the code counts alone, and the policy says why.
#[test]
fn damaged_notes_are_named_and_ignored() {
    let folder = TempDir::new().unwrap();
    let program = build(&folder, &["types.c"], &["-O2"]);
    let expected = allowed(&without_notes(&program));
    let bytes = std::fs::read(&program).unwrap();
    let place = bytes.windows(9).position(|window| window == b"Chestnut\0").unwrap();
    let damages: [(usize, &[u8], &str); 5] = [
        (place + 12, &[9, 0], "has version 9"),
        (place + 14, &[183, 0], "is for machine 183"),
        (place - 8, &[0xff; 4], "is cut off"),
        (place - 4, &[7, 0, 0, 0], "of the unknown kind 7"),
        (place, b"X", "is not Chestnut's"),
    ];
    for (at, new, message) in damages {
        let mut damaged = bytes.clone();
        damaged[at..at + new.len()].copy_from_slice(new);
        let path = folder.path().join("damaged");
        std::fs::write(&path, damaged).unwrap();
        let (calls, warnings) = analyzed(&path);
        assert_eq!(calls, expected, "{message}");
        assert!(warnings.len() == 1 && warnings[0].contains(message), "{warnings:?}");
        let shown = chestnut(&["notes", path.to_str().unwrap()], Path::new("/"));
        let error = String::from_utf8_lossy(&shown.stderr).into_owned();
        assert!(shown.status.code() == Some(1) && error.contains(message), "{error}");
    }
}

/// A system call in the code that the note does not have counts, and is reported.
#[test]
fn code_contradicts_notes() {
    let folder = TempDir::new().unwrap();
    let program = build(&folder, &["types.c"], &["-O2"]);
    let mut bytes = std::fs::read(&program).unwrap();
    let list = b"instruction 39 ";
    let place = bytes.windows(list.len()).position(|window| window == list).unwrap();
    bytes[place..].iter_mut().take_while(|byte| **byte != 0).for_each(|byte| *byte = 0);
    std::fs::write(&program, bytes).unwrap();
    let (calls, warnings) = analyzed(&program);
    assert!(has(&calls, &["getpid"]), "{calls:?}");
    assert!(warnings.len() == 1 && warnings[0].starts_with("called makes a system call here"), "{warnings:?}");
}

/// Whatever a build asks of a compiler, its answer is clang's.
#[test]
fn the_compiler_answers_as_clang_does() {
    let folder = TempDir::new().unwrap();
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    write("a.c", "#include \"a.h\"\nint unused(void) { int a; return ANSWER; }\nint main(void) { return f(); }\n");
    write("b.c", "int f(void) { return 0; }\n");
    write("a.h", "int f(void);\n#define ANSWER 42\n");
    write("bad.c", "int main(void) { return missing; }\n");
    write("asm.s", "\t.globl g\ng:\tret\n");
    write("cpp.S", "#ifdef A\n\t.globl h\nh:\tret\n#endif\n");
    write("flags", "-O2 -Wall -DA\n");
    let lines: [&str; 16] = [
        "--version",
        "-v",
        "-dumpmachine",
        "-E a.c",
        "-S a.c -o -",
        "-M a.c",
        "-Wall -c a.c",
        "-c bad.c",
        "@flags -c a.c",
        "-x c b.c -c -o b.o",
        "-c asm.s",
        "-DA -c cpp.S",
        "a.c b.c -o both",
        "-flto=thin -c a.c",
        "-emit-llvm -c b.c",
        "-unknown-flag a.c",
    ];
    for line in lines {
        let arguments: Vec<&str> = line.split(' ').collect();
        let own = chestnut(&[&["cc"], arguments.as_slice()].concat(), folder.path());
        let clang = Command::new("clang-14").args(&arguments).current_dir(folder.path()).output().unwrap();
        assert_eq!(own.status.code(), clang.status.code(), "{line}: {own:?}");
        let own_text = String::from_utf8_lossy(&own.stderr).into_owned();
        // Commands that -v shows have the plug-in.
        if line != "-v" {
            assert_eq!(masked(&own_text), masked(&String::from_utf8_lossy(&clang.stderr)), "{line}");
        }
        if !line.starts_with("-S") {
            assert_eq!(own.stdout, clang.stdout, "{line}");
        }
    }
    assert!(chestnut(&["cc", "a.c", "b.c", "-o", "both"], folder.path()).status.success());
    assert!(Command::new(folder.path().join("both")).status().unwrap().success());
}

/// Names of temporary files differ from run to run.
fn masked(text: &str) -> String {
    text.lines().filter(|line| !line.contains("/tmp/")).collect::<Vec<_>>().join("\n")
}

/// Build systems ask compilers more than people do: each builds a program whose parts have notes.
#[test]
fn build_systems_take_it_for_a_compiler() {
    let folder = TempDir::new().unwrap();
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    write("main.c", "int f(void);\nint main(void) { return f(); }\n");
    write("f.c", "int f(void) { return 0; }\n");
    write("g.cc", "extern \"C\" int f();\nint main() { return f(); }\n");
    write("Makefile.plain", "all: both plus\nboth: main.o f.o\n\t$(CC) $^ -o $@\nplus: g.o f.o\n\t$(CXX) $^ -o $@\n");
    write(
        "CMakeLists.txt",
        "cmake_minimum_required(VERSION 3.5)\nproject(both C CXX)\nadd_library(f STATIC f.c)\n\
         add_executable(both main.c)\nadd_executable(plus g.cc)\n\
         target_link_libraries(both f)\ntarget_link_libraries(plus f)\n",
    );
    write(
        "meson.build",
        "project('both', 'c', 'cpp')\nf = static_library('f', 'f.c')\n\
         executable('both', 'main.c', link_with: f)\nexecutable('plus', 'g.cc', link_with: f)\n",
    );
    write(
        "configure.ac",
        "AC_INIT([both], [1])\nAM_INIT_AUTOMAKE([foreign])\nAC_PROG_CC\nAC_PROG_CXX\nAC_CONFIG_FILES([Makefile])\nAC_OUTPUT\n",
    );
    write("Makefile.am", "bin_PROGRAMS = both plus\nboth_SOURCES = main.c f.c\nplus_SOURCES = g.cc f.c\n");
    let cc = format!("{CHESTNUT} cc");
    let has_notes = |path: &str| {
        let path = folder.path().join(path);
        assert!(Command::new(&path).status().is_ok_and(|status| status.success()), "{}", path.display());
        let notes = chestnut(&["notes", path.to_str().unwrap()], folder.path());
        let notes: Value = serde_json::from_slice(&notes.stdout).unwrap();
        let has = |name| notes["functions"].as_array().unwrap().iter().any(|f| f["name"] == name);
        assert!(has("f") && has("main"), "{}", path.display());
    };
    let run = |line: &[&str]| {
        let mut command = Command::new(line[0]);
        command.args(&line[1..]).current_dir(folder.path()).env("CHESTNUT_NOTES_PLUGIN", plugin());
        let output = command.env("CC", &cc).env("CXX", format!("{CHESTNUT} c++")).output();
        match output {
            Ok(output) => assert!(output.status.success(), "{line:?}: {output:?}"),
            Err(error) => {
                let is_required = std::env::var_os("CHESTNUT_REQUIRE_ALL").is_some();
                assert!(!is_required, "{line:?}: {error}");
                return false;
            }
        }
        true
    };
    assert!(run(&["make", "-f", "Makefile.plain"]));
    ["both", "plus"].into_iter().for_each(has_notes);
    if run(&["cmake", "-B", "cmake"]) && run(&["cmake", "--build", "cmake"]) {
        ["cmake/both", "cmake/plus"].into_iter().for_each(has_notes);
    }
    if run(&["meson", "setup", "meson"]) && run(&["meson", "compile", "-C", "meson"]) {
        ["meson/both", "meson/plus"].into_iter().for_each(has_notes);
    }
    std::fs::create_dir(folder.path().join("autotools")).unwrap();
    if run(&["autoreconf", "-i"]) && run(&["sh", "-c", "rm both plus *.o && cd autotools && ../configure && make"]) {
        ["autotools/both", "autotools/plus"].into_iter().for_each(has_notes);
    }
}
