//! `chestnut harden`, on trees of real programs: which files it takes, what stays of them, what a second run does, and
//! what is there after the first one was killed.

#![cfg(test)]

mod programs;

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, SystemTime};

use programs::{Scratch, read, text};
use serde_json::Value;

/// Small programs that do something without arguments, on name services that are everywhere.
const PROGRAMS: [&str; 6] = ["echo", "id", "pwd", "true", "uname", "whoami"];

fn harden(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_chestnut")).args(["harden", "--nss", "files"]).args(arguments).output().unwrap()
}

/// Statuses by file name.
fn statuses(output: &Output) -> Vec<(String, String)> {
    let value: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"));
    let programs = value["programs"].as_array().unwrap();
    let name = |path: &Value| Path::new(path.as_str().unwrap()).file_name().unwrap().to_str().unwrap().to_owned();
    programs.iter().map(|p| (name(&p["path"]), p["status"].as_str().unwrap().to_owned())).collect()
}

/// Copies of programs in a folder of their own, with times of long ago.
fn copies(scratch: &Scratch) -> PathBuf {
    let folder = scratch.path("programs");
    std::fs::create_dir(&folder).unwrap();
    for name in PROGRAMS {
        let copy = folder.join(name);
        std::fs::copy(Path::new("/usr/bin").join(name), &copy).unwrap();
        let long_ago = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
        std::fs::File::open(&copy).unwrap().set_modified(long_ago).unwrap();
    }
    folder
}

/// A list of them, for a run in the system's own root.
fn list(scratch: &Scratch, folder: &Path) -> PathBuf {
    let path = scratch.path("list");
    let lines: Vec<_> = PROGRAMS.iter().map(|name| folder.join(name).display().to_string()).collect();
    std::fs::write(&path, format!("# programs\n{}\n", lines.join("\n"))).unwrap();
    path
}

fn is_patched(path: &Path) -> bool {
    chestnut_rewriter::is_patched(&read(path)).unwrap()
}

/// What chestnut-patch makes of each is what is there, with mode and time of the original; it runs, and a second run
/// finds nothing to do, unless a flag is another.
#[test]
fn another_tree_has_what_chestnut_patch_makes() {
    let scratch = Scratch::new();
    let folder = copies(&scratch);
    let (list, out) = (list(&scratch, &folder), scratch.path("out"));
    std::fs::set_permissions(folder.join("id"), PermissionsExt::from_mode(0o751)).unwrap();
    let words = ["--list", list.to_str().unwrap(), "--out", out.to_str().unwrap(), "--json", "--jobs", "2"];
    let output = harden(&words);
    assert!(output.status.success(), "{output:?}");
    let expected = |status: &str| PROGRAMS.map(|name| (name.to_owned(), status.to_owned())).to_vec();
    assert_eq!(statuses(&output), expected("hardened"));
    for name in PROGRAMS {
        let (original, hardened) = (folder.join(name), out.join(folder.strip_prefix("/").unwrap()).join(name));
        let alone = scratch.path("alone");
        let patch = Path::new(env!("CARGO_BIN_EXE_chestnut")).with_file_name("chestnut-patch");
        if patch.exists() {
            let done = Command::new(patch).args(["--nss", "files"]).arg(&original).arg(&alone).output().unwrap();
            assert!(done.status.success(), "{done:?}");
            assert_eq!(read(&hardened), read(&alone), "{name}");
        }
        let metadata = [&original, &hardened].map(|path| std::fs::metadata(path).unwrap());
        assert_eq!(metadata[0].mode(), metadata[1].mode(), "{name}");
        assert_eq!(metadata[0].mtime(), metadata[1].mtime(), "{name}");
        let run = |program: &Path| Command::new(program).env_clear().current_dir("/").output().unwrap();
        let results = [&original, &hardened].map(|program| run(program));
        assert_eq!(results[0], results[1], "{name}");
        assert_eq!(chestnut_rewriter::unpatch(&read(&hardened)).unwrap(), read(&original), "{name}");
    }
    assert_eq!(statuses(&harden(&words)), expected("unchanged"));
    assert_eq!(statuses(&harden(&[&words[..], &["--action", "log"]].concat())), expected("hardened"));
    assert_eq!(statuses(&harden(&[&words[..], &["--action", "log", "--again"]].concat())), expected("hardened"));
}

