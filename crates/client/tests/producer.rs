//! Publishing: which bytes go out, and which answer comes back to whom.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

// Every test file uses its own part of it.
#[allow(dead_code)]
mod server;

use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use nsquorum_client::{ClientError, Heartbeat, IdentifyOptions, Outcome, Producer};
use nsquorum_protocol::TopicName;
use server::{Peer, Server, within};

async fn producer(options: IdentifyOptions) -> (Producer, Peer) {
    let (connection, peer) = Server::start().await.connect(options).await;
    (connection.into_producer(), peer)
}

fn topic() -> TopicName {
    "orders".parse().unwrap()
}

/// True if the future is not ready when polled once.
async fn is_pending<F: Future>(mut future: std::pin::Pin<&mut F>) -> bool {
    poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx).is_pending())).await
}

#[tokio::test]
async fn commands_have_nsqs_bytes() {
    let (producer, mut peer) = producer(IdentifyOptions::default()).await;
    let topic = topic();
    let publish = async {
        producer.publish(&topic, b"one").await.unwrap();
        producer.mpub(&topic, &["a", "bc"]).await.unwrap();
        producer.dpub(&topic, 1500, b"later").await.unwrap();
    };
    let serve = async {
        peer.expect(b"PUB orders\n\0\0\0\x03one").await;
        peer.response(b"OK").await;
        peer.expect(b"MPUB orders\n\0\0\0\x0f\0\0\0\x02\0\0\0\x01a\0\0\0\x02bc")
            .await;
        peer.response(b"OK").await;
        peer.expect(b"DPUB orders 1500\n\0\0\0\x05later").await;
        peer.response(b"OK").await;
    };
    within(async { tokio::join!(publish, serve) }).await;
}

#[tokio::test]
async fn what_nsq_has_no_form_for_is_not_sent() {
    let (producer, mut peer) = producer(IdentifyOptions::default()).await;
    let none: [&[u8]; 0] = [];
    for refused in [
        producer.publish(&topic(), b"").await,
        producer.dpub(&topic(), 1, b"").await,
        producer.mpub(&topic(), &none).await,
        producer.mpub(&topic(), &["a", ""]).await,
    ] {
        assert!(matches!(refused, Err(ClientError::Invalid(_))), "{refused:?}");
    }
    drop(producer);
    peer.expect_end().await;
}

#[tokio::test]
async fn answers_go_to_the_commands_in_order() {
    let (producer, mut peer) = producer(IdentifyOptions::default()).await;
    let mut acks = Vec::new();
    for body in ["1", "2", "3"] {
        acks.push(producer.publish_async(&topic(), body.as_bytes()).await.unwrap());
    }
    for body in ["1", "2", "3"] {
        peer.expect_publish("orders", body).await;
    }
    let mut acks = acks.into_iter();
    for _ in 0..2 {
        peer.response(b"OK").await;
        within(acks.next().unwrap()).await.unwrap();
    }
    let mut third = pin!(acks.next().unwrap());
    assert!(is_pending(third.as_mut()).await);
    peer.response(b"OK").await;
    within(third).await.unwrap();
}

#[tokio::test]
async fn an_error_belongs_to_the_oldest_command_and_ends_the_rest() {
    let (producer, mut peer) = producer(IdentifyOptions::default()).await;
    let mut acks = Vec::new();
    for body in ["1", "2", "3"] {
        acks.push(producer.publish_async(&topic(), body.as_bytes()).await.unwrap());
        peer.expect_publish("orders", body).await;
    }
    peer.response(b"OK").await;
    peer.error("E_PUB_FAILED PUB failed exiting").await;
    let mut answers = Vec::new();
    for ack in acks {
        answers.push(within(ack).await);
    }
    assert!(answers[0].is_ok());
    let failed = answers[1].as_ref().unwrap_err();
    assert!(matches!(failed, ClientError::Server(_)), "{failed:?}");
    assert_eq!(failed.to_string(), "E_PUB_FAILED PUB failed exiting");
    let behind = answers[2].as_ref().unwrap_err();
    assert!(matches!(behind, ClientError::EndedByServer(_)), "{behind:?}");
    assert_eq!(behind.outcome(), Outcome::Unknown);
    let late = producer.publish(&topic(), b"4").await.unwrap_err();
    assert_eq!(late.outcome(), Outcome::NotDone);
    assert!(late.to_string().contains("E_PUB_FAILED"), "{late}");
}

