//! What tests of several commands share: policies made by hand, programs built on the spot, and runs of them.
//!
//! Nothing is skipped: a compiler or tool that is missing fails the test that needs it, with its name.
#![allow(dead_code, reason = "no test file needs all of it")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use chestnut_analyzer::policy::{AllowedCall, Evidence, FileIdentity, POLICY_FORMAT, Policy};
use chestnut_analyzer::syscall::SyscallNr;
use chestnut_rewriter::{FilterOptions, Rewritten, rewrite};
use tempfile::TempDir;

/// The number of a call.
pub(crate) fn call(name: &str) -> SyscallNr {
    SyscallNr::from_name(name).unwrap_or_else(|| panic!("no call {name}"))
}

/// A policy that allows these calls.
pub(crate) fn allowing(calls: impl IntoIterator<Item = SyscallNr>) -> Policy {
    let evidence = || Evidence::Requested { by: "a test".to_owned() };
    let allowed = |nr: SyscallNr| (nr, AllowedCall { name: nr.to_string(), evidence: evidence() });
    Policy {
        format: POLICY_FORMAT,
        tool: "a test".to_owned(),
        program: identity("/usr/bin/program", "01"),
        libraries: Vec::new(),
        executed: Vec::new(),
        allowed: calls.into_iter().map(allowed).collect(),
        unresolved: Vec::new(),
        assumptions: Vec::new(),
    }
}

/// A policy that allows all calls but these.
pub(crate) fn denying(names: &[&str]) -> Policy {
    let denied: Vec<_> = names.iter().map(|name| call(name)).collect();
    allowing(SyscallNr::all_known().filter(|nr| !denied.contains(nr)))
}

/// A policy as one of this program, by what sha256sum says of it.
pub(crate) fn made_for(program: &Path, mut policy: Policy) -> Policy {
    let said = tool("sha256sum", &[], program);
    policy.program.sha256 = said.split(' ').next().expect("the digest comes first").to_owned();
    policy
}

/// A file whose digest consists of these digits.
pub(crate) fn identity(path: &str, digits: &str) -> FileIdentity {
    FileIdentity { path: path.into(), build_id: None, sha256: digits.repeat(32) }
}

/// Patches bytes, with the action that kills.
pub(crate) fn patched(bytes: &[u8], policy: &Policy) -> Rewritten {
    rewrite(bytes, policy, &FilterOptions::default()).unwrap_or_else(|error| panic!("{error}: {error:?}"))
}

/// A folder that goes away with the test.
pub(crate) struct Scratch(TempDir);

impl Scratch {
    pub(crate) fn new() -> Self {
        Self(TempDir::new().expect("a temporary folder"))
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Writes a program that can be started. Another process does so: were the file open for writing in this one while
    /// another test forks, the kernel would call the file busy.
    pub(crate) fn program(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let (data, path) = (self.path(&format!("{name}.data")), self.path(name));
        std::fs::write(&data, bytes).expect("the folder is there");
        tool("install", &["--mode=755", "--no-target-directory", data.to_str().expect("UTF-8")], &path);
        std::fs::remove_file(&data).expect("the file is there");
        path
    }

    /// Patches a program of the machine, or one that was built.
    pub(crate) fn patch(&self, original: &Path, name: &str, policy: &Policy) -> PathBuf {
        self.program(name, &patched(&read(original), policy).bytes)
    }

    /// Compiles a source of C; libraries are looked for in the folder.
    pub(crate) fn compile(&self, source: &str, flags: &[&str], name: &str) -> PathBuf {
        let (file, path) = (self.path("source.c"), self.path(name));
        std::fs::write(&file, source).expect("the folder is there");
        let mut gcc = Command::new("gcc");
        gcc.args(["-O1", "-o"]).arg(&path).arg(&file);
        gcc.arg(format!("-L{}", self.path("").display())).args(flags);
        assert!(gcc.status().unwrap_or_else(|error| panic!("gcc is needed: {error}")).success(), "{source}");
        path
    }

    /// Compiles one of the sources beside this file.
    pub(crate) fn build(&self, command: &str, source: &str, name: &str) -> PathBuf {
        let path = self.path(name);
        let (compiler, flags) = command.split_once(' ').unwrap_or((command, ""));
        let arguments = flags.split_whitespace().map(str::to_owned);
        let output = Command::new(compiler)
            .args(arguments)
            .arg(source_path(source))
            .arg("-o")
            .arg(&path)
            .output()
            .unwrap_or_else(|error| panic!("{compiler} is needed: {error}"));
        assert!(output.status.success(), "{command}: {}", text(&output.stderr));
        path
    }
}

/// Where a source is.
pub(crate) fn source_path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/programs").join(name)
}

pub(crate) fn read(path: &Path) -> Vec<u8> {
    std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

pub(crate) fn write_policy(path: &Path, policy: &Policy) {
    std::fs::write(path, serde_json::to_vec_pretty(policy).expect("it can be written")).expect("the folder is there");
}

pub(crate) fn read_policy(path: &Path) -> Policy {
    serde_json::from_slice(&read(path)).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// A program with arguments, whose time is limited: a hang is a failure.
pub(crate) fn limited(program: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new("timeout");
    command.args(["--foreground", "-s", "KILL", "100", program]).args(arguments);
    command
}

/// Runs a program with arguments.
pub(crate) fn run(program: impl AsRef<Path>, arguments: &[&str]) -> Output {
    let program = program.as_ref();
    Command::new(program).args(arguments).output().unwrap_or_else(|error| panic!("{}: {error}", program.display()))
}

/// Runs a tool that must succeed, and returns what it said.
pub(crate) fn tool(name: &str, arguments: &[&str], file: &Path) -> String {
    let output = Command::new(name).args(arguments).arg(file).output();
    let output = output.unwrap_or_else(|error| panic!("{name} is needed: {error}"));
    assert!(output.status.success(), "{name} {arguments:?}: {}", text(&output.stderr));
    text(&output.stdout) + &text(&output.stderr)
}

/// SIGSYS, by which the kernel kills.
pub(crate) const SIGSYS: i32 = 31;

/// The signal that a program died of.
pub(crate) fn signal(output: &Output) -> Option<i32> {
    std::os::unix::process::ExitStatusExt::signal(&output.status)
}
