//! Places in code, and the ways to them, as text.
//!
//! Input: [`CodeLocation`]s and [`Evidence`] of a policy. Output: text. Short: files by their last name, and of a long
//! way its ends. Long: whole paths, every step on a line of its own, from where the program starts to the site.

use std::fmt::Write;
use std::path::Path;

use chestnut_analyzer::policy::{CodeLocation, Evidence};

use crate::style::Style;
use crate::symbol::readable;

/// How many steps of a way the short form shows; of a longer one, all but the last one of these come from its end.
const SHORT_WAY: usize = 4;

/// `libc.so.6+0xf8150 (read+0x10)`.
pub(crate) fn short(location: &CodeLocation) -> String {
    let file = location.file.file_name().map_or(location.file.as_path(), Path::new);
    with_symbol(file, location)
}

/// The same with the path of the file.
pub(crate) fn long(location: &CodeLocation) -> String {
    with_symbol(&location.file, location)
}

fn with_symbol(file: &Path, location: &CodeLocation) -> String {
    let symbol = location.symbol.as_ref().map_or_else(String::new, |symbol| format!(" ({})", readable(symbol)));
    format!("{}+{}{symbol}", file.display(), location.address)
}

/// A step by its name, where it has one.
fn name(step: &CodeLocation) -> String {
    step.symbol.as_deref().map_or_else(|| short(step), readable)
}

/// Evidence in one line: the site, then back to where the program starts.
pub(crate) fn line(evidence: &Evidence, style: Style) -> String {
    let (site, path) = match evidence {
        Evidence::Site { site, path } => (site, path),
        Evidence::Executed { program, evidence } => {
            return format!("{}, executed: {}", program.display(), line(evidence, style));
        }
        _ => return without_site(evidence),
    };
    // The last function of the way is that which holds the site; its name is there already.
    let callers: Vec<_> = path.iter().rev().skip(1).collect();
    let mut way = String::new();
    let elided = callers.len().saturating_sub(SHORT_WAY);
    for (index, caller) in callers.iter().enumerate() {
        let from_the_start = callers.len().saturating_sub(index);
        // Writing to a string cannot fail.
        let _ = match (elided, from_the_start) {
            (1.., 1) => write!(way, " <- ({elided} more) <- {}", name(caller)),
            (1.., _) if index >= SHORT_WAY.saturating_sub(1) => Ok(()),
            _ => write!(way, " <- {}", name(caller)),
        };
    }
    format!("{}{}", short(site), style.faint(&way))
}

/// Evidence in many lines, each behind `indent`.
pub(crate) fn lines(evidence: &Evidence, indent: &str) -> String {
    let (site, path) = match evidence {
        Evidence::Site { site, path } => (site, path),
        Evidence::Executed { program, evidence } => {
            let rest = lines(evidence, indent);
            return format!("{indent}{}, which is executed:\n{rest}", program.display());
        }
        _ => return format!("{indent}{}\n", without_site(evidence)),
    };
    let mut text: String = path.iter().map(|step| format!("{indent}{}\n", long(step))).collect();
    let _ = writeln!(text, "{indent}{}: system call", long(site));
    text
}

fn without_site(evidence: &Evidence) -> String {
    match evidence {
        Evidence::Site { site, .. } => short(site),
        Evidence::Executed { program, evidence } => format!("{}: {}", program.display(), without_site(evidence)),
        Evidence::Always { reason } => format!("always: {reason}"),
        Evidence::Requested { by } => format!("requested by {by}"),
        Evidence::Observed { trace, site } => {
            let site = site.as_ref().map_or_else(String::new, |site| format!("{}, ", short(site)));
            format!("{site}seen in {trace}")
        }
    }
}

#[cfg(test)]
mod tests {
    use chestnut_analyzer::address::Vaddr;

    use super::*;

    fn step(symbol: &str) -> CodeLocation {
        CodeLocation { file: "/lib/libx.so".into(), address: Vaddr(0x10), symbol: Some(symbol.to_owned()) }
    }

    fn way(names: &[&str]) -> String {
        let evidence = Evidence::Site { site: step("w+0x2"), path: names.iter().map(|name| step(name)).collect() };
        line(&evidence, Style::of(&std::io::stdin(), crate::arguments::Colour::Never))
    }

    #[test]
    fn long_ways_keep_their_ends() {
        assert_eq!(way(&["w"]), "libx.so+0x10 (w+0x2)");
        assert_eq!(way(&["a", "w"]), "libx.so+0x10 (w+0x2) <- a");
        assert_eq!(way(&["a", "b", "c", "d", "w"]), "libx.so+0x10 (w+0x2) <- d <- c <- b <- a");
        assert_eq!(way(&["a", "b", "c", "d", "e", "w"]), "libx.so+0x10 (w+0x2) <- e <- d <- c <- (1 more) <- a");
        assert_eq!(way(&["a", "b", "c", "d", "e", "f", "w"]), "libx.so+0x10 (w+0x2) <- f <- e <- d <- (2 more) <- a");
    }
}
