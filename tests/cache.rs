//! The folder of findings: what is patched with it is the same, byte for byte, as without.

#![cfg(test)]

mod programs;

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use programs::{SIGSYS, Scratch, read, run, signal, text};

struct Desk {
    scratch: Scratch,
}

impl Desk {
    fn new() -> Self {
        Self { scratch: Scratch::new() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.scratch.path(name)
    }

    fn cache(&self) -> String {
        self.path("cache").to_str().unwrap().to_owned()
    }

    /// Patches with these flags; the result.
    fn patch(&self, flags: &[&str], input: &Path) -> Vec<u8> {
        let output = self.path("output");
        let files = [input.to_str().unwrap(), output.to_str().unwrap()];
        let done = command(&[flags, &files].concat());
        assert!(done.status.success(), "{}", text(&done.stderr));
        read(&output)
    }

    /// Patches with the cache; the result is what comes without.
    fn assert_same(&self, flags: &[&str], input: &Path) {
        let cached = self.patch(&[flags, &["--cache", &self.cache()]].concat(), input);
        assert!(cached == self.patch(&[flags, &["--no-cache"]].concat(), input), "{} {flags:?}", input.display());
    }

    fn entries(&self) -> Vec<PathBuf> {
        let read = |folder: &Path| std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        let folders: Vec<PathBuf> = read(Path::new(&self.cache()));
        let mut all: Vec<PathBuf> = folders.iter().flat_map(|folder| -> Vec<PathBuf> { read(folder) }).collect();
        all.sort();
        all
    }
}

fn command(arguments: &[&str]) -> Output {
    run(env!("CARGO_BIN_EXE_chestnut-patch"), arguments)
}

/// Programs that bring name services, converters, other programs; with flags that change what is found.
#[test]
fn a_second_run_gives_the_same() {
    let desk = Desk::new();
    for program in ["/bin/true", "/bin/ls", "/usr/bin/getent", "/usr/bin/iconv", "/bin/dash"] {
        for flags in [&[][..], &["--nss", "files"], &["--exec", "deny"], &["--exec-target", "/bin/true"]] {
            desk.assert_same(flags, Path::new(program));
            let entries = desk.entries();
            desk.assert_same(flags, Path::new(program));
            assert_eq!(desk.entries(), entries, "{program} {flags:?}: nothing was computed again");
        }
    }
}

/// What is known of the C library serves programs that were never looked at before; what is said of them is the same, to
/// the last piece of evidence.
#[test]
fn libraries_are_known_to_other_programs() {
    let desk = Desk::new();
    let summaries = || {
        let sizes = desk.entries().into_iter().map(|path| std::fs::metadata(path).unwrap().len());
        sizes.filter(|size| *size > LARGE).count()
    };
    for program in ["/bin/true", "/bin/cat", "/usr/bin/sort", "/bin/dash", "/usr/bin/getent"] {
        let policy = |flags: &[&str], name: &str| {
            let policy = desk.path(name);
            desk.patch(&[flags, &["--emit-policy", policy.to_str().unwrap()]].concat(), Path::new(program));
            read(&policy)
        };
        let (known, new) = (policy(&["--cache", &desk.cache()], "known"), policy(&["--no-cache"], "new"));
        assert!(known == new, "{program}");
        assert_eq!(summaries(), 1, "the C library, once: {program}");
    }
}

/// Fewer bytes are no summary of a C library, and more are nothing else.
const LARGE: u64 = 150_000;

/// A digest is remembered, but not for a library that is written over in place by the same number of bytes, be it with
/// the same build-id.
#[test]
fn a_library_that_is_written_over_is_another_one() {
    for build_id in ["none", "0x1234"] {
        written_over(&format!("-Wl,--build-id={build_id}"));
    }
}

fn written_over(build_id: &str) {
    let desk = Desk::new();
    let calls = ["getppid", "getpgrp"];
    let [first, second] = calls.map(|call| {
        let source = format!("#include <unistd.h>\nvoid work(void) {{ {call}(); }}");
        read(&desk.scratch.compile(&source, &["-shared", "-fPIC", build_id], "libwork.so"))
    });
    assert_eq!(first.len(), second.len());
    let source = "void work(void); int main(void) { work(); return 0; }";
    let program = desk.scratch.compile(source, &["-lwork", "-Wl,-rpath,$ORIGIN"], "program");
    for library in [&first, &second, &first] {
        std::fs::write(desk.path("libwork.so"), library).unwrap();
        desk.assert_same(&[], &program);
        let patched = desk.scratch.program("patched", &read(&desk.path("output")));
        assert!(run(&patched, &[]).status.success());
    }
}

/// The same name, another file; the same file, another place.
#[test]
fn a_changed_library_is_another_one() {
    let desk = Desk::new();
    let library = |source| desk.scratch.compile(source, &["-shared", "-fPIC"], "libwork.so");
    library("#include <unistd.h>\nvoid work(void) { getppid(); }");
    let source = "void work(void); int main(void) { work(); return 0; }";
    let program = desk.scratch.compile(source, &["-lwork", "-Wl,-rpath,$ORIGIN"], "program");
    desk.assert_same(&[], &program);
    library("#include <sys/utsname.h>\nvoid work(void) { struct utsname u; uname(&u); }");
    let old = desk.scratch.program("old", &read(&desk.path("output")));
    assert_eq!(signal(&run(&old, &[])), Some(SIGSYS), "the libraries differ in what they call");
    desk.assert_same(&[], &program);
    let new = desk.scratch.program("new", &read(&desk.path("output")));
    assert!(run(&new, &[]).status.success());
    // Evidence names places.
    std::fs::create_dir(desk.path("elsewhere")).unwrap();
    std::fs::rename(desk.path("libwork.so"), desk.path("elsewhere/libwork.so")).unwrap();
    let folder = format!("-L{}", desk.path("elsewhere").display());
    let moved = desk.scratch.compile(source, &[&folder, "-lwork", "-Wl,-rpath,$ORIGIN/elsewhere"], "program");
    desk.assert_same(&[], &moved);
}

/// What names lead to is looked up anew: a program that is executed, and a library that is loaded, come and go.
#[test]
fn what_names_lead_to_is_no_finding() {
    let desk = Desk::new();
    let (executed, loaded) = (desk.path("executed"), desk.path("plug-in.so"));
    let source = format!(
        "#include <dlfcn.h>\n#include <unistd.h>\nint main(void) {{ void *h = dlopen(\"{}\", RTLD_NOW);\n\
         if (h) ((void (*)(void))dlsym(h, \"work\"))(); execl(\"{}\", \"x\", (char *)0); return 3; }}",
        loaded.display(),
        executed.display()
    );
    let program = desk.scratch.compile(&source, &[], "program");
    let ends = |expected: i32| {
        desk.assert_same(&[], &program);
        let patched = desk.scratch.program("patched", &read(&desk.path("output")));
        let output = run(&patched, &[]);
        assert_eq!(output.status.code(), Some(expected), "{output:?}");
    };
    ends(3);
    desk.scratch.compile(
        "#include <sys/utsname.h>\nvoid work(void) { struct utsname u; uname(&u); }",
        &["-shared", "-fPIC"],
        "plug-in.so",
    );
    ends(3);
    desk.scratch.compile("#include <unistd.h>\nint main(void) { return getppid() > 0 ? 4 : 5; }", &[], "executed");
    ends(4);
    std::fs::remove_file(&loaded).unwrap();
    std::fs::remove_file(&executed).unwrap();
    ends(3);
}

/// What becomes of the bytes of an entry.
type Damage = fn(&[u8]) -> Vec<u8>;

/// A disk that filled up, a machine that crashed, an entry of another version.
#[test]
fn damaged_entries_are_made_again() {
    let desk = Desk::new();
    let program = Path::new("/bin/true");
    desk.assert_same(&[], program);
    let whole: Vec<(PathBuf, Vec<u8>)> = desk.entries().into_iter().map(|path| (path.clone(), read(&path))).collect();
    assert!(!whole.is_empty());
    let damages: [Damage; 4] = [
        |_| Vec::new(),
        |bytes| bytes[..bytes.len() / 2].to_vec(),
        |bytes| [&bytes[..bytes.len() - 1], &[bytes[bytes.len() - 1] ^ 1]].concat(),
        |bytes| vec![0xff; bytes.len()],
    ];
    for damage in damages {
        for (path, bytes) in &whole {
            std::fs::write(path, damage(bytes)).unwrap();
        }
        desk.assert_same(&[], program);
        for (path, bytes) in &whole {
            assert!(read(path) == *bytes, "{}", path.display());
        }
    }
}

#[test]
fn many_processes_share_a_folder() {
    let desk = Desk::new();
    let expected = desk.patch(&["--no-cache"], Path::new("/bin/ls"));
    let cache = desk.cache();
    let outputs: Vec<PathBuf> = (0..8).map(|number| desk.path(&format!("output-{number}"))).collect();
    let start = |output: &PathBuf| {
        Command::new(env!("CARGO_BIN_EXE_chestnut-patch"))
            .args(["--cache", &cache, "/bin/ls"])
            .arg(output)
            .spawn()
            .unwrap()
    };
    let started: Vec<_> = outputs.iter().map(start).collect();
    for (mut process, output) in started.into_iter().zip(&outputs) {
        assert!(process.wait().unwrap().success());
        assert!(read(output) == expected);
    }
    let is_temporary = |path: &PathBuf| path.file_name().unwrap().to_str().unwrap().starts_with('.');
    assert!(!desk.entries().iter().any(is_temporary), "nothing is left over");
}

/// Who can write to it decides what programs may call.
#[test]
fn a_folder_of_others_is_refused_if_named_and_passed_over_if_not() {
    let desk = Desk::new();
    let output = desk.path("output");
    std::fs::create_dir_all(desk.path("chestnut")).unwrap();
    std::fs::set_permissions(desk.path("chestnut"), PermissionsExt::from_mode(0o777)).unwrap();
    let named = desk.path("chestnut");
    let done = command(&["--cache", named.to_str().unwrap(), "/bin/true", output.to_str().unwrap()]);
    let said = text(&done.stderr);
    assert_eq!(done.status.code(), Some(2), "{said}");
    assert!(said.contains("others can write to it") && said.contains("mode 777"), "{said}");
    let mut patch = Command::new(env!("CARGO_BIN_EXE_chestnut-patch"));
    let done = patch.arg("/bin/true").arg(&output).env("XDG_CACHE_HOME", desk.path("")).output().unwrap();
    assert!(done.status.success(), "{}", text(&done.stderr));
    assert_eq!(std::fs::read_dir(named).unwrap().count(), 0, "nothing is kept there");
}
