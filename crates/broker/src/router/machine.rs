//! The router as a step machine.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use nsquorum_consensus::LeaderLocation;
use nsquorum_environment::Monotonic;
use nsquorum_protocol::ChannelName;
use nsquorum_topic::{ChannelIncarnation, NodeId, SESSION_WINDOW, Seq, Term};
use tokio::sync::{mpsc, oneshot};

use crate::leases::{DeliveryToken, LeaseEvent, LeaseOutcome, OrphanedLeases};
use crate::node::AdminError;
use crate::publish::PublishError;
use crate::stats::TopicStats;
use crate::subscription::{SubscriptionEvent, SubscriptionId};
use crate::topic_leader::{Command, LeaderInput, LocalConsumer, NodeState, Place, Publish, PublishAnswer, refuse};
use crate::wire::{
    self, Asked, Association, Claim, Framed, FromLeader, PublishFrame, Question, Reply, Subscriber, ToLeader,
};

/// How often a router that needs the leader asks the node that leads, until that begins an association: a question may get lost, and
/// the leader's node may know of its leadership before the topic's task does.
pub(super) const ASK_EVERY: Duration = Duration::from_millis(250);

/// How long a node is cut off from the leader before it closes its consumers' subscriptions, so that they go where messages are: as long as a node
/// must not have answered to leave the lists.
pub(super) const CUT_OFF_MAX: Duration = Duration::from_secs(5);

/// What the shell has to do.
#[derive(Debug)]
pub(crate) enum RouterOutput {
    /// Send this to another node.
    Send { to: NodeId, frame: Framed<ToLeader> },
    /// Tell people that so many subscriptions were closed, because this node has been cut off for so long.
    Closed { subscriptions: usize, cut_off: Duration },
}

#[derive(Debug)]
enum Role {
    /// No association with a leader. Where one is known to be, it is not asked again before `ask_at`.
    Seeking { ask_at: Monotonic },
    /// This node leads: its leader has everything.
    Local { term: Term },
    /// Another node leads.
    Remote { node: NodeId, association: Association },
}

/// A question without a reply.
#[derive(Debug)]
enum Waiting {
    Command(Command, oneshot::Sender<Result<(), AdminError>>),
    Channels(oneshot::Sender<Vec<ChannelName>>),
    Stats(Option<ChannelName>, oneshot::Sender<TopicStats>),
    IsInFlight(SubscriptionId, Seq, oneshot::Sender<bool>),
}

impl Waiting {
    fn asked(&self) -> Asked {
        match self {
            Self::Command(command, _) => Asked::Command(command.clone()),
            Self::Channels(_) => Asked::Channels,
            Self::Stats(channel, _) => Asked::Stats(channel.clone()),
            Self::IsInFlight(subscription, seq, _) => Asked::IsInFlight {
                subscription: *subscription,
                seq: *seq,
            },
        }
    }

    /// Whether whoever asked has given up.
    fn is_given_up(&self) -> bool {
        match self {
            Self::Command(_, answer) => answer.is_closed(),
            Self::Channels(answer) => answer.is_closed(),
            Self::Stats(_, answer) => answer.is_closed(),
            Self::IsInFlight(_, _, answer) => answer.is_closed(),
        }
    }

    fn reply(self, reply: Reply) {
        // A reply to another question cannot come from a correct leader; dropping the answer says that there is none.
        match (self, reply) {
            (Self::Command(_, answer), Reply::Command(result)) => drop(answer.send(result)),
            (Self::Channels(answer), Reply::Channels(names)) => drop(answer.send(names)),
            (Self::Stats(_, answer), Reply::Stats(stats)) => drop(answer.send(stats)),
            (Self::IsInFlight(_, _, answer), Reply::IsInFlight(is_in_flight)) => drop(answer.send(is_in_flight)),
            _ => {}
        }
    }

    fn into_input(self) -> LeaderInput {
        match self {
            Self::Command(command, answer) => LeaderInput::Command { command, answer },
            Self::Channels(answer) => LeaderInput::Channels { answer },
            Self::Stats(channel, answer) => LeaderInput::Stats { channel, answer },
            Self::IsInFlight(subscription, seq, answer) => LeaderInput::IsInFlight {
                subscription,
                seq,
                answer,
            },
        }
    }
}

