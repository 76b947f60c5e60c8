//! One random history: what happens next, and who is told.

use std::collections::BTreeMap;
use std::time::Duration;

use nsquorum_environment::Monotonic;
use nsquorum_storage::SpaceState;
use nsquorum_topic::{Event, Seq, Term};
use tokio::sync::mpsc::error::TryRecvError;
use tokio::sync::oneshot;

use super::consumers::Consumer;
use super::group::{FakeGroup, ME, OTHER};
use super::model::Model;
use super::publishers::{Publishers, number_of};
use super::topic;
use crate::dice::Dice;
use crate::leases::{LeaseEvent, OrphanedLeases};
use crate::subscription::{SubscriptionEvent, SubscriptionId};
use crate::topic_leader::input::{Command, LeaderInput};
use crate::topic_leader::machine::{LeaderLimits, Output, TopicLeader};
use crate::topic_leader::reader::{ReaderDone, ReaderJob};

/// How a history is biased. One in ... per occasion.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bias {
    pub(super) refusal: u64,
    pub(super) upheaval: u64,
    pub(super) administration: u64,
    /// Of the publishes; `None` for none.
    pub(super) one_channel: Option<u64>,
    pub(super) window_bytes_max: usize,
}

/// What a lost connection still sends, when it gets to it.
pub(super) type Parting = (SubscriptionId, Vec<LeaseEvent>, OrphanedLeases);

/// Everything of one history.
#[derive(Debug)]
pub(super) struct History {
    pub(super) dice: Dice,
    pub(super) now: Monotonic,
    pub(super) leader: TopicLeader,
    pub(super) limits: LeaderLimits,
    pub(super) bias: Bias,
    pub(super) space: SpaceState,
    pub(super) group: FakeGroup,
    pub(super) model: Model,
    pub(super) publishers: Publishers,
    pub(super) consumers: BTreeMap<SubscriptionId, Consumer>,
    pub(super) partings: Vec<Parting>,
    pub(super) jobs: Vec<ReaderJob>,
    pub(super) done: Vec<ReaderDone>,
    pub(super) subscriptions: u64,
    pub(super) foreign: u64,
    pub(super) is_healing: bool,
    pub(super) deleted: Option<Seq>,
    /// The leader wants to know which channels the topic has elsewhere.
    pub(super) asked_in: Option<Term>,
    pub(super) reads: u64,
    pub(super) fetches: u64,
    pub(super) leaderships: u64,
}

impl History {
    pub(super) fn new(seed: u64) -> Self {
        let mut dice = Dice::new(seed);
        let limits = LeaderLimits {
            batch_bytes_max: dice.pick(&[200, 4_000, 1 << 20]).expect("not empty"),
            proposals_max: 1 + dice.below(4) as usize,
            deferred_max: if dice.one_in(4) { 6 } else { 1_000 },
            state_bytes_max: if dice.one_in(4) { 20 + dice.below(150) } else { 1 << 20 },
            burst_max: 1 + dice.below(20) as usize,
            // Dice of its own: what the kept seeds are kept for goes on happening.
            ephemeral_depth_max: Dice::new(seed.rotate_left(32))
                .pick(&[0, 3, 20, 10_000, 10_000])
                .expect("not empty"),
        };
        let bias = Bias {
            refusal: dice.pick(&[3, 8, 1_000_000]).expect("not empty"),
            upheaval: dice.pick(&[60, 200, 1_000_000]).expect("not empty"),
            administration: dice.pick(&[12, 40, 300]).expect("not empty"),
            // Dice of its own, and not in every history: what the kept seeds are kept for goes on happening.
            one_channel: Dice::new(!seed)
                .pick(&[None, None, Some(2), Some(8)])
                .expect("not empty"),
            window_bytes_max: dice.pick(&[0, 1_000, 20_000, 4 << 20]).expect("not empty"),
        };
        Self::with(dice, limits, bias)
    }

    /// Nothing happens by chance; window and bounds as given.
    pub(super) fn quiet(limits: LeaderLimits, window_bytes_max: usize) -> Self {
        let never = u64::MAX;
        Self::with(
            Dice::new(0),
            limits,
            Bias {
                refusal: never,
                upheaval: never,
                administration: never,
                one_channel: None,
                window_bytes_max,
            },
        )
    }

    fn with(dice: Dice, limits: LeaderLimits, bias: Bias) -> Self {
        let mut history = Self {
            now: Monotonic::from_nanos(1),
            leader: TopicLeader::new(topic(), limits),
            limits,
            bias,
            space: SpaceState::Ok,
            group: FakeGroup::new(),
            model: Model::new(&limits),
            publishers: Publishers::default(),
            consumers: BTreeMap::new(),
            partings: Vec::new(),
            jobs: Vec::new(),
            done: Vec::new(),
            subscriptions: 0,
            foreign: 0,
            is_healing: false,
            deleted: None,
            asked_in: None,
            reads: 0,
            fetches: 0,
            leaderships: 0,
            dice,
        };
        history.leader.set_window_bytes_max(history.bias.window_bytes_max);
        history.elect(ME);
        history
    }

    /// Everything that may happen, some hundred times.
    pub(super) fn run(&mut self) {
        let ticks = 200 + self.dice.below(800);
        let deletes_topic = self.dice.one_in(12);
        for _ in 0..ticks {
            self.tick();
            // The shell takes all that waits before it lets the leader step.
            if !self.dice.one_in(4) {
                self.step();
            }
        }
        if deletes_topic {
            self.command(Command::Topic(Event::DeleteTopic));
            for _ in 0..30 {
                self.tick();
                self.step();
            }
        }
    }

