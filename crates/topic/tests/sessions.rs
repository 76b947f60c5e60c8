//! The rules of publish sessions, one by one, with the failure that each prevents.

#![allow(clippy::unwrap_used)]

use bytes::Bytes;
use nsquorum_topic::{
    Applied, BatchBuilder, BatchView, EntryPosition, Event, FeatureLevel, Impossible, LogIndex, LogTime, NewMessage,
    NodeId, NodeIncarnation, Origin, SESSION_WINDOW, SESSIONS_MAX, Seq, SessionId, SessionVerdict, Term, TopicState,
};

struct Topic {
    state: TopicState,
    index: u64,
}

impl Topic {
    fn new() -> Self {
        Self {
            state: TopicState::new(Seq::new(0)),
            index: 0,
        }
    }

    /// Applies a batch with one message per origin.
    fn batch(&mut self, first_seq: u64, events: &[Event], origins: &[Origin]) -> Result<Applied, Impossible> {
        let mut builder = BatchBuilder::with_header_room(0);
        events.iter().for_each(|event| builder.push_event(event));
        for origin in origins {
            builder.push_message(&NewMessage {
                origin: Some(*origin),
                ..NewMessage::new(Bytes::from_static(b"body"), LogTime::new(1))
            });
        }
        let bytes = builder.finish(Term::new(1), Seq::new(first_seq), LogTime::new(1), FeatureLevel::new(1));
        let at = EntryPosition {
            index: LogIndex::new(self.index + 1),
            term: Term::new(1),
            encoded_bytes: 100,
        };
        let before = self.state.digest();
        let applied = self.state.apply_batch(at, &BatchView::parse(bytes.freeze()).unwrap());
        match applied {
            Ok(_) => self.index += 1,
            Err(_) => assert_eq!(self.state.digest(), before, "an impossible batch changes nothing"),
        }
        applied
    }

    fn store(&mut self, origins: &[Origin]) {
        let next = self.state.next_seq().get();
        assert!(matches!(self.batch(next, &[], origins), Ok(Applied::Accepted(_))));
    }

    fn end(&mut self, node: u64, incarnation: u64) {
        let last = session(node, incarnation);
        let next = self.state.next_seq().get();
        assert!(matches!(
            self.batch(next, &[Event::EndSession { last }], &[]),
            Ok(Applied::Accepted(_))
        ));
    }

    fn verdict(&self, origin: Origin) -> SessionVerdict {
        self.state.session_verdict(&origin)
    }
}

fn session(node: u64, incarnation: u64) -> SessionId {
    SessionId {
        node: NodeId::new(node),
        incarnation: NodeIncarnation::new(incarnation),
    }
}

fn publish(number: u64, base: u64) -> Origin {
    of(1, 1, number, base)
}

fn of(node: u64, incarnation: u64, number: u64, base: u64) -> Origin {
    Origin {
        node: NodeId::new(node),
        incarnation: NodeIncarnation::new(incarnation),
        number,
        base,
    }
}

#[test]
fn a_publish_that_overtakes_another_does_not_make_that_a_duplicate() {
    let mut topic = Topic::new();
    topic.store(&[publish(1, 1), publish(8, 1)]);
    assert_eq!(topic.verdict(publish(7, 1)), SessionVerdict::New);
    assert_eq!(topic.verdict(publish(8, 1)), SessionVerdict::Stored);
    topic.store(&[publish(7, 1)]);
    assert_eq!(topic.verdict(publish(7, 1)), SessionVerdict::Stored);
    assert_eq!(topic.verdict(publish(1, 1)), SessionVerdict::Stored);
}

#[test]
fn below_the_base_nobody_asks_any_more() {
    let mut topic = Topic::new();
    topic.store(&[publish(5, 5)]);
    assert_eq!(topic.verdict(publish(4, 1)), SessionVerdict::Stored);
    assert_eq!(topic.verdict(publish(6, 1)), SessionVerdict::New);
}

