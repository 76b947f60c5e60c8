//! What every channel may be given, told naively: a status for each message that is not simply next or finished.
//!
//! The model follows what the leader was told (events of its group, and inputs), never what the leader thinks. It takes every delivery
//! when it is sent, and refuses those that must not be.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use nsquorum_environment::Monotonic;
use nsquorum_protocol::ChannelName;
use nsquorum_topic::{
    Applied, Attempts, BatchView, Channel, ChannelIncarnation, Effect, EntryPosition, Event, LogTime, Seq, Term,
    TopicState,
};

use super::consumers::Consumer;
use super::group::Stored;
use crate::leases::{Delivery, LeaseEvent, LeaseOutcome};
use crate::subscription::SubscriptionId;
use crate::topic_leader::machine::LeaderLimits;

/// Where a message of a channel is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Status {
    InFlight {
        consumer: SubscriptionId,
        delivery: u64,
        attempts: Attempts,
    },
    /// Its consumer is gone; its time runs on.
    Orphaned {
        delivery: u64,
        deadline: Monotonic,
    },
    /// Given back; keeps its place.
    Returned {
        attempts: Attempts,
    },
    /// A requeue that is not in the log yet.
    Requeueing {
        not_before: Option<LogTime>,
    },
    /// A requeue that is.
    Queued {
        attempts: Attempts,
        not_before: Option<LogTime>,
        place: (Seq, u64),
    },
    Deferred {
        due: LogTime,
    },
    /// A FIN that is not in the log yet, or a message beyond the bound of an ephemeral channel.
    Finishing,
    /// Published for another channel; that this one is done with it is not in the log yet, and nothing behind it is read before.
    PassedOver,
}

#[derive(Debug, Default)]
struct ChannelModel {
    /// Everything below it was delivered by this leader, or has a status, or is finished.
    next: Seq,
    statuses: BTreeMap<Seq, Status>,
    requeues: u64,
}

#[derive(Debug)]
struct Attached {
    channel: ChannelIncarnation,
    ready: u32,
    in_flight: u64,
}

/// One leadership.
#[derive(Debug)]
struct Leadership {
    term: Term,
    state: TopicState,
    clock_start: LogTime,
    started_at: Monotonic,
    channels: BTreeMap<ChannelIncarnation, ChannelModel>,
    consumers: BTreeMap<SubscriptionId, Attached>,
}

impl Leadership {
    fn clock(&self, now: Monotonic) -> LogTime {
        let elapsed = now.since(self.started_at).as_nanos() as u64;
        LogTime::new(self.clock_start.get() + elapsed).max(self.state.time())
    }

    fn is_finished(&self, channel: ChannelIncarnation, seq: Seq) -> bool {
        self.state
            .channel(channel)
            .is_none_or(|channel| channel.is_finished(seq))
    }
}

/// What the histories contained.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Seen {
    pub(super) deliveries: u64,
    pub(super) redeliveries: u64,
    pub(super) returned: u64,
    pub(super) deferred: u64,
    pub(super) late_fins: u64,
    pub(super) passed_over: u64,
    pub(super) dropped: u64,
}

/// The model of one history.
#[derive(Debug)]
pub(super) struct Model {
    leadership: Option<Leadership>,
    state_bytes_max: u64,
    ephemeral_depth_max: u64,
    /// Deliveries ever made and not returned, over all leaderships.
    deliveries: BTreeMap<(ChannelIncarnation, Seq), u64>,
    pub(super) delivered: BTreeSet<(ChannelIncarnation, Seq)>,
    /// What was published for another channel.
    pub(super) passed_over: BTreeSet<(ChannelIncarnation, Seq)>,
    pub(super) seen: Seen,
}

impl Model {
    pub(super) fn new(limits: &LeaderLimits) -> Self {
        Self {
            leadership: None,
            state_bytes_max: limits.state_bytes_max,
            ephemeral_depth_max: limits.ephemeral_depth_max,
            deliveries: BTreeMap::new(),
            delivered: BTreeSet::new(),
            passed_over: BTreeSet::new(),
            seen: Seen::default(),
        }
    }

