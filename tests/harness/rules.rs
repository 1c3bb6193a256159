//! The rules of section 3 of DESIGN.md, and the fixtures that show them.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::Arc;

use libtest_mimic::{Failed, Trial};

use super::fixture::{self, Fixture};

/// Numbers of the rules: `### 1` to `### 9` in DESIGN.md.
const RULES: std::ops::RangeInclusive<u32> = 1..=9;

/// One test a rule: it has a fixture.
pub(crate) fn trials(fixtures: &[Arc<Fixture>]) -> Vec<Trial> {
    RULES
        .map(|rule| {
            let shown = fixtures.iter().any(|fixture| fixture.rules.iter().any(|(number, _)| *number == rule));
            Trial::test(format!("rule-{rule}/names-a-fixture"), move || {
                shown.then_some(()).ok_or_else(|| Failed::from(format!("no fixture says `//# Rule: {rule}`")))
            })
        })
        .collect()
}

/// Prints which fixtures show which rule.
pub(crate) fn print_index() -> ExitCode {
    let mut index: BTreeMap<u32, Vec<String>> = RULES.map(|rule| (rule, Vec::new())).collect();
    for fixture in fixture::all() {
        for (rule, text) in &fixture.rules {
            index.entry(*rule).or_default().push(format!("{:<24} {text}", fixture.name));
        }
    }
    for (rule, lines) in &index {
        println!("rule {rule}");
        for line in lines {
            println!("  {line}");
        }
    }
    ExitCode::SUCCESS
}
