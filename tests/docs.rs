//! The pages in docs/: what they show is what the commands say.
//!
//! In blocks of `console`, a line that begins with `$ ` is run by bash, in one folder for a page; lines that begin with `>`
//! go on with it, and what follows is its output, standard error included. `...` stands for anything within a line, on a
//! line of its own for any lines. `<!-- needs: PROGRAM.. -->` in a page's first line says what must be installed.

#![cfg(test)]

use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

/// A command and what the page says of its output.
struct Shown {
    line: usize,
    command: String,
    output: Vec<String>,
}

/// The commands of a page, in order.
fn transcript(page: &str) -> Vec<Shown> {
    let mut shown: Vec<Shown> = Vec::new();
    let mut is_inside = false;
    for (text, line) in page.lines().zip(1..) {
        match text {
            "```console" => is_inside = true,
            "```" => is_inside = false,
            _ if !is_inside => {}
            _ => match (text.strip_prefix("$ "), shown.last_mut()) {
                (Some(command), _) => shown.push(Shown { line, command: command.to_owned(), output: Vec::new() }),
                (None, Some(last)) if text.starts_with('>') && last.output.is_empty() => {
                    last.command.push('\n');
                    last.command.push_str(text.strip_prefix("> ").unwrap_or(""));
                }
                (None, Some(last)) => last.output.push(text.to_owned()),
                (None, None) => panic!("line {line}: output without a command"),
            },
        }
    }
    shown
}

/// Whether a line is what a pattern says.
fn is_like(pattern: &str, line: &str) -> bool {
    let mut parts = pattern.split("...");
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = line.strip_prefix(first) else { return false };
    let parts: Vec<&str> = parts.collect();
    let Some((last, middle)) = parts.split_last() else { return rest.is_empty() };
    for part in middle {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}

/// Whether lines are what patterns say.
fn are_like(patterns: &[String], lines: &[&str]) -> bool {
    match (patterns.split_first(), lines.split_first()) {
        (None, None) => true,
        (Some((first, rest)), _) if first == "..." => {
            are_like(rest, lines) || !lines.is_empty() && are_like(patterns, &lines[1..])
        }
        (Some((pattern, patterns)), Some((line, lines))) => is_like(pattern, line) && are_like(patterns, lines),
        _ => false,
    }
}

fn pages() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs");
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    files.filter(|path| path.extension().is_some_and(|end| end == "md")).collect()
}

/// What a page's first line says that it needs, and what is not there.
fn missing<'page>(page: &'page str, path: &str) -> Vec<&'page str> {
    let needs = page.lines().next().and_then(|line| line.strip_prefix("<!-- needs: ")?.strip_suffix(" -->"));
    let is_there = |name: &&str| std::env::split_paths(path).any(|folder| folder.join(name).is_file());
    needs.unwrap_or("").split_whitespace().filter(|name| !is_there(name)).collect()
}

/// The folder in which debhelper looks for the sequence `chestnut`, as dh-chestnut installs it.
fn debhelper(folder: &Path) -> PathBuf {
    let sequences = folder.join("Debian/Debhelper/Sequence");
    std::fs::create_dir_all(&sequences).unwrap();
    std::fs::copy(packaging().join("chestnut.pm"), sequences.join("chestnut.pm")).unwrap();
    folder.to_owned()
}

fn packaging() -> PathBuf {
    std::fs::canonicalize(Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging/debhelper")).unwrap()
}

#[test]
fn pages_show_what_commands_say() {
    let binaries = Path::new(env!("CARGO_BIN_EXE_chestnut")).parent().unwrap();
    if !binaries.join("chestnut-patch").exists() {
        assert!(std::env::var_os("CHESTNUT_REQUIRE_ALL").is_none(), "chestnut-patch is not built");
        eprintln!("skipped: chestnut-patch is not built");
        return;
    }
    let system = std::env::var("PATH").unwrap();
    let path = format!("{}:{}:{system}:/usr/sbin:/sbin", binaries.display(), packaging().display());
    let perl = TempDir::new().unwrap();
    let sequences = debhelper(perl.path());
    let mut number = 0;
    for page in pages() {
        let folder = TempDir::new().unwrap();
        let text = std::fs::read_to_string(&page).unwrap();
        let missing = missing(&text, &path);
        if !missing.is_empty() {
            assert!(std::env::var_os("CHESTNUT_REQUIRE_ALL").is_none(), "not installed: {missing:?}");
            eprintln!("skipped: {}: not installed: {missing:?}", page.display());
            continue;
        }
        for Shown { line, command, output } in transcript(&text) {
            let mut bash = Command::new("bash");
            bash.args(["-c", &format!("exec 2>&1; {command}")]).current_dir(&folder).env("PATH", &path);
            bash.env("PERL5LIB", &sequences);
            let found = bash.env("NO_COLOR", "1").output().unwrap();
            let text = String::from_utf8_lossy(&found.stdout).into_owned();
            let lines: Vec<&str> = text.lines().collect();
            let place = format!("{}:{line}", page.display());
            assert!(are_like(&output, &lines), "{place}: {command}\nexpected:\n{}\nfound:\n{text}", output.join("\n"));
            number += 1;
        }
    }
    assert!(number > 10, "{number} commands");
}

#[test]
fn patterns() {
    assert!(is_like("a ... c", "a b b c") && is_like("...", "") && is_like("a", "a") && !is_like("a", "ab"));
    assert!(!is_like("a...b...c", "a c b") && is_like("a...b...c", "a b b c"));
    let lines = |text: &str| text.split('|').map(str::to_owned).collect::<Vec<_>>();
    assert!(are_like(&lines("a|...|d"), &["a", "b", "c", "d"]) && are_like(&lines("a|...|d"), &["a", "d"]));
    assert!(!are_like(&lines("a|d"), &["a", "b", "d"]) && !are_like(&lines("a"), &["a", "b"]));
}
