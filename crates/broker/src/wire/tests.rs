//! Frames come back as they went in, and nothing that is not a frame makes the reader panic.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use nsquorum_environment::WallTime;
use nsquorum_protocol::{ChannelName, TopicName};
use nsquorum_topic::{Attempts, ChannelIncarnation, Event, LogTime, NewMessage, Seq, Term};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

use super::hostile::{again, frames};
use super::{
    Asked, Association, Claim, Framed, FromLeader, Header, Place, PublishFrame, Question, Reply, Subscriber, ToLeader,
    is_from_leader,
};
use crate::latency::{LatencyPercentile, LatencySummary, Quantile};
use crate::leases::{Delivery, DeliveryToken, LeaseEvent, LeaseOutcome};
use crate::nearness::{DeliveriesByNearness, Nearness};
use crate::node::AdminError;
use crate::publish::PublishError;
use crate::stats::{ChannelStats, ClientDescription, SubscriptionStats, TopicStats};
use crate::subscription::{SubscribeError, SubscriptionId, SubscriptionOptions};
use crate::topic_leader::{ChannelChange, Command};

const HEADER: Header = Header {
    term: Term::new(3),
    sync: 0x0102,
    counter: 7,
};
const SUBSCRIPTION: SubscriptionId = SubscriptionId(9);

fn token(seq: u64) -> DeliveryToken {
    DeliveryToken {
        channel: ChannelIncarnation::new(2),
        seq: Seq::new(seq),
        attempts: Attempts::new(3),
        term: Term::new(1),
        delivery: 77,
    }
}

fn name(text: &str) -> ChannelName {
    ChannelName::try_from(text).unwrap()
}

fn client() -> Arc<ClientDescription> {
    Arc::new(ClientDescription {
        client_id: "c".into(),
        hostname: "ü".into(),
        user_agent: String::new(),
        remote_address: "127.0.0.1:1".into(),
        connected_at: WallTime::from_nanos(5),
        sample_rate: 9,
        topology_zone: "z".into(),
        topology_region: "r".into(),
    })
}

fn subscriber(incarnation: Option<u64>) -> Subscriber {
    Subscriber {
        subscription: SUBSCRIPTION,
        channel: name("ledger"),
        incarnation: incarnation.map(ChannelIncarnation::new),
        ready: 2500,
        options: SubscriptionOptions {
            client: client(),
            msg_timeout: Duration::from_millis(60_001),
            nearness: incarnation.map(|_| Nearness::Region),
        },
    }
}

fn events() -> Vec<LeaseEvent> {
    [
        LeaseOutcome::Finished,
        LeaseOutcome::Requeued { delay_ms: 5 },
        LeaseOutcome::TimedOut,
        LeaseOutcome::Disconnected,
        LeaseOutcome::Returned,
    ]
    .into_iter()
    .zip(1..)
    .map(|(outcome, seq)| LeaseEvent {
        token: token(seq),
        outcome,
    })
    .collect()
}

fn message(body: Bytes) -> NewMessage {
    NewMessage {
        defer_ms: 4,
        ..NewMessage::new(body, LogTime::new(6))
    }
}

fn every_to_leader() -> Vec<ToLeader> {
    let big = Bytes::from(vec![7; 5_000]);
    let mut all = vec![
        ToLeader::Ask,
        ToLeader::Claim(Claim::default()),
        ToLeader::Claim(Claim {
            subscribers: vec![subscriber(None), subscriber(Some(4))],
            held: vec![(SUBSCRIPTION, token(5))],
            events: events(),
            last_event: 12,
        }),
        ToLeader::Publish(PublishFrame {
            number: 8,
            base: 6,
            only: None,
            messages: vec![
                message(Bytes::from_static(b"a")),
                message(big.clone()),
                message(Bytes::new()),
                message(Bytes::from_static(b"bc")),
            ],
        }),
        ToLeader::Publish(PublishFrame {
            number: 9,
            base: 6,
            only: Some(subscriber(None).channel),
            messages: vec![message(Bytes::from_static(b"a")), message(big)],
        }),
        ToLeader::Subscribe(subscriber(None)),
        ToLeader::Ready {
            subscription: SUBSCRIPTION,
            count: 1,
        },
        ToLeader::Unsubscribe {
            subscription: SUBSCRIPTION,
        },
        ToLeader::Events {
            last: 12,
            events: events(),
        },
    ];
    let changes = [
        ChannelChange::Delete,
        ChannelChange::Empty,
        ChannelChange::Pause,
        ChannelChange::Unpause,
    ]
    .map(|change| Asked::Command(Command::Channel(name("a"), change)));
    let topic = [
        Event::EmptyTopic,
        Event::PauseTopic,
        Event::UnpauseTopic,
        Event::DeleteTopic,
    ]
    .map(|event| Asked::Command(Command::Topic(event)));
    let others = [
        Asked::Channels,
        Asked::Stats(None),
        Asked::Stats(Some(name("b"))),
        Asked::IsInFlight {
            subscription: SUBSCRIPTION,
            seq: Seq::new(4),
        },
        Asked::Command(Command::CreateChannel(name("c"))),
    ];
    let asked = changes.into_iter().chain(topic).chain(others);
    all.extend(asked.map(|asked| ToLeader::Question(Question { number: 3, asked })));
    all
}

