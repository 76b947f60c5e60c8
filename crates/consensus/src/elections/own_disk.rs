//! When a leader gives way because its disk is slower than its followers': a step machine without a clock.
//!
//! Entries count as soon as a majority has them, so a leader with a slow disk delays nobody while all its followers are there; but what it has not
//! written grows in its memory without a bound, and when one follower dies everybody waits for the slow disk. It is found out by
//! comparison: the others, without this node, are a majority, and all of that majority have had for [`BEHIND`] what this node has not. If
//! all disks are slow, or the others need this node, there is nothing to gain.
//!
//! Giving way costs a pause of some milliseconds, so it is not done for a single stall ([`FOR`]), and at most once in [`AGAIN_AFTER`] per group,
//! whoever led in between: two nodes whose disks are slow by turns do not play ball with a topic.

use std::time::Duration;

use nsquorum_environment::Monotonic;
use nsquorum_topic::{NodeId, Term};

use super::followers::{Chase, Progress};

/// A disk that is this far behind is slow. Well above the interval between two looks, which is the precision of this.
const BEHIND: Duration = Duration::from_secs(1);
/// One that is less than this behind is not slow any more.
const LEVEL: Duration = Duration::from_millis(500);
/// How long it has to be slow.
const FOR: Duration = Duration::from_secs(5);
/// How long a group that was given away is kept if it comes back.
const AGAIN_AFTER: Duration = Duration::from_secs(60);

/// A leadership during which the others form a majority.
#[derive(Clone, Copy, Debug)]
struct Compared {
    term: Term,
    own: Chase,
    slow_since: Option<Monotonic>,
}

/// This node's disk, compared with those of one group's followers.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct OwnDisk {
    compared: Option<Compared>,
    gave_way: Option<Monotonic>,
}

impl OwnDisk {
    /// Looks at where the replicas of a group are that this node leads. Says who should lead it instead, if anybody.
    pub(super) fn look(&mut self, now: Monotonic, term: Term, me: NodeId, progress: &Progress) -> Option<NodeId> {
        let own = progress.matched.iter().find(|(node, _)| *node == me);
        let own = own.and_then(|(_, matched)| *matched);
        let mut others: Vec<(u64, NodeId)> = progress
            .matched
            .iter()
            .filter_map(|(node, matched)| Some(((*matched)?, *node)))
            .filter(|(_, node)| *node != me)
            .collect();
        // The most advanced first: it has the least to copy before it may campaign.
        others.sort_unstable_by(|a, b| b.0.cmp(&a.0).then(a.1.cmp(&b.1)));
        let majority = progress.matched.len() / 2 + 1;
        let Some((mark, _)) = others.get(majority - 1).copied() else {
            self.compared = None;
            return None;
        };
        let compared = match &mut self.compared {
            Some(compared) if compared.term == term => compared,
            other => other.insert(Compared {
                term,
                own: Chase::level(now, mark),
                slow_since: None,
            }),
        };
        compared.own.look(now, mark, own);
        let behind = compared.own.behind(now).unwrap_or_default();
        if behind < LEVEL {
            compared.slow_since = None;
        } else if behind >= BEHIND {
            compared.slow_since.get_or_insert(now);
        }
        let is_slow = compared.slow_since.is_some_and(|since| now.since(since) >= FOR);
        let may_again = self.gave_way.is_none_or(|at| now.since(at) >= AGAIN_AFTER);
        (is_slow && may_again).then(|| others[0].1)
    }

