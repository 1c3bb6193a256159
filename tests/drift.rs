//! `chestnut check` on a program whose library changes under it; what it says is compared with what the kernel does.

#![allow(clippy::unwrap_used, reason = "a test may stop where it stands")]

use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use chestnut_analyzer::Options;
use chestnut_rewriter::{FilterOptions, MadeWith};
use serde_json::Value;
use tempfile::TempDir;

/// signal(7).
const SIGSYS: i32 = 31;

const PROGRAM: &str = "void work(void); int main(void) { work(); return 0; }";
const FIRST: &str = "#include <unistd.h>\nvoid work(void) { getppid(); }";
const HARMLESS: &str = "#include <unistd.h>\nvoid work(void) { getppid(); getppid(); }";
const MORE: &str = "#include <sys/utsname.h>\nvoid work(void) { struct utsname u; uname(&u); }";

struct Desk {
    folder: TempDir,
}

impl Desk {
    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn build(&self, source: &str, flags: &[&str], output: &str) {
        let file = self.path("source.c");
        std::fs::write(&file, source).unwrap();
        let mut gcc = Command::new("gcc");
        gcc.args(["-O1", "-o"]).arg(self.path(output)).arg(&file);
        gcc.arg(format!("-L{}", self.folder.path().display())).args(flags);
        assert!(gcc.status().unwrap().success());
    }

    fn library(&self, source: &str) {
        self.build(source, &["-shared", "-fPIC"], "libwork.so");
    }

    /// Patches the program as it is now, as `chestnut-patch --nss files --deny DENIED` does.
    fn patch(&self) -> PathBuf {
        let input = self.path("program");
        let mut options = Options::default();
        options.nss = Some(vec!["files".to_owned()]);
        let policy = chestnut_analyzer::analyze(&input, &options).unwrap();
        let made_with = MadeWith { flags: vec!["--nss=files".to_owned()], ..MadeWith::default() };
        let filter = FilterOptions { made_with, ..FilterOptions::default() };
        let rewritten = chestnut_rewriter::rewrite(&std::fs::read(&input).unwrap(), &policy, &filter).unwrap();
        let output = self.path("patched");
        std::fs::write(&output, rewritten.bytes).unwrap();
        std::fs::set_permissions(&output, PermissionsExt::from_mode(0o755)).unwrap();
        output
    }
}

fn check(arguments: &[&str], file: &Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_chestnut")).arg("check").args(arguments).arg(file).output().unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

#[test]
fn a_changed_library_is_noticed_and_what_it_needs_is_named() {
    let desk = Desk { folder: TempDir::new().unwrap() };
    desk.library(FIRST);
    desk.build(PROGRAM, &["-lwork", "-Wl,-rpath,$ORIGIN"], "program");
    let patched = desk.patch();
    let run = || Command::new(&patched).status().unwrap();

    let output = check(&[], &patched);
    assert_eq!((output.status.code(), run().code()), (Some(0), Some(0)), "{output:?}");
    assert!(said(&output).contains("the same libraries"), "{output:?}");

    desk.library(HARMLESS);
    let output = check(&[], &patched);
    assert_eq!((output.status.code(), run().code()), (Some(0), Some(0)), "{output:?}");
    assert!(said(&output).contains("libwork.so") && said(&output).contains("allows all that they need"), "{output:?}");

    desk.library(MORE);
    let output = check(&[], &patched);
    assert_eq!((output.status.code(), run().signal()), (Some(1), Some(SIGSYS)), "{output:?}");
    assert!(said(&output).contains("refuses what is needed now: uname\n"), "{output:?}");
    let json: Value = serde_json::from_str(&said(&check(&["--json"], &patched))).unwrap();
    assert_eq!(json.get("refused").unwrap(), &serde_json::json!(["uname"]));
    assert_eq!(json.get("covered").unwrap(), false);
}

#[test]
fn a_program_that_was_not_patched_is_refused() {
    let output = check(&[], Path::new("/usr/bin/true"));
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("not a patched file"), "{output:?}");
}
