//! The messages of a peer link, and the frames in them.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| nsquorum_links::hostile::messages(data));
