//! `chestnut trace`: what it records is compared with what strace shows, and what programs do below it with what they
//! do without.

#![cfg(test)]

mod programs;

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use chestnut_analyzer::limits::Limits;
use chestnut_tracer::{Phase, Trace};
use programs::{Scratch, denying, limited, made_for, text, write_policy};

fn chestnut(arguments: &[&str]) -> Command {
    limited(env!("CARGO_BIN_EXE_chestnut"), arguments)
}

fn read_trace(file: &Path) -> Trace {
    Trace::read(file, &Limits::default()).unwrap()
}

/// Runs a command below the tracer.
fn trace(scratch: &Scratch, command: &[&str]) -> (Output, Trace) {
    let file = scratch.path("trace");
    let mut words = vec!["trace", "-q", "-o", file.to_str().unwrap(), "--"];
    words.extend(command);
    let output = chestnut(&words).output().unwrap();
    (output, read_trace(&file))
}

fn build(scratch: &Scratch) -> PathBuf {
    scratch.build("gcc -O1 -pthread", "traced.c", "traced")
}

/// Calls by the name of the image.
fn by_image(trace: &Trace) -> BTreeMap<String, BTreeSet<String>> {
    let mut calls: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for call in trace.calls.values() {
        let path = &trace.images[&call.image].file.path;
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        calls.entry(name).or_default().insert(call.call.clone());
    }
    calls
}

/// Whether a thread waits for another one, and is woken for its tracer, is chance.
const BY_CHANCE: [&str; 2] = ["futex", "restart_syscall"];

fn certain(mut calls: BTreeMap<String, BTreeSet<String>>) -> BTreeMap<String, BTreeSet<String>> {
    calls.values_mut().for_each(|calls| calls.retain(|call| !BY_CHANCE.contains(&call.as_str())));
    calls
}

/// The same by strace: an image is what a successful execve named.
fn by_strace(scratch: &Scratch, command: &[&str]) -> BTreeMap<String, BTreeSet<String>> {
    let log = scratch.path("strace");
    let flags = ["-f", "-qq", "-e", "signal=none", "-o", log.to_str().unwrap()];
    assert!(Command::new("strace").args(flags).args(command).output().is_ok());
    let mut images: BTreeMap<&str, String> = BTreeMap::new();
    let mut calls: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut named: BTreeMap<&str, String> = BTreeMap::new();
    let log = std::fs::read_to_string(log).unwrap();
    let mut lines = Vec::new();
    for line in log.lines() {
        let (pid, rest) = line.split_once(' ').unwrap();
        let rest = rest.trim_start();
        if let Some(other) = rest.strip_prefix("+++ superseded by execve in pid ") {
            lines.push((pid, rest, "superseded", other.trim_end_matches(" +++"), true));
        } else if !rest.starts_with(['+', '-']) {
            let call = rest.trim_start_matches("<... ").split(['(', ' ']).next().unwrap();
            let result = rest.rsplit_once("= ").map_or("", |(_, result)| result);
            lines.push((pid, rest, call, result, rest.starts_with("<...")));
        }
    }
    let is_fork = |call: &str| ["clone", "clone3", "fork", "vfork"].contains(&call);
    // A child runs before its parent is told its number.
    let parents: BTreeMap<&str, &str> =
        lines.iter().filter(|line| is_fork(line.2)).map(|line| (line.3, line.0)).collect();
    for (pid, rest, call, result, is_resumed) in lines {
        if call == "superseded" {
            // Another thread has executed a program, and has this one's number from now on.
            named.insert(pid, named[result].clone());
            continue;
        }
        if let Some(image) = parents.get(pid).and_then(|parent| images.get(parent)).cloned() {
            images.entry(pid).or_insert(image);
        }
        if let Some(image) = images.get(pid).filter(|_| !is_resumed) {
            calls.entry(image.clone()).or_default().insert(call.to_owned());
        }
        if call == "execve" && !is_resumed {
            let path = PathBuf::from(rest.split('"').nth(1).unwrap());
            // One that is looked for in the wrong folder is not there.
            let path = std::fs::canonicalize(&path).unwrap_or(path);
            named.insert(pid, path.file_name().unwrap().to_str().unwrap().to_owned());
        }
        if call == "execve" && result == "0" {
            images.insert(pid, named[pid].clone());
        }
    }
    calls
}

