//! What fuzzers call: see [`checks`], which the tests of the rewriter run too, over seeds and what fuzzers once found.

pub mod checks;
pub mod fields;
