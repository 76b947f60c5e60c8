//! Subscribing: deliveries, their commands, and the end of a subscription.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

// Every test file uses its own part of it.
#[allow(dead_code)]
mod server;

use nsquorum_client::{ClientError, Consumer, Event, IdentifyOptions, Message};
use nsquorum_protocol::MessageId;
use server::{Peer, Server, message, within};

async fn consumer(ready: u32, rdy_line: &[u8]) -> (Consumer, Peer) {
    let (connection, mut peer) = Server::start().await.connect(IdentifyOptions::default()).await;
    let (topic, channel) = ("orders".parse().unwrap(), "ledger".parse().unwrap());
    let serve = async {
        peer.expect(b"SUB orders ledger\n").await;
        peer.response(b"OK").await;
        peer.expect(rdy_line).await;
        peer
    };
    let (consumer, peer) = tokio::join!(connection.subscribe(&topic, &channel, ready), serve);
    (consumer.unwrap(), peer)
}

async fn next_message(consumer: &mut Consumer) -> Message {
    match within(consumer.next()).await.unwrap() {
        Some(Event::Message(message)) => message,
        other => panic!("not a message: {other:?}"),
    }
}

#[tokio::test]
async fn deliveries_carry_all_fields_and_commands_name_them() {
    let (mut consumer, mut peer) = consumer(10, b"RDY 10\n").await;
    peer.message(0xab, 3, b"body").await;
    let message = next_message(&mut consumer).await;
    assert_eq!(message.id, MessageId::from_seq(0xab));
    assert_eq!(
        (message.attempts, message.timestamp_ns, &message.body[..]),
        (3, 0x4ab + 0x3e8 - 0x400, &b"body"[..])
    );
    consumer.touch(message.id).unwrap();
    consumer.req(message.id, 250).unwrap();
    consumer.fin(message.id).unwrap();
    consumer.set_rdy(0).unwrap();
    peer.expect(b"TOUCH 00000000000000ab\nREQ 00000000000000ab 250\nFIN 00000000000000ab\nRDY 0\n")
        .await;
}

#[tokio::test]
async fn rdy_is_lowered_to_what_the_server_takes() {
    let (consumer, mut peer) = consumer(1_000_000, b"RDY 2500\n").await;
    consumer.set_rdy(2501).unwrap();
    peer.expect(b"RDY 2500\n").await;
}

#[tokio::test]
async fn a_refused_subscription_is_the_servers_error() {
    let (connection, mut peer) = Server::start().await.connect(IdentifyOptions::default()).await;
    let (topic, channel) = ("orders".parse().unwrap(), "ledger".parse().unwrap());
    let serve = async {
        peer.expect(b"SUB orders ledger\n").await;
        peer.error("E_SUB_FAILED SUB failed to deleted topic/channel").await;
    };
    let (refused, ()) = tokio::join!(connection.subscribe(&topic, &channel, 1), serve);
    assert!(matches!(refused.unwrap_err(), ClientError::Server(error) if error.code() == "E_SUB_FAILED"));
}

#[tokio::test]
async fn a_late_fin_is_reported_and_the_subscription_goes_on() {
    let (mut consumer, mut peer) = consumer(1, b"RDY 1\n").await;
    peer.error("E_FIN_FAILED FIN 0000000000000001 failed ID not in flight")
        .await;
    peer.message(2, 1, b"x").await;
    let Some(Event::Refused(error)) = within(consumer.next()).await.unwrap() else {
        panic!("no refusal")
    };
    assert_eq!(error.code(), "E_FIN_FAILED");
    assert_eq!(next_message(&mut consumer).await.id, MessageId::from_seq(2));
}

#[tokio::test]
async fn an_error_that_ends_the_connection_comes_after_the_messages() {
    let (mut consumer, mut peer) = consumer(1, b"RDY 1\n").await;
    peer.message(1, 1, b"x").await;
    peer.error("E_INVALID cannot SUB in current state").await;
    drop(peer);
    next_message(&mut consumer).await;
    let error = within(consumer.next()).await.unwrap_err();
    assert!(
        matches!(&error, ClientError::Server(error) if error.code() == "E_INVALID"),
        "{error:?}"
    );
}

#[tokio::test]
async fn a_closed_connection_comes_after_the_messages() {
    let (mut consumer, mut peer) = consumer(1, b"RDY 1\n").await;
    peer.message(1, 1, b"x").await;
    drop(peer);
    next_message(&mut consumer).await;
    assert!(matches!(
        within(consumer.next()).await,
        Err(ClientError::ClosedByServer)
    ));
    assert!(matches!(
        consumer.fin(MessageId::from_seq(1)),
        Err(ClientError::NotSent(_))
    ));
}

#[tokio::test]
async fn after_cls_come_the_rest_and_the_end_and_fins_still_count() {
    let (mut consumer, mut peer) = consumer(2, b"RDY 2\n").await;
    consumer.cls().unwrap();
    peer.expect(b"CLS\n").await;
    peer.message(1, 1, b"x").await;
    peer.response(b"CLOSE_WAIT").await;
    let message = next_message(&mut consumer).await;
    assert_eq!(within(consumer.next()).await.unwrap(), None);
    consumer.fin(message.id).unwrap();
    let serve = async {
        peer.expect(b"FIN 0000000000000001\n").await;
        peer.expect_end().await;
        drop(peer);
    };
    let (closed, ()) = tokio::join!(within(consumer.close()), serve);
    closed.unwrap();
}

#[tokio::test]
async fn heartbeats_are_answered_while_nobody_asks_for_messages() {
    let (_consumer, mut peer) = consumer(1, b"RDY 1\n").await;
    peer.message(1, 1, b"x").await;
    peer.response(b"_heartbeat_").await;
    peer.expect(b"NOP\n").await;
}

#[tokio::test]
async fn a_message_without_a_subscription_ends_the_connection() {
    let (connection, mut peer) = Server::start().await.connect(IdentifyOptions::default()).await;
    let producer = connection.into_producer();
    peer.message(1, 1, b"x").await;
    peer.expect_end().await;
    assert!(matches!(producer.close().await, Err(ClientError::Protocol(_))));
}

#[tokio::test]
async fn a_full_inbox_stops_reading_and_loses_nothing() {
    const MESSAGES: u64 = 60_000;
    let (mut consumer, mut peer) = consumer(2500, b"RDY 2500\n").await;
    // So many that they do not fit the inbox: the sender must wait for the consumer.
    let sender = tokio::spawn(async move {
        for number in 0..MESSAGES {
            peer.send(&message(number, 1, &[b'x'; 100])).await;
        }
        peer
    });
    let (mut events, mut expected) = (Vec::new(), 0);
    while expected < MESSAGES {
        assert!(within(consumer.next_many(&mut events)).await.unwrap());
        for event in events.drain(..) {
            let Event::Message(message) = event else {
                panic!("not a message: {event:?}")
            };
            assert_eq!(message.id, MessageId::from_seq(expected));
            expected += 1;
        }
        // Lets the inbox fill before it is emptied again.
        tokio::task::yield_now().await;
    }
    within(sender).await.unwrap();
}
