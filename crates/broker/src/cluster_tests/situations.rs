//! Single situations of a leader among nodes, such as histories have met.

use std::collections::BTreeMap;

use nsquorum_environment::Monotonic;
use nsquorum_storage::ENTRY_HEADER_BYTES;
use nsquorum_topic::{
    Attempts, BatchBuilder, ChannelIncarnation, Event, FeatureLevel, LogTime, NewMessage, NodeId, NodeIncarnation,
    RequeueCause, Seq, Term,
};

use super::clients::{MSG_TIMEOUT, client};
use super::group::Group;
use super::network::session;
use crate::dice::Dice;
use crate::leases::{DeliveryToken, LeaseEvent, LeaseOutcome};
use crate::subscription::{SubscriptionId, SubscriptionOptions};
use crate::topic_leader::{Held, LeaderLimits, NodeState, Output, PeerLink, TopicLeader};
use crate::wire::{Association, Claim, Framed, FromLeader, PublishFrame, Subscriber, ToLeader};

/// Where the topic is led.
const LEADER: NodeId = NodeId::new(1);
/// Where it was led before.
const EARLIER: NodeId = NodeId::new(2);
const THIRD: NodeId = NodeId::new(3);

const NOW: Monotonic = Monotonic::from_nanos(1_000_000_000);
const CONSUMER: SubscriptionId = SubscriptionId(1);

/// A leader and the routers of the other nodes, with frames that arrive at once.
struct Scene {
    group: Group,
    leader: TopicLeader,
    routers: BTreeMap<NodeId, Association>,
    /// Number and attempts of what was delivered, in order.
    delivered: Vec<(u64, u16)>,
    channel: ChannelIncarnation,
    /// The term of the earlier leader.
    earlier: Term,
}

impl Scene {
    /// The earlier leader has stored messages 1 and 2 for a channel. The next one does not lead yet.
    fn new() -> Self {
        let mut group = Group::new(&[LEADER, EARLIER, THIRD]);
        group.elect(EARLIER, LogTime::new(1), &mut Dice::new(0));
        let mut batch = BatchBuilder::with_header_room(ENTRY_HEADER_BYTES);
        batch.push_event(&Event::CreateChannel {
            name: "ledger".parse().expect("a valid name"),
        });
        for body in ["one", "two"] {
            batch.push_message(&NewMessage::new(body.into(), LogTime::new(1)));
        }
        propose(&mut group, batch, Seq::new(1));
        let channel = group.replicas[&LEADER]
            .state
            .channels()
            .next()
            .expect("created")
            .incarnation();
        let leader = TopicLeader::new("orders".parse().expect("a valid name"), LeaderLimits::default());
        Self {
            earlier: group.term,
            group,
            leader: leader.among_nodes(session(LEADER, 1)),
            routers: BTreeMap::new(),
            delivered: Vec::new(),
            channel,
        }
    }

    /// Somebody has given back message 1 after one delivery, by way of the earlier leader.
    fn requeued(&mut self) {
        let mut batch = BatchBuilder::with_header_room(ENTRY_HEADER_BYTES);
        batch.push_event(&Event::Requeue {
            channel: self.channel,
            seq: Seq::new(1),
            attempts: Attempts::new(1),
            not_before: None,
            cause: RequeueCause::Requeue,
        });
        propose(&mut self.group, batch, Seq::new(3));
    }

    fn up(&mut self, node: NodeId) {
        self.leader.peer(node, PeerLink::Up(NodeIncarnation::new(1)), NOW);
        self.turn();
    }

    fn lead(&mut self) {
        self.group.elect(LEADER, LogTime::new(1), &mut Dice::new(0));
        apply(&mut self.group);
        self.turn();
        self.leader.take_over(NodeState::default(), NOW);
        self.turn();
    }

    /// A node's router claims one consumer with room, which may hold message 1 from the earlier leader.
    fn claim(&mut self, from: NodeId, holds: bool) {
        let subscriber = Subscriber {
            subscription: CONSUMER,
            channel: "ledger".parse().expect("a valid name"),
            incarnation: Some(self.channel),
            ready: 5,
            options: SubscriptionOptions {
                client: client(),
                msg_timeout: MSG_TIMEOUT,
                nearness: None,
            },
        };
        let held = holds.then(|| (CONSUMER, self.token())).into_iter().collect();
        let claim = Claim {
            subscribers: vec![subscriber],
            held,
            ..Claim::default()
        };
        self.say(from, ToLeader::Claim(claim));
    }

