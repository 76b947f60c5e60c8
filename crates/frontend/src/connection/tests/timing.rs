use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn with_heartbeats(interval_ms: i64) -> Script {
    let mut script = Script::open();
    script.send(&identify(&format!("{{\"heartbeat_interval\":{interval_ms}}}")));
    assert_eq!(script.take_frames(), [ok()]);
    script
}

#[test]
fn a_silent_client_gets_one_heartbeat_and_is_closed_without_a_word() {
    let mut script = with_heartbeats(1000);
    assert_eq!(script.machine.next_deadline(), Some(script.now + SECOND));
    script.advance(SECOND);
    assert_eq!(
        (script.take_frames(), script.machine.ended()),
        (vec![heartbeat()], None)
    );
    script.advance(SECOND - Duration::from_millis(1));
    assert_eq!(script.machine.ended(), None);
    script.advance(Duration::from_millis(1));
    assert_eq!(script.machine.ended(), Some(End::Close));
}

#[test]
fn any_command_gives_the_client_its_time_again() {
    let mut script = with_heartbeats(1000);
    for _ in 0..10 {
        script.advance(Duration::from_millis(1500));
        script.send(b"NOP\n");
        assert_eq!(script.machine.ended(), None);
    }
    assert_eq!(script.take_frames(), vec![heartbeat(); 10]);
}

#[test]
fn half_a_command_is_not_a_command() {
    let mut script = with_heartbeats(1000);
    script.advance(Duration::from_millis(1500));
    script.send(b"NO");
    script.advance(Duration::from_millis(500));
    assert_eq!(script.machine.ended(), Some(End::Close));
}

#[test]
fn heartbeats_go_on_while_a_publish_waits_and_the_client_is_not_blamed() {
    let mut script = with_heartbeats(1000);
    assert_eq!(script.send_publishes(&publish(b"a")), 1);
    for _ in 0..4 {
        script.advance(SECOND);
        assert_eq!(script.take_frames(), [heartbeat()]);
    }
    assert_eq!(script.machine.ended(), None);
    script.machine.published(Ok(()), script.now);
    assert_eq!(script.take_frames(), [ok()]);
    script.advance(Duration::from_millis(1999));
    assert_eq!(script.machine.ended(), None, "its time began when the answer went out");
    script.advance(Duration::from_millis(1));
    assert_eq!(script.machine.ended(), Some(End::Close));
}

#[test]
fn heartbeats_go_on_while_a_publish_waits_for_admission() {
    let mut script = with_heartbeats(1000);
    assert!(script.send(&publish(b"a")).is_some());
    for _ in 0..5 {
        script.advance(SECOND);
        assert_eq!(
            (script.take_frames(), script.machine.ended()),
            (vec![heartbeat()], None)
        );
    }
}

#[test]
fn only_the_first_identify_sets_the_heartbeats() {
    let mut script = with_heartbeats(1000);
    script.send(&identify("{\"heartbeat_interval\":5000}"));
    assert_eq!(script.take_frames(), [ok()]);
    script.advance(SECOND);
    assert_eq!(script.take_frames(), [heartbeat()]);
    script.advance(Duration::from_millis(8_999));
    assert_eq!(script.machine.ended(), None, "the deadline is the second one's");
    script.advance(Duration::from_millis(1));
    assert_eq!(script.machine.ended(), Some(End::Close));
}

#[test]
fn without_heartbeats_there_are_no_deadlines_and_no_sub() {
    let mut script = with_heartbeats(-1);
    assert_eq!(script.machine.next_deadline(), None);
    script.advance(Duration::from_secs(100_000));
    assert_eq!((script.take_frames(), script.machine.ended()), (vec![], None));
    script.send(b"SUB t c\n");
    script.assert_ends_with_error("E_INVALID cannot SUB with heartbeats disabled");
}

#[test]
fn a_client_that_takes_nothing_is_dropped_after_one_interval() {
    let mut script = with_heartbeats(1000);
    script.send(b"BOGUS\n");
    script.machine.write_stalled(script.now);
    script.advance(Duration::from_millis(999));
    assert_eq!(script.machine.ended(), None);
    script.advance(Duration::from_millis(1));
    assert_eq!(script.machine.ended(), Some(End::Close));
}

#[test]
fn progress_on_the_socket_gives_the_client_its_time_again() {
    let mut script = Script::open();
    script.send(&identify("{\"heartbeat_interval\":1000}"));
    for _ in 0..2 {
        script.machine.write_stalled(script.now);
        script.advance(Duration::from_millis(900));
        script.send(b"NOP\n");
        script.write(1);
    }
    assert_eq!(script.machine.ended(), None);
}

#[test]
fn a_connection_that_is_to_end_ends_even_if_nothing_is_answered_or_taken() {
    let mut script = with_heartbeats(-1);
    script.send(b"BOGUS\n");
    script.machine.write_stalled(script.now);
    script.advance(Duration::from_millis(9_999));
    assert_eq!(script.machine.ended(), None);
    script.advance(Duration::from_millis(1));
    assert_eq!(script.machine.ended(), Some(End::Close));
}

#[test]
fn a_heartbeat_has_nsqds_bytes() {
    let mut script = with_heartbeats(1000);
    script.advance(SECOND);
    script.write(usize::MAX);
    assert_eq!(&script.written[..], b"\0\0\0\x0f\0\0\0\0_heartbeat_");
}

#[test]
fn a_consumer_that_only_finishes_is_alive() {
    let mut script = Script::subscribed(1);
    for seq in 1..=10 {
        script.deliver(seq, b"x");
        script.take_frames();
        script.advance(45 * SECOND);
        script.send(format!("FIN {seq:016x}\n").as_bytes());
        script.take_frames();
        assert_eq!(script.machine.ended(), None, "after message {seq}");
    }
    script.advance(60 * SECOND);
    assert_eq!(script.machine.ended(), Some(End::Close));
}

#[test]
fn a_client_that_takes_its_time_before_identify_hears_nothing_before_the_answer() {
    let mut script = Script::open();
    script.advance(Duration::from_millis(29_999));
    assert_eq!(script.take_frames(), []);
    script.send(&identify("{\"heartbeat_interval\":1000}"));
    assert_eq!(script.take_frames(), [ok()]);
    script.advance(Duration::from_millis(999));
    assert_eq!(script.take_frames(), [], "the interval runs from IDENTIFY");
    script.advance(Duration::from_millis(1));
    assert_eq!(script.take_frames(), [heartbeat()]);
}
