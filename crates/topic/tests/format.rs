//! The formats: pinned byte by byte, round trips, and input that is damaged in every way.

#![allow(clippy::unwrap_used)]

use bytes::{Bytes, BytesMut};
use nsquorum_protocol::ChannelName;
use nsquorum_topic::{
    Applied, Attempts, BatchBuilder, BatchView, ChannelIncarnation, EntryPosition, Event, FeatureLevel, FormatError,
    LeaderStart, LogIndex, LogTime, NewMessage, NodeId, NodeIncarnation, Origin, RequeueCause, Seq, SeqRange,
    SessionId, Term, TopicState,
};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

fn name(text: &str) -> ChannelName {
    ChannelName::try_from(text).unwrap()
}

fn range(first: u64, last: u64) -> SeqRange {
    SeqRange::new(Seq::new(first), Seq::new(last)).unwrap()
}

const CHANNEL: ChannelIncarnation = ChannelIncarnation::new(0x0102);

fn every_event() -> Vec<Event> {
    vec![
        Event::CreateChannel { name: name("ledger") },
        Event::DeleteChannel { channel: CHANNEL },
        Event::EmptyChannel { channel: CHANNEL },
        Event::PauseChannel { channel: CHANNEL },
        Event::UnpauseChannel { channel: CHANNEL },
        Event::PauseTopic,
        Event::UnpauseTopic,
        Event::EmptyTopic,
        Event::Finish {
            channel: CHANNEL,
            ranges: vec![range(1, 3), range(5, 5)],
        },
        Event::Requeue {
            channel: CHANNEL,
            seq: Seq::new(4),
            attempts: Attempts::new(2),
            not_before: Some(LogTime::new(77)),
            cause: RequeueCause::Timeout,
        },
        Event::Requeue {
            channel: CHANNEL,
            seq: Seq::new(6),
            attempts: Attempts::new(1),
            not_before: None,
            cause: RequeueCause::Disconnect,
        },
        Event::EndSession {
            last: SessionId {
                node: NodeId::new(3),
                incarnation: NodeIncarnation::new(8),
            },
        },
    ]
}

const ORIGIN: Origin = Origin {
    node: NodeId::new(3),
    incarnation: NodeIncarnation::new(9),
    number: 1_000,
    base: 990,
};

fn messages() -> Vec<NewMessage> {
    let plain = NewMessage::new(Bytes::from_static(b"hello"), LogTime::new(1_000_005));
    let deferred = NewMessage {
        defer_ms: 1_500,
        origin: Some(ORIGIN),
        ..NewMessage::new(Bytes::from_static(b"invoice"), LogTime::new(999_990))
    };
    let empty = NewMessage {
        origin: Some(ORIGIN),
        ..NewMessage::new(Bytes::new(), LogTime::new(1_000_000))
    };
    vec![plain, deferred, empty]
}

/// The same messages as another publish of the session.
fn published_as(number: u64) -> Vec<NewMessage> {
    let mut messages = messages();
    for origin in messages.iter_mut().filter_map(|message| message.origin.as_mut()) {
        origin.number = number;
    }
    messages
}

fn build(events: &[Event], messages: &[NewMessage]) -> Bytes {
    let mut builder = BatchBuilder::with_header_room(0);
    events.iter().for_each(|event| builder.push_event(event));
    messages.iter().for_each(|message| builder.push_message(message));
    let announced = builder.encoded_len();
    let bytes = builder.finish(Term::new(5), Seq::new(7), LogTime::new(1_000_000), FeatureLevel::new(1));
    assert_eq!(bytes.len(), announced, "announced length");
    bytes.freeze()
}

