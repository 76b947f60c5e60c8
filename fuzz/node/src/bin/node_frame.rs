//! What nodes say to each other about themselves.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| nsquorum_consensus::hostile::node_frame(data));
