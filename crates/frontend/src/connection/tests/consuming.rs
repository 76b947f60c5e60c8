use nsquorum_broker::{LeaseOutcome, SubscriptionEvent};

use super::super::machine::{Awaited, OUTPUT_BYTES_MAX};
use super::*;
use crate::config::Corruption;

fn outcomes(script: &mut Script) -> Vec<(u64, LeaseOutcome)> {
    let events = script.machine.take_to_leader().events;
    events
        .iter()
        .map(|event| (event.token.seq.get(), event.outcome))
        .collect()
}

fn seqs(frames: &[Frame]) -> Vec<u64> {
    let id = |frame: &Frame| match frame {
        Frame::Message { id, .. } => id.to_seq().expect("an own id"),
        other => panic!("not a message: {other:?}"),
    };
    frames.iter().map(id).collect()
}

#[test]
fn a_delivery_becomes_a_message_frame() {
    let mut script = Script::subscribed(1);
    let event = SubscriptionEvent::Deliver(delivery(0x2a, 3, b"body"));
    script.machine.subscription_event(event).expect("intact");
    match &script.take_frames()[..] {
        [
            Frame::Message {
                timestamp_ns,
                attempts,
                id,
                body,
            },
        ] => {
            assert_eq!((*timestamp_ns, *attempts, &body[..]), (77, 3, &b"body"[..]));
            assert_eq!(id.to_string(), "000000000000002a");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn fin_req_and_touch_act_on_the_lease() {
    let mut script = Script::subscribed(3);
    for seq in [1, 2, 3] {
        script.deliver(seq, b"x");
    }
    assert_eq!(seqs(&script.take_frames()), [1, 2, 3]);
    script.send(b"FIN 0000000000000001\nREQ 0000000000000002 1500\nTOUCH 0000000000000003\n");
    assert_eq!(script.take_frames(), []);
    let expected = [
        (1, LeaseOutcome::Finished),
        (2, LeaseOutcome::Requeued { delay_ms: 1500 }),
    ];
    assert_eq!(outcomes(&mut script), expected);
}

#[test]
fn what_is_not_held_gets_one_of_two_texts_in_order() {
    let mut script = Script::subscribed(1);
    script.send(b"FIN 0000000000000001\nTOUCH 0000000000000002\nREQ zzzzzzzzzzzzzzzz 0\nNOP\n");
    assert_eq!(script.machine.awaited(), Awaited::InFlight(Seq::new(1)));
    assert_eq!(script.take_frames(), []);
    script.machine.answered_in_flight(true, script.now);
    assert_eq!(
        script.take_frames(),
        [error(
            "E_FIN_FAILED FIN 0000000000000001 failed client does not own message"
        )]
    );
    assert_eq!(script.machine.awaited(), Awaited::InFlight(Seq::new(2)));
    script.machine.answered_in_flight(false, script.now);
    let expected = [
        error("E_TOUCH_FAILED TOUCH 0000000000000002 failed ID not in flight"),
        error("E_REQ_FAILED REQ zzzzzzzzzzzzzzzz failed ID not in flight"),
    ];
    assert_eq!(script.take_frames(), expected);
    assert_eq!(script.machine.ended(), None, "these errors do not end the connection");
    assert!(script.machine.wants_input());
}

#[test]
fn a_lease_runs_out_at_its_time_counted_from_the_write() {
    let mut script = Script::subscribed(1);
    script.deliver(1, b"x");
    script.advance(Duration::from_secs(10));
    assert_eq!(outcomes(&mut script), []);
    script.take_frames();
    for _ in 0..5 {
        script.advance(Duration::from_millis(11_999));
        script.send(b"NOP\n");
    }
    assert_eq!(outcomes(&mut script), []);
    script.advance(Duration::from_millis(5));
    assert_eq!(outcomes(&mut script), [(1, LeaseOutcome::TimedOut)]);
}

#[test]
fn rdy_is_told_before_the_events_that_follow_it() {
    let mut script = Script::subscribed(1);
    script.deliver(1, b"x");
    script.take_frames();
    script.send(b"RDY 0\nFIN 0000000000000001\n");
    let to_leader = script.machine.take_to_leader();
    assert_eq!((to_leader.ready, to_leader.events.len()), (Some(0), 1));
}

#[test]
fn deliveries_beyond_a_lowered_rdy_go_back_after_a_moment() {
    let mut script = Script::subscribed(3);
    script.deliver(1, b"x");
    script.send(b"RDY 1\n");
    assert_eq!(seqs(&script.take_frames()), [1]);
    assert!(!script.machine.wants_deliveries());
    script.advance(Duration::from_millis(99));
    assert!(!script.machine.wants_deliveries(), "there may be room in a moment");
    let due = script.machine.next_deadline().expect("a moment ends");
    script.advance(due.since(script.now));
    assert!(script.machine.wants_deliveries());
    script.deliver(2, b"x");
    script.deliver(3, b"x");
    assert_eq!(script.take_frames(), []);
    let returned = LeaseOutcome::Returned;
    assert_eq!(outcomes(&mut script), [(2, returned), (3, returned)]);
    assert_eq!(script.record.view().state.number(), 3);
}

#[test]
fn what_rdy_was_lowered_for_on_its_way_is_not_overtaken() {
    let mut script = Script::subscribed(2);
    script.deliver(1, b"x");
    script.deliver(2, b"x");
    script.take_frames();
    // The leader hears of FIN 1 and FIN 2 before it hears of RDY, and sends 3 and 4.
    script.send(b"FIN 0000000000000001\nRDY 1\n");
    let on_their_way = [3, 4];
    let mut seen = Vec::new();
    for seq in on_their_way {
        while !script.machine.wants_deliveries() {
            let held: u64 = *seen.last().unwrap_or(&2);
            script.send(format!("FIN {held:016x}\n").as_bytes());
        }
        script.deliver(seq, b"x");
        seen.extend(seqs(&script.take_frames()));
    }
    assert_eq!(seen, on_their_way);
    assert!(
        outcomes(&mut script)
            .iter()
            .all(|(_, outcome)| *outcome == LeaseOutcome::Finished)
    );
}

#[test]
fn what_arrives_after_cls_goes_back_at_once() {
    let mut script = Script::subscribed(3);
    script.send(b"CLS\n");
    assert!(script.machine.wants_deliveries());
    script.deliver(3, b"x");
    assert_eq!(
        script.take_frames(),
        [Frame::Response(Bytes::from_static(frame::CLOSE_WAIT))]
    );
    assert_eq!(outcomes(&mut script), [(3, LeaseOutcome::Returned)]);
    assert_eq!(script.record.view().state.number(), 4);
}

#[test]
fn after_cls_messages_can_still_be_finished_and_rdy_is_ignored() {
    let mut script = Script::subscribed(1);
    script.deliver(1, b"x");
    script.take_frames();
    script.send(b"CLS\nRDY 5\nFIN 0000000000000001\n");
    let to_leader = script.machine.take_to_leader();
    assert_eq!((to_leader.ready, to_leader.events.len()), (Some(0), 1));
    assert_eq!(script.machine.ended(), None);
    script.take_frames();
    script.send(b"CLS\n");
    script.assert_ends_with_error("E_INVALID cannot CLS in current state");
}

#[test]
fn a_full_output_takes_no_deliveries_and_no_publishes_but_fins() {
    let big: &'static [u8] = Box::leak(vec![b'x'; 100 * 1024].into_boxed_slice());
    let mut script = Script::subscribed(10);
    let mut seq = 0;
    while script.machine.wants_deliveries() {
        seq += 1;
        script.deliver(seq, big);
    }
    assert_eq!(seq, 3);
    assert!(script.machine.output().waiting_bytes() > OUTPUT_BYTES_MAX);
    script.write(50 * 1024);
    script.deliver(4, big);
    let bytes = [b"FIN 0000000000000001\n", &publish(b"p")[..]].concat();
    assert_eq!(script.send(&bytes), None, "the publish is held");
    assert_eq!(outcomes(&mut script), [(1, LeaseOutcome::Finished)]);
    assert_eq!(seqs(&script.take_frames()), [1, 2, 3, 4]);
    assert!(script.next().is_some(), "and goes on when there is room");
}

#[test]
fn what_was_not_written_goes_back_without_an_attempt_and_the_rest_runs_out() {
    let mut script = Script::subscribed(3);
    for seq in [1, 2, 3] {
        script.deliver(seq, b"0123456789");
    }
    // The first message and one byte of the second.
    script.write(34 + 10 + 1);
    let (events, leases) = script.machine.end_consumer().expect("a consumer");
    let returned: Vec<_> = events
        .iter()
        .map(|event| (event.token.seq.get(), event.outcome))
        .collect();
    assert_eq!(returned, [(3, LeaseOutcome::Returned)]);
    let mut leases = leases;
    let lost = leases.expire(script.now + Duration::from_secs(60));
    assert_eq!(
        lost.iter().map(|event| event.token.seq.get()).collect::<Vec<_>>(),
        [1, 2]
    );
}

#[test]
fn an_emptied_channel_takes_written_and_unwritten() {
    let mut script = Script::subscribed(2);
    script.deliver(1, b"x");
    script.write(usize::MAX);
    script.deliver(2, b"x");
    script
        .machine
        .subscription_event(SubscriptionEvent::Emptied)
        .expect("nothing to check");
    assert_eq!(seqs(&script.take_frames()), [1, 2]);
    script.send(b"FIN 0000000000000001\nFIN 0000000000000002\n");
    assert_eq!(script.machine.awaited(), Awaited::InFlight(Seq::new(1)));
    assert_eq!(outcomes(&mut script), []);
    script.deliver(3, b"x");
    script.deliver(4, b"x");
    assert_eq!(outcomes(&mut script), [], "both have room again");
}

#[test]
fn a_damaged_body_is_never_written() {
    let mut script = Script::subscribed(2);
    let mut damaged = delivery(9, 1, b"body");
    damaged.crc32c ^= 1;
    let result = script.machine.subscription_event(SubscriptionEvent::Deliver(damaged));
    assert_eq!(
        result,
        Err(Corruption {
            topic: topic(),
            channel: channel(),
            seq: Seq::new(9)
        })
    );
    assert_eq!(script.take_frames(), []);
}

#[test]
fn a_sample_rate_drops_the_rest_for_good() {
    let mut script = Script::open();
    script.send(&identify("{\"sample_rate\":42}"));
    script.take_frames();
    script.subscribe();
    script.send(b"RDY 2500\n");
    script.machine.take_to_leader();
    let mut delivered = 0;
    for seq in 1..=2000 {
        script.deliver(seq, b"x");
        delivered += script.take_frames().len();
        if let [(of, outcome)] = outcomes(&mut script)[..] {
            assert_eq!((of, outcome), (seq, LeaseOutcome::Finished));
        }
    }
    assert!((760..=960).contains(&delivered), "{delivered} of 2000 at 43 percent");
}

#[test]
fn a_connection_may_publish_and_consume() {
    let mut script = Script::subscribed(1);
    assert_eq!(script.send_publishes(&publish(b"p")), 1);
    script.deliver(1, b"x");
    assert_eq!(seqs(&script.take_frames()), [1], "deliveries do not wait for answers");
    script.machine.published(Ok(()), script.now);
    assert_eq!(script.take_frames(), [ok()]);
}

#[test]
fn a_second_identify_does_not_change_the_sample_rate() {
    let mut script = Script::open();
    script.send(&identify("{}"));
    script.send(&identify("{\"sample_rate\":1}"));
    script.take_frames();
    script.subscribe();
    script.send(b"RDY 2500\n");
    script.machine.take_to_leader();
    for seq in 1..=200 {
        script.deliver(seq, b"x");
        assert_eq!(seqs(&script.take_frames()), [seq]);
    }
}

/// nsq_to_file finishes what it has written only when it has synced, by default every 30 s.
#[test]
fn all_that_may_be_in_flight_may_be_so_for_half_a_minute() {
    let mut script = Script::subscribed(2500);
    for seq in 1..=2500 {
        script.deliver(seq, b"x");
    }
    assert_eq!(script.take_frames().len(), 2500);
    for _ in 0..3 {
        script.advance(Duration::from_secs(10));
        script.send(b"NOP\n");
    }
    assert_eq!(outcomes(&mut script), []);
    for seq in 1..=2500_u64 {
        script.send(format!("FIN {seq:016x}\n").as_bytes());
    }
    let finished = outcomes(&mut script);
    assert_eq!(finished.len(), 2500);
    assert!(finished.iter().all(|(_, outcome)| *outcome == LeaseOutcome::Finished));
}
