//! See `checks::unpatch_and_inspect`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| chestnut_fuzz::checks::unpatch_and_inspect(input));
