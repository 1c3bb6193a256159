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

/// Each file asks for as many calls as the policy shows behind it, and makes as many as lie in it.
#[test]
fn the_picture_counts_what_the_policy_shows() {
    let services = ["--nss", "files"];
    let policy = chestnut(&[&["analyze", "--json", "/usr/bin/sort"], &services[..]].concat());
    let policy: Value = serde_json::from_slice(&policy.stdout).unwrap();
    let page = page(Path::new("/usr/bin/sort"), &services);
    let file = |place: &Value| {
        let path = place["file"].as_str()?;
        Some(Path::new(path).file_name()?.to_str()?.to_owned())
    };
    let mut asked = std::collections::BTreeMap::<String, usize>::new();
    for call in policy["allowed"].as_object().unwrap().values() {
        let evidence = &call["evidence"];
        let Some(maker) = file(&evidence["site"]) else { continue };
        let way = evidence["path"].as_array().unwrap();
        let asker = way.iter().rev().filter_map(file).find(|step| *step != maker).unwrap_or(maker);
        *asked.entry(asker).or_default() += 1;
    }
    assert!(asked.len() > 1 && asked.contains_key("sort"), "{asked:?}");
    for (name, number) in asked {
        let row = page.lines().find(|line| line.contains(&format!("<tr><th>{name}</th>"))).unwrap();
        assert!(row.contains(&format!("\"></span> {number}</td><td>")), "{name} {number}: {row}");
    }
}

/// Chromium, if it is there: what it prints of an address, in a window of some size.
struct Browser {
    program: &'static str,
    scratch: Scratch,
}

impl Browser {
    fn find() -> Option<Self> {
        let known = ["/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"];
        let program = known.into_iter().find(|path| Path::new(path).exists());
        if program.is_none() {
            assert!(std::env::var_os("CHESTNUT_REQUIRE_ALL").is_none(), "chromium is not installed");
            eprintln!("skipped: chromium is not installed");
        }
        Some(Self { program: program?, scratch: Scratch::new() })
    }

    fn shows(&self, page: &str, width: u32, what: &[&str]) -> String {
        let path = self.scratch.path("page.html");
        std::fs::write(&path, page).unwrap();
        let folder = format!("--user-data-dir={}", self.scratch.path("browser").display());
        let output = Command::new("timeout")
            .args([
                "60",
                self.program,
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-dev-shm-usage",
                &folder,
            ])
            .arg(format!("--window-size={width},3000"))
            .args(what)
            .arg(format!("file://{}", path.display()))
            .env("HOME", self.scratch.path("home"))
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", text(&output.stderr));
        text(&output.stdout)
    }
}

/// What Chromium makes of the page has no more elements than were meant.
#[test]
fn a_browser_shows_it() {
    let Some(browser) = Browser::find() else { return };
    let scratch = Scratch::new();
    let page = page(&hostile(&scratch), &[]);
    let picture = scratch.path("page.png");
    let shown = browser.shows(&page, 1000, &["--dump-dom"]);
    assert!(shown.contains("<title>System calls of ") && !shown.contains("<title>taken"), "{shown}");
    assert!(!shown.contains("<script") && !shown.contains("<img"), "{shown}");
    for id in ["dangerous", "groups", "files", "unknown", "vulnerabilities", "filter", "identity"] {
        assert!(shown.contains(&format!("<section id=\"{id}\">")), "{id}");
    }
    browser.shows(&page, 1000, &[&format!("--screenshot={}", picture.display())]);
    let picture = read(&picture);
    assert!(picture.starts_with(b"\x89PNG") && picture.len() > 20_000, "{} bytes", picture.len());
}

/// On a wide screen and on one in a pocket nothing reaches beyond the edge, and no name of a call is broken. Browsers have
/// a least width for windows and none for frames; the script that measures is this test's, in a copy that lets it run.
#[test]
fn it_fits_on_every_screen() {
    let Some(browser) = Browser::find() else { return };
    let page = page(Path::new("/usr/bin/sort"), &["--nss", "files"]);
    let policy = page.find("<meta http-equiv=\"Content-Security-Policy\"").unwrap();
    let end = policy + page[policy..].find('\n').unwrap();
    let measure = "<script>const root = document.documentElement;\
                   const names = [...document.querySelectorAll('td[data-head=Call] code')];\
                   const broken = names.filter(name => name.getClientRects().length > 1);\
                   parent.document.title = [innerWidth, root.scrollWidth, names.length, broken.length].join(' ');</script>";
    let measured = format!("{}{}", &page[..policy], &page[end..]).replace("</body>", &format!("{measure}</body>"));
    for width in [360, 700, 1280] {
        let attribute = measured.replace('&', "&amp;").replace('"', "&quot;");
        let frame =
            format!("<!DOCTYPE html><iframe style=\"border:0;width:{width}px\" srcdoc=\"{attribute}\"></iframe>");
        let shown = browser.shows(&frame, 1400, &["--dump-dom"]);
        let title = shown.split("<title>").nth(1).unwrap_or_else(|| panic!("nothing was measured: {shown}"));
        let title = title.split('<').next().unwrap();
        let numbers: Vec<u32> = title.split(' ').map(|number| number.parse().unwrap()).collect();
        let [window, content, names, broken] = numbers[..] else { panic!("{title}") };
        assert_eq!(window, width);
        assert!(content <= window, "{content} of {window}");
        assert!(names > 40 && broken == 0, "{broken} of {names} names are broken at {width}");
    }
}
