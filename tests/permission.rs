//! `chestnut run`, `chestnut refine` and `chestnut explain-violation`, with the kernel as the judge: a program whose
//! policy lacks a call dies before, is asked about below `run`, and works by itself with the refined policy.

#![cfg(test)]

mod programs;

use std::collections::BTreeSet;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use chestnut_analyzer::policy::{Evidence, Policy};
use programs::{SIGSYS, Scratch, call, denying, limited, read_policy, run, signal, text, write_policy};

const MADE: &str = "made\nmade\nmade\n";

fn chestnut(arguments: &[&str]) -> Output {
    limited(env!("CARGO_BIN_EXE_chestnut"), arguments).output().unwrap()
}

/// A program, its policy, and one that lacks getppid.
struct Case {
    scratch: Scratch,
    program: PathBuf,
    whole: PathBuf,
    cut: PathBuf,
}

impl Case {
    fn new() -> Self {
        let scratch = Scratch::new();
        let program = scratch.build("gcc -O1 -pthread", "traced.c", "traced");
        let policy = chestnut_analyzer::analyze(&program, &chestnut_analyzer::Options::default()).unwrap();
        let (whole, cut) = (scratch.path("whole"), scratch.path("cut"));
        write_policy(&whole, &policy);
        let mut lacking = policy;
        lacking.allowed.remove(&call("getppid")).expect("it is allowed");
        write_policy(&cut, &lacking);
        Self { scratch, program, whole, cut }
    }

    fn path(&self, name: &str) -> String {
        self.scratch.path(name).to_str().unwrap().to_owned()
    }

    /// `chestnut run FLAGS --policy cut -- program parent`.
    fn run(&self, flags: &[&str]) -> Output {
        let mut words = vec!["run"];
        words.extend(flags);
        words.extend(["--policy", self.cut.to_str().unwrap(), "--", self.program.to_str().unwrap(), "parent"]);
        chestnut(&words)
    }

    /// `run --ask` with an answer.
    fn ask(&self, answer: &str, decisions: &str) -> Output {
        let command = format!("echo \"asked $CHESTNUT_CALL $CHESTNUT_NUMBER\" >&2; echo {answer}");
        self.run(&["--ask", "--ask-command", &command, "--decisions", &self.path(decisions), "-o", &self.path("asked")])
    }

    /// The program, patched with a policy, by itself.
    fn patched(&self, policy: &Path) -> Output {
        let patched = self.scratch.patch(&self.program, "patched", &read_policy(policy));
        let output = run(&patched, &["parent"]);
        std::fs::remove_file(&patched).unwrap();
        output
    }
}

fn succeeds(arguments: &[&str]) -> Output {
    let output = chestnut(arguments);
    assert!(output.status.success(), "{arguments:?}: {}", text(&output.stderr));
    output
}

#[test]
fn exactly_what_the_policy_lacks_is_asked_for() {
    let case = Case::new();
    assert_eq!(signal(&case.patched(&case.cut)), Some(SIGSYS));
    let output = case.ask("always", "always");
    assert_eq!(text(&output.stderr).lines().next(), Some("asked getppid 110"));
    assert_eq!(text(&output.stderr).matches("asked ").count(), 1, "{output:?}");
    assert_eq!((text(&output.stdout).as_str(), output.status.code()), (MADE, Some(5)));
    // Answers are remembered.
    let output = case.ask("kill", "always");
    assert!(!text(&output.stderr).contains("getppid"), "{output:?}");
    assert_eq!(text(&output.stdout), MADE);
    // The refined policy works without the tracer, and allows this one call more.
    let refined = case.path("refined");
    succeeds(&["refine", case.cut.to_str().unwrap(), &case.path("asked"), "--add", "-o", &refined]);
    let (policy, whole) = (read_policy(Path::new(&refined)), read_policy(&case.whole));
    assert!(matches!(&policy.allowed[&call("getppid")].evidence, Evidence::Observed { site: Some(_), .. }));
    assert!(policy.allowed.keys().eq(whole.allowed.keys()));
    assert_eq!(text(&case.patched(Path::new(&refined)).stdout), MADE);
}

