//! DESIGN.md names what is there: modules, and fixtures that show the rules which it says they do.
#![cfg(test)]

use std::path::{Path, PathBuf};

/// The cells of all rows of tables whose first cell satisfies a condition.
fn rows(text: &str, is_wanted: impl Fn(&str) -> bool) -> Vec<Vec<String>> {
    let rows = text.lines().filter_map(|line| line.strip_prefix("| ")?.strip_suffix(" |"));
    let cells = rows.map(|row| row.split(" | ").map(str::to_owned).collect::<Vec<_>>());
    cells.filter(|cells| cells.first().is_some_and(|first| is_wanted(first))).collect()
}

/// What stands between backticks.
fn quoted(cell: &str) -> impl Iterator<Item = &str> {
    cell.split('`').skip(1).step_by(2)
}

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn design() -> String {
    std::fs::read_to_string(repository().join("DESIGN.md")).unwrap()
}

#[test]
fn every_rule_has_its_modules_and_fixtures() {
    let rules = rows(&design(), |first| first.parse::<u32>().is_ok());
    assert_eq!(rules.len(), 9);
    for row in rules {
        let [rule, modules, fixtures] = row.as_slice() else { panic!("{row:?}") };
        for module in quoted(modules) {
            assert!(repository().join("analyzer/src").join(module).is_file(), "rule {rule}: {module}");
        }
        for fixture in quoted(fixtures) {
            let sources =
                ["c", "cc", "s", "rs", "go"].map(|end| repository().join(format!("fixtures/{fixture}/main.{end}")));
            let source = sources.iter().find_map(|path| std::fs::read_to_string(path).ok());
            let source = source.unwrap_or_else(|| panic!("rule {rule}: there is no fixture {fixture}"));
            assert!(source.contains(&format!("//# Rule: {rule} ")), "fixture {fixture} does not show rule {rule}");
        }
    }
}

#[test]
fn every_phase_has_its_module() {
    let phases = rows(&design(), |_| true).into_iter().filter(|row| row.iter().any(|cell| cell.contains("/src/")));
    let modules: Vec<_> = phases.flat_map(|row| row.get(1).cloned()).collect();
    assert!(modules.len() > 10, "{modules:?}");
    for module in modules.iter().flat_map(|cell| quoted(cell)).filter(|module| module.starts_with(['a', 'r'])) {
        assert!(repository().join(module).is_file(), "{module}");
    }
}

#[test]
fn it_stays_short() {
    let design = design();
    assert!(design.lines().count() <= 120, "{} lines", design.lines().count());
    let long = design.lines().find(|line| !line.starts_with('|') && line.chars().count() > 120);
    assert_eq!(long, None);
}
