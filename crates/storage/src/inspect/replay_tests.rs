//! The check of one group, on logs made by hand.

use bytes::Bytes;
use nsquorum_topic::{
    Applied, BatchBuilder, BatchView, ChannelIncarnation, EntryPosition, Event, FeatureLevel, GroupId, LeaderStart,
    LogIndex, LogTime, NewMessage, NodeId, NodeIncarnation, Seq, SeqRange, Term, TopicState,
};

use super::replay::{self, Findings, Replayed, StoredGroup};
use super::report::{Finding, Place, TopicReport};
use super::topic::TopicMachine;
use crate::entry::{ENTRY_HEADER_BYTES, Entry, EntryKind};
use crate::log::{Checkpoint, CheckpointSlot, EntryRow, LogId};

const GROUP: GroupId = GroupId::new(3);
const TERM: Term = Term::new(2);

/// A log with two channels, finished, requeued and deferred messages, and void batches.
struct History {
    entries: Vec<Entry>,
    state: TopicState,
    /// The state after each entry.
    states: Vec<Vec<u8>>,
}

impl History {
    fn new() -> Self {
        let mut history = Self {
            entries: Vec::new(),
            state: TopicState::new(Seq::new(0)),
            states: Vec::new(),
        };
        history.push(Entry::copy_of(
            b"members",
            EntryKind::Membership,
            GROUP,
            Term::new(0),
            LogIndex::new(0),
        ));
        history.push(Entry::copy_of(b"", EntryKind::Blank, GROUP, TERM, LogIndex::new(1)));
        let start = LeaderStart {
            node: NodeId::new(1),
            incarnation: NodeIncarnation::new(1),
            term: TERM,
            clock: LogTime::new(5),
        };
        let start = start.encode(ENTRY_HEADER_BYTES);
        history.push(Entry::seal(
            start,
            EntryKind::LeaderStart,
            GROUP,
            TERM,
            LogIndex::new(2),
        ));
        history.batch(|batch| {
            batch.push_event(&Event::CreateChannel {
                name: "ledger".parse().unwrap(),
            });
            batch.push_event(&Event::CreateChannel {
                name: "archive".parse().unwrap(),
            });
        });
        for round in 0..40u64 {
            history.batch(|batch| {
                for number in 0..5u64 {
                    let body = vec![round as u8; 1000 + number as usize];
                    let mut message = NewMessage::new(body.into(), LogTime::new(7));
                    message.defer_ms = if round == 30 { 1_000_000 } else { 0 };
                    batch.push_message(&message);
                }
                if round > 1 {
                    let range = SeqRange::new(Seq::new(round * 4), Seq::new(round * 4 + 1)).unwrap();
                    batch.push_event(&Event::Finish {
                        channel: ChannelIncarnation::new(1),
                        ranges: vec![range],
                    });
                }
            });
            if round % 7 == 0 {
                // Made for a number that is not the next: the batch before it was refused.
                let skipped = history.state.next_seq().plus(3);
                history.batch_at(skipped, |batch| {
                    batch.push_message(&NewMessage::new(Bytes::from_static(b"never answered"), LogTime::new(7)));
                });
            }
        }
        history
    }

    fn push(&mut self, entry: Entry) {
        let header = *entry.header();
        let at = EntryPosition {
            index: header.index,
            term: header.term,
            encoded_bytes: entry.encoded_len() as u32,
        };
        match header.kind {
            EntryKind::TopicBatch => {
                let batch = BatchView::parse(entry.payload()).unwrap();
                let _: Applied = self.state.apply_batch(at, &batch).unwrap();
            }
            EntryKind::LeaderStart => {
                self.state
                    .apply_leader_start(at, &LeaderStart::decode(&entry.payload()).unwrap())
                    .unwrap();
            }
            _ => self.state.apply_other(at).unwrap(),
        }
        self.entries.push(entry);
        self.states.push(self.state.encode());
    }

    fn batch(&mut self, fill: impl FnOnce(&mut BatchBuilder)) {
        self.batch_at(self.state.next_seq(), fill);
    }

