//! The stub in the hands of the kernel: what it keeps, and that it never goes ahead without a filter.

#![cfg(test)]

mod programs;

use std::process::Command;

use programs::{SIGSYS, Scratch, denying, run, signal, text};

const COMPLAINT: &str = "chestnut: the system call filter cannot be installed; not going ahead.\n";

/// An interpreter of our own fills all registers and flags; the program finds them as they were. (What stands in rdx is
/// `_dl_fini` for others: without it destructors do not run.)
#[test]
fn registers_flags_and_stack_are_kept() {
    let scratch = Scratch::new();
    let interpreter = scratch.build("gcc -nostdlib -static-pie", "interpreter.s", "interpreter");
    for kind in ["-no-pie", "-pie"] {
        let dynamic = format!("gcc -nostdlib {kind} -Wl,--dynamic-linker={}", interpreter.display());
        // Without a shared library GNU ld asks for no interpreter in a position-dependent file.
        let command = format!("{dynamic} -Wl,--no-as-needed -lc");
        let program = scratch.build(&command, "registers.s", "registers");
        assert_eq!(run(&program, &["argument"]).status.code(), Some(0), "{kind}: the unpatched program");
        let patched = scratch.patch(&program, "patched", &denying(&["getppid"]));
        assert_eq!(run(&patched, &["argument"]).status.code(), Some(0), "{kind}: number of a register");
    }
}

/// Flags of newer kernels are given up one by one, TSYNC never; without the call nothing runs.
#[test]
fn hard_surroundings() {
    let scratch = Scratch::new();
    let confine = scratch.build("gcc", "confine.c", "confine");
    let program = scratch.build("gcc -pthread", "probe.c", "probe");
    let patched = scratch.patch(&program, "patched", &denying(&["getppid"]));
    let confined = |how: &str| run(&confine, &[how, patched.to_str().unwrap(), "argument"]);
    let output = confined("spec-allow");
    assert_eq!(output.status.code(), Some(7), "{}", text(&output.stderr));
    assert!(text(&output.stderr).ends_with(" 2\n"));
    std::fs::set_permissions(scratch.path(""), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    for how in ["no-seccomp", "no-privileges", "forbidden", "no-tsync", "no-no-new"] {
        let output = confined(how);
        assert_eq!((output.status.code(), text(&output.stderr).as_str()), (Some(127), COMPLAINT), "{how}");
        assert!(output.stdout.is_empty(), "{how}");
    }
    // Where even exit_group() comes back, an illegal instruction ends it.
    assert_eq!(signal(&confined("no-exit")), Some(4));
}

/// An ordinary user may install a filter only with no_new_privs, which the stub then sets; root needs none.
#[test]
fn no_new_privs_is_set_where_the_kernel_asks_for_it() {
    assert!(rustix::process::geteuid().is_root(), "this test needs root, to be two users");
    let scratch = Scratch::new();
    std::fs::set_permissions(scratch.path(""), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let confine = scratch.build("gcc", "confine.c", "confine");
    let cat = scratch.patch("/bin/cat".as_ref(), "cat", &denying(&["getppid"]));
    let status = |output: std::process::Output| {
        let wanted = |line: &&str| line.starts_with("NoNewPrivs:") || line.starts_with("Seccomp:");
        text(&output.stdout).lines().filter(wanted).map(str::to_owned).collect::<Vec<_>>()
    };
    let user = run(&confine, &["user", cat.to_str().unwrap(), "/proc/self/status"]);
    assert_eq!(status(user), ["NoNewPrivs:\t1", "Seccomp:\t2"]);
    assert_eq!(status(run(&cat, &["/proc/self/status"])), ["NoNewPrivs:\t0", "Seccomp:\t2"]);
}

/// A thread that a constructor has started runs before the stub. It comes under the filter too; if it cannot, because
/// it has one of its own, the program is not started.
#[test]
fn threads_of_constructors_do_not_escape() {
    let scratch = Scratch::new();
    let library = scratch.build("gcc -shared -fPIC", "early_thread.c", "early.so");
    let sleep = scratch.patch("/bin/sleep".as_ref(), "sleep", &denying(&["getppid"]));
    let run = |own_filter: bool| {
        let mut command = Command::new(&sleep);
        command.arg("20").env("LD_PRELOAD", &library);
        if own_filter {
            command.env("OWN_FILTER", "1");
        }
        command.output().unwrap()
    };
    assert_eq!(signal(&run(false)), Some(SIGSYS));
    let output = run(true);
    assert_eq!((output.status.code(), text(&output.stderr).as_str()), (Some(127), COMPLAINT));
}

/// The image itself: only general registers are touched, landing pad first, and no way goes around the filter.
#[test]
fn image_uses_general_registers_only() {
    let scratch = Scratch::new();
    let patched = scratch.patch("/bin/true".as_ref(), "patched", &denying(&[]));
    let listing =
        programs::tool("objdump", &["-d", "-M", "intel", "-j", ".chestnut.stub", "--no-show-raw-insn"], &patched);
    let code = listing.split_once("<.chestnut.stub>:").expect("the section is there").1;
    let first = code.lines().nth(1).unwrap_or_default();
    assert!(first.contains("endbr64"), "{first}");
    // Behind the last way to die stands the message, which objdump takes for code, and the way out, which restores
    // what the first instructions save.
    let code = code.rsplit_once("ud2").expect("a way to die").0;
    for register in ["xmm", "ymm", "zmm", "mm0", "st(", "fs:", "gs:"] {
        assert!(!code.contains(register), "{register} in\n{code}");
    }
}
