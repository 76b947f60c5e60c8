//! The checkpoint of the metadata group, and what its entries do to it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use nsquorum_consensus::OfflineMetadata;
use nsquorum_storage::inspect::MetadataReplay as _;
use nsquorum_storage::{Entry, EntryKind};
use nsquorum_topic::{GroupId, LogIndex, Term};

// `u16 length` (little-endian) and a checkpoint, then entries of the log: `u8 kind, u16 length`, payload.
fuzz_target!(|data: &[u8]| {
    let Some((checkpoint, mut rest)) = length_and_bytes(data) else {
        return;
    };
    let mut machine = OfflineMetadata::default();
    if !checkpoint.is_empty() && machine.restore(checkpoint).is_err() {
        return;
    }
    comes_back(&machine);
    let mut index = 1;
    while let Some((&kind, entry)) = rest.split_first() {
        let Some((payload, behind)) = length_and_bytes(entry) else {
            return;
        };
        rest = behind;
        let kind = if kind % 4 == 0 {
            EntryKind::Membership
        } else {
            EntryKind::Metadata
        };
        let entry = Entry::copy_of(payload, kind, GroupId::METADATA, Term::new(1), LogIndex::new(index));
        index += 1;
        if machine.apply(&entry).is_err() {
            return;
        }
        comes_back(&machine);
    }
});

/// The state as it would be stored is the same state.
fn comes_back(machine: &OfflineMetadata) {
    let mut again = OfflineMetadata::default();
    again.restore(&machine.encode()).expect("an own encoding");
    assert_eq!(again.encode(), machine.encode());
    assert_eq!(again.topics().len(), machine.topics().len());
}

fn length_and_bytes(data: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = data.split_first_chunk()?;
    rest.split_at_checked(u16::from_le_bytes(*length).into())
}
