//! Whom a router asks, and when; and what it does when it is cut off.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use nsquorum_consensus::LeaderLocation;
use nsquorum_environment::Monotonic;
use nsquorum_topic::{Attempts, ChannelIncarnation, LogTime, NodeId, Seq, Term};
use tokio::sync::{mpsc, oneshot};

use super::machine::{ASK_EVERY, CUT_OFF_MAX, RouterOutput, TopicRouter};
use crate::leases::{Delivery, DeliveryToken, LeaseEvent, LeaseOutcome, LeaseTable};
use crate::subscription::{SubscribeError, SubscriptionEvent, SubscriptionId, SubscriptionOptions};
use crate::topic_leader::{LeaderInput, Subscribe};
use crate::wire::{Association, Claim, Framed, FromLeader, ToLeader};

const A: NodeId = NodeId::new(2);
const B: NodeId = NodeId::new(3);

fn at(ms: u64) -> Monotonic {
    Monotonic::from_nanos(ms * 1_000_000)
}

fn leader(term: u64, node: NodeId) -> LeaderLocation {
    LeaderLocation {
        term: Term::new(term),
        node,
    }
}

/// What the router sends at that time, and to whom.
fn sent(router: &mut TopicRouter, now: Monotonic) -> Vec<(NodeId, ToLeader)> {
    let outputs = router.step(now).into_iter();
    let sent = outputs.filter_map(|output| match output {
        RouterOutput::Send { to, frame } => Some((to, frame.content)),
        RouterOutput::Closed { .. } => None,
    });
    sent.collect()
}

/// Whom the router asks at that time.
fn asked(router: &mut TopicRouter, now: Monotonic) -> Vec<NodeId> {
    let sent = sent(router, now).into_iter();
    let asks = sent.filter(|(_, content)| matches!(content, ToLeader::Ask));
    asks.map(|(to, _)| to).collect()
}

/// A router with links to both nodes and somebody who waits for an answer, which keeps it looking for the leader.
fn in_need() -> (TopicRouter, oneshot::Receiver<Vec<nsquorum_protocol::ChannelName>>) {
    let mut router = TopicRouter::new(Duration::from_secs(5));
    router.peer(A, true, at(0));
    router.peer(B, true, at(0));
    let (answer, waiting) = oneshot::channel();
    assert!(router.input(LeaderInput::Channels { answer }, at(0)).is_none());
    (router, waiting)
}

#[test]
fn only_the_node_that_leads_is_asked() {
    let (mut router, _waiting) = in_need();
    assert_eq!(asked(&mut router, at(1)), [], "nobody is known to lead");
    assert_eq!(router.wake_at(), None, "and time alone does not change that");
    router.located(leader(3, A), at(10));
    assert_eq!(asked(&mut router, at(10)), [A]);
    assert_eq!(asked(&mut router, at(11)), [], "not again at once");
    assert_eq!(router.wake_at(), Some(at(10) + ASK_EVERY));
    assert_eq!(asked(&mut router, at(10) + ASK_EVERY), [A], "the question may be lost");
    router.located(leader(4, B), at(300));
    assert_eq!(asked(&mut router, at(300)), [B], "news is followed at once");
    router.located(leader(3, A), at(301));
    assert_eq!(asked(&mut router, at(600)), [B], "late word of an earlier term is not");
}

#[test]
fn a_router_that_needs_nothing_asks_nobody() {
    let (mut router, waiting) = in_need();
    drop(waiting);
    router.located(leader(3, A), at(10));
    assert_eq!(asked(&mut router, at(10)), []);
}

#[test]
fn a_leader_that_cannot_be_reached_is_asked_when_it_can() {
    let (mut router, _waiting) = in_need();
    router.peer(A, false, at(5));
    router.located(leader(3, A), at(10));
    assert_eq!((asked(&mut router, at(10)), router.wake_at()), (Vec::new(), None));
    router.peer(A, true, at(50));
    assert_eq!(asked(&mut router, at(50)), [A]);
}

#[test]
fn a_leader_that_began_an_association_is_where_to_ask_when_its_link_breaks() {
    let (mut router, _waiting) = in_need();
    router.located(leader(3, A), at(10));
    let header = Association::open(Term::new(5), 1).send(FromLeader::Lead.class());
    let lead = Framed {
        header,
        content: FromLeader::Lead,
    };
    router.frame(B, lead, at(20));
    assert_eq!(asked(&mut router, at(20)), []);
    router.peer(B, true, at(30));
    assert_eq!(asked(&mut router, at(30)), [B], "the connection is another");
}

const SUBSCRIPTION: SubscriptionId = SubscriptionId(7);
const CHANNEL: ChannelIncarnation = ChannelIncarnation::new(4);

/// A leader on another node, as the router hears it.
struct Leader {
    node: NodeId,
    association: Association,
}

impl Leader {
    /// Begins an association.
    fn begin(router: &mut TopicRouter, node: NodeId, term: u64, now: Monotonic) -> Self {
        let association = Association::open(Term::new(term), 1);
        let mut leader = Self { node, association };
        leader.say(router, FromLeader::Lead, now);
        leader
    }

