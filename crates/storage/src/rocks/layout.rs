//! Keys and values in the database. docs/format.md describes the same bytes.
//!
//! Three column families. `log` and `rows` have the same keys, group and index, big-endian, so that a group's log is one range in
//! order. `state` has one-byte kinds in front, so that listing the groups is one short range.
//!
//! | family | key | value |
//! |---|---|---|
//! | `log` | group u64, index u64 | the whole entry (it has its own checksums) |
//! | `rows` | group u64, index u64 | term u64, kind u8, encoded bytes u32 |
//! | `state` | 0, group | format version u8: the group exists |
//! | `state` | 1, group | vote: term u64, node u64, committed u8 |
//! | `state` | 2, group | commit mark: term u64, index u64 |
//! | `state` | 3, group | last purged: term u64, index u64 |
//! | `state` | 4, group | checkpoint slots: 3 x (present u8, content u64, chunks u32, has log id u8, term u64, index u64) |
//! | `state` | 5, group, content u64, chunk u32 | checkpoint content: chunk 0 the membership, the others the state |
//!
//! Numbers in keys are big-endian, in values little-endian. Every value except entries ends with a CRC32C of key and value: the
//! database checks its blocks, but a value that was written to the wrong key, or damaged before it got there, would pass.

use nsquorum_topic::{GroupId, LogIndex, NodeId, Term};

use crate::entry::{EntryError, EntryKind};
use crate::log::{EntryRow, LogId, Vote};

/// Column family of entries.
pub(crate) const LOG: &str = "log";
/// Column family of rows.
pub(crate) const ROWS: &str = "rows";
/// Column family of everything else.
pub(crate) const STATE: &str = "state";

/// Largest chunk of a checkpoint's state: a checkpoint must not hold up other groups' appends by more than this.
pub(crate) const CHUNK_BYTES: usize = 1 << 20;

const MARKER_VERSION: u8 = 1;
const CRC_BYTES: usize = 4;

/// The key of an entry and of its row.
pub(crate) fn entry_key(group: GroupId, index: LogIndex) -> [u8; 16] {
    let mut key = [0; 16];
    key[..8].copy_from_slice(&group.get().to_be_bytes());
    key[8..].copy_from_slice(&index.get().to_be_bytes());
    key
}

/// Group and index of a key of `log` or `rows`.
pub(crate) fn parse_entry_key(key: &[u8]) -> Option<(GroupId, LogIndex)> {
    let (group, index) = key.split_first_chunk::<8>()?;
    let index = <[u8; 8]>::try_from(index).ok()?;
    Some((
        GroupId::new(u64::from_be_bytes(*group)),
        LogIndex::new(u64::from_be_bytes(index)),
    ))
}

/// A key of the `state` family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StateKey {
    Marker(GroupId),
    Vote(GroupId),
    Committed(GroupId),
    Purged(GroupId),
    Slots(GroupId),
    Chunk { group: GroupId, content: u64, chunk: u32 },
}

impl StateKey {
    pub(crate) fn encode(self) -> Vec<u8> {
        let (kind, group) = match self {
            Self::Marker(group) => (0, group),
            Self::Vote(group) => (1, group),
            Self::Committed(group) => (2, group),
            Self::Purged(group) => (3, group),
            Self::Slots(group) => (4, group),
            Self::Chunk { group, .. } => (5, group),
        };
        let mut key = Vec::with_capacity(21);
        key.push(kind);
        key.extend(group.get().to_be_bytes());
        if let Self::Chunk { content, chunk, .. } = self {
            key.extend(content.to_be_bytes());
            key.extend(chunk.to_be_bytes());
        }
        key
    }

    pub(crate) fn parse(key: &[u8]) -> Option<Self> {
        let (&kind, rest) = key.split_first()?;
        let (group, rest) = rest.split_first_chunk::<8>()?;
        let group = GroupId::new(u64::from_be_bytes(*group));
        Some(match (kind, rest.len()) {
            (0, 0) => Self::Marker(group),
            (1, 0) => Self::Vote(group),
            (2, 0) => Self::Committed(group),
            (3, 0) => Self::Purged(group),
            (4, 0) => Self::Slots(group),
            (5, 12) => {
                let (content, chunk) = rest.split_first_chunk::<8>()?;
                let chunk = <[u8; 4]>::try_from(chunk).ok()?;
                Self::Chunk {
                    group,
                    content: u64::from_be_bytes(*content),
                    chunk: u32::from_be_bytes(chunk),
                }
            }
            _ => return None,
        })
    }

