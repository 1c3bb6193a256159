//! Calls that the kernel or the C library makes without a site that the analysis could see: DESIGN section 3, rule 8.
//!
//! Input: the calls found so far. Output: the calls to add, each with its reason.

use std::collections::BTreeMap;

use crate::policy::{AllowedCall, Evidence};
use crate::syscall::SyscallNr;

/// Call, condition (one of these is allowed; none: always), reason.
const RULES: [(&str, &[&str], &str); 5] = [
    ("rt_sigreturn", &[], "every signal handler returns through it"),
    ("restart_syscall", &[], "the kernel makes it to resume a call that a stop interrupted"),
    ("exit_group", &[], "a program must be able to end"),
    ("set_robust_list", &["clone", "clone3"], "the C library registers each new thread"),
    ("rseq", &["clone", "clone3"], "the C library registers each new thread, and gives up if that fails"),
];

/// Adds what the rules call for.
pub fn add(allowed: &mut BTreeMap<SyscallNr, AllowedCall>) {
    for (name, conditions, reason) in RULES {
        let is_allowed = |name: &&str| SyscallNr::from_name(name).is_some_and(|call| allowed.contains_key(&call));
        if !conditions.is_empty() && !conditions.iter().any(is_allowed) {
            continue;
        }
        if let Some(call) = SyscallNr::from_name(name) {
            insert(allowed, call, reason);
        }
    }
}

/// Adds what the stub of a patched program calls before anything else: whatever is executed may be patched, if not today
/// then tomorrow.
pub(crate) fn add_stub(allowed: &mut BTreeMap<SyscallNr, AllowedCall>) {
    for call in ["seccomp", "prctl"].into_iter().filter_map(SyscallNr::from_name) {
        insert(allowed, call, "a program that is executed may install a filter of its own");
    }
}

/// Adds a call for which no site speaks, if it is not there.
pub(crate) fn insert(allowed: &mut BTreeMap<SyscallNr, AllowedCall>, call: SyscallNr, reason: &str) {
    let evidence = Evidence::Always { reason: reason.to_owned() };
    allowed.entry(call).or_insert_with(|| AllowedCall { name: call.to_string(), evidence });
}
