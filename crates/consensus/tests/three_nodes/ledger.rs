//! What was promised, and whether every replica keeps it.

use std::collections::{BTreeMap, BTreeSet};

use nsquorum_storage::{CheckpointSlot, EntryKind, GroupLog, NodeStore};
use nsquorum_topic::{Applied, BatchView, EntryPosition, GroupId, LeaderStart, LogIndex, NodeId, Seq, TopicState};

use crate::cluster::TestCluster;
use crate::disk::Disk;

/// Everything sent, and everything acknowledged.
#[derive(Default)]
pub(crate) struct Ledger {
    sent: BTreeSet<String>,
    acknowledged: BTreeMap<Seq, String>,
}

/// What one replica has.
#[derive(Debug, PartialEq, Eq)]
struct Replica {
    digest: String,
    last: LogIndex,
    next_seq: Seq,
}

impl Ledger {
    pub(crate) fn sent(&mut self, body: &str) {
        self.sent.insert(body.to_owned());
    }

    pub(crate) fn acknowledged(&mut self, seq: Seq, body: &str) {
        let before = self.acknowledged.insert(seq, body.to_owned());
        assert_eq!(before, None, "number {seq} was given twice");
    }

    /// The highest number acknowledged.
    pub(crate) fn last(&self) -> Option<Seq> {
        self.acknowledged.keys().next_back().copied()
    }

    pub(crate) fn count(&self) -> usize {
        self.acknowledged.len()
    }

    /// Stops all nodes and compares what lies on their disks: equal states, every acknowledged message in its place, nothing that was
    /// never sent, no number twice.
    pub(crate) async fn settle<D: Disk>(&self, cluster: &mut TestCluster<D>, group: GroupId) {
        let ids = cluster.ids();
        cluster.freeze(group).await;
        let replicas: BTreeMap<NodeId, Replica> = ids
            .iter()
            .map(|id| (*id, self.check(&cluster.store(*id), group, *id)))
            .collect();
        let first = replicas.values().next().unwrap();
        for (id, replica) in &replicas {
            assert_eq!(replica, first, "node {id} differs: {replicas:#?}");
        }
        for (seq, body) in &self.acknowledged {
            assert!(
                *seq < first.next_seq,
                "{body:?} with number {seq} was acknowledged and is gone"
            );
        }
    }

    /// Walks a replica's log from its newest checkpoint.
    fn check<S: NodeStore>(&self, store: &S, group: GroupId, id: NodeId) -> Replica {
        let log = store.open_group(group).unwrap();
        let from = log.state().last_purged.map_or(0, |purged| purged.index.get() + 1);
        let slot = if from == 0 {
            None
        } else {
            log.checkpoint(CheckpointSlot::Purge).unwrap()
        };
        let mut state = match &slot {
            Some(checkpoint) => TopicState::decode(&checkpoint.state).unwrap(),
            None => TopicState::new(Seq::new(0)),
        };
        let after = slot
            .and_then(|checkpoint| checkpoint.log_id)
            .map_or(0, |last| last.index.get() + 1);
        assert!(after >= from, "node {id}: a hole between checkpoint and log");
        let last = log.state().last.unwrap().index;
        let mut numbers = BTreeSet::new();
        let mut next = LogIndex::new(after);
        while next <= last {
            for entry in log.read(next, last.next(), 1 << 20).unwrap() {
                let header = *entry.header();
                next = header.index.next();
                let at = EntryPosition {
                    index: header.index,
                    term: header.term,
                    encoded_bytes: entry.encoded_len() as u32,
                };
                match header.kind {
                    EntryKind::LeaderStart => {
                        let start = LeaderStart::decode(&entry.payload()).unwrap();
                        state.apply_leader_start(at, &start).unwrap();
                    }
                    EntryKind::TopicBatch => {
                        let batch = BatchView::parse(entry.payload()).unwrap();
                        if let Applied::Accepted(_) = state.apply_batch(at, &batch).unwrap() {
                            for message in batch.messages() {
                                let body = String::from_utf8(message.body.to_vec()).unwrap();
                                assert!(numbers.insert(message.seq), "node {id}: number {} twice", message.seq);
                                assert!(self.sent.contains(&body), "node {id}: {body:?} was never sent");
                                if let Some(promised) = self.acknowledged.get(&message.seq) {
                                    assert_eq!(promised, &body, "node {id}: number {}", message.seq);
                                }
                            }
                        }
                    }
                    _ => state.apply_other(at).unwrap(),
                }
            }
        }
        Replica {
            digest: state.digest().to_string(),
            last,
            next_seq: state.next_seq(),
        }
    }
}
