//! See `checks::notes`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| chestnut_fuzz::checks::notes(input));
