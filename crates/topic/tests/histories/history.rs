//! One random life of a topic: a leader that pipelines, a log that refuses, terms that change, replicas that restart.

use std::collections::VecDeque;

use bytes::Bytes;
use nsquorum_topic::{
    Applied, BatchBuilder, BatchView, EntryPosition, FeatureLevel, LeaderStart, LogIndex, LogTime, NewMessage, NodeId,
    NodeIncarnation, Seq, Term, TopicState,
};

use super::compare;
use super::content::Content;
use super::dice::Dice;
use super::naive::{Naive, NaiveBatch, NaiveMessage};
use super::routers::Routers;

/// Room that a storage format would ask for.
const ROOM: usize = 48;

#[derive(Clone, Debug)]
pub(crate) enum Payload {
    Other,
    LeaderStart(Bytes),
    Batch(Bytes),
}

#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) at: EntryPosition,
    pub(crate) payload: Payload,
}

/// Counts over all histories, to see that they contain what they claim to.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Census {
    pub(crate) accepted: u64,
    pub(crate) void: u64,
    pub(crate) refused: u64,
    pub(crate) terms: u64,
    pub(crate) restarts: u64,
    pub(crate) deleted: u64,
    pub(crate) deferred: u64,
    pub(crate) requeued: u64,
    pub(crate) pruned_points: u64,
    pub(crate) sent_again: u64,
    pub(crate) sessions_ended: u64,
}

pub(crate) struct History {
    dice: Dice,
    seq_base: Seq,
    naive: Naive,
    state: TopicState,
    log: Vec<Entry>,
    checkpoint: Option<(usize, Vec<u8>)>,
    serial: u64,
    term: u64,
    /// The leader's clock: what it says, not what the log makes of it.
    clock: u64,
    planned: u64,
    in_flight: VecDeque<(NaiveBatch, Content)>,
    /// Content that must be proposed again, in order.
    again: VecDeque<Content>,
    /// Something was refused or void: nothing is proposed until all that is in flight has settled.
    is_disturbed: bool,
    routers: Routers,
    census: Census,
}

impl History {
    pub(crate) fn run(seed: u64) -> Census {
        let mut dice = Dice::new(seed);
        let seq_base = if dice.one_in(3) { dice.below(1_000_000) } else { 0 };
        let mut history = Self {
            dice,
            seq_base: Seq::new(seq_base),
            naive: Naive::new(seq_base),
            state: TopicState::new(Seq::new(seq_base)),
            log: Vec::new(),
            checkpoint: None,
            serial: 0,
            term: 0,
            clock: 1_000_000_000,
            planned: 0,
            in_flight: VecDeque::new(),
            again: VecDeque::new(),
            is_disturbed: false,
            routers: Routers::default(),
            census: Census::default(),
        };
        history.change_term();
        for _ in 0..80 + history.dice.below(220) {
            history.step();
        }
        while history.settle_one() {}
        history.check_all();
        history.restart();
        history.census.deleted = u64::from(history.naive.is_deleted);
        history.census.sessions_ended = history.naive.ended.len() as u64;
        history.census
    }

    fn step(&mut self) {
        match self.dice.below(40) {
            0 => self.change_term(),
            1 => self.append(Payload::Other),
            2 | 3 => self.checkpoint = Some((self.log.len(), self.state.encode())),
            4 => self.restart(),
            5 | 6 => self.check_all(),
            7..=22 => self.propose(),
            _ => {
                self.settle_one();
            }
        }
    }

