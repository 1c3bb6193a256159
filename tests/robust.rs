//! Attacks, faults and bad moments: what is tried here must not get through, and nothing must be lost.
//!
//! The numbers of what was tried are printed (`cargo test --test robust -- --nocapture`). `CHESTNUT_ROUNDS=N` tries
//! everything that is chosen by chance N times as often: `tests/robust/faults` does.

#![cfg(test)]

mod programs;

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use chestnut_analyzer::policy::Policy;
use chestnut_rewriter::{inspect, is_patched, unpatch};
use programs::{SIGSYS, Scratch, call, denying, limited, made_for, read, run, signal, text, write_policy};

const PATCH: &str = env!("CARGO_BIN_EXE_chestnut-patch");

/// How much more is tried than in a usual run.
fn rounds() -> u32 {
    std::env::var("CHESTNUT_ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(1)
}

/// A program, its policy, and an OUT that is there already.
struct Place {
    scratch: Scratch,
    input: PathBuf,
    policy: PathBuf,
    /// A folder for OUT alone.
    folder: PathBuf,
    output: PathBuf,
}

/// What stands in OUT before.
const OLD: &[u8] = b"the old file, as it was";

impl Place {
    fn new() -> Self {
        let scratch = Scratch::new();
        let input = scratch.program("input", &read(Path::new("/bin/true")));
        let policy = scratch.path("policy.json");
        write_policy(&policy, &made_for(&input, denying(&["getppid"])));
        let folder = scratch.path("folder");
        std::fs::create_dir(&folder).unwrap();
        let output = folder.join("output");
        std::fs::write(&output, OLD).unwrap();
        Self { scratch, input, policy, folder, output }
    }

    /// The words of a run that patches.
    fn words(&self) -> Vec<String> {
        let words = [PATCH, "--policy", self.policy.to_str().unwrap(), self.input.to_str().unwrap()];
        words.iter().map(|word| (*word).to_owned()).chain([self.output.display().to_string()]).collect()
    }

    /// Whether OUT is the new file; it must be the old one else.
    fn is_new(&self, what: &str) -> bool {
        let found = read(&self.output);
        if found == OLD {
            return false;
        }
        assert!(
            unpatch(&found).is_ok_and(|back| back == read(&self.input)),
            "{what}: neither the old nor the new file"
        );
        assert!(self.output.metadata().unwrap().permissions().mode() & 0o777 == 0o755, "{what}: without its mode");
        std::fs::write(&self.output, OLD).unwrap();
        true
    }

    /// Takes away what lies beside OUT; how much it was.
    fn sweep(&self) -> usize {
        let others = std::fs::read_dir(&self.folder).unwrap().map(|entry| entry.unwrap().path());
        others.filter(|path| *path != self.output).map(|path| std::fs::remove_file(path).unwrap()).count()
    }

    fn leftovers(&self) -> usize {
        std::fs::read_dir(&self.folder).unwrap().count() - 1
    }
}

/// Whether the file system of a folder knows files without a name.
fn has_nameless_files(folder: &Path) -> bool {
    let flags = rustix::fs::OFlags::TMPFILE | rustix::fs::OFlags::WRONLY;
    rustix::fs::open(folder, flags, rustix::fs::Mode::RUSR).is_ok()
}

/// strace, told to do something at the Nth call of these kinds.
fn at_call(words: &[String], calls: &str, what: &str, number: u32) -> Output {
    let inject = format!("inject={calls}:{what}:when={number}");
    let strace = ["-f", "-qqq", "-o", "/dev/null", "-e", &format!("trace={calls}"), "-e", &inject, "--"];
    Command::new("strace").args(strace).args(words).output().expect("strace is needed")
}

/// What reads, writes or names files.
const FILE_CALLS: &str = "open openat read write pread64 lseek fsync linkat rename renameat renameat2 fchmod fchown unlink close statx \
                          newfstatat fstat flistxattr fgetxattr getrandom fcntl munmap exit_group";

/// Killed right before each of its system calls on files: OUT is the old file or the whole new one, and what lies about
/// is in nobody's way.
#[test]
fn killed_at_every_call() {
    let place = Place::new();
    let words = place.words();
    let (mut old, mut new, mut swept) = (0, 0, 0);
    for name in FILE_CALLS.split_whitespace() {
        for number in 1.. {
            let output = at_call(&words, name, "signal=KILL", number);
            let is_new = place.is_new(&format!("{name} {number}"));
            if output.status.success() {
                assert!(is_new);
                break;
            }
            assert_eq!(signal(&output), Some(9), "{}", text(&output.stderr));
            *(if is_new { &mut new } else { &mut old }) += 1;
            swept += place.sweep();
        }
    }
    assert!(old > 30 && new > 1, "{old} {new}");
    // Between linkat and rename the file has a name that nobody takes away. Where a file system has no files without
    // names, it has one from the beginning.
    assert!(swept <= 4 || !has_nameless_files(&place.folder), "{swept} left behind");
    let left = place.leftovers();
    let again = run(PATCH, &words[1..].iter().map(String::as_str).collect::<Vec<_>>());
    assert!(again.status.success() && place.is_new("the next run") && place.leftovers() == left);
    println!("killed at each of {} calls: the old file {old} times, the new one {new}; {swept} left behind", old + new);
}

/// Killed at moments that are nobody's choice.
#[test]
fn killed_at_random_moments() {
    let place = Place::new();
    let words = place.words();
    let start = Instant::now();
    assert!(run(PATCH, &words[1..].iter().map(String::as_str).collect::<Vec<_>>()).status.success());
    let whole = start.elapsed();
    assert!(place.is_new("a run to its end"));
    let (mut seen, mut left) = ([0_u32; 2], 0);
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    for _ in 0..40 * rounds() {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let share = f64::from(u32::try_from(random >> 40).unwrap()) / f64::from(1_u32 << 24);
        let mut child = Command::new(PATCH).args(&words[1..]).stderr(Stdio::null()).spawn().unwrap();
        std::thread::sleep(Duration::from_secs_f64(whole.as_secs_f64() * 1.2 * share));
        child.kill().unwrap();
        child.wait().unwrap();
        seen[usize::from(place.is_new("killed"))] += 1;
        left += place.sweep();
    }
    let all = seen[0] + seen[1];
    println!("killed at {all} moments: the old file {} times, the new one {}; {left} left behind", seen[0], seen[1]);
}

/// Each call on files fails once, in each way that a disk, a limit or a signal can make it fail: the run ends with its
/// message and the old file, or it went on and OUT is whole. Nothing is left over.
#[test]
fn every_call_may_fail() {
    let place = Place::new();
    let words = place.words();
    let groups = [
        ("open openat", "EACCES EINTR EMFILE ENOMEM EROFS ENOSPC EIO"),
        ("read pread64", "EIO EINTR"),
        ("write", "ENOSPC EDQUOT EFBIG EIO EINTR"),
        ("fsync", "EIO ENOSPC EROFS EINTR"),
        ("linkat", "EEXIST ENOENT EPERM EMLINK EIO"),
        ("rename renameat renameat2", "EACCES EROFS ENOSPC EIO EBUSY EXDEV"),
        ("fchmod fchown", "EPERM EROFS EIO"),
        ("statx newfstatat fstat lseek fcntl", "EIO ENOMEM EACCES"),
        ("flistxattr fgetxattr", "EOPNOTSUPP EIO"),
        ("getrandom", "ENOSYS EINTR"),
        ("close", "EIO"),
    ];
    let (mut failed, mut survived) = (0, 0);
    for (calls, errors) in groups {
        for (name, error) in calls.split(' ').flat_map(|name| errors.split(' ').map(move |error| (name, error))) {
            for number in 1.. {
                let output = at_call(&words, name, &format!("error={error}"), number);
                let what = format!("{name} {number} {error}: {}", text(&output.stderr));
                let is_new = place.is_new(&what);
                assert_eq!(place.leftovers(), 0, "{what}");
                match output.status.code() {
                    // Status 0 without the new file would be a lie.
                    Some(0) => assert!(is_new, "{what}"),
                    // The dynamic loader, whose calls come first, gives up in its own way (127).
                    Some(1 | 2 | 127) => assert!(!text(&output.stderr).contains("panicked"), "{what}"),
                    other => panic!("{other:?} {what}"),
                }
                if number > count(&words, name) {
                    break;
                }
                *(if output.status.success() { &mut survived } else { &mut failed }) += 1;
            }
        }
    }
    assert!(failed > 50 && survived > 50, "{failed} {survived}");
    println!("{} faults: {failed} runs ended with a message and whole files, {survived} went on", failed + survived);
}

/// How often a run makes a call.
fn count(words: &[String], name: &str) -> u32 {
    static COUNTS: std::sync::Mutex<Vec<(String, u32)>> = std::sync::Mutex::new(Vec::new());
    let mut counts = COUNTS.lock().unwrap();
    if let Some((_, count)) = counts.iter().find(|(known, _)| known == name) {
        return *count;
    }
    let strace = ["-f", "-qqq", "-e", &format!("trace={name}"), "-e", "signal=none", "--"];
    let output = Command::new("strace").args(strace).args(words).output().expect("strace is needed");
    let count = text(&output.stderr).lines().filter(|line| line.contains(&format!("{name}("))).count();
    let count = u32::try_from(count).unwrap();
    counts.push((name.to_owned(), count));
    count
}

/// A folder or disk that nobody may write to: for root a mount, for others their rights.
#[test]
fn where_nothing_may_be_written() {
    let place = Place::new();
    let folder = place.folder.display();
    let read_only = format!("mount --bind {folder} {folder} && mount -o remount,bind,ro {folder} && \"$@\"");
    let as_nobody = "setpriv --reuid 65534 --regid 65534 --clear-groups \"$@\"";
    std::fs::set_permissions(place.scratch.path(""), PermissionsExt::from_mode(0o755)).unwrap();
    for (script, expected) in [(read_only.as_str(), "Read-only file system"), (as_nobody, "Permission denied")] {
        let output =
            Command::new("unshare").args(["--mount", "sh", "-c", script, "sh"]).args(place.words()).output().unwrap();
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains("cannot be written") && said.contains(expected) && said.lines().count() == 1, "{said}");
        assert!(!place.is_new(expected) && place.leftovers() == 0);
    }
    // A program that may not be read.
    std::fs::set_permissions(&place.input, PermissionsExt::from_mode(0o700)).unwrap();
    let output = Command::new("sh").args(["-c", as_nobody, "sh"]).args(place.words()).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("input: cannot be read: Permission denied"), "{}", text(&output.stderr));
}

