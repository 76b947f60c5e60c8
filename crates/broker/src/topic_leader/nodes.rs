//! The leader's side towards the other nodes: associations, claims, and what becomes of a node that is gone.
//!
//! A node's consumers keep what they hold whatever happens to leaders and links; only the knowledge of it moves. A new leader asks every
//! node that may be alive, or comes up meanwhile, what its consumers hold, and delivers nothing before all have answered, or 2 s have passed
//! ([`AWAIT_CLAIMS`]). What a node claims later is honoured if it was not given to somebody else. In the same way a node whose link broke claims
//! again when it is back: what was on its way to it and is not in the claim was lost, and returns without an attempt.
//!
//! A node whose process is known to be gone gives back everything at once. A node that cannot be reached keeps its leases for
//! [`GRACE`]: it may well be alive, and its consumers at work.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use nsquorum_environment::Monotonic;
use nsquorum_topic::{
    Attempts, ChannelIncarnation, Event, NodeId, NodeIncarnation, Origin, Seq, SessionId, SessionVerdict, Term,
    TopicState,
};
use tokio::sync::oneshot;

use super::consumers::{Attaching, Consumer, Orphans, Port, count_redelivery};
use super::dispatch::{ConsumerId, InFlight};
use super::input::{Held, LocalConsumer, NodeState, Publish, PublishAnswer};
use super::leading::{Awaited, Leading};
use super::machine::{Ended, Output, TopicLeader};
use super::pipeline::{EventsMark, Mark, Stored};
use crate::leases::{DeliveryToken, LeaseEvent, LeaseOutcome};
use crate::node::AdminError;
use crate::publish::PublishError;
use crate::subscription::SubscriptionId;
use crate::wire::{
    Asked, Association, Claim, Framed, FromLeader, Place, PublishFrame, Question, Reply, Subscriber, ToLeader,
};

/// How long a new leader waits for the claims of nodes that may be alive.
pub(crate) const AWAIT_CLAIMS: Duration = Duration::from_secs(2);
/// How long a node that cannot be reached keeps its leases.
pub(crate) const GRACE: Duration = Duration::from_secs(10);

/// The link to another node, as the leader's node sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PeerLink {
    /// Frames can be sent; a new connection.
    Up(NodeIncarnation),
    /// They cannot, and the node may be alive.
    Lost,
    /// The process is gone.
    Gone,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Link {
    Up,
    /// The node may be alive, and its consumers at work.
    Lost {
        since: Monotonic,
    },
    /// Lost for longer than [`GRACE`]: what its consumers held has been given back. The process may be alive all the same, and its publish session goes
    /// on: ending it would bar the node from the topic for as long as it lives.
    GivenUp,
    /// The process is gone.
    Gone,
}

#[derive(Debug)]
struct Node {
    /// The latest start of it that was seen.
    incarnation: Option<NodeIncarnation>,
    link: Link,
    association: Option<Association>,
    /// The association's claim has arrived.
    is_claimed: bool,
    last_sync: u64,
}

/// A question of another node that is not answered yet.
#[derive(Debug)]
struct Asking {
    router: SessionId,
    number: u64,
    answer: oneshot::Receiver<Result<(), AdminError>>,
}

/// The other nodes, for one topic's leader.
#[derive(Debug)]
pub(super) struct Nodes {
    me: SessionId,
    nodes: BTreeMap<NodeId, Node>,
    asking: Vec<Asking>,
}

impl Nodes {
    /// A frame for a node, unless there is no association with it: then the next claim says it again.
    pub(super) fn send(&mut self, to: NodeId, term: Term, content: FromLeader) -> Option<Output> {
        let node = self.nodes.get_mut(&to)?;
        // Answers are about publishes, which share no order with the claim.
        let may_go = node.is_claimed || matches!(content, FromLeader::Answer { .. });
        let association = node.association.as_mut().filter(|_| may_go)?;
        if association.term() != term {
            return None;
        }
        let header = association.send(content.class());
        let frame = Framed { header, content };
        Some(Output::Send { to, frame })
    }

    /// Whether a node is at this start: the numbers of another one would mean something else to it.
    fn is_at(&self, session: SessionId) -> bool {
        self.nodes
            .get(&session.node)
            .is_some_and(|node| node.incarnation == Some(session.incarnation))
    }

