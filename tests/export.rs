//! `chestnut export`, by those who enforce it: each takes the profile and runs a program under it, which works, and
//! which dies (or is told) of a call that it makes by a number from its command line. The analysis cannot know that number,
//! so it is said to be ignored.

#![cfg(test)]

mod programs;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use programs::{SIGSYS, Scratch, call, source_path, text};

fn export(format: &str, program: &Path, output: &Path, more: &[&str]) {
    let words = ["export", "--format", format, "--nss", "files", "--ignore-unresolved", "-o", output.to_str().unwrap()];
    let done = Command::new(env!("CARGO_BIN_EXE_chestnut")).args(words).args(more).arg(program).output().unwrap();
    assert!(done.status.success() && done.stdout.is_empty(), "{format}: {done:?}");
}

/// Statically, so that a container needs nothing else; and the number of a call that it does not need.
fn raw(scratch: &Scratch) -> (PathBuf, String) {
    (scratch.build("gcc -O1 -static", "raw.c", "raw"), call("getppid").0.to_string())
}

fn said(command: &mut Command) -> Output {
    command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"))
}

/// The status as a shell has it: what stands between us and the program may tell of a signal either way.
fn status(output: &Output) -> i32 {
    use std::os::unix::process::ExitStatusExt;
    output.status.code().or(output.status.signal().map(|signal| 128 + signal)).unwrap()
}

/// A harmless call passes, the other one kills.
fn assert_is_enforced(what: &str, run: impl Fn(&str) -> Output, refused: &str) {
    let harmless = run(&call("getpid").0.to_string());
    assert_eq!(status(&harmless), 0, "{what}: {harmless:?}");
    assert!(!harmless.stdout.is_empty(), "{what}: {harmless:?}");
    let killed = run(refused);
    assert_eq!(status(&killed), 128 + SIGSYS, "{what}: {killed:?}");
    assert!(killed.stdout.is_empty(), "{what}: {killed:?}");
}

#[test]
fn bubblewrap_takes_the_filter() {
    let scratch = Scratch::new();
    let (program, refused) = raw(&scratch);
    let filter = scratch.path("filter");
    export("bpf", &program, &filter, &[]);
    let script = r#"exec bwrap --bind / / --seccomp 3 "$2" syscall "$3" 3<"$1""#;
    let run =
        |number: &str| said(Command::new("bash").args(["-c", script, "run"]).arg(&filter).arg(&program).arg(number));
    assert_is_enforced("bwrap", run, &refused);
}

/// A dynamic program: its loader runs under the filter, too.
#[test]
fn bubblewrap_runs_a_dynamic_program() {
    let scratch = Scratch::new();
    let filter = scratch.path("filter");
    export("bpf", Path::new("/usr/bin/sort"), &filter, &[]);
    let script = r#"printf 'b\na\n' | bwrap --bind / / --seccomp 3 /usr/bin/sort 3<"$1""#;
    let output = said(Command::new("bash").args(["-c", script, "run"]).arg(&filter));
    assert_eq!(text(&output.stdout), "a\nb\n", "{output:?}");
}

#[test]
fn firejail_takes_the_profile() {
    let scratch = Scratch::new();
    let (program, refused) = raw(&scratch);
    let profile = scratch.path("raw.profile");
    export("firejail", &program, &profile, &[]);
    let profile = format!("--profile={}", profile.display());
    let run = |number: &str| {
        said(Command::new("firejail").args(["--quiet", &profile]).arg(&program).args(["syscall", number]))
    };
    let harmless = run("39");
    if !harmless.status.success() {
        // It needs to mount; if it cannot run the program without a filter either, there is nothing to be seen here.
        let plain =
            said(Command::new("firejail").args(["--quiet", "--noprofile"]).arg(&program).args(["syscall", "39"]));
        assert!(!plain.status.success(), "{harmless:?}");
        println!("skipped: firejail runs nothing here: {}", text(&plain.stderr));
        return;
    }
    let killed = run(&refused);
    assert!(!killed.status.success() && !text(&killed.stdout).contains(char::is_numeric), "{killed:?}");
}

