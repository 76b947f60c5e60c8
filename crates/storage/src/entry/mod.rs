//! One Raft entry as bytes: [header][payload], the same bytes in the database and on the wire.
//!
//! An entry is encoded once, where its payload is made, and never again: the header's room is reserved in front of the payload and
//! patched when Raft has assigned term and index. A generic encoding (protobuf, serde) would copy every body at each hop.

mod header;

use bytes::{Bytes, BytesMut};
use nsquorum_topic::{GroupId, LogIndex, Term};

pub use header::{ENTRY_HEADER_BYTES, EntryError, EntryHeader, EntryKind};

use crate::log::LogId;

/// A whole encoded entry, checked. A clone shares the bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    header: EntryHeader,
    bytes: Bytes,
}

impl Entry {
    /// Makes an entry of a buffer that holds [`ENTRY_HEADER_BYTES`] bytes of room (of any content) followed by the payload.
    /// The header is written into the room; nothing is copied.
    ///
    /// # Panics
    /// If the room is missing or the payload does not fit `u32`: commands are bounded far below that where they enter.
    pub fn seal(mut buf: BytesMut, kind: EntryKind, group: GroupId, term: Term, index: LogIndex) -> Self {
        assert!(
            buf.len() >= ENTRY_HEADER_BYTES,
            "an entry's buffer starts with room for its header"
        );
        let payload = &buf[ENTRY_HEADER_BYTES..];
        let payload_bytes =
            u32::try_from(payload.len()).expect("commands are bounded far below 4 GiB where they enter");
        let header = EntryHeader {
            kind,
            group,
            term,
            index,
            payload_bytes,
            payload_crc: crc32c::crc32c(payload),
        };
        buf[..ENTRY_HEADER_BYTES].copy_from_slice(&header.encode());
        Self {
            header,
            bytes: buf.freeze(),
        }
    }

    /// Makes an entry of a payload that is elsewhere; copies it. For small payloads (blank, membership).
    pub fn copy_of(payload: &[u8], kind: EntryKind, group: GroupId, term: Term, index: LogIndex) -> Self {
        let mut buf = BytesMut::with_capacity(ENTRY_HEADER_BYTES + payload.len());
        buf.resize(ENTRY_HEADER_BYTES, 0);
        buf.extend_from_slice(payload);
        Self::seal(buf, kind, group, term, index)
    }

    /// Reads and checks an entry that fills `bytes` exactly: magic, version, header CRC, length, payload CRC.
    ///
    /// # Errors
    /// [`EntryError`]; see [`EntryError::is_unsupported`] for what is damage and what is only newer than this release.
    pub fn parse(bytes: Bytes) -> Result<Self, EntryError> {
        let header = EntryHeader::parse(&bytes)?;
        let payload = &bytes[ENTRY_HEADER_BYTES..];
        if payload.len() as u64 != u64::from(header.payload_bytes) {
            return Err(EntryError::Length {
                expected: header.payload_bytes,
                found: payload.len() as u64,
            });
        }
        if crc32c::crc32c(payload) != header.payload_crc {
            return Err(EntryError::PayloadChecksum);
        }
        Ok(Self { header, bytes })
    }

    /// Reads and checks the header alone, at the start of `bytes`.
    ///
    /// # Errors
    /// As [`EntryHeader::parse`].
    pub fn parse_header(bytes: &[u8]) -> Result<EntryHeader, EntryError> {
        EntryHeader::parse(bytes)
    }

    /// The same payload at another place: Raft assigns the position after the payload was built, and its own payloads know no group.
    /// The payload's CRC is kept, not made anew. In place if nothing else refers to the bytes, otherwise with one copy.
    pub fn reposition(self, group: GroupId, term: Term, index: LogIndex) -> Self {
        let header = EntryHeader {
            group,
            term,
            index,
            ..self.header
        };
        if header == self.header {
            return self;
        }
        let mut buf = BytesMut::from(self.bytes);
        buf[..ENTRY_HEADER_BYTES].copy_from_slice(&header.encode());
        Self {
            header,
            bytes: buf.freeze(),
        }
    }

    /// The parsed header.
    pub const fn header(&self) -> &EntryHeader {
        &self.header
    }

    /// Term and index.
    pub const fn log_id(&self) -> LogId {
        LogId {
            term: self.header.term,
            index: self.header.index,
        }
    }

