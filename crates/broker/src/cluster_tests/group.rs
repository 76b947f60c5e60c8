//! The log of the topic, of which each node has applied a part.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::{Bytes, BytesMut};
use nsquorum_consensus::{BoxFuture, LeaderLocation, Refusal, TopicEvent, TopicLog};
use nsquorum_storage::{ENTRY_HEADER_BYTES, Entry, EntryKind, StorageError};
use nsquorum_topic::{
    Applied, BatchView, EntryPosition, GroupId, LeaderStart, LogIndex, LogTime, NodeId, NodeIncarnation, Seq, Term,
    TopicState,
};

use crate::dice::Dice;

const GROUP: GroupId = GroupId::new(1);

/// One node's replica.
pub(super) struct Replica {
    pub(super) state: TopicState,
    applied_end: u64,
    is_leading: bool,
    pub(super) events: VecDeque<TopicEvent>,
    /// A leader of which this replica's log has told.
    pub(super) told: Option<LeaderLocation>,
}

/// The group.
pub(super) struct Group {
    pub(super) term: Term,
    pub(super) leader: NodeId,
    /// The last one that began to serve; its node tells all others again and again.
    pub(super) serving: Option<LeaderLocation>,
    /// Index `i` stands at place `i - 1`.
    entries: Vec<Entry>,
    /// One past the last committed entry.
    committed_end: u64,
    pub(super) replicas: BTreeMap<NodeId, Replica>,
    pub(super) incarnations: BTreeMap<NodeId, u64>,
    /// Bodies in the order of the log, as the first replica to apply them saw them.
    pub(super) stored: BTreeMap<Seq, Bytes>,
    /// By the leader of which term they were proposed.
    pub(super) stored_in: BTreeMap<Seq, Term>,
    pub(super) bodies: BTreeSet<Bytes>,
}

struct Reader<'a>(&'a Group, u64);

impl TopicLog for Reader<'_> {
    fn propose(&self, _: Term, _: EntryKind, _: BytesMut, _: u64) -> BoxFuture<'_, ()> {
        unreachable!("the history proposes")
    }

    fn read_cached(&self, _: LogIndex, _: LogIndex, _: usize) -> Option<Vec<Entry>> {
        None
    }

    fn read(&self, from: LogIndex, to: LogIndex, _: usize) -> Result<Vec<Entry>, StorageError> {
        assert!(to.get() <= self.1, "a reader reads what is applied");
        let (from, to) = (from.get() as usize - 1, to.get() as usize - 1);
        Ok(self.0.entries[from..to.min(from + 3)].to_vec())
    }
}

impl Group {
    pub(super) fn new(nodes: &[NodeId]) -> Self {
        let replica = || Replica {
            state: TopicState::new(Seq::new(0)),
            applied_end: 1,
            is_leading: false,
            events: VecDeque::new(),
            told: None,
        };
        Self {
            term: Term::new(0),
            leader: nodes[0],
            serving: None,
            entries: Vec::new(),
            committed_end: 1,
            replicas: nodes.iter().map(|node| (*node, replica())).collect(),
            incarnations: nodes.iter().map(|node| (*node, 1)).collect(),
            stored: BTreeMap::new(),
            stored_in: BTreeMap::new(),
            bodies: BTreeSet::new(),
        }
    }

    pub(super) fn read_with<R>(&self, node: NodeId, run: impl FnOnce(&dyn TopicLog) -> R) -> R {
        run(&Reader(self, self.replicas[&node].applied_end))
    }

    pub(super) fn propose(&mut self, node: NodeId, term: Term, buffer: BytesMut, ticket: u64, lease_expired: bool) {
        let refusal = if term != self.term || self.leader != node {
            Refusal::NotLeader
        } else if lease_expired {
            Refusal::LeaseExpired
        } else {
            return self.append(EntryKind::TopicBatch, buffer);
        };
        let replica = self.replicas.get_mut(&node).unwrap();
        replica.events.push_back(TopicEvent::Refused { ticket, refusal });
    }