    fn say(&mut self, router: &mut TopicRouter, content: FromLeader, now: Monotonic) {
        let header = self.association.send(content.class());
        router.frame(self.node, Framed { header, content }, now);
    }

    /// Gives a message to the consumer.
    fn deliver(&mut self, router: &mut TopicRouter, seq: u64, now: Monotonic) -> DeliveryToken {
        let token = DeliveryToken {
            channel: CHANNEL,
            seq: Seq::new(seq),
            attempts: Attempts::new(1),
            term: self.association.term(),
            delivery: seq,
        };
        let delivery = Delivery {
            token,
            published_at: LogTime::new(1),
            body: Bytes::from_static(b"body"),
            crc32c: 0,
        };
        let subscription = SUBSCRIPTION;
        self.say(router, FromLeader::Deliver { subscription, delivery }, now);
        token
    }
}

/// A consumer's connection.
struct Consumer {
    deliveries: mpsc::UnboundedReceiver<SubscriptionEvent>,
    answer: oneshot::Receiver<Result<(), SubscribeError>>,
    leases: LeaseTable,
}

impl Consumer {
    fn subscribe(router: &mut TopicRouter, now: Monotonic) -> Self {
        let (deliveries, receiver) = mpsc::unbounded_channel();
        let (answer, answered) = oneshot::channel();
        let subscribe = LeaderInput::Subscribe(Subscribe {
            id: SUBSCRIPTION,
            channel: "archive".parse().expect("a valid name"),
            options: SubscriptionOptions {
                client: Arc::default(),
                msg_timeout: Duration::from_secs(60),
                nearness: None,
            },
            deliveries,
            answer,
        });
        assert!(router.input(subscribe, now).is_none());
        Self {
            deliveries: receiver,
            answer: answered,
            leases: LeaseTable::new(Duration::from_secs(60), Duration::from_secs(120)),
        }
    }

    /// Takes what was delivered; the messages count as written to the socket. Says whether the subscription goes on.
    fn take(&mut self, now: Monotonic) -> bool {
        loop {
            match self.deliveries.try_recv() {
                Ok(SubscriptionEvent::Deliver(delivery)) => self.leases.delivered(&delivery, now),
                Ok(SubscriptionEvent::Emptied) => panic!("nobody empties"),
                Err(mpsc::error::TryRecvError::Empty) => return true,
                Err(mpsc::error::TryRecvError::Disconnected) => return false,
            }
        }
    }

    /// The connection ends.
    fn leave(self, router: &mut TopicRouter, now: Monotonic) {
        let leases = self.leases.disconnect();
        let input = LeaderInput::Disconnected {
            subscription: SUBSCRIPTION,
            leases,
        };
        assert!(router.input(input, now).is_none());
    }
}

/// A router with a consumer that node A's leader has attached and given one message; then the link to A breaks.
fn with_consumer() -> (TopicRouter, Consumer, DeliveryToken) {
    let mut router = TopicRouter::new(Duration::from_secs(5));
    router.peer(A, true, at(0));
    router.peer(B, true, at(0));
    let mut consumer = Consumer::subscribe(&mut router, at(0));
    let mut leader = Leader::begin(&mut router, A, 3, at(0));
    let attached = FromLeader::Subscribed {
        subscription: SUBSCRIPTION,
        result: Ok(CHANNEL),
    };
    leader.say(&mut router, attached, at(0));
    let (subscription, count) = (SUBSCRIPTION, 5);
    assert!(
        router
            .input(LeaderInput::Ready { subscription, count }, at(0))
            .is_none()
    );
    let token = leader.deliver(&mut router, 1, at(0));
    assert!(consumer.take(at(0)));
    router.peer(A, false, at(0));
    router.step(at(0));
    (router, consumer, token)
}

/// Lets the router step at that time, and says how many subscriptions it says that it closed.
fn closed(router: &mut TopicRouter, now: Monotonic) -> usize {
    let outputs = router.step(now).into_iter();
    let closed = outputs.map(|output| match output {
        RouterOutput::Closed { subscriptions, .. } => subscriptions,
        RouterOutput::Send { .. } => 0,
    });
    closed.sum()
}

#[test]
fn a_node_that_is_cut_off_closes_its_subscriptions_after_a_while() {
    let (mut router, mut consumer, _) = with_consumer();
    router.cut_off(true, at(100));
    router.cut_off(true, at(4_000));
    let due = at(100) + CUT_OFF_MAX;
    assert_eq!(router.wake_at(), Some(due));
    assert_eq!(closed(&mut router, at(5_099)), 0);
    assert!(consumer.take(at(5_099)), "not before");
    assert_eq!(closed(&mut router, due), 1);
    assert!(!consumer.take(due));
    assert_eq!(router.wake_at(), None, "there is nothing left to close");
    assert_eq!(closed(&mut router, due + CUT_OFF_MAX), 0, "and it is said once");
}

