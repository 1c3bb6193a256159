//! `chestnut report`: what the page says is compared with the policy, and a browser shows it.
//!
//! The program has a symbol that would be markup, if the page let it.

#![cfg(test)]

mod programs;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use programs::{Scratch, read, text};
use serde_json::Value;

/// A name that tries to leave its place in the page.
const HOSTILE: &str = "</code><script>document.title='taken'</script><img src=//host/x onerror=alert(1)>&amp;";

fn chestnut(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_chestnut")).args(arguments).output().unwrap()
}

/// A program whose only call of its own is made by a function of the hostile name.
fn hostile(scratch: &Scratch) -> PathBuf {
    let (source, path) = (scratch.path("hostile.s"), scratch.path("<hostile>"));
    let code = format!(
        "\t.globl _start\n_start:\n\tcall \"{HOSTILE}\"\n\tmov $60,%eax\n\tsyscall\n\thlt\n\
         \t.type \"{HOSTILE}\", @function\n\"{HOSTILE}\":\n\tmov $57,%eax\n\tsyscall\n\tret\n\
         \t.size \"{HOSTILE}\", .-\"{HOSTILE}\"\n"
    );
    std::fs::write(&source, code).unwrap();
    let flags = ["-nostdlib", "-nostartfiles", "-static", "-o"];
    let built = Command::new("gcc").args(flags).args([&path, &source]).output().unwrap();
    assert!(built.status.success(), "{}", text(&built.stderr));
    path
}

fn page(program: &Path, more: &[&str]) -> String {
    let output = chestnut(&[&["report", program.to_str().unwrap()], more].concat());
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    text(&output.stdout)
}

#[test]
fn a_page_is_complete_in_itself_and_believes_nothing() {
    let scratch = Scratch::new();
    let page = page(&hostile(&scratch), &[]);
    let escaped = "&lt;/code&gt;&lt;script&gt;document.title=&#39;taken&#39;";
    assert!(page.contains(escaped), "{page}");
    assert!(!page.contains("<script") && !page.contains("<img") && !page.contains("onerror=alert(1)>"), "{page}");
    for outside in ["http:", "https:", "src=\"", "<link", "@import", "url("] {
        assert!(!page.contains(outside), "{outside}");
    }
    // Every reference leads to a place in the page.
    for reference in page.split("href=\"").skip(1).map(|rest| rest.split('"').next().unwrap()) {
        let id = reference.strip_prefix('#').unwrap_or_else(|| panic!("{reference}"));
        assert!(page.contains(&format!("id=\"{id}\"")), "{reference}");
    }
}

#[test]
fn the_page_says_what_the_policy_says() {
    let scratch = Scratch::new();
    let path = scratch.path("page.html");
    let services = ["--nss", "files"];
    let written = chestnut(&[&["report", "/bin/true", "-o", path.to_str().unwrap()], &services[..]].concat());
    assert!(written.status.success() && written.stdout.is_empty() && written.stderr.is_empty(), "{written:?}");
    let page = text(&read(&path));
    let policy = chestnut(&[&["analyze", "--json", "/bin/true"], &services[..]].concat());
    let policy: Value = serde_json::from_slice(&policy.stdout).unwrap();
    let allowed = policy["allowed"].as_object().unwrap();
    for call in allowed.values() {
        let name = call["name"].as_str().unwrap();
        assert!(page.contains(&format!("<code class=\"allowed\">{name}</code>")), "{name}");
    }
    assert!(page.contains(&format!("{} system calls allowed", allowed.len())));
    for file in policy["libraries"].as_array().unwrap() {
        assert!(page.contains(file["sha256"].as_str().unwrap()), "{file}");
    }
    // A policy stands for its program.
    let stored = scratch.path("policy.json");
    std::fs::write(&stored, policy.to_string()).unwrap();
    assert_eq!(self::page(&stored, &[]), page);
}

