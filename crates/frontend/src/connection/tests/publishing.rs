use nsquorum_broker::PublishError;
use nsquorum_topic::NewMessage;

use super::super::machine::Awaited;
use super::*;

fn taken(request: Option<Request>) -> Vec<NewMessage> {
    match request {
        Some(Request::Publish(publish)) => publish.messages,
        other => panic!("not a publish: {other:?}"),
    }
}

#[test]
fn a_message_gets_its_checksum_and_time_where_it_enters() {
    let mut script = Script::open();
    let messages = taken(script.send(&publish(b"hello")));
    let expected = NewMessage {
        body: Bytes::from_static(b"hello"),
        crc32c: crc32c::crc32c(b"hello"),
        defer_ms: 0,
        published_at: LogTime::new(WALL.as_nanos()),
        origin: None,
    };
    assert_eq!(messages, [expected]);
}

#[test]
fn dpub_and_mpub_carry_delay_and_order() {
    let mut script = Script::open();
    let mut bytes = BytesMut::new();
    encode::dpub(&mut bytes, &topic(), 1500, b"later");
    encode::mpub(&mut bytes, &topic(), &[b"one", b"two"]);
    assert_eq!(taken(script.send(&bytes))[0].defer_ms, 1500);
    script.machine.submitted(script.now);
    let many = taken(script.next());
    assert_eq!(many.iter().map(|m| &m.body[..]).collect::<Vec<_>>(), [b"one", b"two"]);
    assert!(many.iter().all(|m| m.defer_ms == 0));
}

#[test]
fn publishes_are_pipelined_and_answered_in_order() {
    let mut script = Script::open();
    let pair = [publish(b"a"), publish(b"b")].concat();
    assert_eq!(script.send_publishes(&pair), 2);
    assert_eq!(script.take_frames(), []);
    assert_eq!(script.machine.awaited(), Awaited::Publish);
    script.machine.published(Ok(()), script.now);
    assert_eq!(script.take_frames(), [ok()]);
    script.machine.published(Ok(()), script.now);
    assert_eq!(script.take_frames(), [ok()]);
    assert_eq!(script.machine.awaited(), Awaited::Nothing);
    assert_eq!(script.record.view().published[&topic()], 2);
}

#[test]
fn an_error_waits_for_the_answers_before_it() {
    let mut script = Script::open();
    let bytes = [&publish(b"a")[..], b"BOGUS\n", &publish(b"b")[..]].concat();
    assert_eq!(script.send_publishes(&bytes), 1);
    assert_eq!(script.take_frames(), []);
    assert_eq!(script.machine.ended(), None);
    script.machine.published(Ok(()), script.now);
    assert_eq!(script.take_frames(), [ok(), error("E_INVALID invalid command BOGUS")]);
    assert_eq!(script.machine.ended(), Some(End::Linger));
    assert_eq!(script.next(), None, "nothing after the error is executed");
}

#[test]
fn a_failed_publish_ends_the_connection_and_no_later_one_is_answered() {
    let mut script = Script::open();
    let mut bytes = publish(b"a");
    encode::mpub(&mut bytes, &topic(), &[b"b"]);
    encode::publish(&mut bytes, &topic(), b"c");
    assert_eq!(script.send_publishes(&bytes), 3);
    script.machine.published(Ok(()), script.now);
    script.machine.published(Err(PublishError::DiskFull), script.now);
    assert_eq!(script.machine.awaited(), Awaited::Nothing);
    let text = "E_MPUB_FAILED MPUB failed disk space is below the watermark";
    assert_eq!(script.take_frames(), [ok(), error(text)]);
    assert_eq!(script.machine.ended(), Some(End::Linger));
    assert_eq!(
        script.record.view().published[&topic()],
        1,
        "only what was answered OK is counted"
    );
}

#[test]
fn every_kind_of_publish_has_its_own_failure() {
    let mut mpub = BytesMut::new();
    encode::mpub(&mut mpub, &topic(), &[b"x"]);
    let mut dpub = BytesMut::new();
    encode::dpub(&mut dpub, &topic(), 5, b"x");
    for (bytes, text) in [
        (publish(b"x"), "E_PUB_FAILED PUB failed exiting"),
        (mpub, "E_MPUB_FAILED MPUB failed exiting"),
        (dpub, "E_DPUB_FAILED DPUB failed exiting"),
    ] {
        let mut script = Script::open();
        assert_eq!(script.send_publishes(&bytes), 1);
        script.machine.published(Err(PublishError::Exiting), script.now);
        script.assert_ends_with_error(text);
    }
}

#[test]
fn a_publish_without_an_answer_times_out_but_not_while_it_waits_for_admission() {
    let mut script = Script::open();
    assert!(script.send(&publish(b"a")).is_some());
    script.advance(Duration::from_secs(20));
    assert_eq!((script.take_frames(), script.machine.ended()), (vec![], None));
    script.machine.submitted(script.now);
    let deadline = script.now + Duration::from_secs(5);
    assert_eq!(script.machine.next_deadline(), Some(deadline));
    script.advance(Duration::from_millis(4_999));
    assert_eq!(script.machine.awaited(), Awaited::Publish);
    script.advance(Duration::from_millis(1));
    assert_eq!(script.machine.awaited(), Awaited::Nothing);
    script.assert_ends_with_error("E_PUB_FAILED PUB failed timed out waiting for the replicas");
}

#[test]
fn nothing_is_executed_while_a_publish_waits_for_admission() {
    let mut script = Script::open();
    let pair = [publish(b"a"), publish(b"b")].concat();
    assert!(script.send(&pair).is_some());
    assert_eq!(script.next(), None);
    assert!(!script.machine.wants_input());
    script.machine.submitted(script.now);
    assert!(script.next().is_some());
}

