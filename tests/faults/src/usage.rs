//! Totals over all files: space used, space allowed, unsynced bytes.
//!
//! Atomics rather than the volume's lock, because every write changes them and writes to different files must not wait
//! for each other.

use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

use rustix::io::Errno;

/// No limit is set.
const UNLIMITED: u64 = u64::MAX;

/// The totals.
#[derive(Debug)]
pub(crate) struct Usage {
    /// Sum of the live lengths of all files, unlinked ones that are still open included.
    used_bytes: AtomicU64,
    capacity_bytes: AtomicU64,
    dirty_bytes: AtomicU64,
}

impl Usage {
    pub(crate) fn new() -> Self {
        Self {
            used_bytes: AtomicU64::new(0),
            capacity_bytes: AtomicU64::new(UNLIMITED),
            dirty_bytes: AtomicU64::new(0),
        }
    }

    pub(crate) fn used_bytes(&self) -> u64 {
        self.used_bytes.load(SeqCst)
    }

    pub(crate) fn dirty_bytes(&self) -> u64 {
        self.dirty_bytes.load(SeqCst)
    }

    /// What may still be written, if a limit is set.
    pub(crate) fn free_bytes(&self) -> Option<u64> {
        let capacity = self.capacity_bytes.load(SeqCst);
        (capacity != UNLIMITED).then(|| capacity.saturating_sub(self.used_bytes()))
    }

    /// Allows `free` more bytes from now on; `None` lifts the limit.
    pub(crate) fn set_free(&self, free: Option<u64>) {
        let capacity = free.map_or(UNLIMITED, |free| {
            self.used_bytes().saturating_add(free).min(UNLIMITED - 1)
        });
        self.capacity_bytes.store(capacity, SeqCst);
    }

    /// Takes `bytes` of space.
    ///
    /// # Errors
    /// ENOSPC if fewer are free; nothing is taken then.
    pub(crate) fn take(&self, bytes: u64) -> Result<(), Errno> {
        let capacity = self.capacity_bytes.load(SeqCst);
        self.used_bytes
            .fetch_update(SeqCst, SeqCst, |used| {
                let after = used.saturating_add(bytes);
                (bytes == 0 || after <= capacity).then_some(after)
            })
            .map(drop)
            .map_err(|_| Errno::NOSPC)
    }

    /// Counts bytes that exist already, whatever the limit.
    pub(crate) fn add(&self, bytes: u64) {
        self.used_bytes.fetch_add(bytes, SeqCst);
    }

    pub(crate) fn give_back(&self, bytes: u64) {
        let before = self.used_bytes.fetch_sub(bytes, SeqCst);
        assert!(before >= bytes, "a file gave back {bytes} bytes of {before} in use");
    }

    pub(crate) fn dirty_changed(&self, before: u64, after: u64) {
        if after >= before {
            self.dirty_bytes.fetch_add(after - before, SeqCst);
        } else {
            self.dirty_bytes.fetch_sub(before - after, SeqCst);
        }
    }
}