    fn propose(&mut self) {
        if self.in_flight.is_empty() && self.is_disturbed {
            self.is_disturbed = false;
            self.planned = self.state.next_seq().get();
        }
        if self.is_disturbed || self.in_flight.len() >= 6 {
            return;
        }
        let again = if self.dice.one_in(8) {
            self.again.pop_back()
        } else {
            self.again.pop_front()
        };
        let mut content = again.unwrap_or_else(|| {
            let mut content = Content::random(&mut self.dice, &self.naive, &mut self.serial);
            self.routers.number(&mut self.dice, &mut content);
            content
        });
        let under_way: Vec<&Content> = self.in_flight.iter().map(|(_, content)| content).collect();
        self.census.sent_again += self
            .routers
            .keep_new(&mut content, &under_way, &self.state, &self.naive);
        if content.messages.is_empty() && content.events.is_empty() {
            return;
        }
        self.tick();
        let batch = NaiveBatch {
            term: self.term,
            first_seq: self.planned,
            time: self.clock,
            events: content.events.clone(),
            messages: content.messages.clone(),
        };
        self.planned += batch.messages.len() as u64;
        self.in_flight.push_back((batch, content));
    }

    /// The leader's clock goes on, or, after a change of leaders, somewhere else.
    fn tick(&mut self) {
        self.clock += self.dice.below(400_000_000);
    }

    fn settle_one(&mut self) -> bool {
        let Some((batch, content)) = self.in_flight.pop_front() else {
            return false;
        };
        if self.dice.one_in(8) {
            self.census.refused += 1;
            self.disturb(content);
        } else if !self.append_batch(&batch) {
            self.disturb(content);
        } else {
            self.answer(content);
        }
        true
    }

    /// The answer reaches its router, or is lost and the publish is sent again.
    fn answer(&mut self, content: Content) {
        if !self.dice.one_in(6) {
            self.routers.answered(&content);
        } else if !self.naive.is_deleted {
            self.again.push_back(Content {
                events: Vec::new(),
                messages: content.messages,
            });
        }
    }

    fn disturb(&mut self, content: Content) {
        self.is_disturbed = true;
        if !self.naive.is_deleted {
            self.again.push_back(content);
        }
    }

    fn change_term(&mut self) {
        self.census.terms += 1;
        let mut was_appended_late = Vec::new();
        while let Some((batch, content)) = self.in_flight.pop_front() {
            match self.dice.below(3) {
                0 => {
                    self.append_batch(&batch);
                    // Nobody is left to answer.
                    self.again.push_back(Content {
                        events: Vec::new(),
                        messages: content.messages,
                    });
                }
                1 => was_appended_late.push(batch),
                _ => self.again.push_back(content),
            }
        }
        self.term += 1 + self.dice.below(3);
        if self.dice.one_in(2) {
            self.clock = self.clock.saturating_sub(self.dice.below(2_000_000_000));
        }
        self.append(Payload::Other);
        for batch in was_appended_late {
            assert!(!self.append_batch(&batch), "a batch of an older term never counts");
        }
        let clock = LogTime::new(self.clock.max(self.state.time().get()));
        let node = NodeId::new(1 + self.dice.below(3));
        let start = LeaderStart {
            node,
            incarnation: NodeIncarnation::new(7),
            term: Term::new(self.term),
            clock,
        };
        if self.dice.one_in(6) {
            let foreign = LeaderStart {
                term: Term::new(self.term - 1),
                clock: clock.plus_ms(1_000),
                ..start
            };
            self.append(Payload::LeaderStart(foreign.encode(ROOM).split_off(ROOM).freeze()));
        }
        self.append(Payload::LeaderStart(start.encode(ROOM).split_off(ROOM).freeze()));
        assert_eq!(self.state.leader(), Some(&start));
        self.planned = self.state.next_seq().get();
        self.is_disturbed = false;
    }