    /// When something is to be given up.
    pub(super) fn wake_at(&self, leading: &Leading) -> Option<Monotonic> {
        let lost = self.nodes.values().filter_map(|node| match node.link {
            Link::Lost { since } => Some(since + GRACE),
            Link::Up | Link::GivenUp | Link::Gone => None,
        });
        lost.chain(leading.awaited.as_ref().map(|awaited| awaited.until)).min()
    }
}

impl TopicLeader {
    /// Makes it a leader among several nodes; `me` is the publish session of its own.
    pub(crate) fn among_nodes(mut self, me: SessionId) -> Self {
        self.nodes = Some(Nodes {
            me,
            nodes: BTreeMap::new(),
            asking: Vec::new(),
        });
        self
    }

    /// What has to be told to the node's router, before it gets anything else.
    pub(crate) fn take_ended(&mut self) -> Option<Ended> {
        self.ended.take()
    }

    /// The term in which it leads.
    pub(crate) fn leads(&self) -> Option<Term> {
        self.leading.as_ref().map(|leading| leading.term)
    }

    /// Somebody else leads in a later term: whatever this one thinks, it is over.
    pub(crate) fn overruled(&mut self, by: Term) {
        if self.leads().is_some_and(|term| term < by) {
            self.hand_over();
        }
    }

    // === links ===

    /// The link to another node has changed.
    pub(crate) fn peer(&mut self, id: NodeId, link: PeerLink, now: Monotonic) {
        let Some(nodes) = &mut self.nodes else { return };
        let node = nodes.nodes.entry(id).or_insert(Node {
            incarnation: None,
            link: Link::Gone,
            association: None,
            is_claimed: false,
            last_sync: 0,
        });
        node.association = None;
        node.is_claimed = false;
        match link {
            PeerLink::Up(incarnation) => {
                node.link = Link::Up;
                self.is_at_start(id, incarnation);
                self.open(id);
            }
            PeerLink::Lost => {
                if !matches!(node.link, Link::Lost { .. } | Link::GivenUp) {
                    node.link = Link::Lost { since: now };
                }
                self.suspend(id);
            }
            PeerLink::Gone => {
                node.link = Link::Gone;
                let last = node.incarnation;
                self.give_up(id, "node_gone");
                if let Some(last) = last {
                    self.end_sessions(id, last);
                }
            }
        }
    }

    /// A node is known to be at this start: earlier ones are over.
    fn is_at_start(&mut self, id: NodeId, incarnation: NodeIncarnation) {
        let Some(node) = self.nodes.as_mut().and_then(|nodes| nodes.nodes.get_mut(&id)) else {
            return;
        };
        let before = node.incarnation.replace(incarnation);
        if before.is_some_and(|before| before < incarnation) {
            self.give_up(id, "node_gone");
        }
        if let Some(last) = incarnation.get().checked_sub(1) {
            self.end_sessions(id, NodeIncarnation::new(last));
        }
    }

    /// Ends the publish sessions of a node up to a start that is over, if the topic knows any.
    fn end_sessions(&mut self, node: NodeId, incarnation: NodeIncarnation) {
        let Some(leading) = &self.leading else { return };
        let is_over = |session: SessionId| session.node == node && session.incarnation <= incarnation;
        if leading.state.sessions().any(is_over) {
            let last = SessionId { node, incarnation };
            self.pipeline.command(Event::EndSession { last }, None);
        }
    }

    /// A node's consumers get nothing for now, and keep what they hold.
    fn suspend(&mut self, node: NodeId) {
        for (id, consumer) in &mut self.consumers {
            if id.node == Some(node) {
                consumer.is_suspended = true;
            }
        }
    }

    /// A node's consumers are gone, and what they held returns without an attempt: nobody knows what they have seen of it.
    fn give_up(&mut self, node: NodeId, cause: &'static str) {
        self.remove_consumers(node);
        let Some(leading) = &mut self.leading else { return };
        for dispatch in leading.dispatches.values_mut() {
            let held: Vec<(Seq, Attempts)> = dispatch
                .in_flight
                .iter()
                .filter(|(_, held)| held.consumer.node == Some(node))
                .map(|(seq, held)| (*seq, held.attempts))
                .collect();
            for (seq, attempts) in held {
                dispatch.in_flight.remove(&seq);
                dispatch.give_back(seq, Attempts::new(attempts.get().saturating_sub(1)));
                count_redelivery(cause);
            }
        }
        self.has_claimed(node);
        self.delete_unused_ephemeral_channels();
        self.dispatch_all();
    }