    fn tick(&mut self) {
        match self.dice.below(40) {
            0..6 => self.publish(),
            6..8 => self.subscribe(),
            8..24 => (0..3).for_each(|_| self.consume()),
            24..28 => self.apply(),
            28..32 => _ = self.deliver_event(),
            32..34 => self.run_job(),
            34..36 => _ = self.deliver_found(),
            36 => _ = self.parting(),
            37 => self.group.purge(),
            _ => self.pass_time(),
        }
        if self.dice.one_in(self.bias.administration) {
            self.administer();
        }
        if self.group.leader == OTHER && self.dice.one_in(8) {
            self.elect(ME);
        } else if self.dice.one_in(self.bias.upheaval) {
            self.upheaval();
        }
        if self.dice.one_in(30) {
            self.foreign_entry();
        }
        if self.dice.one_in(50) {
            self.look_at_stats();
        }
    }

    // === the leader ===

    /// Whatever the leader is told, everything that it sends is looked at before anything else happens.
    pub(super) fn tell(&mut self, what: impl FnOnce(&mut TopicLeader, Monotonic)) {
        what(&mut self.leader, self.now);
        self.look();
    }

    pub(super) fn input(&mut self, input: LeaderInput) {
        let space = self.space;
        self.tell(|leader, now| {
            leader.set_space(space);
            leader.input(input, now);
        });
    }

    pub(super) fn step(&mut self) {
        loop {
            self.model.expire(self.now);
            self.leader.set_space(self.space);
            let outputs = self.leader.step(self.now);
            self.look();
            for output in outputs {
                self.carry_out(output);
            }
            if !self.leader.has_more() {
                break;
            }
        }
        let wake_at = self.leader.wake_at();
        assert!(
            wake_at.is_none_or(|at| at > self.now),
            "the leader would be woken at once, again and again"
        );
        if self.jobs.is_empty() && self.done.is_empty() {
            self.model.check_nobody_waits(self.now);
        }
    }

    fn carry_out(&mut self, output: Output) {
        match output {
            Output::Propose { term, buffer, ticket } => {
                let lease_expired = !self.is_healing && self.dice.one_in(self.bias.refusal);
                self.group.propose(term, buffer, ticket, lease_expired);
            }
            Output::Read(job) => {
                match job {
                    ReaderJob::Read(_) => self.reads += 1,
                    ReaderJob::Fetch(_) => self.fetches += 1,
                }
                self.jobs.push(job);
            }
            Output::TopicDeleted { last_seq } => self.deleted = Some(last_seq),
            Output::AskForChannels { term } => self.asked_in = Some(term),
            Output::Send { .. } => panic!("a lone leader has nobody to send to"),
        }
    }

    /// Takes everything that was sent to consumers and publishers.
    fn look(&mut self) {
        let mut sent = Vec::new();
        for consumer in self.consumers.values_mut() {
            if let Some(answer) = &mut consumer.answer {
                match answer.try_recv() {
                    Ok(Ok(())) => {
                        consumer.answer = None;
                        self.model.attached(consumer);
                    }
                    Ok(Err(_)) | Err(oneshot::error::TryRecvError::Closed) => {
                        consumer.answer = None;
                        consumer.is_closed = true;
                    }
                    Err(oneshot::error::TryRecvError::Empty) => continue,
                }
            }
            loop {
                match consumer.receiver.try_recv() {
                    Ok(event) => {
                        if let SubscriptionEvent::Deliver(delivery) = &event {
                            sent.push((consumer.id, delivery.clone()));
                        }
                        consumer.offered.push_back(event);
                    }
                    Err(TryRecvError::Empty) => break,
                    Err(TryRecvError::Disconnected) => {
                        assert!(
                            !self.model.knows(consumer.id),
                            "{:?} was closed for no reason",
                            consumer.id
                        );
                        consumer.is_closed = true;
                        break;
                    }
                }
            }
        }
        sent.sort_by_key(|(_, delivery)| delivery.token.delivery);
        for (id, delivery) in sent {
            self.model
                .deliver(id, &delivery, self.group.stored.get(&delivery.token.seq), self.now);
        }
        let next_seq = self.model.state().map(|state| state.next_seq());
        let stored = &self.group.stored;
        let is_deleted = self.deleted.is_some();
        self.publishers.look(|body| {
            let seq = stored
                .iter()
                .find(|(_, message)| message.body == body)
                .map(|(seq, _)| *seq);
            seq.is_some_and(|seq| is_deleted || next_seq.is_some_and(|next| seq < next))
        });
    }

    fn pass_time(&mut self) {
        let passed = match self.leader.wake_at() {
            Some(at) if self.dice.one_in(2) => at.since(self.now),
            _ => Duration::from_micros(self.dice.below(15_000)),
        };
        self.now = self.now + passed;
        if self.dice.one_in(20) {
            self.leader
                .set_window_bytes_max(self.bias.window_bytes_max * self.dice.below(2) as usize);
        }
    }

    /// What the publishers were promised about what is stored.
    pub(super) fn check_publishers(&self) {
        for body in &self.publishers.safe {
            assert!(
                self.group.bodies.contains(body),
                "answered OK and not stored: {:?}",
                number_of(body)
            );
        }
        for body in &self.publishers.refused {
            assert!(
                !self.group.bodies.contains(body),
                "refused and stored: {:?}",
                number_of(body)
            );
        }
        assert!(
            !self.group.bodies.iter().any(|body| body.starts_with(b"phantom")),
            "a void batch has counted"
        );
        let numbers: Vec<u64> = self
            .group
            .stored
            .values()
            .filter_map(|message| number_of(&message.body))
            .collect();
        assert!(
            numbers.is_sorted(),
            "publishes were stored in another order than they were made"
        );
    }
}
