//! Units of systemd.
//!
//! Follows systemd.exec(5), "System Call Filtering". systemd itself adds `@default` to every list: some calls more than the
//! program needs. Names that its libseccomp does not know are passed over with a warning, and refused then.

use std::fmt::Write as _;

use chestnut_rewriter::bpf::{Action, errno_name};

use super::Profile;

/// A line of a list is wrapped by assigning to it once more.
const NAMES_A_LINE: usize = 12;

/// A drop-in for the unit that starts the program.
pub(super) fn systemd(profile: &Profile<'_>) -> String {
    // Writing to a string cannot fail.
    let mut text = format!("# {}\n[Service]\n", profile.title());
    // Instead of refusing: all but these are logged.
    let (setting, invert) =
        if profile.action() == Action::Log { ("SystemCallLog", "~") } else { ("SystemCallFilter", "") };
    for names in profile.names().chunks(NAMES_A_LINE) {
        let _ = writeln!(text, "{setting}={invert}{}", names.join(" "));
    }
    for (call, number) in profile.filter.specification().failing() {
        let _ = writeln!(text, "SystemCallFilter=~{call}:{}", errno(*number));
    }
    if let Action::Errno(number) = profile.action() {
        let _ = writeln!(text, "SystemCallErrorNumber={}", errno(number));
    }
    text.push_str("SystemCallArchitectures=native\nNoNewPrivileges=yes\n");
    text
}

fn errno(number: u16) -> String {
    errno_name(number).map_or_else(|| number.to_string(), str::to_owned)
}
