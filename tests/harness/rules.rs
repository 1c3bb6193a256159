//! What the documents promise: the rules of section 3 of DESIGN.md have fixtures, the README names the flags.

use std::collections::{BTreeMap, BTreeSet};
use std::process::{Command, ExitCode};
use std::sync::Arc;

use libtest_mimic::{Failed, Trial};

use super::fixture::{self, Fixture};
use super::{chestnut_patch, process, repository};

/// Numbers of the rules of DESIGN.md.
const RULES: std::ops::RangeInclusive<u32> = 1..=9;

/// The README names every flag that `--help` does, and none besides.
pub(crate) fn readme_names_every_flag() -> Trial {
    Trial::test("readme/names-every-flag", || {
        let help =
            process::wait(Command::new(chestnut_patch()).arg("--help")).map_err(|trouble| format!("{trouble:?}"))?;
        let readme = std::fs::read_to_string(repository().join("README.md"))?;
        let table = readme.lines().filter(|line| line.starts_with("| `")).collect::<Vec<_>>().join("\n");
        let mut of_tool = flags(&help.stdout);
        // clap's own.
        of_tool.retain(|flag| !["--help", "--version"].contains(&flag.as_str()));
        let of_readme = flags(&table);
        let differ: Vec<_> = of_tool.symmetric_difference(&of_readme).collect();
        if differ.is_empty() {
            Ok(())
        } else {
            Err(Failed::from(format!("in only one of --help and README.md: {differ:?}")))
        }
    })
}

fn flags(text: &str) -> BTreeSet<String> {
    let ends = |c: char| !(c.is_ascii_lowercase() || c == '-');
    text.split(|c: char| c.is_whitespace() || "`,|([;:".contains(c))
        .filter(|word| word.starts_with("--"))
        .map(|word| word.split(ends).next().unwrap_or(word).to_owned())
        .collect()
}

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