/// In a bundle of its own, ten times: the threads of runc's own runtime run under the filter for a moment.
#[test]
fn runc_takes_the_profile() {
    let scratch = Scratch::new();
    let (program, refused) = raw(&scratch);
    let profile = scratch.path("profile.json");
    export("oci", &program, &profile, &[]);
    let script = source_path("bundle.sh");
    let bundle = |name: &str, profile: &Path, number: &str| {
        let folder = scratch.path(name);
        said(Command::new("bash").arg(&script).arg(folder).arg(&program).arg(profile).args(["syscall", number]))
    };
    let plain = bundle("plain", Path::new(""), "39");
    if !plain.status.success() {
        println!("skipped: runc runs nothing here: {}", text(&plain.stderr));
        return;
    }
    assert_is_enforced("runc", |number| bundle(&format!("enforced-{number}"), &profile, number), &refused);
    for round in 0..9 {
        let output = bundle(&format!("round-{round}"), &profile, "39");
        assert!(output.status.success(), "{round}: {output:?}");
    }
}

/// Docker's form of a profile, by podman and crun.
#[test]
fn podman_takes_the_profile() {
    let scratch = Scratch::new();
    let (program, refused) = raw(&scratch);
    let harmless = call("getpid").0.to_string();
    let profile = scratch.path("profile.json");
    export("podman", &program, &profile, &[]);
    let containers = |name: &str, profile: &Path| {
        let folder = scratch.path(name);
        let script = source_path("podman.sh");
        let arguments = [script.as_path(), &folder, &program, profile];
        let output = said(Command::new("bash").args(arguments).args([&harmless, &refused]));
        let read = |number: &str, end: &str| std::fs::read_to_string(folder.join(format!("{number}.{end}")));
        let status = |number: &str| read(number, "status").unwrap_or_default().trim().to_owned();
        let said = format!("{output:?} {:?}", read(&harmless, "err"));
        ([status(&harmless), status(&refused)], read(&harmless, "out").unwrap_or_default(), said)
    };
    let (plain, _, why) = containers("plain", Path::new(""));
    if plain != ["0", "0"] {
        println!("skipped: podman runs nothing here: {why}");
        return;
    }
    let (enforced, printed, why) = containers("enforced", &profile);
    assert_eq!(enforced, ["0", &(128 + SIGSYS).to_string()], "{why}");
    assert!(!printed.is_empty(), "{why}");
}

/// What minijail0 and the operator of Kubernetes do not know is not in their files.
#[test]
fn actions_are_said_in_words_that_the_reader_knows() {
    let scratch = Scratch::new();
    let path = scratch.path("profile");
    let exported = |format: &str, action: &str| {
        export(format, Path::new("/usr/bin/sort"), &path, &["--action", action]);
        std::fs::read_to_string(&path).unwrap()
    };
    assert!(!exported("minijail", "kill").contains('@'));
    assert!(!exported("minijail", "log").contains('@'));
    assert!(exported("minijail", "errno:EACCES").contains("\n@default return 13\n"));
    let spec = |action: &str| -> serde_json::Value {
        let resource: serde_json::Value = serde_json::from_str(&exported("kubernetes-spo", action)).unwrap();
        resource["spec"].clone()
    };
    // The fields of `SeccompProfileSpec` (api/seccompprofile/v1beta1 of the operator).
    let known = ["defaultAction", "architectures", "syscalls"];
    for action in ["kill", "errno:EPERM", "errno:EACCES"] {
        assert!(spec(action).as_object().unwrap().keys().all(|key| known.contains(&key.as_str())), "{action}");
    }
    let refused = spec("errno:EACCES")["syscalls"].as_array().unwrap().last().unwrap().clone();
    assert_eq!((&refused["action"], &refused["errnoRet"]), (&"SCMP_ACT_ERRNO".into(), &13.into()));
    let names = refused["names"].as_array().unwrap();
    assert!(names.contains(&"ptrace".into()) && !names.contains(&"read".into()), "{names:?}");
}

/// Nothing outside the program can start it if executions fail.
#[test]
fn denied_executions_are_for_the_entry_point() {
    let words = ["export", "--format", "bpf", "--nss", "files", "--exec", "deny", "/usr/bin/sort"];
    let output = said(Command::new(env!("CARGO_BIN_EXE_chestnut")).args(words));
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    assert!(text(&output.stderr).contains("--exec deny needs --at-entry"), "{output:?}");
}