/// The program is another one, and another one again, while it is read and analysed: what comes out is one of the two
/// with its own filter, or nothing.
#[test]
fn files_that_change_while_they_are_read() {
    let scratch = Scratch::new();
    let build = |define: &str, name: &str| {
        let source = scratch.path(&format!("{name}.c"));
        let code = format!("#include <unistd.h>\nint main(void) {{ return {define}() < 0; }}\n");
        std::fs::write(&source, code).unwrap();
        let path = scratch.path(name);
        programs::tool("gcc", &["-o", path.to_str().unwrap()], &source);
        path
    };
    let originals = [("getppid", build("getppid", "one")), ("getegid", build("getegid", "other"))];
    let (input, output) = (scratch.path("input"), scratch.path("output"));
    std::fs::copy(&originals[0].1, &input).unwrap();
    let copies = originals.iter().map(|(_, path)| path.display().to_string()).collect::<Vec<_>>();
    // Another process: a shell that puts one file after the other in the place of IN.
    let script =
        "while :; do for file in \"$1\" \"$2\"; do ln -f \"$file\" \"$3.new\" && mv \"$3.new\" \"$3\"; done; done";
    let mut changer = Command::new("sh")
        .args(["-c", script, "sh", &copies[0], &copies[1], input.to_str().unwrap()])
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let (mut done, mut refused) = (0, 0);
    for _ in 0..20 * rounds() {
        let _ = std::fs::remove_file(&output);
        let words = ["--nss", "files", input.to_str().unwrap(), output.to_str().unwrap()];
        let ending = limited(PATCH, &words).output().unwrap();
        if ending.status.success() {
            let found = read(&output);
            let back = unpatch(&found).unwrap();
            let index = originals.iter().position(|(_, path)| read(path) == back).expect("one of the two");
            let allowed = inspect(&found).unwrap().filter.specification().allowed().clone();
            let has = originals.each_ref().map(|(name, _)| allowed.contains(&call(name)));
            assert!(has[index] && !has[1 - index], "the filter of another program");
            done += 1;
        } else {
            assert_eq!(ending.status.code(), Some(1), "{}", text(&ending.stderr));
            assert!(!output.exists(), "{}", text(&ending.stderr));
            refused += 1;
        }
    }
    changer.kill().unwrap();
    changer.wait().unwrap();
    println!("{} runs over a file that changes: {done} patched, {refused} refused", done + refused);
}

