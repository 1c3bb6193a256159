//! What a person decided when a file was patched, kept in its record: enough to do the same again from the file alone.
//!
//! Input: the decisions of `chestnut-patch`. Output: part of the note's text; `--repatch` and `chestnut check` read it.

use std::collections::BTreeSet;

use chestnut_analyzer::syscall::SyscallNr;
use serde::{Deserialize, Serialize};

/// Decisions beyond the filter's own.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MadeWith {
    /// The flags of the analysis ([`crate::command_line::AnalysisFlags::words`]).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub flags: Vec<String>,
    /// `--allow`.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub allow: BTreeSet<SyscallNr>,
    /// `--deny`.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub deny: BTreeSet<SyscallNr>,
    /// `--ignore-unresolved`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub ignore_unresolved: bool,
    /// `--policy`: the allowed calls come from a policy that is not in the file.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub from_policy: bool,
}
