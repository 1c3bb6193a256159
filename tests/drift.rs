//! `chestnut check` on a program whose library changes under it; what it says is compared with what the kernel does.

#![cfg(test)]

mod programs;

use std::path::{Path, PathBuf};
use std::process::Output;

use chestnut_analyzer::Options;
use chestnut_rewriter::{FilterOptions, MadeWith};
use programs::{SIGSYS, Scratch, read, run, signal, text};
use serde_json::Value;

const PROGRAM: &str = "void work(void); int main(void) { work(); return 0; }";
const FIRST: &str = "#include <unistd.h>\nvoid work(void) { getppid(); }";
const HARMLESS: &str = "#include <unistd.h>\nvoid work(void) { getppid(); getppid(); }";
const MORE: &str = "#include <sys/utsname.h>\nvoid work(void) { struct utsname u; uname(&u); }";

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

    fn library(&self, source: &str) {
        self.scratch.compile(source, &["-shared", "-fPIC"], "libwork.so");
    }

    /// Patches the program as it is now, as `chestnut-patch --nss files --dlopen DLOPEN` does.
    fn patch(&self, dlopen: &[String]) -> PathBuf {
        let input = self.path("program");
        let mut options = Options::default();
        options.nss = Some(vec!["files".to_owned()]);
        options.dlopen = dlopen.to_vec();
        let policy = chestnut_analyzer::analyze(&input, &options).unwrap();
        let flags = dlopen.iter().map(|glob| format!("--dlopen={glob}"));
        let flags = std::iter::once("--nss=files".to_owned()).chain(flags).collect();
        let made_with = MadeWith { flags, ..MadeWith::default() };
        let filter = FilterOptions { made_with, ..FilterOptions::default() };
        let rewritten = chestnut_rewriter::rewrite(&read(&input), &policy, &filter).unwrap();
        self.scratch.program("patched", &rewritten.bytes)
    }
}

fn check(arguments: &[&str], file: &Path) -> Output {
    run(env!("CARGO_BIN_EXE_chestnut"), &[&["check"], arguments, &[file.to_str().unwrap()]].concat())
}

fn said(output: &Output) -> String {
    text(&output.stdout)
}

#[test]
fn a_changed_library_is_noticed_and_what_it_needs_is_named() {
    let desk = Desk::new();
    desk.library(FIRST);
    desk.scratch.compile(PROGRAM, &["-lwork", "-Wl,-rpath,$ORIGIN"], "program");
    let patched = desk.patch(&[]);

    let output = check(&[], &patched);
    assert_eq!((output.status.code(), run(&patched, &[]).status.code()), (Some(0), Some(0)), "{output:?}");
    assert!(said(&output).contains("the same libraries"), "{output:?}");

    desk.library(HARMLESS);
    let output = check(&[], &patched);
    assert_eq!((output.status.code(), run(&patched, &[]).status.code()), (Some(0), Some(0)), "{output:?}");
    assert!(said(&output).contains("libwork.so") && said(&output).contains("allows all that they need"), "{output:?}");

    desk.library(MORE);
    let output = check(&[], &patched);
    assert_eq!((output.status.code(), signal(&run(&patched, &[]))), (Some(1), Some(SIGSYS)), "{output:?}");
    assert!(said(&output).contains("refuses what is needed now: uname\n"), "{output:?}");
    let json: Value = serde_json::from_str(&said(&check(&["--json"], &patched))).unwrap();
    assert_eq!(json.get("refused").unwrap(), &serde_json::json!(["uname"]));
    assert_eq!(json.get("covered").unwrap(), false);
}

/// What a program executes has been analyzed too, and is still there.
#[test]
fn executed_programs_are_compared_like_libraries() {
    let desk = Desk::new();
    let execute = |name: &str| format!("execl(\"{}\", \"{name}\", (char *)0)", desk.path(name).display());
    // Itself too, which is another file than the patched one.
    let source = format!("#include <unistd.h>\nint main(void) {{ {}; {}; }}", execute("executed"), execute("program"));
    desk.scratch.compile("int main(void) { return 0; }", &[], "executed");
    desk.scratch.compile(&source, &[], "program");
    let patched = desk.patch(&[]);
    let output = check(&[], &patched);
    assert!(output.status.success() && said(&output).contains("the same libraries"), "{output:?}");
    desk.scratch.compile("int main(void) { return 1; }", &[], "executed");
    let output = check(&[], &patched);
    assert_eq!(said(&output).lines().next(), Some(format!("changed: {}", desk.path("executed").display()).as_str()));
}

/// The record has room for so many files; of the others it keeps one digest.
#[test]
fn changes_are_noticed_among_files_that_are_not_recorded_one_by_one() {
    let desk = Desk::new();
    desk.scratch.compile("int main(void) { return 0; }", &[], "program");
    desk.library(FIRST);
    let library = |number: u32| desk.path(&format!("{:08x}.so", number.wrapping_mul(0x9e37_79b9)));
    for number in 0..500 {
        std::fs::copy(desk.path("libwork.so"), library(number)).unwrap();
    }
    let patched = desk.patch(&[desk.path("????????.so").to_str().unwrap().to_owned()]);
    let found = chestnut_rewriter::inspect(&read(&patched)).unwrap();
    let rest = found.rest.unwrap();
    assert!(found.files.len() > 200 && found.files.len() + rest.count > 500, "{rest:?}");
    let told = run(env!("CARGO_BIN_EXE_chestnut"), &["inspect", patched.to_str().unwrap()]);
    assert!(said(&told).contains(&format!("and {} more, SHA-256 of what identifies them: ", rest.count)), "{told:?}");

    let output = check(&[], &patched);
    assert!(output.status.success() && said(&output).contains("the same libraries"), "{output:?}");
    let is_recorded = |number: &u32| found.files.iter().any(|file| file.path == library(*number));
    let last = library((0..500).rfind(|number| !is_recorded(number)).unwrap());
    desk.library(HARMLESS);
    std::fs::copy(desk.path("libwork.so"), &last).unwrap();
    let expected = format!("changed: some of {0} files that are not recorded one by one ({0} now)\n", rest.count);
    let output = check(&[], &patched);
    assert!(output.status.success() && said(&output).starts_with(&expected), "{output:?}");
    assert!(said(&output).contains("allows all that they need"), "{output:?}");
    std::fs::remove_file(&last).unwrap();
    let json: Value = serde_json::from_str(&said(&check(&["--json"], &patched))).unwrap();
    assert_eq!(json.get("same").unwrap(), false);
    assert_eq!(json.get("rest_changed").unwrap(), true);
    assert_eq!(json.get("gone").unwrap(), &serde_json::json!([]));
}

#[test]
fn a_program_that_was_not_patched_is_refused() {
    let output = check(&[], Path::new("/usr/bin/true"));
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("not a patched file"), "{output:?}");
}
