//! The topic leader as a step machine.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use nsquorum_consensus::{Refusal, TopicEvent};
use nsquorum_environment::Monotonic;
use nsquorum_protocol::{ChannelName, TopicName};
use nsquorum_storage::{ENTRY_HEADER_BYTES, Entry, SpaceState};
use nsquorum_topic::{
    Accepted, Applied, Attempts, BatchView, ChannelIncarnation, Cursor, Effect, EntryPosition, Event, FeatureLevel,
    NodeId, RequeueCause, Seq, SeqRange, Term, TopicState,
};
use tokio::sync::{mpsc, oneshot};

use super::dispatch::{ConsumerId, Dispatch, InFlight, Next};
use super::input::{ChannelChange, Command, LeaderInput, LocalConsumer, NodeState, Publish, PublishAnswer};
use super::leading::Leading;
use super::nodes::Nodes;
use super::pipeline::Pipeline;
use super::reader::{FetchRequest, Found, ReadPosition, ReadRequest, ReaderDone, ReaderJob};
use crate::latency::{LatencySettings, LatencyWindow, summary};
use crate::leases::{Delivery, DeliveryToken, LeaseEvent, LeaseOutcome, OrphanedLeases};
use crate::node::AdminError;
use crate::publish::PublishError;
use crate::stats::{ChannelStats, SubscriptionStats, TopicStats};
use crate::subscription::{SubscribeError, SubscriptionEvent, SubscriptionId, SubscriptionOptions};
use crate::wire::{Framed, FromLeader, Subscriber};

/// The meaning of apply that this release writes for.
const FEATURE_LEVEL: FeatureLevel = FeatureLevel::new(1);

/// How often a leader that has no space for anything looks again: nobody tells it when space returns.
const SPACE_RECHECK: Duration = Duration::from_millis(100);

/// How often a leader that nobody confirms looks again.
const CONFIRMATION_RECHECK: Duration = Duration::from_millis(20);

/// Bounds of one topic leader.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LeaderLimits {
    /// Message bytes of one entry (one command larger than that goes alone).
    pub(crate) batch_bytes_max: usize,
    /// Entries under way at a time.
    pub(crate) proposals_max: usize,
    /// Deferred messages of the topic.
    pub(crate) deferred_max: u64,
    /// What deliveries have added to the encoded state; beyond it channels read nothing new until consumers have finished more.
    pub(crate) state_bytes_max: u64,
    /// Deliveries of one channel before other work gets its turn.
    pub(crate) burst_max: usize,
    /// Messages that an ephemeral channel keeps for consumers without room.
    pub(crate) ephemeral_depth_max: u64,
}

impl Default for LeaderLimits {
    fn default() -> Self {
        Self {
            batch_bytes_max: 1 << 20,
            proposals_max: 2,
            deferred_max: 1_000_000,
            state_bytes_max: 32 << 20,
            burst_max: 1024,
            ephemeral_depth_max: 10_000,
        }
    }
}

/// What the shell has to do.
#[derive(Debug)]
pub(crate) enum Output {
    /// Propose this payload. Proposals must be made in this order.
    Propose { term: Term, buffer: BytesMut, ticket: u64 },
    /// Do this on a thread that may touch the disk.
    Read(ReaderJob),
    /// The topic's end was applied: metadata must learn of it, then `answers` may be given.
    TopicDeleted { last_seq: Seq },
    /// Ask which channels the topic has elsewhere, and tell [`TopicLeader::channels_known`].
    AskForChannels { term: Term },
    /// Send this to the router of another node.
    Send { to: NodeId, frame: Framed<FromLeader> },
}

/// What the end of a leadership means to the node's router.
#[derive(Debug)]
pub(crate) enum Ended {
    /// Somebody may lead: what this node's clients have going on belongs to the router again.
    Leadership(Box<NodeState>),
    /// The topic is over.
    Topic(PublishError),
}

/// Where a consumer's deliveries go.
#[derive(Debug)]
pub(super) enum Port {
    /// To a connection of this node.
    Local {
        channel: ChannelName,
        deliveries: mpsc::UnboundedSender<SubscriptionEvent>,
    },
    /// To the router of another node.
    Node(NodeId),
}

/// A consumer at its leader.
#[derive(Debug)]
pub(super) struct Consumer {
    pub(super) channel: ChannelIncarnation,
    pub(super) options: SubscriptionOptions,
    pub(super) port: Port,
    pub(super) ready: u32,
    pub(super) in_flight: u64,
    messages: u64,
    finished: u64,
    requeued: u64,
    in_turn: bool,
    /// No association with its node: nothing is delivered.
    pub(super) is_suspended: bool,
}

impl Consumer {
    pub(super) const fn new(channel: ChannelIncarnation, options: SubscriptionOptions, port: Port) -> Self {
        Self {
            channel,
            options,
            port,
            ready: 0,
            in_flight: 0,
            messages: 0,
            finished: 0,
            requeued: 0,
            in_turn: false,
            is_suspended: false,
        }
    }

    fn has_room(&self) -> bool {
        !self.is_suspended && self.in_flight < u64::from(self.ready)
    }
}

/// A consumer whose channel is being created.
#[derive(Debug)]
pub(super) enum Attaching {
    Local(LocalConsumer),
    Node(NodeId, Subscriber),
}

#[derive(Debug)]
pub(super) struct Orphans {
    pub(super) channel: ChannelIncarnation,
    pub(super) leases: OrphanedLeases,
}

