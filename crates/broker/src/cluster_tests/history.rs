//! One random life of a topic on three nodes.

use std::collections::BTreeMap;
use std::time::Duration;

use nsquorum_consensus::LeaderLocation;
use nsquorum_environment::Monotonic;
use nsquorum_links::{Class, Received};
use nsquorum_topic::{LogTime, NodeId, NodeIncarnation};
use tokio::sync::oneshot;

use super::clients::{CHANNELS, Clients, Ledger};
use super::group::Group;
use super::network::{Arrival, Network, session};
use crate::dice::Dice;
use crate::router::{RouterOutput, TopicRouter};
use crate::subscription::SubscriptionId;
use crate::topic_leader::{LeaderInput, LeaderLimits, Machines, Output, PeerLink, TopicInput, TopicLeader};

const NODES: [NodeId; 3] = [NodeId::new(1), NodeId::new(2), NodeId::new(3)];
const PUBLISH_TIMEOUT: Duration = Duration::from_secs(5);

/// Counts over all histories, to see that they contain what they claim to.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Census {
    stored: u64,
    safe: u64,
    unknown: u64,
    redelivered: u64,
    elections: u64,
    deaths: u64,
    stops: u64,
    broken_links: u64,
    lost_frames: u64,
    repeated_frames: u64,
    /// Stored for one channel alone, and delivered on the other after a change of leaders.
    only: u64,
    astray: u64,
    /// Channels that had no consumer at the end of a history.
    deserted: u64,
    /// Subscriptions that a node closed as if it were cut off.
    closed: u64,
}

impl Census {
    pub(super) fn add(&mut self, other: &Self) {
        self.stored += other.stored;
        self.safe += other.safe;
        self.unknown += other.unknown;
        self.redelivered += other.redelivered;
        self.elections += other.elections;
        self.deaths += other.deaths;
        self.stops += other.stops;
        self.broken_links += other.broken_links;
        self.lost_frames += other.lost_frames;
        self.repeated_frames += other.repeated_frames;
        self.only += other.only;
        self.astray += other.astray;
        self.deserted += other.deserted;
        self.closed += other.closed;
    }

    pub(super) fn assert_rich(&self, histories: u64) {
        assert!(self.stored > 50 * histories, "stored messages: {self:?}");
        assert!(self.safe > 40 * histories, "answered messages: {self:?}");
        assert!(self.only > 5 * histories, "stored for one channel: {self:?}");
        // A leader that changes at the wrong moment takes a request with it. That must stay the exception, with seven elections a history.
        assert!(self.astray < self.only / 5, "astray: {self:?}");
        assert!(self.redelivered > histories, "redeliveries: {self:?}");
        assert!(self.elections > 3 * histories, "elections: {self:?}");
        assert!(self.deaths > histories, "deaths: {self:?}");
        assert!(self.stops > histories, "clean stops: {self:?}");
        assert!(self.broken_links > histories, "broken links: {self:?}");
        assert!(self.closed > histories, "closed subscriptions: {self:?}");
        assert!(self.lost_frames > histories, "lost frames: {self:?}");
        assert!(self.repeated_frames > histories, "repeated frames: {self:?}");
    }
}

struct Node {
    machines: Machines,
    clients: Clients,
    /// It stops, has no clients any more, and ends when this says that nothing of theirs would be forgotten.
    flushed: Option<oneshot::Receiver<()>>,
}

pub(super) struct History {
    dice: Dice,
    now: Monotonic,
    group: Group,
    network: Network,
    /// Nodes that are dead are not here.
    nodes: BTreeMap<NodeId, Node>,
    /// Directions that are broken.
    broken: Vec<(NodeId, NodeId)>,
    /// Directions that were broken for a moment, which their senders have not noticed yet.
    unnoticed: Vec<(NodeId, NodeId)>,
    ledger: Ledger,
    is_faulty: bool,
    census: Census,
}