/// A node's router for one topic; see the module documentation.
#[derive(Debug)]
pub(crate) struct TopicRouter {
    publish_timeout: Duration,
    /// Highest term heard of.
    term: Term,
    /// Where the leader is, as far as this node knows: of no earlier term than any before.
    leader: Option<LeaderLocation>,
    role: Role,
    /// The last association that was joined: none is joined twice, or after a later one.
    joined: (Term, u64),
    /// Nodes to which frames can be sent.
    reachable: BTreeSet<NodeId>,
    /// Since when somebody may lead whom this node does not reach, or since the subscriptions were closed for it; `None`: nobody may.
    cut_off_since: Option<Monotonic>,
    next_number: u64,
    /// The highest number that was sent to anybody.
    last_sent: u64,
    publishes: VecDeque<Publish>,
    consumers: BTreeMap<SubscriptionId, LocalConsumer>,
    held: BTreeMap<(ChannelIncarnation, Seq), (SubscriptionId, DeliveryToken)>,
    /// Events that are not known to be in the log; the first of them has the number `first_event`.
    events: VecDeque<LeaseEvent>,
    first_event: u64,
    orphans: Vec<OrphanedLeases>,
    questions: BTreeMap<u64, Waiting>,
    next_question: u64,
    is_over: Option<PublishError>,
    outputs: Vec<RouterOutput>,
}

impl TopicRouter {
    /// A router without a leader. `publish_timeout` is how long it tries to have a publish stored.
    pub(crate) fn new(publish_timeout: Duration) -> Self {
        Self {
            publish_timeout,
            term: Term::default(),
            leader: None,
            role: Role::Seeking {
                ask_at: Monotonic::START,
            },
            joined: (Term::default(), 0),
            reachable: BTreeSet::new(),
            cut_off_since: None,
            next_number: 1,
            last_sent: 0,
            publishes: VecDeque::new(),
            consumers: BTreeMap::new(),
            held: BTreeMap::new(),
            events: VecDeque::new(),
            first_event: 1,
            orphans: Vec::new(),
            questions: BTreeMap::new(),
            next_question: 1,
            is_over: None,
            outputs: Vec::new(),
        }
    }

    // === inputs of this node ===

    /// Takes an input of a client. If the leader is on this node the input comes back, to be given to it at once.
    pub(crate) fn input(&mut self, mut input: LeaderInput, now: Monotonic) -> Option<LeaderInput> {
        if let Some(why) = self.is_over {
            refuse(input, why);
            return None;
        }
        if let LeaderInput::Publish(publish) = &mut input {
            publish.place = Some(Place {
                number: self.next_number,
                deadline: now + self.publish_timeout,
            });
            self.next_number += 1;
        }
        if matches!(self.role, Role::Local { .. }) {
            return Some(input);
        }
        match input {
            LeaderInput::Publish(publish) => self.publish(publish),
            LeaderInput::Subscribe(subscribe) => {
                let consumer = LocalConsumer::from(subscribe);
                self.send(ToLeader::Subscribe(subscriber(&consumer)));
                self.consumers.insert(consumer.id, consumer);
            }
            LeaderInput::Ready { subscription, count } => {
                // One whose subscription was closed is to be given nothing.
                let consumer = self.consumers.get_mut(&subscription);
                if let Some(consumer) = consumer.filter(|consumer| !consumer.deliveries.is_closed()) {
                    consumer.ready = count;
                    self.send(ToLeader::Ready { subscription, count });
                }
            }
            LeaderInput::LeaseEvents { events } => self.lease_events(events),
            LeaderInput::Disconnected { subscription, leases } => self.disconnected(subscription, leases),
            LeaderInput::IsInFlight {
                subscription,
                seq,
                answer,
            } => self.ask(Waiting::IsInFlight(subscription, seq, answer)),
            LeaderInput::Command { command, answer } => self.ask(Waiting::Command(command, answer)),
            LeaderInput::Channels { answer } => self.ask(Waiting::Channels(answer)),
            LeaderInput::Stats { channel, answer } => self.ask(Waiting::Stats(channel, answer)),
        }
        None
    }