#[tokio::test]
async fn a_lost_connection_leaves_no_publish_without_an_answer() {
    let (producer, mut peer) = producer(IdentifyOptions::default()).await;
    let first = producer.publish_async(&topic(), b"1").await.unwrap();
    let second = producer.publish_async(&topic(), b"2").await.unwrap();
    peer.expect_publish("orders", "1").await;
    peer.expect_publish("orders", "2").await;
    drop(peer);
    for ack in [first, second] {
        let error = within(ack).await.unwrap_err();
        assert!(matches!(error, ClientError::ClosedByServer), "{error}");
        assert_eq!(error.outcome(), Outcome::Unknown);
    }
    assert!(producer.close().await.is_err());
}

#[tokio::test]
async fn heartbeats_are_answered_while_a_publish_waits() {
    let (producer, mut peer) = producer(IdentifyOptions::default()).await;
    let ack = producer.publish_async(&topic(), b"1").await.unwrap();
    peer.expect_publish("orders", "1").await;
    for _ in 0..3 {
        peer.response(b"_heartbeat_").await;
        peer.expect(b"NOP\n").await;
    }
    peer.response(b"OK").await;
    within(ack).await.unwrap();
}

#[tokio::test]
async fn a_silent_server_is_given_up() {
    let heartbeat = Heartbeat::Every(Duration::from_millis(10));
    let (producer, mut peer) = producer(IdentifyOptions {
        heartbeat,
        ..IdentifyOptions::default()
    })
    .await;
    let ack = producer.publish_async(&topic(), b"1").await.unwrap();
    peer.expect_publish("orders", "1").await;
    let error = within(ack).await.unwrap_err();
    assert!(matches!(error, ClientError::Silent(_)), "{error}");
    assert_eq!(error.outcome(), Outcome::Unknown);
}

/// Only silence of two whole intervals counts: heartbeats and the client's clock do not tick together.
#[tokio::test]
async fn a_server_whose_heartbeats_are_late_is_not_given_up() {
    const INTERVAL: Duration = Duration::from_secs(1);
    let (producer, mut peer) = producer(IdentifyOptions {
        heartbeat: Heartbeat::Every(INTERVAL),
        ..IdentifyOptions::default()
    })
    .await;
    let ack = producer.publish_async(&topic(), b"1").await.unwrap();
    peer.expect_publish("orders", "1").await;
    for _ in 0..3 {
        tokio::time::sleep(INTERVAL * 3 / 2).await;
        peer.response(b"_heartbeat_").await;
        peer.expect(b"NOP\n").await;
    }
    peer.response(b"OK").await;
    within(ack).await.unwrap();
}

#[tokio::test]
async fn commands_in_flight_are_bounded_in_number() {
    let options = IdentifyOptions {
        in_flight_max: 2,
        ..IdentifyOptions::default()
    };
    let (producer, mut peer) = producer(options).await;
    let topic = topic();
    let first = producer.publish_async(&topic, b"1").await.unwrap();
    let _second = producer.publish_async(&topic, b"2").await.unwrap();
    let mut third = pin!(producer.publish_async(&topic, b"3"));
    assert!(is_pending(third.as_mut()).await);
    peer.expect_publish("orders", "1").await;
    peer.expect_publish("orders", "2").await;
    peer.response(b"OK").await;
    let _ack = within(third).await.unwrap();
    within(first).await.unwrap();
    peer.expect_publish("orders", "3").await;
}

