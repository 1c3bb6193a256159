//! The command `chestnut-patch`: its exit statuses, what it says, and that OUT is whole or untouched.

#![cfg(test)]

mod programs;

use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Output;

use chestnut_analyzer::address::Vaddr;
use chestnut_analyzer::policy::{CodeLocation, UnresolvedReason, UnresolvedSite};
use chestnut_analyzer::syscall::SyscallNr;
use programs::{Scratch, denying, made_for, read, read_policy, run, text, tool, write_policy};
use serde_json::Value;

/// A folder with a program, a policy for it, and places for results.
struct Desk {
    scratch: Scratch,
    policy: PathBuf,
    input: PathBuf,
    output: PathBuf,
}

impl Desk {
    fn new() -> Self {
        let scratch = Scratch::new();
        let policy = scratch.path("policy.json");
        let input = scratch.program("input", &read(Path::new("/bin/true")));
        write_policy(&policy, &made_for(&input, denying(&["getppid"])));
        let output = scratch.path("output");
        Self { scratch, policy, input, output }
    }

    /// Runs with the policy, `arguments`, IN and OUT.
    fn patch(&self, arguments: &[&str], input: &Path, output: &Path) -> Output {
        let policy = self.policy.to_str().unwrap();
        let files = [input.to_str().unwrap(), output.to_str().unwrap()];
        command(&[&["--policy", policy], arguments, &files].concat())
    }

    /// A run that must be refused with status 1, this in its one line, no OUT and nothing left over.
    fn refused(&self, input: &Path, output: &Path, expected: &str) {
        let existed = std::fs::read(output).ok();
        let before = entries(&self.scratch.path(""));
        assert_refusal(&self.patch(&[], input, output), 1, expected);
        assert_eq!(std::fs::read(output).ok(), existed, "{expected}: OUT is as it was");
        assert_eq!(entries(&self.scratch.path("")), before, "{expected}: nothing is left over");
    }
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    let mut entries: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    entries
}

fn command(arguments: &[&str]) -> Output {
    run(env!("CARGO_BIN_EXE_chestnut-patch"), arguments)
}

fn assert_refusal(output: &Output, status: i32, expected: &str) {
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(status), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
    assert!(said.starts_with("chestnut-patch: ") && said.contains(expected), "{expected}: {said}");
    assert!(output.stdout.is_empty(), "{expected}");
}

/// What succeeds says so in a line, on standard error; OUT can be started.
#[test]
fn patching_writes_a_program_and_a_summary() {
    let desk = Desk::new();
    let output = desk.patch(&[], &desk.input, &desk.output);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let said = text(&output.stderr);
    assert!(said.contains("system calls allowed, 1 of") && said.contains("blocked (action: kill)"), "{said}");
    assert!(run(&desk.output, &[]).status.success());
}

/// Every kind of bad IN, with its reason.
#[test]
fn bad_input_is_refused() {
    let desk = Desk::new();
    let program = read(&desk.input);
    let with = |at: usize, new: &[u8]| [&program[..at], new, &program[at + new.len()..]].concat();
    let cases: [(&str, Vec<u8>, &str); 9] = [
        ("empty", Vec::new(), "not an ELF file"),
        ("text", b"hello".to_vec(), "not an ELF file"),
        ("script", b"#!/usr/bin/python3\n".to_vec(), "a script for /usr/bin/python3"),
        ("truncated", program[..program.len() / 2].to_vec(), "truncated"),
        ("narrow", with(4, &[1]), "EI_CLASS is 1"),
        ("machine", with(18, &[183]), "e_machine is 183, expected 62 (x86-64)"),
        ("object", with(16, &[1]), "ET_REL"),
        ("core", with(16, &[4]), "ET_CORE"),
        ("appended", [&program[..], b"archive"].concat(), "7 bytes of data follow the end"),
    ];
    for (name, bytes, expected) in cases {
        desk.refused(&desk.scratch.program(name, &bytes), &desk.output, expected);
    }
    desk.refused(Path::new("/lib/x86_64-linux-gnu/libc.so.6"), &desk.output, "a shared library (libc.so.6)");
    desk.refused(&desk.scratch.path("nowhere"), &desk.output, "cannot be read: No such file");
    desk.refused(&desk.scratch.path(""), &desk.output, "not a regular file");
    let pipe = desk.scratch.path("pipe");
    assert!(run("mkfifo", &[pipe.to_str().unwrap()]).status.success());
    desk.refused(&pipe, &desk.output, "not a regular file");
    // An OUT that was there stays as it was.
    std::fs::write(&desk.output, "old").unwrap();
    desk.refused(&desk.scratch.path("text"), &desk.output, "not an ELF file");
}