    fn publish(&mut self, publish: Publish) {
        let number = number_of(&publish);
        let base = self.publishes.front().map_or(number, number_of);
        if number - base >= SESSION_WINDOW {
            answer(publish, Err(PublishError::TimedOut));
            return;
        }
        self.send_publish(&publish, base);
        self.publishes.push_back(publish);
    }

    fn send_publish(&mut self, publish: &Publish, base: u64) {
        if !matches!(self.role, Role::Remote { .. }) {
            return;
        }
        let number = number_of(publish);
        self.last_sent = self.last_sent.max(number);
        self.send(ToLeader::Publish(PublishFrame {
            number,
            base,
            only: publish.only.clone(),
            messages: publish.messages.clone(),
        }));
    }

    fn lease_events(&mut self, events: Vec<LeaseEvent>) {
        for event in &events {
            let key = (event.token.channel, event.token.seq);
            // A message that was delivered here again meanwhile is held by the later delivery.
            if self.held.get(&key).is_some_and(|(_, token)| *token == event.token) {
                self.held.remove(&key);
            }
        }
        self.events.extend(events.iter().copied());
        let last = self.last_event();
        self.send(ToLeader::Events { last, events });
    }

    fn last_event(&self) -> u64 {
        self.first_event + self.events.len() as u64 - 1
    }

    fn disconnected(&mut self, subscription: SubscriptionId, leases: OrphanedLeases) {
        if self.consumers.remove(&subscription).is_none() {
            return;
        }
        // What was never written to the socket returns; what was stays in flight until its own deadline.
        let unwritten: Vec<LeaseEvent> = self
            .held
            .values()
            .filter(|(holder, token)| *holder == subscription && !leases.holds(token.seq, token.delivery))
            .map(|(_, token)| LeaseEvent {
                token: *token,
                outcome: LeaseOutcome::Returned,
            })
            .collect();
        if !unwritten.is_empty() {
            self.lease_events(unwritten);
        }
        if !leases.is_empty() {
            self.orphans.push(leases);
        }
        self.send(ToLeader::Unsubscribe { subscription });
    }

    fn ask(&mut self, waiting: Waiting) {
        let number = self.next_question;
        self.next_question += 1;
        let asked = waiting.asked();
        self.questions.insert(number, waiting);
        self.send(ToLeader::Question(Question { number, asked }));
    }

    // === links and leaders ===

    /// Frames can, or cannot, be sent to a node. Each new connection is said.
    pub(crate) fn peer(&mut self, node: NodeId, is_up: bool, now: Monotonic) {
        if is_up {
            self.reachable.insert(node);
        } else {
            self.reachable.remove(&node);
        }
        // What was sent over the connection before is lost, or may be.
        if matches!(self.role, Role::Remote { node: leader, .. } if leader == node) {
            self.seek(now);
        }
        if let Role::Seeking { ask_at } = &mut self.role {
            *ask_at = now;
        }
    }

    /// This node has learned where the leader is. One of an earlier term than before is ignored.
    pub(crate) fn located(&mut self, leader: LeaderLocation, now: Monotonic) {
        if self.leader.is_some_and(|known| known.term >= leader.term) {
            return;
        }
        self.leader = Some(leader);
        if let Role::Seeking { ask_at } = &mut self.role {
            *ask_at = now;
        }
    }

    /// Somebody may lead, or may no longer, whom this node does not reach.
    pub(crate) fn cut_off(&mut self, is_cut_off: bool, now: Monotonic) {
        self.cut_off_since = is_cut_off.then(|| self.cut_off_since.unwrap_or(now));
    }

    /// There is a leader in reach, whatever was said before: the time begins again.
    fn in_contact(&mut self, now: Monotonic) {
        self.cut_off_since = self.cut_off_since.map(|_| now);
    }

