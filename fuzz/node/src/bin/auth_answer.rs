//! The answers of auth servers.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| nsquorum_frontend::hostile::answer(data));
