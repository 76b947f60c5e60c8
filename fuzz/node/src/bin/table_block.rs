//! The blocks of RocksDB's tables, as `verify` reads them on a damaged disk.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| nsquorum_storage::inspect::hostile::table_block(data));