    /// Ends the subscriptions of the consumers, as those of a deleted channel end: what they hold stays theirs until they say that they are gone. Those
    /// that wait to be attached go on waiting, as at every node that has no leader: they hold nothing back from anybody. Returns how many it were.
    pub(crate) fn close_subscriptions(&mut self) -> usize {
        let mut closed = Vec::new();
        for consumer in self.consumers.values_mut().filter(|consumer| is_open(consumer)) {
            // Dropping the sender is what ends a subscription. The consumer's own end of the new one is gone.
            consumer.deliveries = mpsc::unbounded_channel().0;
            consumer.ready = 0;
            closed.push(consumer.id);
        }
        for subscription in &closed {
            // A leader that does reach this node gives them nothing more.
            self.send(ToLeader::Ready {
                subscription: *subscription,
                count: 0,
            });
        }
        closed.len()
    }

    /// The node to ask: it leads in the highest term that was heard of, and frames can be sent to it.
    fn asked(&self) -> Option<NodeId> {
        let leader = self.leader.filter(|leader| leader.term >= self.term)?;
        self.reachable.contains(&leader.node).then_some(leader.node)
    }

    fn seek(&mut self, now: Monotonic) {
        self.role = Role::Seeking { ask_at: now };
    }

    /// The highest term that it has heard of.
    pub(crate) const fn term(&self) -> Term {
        self.term
    }

    /// Whether it has given everything to the node's own leader of this term.
    pub(crate) fn is_local(&self, leads: Term) -> bool {
        matches!(self.role, Role::Local { term } if term == leads)
    }

    /// The node's own leader leads: gives it everything.
    pub(crate) fn local_leads(&mut self, term: Term) -> (NodeState, Vec<LeaderInput>) {
        self.term = self.term.max(term);
        self.role = Role::Local { term };
        self.first_event += self.events.len() as u64;
        let state = NodeState {
            consumers: std::mem::take(&mut self.consumers).into_values().collect(),
            held: std::mem::take(&mut self.held).into_values().collect(),
            events: std::mem::take(&mut self.events).into(),
            orphans: std::mem::take(&mut self.orphans),
            publishes: std::mem::take(&mut self.publishes).into(),
        };
        let questions = std::mem::take(&mut self.questions);
        (state, questions.into_values().map(Waiting::into_input).collect())
    }

    /// The node's own leader leads no more.
    pub(crate) fn take_back(&mut self, state: NodeState, now: Monotonic) {
        if self.is_over.is_some() {
            return;
        }
        self.seek(now);
        self.in_contact(now);
        self.consumers
            .extend(state.consumers.into_iter().map(|consumer| (consumer.id, consumer)));
        self.held.extend(
            state
                .held
                .into_iter()
                .map(|(subscription, token)| ((token.channel, token.seq), (subscription, token))),
        );
        self.events.extend(state.events);
        self.orphans.extend(state.orphans);
        self.publishes.extend(state.publishes);
        if let Some(last) = self.publishes.back() {
            self.last_sent = self.last_sent.max(number_of(last));
        }
    }

    /// The topic is over on this node: nobody will ever lead it here or elsewhere.
    pub(crate) fn over(&mut self, why: PublishError) {
        self.is_over = Some(why);
        for publish in std::mem::take(&mut self.publishes) {
            answer(publish, Err(why));
        }
        for waiting in std::mem::take(&mut self.questions).into_values() {
            refuse(waiting.into_input(), why);
        }
        self.consumers.clear();
        self.held.clear();
        self.events.clear();
        self.orphans.clear();
    }

    /// The term of a frame that says that somebody leads, if that is news to the node's own leader.
    pub(crate) fn overrules(&self, frame: &Framed<FromLeader>) -> Option<Term> {
        let later = frame.header.term;
        matches!(self.role, Role::Local { term } if term < later).then_some(later)
    }

    /// Takes a frame of another node's leader.
    pub(crate) fn frame(&mut self, from: NodeId, frame: Framed<FromLeader>, now: Monotonic) {
        let Framed { header, content } = frame;
        if self.is_over.is_some() || header.term < self.term || matches!(self.role, Role::Local { .. }) {
            return;
        }
        if matches!(content, FromLeader::Lead) {
            if (header.term, header.sync) <= self.joined {
                return;
            }
            self.joined = (header.term, header.sync);
            self.in_contact(now);
            self.term = header.term;
            self.located(
                LeaderLocation {
                    term: header.term,
                    node: from,
                },
                now,
            );
            self.role = Role::Remote {
                node: from,
                association: Association::join(header),
            };
            return self.begin();
        }
        let Role::Remote { node, association } = &mut self.role else {
            return;
        };
        if *node != from {
            return;
        }
        match association.receive(header, content.class()) {
            wire::Place::Foreign => {}
            wire::Place::Gap => self.seek(now),
            wire::Place::Next => self.content(content),
        }
    }

