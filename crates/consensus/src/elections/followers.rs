//! How far the replicas of a group that this node leads are behind, in time: a step machine without a clock.
//!
//! A number of entries says little: a busy group is always some entries ahead of its followers, and a quiet one may be one entry ahead of
//! a follower that stopped an hour ago. So each replica chases a mark, the leader's last entry as it stood at some moment; when it
//! reaches the mark it was level with the leader *then*, and the next mark is set.

use std::collections::BTreeMap;
use std::time::Duration;

use nsquorum_environment::Monotonic;
use nsquorum_topic::{NodeId, Term};
use parking_lot::Mutex;

/// A replica that was level with the leader within this time is in sync: losing any other one costs nothing.
pub(crate) const IN_SYNC_WITHIN: Duration = Duration::from_secs(10);

/// One that follows a mark that moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Chase {
    mark: u64,
    mark_set: Monotonic,
    level: Option<Monotonic>,
}

impl Chase {
    pub(crate) const fn new(now: Monotonic, mark: u64) -> Self {
        Self {
            mark,
            mark_set: now,
            level: None,
        }
    }

    /// One that is level as it begins.
    pub(crate) const fn level(now: Monotonic, mark: u64) -> Self {
        Self {
            mark,
            mark_set: now,
            level: Some(now),
        }
    }

    /// The leader's log ends at `last`, the replica's at `at`, as far as is known.
    pub(crate) fn look(&mut self, now: Monotonic, last: u64, at: Option<u64>) {
        if at >= Some(self.mark) {
            self.level = self.level.max(Some(self.mark_set));
            self.mark = last;
            self.mark_set = now;
        }
        if at >= Some(last) {
            self.level = Some(now);
        }
    }

    /// How long ago it was level; `None`: not since the chase began.
    pub(crate) fn behind(&self, now: Monotonic) -> Option<Duration> {
        self.level.map(|level| now.since(level))
    }
}

/// Where each replica of a leader's group is, by the last entry that it is known to have on disk.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Progress {
    /// The leader's last entry, on disk or not.
    pub(crate) last: Option<u64>,
    /// Every replica, the leader included. `None`: the leader has not heard of it in its term.
    pub(crate) matched: Vec<(NodeId, Option<u64>)>,
}

#[derive(Debug, Default)]
struct Watched {
    term: Term,
    replicas: BTreeMap<NodeId, Chase>,
}

/// The replicas of one group, watched while this node leads it.
#[derive(Debug, Default)]
pub(crate) struct Followers(Mutex<Watched>);

impl Followers {
    /// Takes a sample. What was seen in an earlier term says nothing about this one.
    pub(crate) fn look(&self, now: Monotonic, term: Term, progress: &Progress) {
        let Some(last) = progress.last else { return };
        let mut watched = self.0.lock();
        if watched.term != term {
            watched.term = term;
            watched.replicas.clear();
        }
        for (node, at) in &progress.matched {
            let chase = watched.replicas.entry(*node).or_insert_with(|| Chase::new(now, last));
            chase.look(now, last, *at);
        }
    }

    /// Whether the replica was level with the leader of this term lately.
    pub(crate) fn is_in_sync(&self, now: Monotonic, term: Term, node: NodeId) -> bool {
        let watched = self.0.lock();
        let behind = watched.replicas.get(&node).and_then(|chase| chase.behind(now));
        watched.term == term && behind.is_some_and(|behind| behind < IN_SYNC_WITHIN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NODES: [NodeId; 3] = [NodeId::new(1), NodeId::new(2), NodeId::new(3)];
    const TERM: Term = Term::new(4);

    fn at(ms: u64) -> Monotonic {
        Monotonic::from_nanos(ms * 1_000_000)
    }

    fn progress(last: u64, matched: [Option<u64>; 3]) -> Progress {
        Progress {
            last: Some(last),
            matched: NODES.into_iter().zip(matched).collect(),
        }
    }

    #[test]
    fn a_replica_that_is_always_a_little_behind_a_busy_leader_is_in_sync() {
        let followers = Followers::default();
        for round in 0..1_000 {
            let last = 100 + round * 500;
            followers.look(
                at(round * 200),
                TERM,
                &progress(last, [Some(last), Some(last - 30), None]),
            );
        }
        let now = at(1_000 * 200);
        assert!(followers.is_in_sync(now, TERM, NODES[0]));
        assert!(followers.is_in_sync(now, TERM, NODES[1]));
        assert!(!followers.is_in_sync(now, TERM, NODES[2]), "never heard of");
        assert!(!followers.is_in_sync(now, Term::new(5), NODES[1]), "another term");
    }

    #[test]
    fn a_replica_that_stops_falls_out_after_a_while_even_if_the_leader_has_only_one_entry_more() {
        let followers = Followers::default();
        followers.look(at(0), TERM, &progress(7, [Some(7); 3]));
        for ms in (200..=20_000).step_by(200) {
            followers.look(at(ms), TERM, &progress(8, [Some(8), Some(8), Some(7)]));
            assert!(followers.is_in_sync(at(ms), TERM, NODES[1]));
            assert_eq!(followers.is_in_sync(at(ms), TERM, NODES[2]), ms < 10_000, "at {ms} ms");
        }
        followers.look(at(20_200), TERM, &progress(8, [Some(8); 3]));
        assert!(followers.is_in_sync(at(20_200), TERM, NODES[2]), "it has caught up");
    }

    #[test]
    fn a_replica_that_copies_a_long_log_is_not_in_sync_until_it_is_level() {
        let mut chase = Chase::new(at(0), 1_000);
        for step in 0..10 {
            chase.look(at(step * 200), 1_000 + step, Some(step * 100));
            assert_eq!(chase.behind(at(step * 200)), None);
        }
        // It reaches the mark that was set when the chase began: it was level two seconds ago.
        chase.look(at(2_000), 1_010, Some(1_000));
        assert_eq!(chase.behind(at(2_000)), Some(Duration::from_secs(2)));
        chase.look(at(2_200), 1_010, Some(1_010));
        assert_eq!(chase.behind(at(2_200)), Some(Duration::ZERO));
    }
}