#[test]
fn storing_a_publish_twice_is_impossible_within_a_batch_and_across_batches() {
    let mut topic = Topic::new();
    let impossible = |number| {
        Err(Impossible::Session {
            session: session(1, 1),
            number,
            verdict: SessionVerdict::Stored,
        })
    };
    let twice = [publish(1, 1), publish(2, 1), publish(1, 1)];
    assert_eq!(topic.batch(1, &[], &twice), impossible(1));
    topic.store(&[publish(1, 1), publish(3, 1)]);
    assert_eq!(topic.batch(3, &[], &[publish(3, 1)]), impossible(3));
    assert_eq!(topic.batch(3, &[], &[publish(1, 1)]), impossible(1));
}

#[test]
fn a_void_batch_leaves_no_trace_in_a_session() {
    let mut topic = Topic::new();
    topic.store(&[publish(1, 1)]);
    let void = topic.batch(9, &[], &[publish(2, 2)]);
    assert!(matches!(void, Ok(Applied::Void(_))));
    assert_eq!(topic.verdict(publish(2, 2)), SessionVerdict::New);
}

#[test]
fn sessions_of_different_starts_and_nodes_know_nothing_of_each_other() {
    let mut topic = Topic::new();
    topic.store(&[publish(1, 1)]);
    assert_eq!(topic.verdict(of(1, 2, 1, 1)), SessionVerdict::New);
    assert_eq!(topic.verdict(of(2, 1, 1, 1)), SessionVerdict::New);
}

#[test]
fn an_ended_session_leaves_a_mark_and_later_starts_are_unharmed() {
    let mut topic = Topic::new();
    topic.store(&[of(1, 3, 1, 1), of(1, 5, 1, 1), of(2, 3, 1, 1)]);
    topic.end(1, 4);
    for incarnation in [1, 3, 4] {
        assert_eq!(
            topic.verdict(of(1, incarnation, 1, 1)),
            SessionVerdict::Ended,
            "start {incarnation}"
        );
    }
    assert_eq!(topic.verdict(of(1, 5, 1, 1)), SessionVerdict::Stored);
    assert_eq!(topic.verdict(of(1, 6, 1, 1)), SessionVerdict::New);
    assert_eq!(topic.verdict(of(2, 3, 1, 1)), SessionVerdict::Stored);
    assert_eq!(
        topic.state.sessions().collect::<Vec<_>>(),
        [session(1, 5), session(2, 3)]
    );
    // An earlier end that is told again does not lower the mark.
    topic.end(1, 2);
    assert_eq!(topic.verdict(of(1, 4, 9, 9)), SessionVerdict::Ended);
}

#[test]
fn a_batch_that_ends_a_session_cannot_store_for_it() {
    let mut topic = Topic::new();
    let last = session(1, 1);
    assert_eq!(
        topic.batch(1, &[Event::EndSession { last }], &[publish(1, 1)]),
        Err(Impossible::Session {
            session: last,
            number: 1,
            verdict: SessionVerdict::Ended
        })
    );
}

#[test]
fn what_a_session_remembers_is_bounded() {
    let mut topic = Topic::new();
    topic.store(&[publish(2, 1)]);
    assert_eq!(topic.verdict(publish(SESSION_WINDOW, 1)), SessionVerdict::New);
    assert_eq!(
        topic.verdict(publish(SESSION_WINDOW + 1, 1)),
        SessionVerdict::OutOfBounds
    );
    assert_eq!(topic.verdict(publish(u64::MAX, u64::MAX)), SessionVerdict::OutOfBounds);
    assert!(topic.batch(2, &[], &[publish(SESSION_WINDOW + 1, 1)]).is_err());
    let nodes: Vec<Origin> = (2..=SESSIONS_MAX as u64).map(|node| of(node, 1, 1, 1)).collect();
    topic.store(&nodes);
    assert_eq!(topic.verdict(of(9_999, 1, 1, 1)), SessionVerdict::OutOfBounds);
    assert_eq!(topic.verdict(publish(3, 1)), SessionVerdict::New);
}

#[test]
fn a_session_in_order_takes_no_more_room_the_longer_it_runs() {
    let mut topic = Topic::new();
    topic.store(&[publish(1, 1)]);
    let bytes = topic.state.encode().len();
    for number in 2..200 {
        topic.store(&[publish(number, 1)]);
    }
    assert_eq!(topic.state.encode().len(), bytes);
    assert_eq!(TopicState::decode(&topic.state.encode()).unwrap(), topic.state);
}