#[tokio::test]
async fn commands_in_flight_are_bounded_in_bytes_but_a_large_one_passes_alone() {
    let options = IdentifyOptions {
        in_flight_bytes_max: 1000,
        ..IdentifyOptions::default()
    };
    let (producer, mut peer) = producer(options).await;
    let topic = topic();
    let large = "x".repeat(5000);
    let first = producer.publish_async(&topic, large.as_bytes()).await.unwrap();
    let mut second = pin!(producer.publish_async(&topic, b"2"));
    assert!(is_pending(second.as_mut()).await);
    peer.expect_publish("orders", &large).await;
    peer.response(b"OK").await;
    let _ack = within(second).await.unwrap();
    within(first).await.unwrap();
    peer.expect_publish("orders", "2").await;
}

#[tokio::test]
async fn waiting_for_room_ends_with_the_connection() {
    let options = IdentifyOptions {
        in_flight_max: 1,
        ..IdentifyOptions::default()
    };
    let (producer, mut peer) = producer(options).await;
    let topic = topic();
    let _first = producer.publish_async(&topic, b"1").await.unwrap();
    let mut second = pin!(producer.publish_async(&topic, b"2"));
    assert!(is_pending(second.as_mut()).await);
    peer.error("E_BAD_MESSAGE PUB message too big 1 > 0").await;
    let error = within(second).await.unwrap_err();
    assert!(matches!(error, ClientError::NotSent(_)), "{error}");
}

#[tokio::test]
async fn an_answer_that_nobody_awaits_ends_the_connection() {
    let (producer, mut peer) = producer(IdentifyOptions::default()).await;
    peer.response(b"OK").await;
    peer.expect_end().await;
    let error = producer.publish(&topic(), b"1").await.unwrap_err();
    assert!(
        matches!(&error, ClientError::NotSent(cause) if matches!(**cause, ClientError::Protocol(_))),
        "{error}"
    );
}

#[tokio::test]
async fn the_last_drop_still_sends_and_awaits_what_was_taken() {
    let (producer, mut peer) = producer(IdentifyOptions::default()).await;
    let clone = producer.clone();
    let first = producer.publish_async(&topic(), b"1").await.unwrap();
    drop(producer);
    let second = clone.publish_async(&topic(), b"2").await.unwrap();
    drop(clone);
    peer.expect_publish("orders", "1").await;
    peer.expect_publish("orders", "2").await;
    peer.response(b"OK").await;
    within(first).await.unwrap();
    peer.response(b"OK").await;
    within(second).await.unwrap();
    peer.expect_end().await;
}

#[tokio::test]
async fn close_waits_for_the_answers_and_refuses_clones() {
    let (producer, mut peer) = producer(IdentifyOptions::default()).await;
    let clone = producer.clone();
    let ack = producer.publish_async(&topic(), b"1").await.unwrap();
    let mut close = pin!(producer.close());
    assert!(is_pending(close.as_mut()).await);
    let refused = clone.publish(&topic(), b"2").await.unwrap_err();
    assert_eq!(refused.outcome(), Outcome::NotDone);
    peer.expect_publish("orders", "1").await;
    peer.response(b"OK").await;
    within(ack).await.unwrap();
    peer.expect_end().await;
    drop(peer);
    within(close).await.unwrap();
}

#[test]
fn a_runtime_that_goes_away_answers_everything() {
    let runtime = || {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap()
    };
    let first = runtime();
    let (ack, producer, peer) = first.block_on(async {
        let (producer, mut peer) = producer(IdentifyOptions::default()).await;
        let ack = producer.publish_async(&topic(), b"1").await.unwrap();
        peer.expect_publish("orders", "1").await;
        (ack, producer, peer)
    });
    drop(first);
    runtime().block_on(async {
        assert!(within(ack).await.is_err());
        assert!(within(producer.publish(&topic(), b"2")).await.is_err());
    });
    drop(peer);
}