    /// The earlier leader's delivery of message 1.
    fn token(&self) -> DeliveryToken {
        DeliveryToken {
            channel: self.channel,
            seq: Seq::new(1),
            attempts: Attempts::new(1),
            term: self.earlier,
            delivery: 7,
        }
    }

    fn say(&mut self, from: NodeId, content: ToLeader) {
        self.tell(from, content);
        self.turn();
    }

    /// What the leader hears before it does anything.
    fn tell(&mut self, from: NodeId, content: ToLeader) {
        let router = self
            .routers
            .get_mut(&from)
            .expect("the leader has opened an association");
        let header = router.send(content.class());
        let frame = Framed { header, content };
        self.leader.frame(session(from, 1), frame, Held::Nothing, NOW);
    }

    /// Until nothing happens any more.
    fn turn(&mut self) {
        loop {
            let replica = self.group.replicas.get_mut(&LEADER).expect("a replica");
            for event in std::mem::take(&mut replica.events) {
                self.leader.event(event, NOW);
            }
            let outputs = self.leader.step(NOW);
            if outputs.is_empty() {
                return;
            }
            for output in outputs {
                match output {
                    Output::Propose { term, buffer, ticket } => {
                        self.group.propose(LEADER, term, buffer, ticket, false);
                        apply(&mut self.group);
                    }
                    Output::Read(job) => {
                        let done = self.group.read_with(LEADER, |log| job.run_from_disk(log));
                        self.leader.reader_done(done);
                    }
                    Output::TopicDeleted { .. } => panic!("nobody deletes"),
                    Output::AskForChannels { .. } => panic!("nobody can be asked"),
                    Output::Send { to, frame } => match frame.content {
                        FromLeader::Lead => _ = self.routers.insert(to, Association::join(frame.header)),
                        FromLeader::Deliver { delivery, .. } => {
                            let token = delivery.token;
                            self.delivered.push((token.seq.get(), token.attempts.get()));
                        }
                        _ => {}
                    },
                }
            }
        }
    }
}

/// The earlier leader proposes.
fn propose(group: &mut Group, batch: BatchBuilder, first_seq: Seq) {
    let buffer = batch.finish(group.term, first_seq, LogTime::new(1), FeatureLevel::new(1));
    group.propose(EARLIER, group.term, buffer, 0, false);
    apply(group);
}

fn apply(group: &mut Group) {
    while group.commit_one() {}
    while group.apply_one(LEADER) {}
}

#[test]
fn what_a_consumer_holds_is_not_delivered_again_because_another_delivery_of_it_came_back() {
    let mut scene = Scene::new();
    scene.requeued();
    scene.up(THIRD);
    scene.lead();
    scene.claim(THIRD, true);
    assert_eq!(scene.delivered, [(2, 1)]);

    let event = LeaseEvent {
        token: scene.token(),
        outcome: LeaseOutcome::Requeued { delay_ms: 0 },
    };
    let events = vec![event];
    scene.say(THIRD, ToLeader::Events { last: 1, events });
    assert_eq!(scene.delivered, [(2, 1), (1, 2)], "given back, it comes again");
}

#[test]
fn what_is_for_one_channel_does_not_come_to_a_consumer_whose_channel_is_created_with_it() {
    let mut scene = Scene::new();
    scene.up(THIRD);
    scene.lead();
    scene.claim(THIRD, false);
    assert_eq!(scene.delivered, [(1, 1), (2, 1)]);
    let subscriber = Subscriber {
        subscription: SubscriptionId(2),
        channel: "archive".parse().expect("a valid name"),
        incarnation: None,
        ready: 5,
        options: SubscriptionOptions {
            client: client(),
            msg_timeout: MSG_TIMEOUT,
            nearness: None,
        },
    };
    let publish = PublishFrame {
        number: 1,
        base: 1,
        only: Some("ledger".parse().expect("a valid name")),
        messages: vec![NewMessage::new("three".into(), LogTime::new(1))],
    };
    scene.tell(THIRD, ToLeader::Subscribe(subscriber));
    scene.tell(THIRD, ToLeader::Publish(publish));
    scene.turn();
    assert_eq!(scene.delivered, [(1, 1), (2, 1), (3, 1)], "on ledger alone");
}

#[test]
fn a_node_that_comes_up_before_all_have_claimed_is_asked_before_anything_is_delivered() {
    let mut scene = Scene::new();
    scene.up(EARLIER);
    scene.lead();
    scene.up(THIRD);
    scene.claim(EARLIER, false);
    assert!(
        scene.delivered.is_empty(),
        "the third node has not said what it holds: {:?}",
        scene.delivered
    );
    scene.claim(THIRD, true);
    assert_eq!(scene.delivered, [(2, 1)]);
}
