//! Names that are no text, files that never end or never begin, and OUT where something else is: what `chestnut-patch`
//! is given, and what a tree below `--root` has where configuration is looked for. `tests/odd_arguments.rs` has the other
//! commands.

#![cfg(test)]

mod programs;

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use chestnut_rewriter::inspect;
use programs::{Scratch, read, read_policy, text};
use serde_json::Value;

const PATCH: &str = env!("CARGO_BIN_EXE_chestnut-patch");

/// Runs chestnut-patch with a limit to its time and its memory: what waits or never ends is a failure.
fn patch(words: &[&str], files: &[&Path]) -> Output {
    let script = "ulimit -v 4000000; exec timeout 60 \"$@\"";
    let command = ["-c", script, "sh", PATCH, "--no-cache"];
    Command::new("sh").args(command).args(words).args(files).output().unwrap()
}

fn assert_done(output: &Output) {
    assert!(output.status.success(), "{}", text(&output.stderr));
}

/// One line with this, and this status.
fn assert_refused(output: &Output, status: i32, expected: &str) {
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(status), "{said}");
    assert!(said.contains(expected) && said.lines().count() == 1, "{said}");
}

/// A name that is no text.
fn odd(scratch: &Scratch, name: &[u8]) -> PathBuf {
    scratch.path("").join(OsString::from_vec([name, b"\xff"].concat()))
}

/// A program whose name is no text is patched, repatched, printed as JSON and given back as any other.
#[test]
fn names_that_are_no_text() {
    let scratch = Scratch::new();
    let [program, out, again, back, policy] =
        [&b"program"[..], b"out", b"again", b"back", b"policy"].map(|name| odd(&scratch, name));
    std::fs::copy("/bin/true", &program).unwrap();
    let nss = ["--nss", "files"];
    let emitted = patch(&[&nss[..], &["--json", "--emit-policy"]].concat(), &[&policy, &program, &out]);
    assert_done(&emitted);
    let said: Value = serde_json::from_slice(&emitted.stdout).unwrap();
    assert!(said["input"].as_str().unwrap().ends_with(r"/program\xff"), "{said}");
    assert!(said["output"].as_str().unwrap().ends_with(r"/out\xff"), "{said}");
    // The name is the same on its way through the policy, and through the record of the patched file.
    assert_eq!(read_policy(&policy).program.path, program);
    assert_eq!(inspect(&read(&out)).unwrap().files[0].path, program);
    assert!(Command::new(&out).status().unwrap().success());
    assert_done(&patch(&["--policy"], &[&policy, &program, &again]));
    assert_eq!(inspect(&read(&again)).unwrap().files, inspect(&read(&out)).unwrap().files);
    assert_done(&patch(&["--repatch"], &[&out, &again]));
    let given_back = patch(&["--json", "--unpatch"], &[&again, &back]);
    assert_done(&given_back);
    let said: Value = serde_json::from_slice(&given_back.stdout).unwrap();
    assert!(said["output"].as_str().unwrap().ends_with(r"/back\xff"), "{said}");
    assert_eq!(read(&back), read(&program));
}

/// The policy is not written over the program, nor over what becomes of it.
#[test]
fn a_policy_has_a_place_of_its_own() {
    let scratch = Scratch::new();
    let (program, out, link) = (scratch.path("program"), scratch.path("out"), scratch.path("link"));
    std::fs::copy("/bin/true", &program).unwrap();
    symlink(&program, &link).unwrap();
    for (place, of) in [(&program, &program), (&link, &program), (&out, &out)] {
        let output = patch(&["--nss", "files", "--emit-policy"], &[place, &program, &out]);
        assert_refused(&output, 2, &format!("the same file as {}: write to another one", of.display()));
        assert_eq!(read(&program), read(Path::new("/bin/true")));
        assert!(!out.exists());
    }
}

/// A policy that is there already is replaced as a whole, where its link leads to, with its mode; a pipe is written into.
#[test]
fn a_policy_is_whole() {
    let scratch = Scratch::new();
    let (policy, link) = (scratch.path("policy"), scratch.path("link"));
    std::fs::write(&policy, "old").unwrap();
    std::fs::set_permissions(&policy, PermissionsExt::from_mode(0o640)).unwrap();
    symlink(&policy, &link).unwrap();
    let words = ["--nss", "files", "--list", "--emit-policy"];
    // A disk that is full after 4096 bytes.
    let limited = "ulimit -f 8; trap '' XFSZ; exec \"$@\"";
    let run = ["-c", limited, "sh", PATCH, "--no-cache"];
    let output = Command::new("sh").args(run).args(words).arg(&link).arg("/bin/true").output().unwrap();
    assert_refused(&output, 2, "File too large");
    assert_eq!(read(&policy), b"old");
    assert_done(&patch(&words, &[&link, Path::new("/bin/true")]));
    assert!(link.is_symlink() && !read_policy(&policy).allowed.is_empty());
    assert_eq!(policy.metadata().unwrap().permissions().mode() & 0o777, 0o640);
    let before = std::fs::read_dir(scratch.path("")).unwrap().count();
    let output = patch(&words, &[Path::new("/dev/stdout"), Path::new("/bin/true")]);
    assert!(output.stdout.starts_with(b"{") && output.status.success(), "{}", text(&output.stderr));
    assert_eq!(std::fs::read_dir(scratch.path("")).unwrap().count(), before, "nothing is left over");
}

/// A system below a folder, with a program that asks for names and character sets.
struct System {
    scratch: Scratch,
}