    /// The term that the leader believes to lead in.
    pub(super) fn term(&self) -> Option<Term> {
        self.leadership.as_ref().map(|leadership| leadership.term)
    }

    /// The state as the leader knows it.
    pub(super) fn state(&self) -> Option<&TopicState> {
        self.leadership.as_ref().map(|leadership| &leadership.state)
    }

    pub(super) fn stop(&mut self) {
        self.leadership = None;
    }

    pub(super) fn start(&mut self, term: Term, state: TopicState, now: Monotonic) {
        let mut channels = BTreeMap::new();
        for channel in state.channels() {
            let mut model = ChannelModel {
                next: channel.floor(),
                ..ChannelModel::default()
            };
            for (seq, due) in state
                .deferred()
                .filter(|(_, seq)| *seq >= channel.begin())
                .map(|(due, seq)| (seq, due))
            {
                if !channel.is_finished(seq) {
                    model.statuses.insert(seq, Status::Deferred { due });
                }
            }
            for (seq, exception) in channel.exceptions() {
                let place = (exception.behind, seq.get());
                let queued = Status::Queued {
                    attempts: exception.attempts,
                    not_before: exception.not_before,
                    place,
                };
                model.statuses.insert(seq, queued);
            }
            model.requeues = 1 << 32;
            channels.insert(channel.incarnation(), model);
        }
        let clock_start = state.time();
        let consumers = BTreeMap::new();
        self.leadership = Some(Leadership {
            term,
            state,
            clock_start,
            started_at: now,
            channels,
            consumers,
        });
    }

    /// The leader is about to learn that a batch was applied.
    /// `only`: what was published for one channel.
    pub(super) fn applied(
        &mut self,
        at: EntryPosition,
        batch: &BatchView,
        applied: &Applied,
        only: &BTreeMap<Bytes, ChannelName>,
    ) {
        let Some(leadership) = &mut self.leadership else { return };
        while leadership.state.applied().unwrap().0.next() < at.index {
            let index = leadership.state.applied().unwrap().0.next();
            leadership.state.apply_other(EntryPosition { index, ..at }).unwrap();
        }
        assert_eq!(&leadership.state.apply_batch(at, batch).unwrap(), applied);
        let Applied::Accepted(accepted) = applied else { return };
        for effect in &accepted.effects {
            leadership.effect(effect);
        }
        for event in batch.events() {
            if let Event::Finish { channel, .. } = event {
                leadership.forget_finished(channel);
            }
        }
        // A later leader does not know any more whom they were for.
        if (batch.header().term, at.term) != (leadership.term, leadership.term) {
            return;
        }
        for message in batch.messages() {
            let Some(only) = only.get(&message.body) else { continue };
            let end = leadership.state.readable_end();
            assert!(message.seq < end, "for {only} alone, and held back for all by a pause");
            let others = leadership.state.channels().filter(|channel| channel.name() != only);
            for channel in others.map(Channel::incarnation) {
                self.seen.passed_over += 1;
                self.passed_over.insert((channel, message.seq));
                let model = leadership
                    .channels
                    .get_mut(&channel)
                    .expect("the model has every channel");
                model.statuses.insert(message.seq, Status::PassedOver);
            }
        }
    }

    /// The leader has learned that a batch was applied, and has sent what consumers had room for.
    pub(super) fn overflow(&mut self) {
        let Some(leadership) = &mut self.leadership else { return };
        for channel in leadership
            .state
            .channels()
            .filter(|channel| channel.name().is_ephemeral())
        {
            let model = leadership
                .channels
                .get_mut(&channel.incarnation())
                .expect("the model has every channel");
            let unread: Vec<Seq> = (model.next.get()..leadership.state.readable_end().get())
                .map(Seq::new)
                .filter(|seq| !channel.is_finished(*seq) && !model.statuses.contains_key(seq))
                .collect();
            let beyond = unread.len().saturating_sub(self.ephemeral_depth_max as usize);
            self.seen.dropped += beyond as u64;
            let dropped = unread.into_iter().take(beyond);
            model.statuses.extend(dropped.map(|seq| (seq, Status::Finishing)));
        }
    }

