//! Snappy's framing format.
#![no_main]

use libfuzzer_sys::fuzz_target;
use nsquorum_fuzz_parsers::decompress;
use nsquorum_protocol::Compression;

fuzz_target!(|data: &[u8]| decompress(Compression::Snappy, data));