/// The leader of one topic; see the module documentation.
#[derive(Debug)]
pub(crate) struct TopicLeader {
    pub(super) name: TopicName,
    pub(super) limits: LeaderLimits,
    pub(super) pipeline: Pipeline,
    pub(super) leading: Option<Leading>,
    /// The other nodes of the cluster; `None` on a node that is alone.
    pub(super) nodes: Option<Nodes>,
    /// Inputs that arrived before this node led.
    early: Vec<LeaderInput>,
    pub(super) consumers: BTreeMap<ConsumerId, Consumer>,
    /// Consumers whose channel is being created.
    pub(super) attaching: BTreeMap<ChannelName, Vec<Attaching>>,
    pub(super) orphans: Vec<Orphans>,
    space: SpaceState,
    /// Whether a majority has confirmed the leadership lately. Without that nothing is delivered: somebody else may lead.
    is_confirmed: bool,
    /// What was in the pipeline when it was last told to flush is in the log.
    pub(super) is_flushed: bool,
    pub(super) stepped_at: Monotonic,
    window_bytes_max: usize,
    /// Which latencies are measured, if any.
    latency: Option<LatencySettings>,
    /// Whether somebody can be asked for the channels of a new topic.
    pub(super) asks_for_channels: bool,
    is_over: Option<PublishError>,
    pub(super) ended: Option<Ended>,
    pub(super) outputs: Vec<Output>,
    delivered: u64,
    /// Channels that stopped at their burst bound and go on at the next step.
    unfinished_bursts: Vec<ChannelIncarnation>,
}

impl TopicLeader {
    pub(crate) fn new(name: TopicName, limits: LeaderLimits) -> Self {
        Self {
            name,
            limits,
            pipeline: Pipeline::default(),
            leading: None,
            nodes: None,
            early: Vec::new(),
            consumers: BTreeMap::new(),
            attaching: BTreeMap::new(),
            orphans: Vec::new(),
            space: SpaceState::Ok,
            is_confirmed: true,
            is_flushed: false,
            stepped_at: Monotonic::START,
            window_bytes_max: 4 << 20,
            latency: None,
            asks_for_channels: false,
            is_over: None,
            ended: None,
            outputs: Vec::new(),
            delivered: 0,
            unfinished_bursts: Vec::new(),
        }
    }

    /// Says whether and how it is measured how long messages take.
    pub(crate) fn set_latency(&mut self, latency: Option<LatencySettings>) {
        self.latency = latency;
    }

    /// Free disk space, as last looked at.
    pub(crate) fn set_space(&mut self, space: SpaceState) {
        self.space = space;
    }

    /// Whether a majority has confirmed the leadership, as last looked at.
    pub(crate) fn set_confirmed(&mut self, is_confirmed: bool) {
        let was_confirmed = std::mem::replace(&mut self.is_confirmed, is_confirmed);
        if is_confirmed && !was_confirmed {
            self.dispatch_all();
        }
    }

    /// Bytes of recent entries that may be held for channels that lag.
    pub(crate) fn set_window_bytes_max(&mut self, bytes: usize) {
        self.window_bytes_max = bytes;
    }

    /// Bytes of recent entries held.
    pub(crate) fn window_bytes(&self) -> usize {
        self.leading.as_ref().map_or(0, |leading| leading.window.bytes())
    }

    // === inputs ===

    /// Takes one input from a frontend or the node.
    pub(crate) fn input(&mut self, input: LeaderInput, now: Monotonic) {
        if let Some(why) = self.is_over {
            refuse(input, why);
            return;
        }
        if self.leading.is_none() {
            // Bounded by the admission of publish bytes and by the number of connections.
            self.early.push(input);
            return;
        }
        match input {
            LeaderInput::Publish(publish) => self.publish(publish),
            LeaderInput::Subscribe(subscribe) => self.subscribe(Attaching::Local(subscribe.into())),
            LeaderInput::Ready { subscription, count } => self.ready(ConsumerId::local(subscription), count),
            LeaderInput::LeaseEvents { events } => self.lease_events(&events, now),
            LeaderInput::Disconnected { subscription, leases } => self.disconnected(subscription, leases),
            LeaderInput::IsInFlight {
                subscription,
                seq,
                answer,
            } => {
                // A caller that has gone needs no answer; the same holds for every answer below.
                _ = answer.send(self.is_in_flight(ConsumerId::local(subscription), seq));
            }
            LeaderInput::Command { command, answer } => self.command(command, None, now, answer),
            LeaderInput::Channels { answer } => drop(answer.send(self.channels())),
            LeaderInput::Stats { channel, answer } => drop(answer.send(self.stats(channel.as_ref(), None, now))),
        }
    }

    /// Takes one event of the topic's group.
    pub(crate) fn event(&mut self, event: TopicEvent, now: Monotonic) {
        match event {
            TopicEvent::LeaderStarted { term, state } => self.start_leading(term, state, now),
            TopicEvent::Applied { entry, batch, applied } => self.applied(&entry, batch, &applied),
            TopicEvent::Refused { ticket, refusal } => self.refused(ticket, refusal, now),
            TopicEvent::Deposed => self.stop_leading(PublishError::Stopping),
            TopicEvent::Quarantined => self.end(PublishError::Quarantined),
        }
    }

    /// Takes what a reader found.
    pub(crate) fn reader_done(&mut self, done: ReaderDone) {
        let ReaderDone { term, channel, found } = done;
        let Some(leading) = self.leading.as_mut().filter(|leading| leading.term == term) else {
            return;
        };
        let Some(dispatch) = leading.dispatches.get_mut(&channel) else {
            return;
        };
        match found {
            Found::Batches { batches, resume } => dispatch.read_done(batches, resume),
            Found::Messages(messages) => dispatch.fetch_done(messages),
            Found::Failed { kind, wanted, .. } if !dispatch.wants(wanted, &leading.state) => dispatch.read_failed(kind),
            Found::Failed { error, .. } => {
                tracing::error!(
                    topic = %self.name,
                    channel = channel.get(),
                    %error,
                    "the log of this topic cannot be read here: the topic stops on this node; run `nsquorum verify` on \
                     the stopped directory"
                );
                return self.end(PublishError::Quarantined);
            }
        }
        self.dispatch(channel);
    }

    /// Does what time demands, and collects everything that the shell has to do.
    pub(crate) fn step(&mut self, now: Monotonic) -> Vec<Output> {
        self.stepped_at = now;
        self.expire_nodes(now);
        self.expire_orphans(now);
        self.release_due(now);
        for channel in std::mem::take(&mut self.unfinished_bursts) {
            self.dispatch(channel);
        }
        self.propose(now);
        self.trim_window();
        std::mem::take(&mut self.outputs)
    }

