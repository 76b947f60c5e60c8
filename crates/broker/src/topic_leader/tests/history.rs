//! One random history: what happens next, and who is told.

use std::collections::BTreeMap;
use std::time::Duration;

use nsquorum_consensus::{Refusal, TopicEvent};
use nsquorum_environment::Monotonic;
use nsquorum_protocol::ChannelName;
use nsquorum_storage::{ENTRY_HEADER_BYTES, EntryKind, SpaceState};
use nsquorum_topic::{
    Attempts, BatchBuilder, ChannelIncarnation, EntryPosition, Event, FeatureLevel, LogTime, RequeueCause, Seq, SeqRange,
    Term,
};
use tokio::sync::mpsc::error::TryRecvError;
use tokio::sync::oneshot;

use super::consumers::Consumer;
use super::dice::Dice;
use super::group::{FakeGroup, GroupEvent, ME, OTHER};
use super::model::Model;
use super::publishers::{Publishers, number_of};
use super::{channel, message, topic};
use crate::leases::{LeaseEvent, OrphanedLeases};
use crate::stats::TopicStats;
use crate::subscription::{SubscriptionEvent, SubscriptionId};
use crate::topic_leader::input::{ChannelChange, Command, LeaderInput};
use crate::topic_leader::machine::{LeaderLimits, Output, TopicLeader};
use crate::topic_leader::reader::{ReaderDone, ReaderJob};

const CHANNELS: [&str; 4] = ["ledger", "archive", "audit", "tail#ephemeral"];
const CONSUMERS_MAX: usize = 7;

/// How a history is biased. One in ... per occasion.
#[derive(Clone, Copy, Debug)]
struct Bias {
    refusal: u64,
    upheaval: u64,
    administration: u64,
    window_bytes_max: usize,
}

/// What a lost connection still sends, when it gets to it.
type Parting = (SubscriptionId, Vec<LeaseEvent>, OrphanedLeases);

