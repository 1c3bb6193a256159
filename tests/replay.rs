//! What fuzzers look for (`tests/robust/fuzz`), without a fuzzer: the same checks over the seeds, the inputs that
//! fuzzers once failed at (`fuzz/regressions`), and edits of valid files that a fixed sequence of numbers chooses.

#![cfg(test)]

#[path = "../fuzz/src/checks.rs"]
#[allow(unreachable_pub, clippy::cast_possible_truncation, reason = "also a crate of its own, for machines of 64 bits")]
mod checks;
#[path = "../fuzz/src/fields.rs"]
#[allow(unreachable_pub, clippy::cast_possible_truncation, reason = "as above")]
mod fields;

use std::path::Path;

/// What is done with an input.
type Check = fn(&[u8]);

/// The checks by the names of their targets.
const TARGETS: [(&str, Check); 8] = [
    ("image", checks::image),
    ("summary", checks::summary),
    ("policy", checks::policy),
    ("notes", checks::notes),
    ("rewrite", checks::rewrite_and_back),
    ("unpatch", checks::unpatch_and_inspect),
    ("fields", checks::fields),
    ("bind", checks::bind),
];

/// Every file of a folder, if it is there.
fn files(folder: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz").join(folder);
    let entries = std::fs::read_dir(folder).into_iter().flatten();
    entries.map(|entry| std::fs::read(entry.unwrap().path()).unwrap()).collect()
}

#[test]
fn seeds_and_what_was_found() {
    let mut tried = 0;
    for (target, check) in TARGETS {
        let own = [format!("corpus/{target}"), format!("regressions/{target}")];
        for input in own.iter().flat_map(|folder| files(folder)).chain(files("seeds")) {
            check(&input);
            tried += 1;
        }
    }
    assert!(tried > 100, "{tried}");
}

#[test]
fn edits_by_chance() {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    for round in 0..240_u8 {
        // A seed, then up to five edits.
        let input: Vec<u8> = [round].into_iter().chain((0..=round % 5).flat_map(|_| next())).collect();
        checks::fields(&input);
        checks::bind(&input);
        checks::unpatch_and_inspect(&input);
    }
}