#[test]
fn subscriptions_stay_where_nobody_may_lead_elsewhere() {
    let (mut router, mut consumer, _) = with_consumer();
    assert_eq!(router.wake_at(), None);
    assert_eq!(closed(&mut router, at(60_000)), 0);
    // A quorum that is lost in the end, or for a moment, is no reason either.
    router.cut_off(true, at(60_000));
    router.cut_off(false, at(64_000));
    router.cut_off(true, at(64_500));
    assert_eq!(closed(&mut router, at(69_000)), 0);
    router.cut_off(false, at(69_000));
    assert_eq!(closed(&mut router, at(100_000)), 0);
    assert!(consumer.take(at(100_000)));
}

#[test]
fn a_leader_that_comes_in_time_keeps_the_subscriptions() {
    let (mut router, mut consumer, _) = with_consumer();
    router.cut_off(true, at(0));
    // The word that there is contact again may come later than the leader.
    let mut leader = Leader::begin(&mut router, B, 4, at(4_900));
    assert_eq!(closed(&mut router, at(5_100)), 0);
    router.cut_off(false, at(5_200));
    leader.deliver(&mut router, 2, at(5_300));
    assert_eq!(closed(&mut router, at(60_000)), 0);
    assert!(consumer.take(at(60_000)));
}

#[test]
fn a_consumer_that_waits_to_be_attached_goes_on_waiting() {
    let mut router = TopicRouter::new(Duration::from_secs(5));
    let mut consumer = Consumer::subscribe(&mut router, at(0));
    router.cut_off(true, at(0));
    assert_eq!(router.wake_at(), None);
    assert_eq!(closed(&mut router, at(6_000)), 0);
    assert!(
        consumer
            .answer
            .try_recv()
            .is_err_and(|error| error == oneshot::error::TryRecvError::Empty)
    );
    assert!(consumer.take(at(6_000)));
}

#[test]
fn a_closed_subscription_is_the_consumers_until_it_says_that_it_goes() {
    let (mut router, _consumer, token) = with_consumer();
    router.cut_off(true, at(0));
    assert_eq!(closed(&mut router, at(5_000)), 1);
    // A leader comes before the connection has ended: it may not take the message for nobody's, and may give nothing more.
    let (subscription, count) = (SUBSCRIPTION, 3);
    assert!(
        router
            .input(LeaderInput::Ready { subscription, count }, at(5_050))
            .is_none()
    );
    let mut leader = Leader::begin(&mut router, B, 4, at(5_100));
    let claim = claim(&mut router, at(5_100));
    let ready: Vec<_> = claim
        .subscribers
        .iter()
        .map(|subscriber| (subscriber.subscription, subscriber.ready))
        .collect();
    assert_eq!(
        (ready, claim.held),
        (vec![(SUBSCRIPTION, 0)], vec![(SUBSCRIPTION, token)])
    );
    let second = leader.deliver(&mut router, 2, at(5_200));
    let returned = LeaseEvent {
        token: second,
        outcome: LeaseOutcome::Returned,
    };
    assert_eq!(events(&mut router, at(5_200)), [returned], "nobody is there to take it");
}

#[test]
fn what_a_closed_subscription_held_runs_out_in_its_own_time() {
    let (mut router, mut consumer, token) = with_consumer();
    router.cut_off(true, at(0));
    assert_eq!(closed(&mut router, at(5_000)), 1);
    assert!(!consumer.take(at(5_000)));
    consumer.leave(&mut router, at(5_100));
    assert_eq!(router.wake_at(), Some(at(60_000)), "the lease ends");
    Leader::begin(&mut router, B, 4, at(6_000));
    let claim = claim(&mut router, at(6_000));
    assert!(claim.subscribers.is_empty());
    assert_eq!(claim.held, [(SUBSCRIPTION, token)]);
    assert_eq!(events(&mut router, at(59_999)), []);
    let disconnected = LeaseEvent {
        token,
        outcome: LeaseOutcome::Disconnected,
    };
    assert_eq!(events(&mut router, at(60_000)), [disconnected]);
}

#[test]
fn what_a_closed_subscription_never_wrote_goes_back() {
    let (mut router, consumer, _) = with_consumer();
    let mut leader = Leader::begin(&mut router, B, 4, at(0));
    let unwritten = leader.deliver(&mut router, 2, at(0));
    router.step(at(0));
    router.cut_off(true, at(0));
    assert_eq!(closed(&mut router, at(5_000)), 1);
    consumer.leave(&mut router, at(5_100));
    let returned = LeaseEvent {
        token: unwritten,
        outcome: LeaseOutcome::Returned,
    };
    assert_eq!(events(&mut router, at(5_100)), [returned]);
}

/// What the router tells a leader that asks.
fn claim(router: &mut TopicRouter, now: Monotonic) -> Claim {
    let sent = sent(router, now).into_iter();
    let mut claims = sent.filter_map(|(_, content)| match content {
        ToLeader::Claim(claim) => Some(claim),
        _ => None,
    });
    claims.next().expect("a claim")
}

/// The events that the router sends at that time.
fn events(router: &mut TopicRouter, now: Monotonic) -> Vec<LeaseEvent> {
    let sent = sent(router, now).into_iter();
    let events = sent.filter_map(|(_, content)| match content {
        ToLeader::Events { events, .. } => Some(events),
        _ => None,
    });
    events.flatten().collect()
}