    /// The leadership is being handed over.
    pub(super) fn gives_way(&mut self, now: Monotonic) {
        self.gave_way = Some(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NODES: [NodeId; 3] = [NodeId::new(1), NodeId::new(2), NodeId::new(3)];
    const ME: NodeId = NODES[0];
    const TERM: Term = Term::new(4);
    const LOOK_MS: u64 = 400;

    fn at(ms: u64) -> Monotonic {
        Monotonic::from_nanos(ms * 1_000_000)
    }

    /// A log that grows by one entry per millisecond, and replicas that are so many milliseconds behind.
    fn progress(ms: u64, behind_ms: [Option<u64>; 3]) -> Progress {
        let matched = |behind: Option<u64>| behind.map(|behind| ms.saturating_sub(behind));
        Progress {
            last: Some(ms),
            matched: NODES.into_iter().zip(behind_ms.map(matched)).collect(),
        }
    }

    /// When, and to whom, a leader gives way first, if replicas lag like this for two minutes.
    fn first(disk: &mut OwnDisk, from_ms: u64, lags: impl Fn(u64) -> [Option<u64>; 3]) -> Option<(u64, NodeId)> {
        (from_ms..from_ms + 120_000)
            .step_by(LOOK_MS as usize)
            .find_map(|ms| Some((ms, disk.look(at(ms), TERM, ME, &progress(ms, lags(ms)))?)))
    }

    #[test]
    fn a_disk_as_fast_as_the_others_or_a_little_slower_keeps_its_leaderships() {
        for own in [0, 1, 50, 300] {
            let lags = |_| [Some(own), Some(2), Some(5)];
            assert_eq!(first(&mut OwnDisk::default(), 1_000, lags), None, "{own} ms behind");
        }
    }

    #[test]
    fn a_disk_that_lags_by_seconds_gives_way_to_the_most_advanced() {
        let lags = |_| [Some(3_000), Some(20), Some(2)];
        let (when, to) = first(&mut OwnDisk::default(), 10_000, lags).expect("gives way");
        assert_eq!(to, NODES[2]);
        assert!((15_000..20_000).contains(&when), "{when} ms");
    }

    #[test]
    fn a_disk_that_stands_still_gives_way_even_if_only_one_entry_is_missing() {
        let mut disk = OwnDisk::default();
        let stuck = Progress {
            last: Some(8),
            matched: vec![(ME, Some(7)), (NODES[1], Some(8)), (NODES[2], Some(8))],
        };
        let gives_way = (0..20_000)
            .step_by(LOOK_MS as usize)
            .find(|ms| disk.look(at(*ms), TERM, ME, &stuck).is_some());
        assert!(
            gives_way.is_some_and(|ms| (5_000..10_000).contains(&ms)),
            "{gives_way:?}"
        );
    }

    /// How far each replica lags, in milliseconds, at a moment.
    type Lags = fn(u64) -> [Option<u64>; 3];

    #[test]
    fn nothing_is_gained_where_others_are_as_slow_or_are_needed() {
        let lags: [Lags; 3] = [
            |_| [Some(3_000), Some(3_000), Some(3_000)],
            // One of them is as slow: without this node there is no faster majority.
            |_| [Some(3_000), Some(0), Some(4_000)],
            // One is away.
            |_| [Some(3_000), Some(0), None],
        ];
        for lags in lags {
            assert_eq!(first(&mut OwnDisk::default(), 10_000, lags), None);
        }
        let mut disk = OwnDisk::default();
        for ms in (0..60_000).step_by(LOOK_MS as usize) {
            let two = Progress {
                last: Some(ms),
                matched: vec![(ME, Some(0)), (NODES[1], Some(ms))],
            };
            assert_eq!(
                disk.look(at(ms), TERM, ME, &two),
                None,
                "of two replicas both are needed"
            );
        }
    }

    #[test]
    fn a_stall_now_and_then_is_borne() {
        let lags = |ms: u64| {
            let into = ms % 10_000;
            [Some(if into < 4_000 { into } else { 0 }), Some(0), Some(0)]
        };
        assert_eq!(first(&mut OwnDisk::default(), 10_000, lags), None);
    }

    #[test]
    fn a_group_that_came_back_is_kept_for_a_minute() {
        let mut disk = OwnDisk::default();
        let lags = |_| [Some(3_000), Some(0), Some(0)];
        let (when, _) = first(&mut disk, 10_000, lags).expect("gives way");
        disk.gives_way(at(when));
        let (again, _) = first(&mut disk, when, lags).expect("gives way again");
        assert!((when + 60_000..when + 61_000).contains(&again), "{again}");
    }

    #[test]
    fn a_new_term_begins_to_count_anew() {
        let mut disk = OwnDisk::default();
        for ms in (10_000..100_000).step_by(LOOK_MS as usize) {
            let term = Term::new(ms / 4_000);
            let progress = progress(ms, [Some(3_000), Some(0), Some(0)]);
            assert_eq!(disk.look(at(ms), term, ME, &progress), None);
        }
    }
}