    fn append(&mut self, payload: Payload) {
        let len = match &payload {
            Payload::Other => 0,
            Payload::LeaderStart(bytes) | Payload::Batch(bytes) => bytes.len(),
        };
        // Bodies are small here; an invented length now and then makes the history cross several index points.
        let invented = if self.dice.one_in(3) {
            self.dice.below(60_000)
        } else {
            0
        };
        let at = EntryPosition {
            index: LogIndex::new(self.log.len() as u64),
            term: Term::new(self.term),
            encoded_bytes: (ROOM + len) as u32 + invented as u32,
        };
        self.log.push(Entry { at, payload });
        if let Some(Payload::LeaderStart(bytes)) = self.log.last().map(|entry| &entry.payload) {
            let start = LeaderStart::decode(bytes).unwrap();
            if start.term.get() == self.term {
                self.naive.leader_start(start.clock.get());
            } else {
                self.naive.voided += 1;
            }
        }
        if !matches!(self.log.last().map(|entry| &entry.payload), Some(Payload::Batch(_))) {
            apply(&mut self.state, self.log.last().unwrap());
        }
    }

    /// Appends and applies; says whether the batch was accepted.
    fn append_batch(&mut self, batch: &NaiveBatch) -> bool {
        let payload = encode(batch);
        self.append(Payload::Batch(payload));
        let points = self.state.index_points().len();
        let expected = self.naive.apply(self.term, batch);
        let applied = apply(&mut self.state, self.log.last().unwrap()).unwrap();
        assert_eq!(applied, expected, "outcome of {batch:?}");
        compare::quick(&self.state, &self.naive);
        self.census.pruned_points += u64::from(self.state.index_points().len() < points);
        self.census.deferred += self.naive.due.len() as u64;
        self.census.requeued += self.state.usage().exceptions;
        match applied {
            Applied::Accepted(_) => self.census.accepted += 1,
            Applied::Void(_) => self.census.void += 1,
        }
        matches!(applied, Applied::Accepted(_))
    }

    /// A replica starts again at its checkpoint and applies the log behind it.
    fn restart(&mut self) {
        self.census.restarts += 1;
        let (from, mut state) = match &self.checkpoint {
            Some((from, bytes)) => (*from, TopicState::decode(bytes).unwrap()),
            None => (0, TopicState::new(self.seq_base)),
        };
        for entry in &self.log[from..] {
            apply(&mut state, entry);
        }
        assert_eq!(
            state.digest(),
            self.state.digest(),
            "digest after a restart from entry {from}"
        );
        assert!(state == self.state, "state after a restart from entry {from}");
        self.state = state;
    }

    fn check_all(&mut self) {
        compare::whole(&self.state, &self.naive);
        compare::readers(&self.state, &self.naive, self.seq_base, &self.log);
        let decoded = TopicState::decode(&self.state.encode()).unwrap();
        assert!(decoded == self.state, "encode and decode");
    }
}

fn encode(batch: &NaiveBatch) -> Bytes {
    let mut builder = BatchBuilder::with_header_room(ROOM);
    for message in &batch.messages {
        builder.push_message(&new_message(message));
    }
    for event in &batch.events {
        builder.push_event(event);
    }
    let announced = builder.encoded_len();
    let mut bytes = builder.finish(
        Term::new(batch.term),
        Seq::new(batch.first_seq),
        LogTime::new(batch.time),
        FeatureLevel::new(1),
    );
    assert_eq!(bytes.len(), ROOM + announced);
    bytes.split_off(ROOM).freeze()
}

fn new_message(message: &NaiveMessage) -> NewMessage {
    let plain = NewMessage::new(message.body.clone(), LogTime::new(message.published_at));
    NewMessage {
        defer_ms: message.defer_ms,
        origin: message.origin,
        ..plain
    }
}

fn apply(state: &mut TopicState, entry: &Entry) -> Option<Applied> {
    match &entry.payload {
        Payload::Other => {
            state.apply_other(entry.at).unwrap();
            None
        }
        Payload::LeaderStart(bytes) => {
            state
                .apply_leader_start(entry.at, &LeaderStart::decode(bytes).unwrap())
                .unwrap();
            None
        }
        Payload::Batch(bytes) => {
            let view = BatchView::parse(bytes.clone()).unwrap();
            Some(state.apply_batch(entry.at, &view).unwrap())
        }
    }
}
