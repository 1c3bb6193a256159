//! Everything that can be wrong with an input, or with what was made of it.
//!
//! A message says what was being read, where, what was found and what was expected; the path of the file is added by
//! the caller that knows it. Every variant but [`Error::Verification`] is a refusal: the input is not one for this
//! tool, or is damaged.

use chestnut_analyzer::syscall::SyscallNr;

use crate::bpf::CompileError;

/// Why a file cannot be rewritten, restored or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Not an ELF file at all.
    #[error("not an ELF file: it begins with {found:02x?}, expected 7f 45 4c 46")]
    NotElf {
        /// First bytes.
        found: Vec<u8>,
    },
    /// `#!`.
    #[error("a script for {interpreter}, not an ELF file: patch the interpreter")]
    Script {
        /// Path of the program that runs it.
        interpreter: String,
    },
    /// A field of the file header that says: not for us.
    #[error("{field} is {found}, expected {expected}")]
    Unsupported {
        /// Field of the file header.
        field: &'static str,
        /// Its value.
        found: String,
        /// What this tool works on.
        expected: &'static str,
    },
    /// No program: a library.
    #[error("a shared library{}, not a program: it runs under the filter of the program that loads it", soname(.name))]
    SharedLibrary {
        /// `DT_SONAME`.
        name: Option<String>,
    },
    /// The file ends too early.
    #[error("truncated: {what} at offset {offset:#x} needs {length:#x} bytes, but the file has {file_length:#x}")]
    Truncated {
        /// What was to be read.
        what: String,
        /// Where it starts.
        offset: u64,
        /// How long it is.
        length: u64,
        /// How long the file is.
        file_length: u64,
    },
    /// A header that contradicts itself or another one.
    #[error("damaged: {what} is {found}, expected {expected}")]
    Damaged {
        /// Which one.
        what: String,
        /// What it says.
        found: String,
        /// What it should say.
        expected: String,
    },
    /// Compressed code, which cannot be analyzed and would run under no filter that fits.
    #[error("packed with UPX (mark at offset {offset:#x}): unpack it first, with upx -d")]
    Packed {
        /// Where the mark is.
        offset: u64,
    },
    /// Data that the program finds by its distance from the end of the file.
    #[error(
        "{length} bytes of data follow the end of the ELF file at offset {offset:#x} (an appended archive or script): the program could no longer find them"
    )]
    TrailingData {
        /// End of the ELF file.
        offset: u64,
        /// Length of what follows.
        length: u64,
    },
    /// Patched by this tool.
    #[error("already patched: use --repatch to replace its filter, or --unpatch to remove it")]
    AlreadyPatched,
    /// Not patched by this tool.
    #[error("not a patched file: nothing to restore or to show")]
    NotPatched,
    /// No place for one more program header.
    #[error(
        "no place for one more program header: none of the {count} can be spared, no padding of {needed} bytes follows a segment, and behind the end of memory it would need a hole of {hole} bytes"
    )]
    NoPlaceForTable {
        /// Number of headers.
        count: usize,
        /// Size of the table with one more.
        needed: u64,
        /// Size of the hole.
        hole: u64,
    },
    /// The jump back is too long.
    #[error("the entry point {entry:#x} is more than 2 GiB away from the end of memory {end:#x}")]
    TooFar {
        /// Old entry point.
        entry: u64,
        /// Where the stub would be.
        end: u64,
    },
    /// A number that no x86-64 call can have.
    #[error("the policy allows call number {number}, which x86-64 cannot have")]
    PolicyNumber {
        /// The number.
        number: SyscallNr,
    },
    /// The filter could not be made.
    #[error("no filter")]
    Filter(#[from] CompileError),
    /// The record in a patched file is not readable.
    #[error("the record in the patched file is damaged: {what}")]
    Record {
        /// What is wrong with it.
        what: &'static str,
    },
    /// A patched file that somebody else has changed since.
    #[error("changed since it was patched (stripped, signed or edited?): the original cannot be restored")]
    Changed,
    /// A mistake in this program, found before anything was written.
    #[error("internal error: the patched file does not hold what it should: {what}")]
    Verification {
        /// What is wrong.
        what: String,
    },
}

fn soname(name: &Option<String>) -> String {
    name.as_ref().map_or_else(String::new, |name| format!(" ({name})"))
}