/// IN and OUT the same file, by whatever name; OUT where it cannot be.
#[test]
fn bad_output_is_refused() {
    let desk = Desk::new();
    let (hard, soft) = (desk.scratch.path("hard"), desk.scratch.path("soft"));
    std::fs::hard_link(&desk.input, &hard).unwrap();
    symlink(&desk.input, &soft).unwrap();
    for same in [&desk.input, &hard, &soft] {
        desk.refused(&desk.input, same, "the same file as");
    }
    desk.refused(&desk.input, &desk.scratch.path("nowhere/output"), "cannot be written: No such file");
    desk.refused(&desk.input, &desk.policy.join("output"), "cannot be written: Not a directory");
    desk.refused(&desk.input, Path::new("/dev/null"), "not a regular file");
    let dangling = desk.scratch.path("dangling");
    symlink(desk.scratch.path("gone"), &dangling).unwrap();
    desk.refused(&desk.input, &dangling, "cannot be written: No such file");
}

/// A link as OUT is written through; whoever has another name of the old file keeps the old file.
#[test]
fn links_to_out_are_kept() {
    let desk = Desk::new();
    let (real, link, other) = (desk.scratch.path("real"), desk.scratch.path("link"), desk.scratch.path("other"));
    std::fs::write(&real, "old").unwrap();
    std::fs::hard_link(&real, &other).unwrap();
    symlink(&real, &link).unwrap();
    assert_eq!(desk.patch(&[], &desk.input, &link).status.code(), Some(0));
    assert!(std::fs::symlink_metadata(&link).unwrap().is_symlink());
    assert!(run(&real, &[]).status.success());
    assert_eq!(std::fs::read(other).unwrap(), b"old");
}

/// A disk without room: no OUT, nothing left over.
#[test]
fn full_disk_leaves_nothing() {
    let desk = Desk::new();
    let disk = desk.scratch.path("disk");
    std::fs::create_dir(&disk).unwrap();
    let script = format!(
        "mount -t tmpfs -o size=16k tmpfs {disk} && {{ {command} --policy {policy} {input} {disk}/output; echo $?; ls -A {disk}; }}",
        disk = disk.display(),
        command = env!("CARGO_BIN_EXE_chestnut-patch"),
        policy = desk.policy.display(),
        input = desk.input.display(),
    );
    let output = run("unshare", &["--map-root-user", "--mount", "sh", "-c", &script]);
    assert_eq!(text(&output.stdout), "1\n", "{}", text(&output.stderr));
    assert!(text(&output.stderr).contains("cannot be written: No space left"), "{}", text(&output.stderr));
}

/// An unresolved site stops the run with file, function and address, unless somebody says to go on.
#[test]
fn unresolved_sites_are_not_ignored() {
    let desk = Desk::new();
    let mut policy = made_for(&desk.input, denying(&[]));
    let address = Vaddr(0x1234);
    let site = CodeLocation { file: "/lib/libx.so".into(), address, symbol: Some("wrapper+0x10".to_owned()) };
    policy.unresolved.push(UnresolvedSite { site, reason: UnresolvedReason::Number });
    write_policy(&desk.policy, &policy);
    desk.refused(&desk.input, &desk.output, "/lib/libx.so in wrapper+0x10 at 0x1234; --ignore-unresolved");
    let output = desk.patch(&["--ignore-unresolved"], &desk.input, &desk.output);
    assert_eq!(output.status.code(), Some(0));
    assert!(
        text(&output.stderr).contains("warning: ignored: /lib/libx.so in wrapper+0x10"),
        "{}",
        text(&output.stderr)
    );
    assert_eq!(chestnut_rewriter::inspect(&read(&desk.output)).unwrap().unresolved, 1);
}