#[test]
fn read_ahead_is_bounded_by_bytes() {
    let mut script = Script::open();
    let body = vec![b'x'; 1 << 20];
    let mut sent = 0;
    while script.machine.wants_input() {
        assert_eq!(script.send_publishes(&publish(&body)), 1);
        sent += 1;
        assert!(sent <= 11, "10 MiB is the bound at the default max-body-size of 5 MiB");
    }
    assert!(sent >= 10);
    script.machine.published(Ok(()), script.now);
    assert!(script.machine.wants_input());
}

#[test]
fn a_half_closed_client_gets_every_answer() {
    let mut script = Script::open();
    let pair = [publish(b"a"), publish(b"b")].concat();
    assert_eq!(script.send_publishes(&pair), 2);
    assert_eq!(script.end_input(), None);
    assert_eq!(script.machine.ended(), None);
    script.machine.published(Ok(()), script.now);
    script.machine.published(Ok(()), script.now);
    assert_eq!(script.machine.ended(), None, "the answers are not written yet");
    assert_eq!(script.take_frames(), [ok(), ok()]);
    assert_eq!(script.machine.ended(), Some(End::Close));
}

#[test]
fn a_stopping_node_answers_what_is_under_way_and_reads_no_more() {
    let mut script = Script::open();
    assert_eq!(script.send_publishes(&publish(b"a")), 1);
    script.machine.finish(End::Close, script.now);
    assert_eq!(script.send(&publish(b"b")), None);
    assert_eq!(script.machine.ended(), None);
    script.machine.published(Ok(()), script.now);
    assert_eq!(script.take_frames(), [ok()]);
    assert_eq!(script.machine.ended(), Some(End::Close));
}

#[test]
fn identify_after_publishes_is_answered_after_them() {
    let mut script = Script::open();
    let bytes = [publish(b"a"), identify("{}"), publish(b"b")].concat();
    assert_eq!(script.send_publishes(&bytes), 1);
    script.machine.published(Ok(()), script.now);
    assert!(
        script.next().is_some(),
        "IDENTIFY is executed and the next publish requested"
    );
    assert_eq!(script.take_frames(), [ok(), ok()]);
}

const TIMED_OUT: &str = "E_PUB_FAILED PUB failed timed out waiting for the replicas";

/// A connection whose publish has failed for the second time, and who is to be told 2.5 s later.
fn failed_again() -> Script {
    let mut first = Script::open();
    assert_eq!(first.send_publishes(&publish(b"a")), 1);
    first.advance(Duration::from_secs(5));
    first.assert_ends_with_error(TIMED_OUT);
    let mut again = first.reconnect();
    assert_eq!(again.send_publishes(&publish(b"a")), 1);
    again.advance(Duration::from_secs(5));
    again
}

#[test]
fn a_failure_that_repeats_over_connections_is_told_later() {
    let mut script = failed_again();
    assert_eq!((script.take_frames(), script.machine.ended()), (vec![], None));
    assert_eq!(script.machine.awaited(), Awaited::Nothing);
    assert_eq!(
        script.machine.next_deadline(),
        Some(script.now + Duration::from_millis(2_500))
    );
    script.advance(Duration::from_millis(2_499));
    assert_eq!(script.machine.ended(), None);
    script.advance(Duration::from_millis(1));
    script.assert_ends_with_error(TIMED_OUT);
}

#[test]
fn nothing_is_published_behind_a_failure_that_is_held_back() {
    let mut script = failed_again();
    assert_eq!(script.send(&publish(b"b")), None);
    assert!(!script.machine.wants_input());
    script.advance(Duration::from_millis(2_500));
    script.assert_ends_with_error(TIMED_OUT);
    assert_eq!(script.next(), None);
}

#[test]
fn heartbeats_and_consumers_live_on_while_a_failure_is_held_back() {
    let mut script = Script::open();
    script.send(&identify("{\"heartbeat_interval\":1000}"));
    assert_eq!(script.take_frames(), [ok()]);
    script.subscribe();
    script.send(b"RDY 1\n");
    script.machine.take_to_leader();
    assert_eq!(script.send_publishes(&publish(b"a")), 1);
    // The topic has failed for four seconds at other connections.
    let since = script.now - Duration::from_secs(4);
    script.now = script.now + Duration::from_secs(4);
    script.outages.failed(&topic(), PublishError::TimedOut, since);
    script.machine.published(Err(PublishError::TimedOut), script.now);
    script.deliver(1, b"m");
    script.advance(Duration::from_secs(1));
    assert_eq!(script.take_frames().len(), 2, "the message and a heartbeat");
    script.send(b"FIN 0000000000000001\n");
    assert_eq!(script.machine.take_to_leader().events.len(), 1);
}

#[test]
fn a_stopping_node_holds_no_failure_back() {
    let mut script = failed_again();
    script.machine.finish(End::Close, script.now);
    script.advance(Duration::ZERO);
    script.assert_ends_with_error(TIMED_OUT);
}

#[test]
fn a_publish_that_is_stored_ends_the_delays() {
    let mut script = failed_again().reconnect();
    assert_eq!(script.send_publishes(&publish(b"a")), 1);
    script.machine.published(Ok(()), script.now);
    assert_eq!(script.take_frames(), [ok()]);
    assert_eq!(script.send_publishes(&publish(b"a")), 1);
    script.advance(Duration::from_secs(5));
    script.assert_ends_with_error(TIMED_OUT);
}