    fn append(&mut self, kind: EntryKind, buffer: BytesMut) {
        let index = LogIndex::new(self.entries.len() as u64 + 1);
        self.entries.push(Entry::seal(buffer, kind, GROUP, self.term, index));
    }

    /// Another term begins; the uncommitted end of the log is lost in part.
    pub(super) fn elect(&mut self, leader: NodeId, wall: LogTime, dice: &mut Dice) {
        let uncommitted = self.entries.len() as u64 + 1 - self.committed_end;
        let lost = if dice.one_in(2) { dice.below(uncommitted + 1) } else { 0 };
        self.entries.truncate(self.entries.len() - lost as usize);
        self.term = Term::new(self.term.get() + 1 + dice.below(2));
        self.leader = leader;
        self.append(EntryKind::Blank, BytesMut::zeroed(ENTRY_HEADER_BYTES));
        let start = LeaderStart {
            node: leader,
            incarnation: NodeIncarnation::new(self.incarnations[&leader]),
            term: self.term,
            clock: wall,
        };
        self.append(EntryKind::LeaderStart, start.encode(ENTRY_HEADER_BYTES));
    }

    /// The process of a node starts again.
    pub(super) fn restart(&mut self, node: NodeId) {
        *self.incarnations.get_mut(&node).unwrap() += 1;
        let replica = self.replicas.get_mut(&node).unwrap();
        replica.is_leading = false;
        replica.events.clear();
    }

    /// A majority has one entry more.
    pub(super) fn commit_one(&mut self) -> bool {
        let can = self.committed_end <= self.entries.len() as u64;
        self.committed_end += u64::from(can);
        can
    }

    /// A replica applies one committed entry more.
    pub(super) fn apply_one(&mut self, node: NodeId) -> bool {
        let incarnation = self.incarnations[&node];
        let replica = self.replicas.get_mut(&node).unwrap();
        if replica.applied_end >= self.committed_end {
            return false;
        }
        let entry = self.entries[replica.applied_end as usize - 1].clone();
        replica.applied_end += 1;
        let header = *entry.header();
        let at = EntryPosition {
            index: header.index,
            term: header.term,
            encoded_bytes: entry.encoded_len() as u32,
        };
        match header.kind {
            EntryKind::LeaderStart => {
                let start = LeaderStart::decode(&entry.payload()).unwrap();
                replica.state.apply_leader_start(at, &start).unwrap();
                let is_mine = start.node == node && start.incarnation.get() == incarnation;
                let location = LeaderLocation {
                    term: start.term,
                    node: start.node,
                };
                replica.told = Some(location);
                if is_mine {
                    self.serving = Some(location);
                }
                let was_leading = std::mem::replace(&mut replica.is_leading, is_mine);
                if is_mine {
                    let state = Box::new(replica.state.clone());
                    let term = start.term;
                    replica.events.push_back(TopicEvent::LeaderStarted { term, state });
                } else if was_leading {
                    replica.events.push_back(TopicEvent::Deposed);
                }
            }
            EntryKind::TopicBatch => {
                let batch = BatchView::parse(entry.payload()).unwrap();
                let applied = replica
                    .state
                    .apply_batch(at, &batch)
                    .expect("a correct leader proposed it");
                if matches!(applied, Applied::Accepted(_)) {
                    for message in batch.messages() {
                        if !self.stored.contains_key(&message.seq) {
                            assert!(
                                self.bodies.insert(message.body.clone()),
                                "{:?} is stored twice",
                                message.body
                            );
                            self.stored_in.insert(message.seq, batch.header().term);
                            self.stored.insert(message.seq, message.body);
                        }
                    }
                }
                if replica.is_leading {
                    replica.events.push_back(TopicEvent::Applied { entry, batch, applied });
                }
            }
            _ => replica.state.apply_other(at).unwrap(),
        }
        true
    }
}