    /// A subscription was answered.
    pub(super) fn attached(&mut self, consumer: &Consumer) {
        let leadership = self.leadership.as_mut().expect("only a leader answers a subscription");
        let channel = leadership
            .state
            .channel_by_name(&consumer.channel)
            .expect("attached to a channel that exists");
        let attached = Attached {
            channel: channel.incarnation(),
            ready: 0,
            in_flight: 0,
        };
        leadership.consumers.insert(consumer.id, attached);
    }

    pub(super) fn ready(&mut self, id: SubscriptionId, count: u32) {
        if let Some(consumer) = self
            .leadership
            .as_mut()
            .and_then(|leadership| leadership.consumers.get_mut(&id))
        {
            consumer.ready = count;
        }
    }

    /// Whether the subscription must still be open.
    pub(super) fn knows(&self, id: SubscriptionId) -> bool {
        self.leadership
            .as_ref()
            .is_some_and(|leadership| leadership.consumers.contains_key(&id))
    }

    /// An event is about to reach the leader.
    pub(super) fn lease_event(&mut self, event: &LeaseEvent, now: Monotonic) {
        let Some(leadership) = &mut self.leadership else { return };
        let token = event.token;
        let clock = leadership.clock(now);
        let is_finished = leadership.is_finished(token.channel, token.seq);
        let Some(model) = leadership.channels.get_mut(&token.channel) else {
            return;
        };
        let status = model.statuses.get(&token.seq).copied();
        let holder = match status {
            Some(Status::InFlight { consumer, delivery, .. })
                if token.term == leadership.term && delivery == token.delivery =>
            {
                consumer
            }
            _ => {
                if event.outcome == LeaseOutcome::Finished && !is_finished {
                    self.seen.late_fins += 1;
                }
                return;
            }
        };
        let (count, requeueing) = (&mut self.deliveries, |not_before| Status::Requeueing { not_before });
        let status = match event.outcome {
            LeaseOutcome::Finished => Status::Finishing,
            LeaseOutcome::Requeued { delay_ms } => requeueing((delay_ms > 0).then(|| clock.plus_ms(delay_ms))),
            LeaseOutcome::TimedOut | LeaseOutcome::Disconnected => requeueing(None),
            LeaseOutcome::Returned => {
                self.seen.returned += 1;
                *count.entry((token.channel, token.seq)).or_default() -= 1;
                Status::Returned {
                    attempts: Attempts::new(token.attempts.get() - 1),
                }
            }
        };
        model.statuses.insert(token.seq, status);
        if let Some(consumer) = leadership.consumers.get_mut(&holder) {
            consumer.in_flight -= 1;
        }
    }

    /// A consumer is about to be reported gone, after its last events.
    pub(super) fn disconnected(&mut self, consumer: &Consumer) {
        let Some(leadership) = &mut self.leadership else { return };
        let Some(attached) = leadership.consumers.remove(&consumer.id) else {
            return;
        };
        let Some(model) = leadership.channels.get_mut(&attached.channel) else {
            return;
        };
        for (seq, status) in &mut model.statuses {
            let Status::InFlight {
                consumer: holder,
                delivery,
                attempts,
            } = *status
            else {
                continue;
            };
            if holder != consumer.id {
                continue;
            }
            *status = match consumer.held.get(seq).filter(|held| held.delivery == delivery) {
                Some(held) => Status::Orphaned {
                    delivery,
                    deadline: held.deadline,
                },
                None => {
                    self.seen.returned += 1;
                    *self.deliveries.entry((attached.channel, *seq)).or_default() -= 1;
                    Status::Returned {
                        attempts: Attempts::new(attempts.get() - 1),
                    }
                }
            };
        }
    }