/// A file that somebody makes shorter while it is mapped: the run ends by a signal, or with its message, and the old file
/// is there. strace holds the run right behind the call that maps the library.
#[test]
fn files_that_shrink_while_they_are_read() {
    let scratch = Scratch::new();
    let (library, folder) = (scratch.path("libshrinks.so"), scratch.path("folder"));
    std::fs::create_dir(&folder).unwrap();
    let build = |name: &str, code: &str, words: &[&str]| {
        let source = scratch.path(&format!("{name}.c"));
        std::fs::write(&source, code).unwrap();
        programs::tool("gcc", &[words, &["-o", scratch.path(name).to_str().unwrap()]].concat(), &source);
    };
    // So much that the end of it is on pages of its own.
    let code = "#include <unistd.h>\nint shrinks(void) { return getppid(); }\nconst char pad[1 << 20] = {1};\n";
    build("libshrinks.so", code, &["-shared", "-fPIC"]);
    let place = format!("-L{}", scratch.path("").display());
    let words = [place.as_str(), "-Wl,-rpath,$ORIGIN", "-Wl,--no-as-needed", "-lshrinks"];
    let source = scratch.path("input.c");
    std::fs::write(&source, "int shrinks(void);\nint main(void) { return shrinks() < 0; }\n").unwrap();
    let input = scratch.path("input");
    let output = Command::new("gcc").arg(&source).arg("-o").arg(&input).args(words).output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    let whole = read(&library);
    for length in [0, 64, 4096, whole.len() / 2, whole.len() - 8192] {
        std::fs::write(&library, &whole).unwrap();
        let out = folder.join("output");
        std::fs::write(&out, OLD).unwrap();
        let held =
            ["-f", "-qqq", "-o", "/dev/null", "-P", library.to_str().unwrap(), "-e", "inject=mmap:delay_exit=700000"];
        let mut child = Command::new("strace")
            .args(held)
            .args(["--", PATCH, "--no-cache", "--nss", "files", input.to_str().unwrap(), out.to_str().unwrap()])
            .stderr(Stdio::piped())
            .spawn()
            .expect("strace is needed");
        let start = Instant::now();
        while !is_mapped(child.id(), &library) {
            assert!(start.elapsed() < Duration::from_secs(60) && child.try_wait().unwrap().is_none());
            std::thread::sleep(Duration::from_millis(2));
        }
        std::fs::OpenOptions::new().write(true).open(&library).unwrap().set_len(length as u64).unwrap();
        let output = child.wait_with_output().unwrap();
        // SIGBUS, which strace dies of as its child did.
        assert!(signal(&output) == Some(7) || output.status.code() == Some(1), "{length}: {output:?}");
        assert_eq!(read(&out), OLD, "{length}");
        assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 1, "{length}");
    }
}

