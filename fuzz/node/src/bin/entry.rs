//! Entries of the log, on disk and on the wire.
#![no_main]

use bytes::{Bytes, BytesMut};
use libfuzzer_sys::fuzz_target;
use nsquorum_fuzz_parsers::bounded;
use nsquorum_storage::{ENTRY_HEADER_BYTES, Entry, EntryHeader};

fuzz_target!(|data: &[u8]| {
    let bytes = Bytes::copy_from_slice(data);
    parsed(&bytes);
    if let Some(summed) = summed(data) {
        parsed(&summed);
    }
});

/// What is accepted is kept as it is, and sealed again it is the same but for the reserve.
fn parsed(bytes: &Bytes) {
    let Ok(entry) = bounded(1024, || Entry::parse(bytes.clone())) else {
        return;
    };
    assert_eq!(entry.bytes(), bytes);
    let header = *entry.header();
    assert_eq!(EntryHeader::parse(&header.encode()), Ok(header));
    assert_eq!(entry.payload().len(), header.payload_bytes as usize);
    let mut room = BytesMut::zeroed(ENTRY_HEADER_BYTES);
    room.extend_from_slice(&entry.payload());
    let sealed = Entry::seal(room, header.kind, header.group, header.term, header.index);
    assert_eq!(sealed.header(), &header);
    let moved = entry.clone().reposition(header.group, header.term, header.index);
    assert_eq!(moved, entry, "an entry in its place stays as it is");
}

/// The same bytes with the sums and the length that belong to them: what a faulty node, not a faulty disk, may hand over.
fn summed(data: &[u8]) -> Option<Bytes> {
    let mut bytes = data.to_vec();
    let (header, payload) = bytes.split_at_mut_checked(ENTRY_HEADER_BYTES)?;
    header[32..36].copy_from_slice(&u32::try_from(payload.len()).ok()?.to_le_bytes());
    header[36..40].copy_from_slice(&crc32c::crc32c(payload).to_le_bytes());
    let sum = crc32c::crc32c(&header[..44]);
    header[44..].copy_from_slice(&sum.to_le_bytes());
    Some(bytes.into())
}