    /// The leader has sent a message to a consumer.
    pub(super) fn deliver(&mut self, id: SubscriptionId, delivery: &Delivery, stored: Option<&Stored>, now: Monotonic) {
        let leadership = self.leadership.as_mut().expect("delivered without leading");
        let token = delivery.token;
        let (channel, seq) = (token.channel, token.seq);
        let what = format!(
            "message {seq} of channel {channel}, attempt {}, to {id:?}",
            token.attempts
        );
        assert_eq!(token.term, leadership.term, "{what}: another leader's token");
        assert!(
            seq < leadership.state.readable_end(),
            "{what}: has not reached the channel"
        );
        let stored = stored.unwrap_or_else(|| panic!("{what}: no such message was accepted"));
        assert_eq!(delivery.body, stored.body, "{what}: not the body that was accepted");
        assert_eq!(
            delivery.published_at, stored.published_at,
            "{what}: time of publication"
        );
        assert_eq!(crc32c_of(delivery), delivery.crc32c, "{what}: checksum");
        let state = leadership
            .state
            .channel(channel)
            .unwrap_or_else(|| panic!("{what}: the channel is gone"));
        assert!(!state.is_paused(), "{what}: the channel is paused");
        assert!(!state.is_finished(seq), "{what}: it is finished");
        let clock = leadership.clock(now);
        let has_room = leadership.has_room(self.state_bytes_max);
        let consumer = leadership
            .consumers
            .get_mut(&id)
            .unwrap_or_else(|| panic!("{what}: not attached"));
        assert_eq!(consumer.channel, channel, "{what}: another channel's consumer");
        consumer.in_flight += 1;
        assert!(
            consumer.in_flight <= u64::from(consumer.ready),
            "{what}: {} in flight, RDY {}",
            consumer.in_flight,
            consumer.ready
        );

        let model = leadership.channels.get(&channel).expect("the model has every channel");
        let status = model.statuses.get(&seq).copied();
        let attempts_before = model.check_place(seq, status, &leadership.state, channel, clock, has_room, &what);
        assert_eq!(token.attempts, attempts_before.next(), "{what}: attempts");
        let made = self.deliveries.entry((channel, seq)).or_default();
        *made += 1;
        assert!(
            u64::from(token.attempts.get()) <= *made,
            "{what}: only {made} deliveries were made"
        );

        self.seen.deliveries += 1;
        match status {
            Some(Status::Queued { .. }) => self.seen.redeliveries += 1,
            Some(Status::Deferred { .. }) => self.seen.deferred += 1,
            _ => {}
        }
        self.delivered.insert((channel, seq));
        let model = leadership.channels.get_mut(&channel).expect("looked up above");
        if status.is_none() {
            model.next = seq.next();
        }
        model.statuses.insert(
            seq,
            Status::InFlight {
                consumer: id,
                delivery: token.delivery,
                attempts: token.attempts,
            },
        );
    }

    /// Another leader has delivered this message once.
    pub(super) fn delivered_elsewhere(&mut self, channel: ChannelIncarnation, seq: Seq) {
        self.delivered.insert((channel, seq));
        *self.deliveries.entry((channel, seq)).or_default() += 1;
    }

    /// Messages of a channel that consumers, or the time of those that are gone, hold.
    pub(super) fn in_flight(&self, channel: ChannelIncarnation) -> u64 {
        let model = self
            .leadership
            .as_ref()
            .and_then(|leadership| leadership.channels.get(&channel));
        model.map_or(0, |model| {
            model
                .statuses
                .values()
                .filter(|status| matches!(status, Status::InFlight { .. } | Status::Orphaned { .. }))
                .count() as u64
        })
    }

    /// Messages that a consumer holds.
    pub(super) fn in_flight_of(&self, id: SubscriptionId) -> u64 {
        self.leadership
            .as_ref()
            .and_then(|leadership| leadership.consumers.get(&id))
            .map_or(0, |consumer| consumer.in_flight)
    }

