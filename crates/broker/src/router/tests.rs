//! Whom a router asks, and when.

use std::time::Duration;

use nsquorum_consensus::LeaderLocation;
use nsquorum_environment::Monotonic;
use nsquorum_topic::{NodeId, Term};
use tokio::sync::oneshot;

use super::machine::{ASK_EVERY, RouterOutput, TopicRouter};
use crate::topic_leader::LeaderInput;
use crate::wire::{Association, Framed, FromLeader, ToLeader};

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

/// Whom the router asks at that time.
fn asked(router: &mut TopicRouter, now: Monotonic) -> Vec<NodeId> {
    let outputs = router.step(now).into_iter();
    let asks = outputs.filter(|RouterOutput::Send { frame, .. }| matches!(frame.content, ToLeader::Ask));
    asks.map(|RouterOutput::Send { to, .. }| to).collect()
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