#[test]
fn answers_are_carried_out() {
    let case = Case::new();
    let output = case.ask("once", "once");
    assert_eq!((text(&output.stdout).as_str(), text(&output.stderr).matches("asked getppid").count()), (MADE, 3));
    let output = case.ask("refuse EACCES", "refuse");
    assert_eq!(text(&output.stdout), "Permission denied\n".repeat(3));
    assert_eq!(text(&output.stderr).matches("asked getppid").count(), 1);
    let output = case.ask("kill", "kill");
    assert!(output.stdout.is_empty());
    assert_eq!(output.status.code().or(signal(&output).map(|signal| signal + 128)), Some(137));
    // No answer is no permission.
    assert_eq!(text(&case.ask("perhaps", "none").stdout), "Operation not permitted\n".repeat(3));
    let decisions = std::fs::read_to_string(case.path("refuse")).unwrap();
    assert!(decisions.contains(r#""getppid": "refuse:EACCES""#), "{decisions}");
    assert!(!Path::new(&case.path("once")).exists());
    // What a person has refused is not needed.
    let output = succeeds(&["refine", case.cut.to_str().unwrap(), &case.path("asked")]);
    assert!(text(&output.stdout).contains("refused when asked, so not added: getppid"), "{output:?}");
}

/// On a terminal, made by script(1).
#[test]
fn a_person_is_asked_on_the_terminal() {
    let case = Case::new();
    let command = format!(
        "{} run --ask --policy {} --decisions {} -- {} parent",
        env!("CARGO_BIN_EXE_chestnut"),
        case.cut.display(),
        case.path("decisions"),
        case.program.display()
    );
    let mut script = Command::new("timeout");
    script.args(["100", "script", "-qec", &command, "/dev/null"]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut script = script.spawn().expect("script is needed");
    // What is typed before the question does not count: the second one answers it.
    let mut stdin = script.stdin.take().unwrap();
    let typist = std::thread::spawn(move || {
        for _ in 0..20 {
            std::thread::sleep(std::time::Duration::from_millis(300));
            if stdin.write_all(b"always\n").is_err() {
                break;
            }
        }
    });
    let output = script.wait_with_output().unwrap();
    let shown = text(&output.stdout);
    assert!(shown.contains("calls getppid (110), which its policy does not allow"), "{shown}");
    assert_eq!((shown.matches("made").count(), output.status.code()), (3, Some(5)), "{shown}");
    typist.join().unwrap();
}

#[test]
fn learning_and_logging_let_everything_pass() {
    let case = Case::new();
    let learned = case.path("learned");
    let output = case.run(&["--learn", "-o", &learned]);
    assert_eq!((text(&output.stdout).as_str(), output.status.code()), (MADE, Some(5)));
    let trace = std::fs::read_to_string(&learned).unwrap();
    let calls: Vec<_> = trace.lines().filter(|line| line.contains(r#""kind":"call""#)).collect();
    assert!(calls.len() == 1 && calls[0].contains(r#""call":"getppid""#), "{calls:?}");
    let output = case.run(&["--log"]);
    assert_eq!((text(&output.stdout).as_str(), output.status.code()), (MADE, Some(5)));
    let log = text(&output.stderr);
    assert!(log.lines().count() == 1 && log.contains("getppid(") && log.contains("(syscall+0x"), "{log}");
}

/// The filter in a patched file would kill before anybody is asked: `run` begins behind the stub.
#[test]
fn a_patched_program_has_its_policy_in_itself() {
    let case = Case::new();
    let patched = case.scratch.patch(&case.program, "patched", &read_policy(&case.cut));
    let output = chestnut(&["run", "--log", "--", patched.to_str().unwrap(), "parent"]);
    assert_eq!((text(&output.stdout).as_str(), output.status.code()), (MADE, Some(5)), "{output:?}");
    assert!(text(&output.stderr).contains("getppid("));
}

/// What is left when all that was not seen is taken away is what the program needs: with each call less it dies.
#[test]
fn unused_calls_go_and_used_ones_stay() {
    let case = Case::new();
    let (trace, small) = (case.path("trace"), case.path("small"));
    let program = case.program.to_str().unwrap();
    assert_eq!(chestnut(&["trace", "-q", "-o", &trace, "--", program, "parent"]).status.code(), Some(5));
    let output = succeeds(&["refine", case.whole.to_str().unwrap(), &trace, "--remove-unused", "-o", &small]);
    assert!(text(&output.stdout).contains("\n- "), "{output:?}");
    let policy = read_policy(Path::new(&small));
    assert!(policy.allowed.len() < read_policy(&case.whole).allowed.len() / 2);
    let path = PathBuf::from(&small);
    assert_eq!(text(&case.patched(&path).stdout), MADE);
    for needed in ["write", "newfstatat", "getppid", "exit_group"] {
        let mut less = policy.clone();
        less.allowed.remove(&call(needed)).expect(needed);
        write_policy(&path, &less);
        assert_eq!(signal(&case.patched(&path)), Some(SIGSYS), "{needed}");
    }
    // A trace of what lies outside a policy does not show that something inside is unused.
    let partial = case.path("partial");
    case.run(&["--learn", "-o", &partial]);
    let output = succeeds(&["refine", case.whole.to_str().unwrap(), &partial, "--remove-unused"]);
    let left: Policy = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(left, read_policy(&case.whole));
}

#[test]
fn other_files_are_refused() {
    let case = Case::new();
    let trace = case.path("trace");
    chestnut(&["trace", "-q", "-o", &trace, "--", "/bin/true"]);
    let whole = case.whole.to_str().unwrap();
    let message = |output: Output| (output.status.code(), text(&output.stderr));
    let (status, line) = message(chestnut(&["refine", whole, &trace]));
    assert!(
        status == Some(1) && line.contains("executed in none of the traces") && line.lines().count() == 1,
        "{line}"
    );
    let (status, line) = message(chestnut(&["refine", whole, whole]));
    assert!(status == Some(2) && line.contains("not a trace") && line.lines().count() == 1, "{line}");
    write_policy(&case.cut, &denying(&[]));
    let (status, line) = message(case.run(&["--log"]));
    assert!(
        status == Some(2) && line.contains("the policy of /usr/bin/program") && line.lines().count() == 1,
        "{line}"
    );
}

/// The kernel's line, with the address moved by whole pages as the loader moves it.
#[test]
fn a_line_of_the_kernel_is_explained() {
    let case = Case::new();
    let fixed = case.scratch.build("gcc -O1 -static-pie -pthread", "traced.c", "fixed");
    let listing = programs::tool("objdump", &["-d", "--no-show-raw-insn"], &fixed);
    let body = listing.split_once("<syscall>:").expect("libc has it").1;
    let line = body.lines().find(|line| line.contains("\tsyscall")).unwrap();
    let address = u64::from_str_radix(line.split(':').next().unwrap().trim(), 16).unwrap();
    let ip = address + 2 + 0x7f12_3456_7000;
    let log = format!(
        "audit: type=1326 audit(1.2:3): auid=0 uid=0 gid=0 ses=1 pid=999999999 comm=\"fixed\" exe=\"{}\" sig=31 \
         arch=c000003e syscall=110 compat=0 ip={ip:#x} code=0x80000000\n",
        fixed.display()
    );
    let file = case.path("log");
    std::fs::write(&file, log).unwrap();
    let explained = text(&succeeds(&["explain-violation", &file]).stdout);
    assert!(explained.contains(": getppid (number 110): the process was killed\n"), "{explained}");
    assert!(explained.contains(&format!("+{address:#x} (syscall+0x")), "{explained}");
    assert!(explained.contains("--allow getppid"), "{explained}");
}

/// The line of the stub's handler, and the place that it names.
#[test]
fn a_trap_says_what_was_refused() {
    let case = Case::new();
    for flags in ["-O1 -pthread", "-O1 -pthread -static -no-pie"] {
        let program = case.scratch.build(&format!("gcc {flags}"), "traced.c", "program");
        let options = chestnut_rewriter::FilterOptions {
            action: chestnut_rewriter::bpf::Action::Trap,
            ..chestnut_rewriter::FilterOptions::default()
        };
        let bytes = programs::read(&program);
        let rewritten = chestnut_rewriter::rewrite(&bytes, &denying(&["getppid"]), &options).unwrap();
        assert_eq!(chestnut_rewriter::unpatch(&rewritten.bytes).unwrap(), bytes);
        let patched = case.scratch.program("trapped", &rewritten.bytes);
        let output = run(&patched, &["parent"]);
        assert_eq!(signal(&output), Some(SIGSYS), "{flags}");
        assert!(output.stdout.is_empty());
        let line = text(&output.stderr);
        assert!(line.starts_with("chestnut: refused getppid (110) at 0x") && line.lines().count() == 1, "{line}");
        let words: BTreeSet<_> = line.trim_end().split(": ").nth(2).unwrap().split(", ").collect();
        assert!(words.iter().all(|word| word.starts_with("0x")), "{line}");
        std::fs::remove_file(&patched).unwrap();
    }
}

/// A program that ignores SIGSYS, as nginx does, dies without the line: the kernel is asked to say it in its log. Of that
/// strace knows; where the log can be read, it is what `explain-violation` reads.
#[test]
fn a_trap_that_is_ignored_is_in_the_log() {
    let case = Case::new();
    let source = case.path("ignores.c");
    std::fs::write(
        &source,
        "#include <signal.h>\n#include <unistd.h>\nint main(void) { signal(SIGSYS, SIG_IGN); return getppid() < 0; }\n",
    )
    .unwrap();
    let program = case.path("ignores");
    assert!(Command::new("gcc").args(["-O1", "-o", &program, &source]).status().unwrap().success());
    let bytes = programs::read(Path::new(&program));
    let patched = |name: &str, action| {
        let options = chestnut_rewriter::FilterOptions { action, ..chestnut_rewriter::FilterOptions::default() };
        case.scratch.program(name, &chestnut_rewriter::rewrite(&bytes, &denying(&["getppid"]), &options).unwrap().bytes)
    };
    use chestnut_rewriter::bpf::Action;
    for (name, action, is_logged) in [("trapped", Action::Trap, true), ("killed", Action::KillProcess, false)] {
        let file = patched(name, action);
        let output = run(&file, &[]);
        assert_eq!((signal(&output), text(&output.stderr)), (Some(SIGSYS), String::new()));
        let traced = Command::new("strace").args(["-e", "trace=seccomp"]).arg(&file).output().unwrap();
        let flags = text(&traced.stderr);
        assert!(flags.contains("SECCOMP_FILTER_FLAG_TSYNC"), "{flags}");
        assert_eq!(flags.contains("SECCOMP_FILTER_FLAG_LOG"), is_logged, "{name}: {flags}");
        let log = Command::new("dmesg").output().map(|output| text(&output.stdout)).unwrap_or_default();
        let about_it = format!("exe=\"{}\"", file.display());
        // The kernel drops lines where many come, and not everybody may read them.
        if let Some(line) = log.lines().find(|line| line.contains(&about_it)) {
            let read = case.path("line");
            std::fs::write(&read, line).unwrap();
            let explained = text(&succeeds(&["explain-violation", &read]).stdout);
            assert!(explained.contains("getppid (number 110)"), "{explained}");
        }
    }
}

#[test]
fn a_program_that_needs_nothing_more_is_said_to() {
    let case = Case::new();
    let program = case.program.to_str().unwrap();
    let learned = chestnut(&["run", "--learn", "--policy", case.whole.to_str().unwrap(), "--", program, "parent"]);
    let report = text(&learned.stderr);
    assert!(report.ends_with("/traced\n  nothing but what the policy allows\n"), "{report}");
    let lacking = chestnut(&["run", "--learn", "--policy", case.cut.to_str().unwrap(), "--", program, "parent"]);
    let report = text(&lacking.stderr);
    assert!(report.contains("getppid (3)") && !report.contains("nothing but"), "{report}");
    let recorded = case.path("recorded");
    let traced = succeeds(&["trace", "-o", &recorded, "--", "/bin/true"]);
    assert!(text(&traced.stderr).contains(", 1 program, 1 process; "), "{traced:?}");
}
