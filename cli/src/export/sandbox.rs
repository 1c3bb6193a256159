//! Profiles of sandboxing launchers.
//!
//! Follows minijail's "System Call Filtering with Minijail" (minijail0(5)) and firejail-profile(5).

use std::fmt::Write as _;

use chestnut_rewriter::bpf::{Action, errno_name};

use super::Profile;

/// A policy file for minijail. `minijail0 -S` kills what is not listed, or only logs it with `-L`, and takes no `@default`;
/// that is for `compile_seccomp_policy.py`, whose result `minijail0 --seccomp-bpf-binary` takes.
pub(super) fn minijail(profile: &Profile<'_>) -> String {
    let mut text = format!("# {}\n", profile.title());
    // Writing to a string cannot fail.
    let _ = match profile.action() {
        Action::KillProcess | Action::KillThread => Ok(()),
        Action::Log => writeln!(text, "# for minijail0 -L, which logs what is not listed"),
        Action::Trap => writeln!(text, "# for compile_seccomp_policy.py\n@default trap"),
        Action::Errno(number) => writeln!(text, "# for compile_seccomp_policy.py\n@default return {number}"),
    };
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