/// Trap 25: mode, owner and attributes are kept; setuid needs a word.
#[test]
fn mode_owner_and_attributes_are_kept() {
    let desk = Desk::new();
    let mode = |path: &Path| path.metadata().unwrap().mode() & 0o7777;
    std::fs::set_permissions(&desk.input, PermissionsExt::from_mode(0o6751)).unwrap();
    desk.refused(&desk.input, &desk.output, "--allow-setuid");
    std::fs::set_permissions(&desk.input, PermissionsExt::from_mode(0o751)).unwrap();
    assert!(rustix::process::geteuid().is_root(), "this test needs root, to give files away");
    std::os::unix::fs::chown(&desk.input, Some(1234), Some(5678)).unwrap();
    let set = |name: &str, value: &[u8]| {
        rustix::fs::setxattr(&desk.input, name, value, rustix::fs::XattrFlags::empty()).unwrap();
    };
    // VFS_CAP_REVISION_2 with CAP_NET_BIND_SERVICE permitted and effective.
    let capability = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    set("security.capability", &capability);
    set("user.origin", b"here");
    let output = desk.patch(&[], &desk.input, &desk.output);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let metadata = desk.output.metadata().unwrap();
    assert_eq!((mode(&desk.output), metadata.uid(), metadata.gid()), (0o751, 1234, 5678));
    let attribute = |name: &str| {
        let mut value = [0; 64];
        let length = rustix::fs::getxattr(&desk.output, name, &mut value).unwrap();
        value[..length].to_vec()
    };
    assert_eq!(attribute("security.capability"), capability);
    assert_eq!(attribute("user.origin"), b"here");
    std::fs::set_permissions(&desk.input, PermissionsExt::from_mode(0o4751)).unwrap();
    assert_eq!(desk.patch(&["--allow-setuid"], &desk.input, &desk.output).status.code(), Some(0));
    assert_eq!(mode(&desk.output), 0o4751);
}

/// Twice is refused; again with another action is not; back is byte for byte.
#[test]
fn repatch_and_unpatch() {
    let desk = Desk::new();
    let (second, third) = (desk.scratch.path("second"), desk.scratch.path("third"));
    assert_eq!(desk.patch(&[], &desk.input, &desk.output).status.code(), Some(0));
    desk.refused(&desk.output, &second, "already patched: use --repatch");
    let output = desk.patch(&["--repatch", "--action", "errno:EPERM"], &desk.output, &second);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let inspection = chestnut_rewriter::inspect(&read(&second)).unwrap();
    assert_eq!(inspection.filter.specification().action().to_string(), "errno:EPERM");
    let back = command(&["--unpatch", second.to_str().unwrap(), third.to_str().unwrap()]);
    assert_eq!(back.status.code(), Some(0), "{}", text(&back.stderr));
    assert_eq!(read(&third), read(&desk.input));
    let never = command(&["--unpatch", desk.input.to_str().unwrap(), second.to_str().unwrap()]);
    assert_refusal(&never, 1, "not a patched file");
}

/// What was decided when a file was patched is decided again, from the file alone; what is said now goes on top.
#[test]
fn repatch_remembers_flags_and_asks_for_an_edited_policy() {
    let desk = Desk::new();
    let second = desk.scratch.path("second");
    let (first, next) = (desk.output.to_str().unwrap(), second.to_str().unwrap());
    let flags = ["--nss", "files", "--allow", "getppid,ptrace", "--deny", "sysinfo", "--action", "log"];
    let done = |output: Output| assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    done(command(&[&flags[..], &["--exec", "deny", "/usr/bin/true", first]].concat()));
    done(command(&["--repatch", "--deny", "ptrace", first, next]));
    let [before, after] = [&desk.output, &second].map(|path| chestnut_rewriter::inspect(&read(path)).unwrap());
    let number = |name: &str| SyscallNr::from_name(name).unwrap();
    let mut expected = before.filter.specification().allowed().clone();
    assert!(expected.contains(&number("getppid")) && expected.remove(&number("ptrace")));
    let specification = after.filter.specification();
    assert_eq!(specification.allowed(), &expected);
    assert_eq!(specification.action().to_string(), "log");
    assert!(specification.failing().contains_key(&number("execve")));
    assert_eq!(after.made_with.flags, before.made_with.flags);

    assert_eq!(desk.patch(&[], &desk.input, &desk.output).status.code(), Some(0));
    assert_refusal(&command(&["--repatch", first, next]), 1, "give it again with --policy");
}

