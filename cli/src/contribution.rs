//! What each file contributes to a policy.
//!
//! Input: a policy. Output: for each file how many calls it asks for and how many it makes itself, by the way that the
//! policy shows for each call. Nearly all `syscall` instructions of a program are libc's, so that who makes a call says
//! little: the file that asks for it is the last one on the way that is not the one that makes it. Each call is counted
//! once in each column, although other ways may lead through other files.

use std::collections::BTreeMap;
use std::path::Path;

use chestnut_analyzer::policy::{AllowedCall, CodeLocation, Evidence, Policy};

use crate::symbol::readable;

/// Between files on a way.
const ARROW: &str = " → ";

/// What one file contributes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Contribution {
    /// The file's last name, or what else a call is allowed for.
    pub(crate) name: String,
    /// How many calls it asks for.
    pub(crate) asks: u32,
    /// How many calls it makes.
    pub(crate) makes: u32,
}

/// All files that contribute, those that ask for most first.
pub(crate) fn contributions(policy: &Policy) -> Vec<Contribution> {
    let mut numbers: BTreeMap<String, (u32, u32)> = BTreeMap::new();
    for AllowedCall { evidence, .. } in policy.allowed.values() {
        let asks = &mut numbers.entry(asker(evidence)).or_default().0;
        *asks = asks.saturating_add(1);
        let makes = &mut numbers.entry(origin(evidence)).or_default().1;
        *makes = makes.saturating_add(1);
    }
    let mut all: Vec<_> = numbers.into_iter().map(|(name, (asks, makes))| Contribution { name, asks, makes }).collect();
    all.sort_by_key(|one| (std::cmp::Reverse((one.asks, one.makes)), one.name.clone()));
    all
}

/// The file in which the policy shows a call, or who else wants it.
fn origin(evidence: &Evidence) -> String {
    match evidence {
        Evidence::Site { site, .. } => name(&site.file),
        Evidence::Executed { program, .. } => format!("executed: {}", name(program)),
        Evidence::Always { .. } => "always allowed".to_owned(),
        Evidence::Requested { .. } => "requested".to_owned(),
        Evidence::Observed { .. } => "seen in a trace".to_owned(),
    }
}

/// The file that asks the one with the call for it; the same one if there is no other on the way.
pub(crate) fn asker(evidence: &Evidence) -> String {
    match evidence {
        Evidence::Site { site, path } => {
            name(path.iter().rev().map(|step| &step.file).find(|file| **file != site.file).unwrap_or(&site.file))
        }
        other => origin(other),
    }
}

/// The way to a call by its files, and the function that makes it: `nginx → libcrypto.so.3 → libc.so.6 (read)`.
pub(crate) fn route(evidence: &Evidence) -> String {
    let (site, path) = match evidence {
        Evidence::Site { site, path } => (site, path),
        Evidence::Executed { evidence, .. } => return format!("executed: {}", route(evidence)),
        other => return origin(other),
    };
    let mut files: Vec<_> = path.iter().chain([site]).map(|step| name(&step.file)).collect();
    files.dedup();
    format!("{}{}", files.join(ARROW), function(site))
}

/// The function that holds a place, without the distance from its beginning.
fn function(site: &CodeLocation) -> String {
    let symbol = site.symbol.as_deref().map(|symbol| symbol.rsplit_once("+0x").map_or(symbol, |(name, _)| name));
    symbol.map_or_else(String::new, |symbol| format!(" ({})", readable(symbol)))
}

fn name(path: &Path) -> String {
    path.file_name().map_or_else(|| path.display().to_string(), |name| name.to_string_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    use chestnut_analyzer::address::Vaddr;

    use super::*;

    fn place(file: &str, symbol: &str) -> CodeLocation {
        CodeLocation { file: file.into(), address: Vaddr(0x10), symbol: Some(symbol.to_owned()) }
    }

    #[test]
    fn the_file_before_the_last_asks() {
        let path = [("/p", "main"), ("/x.so", "x"), ("/x.so", "y"), ("/c.so", "read")];
        let path = path.iter().map(|(file, symbol)| place(file, symbol)).collect();
        let through = Evidence::Site { site: place("/c.so", "read+0x10"), path };
        assert_eq!((asker(&through), origin(&through)), ("x.so".to_owned(), "c.so".to_owned()));
        assert_eq!(route(&through), "p → x.so → c.so (read)");
        let alone = Evidence::Site { site: place("/p", "main+0x2"), path: vec![place("/p", "main")] };
        assert_eq!((asker(&alone), origin(&alone)), ("p".to_owned(), "p".to_owned()));
        assert_eq!(route(&alone), "p (main)");
        let executed = Evidence::Executed { program: "/bin/sh".into(), evidence: Box::new(alone) };
        assert_eq!((asker(&executed), route(&executed)), ("executed: sh".to_owned(), "executed: p (main)".to_owned()));
    }
}
