//! What routers and topic leaders say to each other.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| nsquorum_broker::hostile::frames(data));