    fn remove_consumers(&mut self, node: NodeId) {
        let gone: Vec<ConsumerId> = self
            .consumers
            .keys()
            .filter(|id| id.node == Some(node))
            .copied()
            .collect();
        for id in gone {
            self.remove_consumer(id);
        }
        for waiting in self.attaching.values_mut() {
            waiting.retain(|attaching| !matches!(attaching, Attaching::Node(of, _) if *of == node));
        }
    }

    fn remove_consumer(&mut self, id: ConsumerId) -> Option<ChannelIncarnation> {
        let channel = self.consumers.remove(&id)?.channel;
        let dispatch = self.leading.as_mut()?.dispatches.get_mut(&channel)?;
        dispatch.detach(id);
        Some(channel)
    }

    /// Gives up what has waited long enough.
    pub(super) fn expire_nodes(&mut self, now: Monotonic) {
        let Some(nodes) = &mut self.nodes else { return };
        let mut lost = Vec::new();
        for (id, node) in &mut nodes.nodes {
            if matches!(node.link, Link::Lost { since } if since + GRACE <= now) {
                node.link = Link::GivenUp;
                lost.push(*id);
            }
        }
        for node in lost {
            self.give_up(node, "link_lost");
        }
        let awaited = self.leading.as_ref().and_then(|leading| leading.awaited.as_ref());
        if let Some(awaited) = awaited.filter(|awaited| awaited.until <= now) {
            tracing::warn!(topic = %self.name, missing = ?awaited.nodes, "delivering without the claims of all nodes");
            metrics::counter!("nsquorum_claims_missing_total").increment(awaited.nodes.len() as u64);
            self.all_have_claimed();
        }
        self.answer_questions();
    }

    // === associations ===

    /// A leadership begins: asks all nodes what their consumers hold.
    pub(super) fn open_all(&mut self, now: Monotonic) {
        let (Some(nodes), Some(leading)) = (&self.nodes, &mut self.leading) else {
            return;
        };
        let me = nodes.me;
        let holds_leases = |(id, node): (&NodeId, &Node)| {
            let is_here = !matches!(node.link, Link::GivenUp | Link::Gone);
            is_here.then_some(*id)
        };
        leading.awaited = Some(Awaited {
            nodes: nodes.nodes.iter().filter_map(holds_leases).chain([me.node]).collect(),
            until: now + AWAIT_CLAIMS,
        });
        let others: Vec<(NodeId, Option<NodeIncarnation>, Link)> = nodes
            .nodes
            .iter()
            .map(|(id, node)| (*id, node.incarnation, node.link))
            .collect();
        for (id, incarnation, link) in others {
            match (incarnation, link) {
                (Some(last), Link::Gone) => self.end_sessions(id, last),
                (Some(incarnation), _) => self.is_at_start(id, incarnation),
                (None, _) => {}
            }
            self.open(id);
        }
        if let Some(last) = me.incarnation.get().checked_sub(1) {
            self.end_sessions(me.node, NodeIncarnation::new(last));
        }
    }

    /// Begins an association with a node that can be reached.
    fn open(&mut self, id: NodeId) {
        let (Some(nodes), Some(leading)) = (&mut self.nodes, &mut self.leading) else {
            return;
        };
        let Some(node) = nodes.nodes.get_mut(&id).filter(|node| node.link == Link::Up) else {
            return;
        };
        // Also a node that was dead when the leadership began: an earlier leader that does not know of its end may have found it first.
        if let Some(awaited) = &mut leading.awaited {
            awaited.nodes.insert(id);
        }
        node.last_sync += 1;
        node.is_claimed = false;
        let mut association = Association::open(leading.term, node.last_sync);
        let content = FromLeader::Lead;
        let header = association.send(content.class());
        node.association = Some(association);
        let frame = Framed { header, content };
        self.outputs.push(Output::Send { to: id, frame });
        metrics::counter!("nsquorum_associations_total").increment(1);
        self.suspend(id);
    }

    pub(super) fn send(&mut self, to: NodeId, content: FromLeader) {
        if let (Some(nodes), Some(leading)) = (&mut self.nodes, &self.leading) {
            self.outputs.extend(nodes.send(to, leading.term, content));
        }
    }