    fn batch_at(&mut self, first: Seq, fill: impl FnOnce(&mut BatchBuilder)) {
        let mut batch = BatchBuilder::with_header_room(ENTRY_HEADER_BYTES);
        fill(&mut batch);
        let payload = batch.finish(TERM, first, LogTime::new(9), FeatureLevel::default());
        let index = LogIndex::new(self.entries.len() as u64);
        self.push(Entry::seal(payload, EntryKind::TopicBatch, GROUP, TERM, index));
    }

    fn log_id(&self, at: usize) -> LogId {
        self.entries[at].log_id()
    }

    fn checkpoint(&self, slot: CheckpointSlot, at: usize) -> (CheckpointSlot, Checkpoint) {
        let state = self.states[at].clone().into();
        (
            slot,
            Checkpoint {
                log_id: Some(self.log_id(at)),
                membership: Bytes::new(),
                state,
            },
        )
    }

    fn stored(&self) -> StoredGroup {
        StoredGroup {
            group: GROUP,
            vote: None,
            committed: Some(self.log_id(self.entries.len() - 1)),
            purged: None,
            checkpoints: vec![],
            rows: self.entries.iter().map(EntryRow::of).collect(),
        }
    }

    fn bytes(&self) -> Vec<(LogIndex, Bytes)> {
        self.entries
            .iter()
            .map(|entry| (entry.header().index, entry.bytes().clone()))
            .collect()
    }
}

fn run(stored: &StoredGroup, entries: &[(LogIndex, Bytes)]) -> (Replayed, TopicReport, Vec<Finding>) {
    let mut machine = TopicMachine::new(Seq::new(0), true);
    let mut findings = Findings::new(GROUP);
    let replayed = replay::run(stored, &mut machine, &mut findings, |visit| {
        for (index, bytes) in entries {
            visit(*index, Ok(bytes.clone()));
        }
    });
    let topic = machine.into_report(replayed.committed_digest, &mut findings);
    (replayed, topic, findings.into_list())
}

fn entry(index: u64) -> Place {
    Place::Entry {
        group: GROUP,
        index: LogIndex::new(index),
    }
}

#[test]
fn a_good_log_is_clean_and_adds_up_to_its_state() {
    let history = History::new();
    let mut stored = history.stored();
    stored.checkpoints = vec![
        history.checkpoint(CheckpointSlot::Newest, 30),
        history.checkpoint(CheckpointSlot::Purge, 10),
    ];
    let (replayed, topic, findings) = run(&stored, &history.bytes());
    assert_eq!(findings, []);
    assert!(replayed.has_state);
    assert_eq!(replayed.last, Some(history.log_id(history.entries.len() - 1)));
    assert_eq!(topic.digest, history.state.digest());
    assert_eq!((topic.replayed_void, topic.void_batches), (6, 6));
    assert_eq!(topic.next_seq, Seq::new(201));
    assert_eq!(topic.channels.len(), 2);
    assert!(!topic.channels[0].finished.is_empty());
    assert_eq!(topic.deferred.len(), 5);
    assert!(topic.index_points > 1, "the log is long enough for several points");
    assert!(topic.committed_digest.is_none());
    // A reader sees exactly the accepted messages, in order, and never a void one.
    let messages = topic.messages.unwrap();
    assert_eq!(
        messages.iter().map(|line| line.seq.get()).collect::<Vec<_>>(),
        (1..=200).collect::<Vec<_>>()
    );
    assert!(messages.iter().all(|line| line.length >= 1000));
}

#[test]
fn a_purged_log_begins_at_its_checkpoint() {
    let history = History::new();
    let mut stored = history.stored();
    stored.checkpoints = vec![
        history.checkpoint(CheckpointSlot::Newest, 30),
        history.checkpoint(CheckpointSlot::Purge, 3),
    ];
    stored.purged = Some(history.log_id(3));
    stored.rows.drain(..4);
    let (_, topic, findings) = run(&stored, &history.bytes()[4..]);
    assert_eq!(findings, []);
    assert_eq!(topic.digest, history.state.digest());
}

