//! Compiled filters: against their specification for every call, and in the kernel. The last tests are the ways around
//! a filter that have been found in others.

#![cfg(test)]

mod programs;

use std::collections::{BTreeMap, BTreeSet};

use chestnut_analyzer::syscall::SyscallNr;
use chestnut_rewriter::bpf::{Action, Filter, Operation, SeccompData, Specification, disassemble};
use chestnut_rewriter::{FilterOptions, rewrite};
use programs::{SIGSYS, Scratch, allowing, call, denying, read, run, signal, text};

const KILL_PROCESS: u32 = 0x8000_0000;
const ALLOW: u32 = 0x7fff_0000;
const ERRNO: u32 = 0x0005_0000;

const ACTIONS: [Action; 5] = [Action::KillProcess, Action::KillThread, Action::Trap, Action::Log, Action::Errno(1)];

fn compile(allowed: BTreeSet<SyscallNr>, action: Action) -> Filter {
    let specification = Specification::new(allowed, BTreeMap::new(), action).expect("numbers of calls");
    Filter::compile(specification).unwrap_or_else(|error| panic!("{error}"))
}

/// A generator of numbers that is the same in each run.
fn numbers(seed: u64) -> impl Iterator<Item = u64> {
    std::iter::successors(Some(seed), |last| {
        let mut next = *last;
        next ^= next << 13;
        next ^= next >> 7;
        next ^= next << 17;
        Some(next)
    })
}

/// Sets of every size, from none to all, each compared for every number: compiling does so
/// itself, and this test once more, with the rules written out.
#[test]
fn filters_decide_as_specified() {
    let known: Vec<_> = SyscallNr::all_known().collect();
    for (round, action) in (0..60).zip(ACTIONS.into_iter().cycle()) {
        let share = round * 2;
        let chosen = known.iter().copied().zip(numbers(round + 1)).filter(|(_, number)| number % 100 < share);
        let allowed: BTreeSet<_> = chosen.map(|(nr, _)| nr).collect();
        let filter = compile(allowed.clone(), action);
        let ceiling = filter.specification().ceiling().0;
        for nr in (0..=1023).chain([0x3fff_ffff, 0x4000_0000, 0x4000_0001, 0x7fff_ffff, 0x8000_0000, u32::MAX - 1]) {
            let expected = match nr {
                0x4000_0000.. => KILL_PROCESS,
                _ if nr > ceiling => ERRNO | 38,
                _ if allowed.contains(&SyscallNr(nr)) => ALLOW,
                _ => action.return_value(),
            };
            assert_eq!(filter.program().run(&SeccompData::of_call(nr)), expected, "{nr} of {} allowed", allowed.len());
        }
    }
}

/// A number above the table raises the ceiling, and no number can reach the x32 bit.
#[test]
fn ceiling_follows_the_policy() {
    let filter = compile([call("read"), SyscallNr(1000)].into(), Action::KillProcess);
    for (nr, expected) in [(1000, ALLOW), (999, KILL_PROCESS), (1001, ERRNO | 38), (0, ALLOW)] {
        assert_eq!(filter.program().run(&SeccompData::of_call(nr)), expected, "{nr}");
    }
    assert_eq!(Specification::new([SyscallNr(0x4000_0000)].into(), BTreeMap::new(), Action::Trap), None);
    let highest = SyscallNr::highest_known();
    let filter = compile([call("read")].into(), Action::KillProcess);
    assert_eq!(filter.program().run(&SeccompData::of_call(highest.0)), KILL_PROCESS);
    assert_eq!(filter.program().run(&SeccompData::of_call(highest.0 + 1)), ERRNO | 38);
}

/// A call that is to fail does, also if the policy allows it.
#[test]
fn failing_calls_fail() {
    let failing = BTreeMap::from([(call("execve"), 13)]);
    let allowed = SyscallNr::all_known().collect();
    let filter = Filter::compile(Specification::new(allowed, failing, Action::KillProcess).unwrap()).unwrap();
    assert_eq!(filter.program().run(&SeccompData::of_call(call("execve").0)), ERRNO | 13);
    assert!(!filter.specification().allowed().contains(&call("execve")));
}

/// The kernel's bitmap cache takes a filter that looks at number and architecture alone; 64-bit arguments of which only
/// half is looked at are no way around a filter that looks at none.
#[test]
fn filter_looks_at_number_and_architecture_only() {
    for action in ACTIONS {
        let filter = compile(SyscallNr::all_known().step_by(3).collect(), action);
        for operation in filter.program().operations() {
            match operation {
                Operation::LoadData(0 | 4) | Operation::Jump(_) | Operation::JumpIf { .. } | Operation::Return(_) => {}
                other => panic!("{other:?}"),
            }
        }
    }
}