    /// The payload; shares the entry's memory.
    pub fn payload(&self) -> Bytes {
        self.bytes.slice(ENTRY_HEADER_BYTES..)
    }

    /// Header and payload: the value in the database and the frame on the wire.
    pub const fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// Bytes of header and payload.
    pub fn encoded_len(&self) -> usize {
        self.bytes.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(payload: &[u8]) -> Entry {
        Entry::copy_of(
            payload,
            EntryKind::TopicBatch,
            GroupId::new(7),
            Term::new(3),
            LogIndex::new(41),
        )
    }

    #[test]
    fn a_sealed_entry_is_parsed_back() {
        let sealed = entry(b"body");
        let parsed = Entry::parse(sealed.bytes().clone()).unwrap();
        assert_eq!(parsed, sealed);
        assert_eq!(parsed.payload(), &b"body"[..]);
        assert_eq!(parsed.encoded_len(), ENTRY_HEADER_BYTES + 4);
        assert_eq!(
            parsed.log_id(),
            LogId {
                term: Term::new(3),
                index: LogIndex::new(41)
            }
        );
        assert_eq!(parsed.header().group, GroupId::new(7));
        assert_eq!(parsed.header().kind, EntryKind::TopicBatch);
    }

    #[test]
    fn the_layout_is_fixed() {
        let bytes = entry(b"body").bytes().to_vec();
        let mut expected = b"NSQE\x01\x02\0\0".to_vec();
        for number in [7u64, 3, 41] {
            expected.extend(number.to_le_bytes());
        }
        expected.extend(4u32.to_le_bytes());
        expected.extend(crc32c::crc32c(b"body").to_le_bytes());
        expected.extend([0; 4]);
        let crc = crc32c::crc32c(&expected);
        expected.extend(crc.to_le_bytes());
        expected.extend(b"body");
        assert_eq!(bytes, expected);
    }

    #[test]
    fn every_flipped_bit_is_found() {
        let good = entry(b"some payload").bytes().to_vec();
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            let found = Entry::parse(bad.into()).expect_err("a flipped bit was not found");
            assert!(
                !found.is_unsupported(),
                "bit {bit}: damage taken for a newer format: {found}"
            );
        }
    }

    #[test]
    fn every_truncation_is_found() {
        let good = entry(b"some payload").bytes().clone();
        for len in 0..good.len() {
            assert!(Entry::parse(good.slice(..len)).is_err(), "cut to {len} bytes");
        }
        let mut longer = good.to_vec();
        longer.push(0);
        assert!(matches!(Entry::parse(longer.into()), Err(EntryError::Length { .. })));
    }

    #[test]
    fn a_newer_format_is_not_called_damage() {
        for (at, expected) in [
            (4, EntryError::UnknownVersion(9)),
            (5, EntryError::UnknownKind(9)),
            (6, EntryError::UnknownFlags(9)),
        ] {
            let mut bytes = entry(b"x").bytes().to_vec();
            bytes[at] = 9;
            let crc = crc32c::crc32c(&bytes[..44]);
            bytes[44..48].copy_from_slice(&crc.to_le_bytes());
            let found = Entry::parse(bytes.into()).unwrap_err();
            assert_eq!(found, expected);
            assert!(found.is_unsupported());
        }
    }

    #[test]
    fn repositioning_in_place_keeps_the_payload_and_its_memory() {
        let first = entry(b"payload");
        let at = first.bytes().as_ptr();
        let moved = first.reposition(GroupId::new(1), Term::new(2), LogIndex::new(3));
        assert_eq!(moved.bytes().as_ptr(), at, "an unshared entry must not be copied");
        assert_eq!(Entry::parse(moved.bytes().clone()).unwrap(), moved);
        assert_eq!(moved.payload(), &b"payload"[..]);
        assert_eq!(
            moved.log_id(),
            LogId {
                term: Term::new(2),
                index: LogIndex::new(3)
            }
        );
    }

    #[test]
    fn repositioning_a_shared_entry_leaves_the_other_alone() {
        let first = entry(b"payload");
        let moved = first
            .clone()
            .reposition(GroupId::new(1), Term::new(2), LogIndex::new(3));
        assert_eq!(first, entry(b"payload"));
        assert_eq!(Entry::parse(moved.bytes().clone()).unwrap(), moved);
    }
}