impl History {
    pub(super) fn run(seed: u64) -> Census {
        let mut history = Self {
            dice: Dice::new(seed),
            now: Monotonic::from_nanos(1_000_000_000),
            group: Group::new(&NODES),
            network: Network::default(),
            nodes: BTreeMap::new(),
            broken: Vec::new(),
            unnoticed: Vec::new(),
            ledger: Ledger::default(),
            is_faulty: true,
            census: Census::default(),
        };
        for node in NODES {
            history.start(node);
        }
        history.elect();
        for node in NODES {
            history.client(node, |clients, dice, _| Some(clients.subscribe(dice)));
        }
        for _ in 0..1_500 + history.dice.below(1_500) {
            history.step();
        }
        history.heal();
        history.check();
        history.census
    }

    fn step(&mut self) {
        let node = NODES[self.dice.below(3) as usize];
        match self.dice.below(1_000) {
            0..=1 => self.elect(),
            2 | 3 => self.stop(node),
            4 | 5 => self.kill(node),
            6..=14 => self.restart(node),
            15..=18 => self.break_link(node),
            19..=40 => self.mend_link(),
            41..=49 => self.client(node, |clients, dice, _| {
                (clients.consumers.len() < 3).then(|| clients.subscribe(dice))
            }),
            50..=53 => self.client(node, Clients::disconnect),
            54..=58 => self.heartbeat(node),
            59..=75 => self.ready(node),
            76..=180 => self.client(node, |clients, dice, ledger| Some(clients.publish(dice, ledger))),
            181..=300 => self.client(node, |clients, dice, ledger| clients.settle(dice, ledger, true)),
            301..=420 => {
                self.group.commit_one();
            }
            421..=600 => {
                self.apply(node);
            }
            601..=700 => self.event(node),
            701..=950 => self.deliver(),
            951..=953 => self.close_subscriptions(node),
            954..=965 => self.client(node, |clients, _, ledger| clients.leave(ledger)),
            _ => {
                self.now = self.now + Duration::from_micros(self.dice.below(3_000));
                self.turn(node);
            }
        }
    }

    // === nodes ===

    fn start(&mut self, id: NodeId) {
        let incarnation = self.group.incarnations[&id];
        let limits = LeaderLimits {
            burst_max: 8,
            ..LeaderLimits::default()
        };
        let leader = TopicLeader::new("orders".parse().expect("a valid name"), limits);
        let node = Node {
            machines: Machines::new(
                leader.among_nodes(session(id, incarnation)),
                Some(TopicRouter::new(PUBLISH_TIMEOUT)),
            ),
            clients: Clients::new((id, incarnation)),
            flushed: None,
        };
        self.nodes.insert(id, node);
        for other in NODES {
            if other != id && self.nodes.contains_key(&other) {
                self.connect(id, other);
                self.connect(other, id);
            }
        }
    }

    /// A new connection in one direction.
    fn connect(&mut self, from: NodeId, to: NodeId) {
        self.broken.retain(|direction| *direction != (from, to));
        self.unnoticed.retain(|direction| *direction != (from, to));
        let incarnation = NodeIncarnation::new(self.group.incarnations[&to]);
        self.tell(from, to, PeerLink::Up(incarnation));
    }

    fn tell(&mut self, at: NodeId, about: NodeId, link: PeerLink) {
        self.input(at, TopicInput::Peer { node: about, link });
    }

    fn kill(&mut self, id: NodeId) {
        if self.nodes.len() < 3 || self.nodes.remove(&id).is_none() {
            return;
        }
        self.census.deaths += 1;
        self.ledger.died((id, self.group.incarnations[&id]));
        self.gone(id);
    }

    /// A node lets its clients go, and ends when what they were done with is in the log: none of it may come again.
    fn stop(&mut self, id: NodeId) {
        if self.nodes.len() < 3 || self.nodes[&id].flushed.is_some() {
            return;
        }
        while self.nodes.get(&id).is_some_and(|node| node.clients.has_attached()) {
            self.client(id, Clients::disconnect);
        }
        let (flushed, is_flushed) = oneshot::channel();
        if let Some(node) = self.nodes.get_mut(&id) {
            // Those that wait for the answer to their SUB go without a word.
            node.clients.consumers.clear();
            node.flushed = Some(is_flushed);
        }
        self.input(id, TopicInput::Flush { flushed });
    }