    /// All chunks of a group lie in this range.
    pub(crate) fn chunks_of(group: GroupId) -> (Vec<u8>, Vec<u8>) {
        let first = Self::Chunk {
            group,
            content: 0,
            chunk: 0,
        }
        .encode();
        let last = Self::Chunk {
            group,
            content: u64::MAX,
            chunk: u32::MAX,
        }
        .encode();
        (first, last)
    }

    /// All chunks of one content lie in this range.
    pub(crate) fn chunks_of_content(group: GroupId, content: u64) -> (Vec<u8>, Vec<u8>) {
        let first = Self::Chunk {
            group,
            content,
            chunk: 0,
        }
        .encode();
        let last = Self::Chunk {
            group,
            content,
            chunk: u32::MAX,
        }
        .encode();
        (first, last)
    }
}

/// Appends the checksum of key and value.
pub(crate) fn seal(key: &[u8], mut value: Vec<u8>) -> Vec<u8> {
    let crc = crc32c::crc32c_append(crc32c::crc32c(key), &value);
    value.extend(crc.to_le_bytes());
    value
}

/// The value without its checksum, if that matches.
pub(crate) fn unseal<'a>(key: &[u8], sealed: &'a [u8]) -> Option<&'a [u8]> {
    let (value, crc) = sealed.split_last_chunk::<CRC_BYTES>()?;
    let found = crc32c::crc32c_append(crc32c::crc32c(key), value);
    (found == u32::from_le_bytes(*crc)).then_some(value)
}

/// Reads little-endian numbers off a value; `None` as soon as it is too short.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*head)
    }

    fn u8(&mut self) -> Option<u8> {
        self.array().map(u8::from_le_bytes)
    }

    fn flag(&mut self) -> Option<bool> {
        match self.u8()? {
            0 => Some(false),
            1 => Some(true),
            _ => None,
        }
    }

    fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    fn log_id(&mut self) -> Option<LogId> {
        Some(LogId {
            term: Term::new(self.u64()?),
            index: LogIndex::new(self.u64()?),
        })
    }

    fn end<T>(self, value: T) -> Option<T> {
        self.0.is_empty().then_some(value)
    }
}

pub(crate) fn encode_marker() -> Vec<u8> {
    vec![MARKER_VERSION]
}

pub(crate) fn decode_marker(value: &[u8]) -> Option<()> {
    (value == [MARKER_VERSION]).then_some(())
}

pub(crate) fn encode_vote(vote: Vote) -> Vec<u8> {
    let mut value = Vec::with_capacity(21);
    value.extend(vote.term.get().to_le_bytes());
    value.extend(vote.node.get().to_le_bytes());
    value.push(u8::from(vote.committed));
    value
}

pub(crate) fn decode_vote(value: &[u8]) -> Option<Vote> {
    let mut fields = Fields(value);
    let vote = Vote {
        term: Term::new(fields.u64()?),
        node: NodeId::new(fields.u64()?),
        committed: fields.flag()?,
    };
    fields.end(vote)
}

pub(crate) fn encode_log_id(log_id: LogId) -> Vec<u8> {
    let mut value = Vec::with_capacity(20);
    value.extend(log_id.term.get().to_le_bytes());
    value.extend(log_id.index.get().to_le_bytes());
    value
}

pub(crate) fn decode_log_id(value: &[u8]) -> Option<LogId> {
    let mut fields = Fields(value);
    let log_id = fields.log_id()?;
    fields.end(log_id)
}

pub(crate) fn encode_row(row: &EntryRow) -> Vec<u8> {
    let mut value = Vec::with_capacity(17);
    value.extend(row.term.get().to_le_bytes());
    value.push(row.kind as u8);
    value.extend(row.encoded_bytes.to_le_bytes());
    value
}

/// The row at `index`; the inner error is a kind of a later release.
pub(crate) fn decode_row(index: LogIndex, value: &[u8]) -> Option<Result<EntryRow, EntryError>> {
    let mut fields = Fields(value);
    let (term, kind, encoded_bytes) = (Term::new(fields.u64()?), fields.u8()?, fields.u32()?);
    fields.end(EntryKind::from_u8(kind).map(|kind| EntryRow {
        index,
        term,
        kind,
        encoded_bytes,
    }))
}