/// The policy of another program lacks what this one calls. That of the program as it was before it was patched is its
/// own.
#[test]
fn policy_of_another_program_is_refused() {
    let desk = Desk::new();
    let second = desk.scratch.path("second");
    let digest = |path: &Path| tool("sha256sum", &[], path).split(' ').next().unwrap().to_owned();
    let other = made_for(Path::new("/bin/false"), denying(&["getppid"]));
    let refused = |input: &Path, arguments: &[&str]| {
        write_policy(&desk.policy, &other);
        let before = entries(&desk.scratch.path(""));
        let output = desk.patch(arguments, input, &second);
        assert_refusal(&output, 2, desk.policy.to_str().unwrap());
        for told in [&digest(Path::new("/bin/false")), &digest(&desk.input), "/usr/bin/program", "--emit-policy"] {
            assert!(text(&output.stderr).contains(told), "{told}: {}", text(&output.stderr));
        }
        assert_eq!(entries(&desk.scratch.path("")), before, "nothing is left over");
    };
    refused(&desk.input, &[]);
    refused(&desk.input, &["--list"]);
    write_policy(&desk.policy, &made_for(&desk.input, denying(&["getppid"])));
    assert_eq!(desk.patch(&[], &desk.input, &desk.output).status.code(), Some(0));
    assert_ne!(digest(&desk.input), digest(&desk.output));
    refused(&desk.output, &["--repatch"]);
    write_policy(&desk.policy, &made_for(&desk.input, denying(&["getppid"])));
    let output = desk.patch(&["--repatch"], &desk.output, &second);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
}

/// Names are one a line; --allow and --deny change them; JSON has the same.
#[test]
fn list_names_the_allowed_calls() {
    let desk = Desk::new();
    let list = |arguments: &[&str]| {
        let policy = desk.policy.to_str().unwrap();
        let output = command(&[&["--list", "--policy", policy], arguments, &[desk.input.to_str().unwrap()]].concat());
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        text(&output.stdout)
    };
    let names = |said: &str| said.lines().map(str::to_owned).collect::<Vec<_>>();
    let all = names(&list(&[]));
    assert!(all.contains(&"read".to_owned()) && !all.contains(&"getppid".to_owned()));
    let changed = names(&list(&["--allow", "getppid", "--deny", "read,write"]));
    assert!(changed.contains(&"getppid".to_owned()) && !changed.contains(&"read".to_owned()));
    assert_eq!(changed.len(), all.len() - 1);
    let json: Value = serde_json::from_str(&list(&["--json"])).unwrap();
    assert_eq!(json["allowed"].as_array().unwrap().len(), all.len());
    let no_exec = names(&list(&["--exec", "deny"]));
    assert!(!no_exec.contains(&"execve".to_owned()));
}

/// JSON for machines, also of a failure.
#[test]
fn json_is_complete() {
    let desk = Desk::new();
    let output = desk.patch(&["--json"], &desk.input, &desk.output);
    let json: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(json["blocked"], 1);
    assert_eq!(json["action"], "kill");
    assert_eq!(json["output_bytes"].as_u64(), Some(desk.output.metadata().unwrap().len()));
    let failed = desk.patch(&["--json"], &desk.policy, &desk.output);
    let json: Value = serde_json::from_slice(&failed.stdout).unwrap();
    assert_eq!((failed.status.code(), &json["status"]), (Some(1), &Value::from(1)));
}

/// The policy that is written can be read again, with what the flags changed.
#[test]
fn emitted_policy_can_be_used() {
    let desk = Desk::new();
    let emitted = desk.scratch.path("emitted.json");
    let arguments = ["--emit-policy", emitted.to_str().unwrap(), "--deny", "reboot"];
    assert_eq!(desk.patch(&arguments, &desk.input, &desk.output).status.code(), Some(0));
    assert_eq!(read_policy(&emitted), made_for(&desk.input, denying(&["getppid", "reboot"])));
}