/// A root of its own: programs are taken, whatever else is there is not; hard links stay links, and a program that may
/// not be patched is left alone and named.
#[test]
fn a_tree_is_hardened_in_place() {
    let scratch = Scratch::new();
    let root = scratch.path("root");
    let folder = root.join("usr/bin");
    std::fs::create_dir_all(&folder).unwrap();
    let fixed = scratch.build("gcc -O1 -static", "raw.c", "raw");
    let stock = scratch.build("gcc -O1 -static", "execute.c", "execute");
    for name in ["raw", "setuid"] {
        std::fs::copy(&fixed, folder.join(name)).unwrap();
    }
    std::fs::copy(&stock, folder.join("execute")).unwrap();
    std::fs::set_permissions(folder.join("setuid"), PermissionsExt::from_mode(0o4755)).unwrap();
    std::fs::hard_link(folder.join("execute"), folder.join("another-name")).unwrap();
    std::os::unix::fs::symlink("execute", folder.join("link")).unwrap();
    std::fs::write(folder.join("script"), "#!/bin/sh\n").unwrap();
    std::fs::set_permissions(folder.join("script"), PermissionsExt::from_mode(0o755)).unwrap();
    let library = Path::new("/lib/x86_64-linux-gnu/libm.so.6");
    std::fs::copy(library, folder.join("libm.so.6")).unwrap();
    std::fs::set_permissions(folder.join("libm.so.6"), PermissionsExt::from_mode(0o755)).unwrap();
    // Not executable: nobody starts it.
    std::fs::copy(&stock, folder.join("data")).unwrap();
    std::fs::set_permissions(folder.join("data"), PermissionsExt::from_mode(0o644)).unwrap();

    let report = scratch.path("report");
    let words = ["--root", root.to_str().unwrap(), "--all", "--in-place", "--json"];
    let output = harden(&[&words[..], &["--report", report.to_str().unwrap()]].concat());
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let expected = [("another-name", "hardened"), ("raw", "refused"), ("setuid", "refused")];
    assert_eq!(statuses(&output), expected.map(|(name, status)| (name.to_owned(), status.to_owned())));
    let said = text(&output.stdout);
    assert!(said.contains("--allow-setuid") && said.contains("number that is not known"), "{said}");
    for name in ["raw", "setuid", "script", "libm.so.6", "data"] {
        let file = folder.join(name);
        let before = match name {
            "script" => b"#!/bin/sh\n".to_vec(),
            "libm.so.6" => read(library),
            "data" => read(&stock),
            _ => read(&fixed),
        };
        assert!(read(&file) == before, "{name}");
    }
    let results: Value = serde_json::from_slice(&output.stdout).unwrap();
    for refused in results["programs"].as_array().unwrap().iter().filter(|program| program["status"] == "refused") {
        // The path stands before it already.
        let [path, reason] = ["path", "reason"].map(|field| refused[field].as_str().unwrap());
        assert!(!reason.starts_with(path), "{reason}");
    }
    let inode = |name: &str| std::fs::metadata(folder.join(name)).unwrap().ino();
    assert!(is_patched(&folder.join("execute")));
    assert_eq!(inode("execute"), inode("another-name"));
    assert_eq!(std::fs::read_link(folder.join("link")).unwrap(), Path::new("execute"));
    let leftovers: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(leftovers.len(), 8, "{leftovers:?}");

    let policy = programs::read_policy(&report.join("policies/usr/bin/another-name.json"));
    let filter = chestnut_rewriter::inspect(&read(&folder.join("execute"))).unwrap().filter;
    assert!(policy.allowed.keys().eq(filter.specification().allowed()));
    let summary: Value = serde_json::from_slice(&read(&report.join("summary.json"))).unwrap();
    assert_eq!(summary, serde_json::from_slice::<Value>(&output.stdout).unwrap());

    let again = harden(&[&words[..], &["--ignore-unresolved", "--allow-setuid"]].concat());
    assert!(again.status.success(), "{again:?}");
    assert!(statuses(&again).iter().all(|(_, status)| status == "hardened"));
    assert_eq!(std::fs::metadata(folder.join("setuid")).unwrap().mode() & 0o7777, 0o4755);
}

