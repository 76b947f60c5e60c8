//! A group under the leader: a log in memory, a real topic state, and elections when the dice say so.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::{Bytes, BytesMut};
use nsquorum_consensus::{BoxFuture, Refusal, TopicEvent, TopicLog};
use nsquorum_storage::{ENTRY_HEADER_BYTES, Entry, EntryKind, StorageError};
use nsquorum_topic::{
    Applied, BatchView, ChannelIncarnation, EntryPosition, Event, GroupId, LeaderStart, LogIndex, LogTime, NodeId,
    NodeIncarnation, Seq, Term, TopicState,
};

use crate::dice::Dice;

const GROUP: GroupId = GroupId::new(1);
/// The node whose leader is tested.
pub(super) const ME: NodeId = NodeId::new(1);
/// Another node.
pub(super) const OTHER: NodeId = NodeId::new(2);

/// A message that apply accepted.
#[derive(Clone, Debug)]
pub(super) struct Stored {
    pub(super) body: Bytes,
    pub(super) published_at: LogTime,
}

/// What is in the log, applied or not.
#[derive(Debug, Default)]
pub(super) struct FakeLog {
    /// Index `i` stands at place `i - 1`.
    entries: Vec<Entry>,
    purged_below: u64,
    applied_end: u64,
    /// Entries that one read gives.
    pub(super) chunk: usize,
    /// Whether everything is in memory.
    pub(super) is_cached: bool,
}

impl FakeLog {
    fn last(&self) -> u64 {
        self.entries.len() as u64
    }
}

impl TopicLog for FakeLog {
    fn propose(&self, _: Term, _: EntryKind, _: BytesMut, _: u64) -> BoxFuture<'_, ()> {
        unreachable!("the history proposes")
    }

    fn read_cached(&self, from: LogIndex, to: LogIndex, bytes_max: usize) -> Option<Vec<Entry>> {
        self.is_cached
            .then(|| self.read(from, to, bytes_max).expect("memory does not fail"))
    }

    fn read(&self, from: LogIndex, to: LogIndex, _: usize) -> Result<Vec<Entry>, StorageError> {
        assert!(
            to.get() <= self.applied_end,
            "a reader wants entries before {to}, applied are those before {}",
            self.applied_end
        );
        if from.get() < self.purged_below {
            return Ok(Vec::new());
        }
        let (from, to) = (from.get() as usize - 1, to.get() as usize - 1);
        Ok(self.entries[from..to.min(from + self.chunk.max(1))].to_vec())
    }
}

/// An event, with the term of the proposal that it answers.
#[derive(Debug)]
pub(super) struct GroupEvent {
    pub(super) event: TopicEvent,
    pub(super) proposed_in: Option<Term>,
}

/// The group.
#[derive(Debug)]
pub(super) struct FakeGroup {
    pub(super) term: Term,
    pub(super) leader: NodeId,
    pub(super) state: TopicState,
    pub(super) log: FakeLog,
    pub(super) events: VecDeque<GroupEvent>,
    /// Whether events are told: this node's leader start was applied, and no other since.
    is_leading: bool,
    pub(super) incarnation: u64,
    /// Everything that apply ever accepted.
    pub(super) stored: BTreeMap<Seq, Stored>,
    pub(super) bodies: BTreeSet<Bytes>,
    /// Messages that were emptied out of a channel.
    pub(super) excused: BTreeSet<(ChannelIncarnation, Seq)>,
    pub(super) void: u64,
    pub(super) refused: u64,
}

impl FakeGroup {
    pub(super) fn new() -> Self {
        Self {
            term: Term::new(0),
            leader: OTHER,
            state: TopicState::new(Seq::new(0)),
            log: FakeLog {
                applied_end: 1,
                chunk: 1,
                ..FakeLog::default()
            },
            events: VecDeque::new(),
            is_leading: false,
            incarnation: 1,
            stored: BTreeMap::new(),
            bodies: BTreeSet::new(),
            excused: BTreeSet::new(),
            void: 0,
            refused: 0,
        }
    }

    /// Entries that are appended and not applied.
    pub(super) fn unapplied(&self) -> u64 {
        self.log.last() + 1 - self.log.applied_end
    }

    /// Takes a proposal: appends it, or refuses it as openraft does.
    pub(super) fn propose(&mut self, term: Term, buffer: BytesMut, ticket: u64, lease_expired: bool) {
        let refusal = if term != self.term || self.leader != ME {
            Refusal::NotLeader
        } else if lease_expired {
            Refusal::LeaseExpired
        } else {
            return self.append(EntryKind::TopicBatch, buffer);
        };
        self.refused += 1;
        self.events.push_back(GroupEvent {
            event: TopicEvent::Refused { ticket, refusal },
            proposed_in: Some(term),
        });
    }

