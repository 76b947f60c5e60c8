//! Another node that cannot be reached when a leadership begins: its process may be gone, or alive behind a broken network.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use nsquorum_consensus::TopicEvent;
use nsquorum_environment::Monotonic;
use nsquorum_topic::{
    BatchBuilder, BatchView, EntryPosition, Event, FeatureLevel, LeaderStart, LogIndex, LogTime, NodeId,
    NodeIncarnation, Origin, Seq, SessionId, SessionVerdict, Term, TopicState,
};

use super::{at_ms, message, topic};
use crate::topic_leader::nodes::GRACE;
use crate::topic_leader::{LeaderLimits, Output, PeerLink, TopicLeader};

const fn session(node: u64) -> SessionId {
    SessionId {
        node: NodeId::new(node),
        incarnation: NodeIncarnation::new(1),
    }
}

fn origin(number: u64) -> Origin {
    Origin {
        node: session(2).node,
        incarnation: session(2).incarnation,
        number,
        base: number,
    }
}

const fn position(index: u64) -> EntryPosition {
    EntryPosition {
        index: LogIndex::new(index),
        term: Term::new(1),
        encoded_bytes: 100,
    }
}

/// Node 1 leads in term 1; node 2 has published.
fn state() -> TopicState {
    let mut state = TopicState::new(Seq::new(0));
    let start = LeaderStart {
        node: session(1).node,
        incarnation: session(1).incarnation,
        term: Term::new(1),
        clock: LogTime::new(1),
    };
    state.apply_leader_start(position(1), &start).unwrap();
    let mut batch = BatchBuilder::with_header_room(0);
    let mut published = message("from node 2");
    published.origin = Some(origin(1));
    batch.push_message(&published);
    let batch = batch.finish(Term::new(1), state.next_seq(), LogTime::new(2), FeatureLevel::new(1));
    let batch = BatchView::parse(batch.freeze()).unwrap();
    assert!(state.apply_batch(position(2), &batch).is_ok());
    state
}

/// A leadership of node 1 begins after all this happened to its link with node 2. Says what becomes of the publishes of node 2.
fn verdict_after(happened: impl FnOnce(&mut TopicLeader, Monotonic) -> Monotonic) -> SessionVerdict {
    let mut leader = TopicLeader::new(topic(), LeaderLimits::default()).among_nodes(session(1));
    leader.peer(session(2).node, PeerLink::Up(session(2).incarnation), at_ms(0));
    let now = happened(&mut leader, at_ms(1000));
    let mut state = state();
    let started = TopicEvent::LeaderStarted {
        term: Term::new(1),
        state: Box::new(state.clone()),
    };
    leader.event(started, now);
    let proposed: Vec<BytesMut> = leader
        .step(now)
        .into_iter()
        .filter_map(|output| match output {
            Output::Propose { buffer, .. } => Some(buffer),
            _ => None,
        })
        .collect();
    for (index, buffer) in (3..).zip(proposed) {
        let payload = Bytes::copy_from_slice(&buffer[nsquorum_storage::ENTRY_HEADER_BYTES..]);
        let batch = BatchView::parse(payload).unwrap();
        assert!(batch.events().all(|event| matches!(event, Event::EndSession { .. })));
        assert!(state.apply_batch(position(index), &batch).is_ok());
    }
    state.session_verdict(&origin(2))
}

#[test]
fn the_session_of_a_node_whose_process_is_gone_ends() {
    let verdict = verdict_after(|leader, now| {
        leader.peer(session(2).node, PeerLink::Gone, now);
        now
    });
    assert_eq!(verdict, SessionVerdict::Ended);
}

/// It ended once, and a node that had been cut off could not publish into the topic again until it was restarted.
#[test]
fn the_session_of_a_node_that_was_cut_off_for_long_goes_on() {
    for silence in [Duration::ZERO, GRACE, GRACE * 10] {
        let verdict = verdict_after(|leader, now| {
            leader.peer(session(2).node, PeerLink::Lost, now);
            drop(leader.step(now + silence));
            // Another attempt to reach it has failed.
            leader.peer(session(2).node, PeerLink::Lost, now + silence);
            now + silence
        });
        assert_eq!(verdict, SessionVerdict::New, "after {silence:?}");
    }
}