fn every_from_leader() -> Vec<FromLeader> {
    let stats = TopicStats {
        name: TopicName::try_from("invoices").unwrap(),
        is_leader: false,
        depth: 1,
        message_count: 2,
        message_bytes: 3,
        paused: true,
        channels: vec![ChannelStats {
            name: name("ledger"),
            depth: 4,
            in_flight_count: 5,
            deferred_count: 6,
            message_count: 7,
            requeue_count: 8,
            timeout_count: 9,
            deliveries: DeliveriesByNearness {
                zone: 17,
                region: 18,
                global: 19,
            },
            paused: false,
            consumer_count: 16,
            clients: vec![SubscriptionStats {
                id: SUBSCRIPTION,
                client: client(),
                ready_count: 10,
                in_flight_count: 11,
                message_count: 12,
                finish_count: 13,
                requeue_count: 14,
                nearness: Some(Nearness::Zone),
            }],
            latency: None,
        }],
        latency: Some(LatencySummary {
            count: 15,
            percentiles: vec![LatencyPercentile {
                quantile: Quantile::new(0.99).unwrap(),
                nanos: 1.5e6,
            }],
        }),
    };
    let results = [
        Ok(()),
        Err(PublishError::Exiting),
        Err(PublishError::DiskFull),
        Err(PublishError::TooManyDeferred),
        Err(PublishError::ChannelNotFound),
        Err(PublishError::TopicPaused),
        Err(PublishError::TimedOut),
        Err(PublishError::Quarantined),
        Err(PublishError::Stopping),
    ];
    let mut all = vec![
        FromLeader::Lead,
        FromLeader::EventsStored { last: 8 },
        FromLeader::Emptied {
            subscription: SUBSCRIPTION,
        },
        FromLeader::Ended {
            subscription: SUBSCRIPTION,
        },
    ];
    for body in [Bytes::new(), Bytes::from_static(b"hello"), Bytes::from(vec![1; 70_000])] {
        all.push(FromLeader::Deliver {
            subscription: SUBSCRIPTION,
            delivery: Delivery {
                token: token(4),
                published_at: LogTime::new(8),
                crc32c: 9,
                body,
            },
        });
    }
    all.extend(results.map(|result| FromLeader::Answer { number: 4, result }));
    let subscribed = [
        Ok(ChannelIncarnation::new(3)),
        Err(SubscribeError::Deleted),
        Err(SubscribeError::Unavailable("why".into())),
    ];
    all.extend(subscribed.map(|result| FromLeader::Subscribed {
        subscription: SUBSCRIPTION,
        result,
    }));
    let replies = [
        Reply::Command(Ok(())),
        Reply::Command(Err(AdminError::TopicNotFound)),
        Reply::Command(Err(AdminError::ChannelNotFound)),
        Reply::Command(Err(AdminError::Unavailable("why".into()))),
        Reply::Channels(vec![name("a"), name("b")]),
        Reply::Stats(stats),
        Reply::IsInFlight(true),
    ];
    all.extend(replies.map(|reply| FromLeader::Reply { number: 5, reply }));
    all
}

fn bytes_of(frame: &nsquorum_links::Frame) -> Bytes {
    frame.slice(0, usize::MAX)
}

fn encoded() -> Vec<Bytes> {
    let to = every_to_leader().into_iter().map(|content| {
        let framed = Framed {
            header: HEADER,
            content,
        };
        bytes_of(&framed.encode())
    });
    let from = every_from_leader().into_iter().map(|content| {
        let framed = Framed {
            header: HEADER,
            content,
        };
        bytes_of(&framed.encode())
    });
    to.chain(from).collect()
}

#[test]
fn every_frame_comes_back_as_it_went_in() {
    for content in every_to_leader() {
        let text = format!("{content:?}");
        let framed = Framed {
            header: HEADER,
            content,
        };
        let bytes = bytes_of(&framed.encode());
        assert!(!is_from_leader(&bytes));
        let back = Framed::<ToLeader>::parse(bytes).unwrap();
        assert_eq!(back.header, HEADER);
        assert_eq!(format!("{:?}", back.content), text);
    }
    for content in every_from_leader() {
        let text = format!("{content:?}");
        let framed = Framed {
            header: HEADER,
            content,
        };
        let bytes = bytes_of(&framed.encode());
        assert!(is_from_leader(&bytes));
        let back = Framed::<FromLeader>::parse(bytes).unwrap();
        assert_eq!(back.header, HEADER);
        assert_eq!(format!("{:?}", back.content), text);
    }
}