    pub(super) fn append(&mut self, kind: EntryKind, buffer: BytesMut) {
        let index = LogIndex::new(self.log.last() + 1);
        self.log
            .entries
            .push(Entry::seal(buffer, kind, GROUP, self.term, index));
    }

    /// An entry that is none of the topic's business.
    pub(super) fn append_blank(&mut self) {
        self.append(EntryKind::Blank, BytesMut::zeroed(ENTRY_HEADER_BYTES));
    }

    /// Another term begins. What was appended and not applied is there still, or in part.
    pub(super) fn elect(&mut self, leader: NodeId, wall: LogTime, dice: &mut Dice) {
        let lost = if dice.one_in(2) {
            dice.below(self.unapplied() + 1)
        } else {
            0
        };
        self.log.entries.truncate((self.log.last() - lost) as usize);
        self.term = Term::new(self.term.get() + 1 + dice.below(2));
        self.leader = leader;
        self.append_blank();
        let incarnation = NodeIncarnation::new(self.incarnation);
        let start = LeaderStart {
            node: leader,
            incarnation,
            term: self.term,
            clock: wall,
        };
        self.append(EntryKind::LeaderStart, start.encode(ENTRY_HEADER_BYTES));
    }

    /// The process starts again: from the state that it had written, without events.
    pub(super) fn restart(&mut self) {
        let restored = TopicState::decode(&self.state.encode()).expect("a state is read back");
        assert_eq!(restored, self.state, "the state survives its encoding");
        self.state = restored;
        self.events.clear();
        self.is_leading = false;
        self.incarnation += 1;
    }

    /// Drops what the state does not need any more.
    pub(super) fn purge(&mut self) {
        self.log.purged_below = self.log.purged_below.max(self.state.purge_index().get());
    }

    fn tell(&mut self, event: TopicEvent) {
        self.events.push_back(GroupEvent {
            event,
            proposed_in: None,
        });
    }

    /// Applies the next entry; false if there is none.
    pub(super) fn apply_one(&mut self) -> bool {
        let Some(entry) = self.log.entries.get(self.log.applied_end as usize - 1).cloned() else {
            return false;
        };
        self.log.applied_end += 1;
        let header = *entry.header();
        let encoded_bytes = entry.encoded_len() as u32;
        let at = EntryPosition {
            index: header.index,
            term: header.term,
            encoded_bytes,
        };
        match header.kind {
            EntryKind::LeaderStart => {
                let start = LeaderStart::decode(&entry.payload()).unwrap();
                self.state.apply_leader_start(at, &start).unwrap();
                let is_mine = start.node == ME && start.incarnation.get() == self.incarnation;
                let was_leading = std::mem::replace(&mut self.is_leading, is_mine);
                if is_mine {
                    self.tell(TopicEvent::LeaderStarted {
                        term: start.term,
                        state: Box::new(self.state.clone()),
                    });
                } else if was_leading {
                    self.tell(TopicEvent::Deposed);
                }
            }
            EntryKind::TopicBatch => {
                let batch = BatchView::parse(entry.payload()).unwrap();
                let before = self.state.clone();
                let applied = self
                    .state
                    .apply_batch(at, &batch)
                    .expect("a correct leader proposed it");
                match &applied {
                    Applied::Accepted(_) => self.note(&before, &batch),
                    Applied::Void(_) => self.void += 1,
                }
                if self.is_leading {
                    self.tell(TopicEvent::Applied { entry, batch, applied });
                }
            }
            _ => self.state.apply_other(at).unwrap(),
        }
        true
    }

    fn note(&mut self, before: &TopicState, batch: &BatchView) {
        for message in batch.messages() {
            assert!(message.is_intact(), "message {} is damaged", message.seq);
            assert!(
                self.bodies.insert(message.body.clone()),
                "message {} was stored twice",
                message.seq
            );
            self.stored.insert(
                message.seq,
                Stored {
                    body: message.body,
                    published_at: message.published_at,
                },
            );
        }
        if batch
            .events()
            .any(|event| matches!(event, Event::EmptyTopic | Event::EmptyChannel { .. }))
        {
            self.note_dropped(before, batch);
        }
    }

    /// Whatever became finished in a batch that no consumer finished in it was emptied.
    fn note_dropped(&mut self, before: &TopicState, batch: &BatchView) {
        let mut finished = BTreeSet::new();
        for event in batch.events() {
            if let Event::Finish { channel, ranges } = event {
                let seqs = ranges.iter().flat_map(|range| range.first().get()..=range.last().get());
                finished.extend(seqs.map(|seq| (channel, Seq::new(seq))));
            }
        }
        for channel in self.state.channels() {
            let id = channel.incarnation();
            for seq in (1..self.state.next_seq().get()).map(Seq::new) {
                let was_finished = before.channel(id).is_some_and(|channel| channel.is_finished(seq));
                if channel.is_finished(seq) && !was_finished && !finished.contains(&(id, seq)) {
                    self.excused.insert((id, seq));
                }
            }
        }
    }
}