    /// Says everything to a leader that asks.
    fn begin(&mut self) {
        // A client that has gone before it was attached never says that it goes.
        self.consumers
            .retain(|_, consumer| !consumer.answer.as_ref().is_some_and(oneshot::Sender::is_closed));
        let claim = Claim {
            subscribers: self.consumers.values().map(subscriber).collect(),
            held: self.held.values().copied().collect(),
            events: self.events.iter().copied().collect(),
            last_event: self.last_event(),
        };
        self.send(ToLeader::Claim(claim));
        let again = self
            .publishes
            .iter()
            .filter(|publish| number_of(publish) <= self.last_sent)
            .count();
        metrics::counter!("nsquorum_publishes_resent_total").increment(again as u64);
        let publishes = std::mem::take(&mut self.publishes);
        if let Some(first) = publishes.front() {
            let base = number_of(first);
            for publish in &publishes {
                self.send_publish(publish, base);
            }
        }
        self.publishes = publishes;
        let questions: Vec<Question> = self
            .questions
            .iter()
            .map(|(number, waiting)| Question {
                number: *number,
                asked: waiting.asked(),
            })
            .collect();
        for question in questions {
            self.send(ToLeader::Question(question));
        }
    }

    fn send(&mut self, content: ToLeader) {
        if let Role::Remote { node, association } = &mut self.role {
            let header = association.send(content.class());
            self.outputs.push(RouterOutput::Send {
                to: *node,
                frame: Framed { header, content },
            });
        }
    }

    fn content(&mut self, content: FromLeader) {
        match content {
            FromLeader::Lead => {}
            FromLeader::Answer { number, result } => {
                if let Ok(place) = self.publishes.binary_search_by_key(&number, number_of)
                    && let Some(publish) = self.publishes.remove(place)
                {
                    answer(publish, result);
                }
            }
            FromLeader::EventsStored { last } => {
                while self.first_event <= last && self.events.pop_front().is_some() {
                    self.first_event += 1;
                }
            }
            FromLeader::Subscribed { subscription, result } => self.subscribed(subscription, result),
            FromLeader::Deliver { subscription, delivery } => {
                let token = delivery.token;
                let is_there = self
                    .consumers
                    .get(&subscription)
                    .is_some_and(|consumer| consumer.deliveries.send(SubscriptionEvent::Deliver(delivery)).is_ok());
                if is_there {
                    self.held.insert((token.channel, token.seq), (subscription, token));
                } else {
                    let outcome = LeaseOutcome::Returned;
                    self.lease_events(vec![LeaseEvent { token, outcome }]);
                }
            }
            FromLeader::Emptied { subscription } => {
                self.held.retain(|_, (holder, _)| *holder != subscription);
                if let Some(consumer) = self.consumers.get(&subscription) {
                    // A consumer that is gone is noticed at its disconnect.
                    drop(consumer.deliveries.send(SubscriptionEvent::Emptied));
                }
            }
            FromLeader::Ended { subscription } => {
                self.consumers.remove(&subscription);
                self.held.retain(|_, (holder, _)| *holder != subscription);
            }
            FromLeader::Reply { number, reply } => {
                if let Some(waiting) = self.questions.remove(&number) {
                    waiting.reply(reply);
                }
            }
        }
    }

    fn subscribed(
        &mut self,
        subscription: SubscriptionId,
        result: Result<ChannelIncarnation, crate::subscription::SubscribeError>,
    ) {
        let Some(consumer) = self.consumers.get_mut(&subscription) else {
            return;
        };
        let waiting = consumer.answer.take();
        match result {
            Ok(channel) => {
                consumer.incarnation = Some(channel);
                if waiting.is_some_and(|answer| answer.send(Ok(())).is_err()) {
                    self.consumers.remove(&subscription);
                    self.send(ToLeader::Unsubscribe { subscription });
                }
            }
            Err(error) => {
                self.consumers.remove(&subscription);
                // Who waited may have gone.
                drop(waiting.map(|answer| answer.send(Err(error))));
            }
        }
    }