fn full_batch() -> Bytes {
    build(&every_event(), &messages())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Calls everything that a parsed batch offers.
fn walk(view: &BatchView) {
    assert_eq!(view.events().count(), view.event_count() as usize);
    assert_eq!(view.messages().count(), view.header().count as usize);
    for message in view.messages() {
        let _ = message.is_intact();
    }
    assert!(view.message(view.header().count).is_none());
}

fn at(index: u64, term: u64) -> EntryPosition {
    EntryPosition {
        index: LogIndex::new(index),
        term: Term::new(term),
        encoded_bytes: 100,
    }
}

#[test]
fn a_batch_comes_back_as_it_went_in() {
    let view = BatchView::parse(full_batch()).unwrap();
    let header = view.header();
    assert_eq!(
        (header.term, header.first_seq, header.count),
        (Term::new(5), Seq::new(7), 3)
    );
    assert_eq!(
        (header.time, header.feature_level),
        (LogTime::new(1_000_000), FeatureLevel::new(1))
    );
    assert!(!header.closes_topic);
    assert_eq!(view.events().collect::<Vec<_>>(), every_event());
    for ((view, message), seq) in view.messages().zip(messages()).zip(7..) {
        assert_eq!(view.seq, Seq::new(seq));
        assert_eq!(view.body, message.body);
        assert_eq!(view.crc32c, message.crc32c);
        assert_eq!(view.defer_ms, message.defer_ms);
        assert_eq!(view.published_at, message.published_at);
        assert_eq!(view.origin, message.origin);
        assert!(view.is_intact());
    }
    walk(&view);
}

#[test]
fn room_in_front_stays_zero_and_bodies_are_slices() {
    let mut builder = BatchBuilder::with_header_room(48);
    messages().iter().for_each(|message| builder.push_message(message));
    let mut bytes: BytesMut = builder.finish(Term::new(1), Seq::new(1), LogTime::new(0), FeatureLevel::new(1));
    let payload = bytes.split_off(48).freeze();
    assert!(bytes.iter().all(|byte| *byte == 0));
    let view = BatchView::parse(payload.clone()).unwrap();
    let body = view.message(1).unwrap().body;
    let bounds = payload.as_ptr() as usize..payload.as_ptr() as usize + payload.len();
    assert!(
        bounds.contains(&(body.as_ptr() as usize)),
        "the body lies inside the payload's own bytes"
    );
}

#[test]
fn publish_times_far_from_the_batch_are_kept() {
    for (time, published_at) in [
        (0, 1),
        (1, 0),
        (1 << 62, 1 << 61),
        (1_700_000_000_000_000_000, 1_600_000_000_000_000_000),
    ] {
        let mut builder = BatchBuilder::with_header_room(0);
        builder.push_message(&NewMessage::new(Bytes::new(), LogTime::new(published_at)));
        let bytes = builder.finish(Term::new(1), Seq::new(1), LogTime::new(time), FeatureLevel::new(1));
        let view = BatchView::parse(bytes.freeze()).unwrap();
        assert_eq!(view.message(0).unwrap().published_at, LogTime::new(published_at));
    }
}

#[test]
fn messages_of_one_publish_share_their_origin() {
    let shared = NewMessage {
        origin: Some(ORIGIN),
        ..NewMessage::new(Bytes::new(), LogTime::new(0))
    };
    let one = build(&[], std::slice::from_ref(&shared)).len();
    let two = build(&[], &[shared.clone(), shared]).len();
    assert_eq!(two - one, nsquorum_topic::batch::MESSAGE_ROW_BYTES);
}

#[test]
fn different_origins_in_one_batch_stay_different() {
    let other = Origin {
        number: 1_001,
        ..ORIGIN
    };
    let origins = [Some(ORIGIN), Some(other), None, Some(other), Some(ORIGIN)];
    let messages = origins.map(|origin| NewMessage {
        origin,
        ..NewMessage::new(Bytes::new(), LogTime::new(0))
    });
    let view = BatchView::parse(build(&[], &messages)).unwrap();
    assert_eq!(
        view.messages().map(|message| message.origin).collect::<Vec<_>>(),
        origins
    );
}

#[test]
fn a_damaged_body_is_noticed() {
    let bytes = full_batch();
    let mut damaged = BytesMut::from(&bytes[..]);
    let last = damaged.len() - 1;
    damaged[last] ^= 1;
    let view = BatchView::parse(damaged.freeze()).unwrap();
    let intact: Vec<bool> = view.messages().map(|message| message.is_intact()).collect();
    assert_eq!(intact, [true, false, true]);
}

#[test]
fn the_batch_format_is_pinned() {
    let expected = concat!(
        "01000100000000000500000000000000070000000000000040420f0000000000",
        "030000000c000000f60000002a000000",
        "0c00000000000000",
        // CreateChannel, Delete, Empty, Pause, Unpause
        "01000000060000006c6564676572",
        "02000000080000000201000000000000",
        "03000000080000000201000000000000",
        "04000000080000000201000000000000",
        "05000000080000000201000000000000",
        // PauseTopic, UnpauseTopic, EmptyTopic
        "0600000000000000",
        "0700000000000000",
        "0800000000000000",
        // Finish 1..=3 and 5
        "0a000000280000000201000000000000",
        "01000000000000000300000000000000",
        "05000000000000000500000000000000",
        // Requeue by timeout with, by disconnect without "not before"
        "0b0000001c0000000201000000000000",
        "0400000000000000",
        "02000101",
        "4d00000000000000",
        "0b0000001c0000000201000000000000",
        "0600000000000000",
        "01000200",
        "0000000000000000",
        // EndSession
        "0c00000010000000",
        "03000000000000000800000000000000",
        // message table
        "050000004cbb719a0000000000000000",
        "0500000000000000",
        "00000000",
        "0c000000e96f75a300000000dc050000",
        "f6ffffffffffffff",
        "01000000",
        "0c000000000000000000000000000000",
        "0000000000000000",
        "01000000",
        // extension block: origin
        "26000000",
        "010020000000",
        "0300000000000000",
        "0900000000000000",
        "e803000000000000",
        "de03000000000000",
        // bodies
        "68656c6c6f",
        "696e766f696365",
    );
    assert_eq!(hex(&full_batch()), expected);
}

#[test]
fn the_leader_start_format_is_pinned() {
    let start = LeaderStart {
        node: NodeId::new(2),
        incarnation: NodeIncarnation::new(3),
        term: Term::new(4),
        clock: LogTime::new(5),
    };
    let encoded = start.encode(2);
    assert_eq!(
        hex(&encoded),
        concat!(
            "0000",
            "0100000000000000",
            "0200000000000000",
            "0300000000000000",
            "0400000000000000",
            "0500000000000000"
        )
    );
    assert_eq!(LeaderStart::decode(&encoded[2..]), Ok(start));
    for end in 2..encoded.len() {
        assert!(LeaderStart::decode(&encoded[2..end]).is_err());
    }
}

/// A state with something in every section that can be filled.
fn rich_state() -> TopicState {
    let mut state = TopicState::new(Seq::new(6));
    let start = LeaderStart {
        node: NodeId::new(1),
        incarnation: NodeIncarnation::new(2),
        term: Term::new(5),
        clock: LogTime::new(10),
    };
    state.apply_leader_start(at(1, 5), &start).unwrap();
    let mut next = |index, events: &[Event], messages: &[NewMessage]| {
        let mut builder = BatchBuilder::with_header_room(0);
        events.iter().for_each(|event| builder.push_event(event));
        messages.iter().for_each(|message| builder.push_message(message));
        let bytes = builder.finish(
            Term::new(5),
            state.next_seq(),
            LogTime::new(1_000_000),
            FeatureLevel::new(1),
        );
        let applied = state
            .apply_batch(at(index, 5), &BatchView::parse(bytes.freeze()).unwrap())
            .unwrap();
        assert!(matches!(applied, Applied::Accepted(_)));
    };
    let channel = ChannelIncarnation::new(1);
    next(
        2,
        &[
            Event::CreateChannel { name: name("a") },
            Event::CreateChannel { name: name("b") },
        ],
        &published_as(990),
    );
    next(
        3,
        &[Event::PauseChannel {
            channel: ChannelIncarnation::new(2),
        }],
        &published_as(992),
    );
    let requeue = Event::Requeue {
        channel,
        seq: Seq::new(8),
        attempts: Attempts::new(2),
        not_before: Some(LogTime::new(9)),
        cause: RequeueCause::Requeue,
    };
    next(
        4,
        &[
            Event::Finish {
                channel,
                ranges: vec![range(9, 10)],
            },
            requeue,
            Event::PauseTopic,
            Event::EndSession {
                last: SessionId {
                    node: NodeId::new(3),
                    incarnation: NodeIncarnation::new(8),
                },
            },
        ],
        &published_as(995),
    );
    state
}

#[test]
fn the_state_format_is_pinned() {
    let state = rich_state();
    let expected = concat!(
        "4e535174",
        "0100",
        "0600000000000000",
        "1000000000000000",
        "00",
        "010500000000000000",
        "40420f0000000000",
        // leader, applied, floor, paused_at, last incarnation, counters
        "01",
        "0100000000000000",
        "0200000000000000",
        "0500000000000000",
        "0a00000000000000",
        "01",
        "0400000000000000",
        "0500000000000000",
        "0000000000000000",
        "010d00000000000000",
        "0200000000000000",
        "0900000000000000",
        "2400000000000000",
        "0000000000000000",
        "02000000",
        // channel a
        "0100000000000000",
        "0161",
        "00",
        "0700000000000000",
        "0700000000000000",
        "0600000000000000",
        "0200000000000000",
        "0100000000000000",
        "0000000000000000",
        "0000000000000000",
        "01000000",
        "0000000000000000",
        "00",
        "0100",
        "09000a00",
        "01000000",
        "0800000000000000",
        "0200",
        "010900000000000000",
        "0d00000000000000",
        // channel b
        "0200000000000000",
        "0162",
        "01",
        "0700000000000000",
        "0700000000000000",
        "0600000000000000",
        "0000000000000000",
        "0000000000000000",
        "0000000000000000",
        "0000000000000000",
        "00000000",
        "00000000",
        // deferred 8 and 11, unreleased 14
        "02000000",
        "0800000000000000",
        "4071775900000000",
        "0b00000000000000",
        "4071775900000000",
        "01000000",
        "0e00000000000000",
        "dc050000",
        // index points, sessions
        "2c01000000000000",
        "01000000",
        "0700000000000000",
        "0200000000000000",
        "0500000000000000",
        "01000000",
        "0300000000000000",
        "0900000000000000",
        "df03000000000000",
        "01000000",
        "0000000000000000",
        "00",
        "0200",
        "e003e003",
        "e303e303",
        "01000000",
        "0300000000000000",
        "0800000000000000",
    );
    assert_eq!(hex(&state.encode()), expected);
    assert_eq!(TopicState::decode(&state.encode()).unwrap(), state);
    assert_eq!(
        state.digest().to_string(),
        "36f4d27726694acaae23be93c02d735e3ec2bbb187f69aa4a77409c895af9c7c"
    );
}

#[test]
fn a_new_state_round_trips() {
    for seq_base in [0, 1, 1 << 40] {
        let state = TopicState::new(Seq::new(seq_base));
        assert_eq!(TopicState::decode(&state.encode()).unwrap(), state);
    }
}

#[test]
fn equal_states_have_equal_digests_and_others_do_not() {
    let (one, mut other) = (rich_state(), rich_state());
    assert_eq!(one.digest(), other.digest());
    other.apply_other(at(5, 5)).unwrap();
    assert_ne!(one.digest(), other.digest());
}

#[test]
fn every_truncation_is_refused() {
    let batch = full_batch();
    for end in 0..batch.len() {
        assert!(BatchView::parse(batch.slice(..end)).is_err(), "batch cut at {end}");
    }
    let state = rich_state().encode();
    for end in 0..state.len() {
        assert!(TopicState::decode(&state[..end]).is_err(), "state cut at {end}");
    }
    let longer = |bytes: &[u8]| [bytes, &[0]].concat();
    assert!(BatchView::parse(Bytes::from(longer(&batch))).is_err());
    assert!(TopicState::decode(&longer(&state)).is_err());
}

#[test]
fn damaged_batches_never_panic() {
    let mut rng = StdRng::seed_from_u64(1);
    let batch = full_batch();
    let mut parsed = 0;
    let mut check = |bytes: Vec<u8>| {
        if let Ok(view) = BatchView::parse(Bytes::from(bytes)) {
            parsed += 1;
            walk(&view);
            let mut state = rich_state();
            let before = state.digest();
            if state.apply_batch(at(5, 5), &view).is_err() {
                assert_eq!(state.digest(), before, "an impossible batch changes nothing");
            }
        }
    };
    for i in 0..batch.len() {
        for bit in 0..8 {
            let mut bytes = batch.to_vec();
            bytes[i] ^= 1 << bit;
            check(bytes);
        }
    }
    for _ in 0..20_000 {
        let mut bytes = batch.to_vec();
        for _ in 0..rng.random_range(1..6) {
            let i = rng.random_range(0..bytes.len());
            bytes[i] = if rng.random() {
                rng.random()
            } else {
                [0, 1, 0x7f, 0xff][rng.random_range(0..4)]
            };
        }
        check(bytes);
    }
    for _ in 0..20_000 {
        let mut bytes = vec![0; rng.random_range(0..200)];
        rng.fill(&mut bytes[..]);
        check(bytes);
    }
    assert!(parsed > 1_000, "the mutations reach beyond the parser: {parsed}");
}

#[test]
fn damaged_states_never_panic_and_only_canonical_ones_decode() {
    let mut rng = StdRng::seed_from_u64(2);
    let encoded = rich_state().encode();
    let mut decoded = 0;
    let mut check = |bytes: Vec<u8>| {
        if let Ok(state) = TopicState::decode(&bytes) {
            decoded += 1;
            assert_eq!(state.encode(), bytes, "canonical");
            assert!(state.purge_floor() <= state.next_seq());
            let _ = (
                state.usage(),
                state.held_count(),
                state.index_point(state.purge_floor()),
            );
        }
    };
    for i in 0..encoded.len() {
        for bit in 0..8 {
            let mut bytes = encoded.clone();
            bytes[i] ^= 1 << bit;
            check(bytes);
        }
    }
    for _ in 0..20_000 {
        let mut bytes = encoded.clone();
        for _ in 0..rng.random_range(1..6) {
            let i = rng.random_range(0..bytes.len());
            bytes[i] = if rng.random() {
                rng.random()
            } else {
                [0, 1, 0x7f, 0xff][rng.random_range(0..4)]
            };
        }
        check(bytes);
    }
    assert!(decoded > 100, "some mutations are states too: {decoded}");
}

#[test]
fn unknown_versions_flags_and_kinds_are_refused() {
    let with = |offset: usize, value: u8| {
        let mut bytes = full_batch().to_vec();
        bytes[offset] = value;
        BatchView::parse(Bytes::from(bytes)).err()
    };
    assert_eq!(
        with(0, 2),
        Some(FormatError::Version {
            what: "batch",
            version: 2
        })
    );
    assert_eq!(with(4, 2), Some(FormatError::Value { what: "batch flags" }));
    assert_eq!(
        with(4, 1),
        Some(FormatError::Value {
            what: "messages in a batch that deletes the topic"
        })
    );
    assert_eq!(with(52, 1), Some(FormatError::Value { what: "batch reserve" }));
    assert_eq!(with(56, 99), Some(FormatError::EventKind(99)));
    assert_eq!(with(57, 1), Some(FormatError::Value { what: "event reserve" }));
    assert_eq!(with(64, b' '), Some(FormatError::Value { what: "channel name" }));
}

#[test]
fn unknown_extension_fields_are_skipped() {
    let mut bytes = build(
        &[],
        &[NewMessage {
            origin: Some(ORIGIN),
            ..NewMessage::new(Bytes::new(), LogTime::new(0))
        }],
    )
    .to_vec();
    let tag = 56 + 28 + 4;
    bytes[tag] = 200;
    let view = BatchView::parse(Bytes::from(bytes.clone())).unwrap();
    assert_eq!(view.message(0).unwrap().origin, None);

    // The same for an event: an unknown field of three bytes behind its content.
    let plain = build(&[Event::PauseTopic], &[]);
    let mut bytes = plain.to_vec();
    bytes[56 + 2] = 9;
    bytes[40] += 9;
    bytes.extend([200, 0, 3, 0, 0, 0, 1, 2, 3]);
    let view = BatchView::parse(Bytes::from(bytes)).unwrap();
    assert_eq!(view.events().collect::<Vec<_>>(), [Event::PauseTopic]);
}

#[test]
fn deleting_the_topic_is_flagged_and_stands_alone() {
    let view = BatchView::parse(build(&[Event::EmptyTopic, Event::DeleteTopic], &[])).unwrap();
    assert!(view.header().closes_topic);
    let mut unflagged = build(&[Event::DeleteTopic], &[]).to_vec();
    unflagged[4] = 0;
    assert_eq!(
        BatchView::parse(Bytes::from(unflagged)).err(),
        Some(FormatError::Value { what: "batch flags" })
    );
    let mut builder = BatchBuilder::with_header_room(0);
    builder.push_event(&Event::DeleteTopic);
    assert!(builder.closes_topic());
}

/// Found by fuzzing: the encoding is canonical and consistent, and what is counted stands at the end of its type.
#[test]
fn counts_that_no_topic_reaches_stop_nothing() {
    const LAST_INCARNATION_AT: usize = 107;
    let mut bytes = TopicState::new(Seq::new(0)).encode();
    // The last incarnation, messages, bytes and void batches stand together.
    bytes[LAST_INCARNATION_AT..LAST_INCARNATION_AT + 32].fill(0xff);
    let mut state = TopicState::decode(&bytes).unwrap();
    assert_eq!((state.message_count(), state.void_batches()), (u64::MAX, u64::MAX));
    let mut builder = BatchBuilder::with_header_room(0);
    builder.push_event(&Event::CreateChannel { name: name("one") });
    builder.push_message(&NewMessage::new(Bytes::from_static(b"body"), LogTime::new(1)));
    let payload = builder.finish(Term::new(1), Seq::new(1), LogTime::new(1), FeatureLevel::new(1));
    let batch = BatchView::parse(payload.freeze()).unwrap();
    for place in 1..=2 {
        let at = EntryPosition {
            index: LogIndex::new(place),
            term: Term::new(place),
            encoded_bytes: 100,
        };
        // The second one is void: it was made for the term before.
        let applied = state.apply_batch(at, &batch).unwrap();
        assert_eq!(matches!(applied, Applied::Accepted(_)), place == 1);
    }
    assert_eq!(
        (state.message_count(), state.message_bytes(), state.void_batches()),
        (u64::MAX, u64::MAX, u64::MAX)
    );
    assert_eq!(state.channels().count(), 0, "there is no incarnation left");
    assert_eq!(TopicState::decode(&state.encode()).as_ref(), Ok(&state));
}