    /// Nothing is under way anywhere: then no consumer has room while a message of its channel may be delivered.
    pub(super) fn check_nobody_waits(&self, now: Monotonic) {
        let Some(leadership) = &self.leadership else { return };
        let has_room = leadership.has_room(self.state_bytes_max);
        for (id, consumer) in leadership
            .consumers
            .iter()
            .filter(|(_, consumer)| consumer.in_flight < u64::from(consumer.ready))
        {
            let state = leadership
                .state
                .channel(consumer.channel)
                .expect("a consumer of a channel that exists");
            if state.is_paused() {
                continue;
            }
            let waiting = leadership.channels[&consumer.channel].deliverable(
                &leadership.state,
                state,
                leadership.clock(now),
                has_room,
            );
            assert_eq!(
                waiting,
                None,
                "{id:?} of {} has room, and nothing is on its way",
                state.name()
            );
        }
    }

    /// The time of what a lost consumer held may be over: the leader decides at its next step.
    pub(super) fn expire(&mut self, now: Monotonic) {
        let Some(leadership) = &mut self.leadership else { return };
        for status in leadership
            .channels
            .values_mut()
            .flat_map(|model| model.statuses.values_mut())
        {
            if matches!(status, Status::Orphaned { deadline, .. } if *deadline <= now) {
                *status = Status::Requeueing { not_before: None };
            }
        }
    }
}

fn crc32c_of(delivery: &Delivery) -> u32 {
    super::message(delivery.body.clone()).crc32c
}

impl Leadership {
    fn has_room(&self, state_bytes_max: u64) -> bool {
        let usage = self.state.usage();
        usage.exceptions * 27 + usage.out_of_order * 4 <= state_bytes_max
    }

    fn effect(&mut self, effect: &Effect) {
        match effect {
            Effect::ChannelCreated {
                channel,
                begin,
                existed: false,
                ..
            } => {
                self.channels.insert(
                    *channel,
                    ChannelModel {
                        next: *begin,
                        ..ChannelModel::default()
                    },
                );
            }
            Effect::ChannelDeleted { channel, .. } => {
                self.channels.remove(channel);
                self.consumers.retain(|_, consumer| consumer.channel != *channel);
            }
            Effect::ChannelEmptied { channel, up_to } => {
                let model = self.channels.get_mut(channel).expect("the model has every channel");
                model.next = model.next.max(*up_to);
                model.statuses.clear();
                for consumer in self
                    .consumers
                    .values_mut()
                    .filter(|consumer| consumer.channel == *channel)
                {
                    consumer.in_flight = 0;
                }
            }
            Effect::Deferred { seq, due } => {
                for (incarnation, model) in &mut self.channels {
                    let channel = self.state.channel(*incarnation);
                    if channel.is_some_and(|channel| channel.begin() <= *seq && !channel.is_finished(*seq)) {
                        model.statuses.insert(*seq, Status::Deferred { due: *due });
                    }
                }
            }
            Effect::Requeued {
                channel,
                seq,
                attempts,
                not_before,
                behind,
            } => {
                let model = self.channels.get_mut(channel).expect("the model has every channel");
                let before = model.statuses.get(seq).copied();
                assert_eq!(
                    before,
                    Some(Status::Requeueing {
                        not_before: *not_before
                    }),
                    "message {seq} came back unasked"
                );
                model.requeues += 1;
                let place = (*behind, model.requeues);
                let queued = Status::Queued {
                    attempts: *attempts,
                    not_before: *not_before,
                    place,
                };
                model.statuses.insert(*seq, queued);
            }
            Effect::TopicDeleted { .. } => {
                self.channels.clear();
                self.consumers.clear();
            }
            _ => {}
        }
    }

    /// What is finished has no status any more, but for a message that somebody holds although another's FIN has counted.
    fn forget_finished(&mut self, channel: ChannelIncarnation) {
        if let (Some(model), Some(state)) = (self.channels.get_mut(&channel), self.state.channel(channel)) {
            model.statuses.retain(|seq, status| {
                !state.is_finished(*seq) || matches!(status, Status::InFlight { .. } | Status::Orphaned { .. })
            });
        }
    }
}

