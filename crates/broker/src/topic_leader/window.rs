//! The newest accepted entries of a topic, in memory.
//!
//! Consumers that keep up are served from here: the very bytes that were written, shared. It holds nothing that every channel has
//! read, and at most a bound of bytes for channels that lag; beyond it they read the log.

use std::collections::VecDeque;

use nsquorum_topic::{BatchView, MessageView, Seq};

#[derive(Debug)]
struct WindowEntry {
    first: Seq,
    end: Seq,
    bytes: usize,
    batch: BatchView,
}

/// Accepted entries with messages, without gaps.
#[derive(Debug, Default)]
pub(super) struct Window {
    entries: VecDeque<WindowEntry>,
    bytes: usize,
}

impl Window {
    /// Adds the entry that follows. A gap drops what is older: there is nothing to walk over it.
    pub(super) fn push(&mut self, batch: BatchView, bytes: usize) {
        let header = batch.header();
        if header.count == 0 {
            return;
        }
        let (first, end) = (header.first_seq, header.end_seq());
        if self.end().is_some_and(|window_end| window_end != first) {
            self.clear();
        }
        self.bytes += bytes;
        self.entries.push_back(WindowEntry {
            first,
            end,
            bytes,
            batch,
        });
    }

    /// The first number held.
    pub(super) fn first(&self) -> Option<Seq> {
        self.entries.front().map(|entry| entry.first)
    }

    fn end(&self) -> Option<Seq> {
        self.entries.back().map(|entry| entry.end)
    }

    /// A message, if it is held.
    pub(super) fn message(&self, seq: Seq) -> Option<MessageView> {
        let place = self.entries.partition_point(|entry| entry.end <= seq);
        let entry = self.entries.get(place).filter(|entry| entry.first <= seq)?;
        let offset = u32::try_from(seq.get() - entry.first.get()).expect("a batch counts its messages in a u32");
        entry.batch.message(offset)
    }

    /// Drops what lies below `needed_from`, and then the oldest until at most `bytes_max` are held.
    pub(super) fn trim(&mut self, needed_from: Seq, bytes_max: usize) {
        while let Some(front) = self.entries.front() {
            if front.end > needed_from && self.bytes <= bytes_max {
                break;
            }
            self.bytes -= front.bytes;
            self.entries.pop_front();
        }
    }

    /// Bytes held.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn clear(&mut self) {
        self.entries.clear();
        self.bytes = 0;
    }
}