    /// Takes a frame of another node's router. `held` is what its bytes take up.
    pub(crate) fn frame(&mut self, from: SessionId, frame: Framed<ToLeader>, held: Held, now: Monotonic) {
        let (Some(nodes), Some(_)) = (&mut self.nodes, &self.leading) else {
            return;
        };
        let Some(node) = nodes.nodes.get_mut(&from.node) else {
            return;
        };
        match node.incarnation {
            Some(known) if from.incarnation < known => return,
            Some(known) if from.incarnation == known => {}
            _ => {
                node.association = None;
                self.is_at_start(from.node, from.incarnation);
                return self.open(from.node);
            }
        }
        let Framed { header, content } = frame;
        let Some(association) = node.association.as_mut() else {
            return if matches!(content, ToLeader::Ask) {
                self.open(from.node);
            };
        };
        if matches!(content, ToLeader::Ask) {
            return self.open(from.node);
        }
        match association.receive(header, content.class()) {
            Place::Foreign => return,
            Place::Gap => return self.open(from.node),
            Place::Next => {}
        }
        // Publishes share no order with claims; all else is about what a claim begins.
        let is_in_order = node.is_claimed || matches!(content, ToLeader::Claim(_) | ToLeader::Publish(_));
        if !is_in_order {
            return self.open(from.node);
        }
        self.content(from, content, held, now);
    }

    fn content(&mut self, from: SessionId, content: ToLeader, held: Held, now: Monotonic) {
        let id = |subscription| ConsumerId {
            node: Some(from.node),
            subscription,
        };
        match content {
            ToLeader::Ask => {}
            ToLeader::Claim(claim) => self.claim(from, claim, now),
            ToLeader::Publish(publish) => self.publish_of(from, publish, held),
            ToLeader::Subscribe(subscriber) => self.subscribe(Attaching::Node(from.node, subscriber)),
            ToLeader::Ready { subscription, count } => self.ready(id(subscription), count),
            ToLeader::Unsubscribe { subscription } => self.unsubscribe(id(subscription)),
            ToLeader::Events { last, events } => {
                self.lease_events(&events, now);
                self.mark(EventsMark { router: from, last });
            }
            ToLeader::Question(question) => self.question(from, question, now),
        }
    }

    fn publish_of(&mut self, session: SessionId, frame: PublishFrame, held: Held) {
        let PublishFrame {
            number,
            base,
            only,
            mut messages,
        } = frame;
        let origin = Origin {
            node: session.node,
            incarnation: session.incarnation,
            number,
            base,
        };
        for message in &mut messages {
            message.origin = Some(origin);
        }
        self.publish(Publish {
            messages,
            only,
            answer: PublishAnswer::Node { session, number },
            place: None,
            _held: held,
        });
    }

    /// Answers a publish that needs no storing; otherwise gives it back, with its place in its session.
    pub(super) fn place_in_session(&mut self, mut publish: Publish) -> Option<Publish> {
        let (Some(nodes), Some(leading)) = (&self.nodes, &self.leading) else {
            return Some(publish);
        };
        if let Some(place) = publish.place {
            let origin = Origin {
                node: nodes.me.node,
                incarnation: nodes.me.incarnation,
                number: place.number,
                base: self
                    .pipeline
                    .lowest(nodes.me)
                    .map_or(place.number, |lowest| lowest.min(place.number)),
            };
            for message in &mut publish.messages {
                message.origin = Some(origin);
            }
        }
        let Some(origin) = publish.messages.first().and_then(|message| message.origin) else {
            return Some(publish);
        };
        let result = match leading.state.session_verdict(&origin) {
            // The original's fate is the answer to both.
            SessionVerdict::New if self.pipeline.has(origin.session(), origin.number) => return None,
            SessionVerdict::New => return Some(publish),
            SessionVerdict::Stored => {
                metrics::counter!("nsquorum_publishes_repeated_total").increment(1);
                Ok(())
            }
            SessionVerdict::Ended | SessionVerdict::OutOfBounds => Err(PublishError::TimedOut),
        };
        self.answer_publish(publish.answer, result);
        None
    }

    fn unsubscribe(&mut self, id: ConsumerId) {
        for waiting in self.attaching.values_mut() {
            waiting.retain(|attaching| match attaching {
                Attaching::Node(node, subscriber) => {
                    (Some(*node), subscriber.subscription) != (id.node, id.subscription)
                }
                Attaching::Local(_) => true,
            });
        }
        let Some(channel) = self.remove_consumer(id) else {
            return;
        };
        let dispatch = self
            .leading
            .as_ref()
            .and_then(|leading| leading.dispatches.get(&channel));
        if dispatch.is_some_and(|dispatch| dispatch.consumers.is_empty() && dispatch.name.is_ephemeral()) {
            self.pipeline.command(Event::DeleteChannel { channel }, None);
        }
    }