    /// Whether [`step`](Self::step) has more to do at once.
    pub(crate) fn has_more(&self) -> bool {
        !self.unfinished_bursts.is_empty()
    }

    /// When [`step`](Self::step) has something to do if no input arrives before.
    pub(crate) fn wake_at(&self) -> Option<Monotonic> {
        let leading = self.leading.as_ref()?;
        let due = leading
            .dispatches
            .values()
            .filter_map(Dispatch::next_due)
            .min()
            .map(|due| leading.when(due));
        let orphans = self
            .orphans
            .iter()
            .filter_map(|orphans| orphans.leases.next_deadline())
            .min();
        let proposal = self
            .pipeline
            .ready_at(self.limits.proposals_max)
            .filter(|_| !leading.is_asking)
            .map(|at| match self.space {
                SpaceState::RefuseAll => at.max(self.stepped_at + SPACE_RECHECK),
                SpaceState::Ok | SpaceState::RefusePublishes => at,
            });
        let nodes = self.nodes.as_ref().and_then(|nodes| nodes.wake_at(leading));
        let confirmation = (!self.is_confirmed).then(|| self.stepped_at + CONFIRMATION_RECHECK);
        [due, orphans, proposal, nodes, confirmation]
            .into_iter()
            .flatten()
            .min()
    }

    // === leadership ===

    fn start_leading(&mut self, term: Term, state: Box<TopicState>, now: Monotonic) {
        if self.leading.is_some() {
            self.stop_leading(PublishError::Stopping);
        }
        tracing::debug!(topic = %self.name, term = term.get(), next_seq = state.next_seq().get(), "leading");
        if state.is_deleted() {
            // The node stopped between the end of the topic's log and the metadata's learning of it.
            self.outputs.push(Output::TopicDeleted {
                last_seq: Seq::new(state.next_seq().get() - 1),
            });
            self.end(PublishError::Exiting);
            return;
        }
        self.pipeline.start(state.next_seq());
        self.leading = Some(Leading::new(term, state, now));
        self.ask_for_channels();
        self.end_unused_ephemeral_topic();
        if self.nodes.is_some() {
            // Its clients' inputs come through the router, which begins with what they have going on.
            self.open_all(now);
            return;
        }
        self.delete_unused_ephemeral_channels();
        for input in std::mem::take(&mut self.early) {
            self.input(input, now);
        }
    }

    /// Consumers must subscribe again: what they hold is re-claimed by whoever leads next.
    fn stop_leading(&mut self, why: PublishError) {
        if self.nodes.is_some() {
            return self.hand_over();
        }
        self.drop_all(why);
    }

    fn drop_all(&mut self, why: PublishError) {
        self.leading = None;
        self.pipeline.abandon(why, AdminError::Unavailable(why.to_string()));
        self.consumers.clear();
        self.attaching.clear();
        self.orphans.clear();
    }

    fn end(&mut self, why: PublishError) {
        if why == PublishError::Quarantined {
            // Another replica may lead.
            self.stop_leading(why);
        } else {
            self.end_nodes();
            self.drop_all(why);
            self.ended = Some(Ended::Topic(why));
        }
        self.is_over = Some(why);
        for input in std::mem::take(&mut self.early) {
            refuse(input, why);
        }
    }

    fn refused(&mut self, ticket: u64, refusal: Refusal, now: Monotonic) {
        // One of an earlier leadership may be refused after the next has begun, and says nothing about that.
        let Some(leading) = self.leading.as_ref().filter(|_| self.pipeline.is_under_way(ticket)) else {
            return;
        };
        match refusal {
            Refusal::LeaseExpired => {
                self.pipeline.refused(ticket, now);
                // Nothing else may be under way, and then nothing is going to be applied.
                self.pipeline.settle(leading.state.next_seq());
            }
            Refusal::NotLeader | Refusal::Stopped => self.stop_leading(PublishError::Stopping),
        }
    }

    // === publishing ===

    pub(super) fn publish(&mut self, publish: Publish) {
        let Some(publish) = self.place_in_session(publish) else {
            return;
        };
        match self.publish_refusal(&publish) {
            None => self.pipeline.publish(publish),
            Some(why) => self.answer_publish(publish.answer, Err(why)),
        }
    }

    pub(super) fn answer_publish(&mut self, answer: PublishAnswer, result: Result<(), PublishError>) {
        match answer {
            PublishAnswer::Client(answer) => drop(answer.send(result)),
            PublishAnswer::Node { session, number } => self.answer_node(session, number, result),
        }
    }

    fn publish_refusal(&self, publish: &Publish) -> Option<PublishError> {
        if self.space != SpaceState::Ok {
            return Some(PublishError::DiskFull);
        }
        if let Some(why) = publish.only.as_ref().and_then(|only| self.refusal_for_one(only)) {
            // Whoever leads meanwhile may know better.
            return Some(if self.is_confirmed { why } else { PublishError::TimedOut });
        }
        let deferred = publish.messages.iter().filter(|message| message.defer_ms > 0).count() as u64;
        if deferred > 0 {
            let known = self
                .leading
                .as_ref()
                .map_or(0, |leading| leading.state.usage().deferred);
            if known + self.pipeline.deferred_waiting() + deferred > self.limits.deferred_max {
                return Some(PublishError::TooManyDeferred);
            }
        }
        None
    }

    fn refusal_for_one(&self, only: &ChannelName) -> Option<PublishError> {
        let state = &self.leading.as_ref()?.state;
        if state.paused_at().is_some() || self.pipeline.is_pausing() {
            return Some(PublishError::TopicPaused);
        }
        let channel = state.channel_by_name(only);
        let is_there = channel.is_some_and(|channel| !self.pipeline.is_deleting(channel.incarnation()));
        (!is_there).then_some(PublishError::ChannelNotFound)
    }

