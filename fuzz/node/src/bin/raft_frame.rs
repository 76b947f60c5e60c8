//! What the replicas of a group say to each other.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| nsquorum_consensus::hostile::raft_frame(data));
