//! Real programs, built, patched and run: every folder of `fixtures/` in every configuration that applies to it.
//!
//! A fixture is a folder with `main.c`, `main.cc`, `main.s` or `main.rs`, and what is expected of it stands in the
//! source itself, in lines that begin with `//# ` (`#//# ` in assembly):
//!
//! | directive | meaning |
//! |---|---|
//! | `Rule: N text` | shows rule N of section 3 of DESIGN.md; the text says what of it |
//! | `Matrix: full`, `thin`, `one` | which configurations (see [`harness::config`]) |
//! | `Not: word... (reason)` | leaves out the configurations that have one of these words |
//! | `Gap: reason` | known not to hold yet: listed as ignored, with the reason, also where all tests are required |
//! | `Variant: word... flag...` | one more configuration: `clang`, `musl`, `static`, `stripped`, ..., compiler flags |
//! | `Flags: flag...` | compiler flags of all configurations, behind `-O2` |
//! | `With: file...` | further sources of the program |
//! | `Library: file flag...` | a shared library (`libfile.so`) that the program is linked with |
//! | `Plugin: file flag...` | a shared library (`file.so`) that the program is not linked with |
//! | `Patch: flag...` | flags for `chestnut-patch` |
//! | `Run: arg...` | one run; output and status of the patched program must be those of the original |
//! | `Killed: call: arg...` | the original succeeds; the patched program dies of SIGSYS at this very call |
//! | `Allow: call...` | must be in the list; derived by hand from the fixture's source |
//! | `Allow-glibc: call...`, `Allow-musl: ...` | the same with this C library |
//! | `Block: call...` | must not be in the list; derived by hand likewise |
//! | `Assume: kind...` | kinds of assumptions that the policy must state |
//! | `Refuse: text` | `chestnut-patch` must end with status 1 and say this on stderr; nothing is written |
//! | `Needs: feature...` | what the machine must offer: `ia32`, `network` |
//!
//! Every run without `Refuse` checks in addition: the calls that the original makes behind its entry point, as the
//! kernel reports them to a tracer, are a subset of `chestnut-patch --list`; all threads of the patched program end
//! with a filter; `--unpatch` gives back the original (configurations `gcc-glibc-*`).
//!
//! `cargo test --test end_to_end -- index` prints which fixtures show which rule.
//! `CHESTNUT_PATCH` names another `chestnut-patch` to test. A test that cannot be run says why and is counted as
//! ignored; with `CHESTNUT_REQUIRE_ALL=1` it fails.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stderr,
    clippy::print_stdout,
    reason = "a test may stop where it stands, and prints what it found; without libtest, clippy does not know that it is one"
)]

mod harness;

use std::process::ExitCode;

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    match arguments.next() {
        Some(word) if word == "supervise" => harness::supervisor::main(arguments.collect()),
        Some(word) if word == "index" => harness::rules::print_index(),
        _ => {
            let arguments = libtest_mimic::Arguments::from_args();
            libtest_mimic::run(&arguments, harness::trials()).exit_code()
        }
    }
}