    fn propose(&mut self, now: Monotonic) {
        let Some(leading) = self.leading.as_ref().filter(|leading| !leading.is_asking) else {
            return;
        };
        // Far below the publish watermark even FINs wait: the last space belongs to whatever frees some.
        if self.space == SpaceState::RefuseAll {
            return;
        }
        while let Some(ready) = self.pipeline.next(
            now,
            self.limits.proposals_max,
            self.limits.batch_bytes_max,
            ENTRY_HEADER_BYTES,
        ) {
            let time = leading.clock(now);
            metrics::histogram!("nsquorum_batch_messages").record(f64::from(ready.builder.message_count()));
            let buffer = ready.builder.finish(leading.term, ready.first_seq, time, FEATURE_LEVEL);
            self.outputs.push(Output::Propose {
                term: leading.term,
                buffer,
                ticket: ready.ticket,
            });
        }
    }

    // === apply ===

    fn applied(&mut self, entry: &Entry, batch: BatchView, applied: &Applied) {
        let Some(leading) = &mut self.leading else { return };
        let header = entry.header();
        leading.applied_end = header.index.next();
        let at = EntryPosition {
            index: header.index,
            term: header.term,
            encoded_bytes: u32::try_from(entry.encoded_len()).expect("an entry's length is a u32 in its header"),
        };
        leading.pass_others(at);
        let own = leading
            .state
            .apply_batch(at, &batch)
            .expect("the group has applied the same entry to an equal state");
        assert_eq!(
            &own, applied,
            "the leader's copy of the state went another way than the group's"
        );
        let batch_header = batch.header();
        let is_own = batch_header.term == leading.term && header.term == leading.term;
        let next_seq = leading.state.next_seq();
        match own {
            Applied::Accepted(accepted) => {
                leading.window.push(batch, entry.encoded_len());
                let for_one_channel = if is_own {
                    let for_one_channel = self.pipeline.for_one_channel(batch_header.first_seq);
                    let stored = self.pipeline.accepted(batch_header.first_seq);
                    self.tell(stored);
                    for_one_channel
                } else {
                    Vec::new()
                };
                self.add_channels(&accepted);
                // Before anything is delivered, which the effects may bring about.
                for (range, only) in for_one_channel {
                    self.finish_on_others(range, &only);
                }
                self.effects(&accepted);
            }
            Applied::Void(reason) => {
                tracing::warn!(topic = %self.name, index = header.index.get(), %reason, "a void batch");
                metrics::counter!("nsquorum_void_batches_total").increment(1);
                if is_own {
                    self.pipeline.void(batch_header.first_seq);
                }
            }
        }
        self.pipeline.settle(next_seq);
        self.end_unused_ephemeral_topic();
        self.dispatch_all();
        self.drop_overflow_of_ephemeral_channels();
    }

    /// Messages for one channel have reached all of them: the others are done with these, and wait until that is in the log.
    fn finish_on_others(&mut self, range: SeqRange, only: &ChannelName) {
        let Some(Leading { state, dispatches, .. }) = &mut self.leading else {
            return;
        };
        // Nobody can be done with what has not left the topic. The pipeline lets no pause, and no end of their channel, get before them.
        if range.last() >= state.readable_end() {
            debug_assert!(false, "messages for one channel are held back for all");
            tracing::error!(topic = %self.name, %only, ?range, "messages for one channel were held back for all, and reach all of them");
            return;
        }
        for (channel, dispatch) in dispatches.iter_mut().filter(|(_, dispatch)| dispatch.name != *only) {
            dispatch.pass_over(range, state);
            for seq in range.first().get()..=range.last().get() {
                self.pipeline.finish(*channel, Seq::new(seq), self.stepped_at);
            }
        }
        self.pipeline.hurry();
    }

    fn add_channels(&mut self, accepted: &Accepted) {
        let Some(Leading { state, dispatches, .. }) = &mut self.leading else {
            return;
        };
        for effect in &accepted.effects {
            if let Effect::ChannelCreated {
                channel,
                existed: false,
                ..
            } = effect
                // An effect later in the same batch may have deleted it again.
                && let Some(created) = state.channel(*channel)
            {
                dispatches.insert(*channel, Dispatch::new(created, state));
            }
        }
    }

