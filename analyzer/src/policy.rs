//! The outcome of an analysis: which calls are allowed and why, what stayed unknown, what was assumed.
//!
//! Input: made by [`crate::analyze`], or read back from JSON that a person edited. Output: JSON of stable order, meant
//! to be reviewed and diffed. Nothing unknown is lost on the way here: a site whose number is not known is in
//! [`Policy::unresolved`], and whatever rests on something outside the files that were read is in
//! [`Policy::assumptions`].

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::address::Vaddr;
use crate::syscall::SyscallNr;

/// Version of the JSON form; a reader refuses any other.
pub const POLICY_FORMAT: u32 = 1;

/// What a program may call, with evidence.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    /// [`POLICY_FORMAT`].
    pub format: u32,
    /// Name and version of the tool that wrote this.
    pub tool: String,
    /// The executable.
    pub program: FileIdentity,
    /// Every other file that was read (loader, libraries), in the order in which they were loaded.
    pub libraries: Vec<FileIdentity>,
    /// The programs that it executes, as far as they are known; their calls are among the allowed ones.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub executed: Vec<FileIdentity>,
    /// Allowed calls by number.
    pub allowed: BTreeMap<SyscallNr, AllowedCall>,
    /// Reached `syscall` instructions whose number is not known, or that enter the kernel another way.
    pub unresolved: Vec<UnresolvedSite>,
    /// What the result rests on beyond the bytes that were read.
    pub assumptions: Vec<Assumption>,
}

impl Policy {
    /// How many of the calls that are known are not allowed.
    #[must_use]
    pub fn blocked(&self) -> usize {
        SyscallNr::all_known().filter(|call| !self.allowed.contains_key(call)).count()
    }
}

/// Which file, so exactly that a later change is noticed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileIdentity {
    /// Path as it was opened, without the `--root` prefix.
    #[serde(with = "crate::path_text")]
    pub path: PathBuf,
    /// `NT_GNU_BUILD_ID` as lower-case hexadecimal digits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub build_id: Option<String>,
    /// SHA-256 of the whole file, lower-case hexadecimal digits.
    pub sha256: String,
}

/// Why one call is allowed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AllowedCall {
    /// Name of the call; for the reader, the number rules.
    pub name: String,
    /// One reason is enough to allow a call.
    pub evidence: Evidence,
}

/// A reason to allow a call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Evidence {
    /// A reached instruction makes the call.
    Site {
        /// Where the `syscall` instruction is.
        site: CodeLocation,
        /// From the entry point to the function that holds the site, first step first.
        path: Vec<CodeLocation>,
    },
    /// A program that is executed makes it, and inherits the filter: DESIGN section 3, rule 7.
    Executed {
        /// Path of that program.
        #[serde(with = "crate::path_text")]
        program: PathBuf,
        /// Why it may make the call.
        evidence: Box<Evidence>,
    },
    /// The kernel or the C library makes it on its own account: DESIGN section 3, rule 8.
    Always {
        /// For whom.
        reason: String,
    },
    /// `--allow`, or a line that somebody added to the policy.
    Requested {
        /// The flag or the note.
        by: String,
    },
    /// A tracer saw it.
    Observed {
        /// In which trace.
        trace: String,
        /// The instruction that made the call.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        site: Option<CodeLocation>,
    },
}

/// A place in code, readable and exact.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CodeLocation {
    /// Path of the file, without the `--root` prefix.
    #[serde(with = "crate::path_text")]
    pub file: PathBuf,
    /// Address in that file.
    pub address: Vaddr,
    /// The nearest function symbol at or before it, with the distance: `read+0x10`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub symbol: Option<String>,
}

/// A reached way into the kernel whose number is not known.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UnresolvedSite {
    /// Where it is.
    pub site: CodeLocation,
    /// What is not known about it.
    pub reason: UnresolvedReason,
}

/// What is not known about a site.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum UnresolvedReason {
    /// `rax` can hold a value that is not a constant.
    Number,
    /// `int $0x80` or `sysenter`: the 32-bit call table.
    ForeignEntry,
}

/// Something that the result rests on and that the files that were read do not prove.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Assumption {
    /// What kind.
    pub kind: AssumptionKind,
    /// The sentence for the reader: what is assumed.
    pub text: String,
    /// Where it comes from, if from one place.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub site: Option<CodeLocation>,
    /// The flag that replaces the assumption by knowledge.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub flag: Option<String>,
}

/// Kinds of assumptions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AssumptionKind {
    /// A library is loaded whose name is not known.
    OpenLoad,
    /// A symbol is looked up whose name is not known.
    OpenLookup,
    /// A program is executed whose name is not known.
    OpenExec,
    /// The program runs in an environment like that of most programs.
    Environment,
    /// A name that the C library composes was taken from the system's configuration.
    SystemConfiguration,
    /// What a compiler wrote down is not believed.
    CompilerNotes,
    /// Code can be written where it is executed.
    WritableCode,
}

/// Two lower-case digits for each byte: how a policy writes digests.
#[must_use]
pub fn hexadecimal(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a `String` cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}