/// Everything of one history.
#[derive(Debug)]
pub(super) struct History {
    pub(super) dice: Dice,
    pub(super) now: Monotonic,
    leader: TopicLeader,
    limits: LeaderLimits,
    bias: Bias,
    pub(super) space: SpaceState,
    pub(super) group: FakeGroup,
    pub(super) model: Model,
    pub(super) publishers: Publishers,
    pub(super) consumers: BTreeMap<SubscriptionId, Consumer>,
    partings: Vec<Parting>,
    pub(super) jobs: Vec<ReaderJob>,
    done: Vec<ReaderDone>,
    subscriptions: u64,
    foreign: u64,
    pub(super) is_healing: bool,
    pub(super) deleted: Option<Seq>,
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
        };
        let bias = Bias {
            refusal: dice.pick(&[3, 8, 1_000_000]).expect("not empty"),
            upheaval: dice.pick(&[60, 200, 1_000_000]).expect("not empty"),
            administration: dice.pick(&[12, 40, 300]).expect("not empty"),
            window_bytes_max: dice.pick(&[0, 1_000, 20_000, 4 << 20]).expect("not empty"),
        };
        let mut history = Self {
            now: Monotonic::from_nanos(1),
            leader: TopicLeader::new(topic(), limits),
            limits,
            bias,
            space: SpaceState::Ok,
            group: FakeGroup::new(),
            model: Model::new(limits.state_bytes_max),
            publishers: Publishers::default(),
            consumers: BTreeMap::new(),
            partings: Vec::new(),
            jobs: Vec::new(),
            done: Vec::new(),
            subscriptions: 0,
            foreign: 0,
            is_healing: false,
            deleted: None,
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
    fn tell(&mut self, what: impl FnOnce(&mut TopicLeader, Monotonic)) {
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
        assert!(wake_at.is_none_or(|at| at > self.now), "the leader would be woken at once, again and again");
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
                        assert!(!self.model.knows(consumer.id), "{:?} was closed for no reason", consumer.id);
                        consumer.is_closed = true;
                        break;
                    }
                }
            }
        }
        sent.sort_by_key(|(_, delivery)| delivery.token.delivery);
        for (id, delivery) in sent {
            self.model.deliver(id, &delivery, self.group.stored.get(&delivery.token.seq), self.now);
        }
        let next_seq = self.model.state().map(|state| state.next_seq());
        let stored = &self.group.stored;
        let is_deleted = self.deleted.is_some();
        self.publishers.look(|body| {
            let seq = stored.iter().find(|(_, message)| message.body == body).map(|(seq, _)| *seq);
            seq.is_some_and(|seq| is_deleted || next_seq.is_some_and(|next| seq < next))
        });
    }

    // === the group ===

    pub(super) fn apply(&mut self) {
        for _ in 0..=self.dice.below(3) {
            self.group.apply_one();
        }
    }

    /// The oldest event reaches the leader; false if there is none.
    pub(super) fn deliver_event(&mut self) -> bool {
        let Some(GroupEvent { event, proposed_in }) = self.group.events.pop_front() else { return false };
        match &event {
            TopicEvent::LeaderStarted { term, state } => {
                self.leaderships += 1;
                self.model.start(*term, (**state).clone(), self.now);
            }
            TopicEvent::Applied { entry, batch, applied } => {
                let header = entry.header();
                let encoded_bytes = entry.encoded_len() as u32;
                self.model.applied(EntryPosition { index: header.index, term: header.term, encoded_bytes }, batch, applied);
            }
            TopicEvent::Deposed => self.model.stop(),
            TopicEvent::Refused { refusal: Refusal::NotLeader, .. } if proposed_in == self.model.term() => self.model.stop(),
            _ => {}
        }
        self.tell(|leader, now| leader.event(event, now));
        true
    }

    pub(super) fn elect(&mut self, node: nsquorum_topic::NodeId) {
        // Wall clocks jump.
        let wall = LogTime::new(1_000_000_000 + self.dice.below(1_000_000_000));
        self.group.elect(node, wall, &mut self.dice);
    }

    fn upheaval(&mut self) {
        match self.dice.below(3) {
            0 => {
                // The process is gone, and with it everything in it. Other nodes' frontends may have got FINs.
                self.group.restart();
                self.publishers.forget();
                self.model.stop();
                self.leader = TopicLeader::new(topic(), self.limits);
                self.leader.set_window_bytes_max(self.bias.window_bytes_max);
                self.jobs.clear();
                self.done.clear();
                for mut consumer in std::mem::take(&mut self.consumers).into_values() {
                    let unwritten = consumer.return_unwritten();
                    self.part(consumer, unwritten);
                }
                self.elect(ME);
            }
            1 => self.elect(ME),
            _ => self.elect(OTHER),
        }
    }

    /// Something that does not come from the tested leader.
    fn foreign_entry(&mut self) {
        if self.group.unapplied() > 0 {
            return;
        }
        match self.dice.below(3) {
            0 => self.group.append_blank(),
            1 if self.group.leader == OTHER => self.foreign_batch(),
            _ => self.foreign_void(),
        }
    }

    /// A batch of another leader: messages, deliveries, FINs.
    fn foreign_batch(&mut self) {
        let state = &self.group.state;
        let Some(channel) = self.dice.pick(&state.channels().map(|c| c.incarnation()).collect::<Vec<_>>()) else { return };
        let found = state.channel(channel).expect("picked from the state");
        let unfinished: Vec<Seq> = (found.floor().get()..state.readable_end().get())
            .map(Seq::new)
            .filter(|seq| !found.is_finished(*seq))
            .collect();
        let mut builder = BatchBuilder::with_header_room(ENTRY_HEADER_BYTES);
        if let Some(seq) = self.dice.pick(&unfinished) {
            let event = if self.dice.one_in(2) {
                Event::Finish { channel, ranges: vec![SeqRange::single(seq)] }
            } else {
                let attempts = found.exception(seq).map_or(Attempts::default(), |exception| exception.attempts).next();
                Event::Requeue { channel, seq, attempts, not_before: None, cause: RequeueCause::Requeue }
            };
            builder.push_event(&event);
            self.model.delivered_elsewhere(channel, seq);
        }
        for _ in 0..self.dice.below(3) {
            self.foreign += 1;
            builder.push_message(&message(format!("other{}", self.foreign)));
        }
        let buffer = builder.finish(self.group.term, state.next_seq(), state.time(), FeatureLevel::new(1));
        self.group.append(EntryKind::TopicBatch, buffer);
    }

    /// A batch that was made for an earlier term: none of it may ever be seen.
    fn foreign_void(&mut self) {
        let mut builder = BatchBuilder::with_header_room(ENTRY_HEADER_BYTES);
        builder.push_event(&Event::EmptyChannel { channel: ChannelIncarnation::new(1) });
        for _ in 0..1 + self.dice.below(3) {
            self.foreign += 1;
            builder.push_message(&message(format!("phantom{}", self.foreign)));
        }
        let state = &self.group.state;
        let made_for = Term::new(self.group.term.get() - 1);
        let first_seq = Seq::new((state.next_seq().get() + self.dice.below(3)).saturating_sub(1).max(1));
        let buffer = builder.finish(made_for, first_seq, state.time(), FeatureLevel::new(1));
        self.group.append(EntryKind::TopicBatch, buffer);
    }

    // === readers ===

    pub(super) fn run_job(&mut self) {
        let Some(place) = self.dice.place(self.jobs.len()) else { return };
        let job = self.jobs.remove(place);
        self.group.log.chunk = 1 + self.dice.below(6) as usize;
        self.group.log.is_cached = self.dice.one_in(2);
        let done = job.run_from_memory(&self.group.log);
        self.done.push(done.unwrap_or_else(|| job.run_from_disk(&self.group.log)));
    }

    /// What a reader found reaches the leader; false if there is nothing.
    pub(super) fn deliver_found(&mut self) -> bool {
        let Some(place) = self.dice.place(self.done.len()) else { return false };
        let done = self.done.remove(place);
        // The shell takes what happened in the log first: a job may have failed because of it.
        while self.deliver_event() {}
        self.tell(|leader, _| leader.reader_done(done));
        true
    }

    // === clients ===

    fn publish(&mut self) {
        let publish = self.publishers.publish(&mut self.dice);
        self.input(LeaderInput::Publish(publish));
    }

    fn subscribe(&mut self) {
        if self.consumers.len() < CONSUMERS_MAX {
            let name = self.dice.pick(&CHANNELS).expect("not empty");
            self.subscribe_to(channel(name));
        }
    }

    pub(super) fn subscribe_to(&mut self, name: ChannelName) {
        self.subscriptions += 1;
        let msg_timeout = Duration::from_millis(20 + self.dice.below(60));
        let (consumer, subscribe) = Consumer::subscribe(self.subscriptions, name, msg_timeout);
        self.consumers.insert(consumer.id, consumer);
        self.input(LeaderInput::Subscribe(subscribe));
    }

    pub(super) fn ready(&mut self, id: SubscriptionId, count: u32) {
        self.consumers.get_mut(&id).expect("a consumer that is there").ready = count;
        self.model.ready(id, count);
        self.input(LeaderInput::Ready { subscription: id, count });
    }

    pub(super) fn lease_events(&mut self, events: Vec<LeaseEvent>) {
        if !events.is_empty() {
            events.iter().for_each(|event| self.model.lease_event(event, self.now));
            self.input(LeaderInput::LeaseEvents { events });
        }
    }

    fn consume(&mut self) {
        let ids: Vec<SubscriptionId> = self.consumers.keys().copied().collect();
        let Some(id) = self.dice.pick(&ids) else { return };
        let consumer = self.consumers.get_mut(&id).expect("picked from the map");
        if !consumer.is_attached() {
            if consumer.is_closed || self.dice.one_in(10) {
                self.disconnect(id);
            }
            return;
        }
        if consumer.ready == 0 && self.dice.one_in(3) {
            return self.set_ready(id);
        }
        let held: Vec<Seq> = consumer.held.keys().copied().collect();
        let events = match self.dice.below(20) {
            0 => return self.set_ready(id),
            1..6 => consumer.take(1 + self.dice.below(4) as usize, &mut self.dice),
            6..11 => {
                consumer.write(1 + self.dice.below(4) as usize, self.now);
                return;
            }
            11..14 => held
                .into_iter()
                .take(self.dice.below(4) as usize)
                .map(|seq| consumer.finish(seq))
                .collect(),
            14..17 => {
                let delay_ms = if self.dice.one_in(2) { 0 } else { 1 + self.dice.below(40) as u32 };
                self.dice.pick(&held).map(|seq| consumer.requeue(seq, delay_ms)).into_iter().collect()
            }
            17 => {
                if let Some(seq) = self.dice.pick(&held) {
                    consumer.touch(seq, self.now);
                }
                return;
            }
            18 => consumer.expire(self.now),
            _ => {
                if self.dice.one_in(4) {
                    self.disconnect(id);
                }
                return;
            }
        };
        self.lease_events(events);
    }

    fn set_ready(&mut self, id: SubscriptionId) {
        let count = self.dice.pick(&[0, 1, 2, 5, 20]).expect("not empty");
        self.ready(id, count);
    }

    /// The connection ends. The leader hears of it now or later.
    pub(super) fn disconnect(&mut self, id: SubscriptionId) {
        let unwritten = self.consumers.get_mut(&id).expect("a consumer that is there").return_unwritten();
        if !self.model.knows(id) {
            let consumer = self.consumers.remove(&id).expect("looked up above");
            return self.part(consumer, unwritten);
        }
        // It may be given more before the leader hears the rest.
        self.lease_events(unwritten);
        let consumer = self.consumers.remove(&id).expect("looked up above");
        self.model.disconnected(&consumer);
        self.model.expire(self.now);
        let leases = consumer.end();
        self.input(LeaderInput::Disconnected { subscription: id, leases });
    }

    /// A connection of a leadership that is over: FINs that were on their way arrive some time.
    fn part(&mut self, mut consumer: Consumer, unwritten: Vec<LeaseEvent>) {
        let id = consumer.id;
        let held: Vec<Seq> = consumer.held.keys().copied().collect();
        let count = self.dice.below(held.len() as u64 + 1) as usize;
        let mut events: Vec<LeaseEvent> = held.into_iter().take(count).map(|seq| consumer.finish(seq)).collect();
        events.extend(unwritten);
        self.partings.push((id, events, consumer.end()));
    }

    pub(super) fn parting(&mut self) -> bool {
        let Some((id, events, leases)) = self.partings.pop() else { return false };
        self.lease_events(events);
        self.input(LeaderInput::Disconnected { subscription: id, leases });
        true
    }

    // === administration ===

    pub(super) fn command(&mut self, command: Command) {
        let answer = self.publishers.command();
        self.input(LeaderInput::Command { command, answer });
    }

    fn administer(&mut self) {
        let name = channel(self.dice.pick(&CHANNELS).expect("not empty"));
        let change = |change| Command::Channel(name.clone(), change);
        let command = match self.dice.below(14) {
            0 => change(ChannelChange::Delete),
            1..3 => change(ChannelChange::Empty),
            3..5 => change(ChannelChange::Pause),
            5..7 => change(ChannelChange::Unpause),
            7 => Command::CreateChannel(name),
            8 => Command::Topic(Event::PauseTopic),
            9..11 => Command::Topic(Event::UnpauseTopic),
            11 => Command::Topic(Event::EmptyTopic),
            _ => {
                self.space = self.dice.pick(&[SpaceState::Ok, SpaceState::Ok, SpaceState::RefusePublishes, SpaceState::RefuseAll]).expect("not empty");
                return;
            }
        };
        self.command(command);
    }

    fn pass_time(&mut self) {
        let passed = match self.leader.wake_at() {
            Some(at) if self.dice.one_in(2) => at.since(self.now),
            _ => Duration::from_micros(self.dice.below(15_000)),
        };
        self.now = self.now + passed;
        if self.dice.one_in(20) {
            self.leader.set_window_bytes_max(self.bias.window_bytes_max * self.dice.below(2) as usize);
        }
    }

    pub(super) fn stats(&mut self) -> Option<TopicStats> {
        let (answer, mut receiver) = oneshot::channel();
        self.input(LeaderInput::Stats { channel: None, answer });
        receiver.try_recv().ok()
    }

    fn look_at_stats(&mut self) {
        let Some(state) = self.model.state().cloned() else { return };
        let Some(stats) = self.stats() else { return };
        for channel in &stats.channels {
            let found = state.channel_by_name(&channel.name).expect("a channel that the leader knows");
            // An ephemeral channel that has lost its last consumer is on its way out with all that it had.
            if !channel.name.is_ephemeral() {
                let held = self.model.in_flight(found.incarnation());
                assert_eq!(channel.in_flight_count, held, "in flight in {}", channel.name);
            }
            assert_eq!(channel.paused, found.is_paused());
            for client in &channel.clients {
                assert_eq!(client.in_flight_count, self.model.in_flight_of(client.id), "in flight at {:?}", client.id);
            }
        }
        assert_eq!(stats.message_count, state.next_seq().get() - 1);
    }

    /// What the publishers were promised about what is stored.
    pub(super) fn check_publishers(&self) {
        for body in &self.publishers.safe {
            assert!(self.group.bodies.contains(body), "answered OK and not stored: {:?}", number_of(body));
        }
        for body in &self.publishers.refused {
            assert!(!self.group.bodies.contains(body), "refused and stored: {:?}", number_of(body));
        }
        assert!(!self.group.bodies.iter().any(|body| body.starts_with(b"phantom")), "a void batch has counted");
        let numbers: Vec<u64> = self.group.stored.values().filter_map(|message| number_of(&message.body)).collect();
        assert!(numbers.is_sorted(), "publishes were stored in another order than they were made");
    }
}
