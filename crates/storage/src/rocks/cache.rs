//! The newest entries of one group, in memory.
//!
//! Always a suffix of the log without holes: an entry that is not yet on disk must be here (the disk still has something else, or
//! nothing, at its index), and older ones leave from the front. Tickets tell what is on disk: an index says nothing, because an
//! entry may be truncated and another appended at its index before the writer has come to either.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use nsquorum_topic::LogIndex;

use crate::entry::Entry;

/// Orders the operations of one group; an entry is on disk once its ticket is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Ticket(pub(super) u64);

#[derive(Debug)]
pub(super) struct EntryCache {
    entries: VecDeque<(Ticket, Entry)>,
    /// Bytes cached by all groups of the node.
    node_bytes: Arc<AtomicU64>,
}

impl EntryCache {
    pub(super) fn new(node_bytes: Arc<AtomicU64>) -> Self {
        Self {
            entries: VecDeque::new(),
            node_bytes,
        }
    }

    /// The index of the oldest entry here.
    pub(super) fn first(&self) -> Option<LogIndex> {
        self.entries.front().map(|(_, entry)| entry.header().index)
    }

    pub(super) fn push(&mut self, ticket: Ticket, entry: Entry) {
        if let Some((_, last)) = self.entries.back() {
            assert!(
                last.header().index.next() == entry.header().index,
                "the cache is a suffix of the log"
            );
        }
        self.node_bytes.fetch_add(entry.encoded_len() as u64, Ordering::Relaxed);
        self.entries.push_back((ticket, entry));
    }

    fn position(&self, index: LogIndex) -> Option<usize> {
        let ahead = index.get().checked_sub(self.first()?.get())?;
        usize::try_from(ahead)
            .ok()
            .filter(|&position| position < self.entries.len())
    }

    pub(super) fn get(&self, index: LogIndex) -> Option<&Entry> {
        self.position(index).map(|position| &self.entries[position].1)
    }

    /// The entries from `from` on, if that one is here.
    pub(super) fn from(&self, from: LogIndex) -> Option<impl Iterator<Item = &Entry>> {
        self.position(from)
            .map(|position| self.entries.range(position..).map(|(_, entry)| entry))
    }

    fn forget(&self, bytes: usize) {
        let before = self.node_bytes.fetch_sub(bytes as u64, Ordering::Relaxed);
        assert!(before >= bytes as u64, "more cached bytes leave than ever came");
    }

    /// Drops the entries after `last_kept`, all for `None`.
    pub(super) fn truncate_after(&mut self, last_kept: Option<LogIndex>) {
        while let Some((_, last)) = self.entries.back() {
            if last_kept.is_some_and(|kept| last.header().index <= kept) {
                break;
            }
            self.forget(last.encoded_len());
            self.entries.pop_back();
        }
    }

    /// Drops the entries up to and including `up_to`.
    pub(super) fn purge(&mut self, up_to: LogIndex) {
        while let Some((_, first)) = self.entries.front() {
            if first.header().index > up_to {
                break;
            }
            self.forget(first.encoded_len());
            self.entries.pop_front();
        }
    }

    /// Drops the oldest entry if it is on disk. Says how many bytes that freed.
    pub(super) fn evict_one(&mut self, on_disk: Ticket) -> Option<usize> {
        let (ticket, first) = self.entries.front()?;
        if *ticket > on_disk {
            return None;
        }
        let bytes = first.encoded_len();
        self.forget(bytes);
        self.entries.pop_front();
        if self.entries.is_empty() {
            self.entries.shrink_to_fit();
        }
        Some(bytes)
    }
}

impl Drop for EntryCache {
    fn drop(&mut self) {
        self.truncate_after(None);
    }
}

#[cfg(test)]
mod tests {
    use nsquorum_topic::{GroupId, Term};

    use super::*;
    use crate::entry::EntryKind;

    fn cache_of(indexes: impl IntoIterator<Item = (u64, u64)>) -> (EntryCache, Arc<AtomicU64>) {
        let bytes = Arc::new(AtomicU64::new(0));
        let mut cache = EntryCache::new(bytes.clone());
        for (ticket, index) in indexes {
            let index = LogIndex::new(index);
            cache.push(
                Ticket(ticket),
                Entry::copy_of(b"12", EntryKind::Blank, GroupId::new(1), Term::new(1), index),
            );
        }
        (cache, bytes)
    }

    #[test]
    fn entries_not_on_disk_never_leave() {
        let (mut cache, bytes) = cache_of([(1, 5), (1, 6), (2, 7)]);
        assert_eq!(bytes.load(Ordering::Relaxed), 150);
        assert_eq!(cache.evict_one(Ticket(1)), Some(50));
        assert_eq!(cache.evict_one(Ticket(1)), Some(50));
        assert_eq!(cache.evict_one(Ticket(1)), None, "ticket 2 is not on disk");
        assert_eq!(cache.first(), Some(LogIndex::new(7)));
        assert_eq!(bytes.load(Ordering::Relaxed), 50);
        drop(cache);
        assert_eq!(bytes.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn both_ends_can_be_cut() {
        let (mut cache, _) = cache_of([(1, 5), (1, 6), (1, 7), (1, 8)]);
        cache.truncate_after(Some(LogIndex::new(7)));
        cache.purge(LogIndex::new(5));
        assert!(cache.get(LogIndex::new(5)).is_none() && cache.get(LogIndex::new(8)).is_none());
        let found: Vec<_> = cache
            .from(LogIndex::new(6))
            .unwrap()
            .map(|entry| entry.header().index.get())
            .collect();
        assert_eq!(found, [6, 7]);
        assert!(cache.from(LogIndex::new(5)).is_none());
        cache.purge(LogIndex::new(100));
        assert_eq!(cache.first(), None);
    }
}