/// What a checkpoint slot refers to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SlotRecord {
    /// Names the content; slots that were put together share it.
    pub(crate) content: u64,
    /// Chunks of the content, the membership's included.
    pub(crate) chunks: u32,
    /// The last entry applied.
    pub(crate) log_id: Option<LogId>,
}

pub(crate) type Slots = [Option<SlotRecord>; 3];

pub(crate) fn encode_slots(slots: &Slots) -> Vec<u8> {
    let mut value = Vec::with_capacity(3 * 30 + CRC_BYTES);
    for slot in slots {
        let record = slot.unwrap_or(SlotRecord {
            content: 0,
            chunks: 0,
            log_id: None,
        });
        let log_id = record.log_id.unwrap_or(LogId {
            term: Term::new(0),
            index: LogIndex::new(0),
        });
        value.push(u8::from(slot.is_some()));
        value.extend(record.content.to_le_bytes());
        value.extend(record.chunks.to_le_bytes());
        value.push(u8::from(record.log_id.is_some()));
        value.extend(encode_log_id(log_id));
    }
    value
}

pub(crate) fn decode_slots(value: &[u8]) -> Option<Slots> {
    let mut fields = Fields(value);
    let mut slots = [None; 3];
    for slot in &mut slots {
        let present = fields.flag()?;
        let (content, chunks) = (fields.u64()?, fields.u32()?);
        let has_log_id = fields.flag()?;
        let log_id = fields.log_id()?;
        *slot = present.then_some(SlotRecord {
            content,
            chunks,
            log_id: has_log_id.then_some(log_id),
        });
    }
    fields.end(slots)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log_id(term: u64, index: u64) -> LogId {
        LogId {
            term: Term::new(term),
            index: LogIndex::new(index),
        }
    }

    #[test]
    fn keys_sort_by_group_and_index() {
        let key = |group, index| entry_key(GroupId::new(group), LogIndex::new(index));
        assert!(key(1, u64::MAX) < key(2, 0));
        assert!(key(1, 255) < key(1, 256));
        assert_eq!(parse_entry_key(&key(3, 9)), Some((GroupId::new(3), LogIndex::new(9))));
        assert_eq!(parse_entry_key(&key(3, 9)[..15]), None);
    }

    #[test]
    fn state_keys_are_parsed_back() {
        let group = GroupId::new(0x0102);
        for key in [
            StateKey::Marker(group),
            StateKey::Vote(group),
            StateKey::Committed(group),
            StateKey::Purged(group),
            StateKey::Slots(group),
            StateKey::Chunk {
                group,
                content: 7,
                chunk: 9,
            },
        ] {
            assert_eq!(StateKey::parse(&key.encode()), Some(key));
            assert_eq!(StateKey::parse(&key.encode()[..5]), None);
        }
        assert_eq!(StateKey::parse(&[9; 9]), None);
    }

    #[test]
    fn values_are_decoded_back_and_odd_lengths_refused() {
        let vote = Vote {
            term: Term::new(3),
            node: NodeId::new(2),
            committed: true,
        };
        assert_eq!(decode_vote(&encode_vote(vote)), Some(vote));
        assert_eq!(decode_vote(&encode_vote(vote)[..16]), None);
        assert_eq!(decode_log_id(&encode_log_id(log_id(1, 2))), Some(log_id(1, 2)));
        let row = EntryRow {
            index: LogIndex::new(4),
            term: Term::new(5),
            kind: EntryKind::LeaderStart,
            encoded_bytes: 77,
        };
        assert_eq!(decode_row(row.index, &encode_row(&row)), Some(Ok(row)));
        let slots = [
            Some(SlotRecord {
                content: 1,
                chunks: 2,
                log_id: Some(log_id(3, 4)),
            }),
            None,
            Some(SlotRecord {
                content: 5,
                chunks: 1,
                log_id: None,
            }),
        ];
        assert_eq!(decode_slots(&encode_slots(&slots)), Some(slots));
        let mut longer = encode_slots(&slots);
        longer.push(0);
        assert_eq!(decode_slots(&longer), None);
    }

    #[test]
    fn a_sealed_value_is_bound_to_its_key_and_every_bit() {
        let sealed = seal(b"key", b"value".to_vec());
        assert_eq!(unseal(b"key", &sealed), Some(&b"value"[..]));
        assert_eq!(unseal(b"kez", &sealed), None);
        for bit in 0..sealed.len() * 8 {
            let mut bad = sealed.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(unseal(b"key", &bad), None, "bit {bit}");
        }
        assert_eq!(unseal(b"key", &sealed[..3]), None);
    }
}
