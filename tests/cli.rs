//! The command `chestnut`, run on real programs: what it says is compared with objdump, with the rewriter, with the
//! other command, and with golden texts.
//!
//! Golden texts are of a program in assembly, `tests/cli/program.s`, without a C library; what depends on compiler and
//! folder is masked. `UPDATE_GOLDEN=1` writes them anew.

#![cfg(test)]

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use chestnut_analyzer::policy::{CodeLocation, Evidence, Policy};
use chestnut_rewriter::FilterOptions;
use tempfile::TempDir;

/// Name services that every machine with glibc has, so that the result is the same everywhere.
const SERVICES: [&str; 2] = ["--nss", "files,dns"];

fn chestnut(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_chestnut")).args(arguments).output().unwrap()
}

/// Standard output of a run that must succeed.
fn text_of(arguments: &[&str]) -> String {
    let output = chestnut(arguments);
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    assert!(output.stderr.is_empty(), "{arguments:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Compares with a text that is kept in the repository.
fn golden(name: &str, found: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/cli").join(name);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, found).unwrap();
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(found == expected, "{} differs; found:\n{found}", path.display());
}

/// Builds the program of the golden texts.
fn program(folder: &TempDir) -> PathBuf {
    let path = folder.path().join("program");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/cli/program.s");
    let flags = ["-nostdlib", "-nostartfiles", "-static", "-no-pie", "-Wl,--build-id=none", "-o"];
    let status = Command::new("gcc").args(flags).arg(&path).arg(&source).status().unwrap();
    assert!(status.success());
    path
}

/// Patches a program as `chestnut-patch` does.
fn patch(path: &Path) -> PathBuf {
    let bytes = std::fs::read(path).unwrap();
    let policy = chestnut_analyzer::analyze(path, &chestnut_analyzer::Options::default()).unwrap();
    let rewritten = chestnut_rewriter::rewrite(&bytes, &policy, &FilterOptions::default()).unwrap();
    let patched = path.with_extension("patched");
    std::fs::write(&patched, rewritten.bytes).unwrap();
    patched
}

/// Takes out what depends on the machine.
fn masked(text: &str, folder: &TempDir) -> String {
    let text = text.replace(folder.path().to_str().unwrap(), "/folder");
    let mask = |word: &str| {
        let digits = word.trim_end_matches('.');
        let is_digest = digits.len() >= 16 && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
        if is_digest { "DIGEST".to_owned() } else { word.to_owned() }
    };
    let line = |line: &str| {
        let words: Vec<_> = line.split(' ').map(mask).collect();
        match words.as_slice() {
            [first, _, rest @ ..] if first == "Original:" => format!("Original: SIZE {}", rest.join(" ")),
            _ => words.join(" "),
        }
    };
    text.lines().map(|text| line(text) + "\n").collect()
}

#[test]
fn analyze_says_what_the_golden_text_says() {
    let folder = TempDir::new().unwrap();
    let program = program(&folder);
    golden("analyze.txt", &masked(&text_of(&["analyze", text(&program)]), &folder));
    golden("analyze-verbose.txt", &masked(&text_of(&["analyze", "-v", text(&program)]), &folder));
    let explained = text_of(&["explain", text(&program), "getppid", "execve", "ptrace"]);
    golden("explain.txt", &masked(&explained, &folder));
    let through = text_of(&["explain", "--all-paths-through", "middle", text(&program)]);
    golden("explain-through.txt", &masked(&through, &folder));
    let nothing = text_of(&["explain", "--all-paths-through", "unused", text(&program)]);
    assert!(nothing.ends_with("(unused) is not reached\n"), "{nothing}");
}

/// What a program may call more than a policy, where that lacks a call; a patched program is what it was before.
#[test]
fn differences_are_explained() {
    let folder = TempDir::new().unwrap();
    let program = program(&folder);
    let mut policy: Policy = serde_json::from_str(&text_of(&["analyze", "--json", text(&program)])).unwrap();
    policy.allowed.retain(|_, call| call.name != "getppid");
    let stored = folder.path().join("policy.json");
    std::fs::write(&stored, serde_json::to_vec(&policy).unwrap()).unwrap();
    golden("difference.txt", &masked(&text_of(&["explain", "--diff", text(&stored), text(&program)]), &folder));
    let patched = patch(&program);
    let same = text_of(&["explain", "--diff", text(&patched), text(&program)]);
    assert_eq!(same.matches(" may make 0 system calls ").count(), 2, "{same}");
    let [one, other] = [&program, &patched].map(|path| text_of(&["explain", text(path), "getppid", "execve"]));
    assert_eq!(one, other.replace("program.patched", "program"));
}

/// A policy comes from standard input, too; a program does not.
#[test]
fn a_policy_comes_from_standard_input() {
    let folder = TempDir::new().unwrap();
    let program = program(&folder);
    let run = |input: &Path| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_chestnut"));
        command.args(["explain", "--diff", "-", text(&program)]).stdin(std::fs::File::open(input).unwrap());
        command.output().unwrap()
    };
    let stored = folder.path().join("policy.json");
    std::fs::write(&stored, text_of(&["analyze", "--json", text(&program)])).unwrap();
    let output = run(&stored);
    assert!(output.status.success() && output.stdout.starts_with(b"/"), "{output:?}");
    let output = run(&program);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    assert!(
        String::from_utf8_lossy(&output.stderr).contains("its libraries are sought from where it is"),
        "{output:?}"
    );
}

/// Lists and logs come from pipes, too, of a shell's `<(...)` as well as standard input.
#[test]
fn texts_come_from_pipes() {
    let folder = TempDir::new().unwrap();
    let line = "type=1326 pid=999999999 exe=\"/none\" arch=c000003e syscall=101 ip=0x7f0 code=0x7ffc0000";
    let script = format!(
        "set -e; \"$0\" explain-violation <(echo 'a {line}'); echo /bin/true | \"$0\" harden --nss files --list - --out out; \
         \"$0\" report /bin/true --nss files --vulnerabilities <(printf 'MINE\\tptrace\\tme\\n') | grep -c MINE; \
         ! \"$0\" trace -o - -- /bin/true; ls"
    );
    let output = Command::new("bash")
        .args(["-c", &script, env!("CARGO_BIN_EXE_chestnut")])
        .current_dir(&folder)
        .output()
        .unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{said} {}", String::from_utf8_lossy(&output.stderr));
    assert!(said.starts_with("/none: ptrace (number 101)") && said.contains("\npatched             1 "), "{said}");
    assert!(said.ends_with("\n1\nout\n"), "{said}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("-o -: the program that is traced"));
}

#[test]
fn colour_is_where_it_is_wanted() {
    let folder = TempDir::new().unwrap();
    let program = program(&folder);
    assert!(!text_of(&["analyze", text(&program)]).contains('\u{1b}'));
    assert!(text_of(&["--color", "always", "analyze", text(&program)]).contains("\u{1b}[1m"));
    assert!(text_of(&["analyze", "--color=always", text(&program)]).contains("\u{1b}[1m"));
    // On a terminal, which script(1) makes: there is colour unless NO_COLOR or --color says otherwise.
    let on_terminal = |flags: &str, no_color: &str| {
        let line = format!("{} analyze {flags} {}", env!("CARGO_BIN_EXE_chestnut"), text(&program));
        let mut script = Command::new("script");
        let output = script.args(["-qec", &line, "/dev/null"]).env("NO_COLOR", no_color).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap().contains('\u{1b}')
    };
    // An empty value does not count (no-color.org).
    assert!(on_terminal("", ""));
    assert!(!on_terminal("", "1") && !on_terminal("--color=never", ""));
    assert!(on_terminal("--color=always", "1"));
}

#[test]
fn inspect_says_what_the_golden_text_says() {
    let folder = TempDir::new().unwrap();
    let patched = patch(&program(&folder));
    golden("inspect.txt", &masked(&text_of(&["inspect", text(&patched)]), &folder));
}

#[test]
fn unresolved_sites_are_named() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("program");
    let source =
        "\t.globl _start\n\t.type _start, @function\n_start:\n\tmov (%rsp),%eax\n\tsyscall\n\tint $0x80\n\thlt\n";
    std::fs::write(path.with_extension("s"), source).unwrap();
    let flags = ["-nostdlib", "-static", "-o"];
    let built = Command::new("gcc").args(flags).args([&path, &path.with_extension("s")]).status().unwrap();
    assert!(built.success());
    let found = text_of(&["analyze", text(&path)]);
    assert!(found.contains("2 system calls reached with a number that is not known"), "{found}");
    assert!(found.contains("(_start+0x3)\n"), "{found}");
    assert!(found.contains("(_start+0x5), the 32-bit entry\n"), "{found}");
    let explained = text_of(&["explain", text(&path), "execve"]);
    assert!(explained.contains("2 system calls with a number that is not known may be any call"), "{explained}");
}

/// The policy of a program, by way of `--json`.
fn policy(path: &str) -> Policy {
    serde_json::from_str(&text_of(&["analyze", "--json", SERVICES[0], SERVICES[1], path])).unwrap()
}

fn sites(policy: &Policy) -> Vec<(&str, &CodeLocation)> {
    let calls = policy.allowed.values();
    calls
        .filter_map(|call| match &call.evidence {
            Evidence::Site { site, .. } => Some((call.name.as_str(), site)),
            _ => None,
        })
        .collect()
}

/// Every place that is given as evidence is a `syscall` for objdump, an independent decoder.
#[test]
fn every_site_is_a_system_call_for_objdump() {
    let policy = policy("/bin/true");
    let mut by_file: BTreeMap<&Path, Vec<(&str, u64)>> = BTreeMap::new();
    for (name, site) in sites(&policy) {
        by_file.entry(&site.file).or_default().push((name, site.address.0));
    }
    let count: usize = by_file.values().map(Vec::len).sum();
    assert!(count > 10, "{policy:?}");
    for (file, places) in by_file {
        for (name, address) in places {
            let range = [format!("--start-address={address:#x}"), format!("--stop-address={:#x}", address + 2)];
            let output = Command::new("objdump").arg("-d").args(range).arg(file).output().unwrap();
            let listing = String::from_utf8_lossy(&output.stdout).into_owned();
            let is_call = listing.lines().any(|line| line.contains("0f 05") && line.trim_end().ends_with("syscall"));
            assert!(is_call, "{name}: {} {address:#x}: {listing}", file.display());
        }
    }
}

#[test]
fn text_and_json_name_the_same_calls() {
    let policy = policy("/bin/true");
    let found = text_of(&["analyze", SERVICES[0], SERVICES[1], "/bin/true"]);
    let listed = found.lines().skip_while(|line| !line.starts_with("Allowed")).skip(1);
    let listed = listed.take_while(|line| line.starts_with("  ")).map(|line| line.split_whitespace().next().unwrap());
    let names: Vec<_> = policy.allowed.values().map(|call| call.name.as_str()).collect();
    assert_eq!(listed.collect::<Vec<_>>(), names);
    let (first, _) = found.split_once('\n').unwrap();
    assert!(first.contains(&format!(": {} system calls allowed, ", names.len())), "{first}");
    assert!(first.ends_with(&format!("; {} files read", policy.libraries.len() + 1)), "{first}");
    // The same again, byte for byte.
    assert_eq!(found, text_of(&["analyze", SERVICES[0], SERVICES[1], "/bin/true"]));
}

/// What is analyzed is what is patched.
#[test]
fn analyze_agrees_with_chestnut_patch() {
    let policy = policy("/bin/true");
    let names: Vec<_> = policy.allowed.keys().map(ToString::to_string).collect();
    let filter = chestnut_rewriter::compile(&policy, &FilterOptions::default()).unwrap();
    let compiled: Vec<_> = filter.specification().allowed().iter().map(ToString::to_string).collect();
    assert_eq!(names, compiled);
    let other = Path::new(env!("CARGO_BIN_EXE_chestnut")).with_file_name("chestnut-patch");
    if !other.exists() {
        assert!(std::env::var_os("CHESTNUT_REQUIRE_ALL").is_none(), "{} is not built", other.display());
        eprintln!("not compared with {}, which is not built", other.display());
        return;
    }
    let output = Command::new(other).arg("--list").args(SERVICES).arg("/bin/true").output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(String::from_utf8(output.stdout).unwrap().lines().collect::<Vec<_>>(), names);
}

#[test]
fn inspect_agrees_with_the_policy() {
    let folder = TempDir::new().unwrap();
    let copy = folder.path().join("true");
    std::fs::copy("/bin/true", &copy).unwrap();
    let patched = patch(&copy);
    let found: serde_json::Value = serde_json::from_str(&text_of(&["inspect", "--json", text(&patched)])).unwrap();
    let policy: Policy = serde_json::from_str(&text_of(&["analyze", "--json", text(&copy)])).unwrap();
    let names: Vec<_> = policy.allowed.values().map(|call| call.name.as_str()).collect();
    assert_eq!(found["allowed"], serde_json::json!(names));
    assert_eq!(found["action"], "kill");
    assert_eq!(found["original"]["sha256"], policy.program.sha256);
    for (file, library) in found["files"].as_array().unwrap().iter().skip(1).zip(&policy.libraries) {
        assert_eq!(file["path"], library.path.to_str().unwrap());
        let prefix = file["build_id_prefix"].as_str().unwrap();
        assert!(library.build_id.as_ref().unwrap().starts_with(prefix), "{file} {library:?}");
    }
    // A patched program is analyzed as it was before.
    let again: Policy = serde_json::from_str(&text_of(&["analyze", "--json", text(&patched)])).unwrap();
    assert_eq!(again.allowed.keys().collect::<Vec<_>>(), policy.allowed.keys().collect::<Vec<_>>());
    assert_eq!(again.program.path, patched);
}

/// What a person decided when a file was patched is what commands say of it, and not what the program alone could do.
#[test]
fn patched_files_speak_through_their_filter() {
    let folder = TempDir::new().unwrap();
    let [copy, patched] = ["true", "patched"].map(|name| folder.path().join(name));
    std::fs::copy("/bin/true", &copy).unwrap();
    let patcher = Path::new(env!("CARGO_BIN_EXE_chestnut")).with_file_name("chestnut-patch");
    let flags = ["--nss", "files", "--exec", "deny:EPERM", "--deny", "write,reboot", "--allow", "ptrace"];
    let output = Command::new(patcher).args(flags).args([&copy, &patched]).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("--deny takes what the program can call: write (chestnut explain shows where)\n"), "{said}");

    let (file, original) = (text(&patched), text(&copy));
    let why = text_of(&["explain", file, "write", "ptrace", "execve", "reboot"]);
    let refused =
        "write is refused by the filter in the file (--deny when it was patched), although the program can make it:";
    assert!(why.starts_with(refused) && why.contains("): system call\n"), "{why}");
    assert!(why.contains("to allow it: chestnut-patch --repatch --allow write"), "{why}");
    assert!(why.contains("ptrace is allowed:\n    requested by --allow when the file was patched\n"), "{why}");
    assert!(why.contains("execve fails: --exec deny:EPERM\n") && why.contains("reboot is not allowed: "), "{why}");
    let all = text_of(&["analyze", file]);
    let heading =
        "Refused by the filter in the file, although the program can make them:\n  write  (--deny when it was patched)";
    assert!(all.contains(heading) && all.contains("execve fails (--exec deny:EPERM)"), "{all}");

    // The record of the file, by another command, has the same calls.
    let names = |arguments: &[&str]| -> BTreeSet<String> {
        let found: serde_json::Value = serde_json::from_str(&text_of(arguments)).unwrap();
        let calls = &found["allowed"];
        let named = calls.as_object().map(|calls| calls.values().map(|call| call["name"].clone()).collect());
        let names: Vec<serde_json::Value> = named.or_else(|| calls.as_array().cloned()).unwrap();
        names.iter().map(|name| name.as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(names(&["analyze", "--json", file]), names(&["inspect", "--json", file]));
    let difference = text_of(&["explain", "--diff", original, "--nss", "files", file]);
    assert!(difference.contains("may make 1 system call that") && difference.contains("\n  ptrace\n"), "{difference}");
    assert!(difference.contains("  write  "), "{difference}");
    let page = text_of(&["report", file, "-o", "-"]);
    assert!(page.contains("The filter in the file refuses what the program can call:</p>"), "{page}");

    let line =
        format!("type=1326 pid=999999999 exe=\"{file}\" arch=c000003e syscall=1 ip=0x7f00000000f2 code=0x80000000");
    let log = folder.path().join("log");
    std::fs::write(&log, line.replace("pid", "a=1 pid")).unwrap();
    let violation = text_of(&["explain-violation", text(&log)]);
    assert!(violation.contains("\n  it was denied by --deny when the file was patched\n"), "{violation}");
}

#[test]
fn explain_gives_the_evidence_of_the_policy() {
    let policy = policy("/bin/true");
    let arguments = ["explain", "--json", SERVICES[0], SERVICES[1], "/bin/true", "write", "ptrace", "1"];
    let found: serde_json::Value = serde_json::from_str(&text_of(&arguments)).unwrap();
    let write = policy.allowed.values().find(|call| call.name == "write").unwrap();
    assert_eq!(found["calls"]["write"], serde_json::to_value(write).unwrap());
    assert_eq!(found["calls"]["ptrace"], serde_json::Value::Null);
}

/// What only the loader's start-up makes is made before the filter is on, and something in the loader does lead there.
#[test]
fn start_up_code_ran_before() {
    let found = text_of(&["explain", "/bin/true", "set_tid_address"]);
    let lines: Vec<_> = found.lines().collect();
    assert!(
        lines[0].starts_with("set_tid_address is not allowed: nothing that is reached makes it; nearest is "),
        "{found}"
    );
    assert!(lines[1].contains("/ld-linux-x86-64.so.2+0x"), "{found}");
    assert!(lines[1].ends_with(" runs before the filter is on, and only then"), "{found}");
    assert!(lines.len() > 2 && lines[2..].iter().all(|line| line.starts_with("    leads to ")), "{found}");
    // The first is the loader's entry point, for readelf.
    let loader = lines[1].trim().split('+').next().unwrap();
    let header = Command::new("readelf").args(["-h", loader]).output().unwrap();
    let header = String::from_utf8(header.stdout).unwrap();
    let entry = header.lines().find_map(|line| line.trim().strip_prefix("Entry point address:")).unwrap().trim();
    assert!(lines[1].contains(&format!("+{entry} ")), "{entry}: {found}");
}

#[test]
fn executions_that_are_denied_are_not_allowed() {
    let output = text_of(&["analyze", "--exec", "deny", SERVICES[0], SERVICES[1], "/bin/true"]);
    assert!(output.contains("\n  execve fails (--exec deny:EACCES)\n"), "{output}");
    assert!(!output.contains("\n  execve  "), "{output}");
}

/// A command line, the exit status, and what the one line on standard error says.
#[test]
fn failures_have_a_status_and_one_line() {
    let folder = TempDir::new().unwrap();
    let write = |name: &str, contents: &[u8]| {
        let path = folder.path().join(name);
        std::fs::write(&path, contents).unwrap();
        text(&path).to_owned()
    };
    let script = write("script", b"#!/bin/sh\ntrue\n");
    let words = write("words", b"nothing to run\n");
    let cut = write("cut", &std::fs::read("/bin/true").unwrap()[..4000]);
    let library = folder.path().join("library.so");
    let source = write("library.c", b"int one(void) { return 1; }\n");
    let flags = ["-shared", "-fPIC", "-nostdlib", "-Wl,-soname,library.so.1", "-o"];
    let built = Command::new("gcc").args(flags).args([text(&library), &source]).status().unwrap();
    assert!(built.success());
    let absent = text(&folder.path().join("absent")).to_owned();
    let directory = text(folder.path()).to_owned();
    let library = text(&library).to_owned();
    for command in ["analyze", "inspect", "explain"] {
        let cases: [(&str, i32, &str); 6] = [
            (&script, 1, "a script for /bin/sh"),
            (&words, 1, "not an ELF file"),
            (&cut, 1, "truncated"),
            (&library, 1, if command == "inspect" { "not a patched file" } else { "a shared library (library.so.1)" }),
            (&absent, 2, "cannot be read: No such file"),
            (&directory, 1, "not a regular file"),
        ];
        for (path, status, reason) in cases {
            let call: &[&str] = if command == "explain" { &["read"] } else { &[] };
            let output = chestnut(&[&[command, path], call].concat());
            let line = String::from_utf8(output.stderr).unwrap();
            assert_eq!(output.status.code(), Some(status), "{command} {path}: {line}");
            assert!(line.starts_with(&format!("chestnut: {path}: ")) && line.contains(reason), "{command}: {line}");
            assert_eq!(line.lines().count(), 1, "{line}");
            assert!(output.stdout.is_empty());
        }
    }
    let output = chestnut(&["inspect", "--json", "/bin/true"]);
    let found: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((output.status.code(), &found["status"]), (Some(1), &serde_json::json!(1)));
    assert!(found["error"].as_str().unwrap().contains("not a patched file"), "{found}");
    for usage in [&["analyze"][..], &["explain", "/bin/true"], &["explain", "/bin/true", "nocall"], &["polish"]] {
        assert_eq!(chestnut(usage).status.code(), Some(2), "{usage:?}");
    }
    for wrong in [["--exec-target", "/not/there"], ["--exec", "deny:ENOTHING"], ["--exec", "perhaps"]] {
        assert_eq!(chestnut(&[&["analyze"][..], &wrong, &["/bin/true"]].concat()).status.code(), Some(2), "{wrong:?}");
    }
}

/// Who reads one line and goes is no failure: `chestnut analyze x | head -1`.
#[test]
fn a_reader_that_goes_away_is_no_error() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_chestnut"))
        .args(["analyze", "/bin/true"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let mut errors = String::new();
    child.stderr.take().unwrap().read_to_string(&mut errors).unwrap();
    assert_eq!((child.wait().unwrap().code(), errors.as_str()), (Some(0), ""));
}

/// A disk that is full is one.
#[test]
fn a_full_disk_is_an_error() {
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_chestnut"));
    let output = command.args(["analyze", "/bin/true"]).stdout(full).stderr(Stdio::piped()).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("standard output: cannot be written"), "{output:?}");
}
