#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| raftkv_fuzz::targets::http_requests::run(input));
