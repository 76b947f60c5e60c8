//! Links between the nodes: each direction and class is a queue. Between queues there is no order; within one there is, but frames may be
//! repeated, and one may be lost when a connection breaks and is there again at once.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use nsquorum_links::Class;
use nsquorum_topic::{NodeId, NodeIncarnation, SessionId};

use crate::dice::Dice;

type Queue = (NodeId, NodeId, Class);

/// What happens at the end of a link.
pub(super) enum Arrival {
    Frame {
        to: NodeId,
        from: SessionId,
        frame: Bytes,
        class: Class,
    },
    /// The connection broke and was made again, with the loss of one frame. Frames of the new one arrive before the sender notices.
    Lost { from: NodeId, to: NodeId },
}

#[derive(Default)]
pub(super) struct Network {
    queues: BTreeMap<Queue, VecDeque<(SessionId, Bytes)>>,
    pub(super) lost: u64,
    pub(super) repeated: u64,
}

impl Network {
    pub(super) fn send(&mut self, from: SessionId, to: NodeId, class: Class, frame: Bytes) {
        let queue = self.queues.entry((from.node, to, class)).or_default();
        queue.push_back((from, frame));
    }

    /// The next frame of some queue.
    pub(super) fn deliver(&mut self, dice: &mut Dice, is_faulty: bool) -> Option<Arrival> {
        let waiting: Vec<Queue> = self
            .queues
            .iter()
            .filter(|(_, queue)| !queue.is_empty())
            .map(|(key, _)| *key)
            .collect();
        let key = dice.pick(&waiting)?;
        let queue = self.queues.get_mut(&key)?;
        if is_faulty && dice.one_in(150) {
            self.lost += 1;
            queue.pop_front();
            let (from, to, _) = key;
            return Some(Arrival::Lost { from, to });
        }
        let is_repeated = is_faulty && dice.one_in(50);
        if is_repeated {
            self.repeated += 1;
        }
        let (_, to, class) = key;
        let (from, frame) = queue.front()?.clone();
        if !is_repeated {
            queue.pop_front();
        }
        Some(Arrival::Frame { to, from, frame, class })
    }

    /// Everything on its way in one direction is lost.
    pub(super) fn clear(&mut self, from: NodeId, to: NodeId) {
        for class in Class::ALL {
            self.queues.remove(&(from, to, class));
        }
    }

    pub(super) fn is_quiet(&self) -> bool {
        self.queues.values().all(VecDeque::is_empty)
    }
}

pub(super) const fn session(node: NodeId, incarnation: u64) -> SessionId {
    SessionId {
        node,
        incarnation: NodeIncarnation::new(incarnation),
    }
}