/// Status 2: the command line, or a file that it names.
#[test]
fn usage_errors_have_their_own_status() {
    let desk = Desk::new();
    let input = desk.input.to_str().unwrap();
    let status = |arguments: &[&str]| command(arguments).status.code();
    assert_eq!(status(&[]), Some(2));
    assert_eq!(status(&[input]), Some(2));
    assert_eq!(status(&["--action", "explode", input, "out"]), Some(2));
    assert_eq!(status(&["--allow", "no_such_call", input, "out"]), Some(2));
    assert_eq!(status(&["--unpatch", "--repatch", input, "out"]), Some(2));
    assert_eq!(desk.patch(&["--allow", "read", "--deny", "read"], &desk.input, &desk.output).status.code(), Some(2));
    for wrong in ["not JSON", "{}"] {
        std::fs::write(&desk.policy, wrong).unwrap();
        assert_refusal(&desk.patch(&[], &desk.input, &desk.output), 2, "--policy");
    }
    std::fs::remove_file(&desk.policy).unwrap();
    assert_refusal(&desk.patch(&[], &desk.input, &desk.output), 2, "--policy");
    assert!(!desk.output.exists());
}

/// What --dlopen names may need each other, as the parts of a Java runtime do: whoever comes first, ld.so finds the
/// others by their DT_SONAME once they are loaded.
#[test]
fn libraries_of_dlopen_may_need_each_other() {
    let scratch = Scratch::new();
    let build = |command: &str, name: &str, code: &str| {
        let source = scratch.path(&format!("{name}.c"));
        std::fs::write(&source, code).unwrap();
        let folder = scratch.path(name);
        std::fs::create_dir(&folder).unwrap();
        let path = folder.join(format!("{name}.so"));
        let gcc =
            format!("gcc -shared -fPIC -Wl,-soname,{name}.so -o {} {} {command}", path.display(), source.display());
        assert!(std::process::Command::new("sh").args(["-c", &gcc]).status().unwrap().success());
        path
    };
    let second = build("", "second", "#include <unistd.h>\nint second(void) { return getpgid(0); }\n");
    let first = build(second.to_str().unwrap(), "first", "int second(void);\nint first(void) { return second(); }\n");
    let words = [&first, &second].map(|path| format!("--dlopen={}", path.display()));
    let listed = |words: &[&str]| command(&[&["--nss", "files", "--list"], words, &["/usr/bin/sqlite3"]].concat());
    for order in [[&*words[0], &*words[1]], [&*words[1], &*words[0]]] {
        let output = listed(&order);
        assert!(output.status.success() && text(&output.stdout).contains("getpgid"), "{order:?}: {output:?}");
    }
    assert_refusal(&listed(&[&words[0]]), 1, "the library second.so that");
}

/// `-` is standard output for a policy and standard input for one, and never a file of that name.
#[test]
fn streams_take_policies_and_no_programs() {
    let desk = Desk::new();
    let [input, output] = [&desk.input, &desk.output].map(|path| path.to_str().unwrap());
    let written = command(&["--nss", "files", "--emit-policy", "-", input, output]);
    assert!(written.status.success(), "{written:?}");
    let policy: chestnut_analyzer::policy::Policy = serde_json::from_slice(&written.stdout).unwrap();
    let file = std::fs::File::open({
        let path = desk.scratch.path("piped.json");
        std::fs::write(&path, &written.stdout).unwrap();
        path
    });
    let again = desk.scratch.path("again");
    let mut patch = std::process::Command::new(env!("CARGO_BIN_EXE_chestnut-patch"));
    let done = patch.args(["--policy", "-", input, again.to_str().unwrap()]).stdin(file.unwrap()).output().unwrap();
    assert!(done.status.success(), "{done:?}");
    let filter = chestnut_rewriter::inspect(&read(&again)).unwrap().filter;
    assert!(policy.allowed.keys().eq(filter.specification().allowed()));

    let mut elsewhere = std::process::Command::new(env!("CARGO_BIN_EXE_chestnut-patch"));
    let refused = elsewhere.current_dir(desk.scratch.path("")).args([input, "-"]).output().unwrap();
    assert_refusal(&refused, 2, "OUT is -: ");
    assert!(!desk.scratch.path("-").exists());
    assert_refusal(&command(&["-", output]), 2, "IN is -: ");
    assert_refusal(&command(&["--list", "--emit-policy", "-", input]), 2, "--emit-policy -: ");
}
