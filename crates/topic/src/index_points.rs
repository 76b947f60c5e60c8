//! Sparse points into the log: where a reader that wants a certain message begins.
//!
//! A row per entry would be found faster and cost more than small messages do; a point per 64 KiB of log bounds what is
//! read in vain, and a million messages of 200 bytes need some 3,500 points. A point always stands at an *accepted* batch
//! with messages, so that the acceptance rule can be walked from there ([`crate::Cursor::at_point`]).

use std::collections::BTreeMap;

use bytes::BufMut;

use crate::format::{FormatError, Reader};
use crate::{EntryPosition, LogIndex, Seq, Term};

/// Entry bytes after which the next accepted batch with messages becomes a point.
pub const INDEX_POINT_BYTES: u64 = 64 * 1024;

/// An accepted batch with messages, and what the acceptance rule needs to begin there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct IndexPoint {
    /// Position of the batch's entry.
    pub index: LogIndex,
    /// Number of its first message.
    pub next_seq: Seq,
    /// Term of its entry.
    pub term: Term,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct IndexPoints {
    /// By first number.
    points: BTreeMap<Seq, (LogIndex, Term)>,
    /// Bytes of batch entries since the last point, that point's own included.
    bytes_since: u64,
}

impl IndexPoints {
    /// Counts an accepted batch, and makes it a point if it is time and it carries messages.
    pub(crate) fn record(&mut self, at: EntryPosition, first_seq: Seq, has_messages: bool) {
        if has_messages && (self.points.is_empty() || self.bytes_since >= INDEX_POINT_BYTES) {
            self.points.insert(first_seq, (at.index, at.term));
            self.bytes_since = 0;
        }
        self.bytes_since = self.bytes_since.saturating_add(u64::from(at.encoded_bytes));
    }

    /// Drops the points that no reader needs: all but the last one at or before `floor`, and that one too if there is
    /// nothing left to read.
    pub(crate) fn prune(&mut self, floor: Seq, next_seq: Seq) {
        if floor >= next_seq {
            self.points.clear();
            self.bytes_since = 0;
            return;
        }
        if let Some(kept) = self.at(floor) {
            while self
                .points
                .first_key_value()
                .is_some_and(|(seq, _)| *seq < kept.next_seq)
            {
                self.points.pop_first();
            }
        }
    }

    /// The last point at or before `seq`.
    pub(crate) fn at(&self, seq: Seq) -> Option<IndexPoint> {
        self.points.range(..=seq).next_back().map(point)
    }

    pub(crate) fn iter(&self) -> impl DoubleEndedIterator<Item = IndexPoint> + ExactSizeIterator + '_ {
        self.points.iter().map(point)
    }

    pub(crate) fn len(&self) -> usize {
        self.points.len()
    }

    /// `u64 bytes since the last point, u32 points, each u64 first number, u64 index, u64 term`.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        out.put_u64_le(self.bytes_since);
        out.put_u32_le(u32::try_from(self.points.len()).expect("4 billion points would be 256 TiB of one topic's log"));
        for point in self.iter() {
            out.put_u64_le(point.next_seq.get());
            out.put_u64_le(point.index.get());
            out.put_u64_le(point.term.get());
        }
    }

    pub(crate) fn decode(reader: &mut Reader<'_>) -> Result<Self, FormatError> {
        let bytes_since = reader.u64("index points")?;
        let mut points = BTreeMap::new();
        for _ in 0..reader.u32("index points")? {
            let next_seq = Seq::new(reader.u64("index point")?);
            let index = LogIndex::new(reader.u64("index point")?);
            points.insert(next_seq, (index, Term::new(reader.u64("index point")?)));
        }
        Ok(Self { points, bytes_since })
    }
}

fn point((next_seq, (index, term)): (&Seq, &(LogIndex, Term))) -> IndexPoint {
    IndexPoint {
        index: *index,
        next_seq: *next_seq,
        term: *term,
    }
}
