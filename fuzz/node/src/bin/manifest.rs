//! The records of RocksDB's manifest, as `verify` reads them on a damaged disk.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| nsquorum_storage::inspect::hostile::manifest(data));
