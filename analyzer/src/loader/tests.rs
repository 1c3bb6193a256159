//! The closure against ldd(1), roots that are folders, and files that are refused.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::*;

/// What ldd prints as found, as canonical paths.
fn ldd(program: &Path) -> BTreeSet<PathBuf> {
    let output = Command::new("ldd").arg(program).output().expect("ldd runs");
    let text = String::from_utf8(output.stdout).unwrap();
    let paths = text.split_whitespace().filter(|word| word.starts_with('/'));
    paths.map(|path| fs::canonicalize(path).unwrap()).collect()
}

fn loaded(set: &LoadedSet) -> BTreeSet<PathBuf> {
    set.files().iter().skip(1).map(|file| file.host_path().canonicalize().unwrap()).collect()
}

#[test]
fn closure_equals_that_of_ldd() {
    let mut compared = 0;
    for program in
        ["/bin/ls", "/usr/bin/ffmpeg", "/usr/bin/redis-server", "/usr/bin/gdb", "/usr/bin/python3", "/bin/bash"]
    {
        let program = Path::new(program);
        if !program.exists() {
            println!("skipped: no {}", program.display());
            continue;
        }
        let start = std::time::Instant::now();
        let set = load_closure(program, &LoadOptions::default()).unwrap();
        println!("{}: {} files in {:?}", program.display(), set.files().len(), start.elapsed());
        assert_eq!(loaded(&set), ldd(program), "{}", program.display());
        assert!(set.relative_search_paths().is_empty());
        compared += 1;
    }
    assert!(compared > 0);
}