#[test]
fn bodies_are_slices_of_the_frame_and_keep_their_crc() {
    let body = Bytes::from(vec![5; 100_000]);
    let publish = Framed {
        header: HEADER,
        content: ToLeader::Publish(PublishFrame {
            number: 1,
            base: 1,
            only: None,
            messages: vec![message(body.clone())],
        }),
    };
    let frame = publish.encode();
    assert!(
        frame.pieces().iter().any(|piece| piece.as_ptr() == body.as_ptr()),
        "a large body is sent from where it lies"
    );
    let bytes = bytes_of(&frame);
    let range = bytes.as_ptr_range();
    let ToLeader::Publish(back) = Framed::<ToLeader>::parse(bytes).unwrap().content else {
        panic!("a publish");
    };
    assert!(range.contains(&back.messages[0].body.as_ptr()), "no copy");
    assert_eq!(back.messages[0].crc32c, crc32_of(&body));
}

fn crc32_of(body: &Bytes) -> u32 {
    NewMessage::new(body.clone(), LogTime::new(0)).crc32c
}

#[test]
fn the_header_is_pinned() {
    let ask = Framed {
        header: HEADER,
        content: ToLeader::Ask,
    };
    let expected: Vec<u8> = [1, 0, 0, 0]
        .into_iter()
        .chain([3, 0, 0, 0, 0, 0, 0, 0])
        .chain([2, 1, 0, 0, 0, 0, 0, 0])
        .chain([7, 0, 0, 0, 0, 0, 0, 0])
        .collect();
    assert_eq!(bytes_of(&ask.encode()), expected);
}

#[test]
fn cut_and_longer_frames_are_refused() {
    for frame in encoded() {
        for end in 0..frame.len().min(600) {
            assert_eq!(again(frame.slice(..end)), None, "cut at {end} of {}", frame.len());
        }
        assert_eq!(again(Bytes::from([&frame[..], &[0]].concat())), None);
    }
}

#[test]
fn damaged_frames_never_panic_and_what_is_read_was_meant() {
    let seed = std::env::var("NSQUORUM_SEED").map_or(1, |seed| seed.parse().unwrap());
    let mut rng = StdRng::seed_from_u64(seed);
    let (mut read, mut refused) = (0, 0);
    for frame in encoded().into_iter().filter(|frame| frame.len() < 10_000) {
        for _ in 0..400 {
            let mut bytes = frame.to_vec();
            for _ in 0..rng.random_range(1..4) {
                let at = rng.random_range(0..bytes.len());
                bytes[at] = rng.random();
            }
            let bytes = Bytes::from(bytes);
            // Whatever is accepted has one meaning only: it encodes to the same bytes.
            match again(bytes.clone()) {
                Some(encoded) => {
                    assert_eq!(encoded, bytes);
                    read += 1;
                }
                None => refused += 1,
            }
        }
    }
    assert!(read > 1_000 && refused > 1_000, "{read} read, {refused} refused");
}

#[test]
fn what_the_fuzzer_found_is_read_or_refused() {
    let found = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../../fuzz/corpus/broker_frames")).unwrap();
    let inputs: Vec<_> = found.map(|file| std::fs::read(file.unwrap().path()).unwrap()).collect();
    assert!(inputs.len() > 20, "the corpus is missing");
    inputs.iter().for_each(|bytes| frames(bytes));
}

#[test]
fn an_association_takes_frames_in_their_order_and_no_other() {
    let lead = Header { counter: 0, ..HEADER };
    let mut router = Association::join(lead);
    let at = |counter| Header { counter, ..HEADER };
    let control = nsquorum_links::Class::Control;
    let bulk = nsquorum_links::Class::Bulk;
    assert_eq!(router.receive(at(0), bulk), Place::Next);
    assert_eq!(router.receive(at(1), control), Place::Next);
    assert_eq!(router.receive(at(1), control), Place::Foreign, "a repetition");
    assert_eq!(router.receive(at(3), control), Place::Gap);
    let other = Header { sync: 9, ..at(2) };
    assert_eq!(router.receive(other, control), Place::Foreign);
    let mut leader = Association::open(HEADER.term, HEADER.sync);
    assert_eq!(leader.send(control), at(0));
    assert_eq!(leader.send(control), at(1));
    assert_eq!(leader.send(bulk), at(0));
}