impl ChannelModel {
    /// A message that may be delivered now.
    fn deliverable(&self, topic: &TopicState, channel: &Channel, clock: LogTime, has_room: bool) -> Option<Seq> {
        let may_go = |status: &Status| match status {
            Status::Returned { .. } => true,
            Status::Queued { not_before, .. } => not_before.is_none_or(|due| due <= clock),
            Status::Deferred { due } => *due <= clock,
            Status::InFlight { .. }
            | Status::Orphaned { .. }
            | Status::Requeueing { .. }
            | Status::Finishing
            | Status::PassedOver => false,
        };
        let stop = self
            .statuses
            .iter()
            .find(|(_, status)| matches!(status, Status::PassedOver))
            .map(|(seq, _)| *seq);
        let end = stop.unwrap_or(topic.readable_end());
        // What came back to the tail waits until reading is there.
        let is_in_reach = |status: &Status| match status {
            Status::Queued {
                not_before: None,
                place,
                ..
            } => stop.is_none_or(|stop| place.0 <= stop),
            Status::Queued { .. } | Status::Deferred { .. } => stop.is_none(),
            _ => true,
        };
        let unread = (self.next.get()..end.get())
            .map(Seq::new)
            .find(|seq| has_room && !channel.is_finished(*seq) && !self.statuses.contains_key(seq));
        let back = self
            .statuses
            .iter()
            .find(|(seq, status)| may_go(status) && is_in_reach(status) && !channel.is_finished(**seq));
        unread.or(back.map(|(seq, _)| *seq))
    }

    /// Checks that it is this message's turn; returns how often it was delivered before.
    #[expect(clippy::too_many_arguments, reason = "all that a delivery depends on")]
    fn check_place(
        &self,
        seq: Seq,
        status: Option<Status>,
        state: &TopicState,
        channel: ChannelIncarnation,
        clock: LogTime,
        has_room: bool,
        what: &str,
    ) -> Attempts {
        let is_finished = |seq| state.channel(channel).is_none_or(|channel| channel.is_finished(seq));
        let unread_below = |end: Seq| {
            (self.next.get()..end.get())
                .map(Seq::new)
                .find(|seq| !is_finished(*seq) && !self.statuses.contains_key(seq))
        };
        let returned = self
            .statuses
            .iter()
            .find(|(seq, status)| matches!(status, Status::Returned { .. }) && !is_finished(**seq))
            .map(|(seq, _)| *seq);
        match status {
            Some(Status::Returned { attempts }) => {
                assert_eq!(returned, Some(seq), "{what}: given back, but not the first of those");
                return attempts;
            }
            _ => assert_eq!(returned, None, "{what}: before what was given back"),
        }
        match status {
            None => {
                assert!(seq >= self.next, "{what}: first delivery of an old message");
                assert_eq!(unread_below(seq), None, "{what}: skipped a message");
                Attempts::default()
            }
            Some(Status::Queued {
                attempts,
                not_before: None,
                place,
            }) => {
                let end = place.0.min(state.readable_end());
                let overtaken = if has_room { unread_below(end) } else { None };
                assert_eq!(
                    overtaken, None,
                    "{what}: came back to the tail, but has overtaken another"
                );
                let earlier = self.statuses.iter().find(|(other, status)| {
                    matches!(status, Status::Queued { not_before: None, place: others, .. } if *others < place)
                        && !is_finished(**other)
                });
                assert_eq!(earlier, None, "{what}: overtook what came back earlier");
                attempts
            }
            Some(Status::Queued {
                attempts,
                not_before: Some(due),
                ..
            }) => {
                assert!(due <= clock, "{what}: requeued until {due}, it is {clock}");
                attempts
            }
            Some(Status::Deferred { due }) => {
                assert!(due <= clock, "{what}: deferred until {due}, it is {clock}");
                Attempts::default()
            }
            Some(status) => panic!("{what}: it is {status:?}"),
        }
    }
}
