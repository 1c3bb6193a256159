//! See `checks::rewrite_and_back`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| chestnut_fuzz::checks::rewrite_and_back(input));