/// Killed at some moment, each file is the old one or the whole new one; the next run does the rest.
#[test]
fn what_is_killed_leaves_whole_files() {
    let scratch = Scratch::new();
    let folder = copies(&scratch);
    let list = list(&scratch, &folder);
    let words = ["harden", "--nss", "files", "--list", list.to_str().unwrap(), "--in-place", "--jobs", "1", "--again"];
    for delay in [5, 20, 60, 120, 250] {
        let mut child = Command::new(env!("CARGO_BIN_EXE_chestnut"))
            .args(words)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(Duration::from_millis(delay));
        child.kill().unwrap();
        child.wait().unwrap();
        for name in PROGRAMS {
            let (file, original) = (folder.join(name), read(&Path::new("/usr/bin").join(name)));
            let found = read(&file);
            let before = if is_patched(&file) { chestnut_rewriter::unpatch(&found).unwrap() } else { found };
            assert!(before == original, "{name} after {delay} ms");
        }
    }
    let output = harden(&["--list", list.to_str().unwrap(), "--in-place"]);
    assert!(output.status.success(), "{output:?}");
    assert!(PROGRAMS.iter().all(|name| is_patched(&folder.join(name))));
}

/// The table at the end, by the lines that were written for the programs meanwhile.
fn expected_table(lines: &[u8]) -> String {
    let lines = text(lines);
    let blocked = lines.lines().map(|line| line.split(" allowed, ").nth(1).unwrap().split(' ').next().unwrap());
    let known = chestnut_analyzer::syscall::SyscallNr::all_known().count() as f64;
    let shares: Vec<f64> = blocked.map(|number| 100.0 * number.parse::<f64>().unwrap() / known).collect();
    let mean = shares.iter().sum::<f64>() / shares.len() as f64;
    let [mean, least, most] =
        [mean, shares.iter().fold(100.0, |a, b| b.min(a)), shares.iter().fold(0.0, |a, b| b.max(a))]
            .map(|share| format!("{share:.1} %"));
    format!(
        "             programs  calls blocked: mean    least     most\n\
         patched             {}               {mean:>6}  {least:>7}  {most:>7}\ndone before         0\nrefused             0\n",
        shares.len()
    )
}

/// A line for each program, and what was done at the end; wrong command lines.
#[test]
fn it_says_what_it_does() {
    let scratch = Scratch::new();
    let folder = copies(&scratch);
    let list = list(&scratch, &folder);
    let output = harden(&["--list", list.to_str().unwrap(), "--out", scratch.path("out").to_str().unwrap()]);
    assert_eq!(text(&output.stderr).lines().count(), PROGRAMS.len(), "{output:?}");
    assert!(text(&output.stderr).lines().all(|line| line.contains(" system calls allowed, ")), "{output:?}");
    assert_eq!(text(&output.stdout), expected_table(&output.stderr));
    std::fs::write(&list, "/no/such/program\n").unwrap();
    let lists = list.to_str().unwrap();
    for wrong in [&["--all"][..], &["--in-place"], &["--list", lists, "--in-place"], &["--list", "/none", "--in-place"]]
    {
        let output = harden(wrong);
        assert_eq!(output.status.code(), Some(2), "{wrong:?}: {output:?}");
        assert!(!output.stderr.is_empty());
    }
}