    fn question(&mut self, router: SessionId, question: Question, now: Monotonic) {
        let node = router.node;
        let Question { number, asked } = question;
        let reply = match asked {
            Asked::Channels => Reply::Channels(self.channels()),
            Asked::Stats(channel) => Reply::Stats(self.stats(channel.as_ref(), Some(node), now)),
            Asked::IsInFlight { subscription, seq } => {
                let id = ConsumerId {
                    node: Some(node),
                    subscription,
                };
                Reply::IsInFlight(self.is_in_flight(id, seq))
            }
            Asked::Command(command) => {
                let (sender, answer) = oneshot::channel();
                self.command(command, Some(node), now, sender);
                if let Some(nodes) = &mut self.nodes {
                    nodes.asking.push(Asking { router, number, answer });
                }
                return self.answer_questions();
            }
        };
        self.send(node, FromLeader::Reply { number, reply });
    }

    fn answer_questions(&mut self) {
        let Some(nodes) = &mut self.nodes else { return };
        let mut answers = Vec::new();
        nodes.asking.retain_mut(|asking| match asking.answer.try_recv() {
            Ok(result) => {
                answers.push((asking.router, asking.number, Reply::Command(result)));
                false
            }
            Err(oneshot::error::TryRecvError::Empty) => true,
            Err(oneshot::error::TryRecvError::Closed) => false,
        });
        for (router, number, reply) in answers {
            self.send_to_life(router, FromLeader::Reply { number, reply });
        }
    }

    fn mark(&mut self, mark: EventsMark) {
        if let Some(mark) = self.pipeline.mark(Mark::Node(mark)) {
            self.tell(vec![mark.into()]);
        }
    }

    /// What waits is proposed at once. See [`is_flushed`](Self::is_flushed).
    pub(crate) fn flush(&mut self) {
        self.pipeline.hurry();
        self.is_flushed = self.pipeline.mark(Mark::Flush).is_some();
    }

    /// Whether all that it had when it was last told to flush is in the log, or with nobody here because it does not lead.
    pub(crate) fn is_flushed(&self) -> bool {
        self.leading.is_none() || self.is_flushed
    }

    /// What a batch has put into the log, to those who wait for it.
    pub(super) fn tell(&mut self, stored: Vec<Stored>) {
        for stored in stored {
            match stored {
                Stored::Publish { session, number } => self.answer_node(session, number, Ok(())),
                Stored::Events(mark) => self.send_to_life(mark.router, FromLeader::EventsStored { last: mark.last }),
                Stored::Flush => self.is_flushed = true,
            }
        }
    }

    /// What became of a publish of another node.
    pub(super) fn answer_node(&mut self, session: SessionId, number: u64, result: Result<(), PublishError>) {
        self.send_to_life(session, FromLeader::Answer { number, result });
    }

    /// A frame whose numbers mean something to one life of a node only.
    fn send_to_life(&mut self, router: SessionId, content: FromLeader) {
        if self.nodes.as_ref().is_some_and(|nodes| nodes.is_at(router)) {
            self.send(router.node, content);
        }
    }

    /// A channel is gone, for its consumers on other nodes.
    pub(super) fn end_consumers_of(&mut self, channel: ChannelIncarnation) {
        self.end_consumers(|consumer| consumer.channel == channel);
    }

    /// The topic is gone.
    pub(super) fn end_nodes(&mut self) {
        self.end_consumers(|_| true);
    }

    fn end_consumers(&mut self, of: impl Fn(&Consumer) -> bool) {
        let ended: Vec<(NodeId, SubscriptionId)> = self
            .consumers
            .iter()
            .filter(|(_, consumer)| of(consumer))
            .filter_map(|(id, _)| Some((id.node?, id.subscription)))
            .collect();
        for (node, subscription) in ended {
            self.send(node, FromLeader::Ended { subscription });
        }
    }

    // === claims ===