#[test]
fn the_state_at_the_commit_mark_is_shown_apart() {
    let history = History::new();
    let mut stored = history.stored();
    stored.committed = Some(history.log_id(20));
    let (_, topic, findings) = run(&stored, &history.bytes());
    assert_eq!(findings, []);
    assert_eq!(topic.digest, history.state.digest());
    assert_eq!(
        topic.committed_digest,
        Some(TopicState::decode(&history.states[20]).unwrap().digest())
    );
}

#[test]
fn a_checkpoint_that_is_not_what_the_log_adds_up_to_is_named() {
    let history = History::new();
    let mut stored = history.stored();
    let (slot, mut checkpoint) = history.checkpoint(CheckpointSlot::Newest, 30);
    checkpoint.state = history.states[29].clone().into();
    stored.checkpoints = vec![(slot, checkpoint)];
    let (_, _, findings) = run(&stored, &history.bytes());
    assert_eq!(
        findings[0].place,
        Place::Checkpoint {
            group: GROUP,
            slot: CheckpointSlot::Newest
        }
    );
}

#[test]
fn a_checkpoint_beyond_the_log_is_named() {
    let history = History::new();
    let mut stored = history.stored();
    stored.checkpoints = vec![history.checkpoint(CheckpointSlot::Newest, 40)];
    stored.rows.truncate(30);
    stored.committed = None;
    let (_, _, findings) = run(&stored, &history.bytes()[..30]);
    assert_eq!(findings.len(), 1, "{findings:?}");
    assert!(findings[0].what.contains("the log ends at 29"), "{findings:?}");
}

#[test]
fn a_damaged_entry_is_named_and_the_next_checkpoint_goes_on() {
    let history = History::new();
    let mut stored = history.stored();
    stored.checkpoints = vec![history.checkpoint(CheckpointSlot::Newest, 30)];
    let mut entries = history.bytes();
    let mut bad = entries[12].1.to_vec();
    *bad.last_mut().unwrap() ^= 1;
    entries[12].1 = bad.into();
    let (replayed, topic, findings) = run(&stored, &entries);
    assert_eq!(findings[0].place, entry(12));
    assert!(replayed.has_state);
    assert_eq!(topic.digest, history.state.digest());
}

#[test]
fn a_missing_entry_a_missing_row_and_a_changed_row_are_named() {
    let history = History::new();
    let mut entries = history.bytes();
    entries.remove(20);
    let (_, _, findings) = run(&history.stored(), &entries);
    assert!(
        findings.iter().any(|finding| finding.place == entry(20)),
        "{findings:?}"
    );

    let mut stored = history.stored();
    stored.rows.remove(20);
    let (_, _, findings) = run(&stored, &history.bytes());
    assert!(
        findings
            .iter()
            .any(|finding| finding.place == entry(20) && finding.what.contains("no row")),
        "{findings:?}"
    );
    assert!(
        findings.iter().any(|finding| finding.what.contains("hole")),
        "{findings:?}"
    );

    let mut stored = history.stored();
    stored.rows[20].encoded_bytes += 1;
    let (_, _, findings) = run(&stored, &history.bytes());
    assert_eq!(findings.len(), 1);
    assert_eq!(findings[0].place, entry(20));
}

#[test]
fn a_body_that_changed_before_it_was_stored_is_named() {
    let mut history = History::new();
    let mut message = NewMessage::new(Bytes::from_static(b"body"), LogTime::new(7));
    message.crc32c ^= 1;
    history.batch(|batch| batch.push_message(&message));
    let (_, _, findings) = run(&history.stored(), &history.bytes());
    assert_eq!(findings.len(), 1);
    assert_eq!(findings[0].place, entry(history.entries.len() as u64 - 1));
    assert!(findings[0].what.contains("body of message 201"), "{findings:?}");
}

#[test]
fn an_entry_of_another_group_is_named() {
    let history = History::new();
    let mut entries = history.bytes();
    entries[12].1 = history.entries[12]
        .clone()
        .reposition(GroupId::new(9), TERM, LogIndex::new(12))
        .bytes()
        .clone();
    let (_, _, findings) = run(&history.stored(), &entries);
    assert_eq!(findings[0].place, entry(12));
}