    fn end_if_flushed(&mut self, id: NodeId) {
        if self.nodes.len() < 3 {
            return; // as with deaths: a majority stays
        }
        let flushed = self.nodes.get_mut(&id).and_then(|node| node.flushed.as_mut());
        if flushed.is_some_and(|flushed| flushed.try_recv().is_ok()) && self.nodes.remove(&id).is_some() {
            self.census.stops += 1;
            self.ledger.stopped((id, self.group.incarnations[&id]), self.group.term);
            self.gone(id);
        }
    }

    fn gone(&mut self, id: NodeId) {
        for other in NODES {
            self.network.clear(id, other);
            self.network.clear(other, id);
            for directions in [&mut self.broken, &mut self.unnoticed] {
                directions.retain(|direction| *direction != (id, other) && *direction != (other, id));
            }
            self.tell(other, id, PeerLink::Gone);
        }
        self.group.restart(id);
        if self.group.leader == id {
            self.elect();
        }
    }

    fn restart(&mut self, id: NodeId) {
        if !self.nodes.contains_key(&id) {
            self.start(id);
            self.client(id, |clients, dice, _| Some(clients.subscribe(dice)));
        }
    }

    fn elect(&mut self) {
        let alive: Vec<NodeId> = self.nodes.keys().copied().collect();
        if let Some(leader) = self.dice.pick(&alive) {
            self.census.elections += 1;
            let wall = LogTime::new(self.now.as_nanos());
            self.group.elect(leader, wall, &mut self.dice);
        }
    }

    fn break_link(&mut self, from: NodeId) {
        let to = NODES[self.dice.below(3) as usize];
        let is_up = self.nodes.contains_key(&from) && self.nodes.contains_key(&to);
        if from == to || !is_up || self.broken.contains(&(from, to)) {
            return;
        }
        self.census.broken_links += 1;
        // The sender may notice only when it is connected again.
        self.network.clear(from, to);
        self.broken.push((from, to));
        if self.dice.one_in(2) {
            self.tell(from, to, PeerLink::Lost);
        }
    }

    /// A node takes itself for cut off, rightly or not.
    fn close_subscriptions(&mut self, id: NodeId) {
        let Some(node) = self.nodes.get_mut(&id) else { return };
        let closed = node
            .machines
            .router
            .as_mut()
            .map_or(0, TopicRouter::close_subscriptions);
        node.clients.closing += closed;
        self.census.closed += closed as u64;
        self.turn(id);
    }

    fn mend_link(&mut self) {
        let directions = [&self.broken[..], &self.unnoticed[..]].concat();
        if let Some((from, to)) = self.dice.pick(&directions) {
            self.connect(from, to);
        }
    }

    // === machines ===

    fn input(&mut self, id: NodeId, input: TopicInput) {
        let now = self.now;
        if let Some(node) = self.nodes.get_mut(&id) {
            node.machines.input(input, now);
            node.machines.settle(now);
            self.turn(id);
        }
    }

    fn client(&mut self, id: NodeId, act: impl FnOnce(&mut Clients, &mut Dice, &mut Ledger) -> Option<LeaderInput>) {
        let input = self
            .nodes
            .get_mut(&id)
            .filter(|node| node.flushed.is_none())
            .and_then(|node| act(&mut node.clients, &mut self.dice, &mut self.ledger));
        if let Some(input) = input {
            self.input(id, TopicInput::Client(input));
        }
    }

    fn ready(&mut self, id: NodeId) {
        let count = self.dice.below(6) as u32;
        self.client(id, |clients, dice, _| {
            let place = dice.place(clients.consumers.len())?;
            let subscription = clients.consumers[place].id;
            Some(LeaderInput::Ready { subscription, count })
        });
    }

    fn event(&mut self, id: NodeId) {
        let now = self.now;
        let event = self
            .group
            .replicas
            .get_mut(&id)
            .and_then(|replica| replica.events.pop_front());
        if let (Some(event), Some(node)) = (event, self.nodes.get_mut(&id)) {
            node.machines.event(event, now);
            self.turn(id);
        }
    }

    fn apply(&mut self, id: NodeId) {
        let told = |history: &Self| history.group.replicas[&id].told;
        let before = told(self);
        self.group.apply_one(id);
        if let Some(leader) = told(self)
            && before != Some(leader)
        {
            self.located(id, leader);
        }
    }

