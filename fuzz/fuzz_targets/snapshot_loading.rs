#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| raftkv_fuzz::targets::snapshot_loading::run(input));