impl System {
    fn new() -> Self {
        let system = Self { scratch: Scratch::new() };
        for folder in ["etc", "lib64", "lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu/gconv", "bin"] {
            std::fs::create_dir_all(system.path(folder)).unwrap();
        }
        let files = ["lib64/ld-linux-x86-64.so.2", "lib/x86_64-linux-gnu/libc.so.6"];
        for file in files {
            std::fs::copy(Path::new("/").join(file), system.path(file)).unwrap();
        }
        for program in ["getent", "iconv", "true"] {
            std::fs::copy(Path::new("/usr/bin").join(program), system.path("bin").join(program)).unwrap();
        }
        system
    }

    fn path(&self, name: &str) -> PathBuf {
        self.scratch.path("root").join(name)
    }

    fn patch(&self, program: &str, words: &[&str]) -> Output {
        let root = format!("--root={}", self.scratch.path("root").display());
        patch(&[&[root.as_str()], words].concat(), &[&self.path("bin").join(program), &self.scratch.path("out")])
    }
}

/// A pipe that nobody writes to, a device that does not end, and a folder, where configuration or a library is expected.
#[test]
fn trees_with_pipes_and_devices() {
    let cases = [
        ("true", "etc/ld.so.conf", Some("cannot read /etc/ld.so.conf: not a regular file")),
        // Without it there are glibc's own services, as for the C library.
        ("getent", "etc/nsswitch.conf", None),
        ("iconv", "usr/lib/x86_64-linux-gnu/gconv/X.so", None),
    ];
    let system = System::new();
    let make = |kind: &str, place: &Path| match kind {
        "pipe" => assert!(Command::new("mkfifo").arg(place).status().unwrap().success()),
        "device" => symlink("/dev/zero", place).unwrap(),
        _ => std::fs::create_dir(place).unwrap(),
    };
    // As it is in a tree that somebody unpacked with all its devices.
    std::fs::create_dir(system.path("dev")).unwrap();
    let made = Command::new("mknod").arg(system.path("dev/zero")).args(["c", "1", "5"]).status().unwrap();
    assert!(made.success() || std::env::var_os("CHESTNUT_REQUIRE_ALL").is_none(), "mknod needs root");
    for (program, place, refusal) in cases {
        assert_done(&system.patch(program, &[]));
        for kind in ["pipe", "device", "folder"] {
            let place = system.path(place);
            make(kind, &place);
            let output = system.patch(program, &[]);
            match refusal {
                Some(refusal) if kind != "device" || made.success() => assert_refused(&output, 1, refusal),
                _ => assert_done(&output),
            }
            if kind == "folder" { std::fs::remove_dir(&place) } else { std::fs::remove_file(&place) }.unwrap();
        }
    }
}

/// Files that include files, and patterns that match more and more folders: refused with the limit's name.
#[test]
fn trees_with_endless_configuration() {
    let system = System::new();
    std::fs::create_dir(system.path("c")).unwrap();
    for number in 0..20_000 {
        std::fs::write(system.path(&format!("c/{number}")), format!("include /c/{}\n", number + 1)).unwrap();
    }
    let conf = |text: &str| std::fs::write(system.path("etc/ld.so.conf"), text).unwrap();
    conf("include /c/0\n");
    assert_refused(
        &system.patch("true", &[]),
        1,
        "files that ld.so.conf includes: 4097, over the limit of 4096; --limit files=N raises it",
    );
    assert_done(&system.patch("true", &["--limit", "files=30000"]));
    (0..20).for_each(|number| symlink("/", system.path(&format!("up{number}"))).unwrap());
    conf("include /*/*/*/*/*/*/*/*/*/*/*/*/x.conf\n");
    assert_refused(&system.patch("true", &[]), 1, "--limit files=N raises it");
    conf(&(0..20_000).map(|number| format!("/folder{number}\n")).collect::<String>());
    assert_refused(&system.patch("true", &[]), 1, "folders that ld.so.conf names: 4097, over the limit of 4096");
    // One that includes itself, and one that is not there, are no mistake.
    conf("include /etc/*.conf\ninclude /not/there\n/lib\n");
    assert_done(&system.patch("true", &[]));
}

/// A link of the tree leads within the tree, also that of a configuration file.
#[test]
fn links_of_a_tree_stay_in_it() {
    let system = System::new();
    std::fs::write(system.path("etc/services"), "hosts: files wonderful\n").unwrap();
    symlink("/etc/services", system.path("etc/nsswitch.conf")).unwrap();
    let policy = system.scratch.path("policy.json");
    assert_done(&system.patch("getent", &["--emit-policy", policy.to_str().unwrap()]));
    let said = text(&read(&policy));
    assert!(said.contains("libnss_wonderful.so.2"), "{said}");
}

/// A search path of more folders than anybody has; with the limit raised it is searched, and once only.
#[test]
fn search_paths_without_end() {
    let scratch = Scratch::new();
    let [source, response, program, out] = ["source.c", "response", "program", "out"].map(|name| scratch.path(name));
    std::fs::write(&source, "int main(void) { return 0; }\n").unwrap();
    let folders: Vec<_> = (0..11_000).map(|number| format!("/{number:x}")).collect();
    std::fs::write(&response, format!("-rpath {}\n", folders.join(":"))).unwrap();
    let linked = format!("-Wl,@{}", response.display());
    assert!(Command::new("gcc").arg(&source).arg("-o").arg(&program).arg(linked).status().unwrap().success());
    let refused = patch(&["--nss", "files"], &[&program, &out]);
    assert_refused(
        &refused,
        1,
        "folders that libraries are sought in: 4097, over the limit of 4096; --limit files=N raises it",
    );
    let start = Instant::now();
    assert_done(&patch(&["--nss", "files", "--limit", "files=20000"], &[&program, &out]));
    assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
}
