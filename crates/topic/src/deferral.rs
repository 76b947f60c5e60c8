//! Deferred messages of a topic.
//!
//! As in NSQ the delay of a deferred publish begins when the message is released to the channels, not when it is
//! published: while a topic has no channel or is paused, only the delay is kept. One index serves all channels: they
//! get a message at the same moment, so it falls due at the same moment.

use std::collections::{BTreeMap, BTreeSet};

use bytes::BufMut;

use crate::format::{FormatError, Reader};
use crate::{LogTime, Seq};

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Deferrals {
    /// Released messages that were not due yet at the last applied time.
    due: BTreeMap<Seq, LogTime>,
    /// The same, in the order in which they fall due.
    by_due: BTreeSet<(LogTime, Seq)>,
    /// Messages that have not left the topic, with their delay in milliseconds.
    unreleased: BTreeMap<Seq, u32>,
}

impl Deferrals {
    pub(crate) fn hold(&mut self, seq: Seq, delay_ms: u32) {
        self.unreleased.insert(seq, delay_ms);
    }

    pub(crate) fn release(&mut self, seq: Seq, delay_ms: u32, now: LogTime) -> LogTime {
        let due = now.plus_ms(delay_ms);
        self.due.insert(seq, due);
        self.by_due.insert((due, seq));
        due
    }

    /// Releases everything that was held; returns what fell into the index, by number.
    pub(crate) fn release_all(&mut self, now: LogTime) -> Vec<(Seq, LogTime)> {
        let held = std::mem::take(&mut self.unreleased);
        held.into_iter()
            .map(|(seq, delay_ms)| (seq, self.release(seq, delay_ms, now)))
            .collect()
    }

    /// Forgets what was held: the topic was emptied.
    pub(crate) fn drop_unreleased(&mut self) {
        self.unreleased.clear();
    }

    /// Drops what is due, and what every channel is past.
    pub(crate) fn settle(&mut self, now: LogTime, floor: Seq) {
        while let Some((due, seq)) = self.by_due.first().copied().filter(|(due, _)| *due <= now) {
            self.by_due.remove(&(due, seq));
            self.due.remove(&seq);
        }
        while let Some((seq, due)) = self
            .due
            .first_key_value()
            .map(|(seq, due)| (*seq, *due))
            .filter(|(seq, _)| *seq < floor)
        {
            self.due.remove(&seq);
            self.by_due.remove(&(due, seq));
        }
    }

    pub(crate) fn due_of(&self, seq: Seq) -> Option<LogTime> {
        self.due.get(&seq).copied()
    }

    pub(crate) fn due(&self) -> impl DoubleEndedIterator<Item = (LogTime, Seq)> + ExactSizeIterator + '_ {
        self.by_due.iter().copied()
    }

    pub(crate) fn unreleased(&self) -> impl DoubleEndedIterator<Item = (Seq, u32)> + ExactSizeIterator + '_ {
        self.unreleased.iter().map(|(seq, delay_ms)| (*seq, *delay_ms))
    }

    pub(crate) fn len(&self) -> usize {
        self.due.len() + self.unreleased.len()
    }

    /// `u32 released, each u64 number, u64 due; u32 unreleased, each u64 number, u32 delay in milliseconds`.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        out.put_u32_le(count(self.due.len()));
        for (seq, due) in &self.due {
            out.put_u64_le(seq.get());
            out.put_u64_le(due.get());
        }
        out.put_u32_le(count(self.unreleased.len()));
        for (seq, delay_ms) in &self.unreleased {
            out.put_u64_le(seq.get());
            out.put_u32_le(*delay_ms);
        }
    }

    pub(crate) fn decode(reader: &mut Reader<'_>) -> Result<Self, FormatError> {
        let mut deferrals = Self::default();
        for _ in 0..reader.u32("deferred")? {
            let seq = Seq::new(reader.u64("deferred")?);
            let due = LogTime::new(reader.u64("deferred")?);
            deferrals.due.insert(seq, due);
            deferrals.by_due.insert((due, seq));
        }
        if deferrals.due.len() != deferrals.by_due.len() {
            return Err(FormatError::Value { what: "deferred" });
        }
        for _ in 0..reader.u32("unreleased")? {
            let seq = Seq::new(reader.u64("unreleased")?);
            deferrals.unreleased.insert(seq, reader.u32("unreleased")?);
        }
        Ok(deferrals)
    }
}

fn count(len: usize) -> u32 {
    u32::try_from(len).expect("the number of deferred messages is limited far below 4 billion")
}