/// Each action, done by the kernel.
#[test]
fn kernel_takes_every_action() {
    let scratch = Scratch::new();
    let program = read(&scratch.build("gcc", "raw.c", "raw"));
    let number = call("getppid").0.to_string();
    let expected = [Err(SIGSYS), Err(SIGSYS), Err(SIGSYS), Ok(None), Ok(Some("-1\n"))];
    for (action, expected) in ACTIONS.into_iter().zip(expected) {
        let options = FilterOptions { action, ..FilterOptions::default() };
        let rewritten = rewrite(&program, &denying(&["getppid"]), &options).unwrap();
        let output = run(scratch.program("patched", &rewritten.bytes), &["syscall", &number]);
        match expected {
            Err(expected) => assert_eq!(signal(&output), Some(expected), "{action}"),
            Ok(said) => {
                assert!(output.status.success(), "{action}");
                assert!(said.is_none_or(|said| text(&output.stdout) == said), "{action}: {}", text(&output.stdout));
            }
        }
    }
}

/// What the kernel does with calls by every way in, and by numbers that are none.
#[test]
fn bypasses_are_shut() {
    let scratch = Scratch::new();
    let program = scratch.build("gcc", "raw.c", "raw");
    let patched = scratch.patch(&program, "patched", &denying(&["getppid"]));
    let newer = (SyscallNr::highest_known().0 + 1).to_string();
    let cases: [(&str, &str, Result<&str, i32>); 7] = [
        // No architecture check: getpid of the 32-bit table has number 20, which is allowed (writev) in the other.
        ("int80", "20", Err(SIGSYS)),
        // x32: the same numbers with a bit, and again above.
        ("syscall", "0x40000027", Err(SIGSYS)),
        ("syscall", "0x80000027", Err(SIGSYS)),
        // The kernel looks at 32 bits of rax.
        ("syscall", "0x10000006e", Err(SIGSYS)),
        // No call at all.
        ("syscall", "0xffffffff", Ok("-38\n")),
        // Newer than the table: a newer libc falls back.
        ("syscall", &newer, Ok("-38\n")),
        ("syscall", "0x3fffffff", Ok("-38\n")),
    ];
    for (how, number, expected) in cases {
        let output = run(&patched, &[how, number]);
        match expected {
            Err(expected) => assert_eq!(signal(&output), Some(expected), "{how} {number}"),
            Ok(expected) => assert_eq!(text(&output.stdout), expected, "{how} {number}"),
        }
    }
}

/// io_uring does what seccomp does not see; nothing but the program's own policy brings its three calls in.
#[test]
fn io_uring_is_not_allowed_by_itself() {
    let scratch = Scratch::new();
    let program = scratch.build("gcc", "raw.c", "raw");
    let names = ["io_uring_setup", "io_uring_enter", "io_uring_register"];
    let patched = scratch.patch(&program, "patched", &denying(&names));
    for name in names {
        assert_eq!(signal(&run(&patched, &["syscall", &call(name).0.to_string()])), Some(SIGSYS), "{name}");
    }
}

/// The filter stays when the program executes another one, which can then do no more than it.
#[test]
fn filter_is_inherited() {
    let scratch = Scratch::new();
    let program = scratch.build("gcc -static", "raw.c", "raw");
    let environment = scratch.patch("/usr/bin/env".as_ref(), "env", &denying(&["getppid"]));
    let number = call("getppid").0.to_string();
    let output = run(environment, &[program.to_str().unwrap(), "syscall", &number]);
    assert_eq!(signal(&output), Some(SIGSYS));
}

/// The text of a small filter; UPDATE_GOLDEN=1 writes it anew.
#[test]
fn disassembly_is_as_expected() {
    let rewritten = rewrite(
        &read("/bin/true".as_ref()),
        &allowing(["read", "write", "close", "exit_group"].map(call)),
        &FilterOptions {
            action: Action::Errno(1),
            failing: BTreeMap::from([(call("execve"), 13)]),
            ..FilterOptions::default()
        },
    );
    let found = disassemble(rewritten.unwrap().filter.program());
    let path = programs::source_path("filter.txt");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, &found).unwrap();
    }
    assert_eq!(found, std::fs::read_to_string(&path).unwrap_or_default());
}
