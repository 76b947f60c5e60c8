//! The batch header.

use bytes::BufMut;

use crate::format::{FormatError, Reader};
use crate::{FeatureLevel, LogTime, Seq, Term};

use super::{BATCH_HEADER_BYTES, MESSAGE_ROW_BYTES};

const VERSION: u16 = 1;
const FLAG_CLOSES_TOPIC: u32 = 1;

/// What a batch says about itself; all that the acceptance rule ([`crate::Cursor`]) looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchHeader {
    /// Term of the leader that made it.
    pub term: Term,
    /// Number of its first message, also when it has none: the `next_seq` that it was made for. Never 0.
    pub first_seq: Seq,
    /// Number of messages.
    pub count: u32,
    /// The leader's log clock.
    pub time: LogTime,
    /// Meaning of apply that it was made for.
    pub feature_level: FeatureLevel,
    /// Whether its last event is `DeleteTopic`; then it has no messages, and every later batch is void. It stands in the
    /// header so that the acceptance rule needs nothing else.
    pub closes_topic: bool,
}

impl BatchHeader {
    /// The number after the last message of the batch.
    pub const fn end_seq(&self) -> Seq {
        self.first_seq.plus(self.count as u64)
    }
}

/// The header with the lengths of the sections.
#[derive(Clone, Copy, Debug)]
pub(super) struct Layout {
    pub(super) header: BatchHeader,
    pub(super) event_count: u32,
    pub(super) event_bytes: u32,
    pub(super) extension_bytes: u32,
    pub(super) body_bytes: u32,
}

impl Layout {
    /// Bytes of the whole payload.
    pub(super) const fn total_bytes(&self) -> u64 {
        BATCH_HEADER_BYTES as u64
            + self.event_bytes as u64
            + self.table_bytes()
            + self.extension_bytes as u64
            + self.body_bytes as u64
    }

    const fn table_bytes(&self) -> u64 {
        self.header.count as u64 * MESSAGE_ROW_BYTES as u64
    }

    pub(super) const fn events_at(&self) -> usize {
        BATCH_HEADER_BYTES
    }

    pub(super) const fn table_at(&self) -> usize {
        self.events_at() + self.event_bytes as usize
    }

    pub(super) const fn extensions_at(&self) -> usize {
        self.table_at() + self.table_bytes() as usize
    }

    pub(super) const fn bodies_at(&self) -> usize {
        self.extensions_at() + self.extension_bytes as usize
    }

    pub(super) fn write(&self, out: &mut impl BufMut) {
        let header = &self.header;
        out.put_u16_le(VERSION);
        out.put_u16_le(header.feature_level.get());
        out.put_u32_le(if header.closes_topic { FLAG_CLOSES_TOPIC } else { 0 });
        out.put_u64_le(header.term.get());
        out.put_u64_le(header.first_seq.get());
        out.put_u64_le(header.time.get());
        out.put_u32_le(header.count);
        out.put_u32_le(self.event_count);
        out.put_u32_le(self.event_bytes);
        out.put_u32_le(self.extension_bytes);
        out.put_u32_le(self.body_bytes);
        out.put_u32_le(0);
    }

    /// Reads the header of a payload and checks that its sections fill the payload exactly.
    pub(super) fn read(payload: &[u8]) -> Result<Self, FormatError> {
        let mut reader = Reader::new(payload);
        let version = reader.u16("batch version")?;
        if version != VERSION {
            return Err(FormatError::Version { what: "batch", version });
        }
        let feature_level = FeatureLevel::new(reader.u16("feature level")?);
        let flags = reader.u32("batch flags")?;
        if flags & !FLAG_CLOSES_TOPIC != 0 {
            return Err(FormatError::Value { what: "batch flags" });
        }
        let term = Term::new(reader.u64("term")?);
        let first_seq = Seq::new(reader.u64("first_seq")?);
        let time = LogTime::new(reader.u64("time")?);
        let count = reader.u32("message count")?;
        let closes_topic = flags & FLAG_CLOSES_TOPIC != 0;
        let layout = Self {
            header: BatchHeader {
                term,
                first_seq,
                count,
                time,
                feature_level,
                closes_topic,
            },
            event_count: reader.u32("event count")?,
            event_bytes: reader.u32("event bytes")?,
            extension_bytes: reader.u32("extension bytes")?,
            body_bytes: reader.u32("body bytes")?,
        };
        if reader.u32("batch reserve")? != 0 {
            return Err(FormatError::Value { what: "batch reserve" });
        }
        if first_seq.get() == 0 || first_seq.get().checked_add(u64::from(count)).is_none() {
            return Err(FormatError::Value { what: "first_seq" });
        }
        if closes_topic && count > 0 {
            return Err(FormatError::Value {
                what: "messages in a batch that deletes the topic",
            });
        }
        if layout.total_bytes() != payload.len() as u64 {
            return Err(FormatError::Bounds { what: "batch sections" });
        }
        Ok(layout)
    }
}
