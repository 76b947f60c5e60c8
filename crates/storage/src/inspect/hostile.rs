//! What holds for any bytes that a damaged file of the database may hold, its sums being right; asked by tests, and by the fuzzer
//! (`fuzz/`), for which alone it is public.

use super::manifest::{Edit, Version};
use super::table::{IndexForm, block_entries, index_handles};

/// The records of a manifest, each behind its length in two bytes (little-endian). Whatever they say, they add up to a version.
pub fn manifest(mut records: &[u8]) {
    let mut version = Version::default();
    while let Some((length, rest)) = records.split_first_chunk() {
        let Some((record, rest)) = rest.split_at_checked(u16::from_le_bytes(*length).into()) else {
            return;
        };
        records = rest;
        if let Ok(edit) = Edit::parse(record) {
            edit.apply(&mut version);
        }
        let _ = version.first_log();
        for family in version.families.values() {
            assert!(
                family
                    .live_blobs()
                    .all(|(number, _)| family.blobs.contains_key(&number))
            );
        }
    }
}

/// A block of a table: as one of entries, and as an index in each of its forms. No more comes out than is in it, but for what keys share.
pub fn table_block(block: &[u8]) {
    if let Some(entries) = block_entries(block) {
        assert!(entries.len() <= block.len() / 3, "an entry takes three bytes");
        let values: usize = entries.iter().map(|(_, value)| value.len()).sum();
        assert!(values <= block.len(), "values are not shared");
    }
    for kind in 0..=3 {
        for delta_values in [false, true] {
            if let Some(handles) = index_handles(block, IndexForm { delta_values, kind }) {
                assert!(handles.len() <= block.len() / 3, "a handle takes three bytes");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::manifest::BlobFile;
    use super::*;

    fn found(corpus: &str) -> Vec<Vec<u8>> {
        let path = format!("{}/../../fuzz/corpus/{corpus}", env!("CARGO_MANIFEST_DIR"));
        let files = std::fs::read_dir(path).expect("the corpus is there");
        let inputs = files.map(|file| std::fs::read(file.expect("listed").path()).expect("readable"));
        inputs.collect()
    }

    #[test]
    fn what_the_fuzzer_found_is_read_or_refused() {
        let (manifests, blocks) = (found("manifest"), found("table_block"));
        assert!(manifests.len() > 10 && blocks.len() > 10, "the corpus is missing");
        manifests.iter().for_each(|records| manifest(records));
        blocks.iter().for_each(|block| table_block(block));
    }

    #[test]
    fn garbage_beyond_all_counting_is_garbage() {
        let mut version = Version::default();
        let blob = BlobFile {
            records: 3,
            record_bytes: 300,
            garbage_records: 0,
        };
        version.families.entry(0).or_default().blobs.insert(5, blob);
        // Twice: blob 5 has 2^64 - 1 more records of garbage, in 0 bytes.
        let mut record = Vec::new();
        for _ in 0..2 {
            record.extend([0x91, 0x03, 5]);
            record.extend([0xff; 9]);
            record.extend([1, 0, 0]);
        }
        let edit = Edit::parse(&record).expect("two fields");
        edit.apply(&mut version);
        assert_eq!(version.families[&0].blobs[&5].garbage_records, u64::MAX);
    }
}