/// What systemd says of a unit with the drop-in: nothing.
#[test]
fn systemd_takes_the_drop_in() {
    let scratch = Scratch::new();
    for (name, action) in [("kill", "kill"), ("errno", "errno:EPERM"), ("log", "log")] {
        let unit = scratch.path(&format!("{name}.service"));
        let folder = scratch.path(&format!("{name}.service.d"));
        std::fs::create_dir(&folder).unwrap();
        std::fs::write(&unit, "[Service]\nExecStart=/usr/bin/sort /dev/null\n").unwrap();
        let drop_in = folder.join("chestnut.conf");
        export("systemd", Path::new("/usr/bin/sort"), &drop_in, &["--action", action]);
        let output = said(Command::new("systemd-analyze").arg("verify").arg("--man=no").arg(&unit));
        let complaints = text(&output.stderr);
        let about_us: Vec<_> =
            complaints.lines().filter(|line| line.contains(name) || line.contains("chestnut.conf")).collect();
        assert_eq!(about_us, Vec::<&str>::new(), "{}", std::fs::read_to_string(&drop_in).unwrap());
        // It does look at the drop-in.
        std::fs::write(&drop_in, "[Service]\nSystemCallFilter=no_such_call\n").unwrap();
        let output = said(Command::new("systemd-analyze").arg("verify").arg("--man=no").arg(&unit));
        assert!(text(&output.stderr).contains("no_such_call"), "{output:?}");
    }
}

/// The compiler takes it, and the kernel what the compiler makes of it. At its own entry point the launcher has no need
/// of what the loader calls.
#[test]
fn c_compiles_and_installs() {
    let scratch = Scratch::new();
    let (program, refused) = raw(&scratch);
    let (header, source, launcher) = (scratch.path("filter.h"), scratch.path("launch.c"), scratch.path("launch"));
    export("c", &program, &header, &[]);
    let code = "#include <sys/prctl.h>\n#include <sys/syscall.h>\n#include <unistd.h>\n#include <linux/seccomp.h>\n\
                #include \"filter.h\"\nint main(int argc, char **argv, char **envp)\n{\n\
                return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, \
                SECCOMP_FILTER_FLAG_TSYNC, &chestnut_program) || execve(argv[1], argv + 1, envp) || argc;\n}\n";
    std::fs::write(&source, code).unwrap();
    let compiled = said(Command::new("gcc").args(["-Wall", "-Wextra", "-Werror", "-o"]).arg(&launcher).arg(&source));
    assert!(compiled.status.success(), "{compiled:?}");
    let run = |number: &str| said(Command::new(&launcher).arg(&program).args(["syscall", number]));
    assert_is_enforced("C", run, &refused);
}

/// Labels are where the instructions say: assembled by a few lines of awk, the text is the binary filter.
#[test]
fn assembly_is_the_filter() {
    let scratch = Scratch::new();
    let (listing, binary) = (scratch.path("filter.asm"), scratch.path("filter.bpf"));
    for (format, path) in [("bpf-asm", &listing), ("bpf", &binary)] {
        export(format, Path::new("/usr/bin/sort"), path, &[]);
    }
    let script = r#"
        /^;/ { next }
        { sub(/ *;.*/, ""); gsub(/[:,#]/, ""); at = substr($1, 2)
          if ($2 == "ld") printf "%d 0 0 %d\n", 32, substr($3, 2, length($3) - 2) + 0
          else if ($2 == "ret") printf "%d 0 0 %d\n", 6, strtonum($3)
          else if ($2 == "ja") printf "%d 0 0 %d\n", 5, substr($3, 2) - at - 1
          else printf "%d %d %d %d\n", $2 == "jeq" ? 21 : $2 == "jgt" ? 37 : 53, substr($4, 2) - at - 1, substr($5, 2) - at - 1, strtonum($3) }"#;
    let awk = said(Command::new("gawk").args(["--non-decimal-data", script]).arg(&listing));
    let bytes = std::fs::read(&binary).unwrap();
    let expected: String = bytes
        .as_chunks::<8>()
        .0
        .iter()
        .map(|i| {
            let k = u32::from_le_bytes([i[4], i[5], i[6], i[7]]);
            format!("{} {} {} {k}\n", u16::from_le_bytes([i[0], i[1]]), i[2], i[3])
        })
        .collect();
    assert_eq!(text(&awk.stdout), expected, "{}", text(&awk.stderr));
}

/// The program's calls and the loader's; less of both at the entry point.
#[test]
fn who_installs_the_filter_decides_what_is_in_it() {
    let scratch = Scratch::new();
    let names = |more: &[&str]| -> Vec<String> {
        let path = scratch.path("policy.json");
        export("json", Path::new("/usr/bin/cat"), &path, more);
        programs::read_policy(&path).allowed.keys().map(ToString::to_string).collect()
    };
    let (from_start, at_entry) = (names(&[]), names(&["--at-entry"]));
    assert!(at_entry.iter().all(|name| from_start.contains(name)));
    for name in ["execve", "arch_prctl", "set_tid_address"] {
        assert!(from_start.contains(&name.to_owned()), "{name}");
    }
    assert!(!at_entry.contains(&"set_tid_address".to_owned()));
}
