//! When a group takes a checkpoint, and when a checkpoint lets the log before it go.
//!
//! Apply writes nothing, so a restart replays the log after the newest checkpoint. What bounds a restart is the log of *all* groups
//! together; therefore the budget of un-checkpointed bytes belongs to the node, and the groups that hold the most of it pay. A count
//! per group would make a thousand quiet topics checkpoint as often as a busy one, or let them pile up a long replay.
//!
//! A log prefix may go when no channel needs it *and* a durable checkpoint covers it. Floors move all the time, checkpoints seldom: one
//! checkpoint (the *candidate*) waits until every floor has passed it, however long that takes, while newer ones replace each other
//! for restarts. Waiting for the newest instead would never purge anything behind a channel that always lags by one checkpoint.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

#[derive(Debug)]
struct Shared {
    bytes: AtomicU64,
    groups: AtomicU64,
    bytes_max: u64,
}

/// The node's budget of log bytes that no checkpoint covers.
#[derive(Clone, Debug)]
pub(crate) struct CheckpointBudget(Arc<Shared>);

impl CheckpointBudget {
    /// Room for `bytes_max` bytes; kept within a factor of two.
    pub(crate) fn new(bytes_max: u64) -> Self {
        Self(Arc::new(Shared {
            bytes: AtomicU64::new(0),
            groups: AtomicU64::new(0),
            bytes_max,
        }))
    }

    /// The share of one more group.
    pub(crate) fn share(&self) -> CheckpointShare {
        CheckpointShare {
            budget: self.clone(),
            bytes: 0,
            state_bytes: 0,
        }
    }
}

/// One group's part of the budget.
#[derive(Debug)]
pub(crate) struct CheckpointShare {
    budget: CheckpointBudget,
    bytes: u64,
    state_bytes: u64,
}

impl CheckpointShare {
    /// `bytes` of log have been applied.
    pub(crate) fn applied(&mut self, bytes: u64) {
        let shared = &self.budget.0;
        if self.bytes == 0 {
            shared.groups.fetch_add(1, Ordering::Relaxed);
        }
        self.bytes += bytes;
        shared.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Whether this group should take a checkpoint: the node is over its budget, this group holds at least an average part of it,
    /// and the checkpoint costs less than the log that it saves.
    pub(crate) fn is_due(&self) -> bool {
        let shared = &self.budget.0;
        let total = shared.bytes.load(Ordering::Relaxed);
        let groups = shared.groups.load(Ordering::Relaxed).max(1);
        total > shared.bytes_max && self.bytes.saturating_mul(groups) >= total && self.bytes >= self.state_bytes
    }

    /// A checkpoint of `state_bytes` covers everything applied so far.
    pub(crate) fn covered(&mut self, state_bytes: u64) {
        self.give_back();
        self.state_bytes = state_bytes;
    }

    fn give_back(&mut self) {
        if self.bytes > 0 {
            let shared = &self.budget.0;
            shared.groups.fetch_sub(1, Ordering::Relaxed);
            shared.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
            self.bytes = 0;
        }
    }
}

impl Drop for CheckpointShare {
    fn drop(&mut self) {
        self.give_back();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_group_that_holds_most_pays() {
        let budget = CheckpointBudget::new(100);
        let (mut quiet, mut busy) = (budget.share(), budget.share());
        quiet.applied(10);
        busy.applied(80);
        assert!(!quiet.is_due() && !busy.is_due(), "within the budget");
        busy.applied(20);
        assert!(busy.is_due());
        assert!(!quiet.is_due(), "below the average part");
        busy.covered(0);
        assert!(!quiet.is_due() && !busy.is_due(), "the node is within its budget again");
    }

    #[test]
    fn a_big_state_is_not_written_for_a_little_log() {
        let budget = CheckpointBudget::new(100);
        let mut group = budget.share();
        group.covered(1000);
        group.applied(900);
        assert!(!group.is_due());
        group.applied(100);
        assert!(group.is_due());
    }

    #[test]
    fn a_group_that_is_gone_gives_its_part_back() {
        let budget = CheckpointBudget::new(100);
        let mut gone = budget.share();
        gone.applied(500);
        drop(gone);
        let mut other = budget.share();
        other.applied(50);
        assert!(!other.is_due());
    }
}