    /// What this node's own clients have going on, from its router.
    pub(crate) fn take_over(&mut self, state: NodeState, now: Monotonic) {
        self.reclaim(None, &state.held, &state.events, now);
        for consumer in state.consumers {
            self.rejoin_local(consumer);
        }
        for leases in state.orphans {
            if let Some(channel) = leases.channel() {
                self.orphans.push(Orphans { channel, leases });
            }
        }
        for publish in state.publishes {
            self.publish(publish);
        }
        if let Some(me) = self.nodes.as_ref().map(|nodes| nodes.me.node) {
            self.has_claimed(me);
        }
    }

    fn rejoin_local(&mut self, consumer: LocalConsumer) {
        let Some(channel) = consumer.incarnation else {
            return self.subscribe(Attaching::Local(consumer));
        };
        let id = ConsumerId::local(consumer.id);
        let port = Port::Local {
            channel: consumer.channel,
            deliveries: consumer.deliveries,
        };
        self.rejoin(id, Consumer::new(channel, consumer.options, port), consumer.ready);
    }

    /// A consumer that was attached before takes part again, with what it holds. Dropped if its channel is gone.
    fn rejoin(&mut self, id: ConsumerId, mut consumer: Consumer, ready: u32) {
        let dispatch = self
            .leading
            .as_ref()
            .and_then(|leading| leading.dispatches.get(&consumer.channel));
        let Some(dispatch) = dispatch else { return };
        consumer.in_flight = dispatch.in_flight.values().filter(|held| held.consumer == id).count() as u64;
        self.add_consumer(id, consumer, ready);
    }

    fn claim(&mut self, router: SessionId, claim: Claim, now: Monotonic) {
        let id = router.node;
        if let Some(node) = self.nodes.as_mut().and_then(|nodes| nodes.nodes.get_mut(&id)) {
            node.is_claimed = true;
        }
        metrics::counter!("nsquorum_claims_total").increment(1);
        self.remove_consumers(id);
        self.reclaim(Some(id), &claim.held, &claim.events, now);
        if !claim.events.is_empty() {
            self.mark(EventsMark {
                router,
                last: claim.last_event,
            });
        }
        for subscriber in claim.subscribers {
            self.rejoin_of(id, subscriber);
        }
        self.has_claimed(id);
        self.delete_unused_ephemeral_channels();
        self.dispatch_all();
    }

    fn rejoin_of(&mut self, node: NodeId, subscriber: Subscriber) {
        let Some(channel) = subscriber.incarnation else {
            return self.subscribe(Attaching::Node(node, subscriber));
        };
        let subscription = subscriber.subscription;
        let exists = self
            .leading
            .as_ref()
            .is_some_and(|leading| leading.dispatches.contains_key(&channel));
        if exists {
            let id = ConsumerId {
                node: Some(node),
                subscription,
            };
            let consumer = Consumer::new(channel, subscriber.options, Port::Node(node));
            self.rejoin(id, consumer, subscriber.ready);
        } else {
            self.send(node, FromLeader::Ended { subscription });
        }
    }

    /// Makes in flight what a node's consumers hold, and takes note of what became of the rest.
    fn reclaim(
        &mut self,
        node: Option<NodeId>,
        held: &[(SubscriptionId, DeliveryToken)],
        events: &[LeaseEvent],
        now: Monotonic,
    ) {
        let Some(leading) = &mut self.leading else { return };
        let mut confirmed: BTreeSet<(ChannelIncarnation, Seq)> = BTreeSet::new();
        for (subscription, token) in held {
            let consumer = ConsumerId {
                node,
                subscription: *subscription,
            };
            if hold(leading, consumer, token) {
                confirmed.insert((token.channel, token.seq));
            } else {
                metrics::counter!("nsquorum_claims_late_total").increment(1);
            }
        }
        let term = leading.term;
        for event in events {
            let token = &event.token;
            let Some(leading) = &mut self.leading else { return };
            // Of a delivery by an earlier leader this one knows nothing yet. If it was never written, there is nothing to know.
            if token.term < term && event.outcome != LeaseOutcome::Returned {
                let consumer = ConsumerId {
                    node,
                    subscription: SubscriptionId(0),
                };
                let is_finish = event.outcome == LeaseOutcome::Finished;
                if is_finish || !is_requeued(&leading.state, token) {
                    take(leading, consumer, token);
                }
            }
            self.lease_event(event, now);
        }
        self.return_unconfirmed(node, &confirmed);
    }