    // === time ===

    /// Does what time demands, and collects everything that the shell has to do.
    pub(crate) fn step(&mut self, now: Monotonic) -> Vec<RouterOutput> {
        while let Some(publish) = self.publishes.front() {
            if deadline_of(publish) > now {
                break;
            }
            if let Some(publish) = self.publishes.pop_front() {
                answer(publish, Err(PublishError::TimedOut));
            }
        }
        let expired: Vec<LeaseEvent> = self.orphans.iter_mut().flat_map(|leases| leases.expire(now)).collect();
        if !expired.is_empty() {
            self.orphans.retain(|leases| !leases.is_empty());
            self.lease_events(expired);
        }
        if let Some(since) = self.cut_off_since.filter(|since| *since + CUT_OFF_MAX <= now) {
            // Again after as long: a leader may have come by and attached others meanwhile.
            self.cut_off_since = Some(now);
            let subscriptions = self.close_subscriptions();
            if subscriptions > 0 {
                let cut_off = now.since(since);
                self.outputs.push(RouterOutput::Closed { subscriptions, cut_off });
            }
        }
        self.questions.retain(|_, waiting| !waiting.is_given_up());
        self.ask_for_leader(now);
        std::mem::take(&mut self.outputs)
    }

    fn ask_for_leader(&mut self, now: Monotonic) {
        let Role::Seeking { ask_at } = self.role else { return };
        if ask_at > now || !self.needs_leader() {
            return;
        }
        let Some(to) = self.asked() else { return };
        self.role = Role::Seeking {
            ask_at: now + ASK_EVERY,
        };
        let frame = Framed {
            header: wire::Header::default(),
            content: ToLeader::Ask,
        };
        self.outputs.push(RouterOutput::Send { to, frame });
    }

    /// Whether all that this node's clients were done with is known to be in the log, or with the node's own leader.
    pub(crate) fn has_no_events(&self) -> bool {
        self.events.is_empty()
    }

    fn needs_leader(&self) -> bool {
        !(self.publishes.is_empty()
            && self.consumers.is_empty()
            && self.events.is_empty()
            && self.orphans.is_empty()
            && self.questions.is_empty())
    }

    /// When [`step`](Self::step) has something to do if no input arrives before.
    pub(crate) fn wake_at(&self) -> Option<Monotonic> {
        let publish = self.publishes.front().map(deadline_of);
        let orphans = self.orphans.iter().filter_map(OrphanedLeases::next_deadline).min();
        let ask = match self.role {
            Role::Seeking { ask_at } if self.asked().is_some() && self.needs_leader() => Some(ask_at),
            _ => None,
        };
        let close = self.cut_off_since.filter(|_| self.consumers.values().any(is_open));
        let close = close.map(|since| since + CUT_OFF_MAX);
        [publish, orphans, ask, close].into_iter().flatten().min()
    }
}

/// Whether a consumer is attached and can be given messages.
fn is_open(consumer: &LocalConsumer) -> bool {
    consumer.incarnation.is_some() && !consumer.deliveries.is_closed()
}

fn number_of(publish: &Publish) -> u64 {
    publish.place.expect("the router has given it a place").number
}

fn deadline_of(publish: &Publish) -> Monotonic {
    publish.place.expect("the router has given it a place").deadline
}

fn answer(publish: Publish, result: Result<(), PublishError>) {
    if let PublishAnswer::Client(answer) = publish.answer {
        // Who waited may have given up.
        _ = answer.send(result);
    }
}

fn subscriber(consumer: &LocalConsumer) -> Subscriber {
    Subscriber {
        subscription: consumer.id,
        channel: consumer.channel.clone(),
        incarnation: consumer.incarnation,
        ready: consumer.ready,
        options: consumer.options.clone(),
    }
}
