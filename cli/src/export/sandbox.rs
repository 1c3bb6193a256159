//! Profiles of sandboxing launchers.
//!
//! Follows minijail's "System Call Filtering with Minijail" (minijail0(5)) and firejail-profile(5).

use std::fmt::Write as _;

use chestnut_rewriter::bpf::{Action, errno_name};

use super::Profile;

/// A policy file for `minijail0 -S`.
pub(super) fn minijail(profile: &Profile<'_>) -> String {
    let mut text = format!("# {}\n", profile.title());
    let default = match profile.action() {
        Action::KillProcess => "kill-process".to_owned(),
        Action::KillThread => "kill-thread".to_owned(),
        Action::Trap => "trap".to_owned(),
        Action::Log => "allow-and-log".to_owned(),
        Action::Errno(number) => format!("return {number}"),
    };
    let _ = writeln!(text, "@default {default}");
    // Writing to a string cannot fail.
    for name in profile.names() {
        let _ = writeln!(text, "{name}: 1");
    }
    for (call, number) in profile.filter.specification().failing() {
        let _ = writeln!(text, "{call}: return {number}");
    }
    text
}

/// Lines for a profile of firejail.
pub(super) fn firejail(profile: &Profile<'_>) -> String {
    let mut text = format!("# {}\nseccomp.keep {}\n", profile.title(), profile.names().join(","));
    let action = match profile.action() {
        Action::Errno(number) => errno_name(number).unwrap_or("EPERM"),
        Action::Log => "log",
        Action::KillProcess | Action::KillThread | Action::Trap => "kill",
    };
    let _ = writeln!(text, "seccomp-error-action {action}");
    text
}