    /// What was on its way to a node and is not there was lost.
    fn return_unconfirmed(&mut self, node: Option<NodeId>, confirmed: &BTreeSet<(ChannelIncarnation, Seq)>) {
        let Some(leading) = &mut self.leading else { return };
        for (channel, dispatch) in &mut leading.dispatches {
            let lost: Vec<(Seq, Attempts)> = dispatch
                .in_flight
                .iter()
                .filter(|(seq, held)| held.consumer.node == node && !confirmed.contains(&(*channel, **seq)))
                .map(|(seq, held)| (*seq, held.attempts))
                .collect();
            for (seq, attempts) in lost {
                dispatch.in_flight.remove(&seq);
                dispatch.give_back(seq, Attempts::new(attempts.get().saturating_sub(1)));
                count_redelivery("lost_frame");
            }
        }
    }

    fn has_claimed(&mut self, node: NodeId) {
        let awaited = self.leading.as_mut().and_then(|leading| leading.awaited.as_mut());
        if let Some(awaited) = awaited {
            awaited.nodes.remove(&node);
            if awaited.nodes.is_empty() {
                self.all_have_claimed();
            }
        }
    }

    fn all_have_claimed(&mut self) {
        if let Some(leading) = &mut self.leading {
            leading.awaited = None;
        }
        self.delete_unused_ephemeral_channels();
        self.dispatch_all();
    }

    // === the end ===

    /// This node does not lead any more. Everything of its own clients goes back to its router; the routers of the other nodes have theirs.
    pub(super) fn hand_over(&mut self) {
        let Some(leading) = self.leading.take() else { return };
        let (publishes, events) = self.pipeline.hand_over(leading.term, leading.state.time());
        let mut state = NodeState {
            publishes,
            events,
            ..NodeState::default()
        };
        for (channel, dispatch) in &leading.dispatches {
            let local = dispatch
                .in_flight
                .iter()
                .filter(|(_, held)| held.consumer.node.is_none());
            state
                .held
                .extend(local.map(|(seq, held)| (held.consumer.subscription, held.token(*channel, *seq))));
        }
        for (id, consumer) in std::mem::take(&mut self.consumers) {
            if let Port::Local { channel, deliveries } = consumer.port {
                state.consumers.push(LocalConsumer {
                    id: id.subscription,
                    channel,
                    incarnation: Some(consumer.channel),
                    ready: consumer.ready,
                    options: consumer.options,
                    deliveries,
                    answer: None,
                });
            }
        }
        for attaching in std::mem::take(&mut self.attaching).into_values().flatten() {
            if let Attaching::Local(consumer) = attaching {
                state.consumers.push(consumer);
            }
        }
        state.orphans = self.orphans.drain(..).map(|orphans| orphans.leases).collect();
        if let Some(nodes) = &mut self.nodes {
            nodes.asking.clear();
            for node in nodes.nodes.values_mut() {
                node.association = None;
                node.is_claimed = false;
            }
        }
        self.ended = Some(Ended::Leadership(Box::new(state)));
    }
}

/// Whether the log knows already that this delivery, or a later one, came back.
fn is_requeued(state: &TopicState, token: &DeliveryToken) -> bool {
    state
        .channel(token.channel)
        .and_then(|channel| channel.exception(token.seq))
        .is_some_and(|exception| exception.attempts >= token.attempts)
}

/// A consumer says that it holds a delivery. Whether it does, as far as this leader is concerned.
fn hold(leading: &mut Leading, consumer: ConsumerId, token: &DeliveryToken) -> bool {
    let held = leading
        .dispatches
        .get_mut(&token.channel)
        .and_then(|dispatch| dispatch.in_flight.get_mut(&token.seq));
    match held {
        Some(held) if held.is(token) => {
            held.consumer = consumer;
            true
        }
        Some(_) => false,
        // Whatever the log says of this message is about another delivery of it, perhaps one with as many attempts: an earlier leader that does
        // not know of its end delivers again what a dead node had given back to a later one. A delivery that came back is not held.
        None => take(leading, consumer, token),
    }
}

/// Puts a delivery of somebody else in flight, unless this leader has delivered the message itself.
fn take(leading: &mut Leading, consumer: ConsumerId, token: &DeliveryToken) -> bool {
    let Some(dispatch) = leading.dispatches.get_mut(&token.channel) else {
        return false;
    };
    let is_there = dispatch.take_away(token.seq, &leading.state);
    if is_there {
        dispatch.in_flight.insert(
            token.seq,
            InFlight {
                consumer,
                attempts: token.attempts,
                term: token.term,
                delivery: token.delivery,
                published_at: None,
            },
        );
    }
    is_there
}
