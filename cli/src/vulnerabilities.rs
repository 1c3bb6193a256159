//! Known vulnerabilities of the kernel, and what a policy leaves of them.
//!
//! Input: the project's table (`cli/data/vulnerabilities.tsv`, with its sources), and tables of the user. Output: for each
//! vulnerability whether all calls that lead to it are blocked. A statement about entries only: it does not say that the
//! kernel of this machine has the error.

use std::path::{Path, PathBuf};

use chestnut_analyzer::limits::Limits;
use chestnut_analyzer::policy::Policy;
use chestnut_analyzer::syscall::SyscallNr;

use crate::failure::Failure;
use crate::program;

/// The project's own table.
const OWN: &str = include_str!("../data/vulnerabilities.tsv");

/// An error of the kernel, known by a name.
#[derive(Clone, Debug)]
pub(crate) struct Vulnerability {
    pub(crate) name: String,
    /// Any one of them leads to it.
    pub(crate) calls: Vec<SyscallNr>,
    pub(crate) source: String,
}

/// What a policy leaves of a vulnerability.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Effect {
    /// All calls that lead to it are allowed.
    Open,
    /// Some of them are blocked.
    Partly,
    /// All are.
    Mitigated,
}

/// How many of all have which fate.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Tally {
    pub(crate) mitigated: usize,
    pub(crate) partly: usize,
    pub(crate) all: usize,
}

/// The project's table and those that the user names. A later line about the same name replaces the earlier one.
pub(crate) fn read(files: &[PathBuf], limits: &Limits) -> Result<Vec<Vulnerability>, Failure> {
    let mut found = Vec::new();
    // The project's own table is right: a test reads it.
    add(&mut found, OWN).ok();
    for path in files {
        let text = program::read_text(path, "bytes of the table", limits)?;
        add(&mut found, &String::from_utf8_lossy(&text)).map_err(|reason| wrong(path, reason))?;
    }
    Ok(found)
}

fn wrong(path: &Path, reason: String) -> Failure {
    Failure::NotATable { path: path.to_owned(), reason }
}

fn add(found: &mut Vec<Vulnerability>, text: &str) -> Result<(), String> {
    for (line, number) in text.lines().zip(1_u32..) {
        if line.trim().is_empty() || line.starts_with('#') {
            continue;
        }
        let new = parse(line).map_err(|reason| format!("line {number}: {reason}"))?;
        match found.iter_mut().find(|old| old.name == new.name) {
            Some(old) => *old = new,
            None => found.push(new),
        }
    }
    Ok(())
}

fn parse(line: &str) -> Result<Vulnerability, String> {
    let mut fields = line.split('\t');
    let (Some(name), Some(names)) = (fields.next(), fields.next()) else {
        return Err("expected a name, a tab, and calls with a space between them".to_owned());
    };
    let call = |name: &str| SyscallNr::from_name(name).ok_or_else(|| format!("there is no system call {name:?}"));
    let calls = names.split_whitespace().map(call).collect::<Result<Vec<_>, _>>()?;
    if calls.is_empty() {
        return Err(format!("{name} has no calls"));
    }
    Ok(Vulnerability { name: name.to_owned(), calls, source: fields.next().unwrap_or_default().to_owned() })
}

impl Vulnerability {
    /// What a policy leaves of it.
    pub(crate) fn effect(&self, policy: &Policy) -> Effect {
        let allowed = self.calls.iter().filter(|call| policy.allowed.contains_key(call)).count();
        match allowed {
            0 => Effect::Mitigated,
            number if number < self.calls.len() => Effect::Partly,
            _ => Effect::Open,
        }
    }
}

impl Tally {
    pub(crate) fn new(all: &[Vulnerability], policy: &Policy) -> Self {
        let number = |wanted| all.iter().filter(|one| one.effect(policy) == wanted).count();
        Self { mitigated: number(Effect::Mitigated), partly: number(Effect::Partly), all: all.len() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_own_table_is_right() {
        let mut found = Vec::new();
        add(&mut found, OWN).unwrap();
        assert_eq!(found.len(), OWN.lines().filter(|line| line.starts_with("CVE-")).count());
        assert!(found.iter().all(|one| !one.source.is_empty()));
    }

    #[test]
    fn lines_are_checked_and_replaced() {
        let mut found = Vec::new();
        add(&mut found, "# a comment\n\nX-1\tread write\tme\nX-1\tptrace\tyou\n").unwrap();
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].calls.len(), found[0].source.as_str()), (1, "you"));
        for (text, reason) in [
            ("X-1\n", "line 1: expected a name, a tab"),
            ("\nX-1\tnocall\n", "line 2: there is no system call \"nocall\""),
            ("X-1\t \n", "line 1: X-1 has no calls"),
        ] {
            let found = add(&mut Vec::new(), text).unwrap_err();
            assert!(found.starts_with(reason), "{found}");
        }
    }
}