/// Each vulnerability has the fate that its calls have: fork is allowed, ptrace is not.
#[test]
fn vulnerabilities_of_the_user_count_too() {
    let scratch = Scratch::new();
    let table = scratch.path("more.tsv");
    std::fs::write(&table, "MINE-1\tptrace\tme\nMINE-2\tfork ptrace\tme\nMINE-3\tfork\t<b>me</b>\n").unwrap();
    let page = page(&hostile(&scratch), &["--vulnerabilities", table.to_str().unwrap()]);
    let row = |name: &str| page.lines().find(|line| line.contains(name)).unwrap().to_owned();
    assert!(row("MINE-1").contains("mitigated"), "{}", row("MINE-1"));
    assert!(row("MINE-2").contains("partly"), "{}", row("MINE-2"));
    assert!(row("MINE-3").contains("can be reached") && row("MINE-3").contains("&lt;b&gt;"), "{}", row("MINE-3"));
    std::fs::write(&table, "MINE-1\tnocall\tme\n").unwrap();
    let wrong = chestnut(&["report", "/bin/true", "--vulnerabilities", table.to_str().unwrap()]);
    assert_eq!(wrong.status.code(), Some(2));
    assert!(text(&wrong.stderr).contains("line 1: there is no system call \"nocall\""), "{wrong:?}");
}

#[test]
fn the_table_has_a_line_for_each_program() {
    let arguments = ["report", "--table", "--json", "--nss", "files", "/bin/true", "/bin/cat", "/etc/passwd"];
    let output = chestnut(&arguments);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let found: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(found["refused"][0]["path"], "/etc/passwd");
    for program in found["programs"].as_array().unwrap() {
        let path = program["path"].as_str().unwrap();
        let policy = chestnut(&["analyze", "--json", "--nss", "files", path]);
        let policy: Value = serde_json::from_slice(&policy.stdout).unwrap();
        let is_allowed = |number: &str| policy["allowed"].get(number).is_some();
        let blocked = found["known"].as_u64().unwrap() - policy["allowed"].as_object().unwrap().len() as u64;
        assert_eq!(program["blocked"], blocked, "{path}");
        assert_eq!(program["exec_blocked"], !is_allowed("59") && !is_allowed("322"), "{path}");
        assert_eq!(program["mprotect_blocked"], !is_allowed("10") && !is_allowed("329"), "{path}");
    }
    let lines = text(&chestnut(&["report", "--table", "--nss", "files", "/bin/true", "/bin/cat"]).stdout);
    assert_eq!(lines.lines().count(), 4, "{lines}");
    assert_eq!(chestnut(&["report", "/bin/true", "/bin/cat"]).status.code(), Some(2));
}

/// Chromium shows the page; what it makes of it has no more elements than were meant.
#[test]
fn a_browser_shows_it() {
    let browser = ["/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"];
    let Some(browser) = browser.iter().find(|path| Path::new(path).exists()) else {
        assert!(std::env::var_os("CHESTNUT_REQUIRE_ALL").is_none(), "chromium is not installed");
        eprintln!("skipped: chromium is not installed");
        return;
    };
    let scratch = Scratch::new();
    let path = scratch.path("page.html");
    std::fs::write(&path, page(&hostile(&scratch), &[])).unwrap();
    let picture = scratch.path("page.png");
    let run = |what: &str| {
        let folder = format!("--user-data-dir={}", scratch.path("browser").display());
        let output = Command::new("timeout")
            .args(["60", browser, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", &folder])
            .args(["--window-size=1000,3000", what, &format!("file://{}", path.display())])
            .env("HOME", scratch.path("home"))
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", text(&output.stderr));
        text(&output.stdout)
    };
    let shown = run("--dump-dom");
    assert!(shown.contains("<title>System calls of ") && !shown.contains("<title>taken"), "{shown}");
    assert!(!shown.contains("<script") && !shown.contains("<img"), "{shown}");
    for id in ["dangerous", "groups", "files", "unknown", "vulnerabilities", "filter", "identity"] {
        assert!(shown.contains(&format!("<section id=\"{id}\">")), "{id}");
    }
    run(&format!("--screenshot={}", picture.display()));
    let picture = read(&picture);
    assert!(picture.starts_with(b"\x89PNG") && picture.len() > 20_000, "{} bytes", picture.len());
}