/// Whether a child of this process has a file in its memory.
fn is_mapped(parent: u32, path: &Path) -> bool {
    let children = std::fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).unwrap_or_default();
    children.split_whitespace().any(|child| {
        let maps = std::fs::read_to_string(format!("/proc/{child}/maps")).unwrap_or_default();
        maps.contains(path.to_str().expect("UTF-8"))
    })
}

/// Two writers of one OUT, again and again: it is what one of them made, whole.
#[test]
fn writers_of_one_output() {
    let place = Place::new();
    let policies: Vec<(PathBuf, Policy)> = ["getppid", "reboot", "swapon", "mount"]
        .map(|name| (place.scratch.path(name), made_for(&place.input, denying(&[name]))))
        .into();
    policies.iter().for_each(|(path, policy)| write_policy(path, policy));
    let mut winners = [0_u32; 4];
    for _ in 0..5 * rounds() {
        let spawn = |(path, _): &(PathBuf, Policy)| {
            let words = ["--policy".as_ref(), path.as_os_str(), place.input.as_os_str(), place.output.as_os_str()];
            Command::new(PATCH).args(words).stderr(Stdio::piped()).spawn().unwrap()
        };
        let children: Vec<_> = policies.iter().map(spawn).collect();
        for child in children {
            let output = child.wait_with_output().unwrap();
            assert!(output.status.success(), "{}", text(&output.stderr));
        }
        let inspection = inspect(&read(&place.output)).unwrap();
        let allowed = inspection.filter.specification().allowed();
        let winner = policies.iter().position(|(_, policy)| allowed.iter().eq(policy.allowed.keys()));
        winners[winner.expect("what one of them made")] += 1;
        assert!(run(&place.output, &[]).status.success());
        assert_eq!(place.leftovers(), 0);
    }
    println!("four writers of one file: {winners:?}");
}

