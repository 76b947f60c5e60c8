//! The topic leader as a step machine.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::BytesMut;
use nsquorum_consensus::{Refusal, TopicEvent};
use nsquorum_environment::Monotonic;
use nsquorum_protocol::{ChannelName, TopicName};
use nsquorum_storage::SpaceState;
use nsquorum_topic::{ChannelIncarnation, NodeId, Seq, Term, TopicState};

use super::consumers::{Attaching, Consumer, Orphans};
use super::dispatch::{ConsumerId, Dispatch};
use super::input::{LeaderInput, NodeState, PublishAnswer};
use super::leading::Leading;
use super::nodes::Nodes;
use super::pipeline::Pipeline;
use super::reader::{Found, ReaderDone, ReaderJob};
use crate::latency::LatencySettings;
use crate::node::AdminError;
use crate::publish::PublishError;
use crate::subscription::SubscribeError;
use crate::wire::{Framed, FromLeader};

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
    pub(super) space: SpaceState,
    /// Whether a majority has confirmed the leadership lately. Without that nothing is delivered: somebody else may lead.
    pub(super) is_confirmed: bool,
    /// What was in the pipeline when it was last told to flush is in the log.
    pub(super) is_flushed: bool,
    pub(super) stepped_at: Monotonic,
    pub(super) window_bytes_max: usize,
    /// Which latencies are measured, if any.
    pub(super) latency: Option<LatencySettings>,
    /// Whether somebody can be asked for the channels of a new topic.
    pub(super) asks_for_channels: bool,
    is_over: Option<PublishError>,
    pub(super) ended: Option<Ended>,
    pub(super) outputs: Vec<Output>,
    pub(super) delivered: u64,
    /// Channels that stopped at their burst bound and go on at the next step.
    pub(super) unfinished_bursts: Vec<ChannelIncarnation>,
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

    pub(super) fn end(&mut self, why: PublishError) {
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