    fn effects(&mut self, accepted: &Accepted) {
        for effect in &accepted.effects {
            let Some(leading) = &mut self.leading else { return };
            match effect {
                Effect::ChannelCreated { name, channel, .. } => {
                    // Whoever waits behind the end of an ephemeral channel waits for the next of that name.
                    let is_ending = name.is_ephemeral() && self.pipeline.is_deleting(*channel);
                    if leading.state.channel(*channel).is_some() && !is_ending {
                        self.attach_waiting(name, *channel);
                    }
                }
                Effect::ChannelDeleted { channel, .. } => {
                    leading.dispatches.remove(channel);
                    let channel = *channel;
                    self.end_consumers_of(channel);
                    self.consumers.retain(|_, consumer| consumer.channel != channel);
                    self.orphans.retain(|orphans| orphans.channel != channel);
                }
                Effect::ChannelEmptied { channel, up_to } => {
                    if let Some(dispatch) = leading.dispatches.get_mut(channel) {
                        dispatch.empty(*up_to);
                    }
                    self.emptied(*channel);
                }
                Effect::Deferred { seq, due } => {
                    for (incarnation, dispatch) in &mut leading.dispatches {
                        if let Some(channel) = leading.state.channel(*incarnation) {
                            dispatch.defer(*seq, *due, channel);
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
                    if let Some(dispatch) = leading.dispatches.get_mut(channel) {
                        dispatch.requeued(*seq, *attempts, *not_before, *behind);
                    }
                }
                Effect::Finished { channel, ranges, .. } => {
                    if let Some(dispatch) = leading.dispatches.get_mut(channel) {
                        dispatch.finished(ranges, &leading.state);
                    }
                }
                Effect::TopicEmptied => {
                    let next_seq = leading.state.next_seq();
                    for dispatch in leading.dispatches.values_mut() {
                        dispatch.raise_horizon(next_seq);
                    }
                }
                Effect::TopicDeleted { next_seq } => {
                    let last_seq = Seq::new(next_seq.get() - 1);
                    self.outputs.push(Output::TopicDeleted { last_seq });
                    self.end(PublishError::Exiting);
                    return;
                }
                Effect::ChannelPaused { .. }
                | Effect::ChannelUnpaused { .. }
                | Effect::TopicPaused
                | Effect::TopicUnpaused => {}
            }
        }
    }

    /// Emptying takes the messages out of the consumers' hands: they have room at once.
    fn emptied(&mut self, channel: ChannelIncarnation) {
        let Some(dispatch) = self
            .leading
            .as_mut()
            .and_then(|leading| leading.dispatches.get_mut(&channel))
        else {
            return;
        };
        let mut emptied = Vec::new();
        for id in dispatch.consumers.keys().copied().collect::<Vec<_>>() {
            if let Some(consumer) = self.consumers.get_mut(&id) {
                consumer.in_flight = 0;
                match &consumer.port {
                    // A consumer that is gone is noticed at its disconnect.
                    Port::Local { deliveries, .. } => drop(deliveries.send(SubscriptionEvent::Emptied)),
                    Port::Node(node) => emptied.push((*node, id.subscription)),
                }
                if consumer.has_room() && !consumer.in_turn {
                    consumer.in_turn = true;
                    dispatch.enter_turn(id);
                }
            }
        }
        for (node, subscription) in emptied {
            self.send(node, FromLeader::Emptied { subscription });
        }
        for orphans in self.orphans.iter_mut().filter(|orphans| orphans.channel == channel) {
            orphans.leases.empty();
        }
    }

    // === consumers ===

    pub(super) fn subscribe(&mut self, consumer: Attaching) {
        let Some(leading) = &self.leading else { return };
        let name = match &consumer {
            Attaching::Local(consumer) => &consumer.channel,
            Attaching::Node(_, subscriber) => &subscriber.channel,
        };
        let existing = leading.state.channel_by_name(name).map(|channel| channel.incarnation());
        // One that is about to go by itself would take the consumer with it, which begins the next instead.
        let existing = existing.filter(|channel| !name.is_ephemeral() || !self.pipeline.is_deleting(*channel));
        match existing {
            Some(channel) => self.attach(consumer, channel),
            None => {
                let name = name.clone();
                let waiting = self.attaching.entry(name.clone()).or_default();
                let is_first = waiting.is_empty();
                waiting.push(consumer);
                if is_first {
                    self.pipeline.command(Event::CreateChannel { name }, None);
                }
            }
        }
    }

    fn attach_waiting(&mut self, name: &ChannelName, channel: ChannelIncarnation) {
        for consumer in self.attaching.remove(name).unwrap_or_default() {
            self.attach(consumer, channel);
        }
    }

    fn attach(&mut self, consumer: Attaching, channel: ChannelIncarnation) {
        let dispatch = self
            .leading
            .as_mut()
            .and_then(|leading| leading.dispatches.get_mut(&channel));
        let Some(dispatch) = dispatch else {
            match consumer {
                Attaching::Local(LocalConsumer { answer, .. }) => {
                    drop(answer.map(|answer| answer.send(Err(SubscribeError::Deleted))));
                }
                Attaching::Node(node, Subscriber { subscription, .. }) => {
                    let result = Err(SubscribeError::Deleted);
                    self.send(node, FromLeader::Subscribed { subscription, result });
                }
            }
            return;
        };
        match consumer {
            Attaching::Local(consumer) => {
                let id = ConsumerId::local(consumer.id);
                if consumer.answer.is_some_and(|answer| answer.send(Ok(())).is_err()) {
                    // The connection has gone meanwhile, and so it never says that it goes.
                    if dispatch.consumers.is_empty() && dispatch.name.is_ephemeral() {
                        self.pipeline.command(Event::DeleteChannel { channel }, None);
                    }
                    return;
                }
                let port = Port::Local {
                    channel: consumer.channel,
                    deliveries: consumer.deliveries,
                };
                self.add_consumer(id, Consumer::new(channel, consumer.options, port), consumer.ready);
            }
            Attaching::Node(node, subscriber) => {
                let subscription = subscriber.subscription;
                let id = ConsumerId {
                    node: Some(node),
                    subscription,
                };
                let result = Ok(channel);
                let consumer = Consumer::new(channel, subscriber.options, Port::Node(node));
                self.send(node, FromLeader::Subscribed { subscription, result });
                self.add_consumer(id, consumer, subscriber.ready);
            }
        }
    }

    /// Attaches a consumer to a channel that exists.
    pub(super) fn add_consumer(&mut self, id: ConsumerId, consumer: Consumer, ready: u32) {
        let dispatch = self
            .leading
            .as_mut()
            .and_then(|leading| leading.dispatches.get_mut(&consumer.channel));
        if let Some(dispatch) = dispatch {
            dispatch.attach(id, consumer.options.nearness);
            self.consumers.insert(id, consumer);
            if ready > 0 {
                self.ready(id, ready);
            }
        }
    }

    pub(super) fn ready(&mut self, id: ConsumerId, count: u32) {
        let Some(consumer) = self.consumers.get_mut(&id) else {
            return;
        };
        consumer.ready = count;
        let channel = consumer.channel;
        self.take_turn(id);
        self.dispatch(channel);
    }

    /// Lets a consumer with room take part in its channel's round.
    pub(super) fn take_turn(&mut self, id: ConsumerId) {
        let Some(consumer) = self.consumers.get_mut(&id) else {
            return;
        };
        let dispatch = self
            .leading
            .as_mut()
            .and_then(|leading| leading.dispatches.get_mut(&consumer.channel));
        if let Some(dispatch) = dispatch
            && consumer.has_room()
            && !consumer.in_turn
        {
            consumer.in_turn = true;
            dispatch.enter_turn(id);
        }
    }

    pub(super) fn lease_events(&mut self, events: &[LeaseEvent], now: Monotonic) {
        let mut touched: Option<ChannelIncarnation> = None;
        for event in events {
            self.lease_event(event, now);
            let channel = event.token.channel;
            if let Some(before) = touched.replace(channel)
                && before != channel
            {
                self.dispatch(before);
            }
        }
        if let Some(channel) = touched {
            self.dispatch(channel);
        }
    }

    pub(super) fn lease_event(&mut self, event: &LeaseEvent, now: Monotonic) {
        let token = event.token;
        let Some(leading) = &mut self.leading else { return };
        let clock = leading.clock(now);
        let Some(dispatch) = leading.dispatches.get_mut(&token.channel) else {
            return;
        };
        let holder = dispatch.in_flight.get(&token.seq).copied();
        let is_holder = holder.is_some_and(|holder| holder.is(&token));
        // A FIN counts while the message is unfinished, whoever holds it now; everything else only from the holder.
        if !is_holder && event.outcome != LeaseOutcome::Finished {
            return;
        }
        if is_holder {
            dispatch.in_flight.remove(&token.seq);
        }
        if let Some(settings) = &self.latency
            && event.outcome == LeaseOutcome::Finished
            && let Some(published_at) = holder.filter(|_| is_holder).and_then(|holder| holder.published_at)
        {
            let latency = Duration::from_nanos(clock.get().saturating_sub(published_at.get()));
            let window = dispatch
                .latency
                .get_or_insert_with(|| LatencyWindow::new(settings, now));
            window.record(latency, now);
        }
        let requeue = |not_before, cause| Event::Requeue {
            channel: token.channel,
            seq: token.seq,
            attempts: token.attempts,
            not_before,
            cause,
        };
        match event.outcome {
            LeaseOutcome::Finished => {
                if leading
                    .state
                    .channel(token.channel)
                    .is_some_and(|channel| !channel.is_finished(token.seq))
                {
                    self.pipeline.finish(token.channel, token.seq, now);
                }
            }
            LeaseOutcome::Requeued { delay_ms } => {
                count_redelivery("requeue");
                let not_before = (delay_ms > 0).then(|| clock.plus_ms(delay_ms));
                self.pipeline.requeue(requeue(not_before, RequeueCause::Requeue));
            }
            LeaseOutcome::TimedOut => {
                count_redelivery("timeout");
                self.pipeline.requeue(requeue(None, RequeueCause::Timeout));
            }
            LeaseOutcome::Disconnected => {
                count_redelivery("disconnect");
                self.pipeline.requeue(requeue(None, RequeueCause::Disconnect));
            }
            LeaseOutcome::Returned => {
                dispatch.give_back(token.seq, Attempts::new(token.attempts.get().saturating_sub(1)));
                if let Some(holder) = holder {
                    dispatch.unserved(holder.consumer);
                }
            }
        }
        if let Some(holder) = holder.filter(|_| is_holder) {
            self.released(holder.consumer, event.outcome);
        }
    }

    fn released(&mut self, id: ConsumerId, outcome: LeaseOutcome) {
        let Some(consumer) = self.consumers.get_mut(&id) else {
            return;
        };
        consumer.in_flight = consumer.in_flight.saturating_sub(1);
        match outcome {
            LeaseOutcome::Finished => consumer.finished += 1,
            LeaseOutcome::Requeued { .. } => consumer.requeued += 1,
            LeaseOutcome::Returned => consumer.messages = consumer.messages.saturating_sub(1),
            LeaseOutcome::TimedOut | LeaseOutcome::Disconnected => {}
        }
        self.take_turn(id);
    }

    fn disconnected(&mut self, subscription: SubscriptionId, leases: OrphanedLeases) {
        let id = ConsumerId::local(subscription);
        let Some(consumer) = self.consumers.remove(&id) else {
            return;
        };
        let channel = consumer.channel;
        let Some(dispatch) = self
            .leading
            .as_mut()
            .and_then(|leading| leading.dispatches.get_mut(&channel))
        else {
            return;
        };
        // What it never wrote to the socket keeps its place; what it did write stays in flight until its own deadline.
        let unwritten: Vec<(Seq, InFlight)> = dispatch
            .in_flight
            .iter()
            .filter(|(seq, held)| held.consumer == id && !leases.holds(**seq, held.delivery))
            .map(|(seq, held)| (*seq, *held))
            .collect();
        for (seq, held) in unwritten {
            dispatch.in_flight.remove(&seq);
            dispatch.give_back(seq, Attempts::new(held.attempts.get().saturating_sub(1)));
            dispatch.unserved(id);
        }
        dispatch.detach(id);
        if dispatch.consumers.is_empty() && dispatch.name.is_ephemeral() {
            self.pipeline.command(Event::DeleteChannel { channel }, None);
        } else if !leases.is_empty() {
            self.orphans.push(Orphans { channel, leases });
        }
        self.dispatch(channel);
    }

    fn expire_orphans(&mut self, now: Monotonic) {
        if self.orphans.is_empty() {
            return;
        }
        let events: Vec<LeaseEvent> = self
            .orphans
            .iter_mut()
            .flat_map(|orphans| orphans.leases.expire(now))
            .collect();
        self.orphans.retain(|orphans| !orphans.leases.is_empty());
        self.lease_events(&events, now);
    }

    /// Ephemeral channels live as long as a consumer is attached; a new leader has none yet that belonged to an earlier one.
    pub(super) fn delete_unused_ephemeral_channels(&mut self) {
        // Consumers that are still to be claimed keep theirs.
        let Some(leading) = self.leading.as_ref().filter(|leading| leading.awaited.is_none()) else {
            return;
        };
        for dispatch in leading
            .dispatches
            .values()
            .filter(|dispatch| dispatch.name.is_ephemeral() && dispatch.consumers.is_empty())
        {
            self.pipeline.command(
                Event::DeleteChannel {
                    channel: dispatch.channel,
                },
                None,
            );
        }
    }

    // === dispatch ===

    fn release_due(&mut self, now: Monotonic) {
        let Some(leading) = &mut self.leading else { return };
        let clock = leading.clock(now);
        let tail = leading.state.next_seq();
        let mut due = Vec::new();
        for dispatch in leading.dispatches.values_mut() {
            if dispatch.next_due().is_some_and(|next| next <= clock) {
                dispatch.release_due(clock, tail);
                due.push(dispatch.channel);
            }
        }
        for channel in due {
            self.dispatch(channel);
        }
    }

    pub(super) fn dispatch_all(&mut self) {
        let Some(leading) = &self.leading else { return };
        let channels: Vec<ChannelIncarnation> = leading
            .dispatches
            .values()
            .filter(|dispatch| dispatch.next_consumer().is_some())
            .map(|dispatch| dispatch.channel)
            .collect();
        for channel in channels {
            self.dispatch(channel);
        }
    }

    /// Hands messages of a channel to consumers with room until one of both has run out.
    fn dispatch(&mut self, channel: ChannelIncarnation) {
        let Some(leading) = &mut self.leading else { return };
        if leading.awaited.is_some() || !self.is_confirmed {
            return;
        }
        let Some(found) = leading.state.channel(channel) else {
            return;
        };
        let is_paused = found.is_paused();
        // Beyond this bound nothing new is begun; what came back may still be finished, which makes the state smaller.
        let has_room = leading.has_room(found, self.limits.state_bytes_max);
        let Leading {
            term,
            state,
            window,
            dispatches,
            ..
        } = leading;
        let term = *term;
        let Some(dispatch) = dispatches.get_mut(&channel) else {
            return;
        };
        if is_paused {
            return;
        }
        let mut burst = 0;
        while let Some(id) = dispatch.next_consumer() {
            let Some(consumer) = self.consumers.get_mut(&id).filter(|consumer| consumer.has_room()) else {
                dispatch.leave_turn(id);
                if let Some(consumer) = self.consumers.get_mut(&id) {
                    consumer.in_turn = false;
                }
                continue;
            };
            if burst == self.limits.burst_max {
                if !self.unfinished_bursts.contains(&channel) {
                    self.unfinished_bursts.push(channel);
                }
                break;
            }
            let (message, attempts) = match dispatch.next(state, window, has_room) {
                Next::Message { message, attempts } => (message, attempts),
                Next::Nothing => break,
                Next::Read => {
                    let point = position(state, dispatch.read_next);
                    // What lies before the point may be purged, and reading may have skipped far beyond where it stopped.
                    let from = dispatch
                        .resume
                        .filter(|resume| resume.index > point.index)
                        .unwrap_or(point);
                    let wanted = dispatch.read_next;
                    dispatch.is_reading = true;
                    let request = ReadRequest {
                        term,
                        channel,
                        from,
                        wanted,
                        end: leading.applied_end,
                    };
                    self.outputs.push(Output::Read(ReaderJob::Read(request)));
                    break;
                }
                Next::Fetch(seqs) => {
                    let messages = seqs.into_iter().map(|seq| (seq, position(state, seq))).collect();
                    dispatch.is_fetching = true;
                    let request = FetchRequest {
                        term,
                        channel,
                        messages,
                        end: leading.applied_end,
                    };
                    self.outputs.push(Output::Read(ReaderJob::Fetch(request)));
                    break;
                }
            };
            burst += 1;
            leading.deliveries += 1;
            let token = DeliveryToken {
                channel,
                seq: message.seq,
                attempts: attempts.next(),
                term,
                delivery: leading.deliveries,
            };
            let published_at = message.published_at;
            let delivery = Delivery {
                token,
                published_at,
                body: message.body,
                crc32c: message.crc32c,
            };
            match &consumer.port {
                Port::Local { deliveries, .. } => {
                    if deliveries.send(SubscriptionEvent::Deliver(delivery)).is_err() {
                        // Its connection is gone and will say so; until then it takes no part.
                        dispatch.give_back(token.seq, attempts);
                        consumer.ready = 0;
                        continue;
                    }
                }
                Port::Node(node) => {
                    let subscription = id.subscription;
                    let frame = FromLeader::Deliver { subscription, delivery };
                    if let Some(nodes) = &mut self.nodes {
                        self.outputs.extend(nodes.send(*node, term, frame));
                    }
                }
            }
            self.delivered += 1;
            consumer.in_flight += 1;
            consumer.messages += 1;
            dispatch.in_flight.insert(
                token.seq,
                InFlight {
                    consumer: id,
                    attempts: token.attempts,
                    term,
                    delivery: token.delivery,
                    published_at: Some(published_at),
                },
            );
            dispatch.served(id, consumer.options.nearness);
        }
    }

    fn trim_window(&mut self) {
        let bytes_max = self.window_bytes_max;
        if let Some(leading) = &mut self.leading {
            let needed_from = leading.needed_from();
            leading.window.trim(needed_from, bytes_max);
        }
    }

    // === administration and questions ===

    /// Carries out a change that came through a node; `None` is this one.
    pub(super) fn command(
        &mut self,
        command: Command,
        by: Option<NodeId>,
        now: Monotonic,
        answer: oneshot::Sender<Result<(), AdminError>>,
    ) {
        let Some(leading) = &mut self.leading else { return };
        if leading.repeats.is_repeated(&command, by, now) {
            tracing::info!(topic = %self.name, ?command, "not done again: another node has just asked for the same");
            metrics::counter!("nsquorum_actions_skipped_total", "why" => "repeated").increment(1);
            drop(answer.send(Ok(())));
            return;
        }
        let done = command.clone();
        let event = match command {
            Command::Topic(event) => event,
            Command::CreateChannel(name) => Event::CreateChannel { name },
            Command::Channel(name, change) => {
                let Some(channel) = leading
                    .state
                    .channel_by_name(&name)
                    .map(|channel| channel.incarnation())
                else {
                    drop(answer.send(Err(AdminError::ChannelNotFound)));
                    return;
                };
                match change {
                    ChannelChange::Delete => Event::DeleteChannel { channel },
                    ChannelChange::Empty => Event::EmptyChannel { channel },
                    ChannelChange::Pause => Event::PauseChannel { channel },
                    ChannelChange::Unpause => Event::UnpauseChannel { channel },
                }
            }
        };
        leading.repeats.remember(&done, by, now);
        self.pipeline.command(event, Some(answer));
    }

    pub(super) fn is_in_flight(&self, id: ConsumerId, seq: Seq) -> bool {
        let channel = self.consumers.get(&id).map(|consumer| consumer.channel);
        channel
            .and_then(|channel| self.leading.as_ref()?.dispatches.get(&channel))
            .is_some_and(|dispatch| dispatch.in_flight.contains_key(&seq))
    }

    pub(super) fn channels(&self) -> Vec<ChannelName> {
        let Some(leading) = &self.leading else {
            return Vec::new();
        };
        let mut names: Vec<ChannelName> = leading.state.channels().map(|channel| channel.name().clone()).collect();
        names.sort();
        names
    }

    /// What a node shows; `None` is this one. Whoever adds up what all nodes show must get each message once, and each client: counts are
    /// those of the leader's node, and every node has the clients that are connected to it.
    pub(super) fn stats(&self, only: Option<&ChannelName>, at: Option<NodeId>, now: Monotonic) -> TopicStats {
        let mut stats = TopicStats {
            name: self.name.clone(),
            is_leader: true,
            depth: 0,
            message_count: 0,
            message_bytes: 0,
            paused: false,
            channels: Vec::new(),
            latency: None,
        };
        let Some(leading) = &self.leading else { return stats };
        let measured = |windows: &mut dyn Iterator<Item = &Dispatch>| {
            let windows = windows.filter_map(|dispatch| dispatch.latency.as_ref());
            self.latency.as_ref().map(|settings| summary(settings, windows, now))
        };
        // Without a channel nothing can be finished, and nsqd shows nothing.
        if !leading.dispatches.is_empty() {
            stats.latency = measured(&mut leading.dispatches.values());
        }
        let state = &leading.state;
        stats.message_count = state.message_count();
        stats.message_bytes = state.message_bytes();
        stats.paused = state.paused_at().is_some();
        stats.depth = match state.channels().next() {
            None => state.next_seq().get() - state.purge_floor().get(),
            Some(_) => state.next_seq().get() - state.readable_end().get(),
        };
        for channel in state.channels() {
            if only.is_some_and(|only| only != channel.name()) {
                continue;
            }
            let Some(dispatch) = leading.dispatches.get(&channel.incarnation()) else {
                continue;
            };
            let in_flight_count = dispatch.in_flight.len() as u64;
            // Whoever waits for a channel to be empty must not miss what is on its way back: it counts as what it is to become.
            let deferred_count = dispatch.deferred_count() + self.pipeline.deferring(channel.incarnation());
            let finishing = self.pipeline.finishing(channel.incarnation());
            let unfinished = channel.unfinished_below(state.readable_end());
            stats.channels.push(ChannelStats {
                name: channel.name().clone(),
                depth: unfinished.saturating_sub(in_flight_count + deferred_count + finishing),
                in_flight_count,
                deferred_count,
                message_count: channel.message_count(),
                requeue_count: channel.requeue_count(),
                timeout_count: channel.timeout_count(),
                deliveries: dispatch.deliveries,
                paused: channel.is_paused(),
                consumer_count: dispatch.consumers.len() as u64,
                clients: dispatch
                    .consumers
                    .keys()
                    .filter(|id| id.node == at)
                    .filter_map(|id| self.consumer_stats(*id))
                    .collect(),
                latency: measured(&mut std::iter::once(dispatch)),
            });
        }
        stats.channels.sort_by(|a, b| a.name.cmp(&b.name));
        match at {
            None => stats,
            Some(_) => stats.elsewhere(),
        }
    }

    fn consumer_stats(&self, id: ConsumerId) -> Option<SubscriptionStats> {
        let consumer = self.consumers.get(&id)?;
        Some(SubscriptionStats {
            id: id.subscription,
            client: Arc::clone(&consumer.options.client),
            ready_count: consumer.ready,
            in_flight_count: consumer.in_flight,
            message_count: consumer.messages,
            finish_count: consumer.finished,
            requeue_count: consumer.requeued,
            nearness: consumer.options.nearness,
        })
    }
}

/// Where a reader that wants `seq` begins.
fn position(state: &TopicState, seq: Seq) -> ReadPosition {
    let point = state
        .index_point(seq)
        .expect("an unfinished message lies at or after an index point");
    ReadPosition {
        index: point.index,
        cursor: Cursor::at_point(&point),
    }
}

pub(super) fn count_redelivery(cause: &'static str) {
    metrics::counter!("nsquorum_redeliveries_total", "cause" => cause).increment(1);
}

/// Answers an input of a topic that is over.
pub(crate) fn refuse(input: LeaderInput, why: PublishError) {
    match input {
        LeaderInput::Publish(publish) => {
            if let PublishAnswer::Client(answer) = publish.answer {
                _ = answer.send(Err(why));
            }
        }
        LeaderInput::Subscribe(subscribe) => {
            let error = match why {
                PublishError::Exiting => SubscribeError::Deleted,
                why => SubscribeError::Unavailable(why.to_string()),
            };
            drop(subscribe.answer.send(Err(error)));
        }
        LeaderInput::Command { answer, .. } => {
            let error = match why {
                PublishError::Exiting => AdminError::TopicNotFound,
                why => AdminError::Unavailable(why.to_string()),
            };
            drop(answer.send(Err(error)));
        }
        // Dropping their answers tells these callers that there is nothing.
        LeaderInput::IsInFlight { .. }
        | LeaderInput::Channels { .. }
        | LeaderInput::Stats { .. }
        | LeaderInput::Ready { .. }
        | LeaderInput::LeaseEvents { .. }
        | LeaderInput::Disconnected { .. } => {}
    }
}