/// Who traces its child can have it make any call; the child has the filter too, and the kernel asks it behind tracers.
#[test]
fn children_are_no_puppets() {
    let scratch = Scratch::new();
    let program = scratch.build("gcc", "puppet.c", "puppet");
    let patched = scratch.patch(&program, "patched", &denying(&["getppid", "io_uring_setup"]));
    for (number, expected) in [("39", "through\nthrough\n"), ("110", "31\n31\n"), ("425", "31\n31\n")] {
        let unpatched = limited(program.to_str().unwrap(), &[number]).output().unwrap();
        assert_eq!(text(&unpatched.stdout), "through\nthrough\n", "{number}");
        let output = limited(patched.to_str().unwrap(), &[number]).output().unwrap();
        assert_eq!(text(&output.stdout), expected, "{number}: {output:?}");
    }
}

/// In namespaces of all kinds the filter is on before the program is, for root and for nobody.
#[test]
fn namespaces_change_nothing() {
    let scratch = Scratch::new();
    std::fs::set_permissions(scratch.path(""), PermissionsExt::from_mode(0o755)).unwrap();
    let raw = scratch.build("gcc -static", "raw.c", "raw");
    let patched = scratch.patch(&raw, "patched", &denying(&["getppid"]));
    let number = call("getppid").0.to_string();
    let ways: [&[&str]; 4] = [
        &["unshare", "--user"],
        &["unshare", "--user", "--map-root-user", "--mount", "--pid", "--fork", "--net", "--ipc", "--uts"],
        &["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", "--bounding-set=-all"],
        &["setpriv", "--no-new-privs", "--reuid", "65534", "--clear-groups"],
    ];
    for way in ways {
        let start = |program: &Path| {
            let mut command = Command::new(way[0]);
            command.args(&way[1..]).arg(program).args(["syscall", &number]);
            command.output().unwrap()
        };
        assert!(start(&raw).status.success(), "{way:?}: {:?}", start(&raw));
        let output = start(&patched);
        // unshare --fork dies of the same signal as its child.
        let died = signal(&output) == Some(SIGSYS) || output.status.code() == Some(128 + SIGSYS);
        assert!(died, "{way:?}: {output:?}");
    }
    assert!(is_patched(&read(&patched)).unwrap());
}