    /// A leader's word of itself reaches a node, if there is a way.
    fn heartbeat(&mut self, to: NodeId) {
        if let Some(leader) = self.group.serving
            && self.nodes.contains_key(&leader.node)
            && !self.broken.contains(&(leader.node, to))
        {
            self.located(to, leader);
        }
    }

    fn located(&mut self, id: NodeId, leader: LeaderLocation) {
        let now = self.now;
        if let Some(node) = self.nodes.get_mut(&id) {
            node.machines.located(leader, now);
            self.turn(id);
        }
    }

    fn deliver(&mut self) {
        let (to, from, frame, class) = match self.network.deliver(&mut self.dice, self.is_faulty) {
            Some(Arrival::Frame { to, from, frame, class }) => (to, from, frame, class),
            Some(Arrival::Lost { from, to }) => return self.unnoticed.push((from, to)),
            None => return,
        };
        let frame = Received::detached(frame, class);
        self.input(to, TopicInput::Frame { from, frame });
    }

    /// Lets a node's machines step, and takes what they say.
    fn turn(&mut self, id: NodeId) {
        let now = self.now;
        let Some(node) = self.nodes.get_mut(&id) else { return };
        let me = session(id, node.clients.process.1);
        let mut reads = Vec::new();
        let mut frames = Vec::new();
        loop {
            for output in node.machines.leader.step(now) {
                match output {
                    Output::Propose { term, buffer, ticket } => {
                        let lease_expired = self.is_faulty && self.dice.one_in(30);
                        self.group.propose(id, term, buffer, ticket, lease_expired);
                    }
                    Output::Read(job) => reads.push(job),
                    Output::TopicDeleted { .. } => panic!("nobody deletes"),
                    Output::AskForChannels { .. } => panic!("nobody can be asked"),
                    Output::Send { to, frame } => frames.push((to, frame.content.class(), frame.encode())),
                }
            }
            for job in reads.drain(..) {
                let done = self.group.read_with(id, |log| job.run_from_disk(log));
                node.machines.leader.reader_done(done);
            }
            if let Some(router) = &mut node.machines.router {
                for output in router.step(now) {
                    match output {
                        RouterOutput::Send { to, frame } => frames.push((to, frame.content.class(), frame.encode())),
                        RouterOutput::Closed { .. } => panic!("nobody says that this node is cut off"),
                    }
                }
            }
            if !node.machines.leader.has_more() {
                break;
            }
        }
        node.machines.tell_flushed(now);
        let attached = node.clients.look(&mut self.ledger, now, &self.group.stored_in);
        for (to, class, frame) in frames {
            self.send(id, me.incarnation.get(), to, class, frame.slice(0, usize::MAX));
        }
        for subscription in attached {
            self.first_ready(id, subscription);
        }
        self.end_if_flushed(id);
    }

    fn first_ready(&mut self, id: NodeId, subscription: SubscriptionId) {
        let count = 1 + self.dice.below(4) as u32;
        self.client(id, |_, _, _| Some(LeaderInput::Ready { subscription, count }));
    }

    fn send(&mut self, from: NodeId, incarnation: u64, to: NodeId, class: Class, frame: bytes::Bytes) {
        if !self.broken.contains(&(from, to)) && self.nodes.contains_key(&to) {
            self.network.send(session(from, incarnation), to, class, frame);
        }
    }

    // === the end ===

    /// Nothing goes wrong any more, and everybody finishes what there is.
    fn heal(&mut self) {
        self.is_faulty = false;
        for node in NODES {
            self.restart(node);
            self.client(node, |clients, dice, _| Some(clients.subscribe(dice)));
        }
        while !self.broken.is_empty() || !self.unnoticed.is_empty() {
            self.mend_link();
        }
        for round in 0..20_000 {
            if round % 20 == 0 {
                for node in NODES {
                    self.restart(node);
                    self.serve_all(node);
                    self.heartbeat(node);
                }
                // Again and again: a node that was stopping may have ended only now, with its consumers.
                self.leave_somebody_to_consume();
                self.now = self.now + Duration::from_millis(200);
            }
            for _ in 0..5 {
                self.deliver();
                self.group.commit_one();
            }
            for node in NODES {
                self.apply(node);
                self.event(node);
                self.client(node, |clients, _, ledger| clients.leave(ledger));
                self.client(node, |clients, dice, ledger| clients.settle(dice, ledger, false));
                self.turn(node);
            }
            if self.is_done() {
                return;
            }
        }
        for (id, node) in &self.nodes {
            println!(
                "node {id}: leads {:?}, waiting {}, {} consumers",
                node.machines.leader.leads(),
                node.clients.is_waiting(),
                node.clients.consumers.len()
            );
            for consumer in &node.clients.consumers {
                println!(
                    "  {:?} holds {:?}",
                    consumer.id,
                    consumer.held.keys().collect::<Vec<_>>()
                );
            }
            let state = &self.group.replicas[id].state;
            for channel in state.channels() {
                println!("  floor {} of {}", channel.floor(), state.next_seq());
            }
        }
        panic!("the topic does not come to rest");
    }