/// A library that has changed, a name that is not in the list, results below the root.
#[test]
fn what_has_changed_is_done_anew() {
    let scratch = Scratch::new();
    let folder = scratch.path("root");
    std::fs::create_dir(&folder).unwrap();
    let build = |command: &str, code: &str| {
        std::fs::write(folder.join("code.c"), code).unwrap();
        let line = format!("cd {} && gcc {command} && rm code.c", folder.display());
        assert!(Command::new("sh").args(["-c", &line]).status().unwrap().success());
    };
    let library = "-shared -fPIC -Wl,-soname,libq.so -o libq.so code.c";
    build(library, "int f(void) { return 0; }\n");
    build("-o m code.c -L. -lq -Wl,-rpath,'$ORIGIN'", "int f(void);\nint main(void) { return f(); }\n");
    std::fs::hard_link(folder.join("m"), folder.join("another")).unwrap();
    let list = scratch.path("list");
    std::fs::write(&list, folder.join("m").display().to_string()).unwrap();
    let words = ["--list", list.to_str().unwrap(), "--in-place", "--json"];
    let first = harden(&words);
    assert_eq!(statuses(&first)[0].1, "hardened");
    assert!(text(&first.stdout).contains("1 more names"), "{first:?}");
    assert_eq!(statuses(&harden(&words))[0].1, "unchanged");
    let getppid = "int f(void) { long r; __asm__ volatile(\"syscall\" : \"=a\"(r) : \"a\"(110L) : \"rcx\", \"r11\"); return r < 0; }\n";
    build(library, getppid);
    assert_eq!(statuses(&harden(&words))[0].1, "hardened");
    assert!(Command::new(folder.join("m")).status().unwrap().success());
    // What is written below the root is not found there by the next run.
    let fixed = scratch.path("fixed");
    std::fs::create_dir(&fixed).unwrap();
    std::fs::copy(scratch.build("gcc -O1 -static", "execute.c", "execute"), fixed.join("execute")).unwrap();
    let out = fixed.join("out");
    let words = ["--root", fixed.to_str().unwrap(), "--all", "--out", out.to_str().unwrap(), "--json"];
    for status in ["hardened", "unchanged"] {
        assert_eq!(statuses(&harden(&words)), [("execute".to_owned(), status.to_owned())]);
    }
}

/// On a terminal a bar stands for the lines: how many are done, and how long the rest will take.
#[test]
fn a_terminal_has_a_bar() {
    let scratch = Scratch::new();
    let list = list(&scratch, &copies(&scratch));
    let line = format!(
        "{} harden --nss files --list {} --out {}",
        env!("CARGO_BIN_EXE_chestnut"),
        list.display(),
        scratch.path("out").display()
    );
    let output = Command::new("script").args(["-qec", &line, "/dev/null"]).env("TERM", "xterm").output().unwrap();
    let shown = text(&output.stdout);
    assert!(output.status.success(), "{output:?}");
    assert!(shown.contains("6/6 ") && shown.contains('█') && shown.contains("0s"), "{shown:?}");
    assert!(!shown.contains(" system calls allowed, "), "{shown}");
    assert!(shown.contains("patched             6 "), "{shown}");
}

/// What a file has beside its bytes stays: owner, group, mode, attributes, capabilities, times.
#[test]
fn owners_attributes_and_times_are_kept_in_place() {
    let scratch = Scratch::new();
    let folder = copies(&scratch);
    let file = folder.join("true");
    let capability = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let set = |name: &str, value: &[u8]| rustix::fs::setxattr(&file, name, value, rustix::fs::XattrFlags::empty());
    let is_root = std::os::unix::fs::chown(&file, Some(1234), Some(5678)).is_ok();
    assert!(is_root || std::env::var_os("CHESTNUT_REQUIRE_ALL").is_none(), "needs root");
    set("user.origin", b"a package").unwrap();
    if is_root {
        set("security.capability", &capability).unwrap();
    } else {
        eprintln!("skipped: owner and capabilities, which need root");
    }
    std::fs::set_permissions(&file, PermissionsExt::from_mode(0o750)).unwrap();
    let state = || {
        let metadata = std::fs::metadata(&file).unwrap();
        let attribute = |name: &str| {
            let mut value = [0; 64];
            rustix::fs::getxattr(&file, name, &mut value).map(|length| value[..length].to_vec()).ok()
        };
        let attributes = ["user.origin", "security.capability"].map(attribute);
        (metadata.uid(), metadata.gid(), metadata.mode(), metadata.mtime(), attributes)
    };
    let before = state();
    let output = harden(&["--list", list(&scratch, &folder).to_str().unwrap(), "--in-place"]);
    assert!(output.status.success(), "{output:?}");
    assert!(is_patched(&file));
    assert_eq!(state(), before);
    assert!(before.4[0].is_some() && (before.0, before.1) == if is_root { (1234, 5678) } else { (before.0, before.1) });
}
