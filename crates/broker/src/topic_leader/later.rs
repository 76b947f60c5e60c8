//! Messages that wait for their time, by time and by number.

use std::collections::{BTreeMap, BTreeSet};

use nsquorum_topic::{Attempts, LogTime, Seq, SeqRange};

/// See the module documentation. Bounded with the topic's deferred messages and requeues.
#[derive(Debug, Default)]
pub(super) struct Later {
    by_time: BTreeSet<(LogTime, Seq)>,
    by_seq: BTreeMap<Seq, (LogTime, Attempts)>,
}

impl Later {
    /// A message waits until `due`, whatever it waited for before.
    pub(super) fn insert(&mut self, seq: Seq, due: LogTime, attempts: Attempts) {
        if let Some((before, _)) = self.by_seq.insert(seq, (due, attempts)) {
            self.by_time.remove(&(before, seq));
        }
        self.by_time.insert((due, seq));
    }

    /// Whether the message waited.
    pub(super) fn remove(&mut self, seq: Seq) -> bool {
        let Some((due, _)) = self.by_seq.remove(&seq) else {
            return false;
        };
        self.by_time.remove(&(due, seq));
        true
    }

    /// Removes those of a range for which `is_over`.
    pub(super) fn remove_within(&mut self, range: SeqRange, is_over: impl Fn(Seq) -> bool) {
        let over = self
            .by_seq
            .extract_if(range.first()..=range.last(), |seq, _| is_over(*seq));
        for (seq, (due, _)) in over {
            self.by_time.remove(&(due, seq));
        }
    }

    /// The next one that is due by `now`: the earliest first, then the lowest.
    pub(super) fn pop_due(&mut self, now: LogTime) -> Option<(Seq, Attempts)> {
        let (due, seq) = self.by_time.first().copied().filter(|(due, _)| *due <= now)?;
        self.by_time.remove(&(due, seq));
        let (_, attempts) = self.by_seq.remove(&seq).expect("both maps hold the same messages");
        Some((seq, attempts))
    }

    /// When the next one is due.
    pub(super) fn next_due(&self) -> Option<LogTime> {
        self.by_time.first().map(|(due, _)| *due)
    }

    pub(super) fn len(&self) -> usize {
        self.by_seq.len()
    }

    pub(super) fn clear(&mut self) {
        self.by_time.clear();
        self.by_seq.clear();
    }
}
