//! Builds the stub image from `stub/src/lib.rs`; nothing that is binary is committed.
//!
//! Input: `$RUSTC`, the stub's sources, `linker-script/stub.ld`. Output: `$OUT_DIR/stub.elf`, and
//! `$OUT_DIR/stub-trap.elf` with a handler of SIGSYS and the names of all calls, which `src/stub_image.rs` embeds,
//! parses and checks. The compiler is called directly, and not as a dependency: a free-standing program as an ordinary
//! workspace member would force `panic = "abort"` on all of them, and flags meant for the host (coverage, sanitizers)
//! must not reach the image.
#![allow(clippy::expect_used, reason = "a build script can do nothing but stop")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use syscalls::Sysno;

fn main() {
    let crate_folder = PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it"));
    let root = crate_folder.parent().expect("the crate lies in the workspace");
    let out = PathBuf::from(std::env::var_os("OUT_DIR").expect("cargo sets it"));
    let sources = root.join("stub/src");
    let script = root.join("linker-script/stub.ld");
    for input in [&sources, &script] {
        println!("cargo::rerun-if-changed={}", input.display());
    }
    let names = out.join("call-names");
    std::fs::write(&names, call_names()).expect("the folder can be written to");
    let build = |name: &str, longest: usize, more: &[&str]| {
        let mut rustc = compile(&sources.join("lib.rs"), &script, &out.join(name));
        rustc.arg(format!("-Clink-arg=-Wl,--defsym=longest_stub={longest}")).args(more);
        let status = rustc.env("CHESTNUT_CALL_NAMES", &names).status().expect("the compiler can be run");
        assert!(status.success(), "the stub image was not built: {status}");
    };
    build("stub.elf", 1024, &[]);
    build("stub-trap.elf", 8192, &["--cfg=stub_trap"]);
}

/// For each number from 0 on the length of the call's name in one byte, and the name.
fn call_names() -> Vec<u8> {
    let names: BTreeMap<usize, &str> =
        Sysno::iter().filter_map(|call| Some((usize::try_from(call.id()).ok()?, call.name()))).collect();
    let highest = names.last_key_value().map_or(0, |(number, _)| *number);
    let name = |number| names.get(&number).copied().unwrap_or_default();
    let entry = |name: &str| {
        [u8::try_from(name.len()).expect("names are short")].into_iter().chain(name.bytes()).collect::<Vec<_>>()
    };
    (0..=highest).flat_map(|number| entry(name(number))).collect()
}

fn compile(source: &Path, script: &Path, out: &Path) -> Command {
    let mut rustc = Command::new(std::env::var_os("RUSTC").expect("cargo sets it"));
    rustc
        .arg(source)
        .arg("-o")
        .arg(out)
        .args(["--crate-name=chestnut_stub", "--crate-type=bin", "--edition=2024", "--cfg=stub_image"])
        .args(["--target=x86_64-unknown-linux-gnu", "-Cpanic=abort", "-Copt-level=s", "-Crelocation-model=pic"])
        .args(["-Ccodegen-units=1", "-Cdebuginfo=0", "-Cforce-unwind-tables=no", "-Cdefault-linker-libraries=no"])
        .args(["-Cno-vectorize-loops", "-Cno-vectorize-slp", "-Dwarnings"])
        .args(["-Clink-arg=-nostartfiles", "-Clink-arg=-nostdlib", "-Clink-arg=-pie"])
        .args(["-Clink-arg=-Wl,-z,text", "-Clink-arg=-Wl,--no-dynamic-linker", "-Clink-arg=-Wl,--build-id=none"])
        .arg("-Clink-arg=-Wl,--no-eh-frame-hdr")
        .arg(format!("-Clink-arg=-Wl,-T,{}", script.display()));
    rustc
}