#[test]
fn the_calls_are_those_that_strace_shows() {
    let scratch = Scratch::new();
    let traced = build(&scratch);
    let traced = traced.to_str().unwrap();
    let commands: [&[&str]; 8] = [
        &["/bin/sh", "-c", "ls / | wc -l; id; exit 3"],
        &["/usr/bin/find", "/etc/apt", "-exec", "stat", "{}", ";"],
        &[traced, "threads"],
        &[traced, "children"],
        &[traced, "own-filter"],
        &[traced, "late"],
        &[traced, "heavy"],
        &[traced, "thread-exec"],
    ];
    for command in commands {
        let (_, trace) = trace(&scratch, command);
        assert!(trace.is_complete && trace.gaps.is_empty(), "{command:?}: {:?}", trace.gaps);
        assert_eq!(certain(by_image(&trace)), certain(by_strace(&scratch, command)), "{command:?}");
    }
}

/// Everything that a program can notice: output, status, signals, stops of its children.
#[test]
fn programs_behave_as_without_a_tracer() {
    let scratch = Scratch::new();
    let traced = build(&scratch);
    let traced = traced.to_str().unwrap();
    for mode in ["threads", "children", "tracer", "own-filter", "signals", "foreign", "parent", "heavy", "thread-exec"]
    {
        let alone = Command::new(traced).arg(mode).output().unwrap();
        let (below, _) = trace(&scratch, &[traced, mode]);
        assert_eq!(text(&below.stdout), text(&alone.stdout), "{mode}");
        assert_eq!(text(&below.stderr), text(&alone.stderr), "{mode}");
        // timeout(1) says 128 and the signal, as a shell does.
        let status = alone.status.code().or(alone.status.signal().map(|signal| signal + 128));
        let found = below.status.code().or(below.status.signal().map(|signal| signal + 128));
        assert_eq!(found, status, "{mode}");
    }
}

#[test]
fn what_another_tracer_takes_is_named() {
    let scratch = Scratch::new();
    let traced = build(&scratch);
    let (_, trace) = trace(&scratch, &[traced.to_str().unwrap(), "tracer"]);
    assert_eq!(trace.gaps.len(), 2, "{:?}", trace.gaps);
    assert!(trace.gaps.iter().all(|gap| gap.contains("handed over to another tracer")));
}

/// A call that is made all the time no longer stops the program, and what comes then for the first time still does.
#[test]
fn only_new_calls_stop_a_program_in_the_long_run() {
    let scratch = Scratch::new();
    let traced = build(&scratch);
    let (_, trace) = trace(&scratch, &[traced.to_str().unwrap(), "late"]);
    let count = |name: &str| {
        let call = trace.calls.values().find(|call| call.call == name).expect(name);
        trace.counts[&call.id]
    };
    let (often, at_least) = count("getppid");
    assert!((2000..100_000).contains(&often) && at_least, "{often}");
    assert_eq!(count("getpgid"), (1, false));
    assert_eq!(count("exit_group"), (1, false));
}

