//! The fixed header of an entry: 48 bytes, little-endian.
//!
//! | bytes | field |
//! |---|---|
//! | 0..4 | magic `NSQE` |
//! | 4 | version, 1 |
//! | 5 | kind ([`EntryKind`]) |
//! | 6..8 | flags, 0 |
//! | 8..16 | group |
//! | 16..24 | term |
//! | 24..32 | index |
//! | 32..36 | payload length in bytes |
//! | 36..40 | CRC32C of the payload |
//! | 40..44 | reserved, written as 0 and ignored by readers |
//! | 44..48 | CRC32C of bytes 0..44 |
//!
//! The header has a CRC of its own, apart from the payload's: a scan can trust lengths and positions without reading bodies, and
//! Raft can assign term and index after the payload was built without touching (or summing) the payload again.
//! A flag changes how an entry is to be read, so unknown flags are refused; that is the difference to the reserved field.

use nsquorum_topic::{GroupId, LogIndex, Term};
use thiserror::Error;

/// Bytes of the header, and so the room that [`super::Entry::seal`] expects in front of the payload.
pub const ENTRY_HEADER_BYTES: usize = 48;

const MAGIC: [u8; 4] = *b"NSQE";
const VERSION: u8 = 1;
const CRC_AT: usize = ENTRY_HEADER_BYTES - 4;

/// What the payload of an entry means. Storage never looks inside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum EntryKind {
    /// Raft's own empty entry: a new leader appends one.
    Blank = 0,
    /// A Raft membership.
    Membership = 1,
    /// A topic's batch: publishes, finished ranges, requeues, channel changes.
    TopicBatch = 2,
    /// The first application entry of a leader (design-log 4).
    LeaderStart = 3,
    /// A command of the metadata group.
    Metadata = 4,
}

impl EntryKind {
    /// The kind of this number.
    ///
    /// # Errors
    /// [`EntryError::UnknownKind`]: written by a later version.
    pub const fn from_u8(value: u8) -> Result<Self, EntryError> {
        match value {
            0 => Ok(Self::Blank),
            1 => Ok(Self::Membership),
            2 => Ok(Self::TopicBatch),
            3 => Ok(Self::LeaderStart),
            4 => Ok(Self::Metadata),
            other => Err(EntryError::UnknownKind(other)),
        }
    }
}

/// Why bytes are not an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum EntryError {
    /// Fewer bytes than a header.
    #[error("{0} bytes are too few for an entry header")]
    TooShort(usize),
    /// The first four bytes are not the magic.
    #[error("wrong magic")]
    Magic,
    /// The header's CRC does not match.
    #[error("header checksum does not match")]
    HeaderChecksum,
    /// The payload's length is not what the header says.
    #[error("payload has {found} bytes, its header says {expected}")]
    Length {
        /// Bytes that the header announces.
        expected: u32,
        /// Bytes that follow the header.
        found: u64,
    },
    /// The payload's CRC does not match.
    #[error("payload checksum does not match")]
    PayloadChecksum,
    /// An intact header of a later version.
    #[error("entry version {0} is unknown to this release")]
    UnknownVersion(u8),
    /// An intact header of an unknown kind.
    #[error("entry kind {0} is unknown to this release")]
    UnknownKind(u8),
    /// An intact header with flags that this release does not know.
    #[error("entry flags {0:#06x} are unknown to this release")]
    UnknownFlags(u16),
}

impl EntryError {
    /// Whether the bytes are intact but made by a later release; otherwise they are damaged.
    pub const fn is_unsupported(self) -> bool {
        matches!(
            self,
            Self::UnknownVersion(_) | Self::UnknownKind(_) | Self::UnknownFlags(_)
        )
    }
}

/// A parsed header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EntryHeader {
    /// What the payload means.
    pub kind: EntryKind,
    /// The group whose log this is.
    pub group: GroupId,
    /// The term of the leader that appended it.
    pub term: Term,
    /// Its position in the group's log.
    pub index: LogIndex,
    /// Length of the payload.
    pub payload_bytes: u32,
    /// CRC32C of the payload.
    pub payload_crc: u32,
}

impl EntryHeader {
    /// Reads and checks the header at the start of `bytes`.
    ///
    /// # Errors
    /// Damage first, then what a later release may have written: an unknown kind is only reported of an intact header.
    pub fn parse(bytes: &[u8]) -> Result<Self, EntryError> {
        let header: &[u8; ENTRY_HEADER_BYTES] = bytes.first_chunk().ok_or(EntryError::TooShort(bytes.len()))?;
        if header[..4] != MAGIC {
            return Err(EntryError::Magic);
        }
        if crc32c::crc32c(&header[..CRC_AT]) != u32_at(header, CRC_AT) {
            return Err(EntryError::HeaderChecksum);
        }
        if header[4] != VERSION {
            return Err(EntryError::UnknownVersion(header[4]));
        }
        let flags = u16::from_le_bytes([header[6], header[7]]);
        if flags != 0 {
            return Err(EntryError::UnknownFlags(flags));
        }
        Ok(Self {
            kind: EntryKind::from_u8(header[5])?,
            group: GroupId::new(u64_at(header, 8)),
            term: Term::new(u64_at(header, 16)),
            index: LogIndex::new(u64_at(header, 24)),
            payload_bytes: u32_at(header, 32),
            payload_crc: u32_at(header, 36),
        })
    }

    /// The 48 bytes of this header.
    pub fn encode(&self) -> [u8; ENTRY_HEADER_BYTES] {
        let mut header = [0; ENTRY_HEADER_BYTES];
        header[..4].copy_from_slice(&MAGIC);
        header[4] = VERSION;
        header[5] = self.kind as u8;
        header[8..16].copy_from_slice(&self.group.get().to_le_bytes());
        header[16..24].copy_from_slice(&self.term.get().to_le_bytes());
        header[24..32].copy_from_slice(&self.index.get().to_le_bytes());
        header[32..36].copy_from_slice(&self.payload_bytes.to_le_bytes());
        header[36..40].copy_from_slice(&self.payload_crc.to_le_bytes());
        let crc = crc32c::crc32c(&header[..CRC_AT]);
        header[CRC_AT..].copy_from_slice(&crc.to_le_bytes());
        header
    }
}

fn u32_at(header: &[u8; ENTRY_HEADER_BYTES], at: usize) -> u32 {
    let mut bytes = [0; 4];
    bytes.copy_from_slice(&header[at..at + 4]);
    u32::from_le_bytes(bytes)
}

fn u64_at(header: &[u8; ENTRY_HEADER_BYTES], at: usize) -> u64 {
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&header[at..at + 8]);
    u64::from_le_bytes(bytes)
}