    /// All consumers may have gone in good order, on every node: what is published after that waits for the next one, for ever.
    fn leave_somebody_to_consume(&mut self) {
        for channel in CHANNELS {
            let is_served = |node: &Node| {
                node.clients
                    .consumers
                    .iter()
                    .any(|consumer| consumer.channel == channel)
            };
            if !self.nodes.values().any(is_served) {
                self.census.deserted += 1;
                let node = NODES[self.dice.below(3) as usize];
                self.client(node, |clients, _, _| Some(clients.subscribe_to(channel)));
            }
        }
    }

    fn serve_all(&mut self, node: NodeId) {
        let ids: Vec<SubscriptionId> = self
            .nodes
            .get(&node)
            .map(|node| node.clients.consumers.iter().map(|consumer| consumer.id).collect())
            .unwrap_or_default();
        for subscription in ids {
            self.client(node, |_, _, _| {
                Some(LeaderInput::Ready {
                    subscription,
                    count: 20,
                })
            });
        }
    }

    fn is_done(&self) -> bool {
        let is_finished = self.group.replicas.values().all(|replica| {
            replica
                .state
                .channels()
                .all(|channel| channel.floor() == replica.state.next_seq())
                && replica.state.channels().len() == CHANNELS.len()
        });
        is_finished && self.network.is_quiet() && !self.nodes.values().any(|node| node.clients.is_waiting())
    }

    fn check(&mut self) {
        for body in &self.ledger.safe {
            assert!(
                self.group.bodies.contains(body),
                "{body:?} was answered OK and is not stored"
            );
        }
        let replica = &self.group.replicas[&NODES[0]];
        for channel in replica.state.channels() {
            let begin = channel.begin();
            for (seq, body) in self.group.stored.range(begin..) {
                let only = self.ledger.only.get(body);
                let is_for_it = only.is_none_or(|only| *only == channel.name().as_str());
                let was_delivered = self.ledger.deliveries.contains_key(&(channel.incarnation(), *seq));
                assert!(
                    was_delivered || !is_for_it,
                    "message {seq} was never delivered on {}",
                    channel.name()
                );
            }
        }
        let places: BTreeMap<&bytes::Bytes, u64> =
            self.group.stored.iter().map(|(seq, body)| (body, seq.get())).collect();
        for (connection, bodies) in &self.ledger.order {
            let stored: Vec<u64> = bodies.iter().filter_map(|body| places.get(body).copied()).collect();
            assert!(
                stored.is_sorted(),
                "publishes of {connection} are stored in another order: {stored:?}"
            );
        }
        let digests: Vec<_> = self
            .group
            .replicas
            .values()
            .map(|replica| replica.state.digest())
            .collect();
        assert!(digests.windows(2).all(|pair| pair[0] == pair[1]), "replicas differ");
        self.census.stored = self.group.stored.len() as u64;
        self.census.safe = self.ledger.safe.len() as u64;
        self.census.unknown = self.ledger.unknown;
        let is_for_one = |body: &&bytes::Bytes| self.ledger.only.contains_key(*body);
        self.census.only = self.group.stored.values().filter(is_for_one).count() as u64;
        self.census.astray = self.ledger.astray;
        self.census.redelivered = self.ledger.redelivered;
        self.census.lost_frames = self.network.lost;
        self.census.repeated_frames = self.network.repeated;
    }
}