#[test]
fn calls_have_phase_place_and_arguments() {
    let scratch = Scratch::new();
    let traced = build(&scratch);
    let (_, found) = trace(&scratch, &[traced.to_str().unwrap(), "parent"]);
    let call = |name: &str| found.calls.values().find(|call| call.call == name).expect(name);
    assert_eq!((call("getppid").phase, call("arch_prctl").phase), (Phase::After, Phase::Before));
    // syscall() of libc, at the instruction itself: objdump is the second opinion.
    let site = &call("getppid").site;
    assert!(site.symbol.as_ref().unwrap().starts_with("syscall+0x"), "{site:?}");
    let (start, end) = (site.address.0, site.address.0 + 2);
    let range = [format!("--start-address={start}"), format!("--stop-address={end}")];
    let listing = programs::tool("objdump", &["-d", &range[0], &range[1]], &site.file);
    assert!(listing.contains("syscall"), "{listing}");
    let (_, found) = trace(&scratch, &[traced.to_str().unwrap(), "foreign"]);
    assert!(found.calls.values().any(|call| call.call == "i386:getpid" && call.native().is_none()));
    // A static program has no loader; what it does before its entry point is nothing.
    let fixed = scratch.build("gcc -O1 -static -pthread", "traced.c", "fixed");
    let (_, found) = trace(&scratch, &[fixed.to_str().unwrap(), "parent"]);
    assert!(found.calls.values().all(|call| call.phase == Phase::After));
    let text = std::fs::read_to_string(scratch.path("trace")).unwrap();
    assert!(text.contains(r#"{"kind":"arguments","#), "{text}");
    assert!(!text.contains(r#""kind":"path""#), "{text}");
}

/// A program for i386, whose numbers mean other calls on x86-64 (20 is writev, 64 is semget, 1 is write).
#[test]
fn calls_of_i386_programs_have_their_own_names() {
    let scratch = Scratch::new();
    let program = scratch.build("gcc -m32 -nostdlib -static", "i386.s", "i386");
    let (output, found) = trace(&scratch, &[program.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(7));
    let calls: Vec<_> = found.calls.values().map(|call| (call.call.as_str(), call.native())).collect();
    assert_eq!(calls, [("i386:getpid", None), ("i386:getppid", None), ("i386:exit", None)]);
}

/// A patched program below the tracer: its own filter does as it always does, and what it refuses is seen.
#[test]
fn what_a_filter_refuses_is_seen() {
    let scratch = Scratch::new();
    let patched = scratch.patch(&build(&scratch), "patched", &denying(&["getppid"]));
    let (output, trace) = trace(&scratch, &[patched.to_str().unwrap(), "parent"]);
    assert_eq!(
        output.status.code().or(output.status.signal().map(|signal| signal + 128)),
        Some(128 + programs::SIGSYS)
    );
    let refused: Vec<_> = trace.calls.values().filter(|call| call.refused.is_some()).map(|call| &call.call).collect();
    assert_eq!(refused, ["getppid"]);
}

/// With a policy only what lies outside it is recorded, from the entry point on; the loader's calls are.
#[test]
fn what_a_policy_allows_is_known() {
    let scratch = Scratch::new();
    let traced = build(&scratch);
    let (file, output) = (scratch.path("policy"), scratch.path("trace"));
    write_policy(&file, &made_for(&traced, denying(&["getpgid"])));
    let words = ["--policy", file.to_str().unwrap(), "-o", output.to_str().unwrap(), "--", traced.to_str().unwrap()];
    let status = chestnut(&["trace", "-q"]).args(words).arg("heavy").status().unwrap();
    assert_eq!(status.code(), Some(0));
    let found = read_trace(&output);
    assert!(found.header.known.len() > 300);
    let after = found.calls.values().filter(|call| call.phase == Phase::After);
    assert_eq!(after.map(|call| call.call.as_str()).collect::<Vec<_>>(), ["getpgid"]);
    assert!(found.calls.values().any(|call| call.phase == Phase::Before));
}

#[test]
fn paths_are_kept_where_they_are_wanted() {
    let scratch = Scratch::new();
    let output = scratch.path("trace");
    let words = ["trace", "-q", "--paths", "-o", output.to_str().unwrap(), "--", "cat", "/etc/debian_version"];
    assert!(chestnut(&words).output().unwrap().status.success());
    let text = std::fs::read_to_string(output).unwrap();
    assert!(text.contains(r#""path":"/etc/debian_version"}"#), "{text}");
}

/// Below another tracer there is none.
#[test]
fn who_may_not_trace_is_told_so() {
    let words = ["-f", "-o", "/dev/null", env!("CARGO_BIN_EXE_chestnut"), "trace", "--", "true"];
    let output = Command::new("strace").args(words).output().unwrap();
    assert_eq!(output.status.code(), Some(125));
    let message = text(&output.stderr);
    assert!(message.contains("may not trace others") && message.lines().count() == 1, "{message}");
}

fn start(command: &mut Command) -> Child {
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut ready = [0; 6];
    child.stdout.as_mut().unwrap().read_exact(&mut ready).unwrap();
    assert_eq!(&ready, b"ready\n");
    child
}

/// Waits, for a minute at most, until something holds.
fn wait_until(what: &str, holds: impl Fn() -> bool) {
    let since = std::time::Instant::now();
    while !holds() {
        assert!(since.elapsed() < Duration::from_secs(60), "{what}: it does not come to that");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn kill(signal: &str, pid: u32) {
    assert!(Command::new("kill").args([&format!("-{signal}"), &pid.to_string()]).status().unwrap().success());
}

/// Processes whose first word is this.
fn processes(program: &Path) -> usize {
    let words = program.as_os_str().as_encoded_bytes();
    let is_it = |folder: &Path| std::fs::read(folder.join("cmdline")).is_ok_and(|line| line.starts_with(words));
    std::fs::read_dir("/proc").unwrap().flatten().filter(|entry| is_it(&entry.path())).count()
}

#[test]
fn signals_to_the_tracer_reach_the_program() {
    let scratch = Scratch::new();
    let traced = build(&scratch);
    let file = scratch.path("trace");
    let run = |mode: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_chestnut"));
        command.args(["trace", "-q", "-o", file.to_str().unwrap(), "--", traced.to_str().unwrap(), mode]);
        start(&mut command)
    };
    let mut stubborn = run("stubborn");
    kill("TERM", stubborn.id());
    assert_eq!(stubborn.wait().unwrap().code(), Some(6));
    let mut busy = run("busy");
    kill("TERM", busy.id());
    assert_eq!(busy.wait().unwrap().signal(), Some(15));
    // Killed in the middle: nothing is left of the program, and what was written can be read.
    let mut busy = run("busy");
    wait_until("getppid is traced", || std::fs::read_to_string(&file).unwrap().contains("getppid"));
    kill("KILL", busy.id());
    busy.wait().unwrap();
    wait_until("the program is gone", || processes(&traced) == 0);
    let cut = read_trace(&file);
    assert!(!cut.is_complete && cut.calls.values().any(|call| call.call == "getppid"));
}

#[test]
fn a_running_process_is_traced_and_let_go() {
    let scratch = Scratch::new();
    let traced = build(&scratch);
    let file = scratch.path("trace");
    let mut busy = start(Command::new(&traced).arg("busy"));
    let pid = busy.id().to_string();
    let mut tracer = chestnut(&["trace", "-q", "-o", file.to_str().unwrap(), "--pid", &pid]).spawn().unwrap();
    // Both calls of its loop: what it has just made when it is let go is all that there is to see of the next round.
    let is_traced = |text: &str| ["getppid", "clock_nanosleep"].iter().all(|call| text.contains(call));
    wait_until("both calls are traced", || std::fs::read_to_string(&file).is_ok_and(|text| is_traced(&text)));
    // Not to timeout(1), which sends it twice, to its child and to its group: the second one is for who does not wait.
    let children = format!("/proc/{0}/task/{0}/children", tracer.id());
    kill("INT", std::fs::read_to_string(children).unwrap().trim().parse().unwrap());
    assert_eq!(tracer.wait().unwrap().code(), Some(0));
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    assert!(status.contains("TracerPid:\t0\n"), "{status}");
    // It sleeps most of the time; a process that was left stopped never does.
    wait_until("the program sleeps", || {
        std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap().contains("State:\tS")
    });
    kill("USR1", busy.id());
    assert_eq!(busy.wait().unwrap().code(), Some(8));
    let calls = certain(by_image(&read_trace(&file)));
    assert_eq!(calls["traced"], BTreeSet::from(["clock_nanosleep".to_owned(), "getppid".to_owned()]));
}

#[test]
fn what_cannot_be_done_is_said_in_one_line() {
    let scratch = Scratch::new();
    let nowhere = scratch.path("none/trace");
    let policy = scratch.path("policy");
    std::fs::write(&policy, r#"{"format":7}"#).unwrap();
    let other = scratch.path("other");
    write_policy(&other, &denying(&[]));
    let word = |path: &Path| path.to_str().unwrap().to_owned();
    let cases: [(Vec<String>, i32, &str); 7] = [
        (vec!["--".into(), "no-such-program".into()], 127, "no-such-program: cannot be started"),
        (vec!["--".into(), "/etc/passwd".into()], 126, "/etc/passwd: cannot be started: Permission denied"),
        (vec!["--pid".into(), "999999999".into()], 125, "process 999999999: cannot be traced"),
        (vec!["-o".into(), word(&nowhere), "--".into(), "true".into()], 2, "cannot be written"),
        (vec!["--policy".into(), word(&policy), "--".into(), "true".into()], 2, "format 7, expected 1"),
        (vec!["--policy".into(), word(&other), "--".into(), "true".into()], 2, "the policy of /usr/bin/program"),
        (vec!["--policy".into(), word(&nowhere), "--".into(), "true".into()], 2, "cannot be read"),
    ];
    for (arguments, status, expected) in cases {
        let mut words = vec!["trace", "-q"];
        words.extend(arguments.iter().map(String::as_str));
        let output = chestnut(&words).output().unwrap();
        let message = text(&output.stderr);
        assert_eq!(output.status.code(), Some(status), "{words:?}: {message}");
        assert!(message.contains(expected) && message.lines().count() == 1, "{words:?}: {message}");
    }
}
