//! Whose turn it is: the consumers of one channel that have room.

use std::collections::{BTreeMap, VecDeque};

use super::dispatch::ConsumerId;
use crate::nearness::Nearness;

/// Lower goes first, as long as it has room.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    /// Without zones all are alike.
    nearness: Nearness,
    /// Each delivery to another node is a frame.
    is_remote: bool,
}

impl Rank {
    fn of(id: ConsumerId, nearness: Option<Nearness>) -> Self {
        Self {
            nearness: nearness.unwrap_or(Nearness::Global),
            is_remote: id.node.is_some(),
        }
    }
}

/// Consumers in turn, by rank. At most six queues, which stay: consumers come and go with every message.
#[derive(Debug, Default)]
pub(super) struct Turns {
    ranks: BTreeMap<Rank, VecDeque<ConsumerId>>,
}

impl Turns {
    /// The next consumer; it stays in turn until it leaves or all others of its rank had theirs.
    pub(super) fn next(&self) -> Option<ConsumerId> {
        self.ranks.values().find_map(|turn| turn.front().copied())
    }

    /// A consumer has room.
    pub(super) fn enter(&mut self, id: ConsumerId, nearness: Option<Nearness>) {
        self.ranks.entry(Rank::of(id, nearness)).or_default().push_back(id);
    }

    /// A consumer has none any more, or is gone.
    pub(super) fn leave(&mut self, id: ConsumerId, nearness: Option<Nearness>) {
        let Some(turn) = self.ranks.get_mut(&Rank::of(id, nearness)) else {
            return;
        };
        match turn.front() {
            Some(front) if *front == id => _ = turn.pop_front(),
            _ => turn.retain(|in_turn| *in_turn != id),
        }
    }

    /// The first in turn was served.
    pub(super) fn served(&mut self, id: ConsumerId, nearness: Option<Nearness>) {
        if let Some(turn) = self.ranks.get_mut(&Rank::of(id, nearness))
            && turn.len() > 1
        {
            turn.rotate_left(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use nsquorum_topic::NodeId;

    use super::*;
    use crate::subscription::SubscriptionId;

    fn consumer(node: Option<u64>, subscription: u64) -> ConsumerId {
        ConsumerId {
            node: node.map(NodeId::new),
            subscription: SubscriptionId(subscription),
        }
    }

    #[test]
    fn near_ones_go_before_far_ones_and_this_node_before_others() {
        let mut turns = Turns::default();
        let ordered = [
            (consumer(None, 1), Some(Nearness::Zone)),
            (consumer(Some(2), 2), Some(Nearness::Zone)),
            (consumer(None, 3), Some(Nearness::Region)),
            (consumer(Some(2), 4), Some(Nearness::Region)),
            (consumer(None, 5), Some(Nearness::Global)),
            (consumer(Some(2), 6), Some(Nearness::Global)),
        ];
        for (id, nearness) in ordered.into_iter().rev() {
            turns.enter(id, nearness);
        }
        for (id, nearness) in ordered {
            assert_eq!(turns.next(), Some(id));
            turns.served(id, nearness);
            assert_eq!(turns.next(), Some(id), "it is the only one of its rank");
            turns.leave(id, nearness);
        }
        assert_eq!(turns.next(), None);
    }

    #[test]
    fn equals_take_turns() {
        let mut turns = Turns::default();
        let all = [1, 2, 3].map(|subscription| consumer(None, subscription));
        for id in all {
            turns.enter(id, None);
        }
        let served: Vec<ConsumerId> = (0..6)
            .map(|_| {
                let id = turns.next().expect("three");
                turns.served(id, None);
                id
            })
            .collect();
        assert_eq!(served, [all, all].concat());
        turns.leave(all[1], None);
        turns.served(all[0], None);
        assert_eq!(turns.next(), Some(all[2]));
    }
}
