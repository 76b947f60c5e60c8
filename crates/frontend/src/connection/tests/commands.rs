use super::super::machine::End;
use super::*;

#[test]
fn a_wrong_magic_is_answered_and_ends_the_connection() {
    for bytes in [&b"  V1"[..], b"GET /ping HTTP/1.1\r\n\r\n"] {
        let mut script = Script::new();
        assert_eq!(script.send(bytes), None);
        script.assert_ends_with_error("E_BAD_PROTOCOL");
    }
}

#[test]
fn an_end_within_the_magic_is_silent() {
    let mut script = Script::new();
    script.send(b"  V");
    assert_eq!(script.machine.ended(), None);
    script.end_input();
    assert_eq!(script.take_frames(), []);
    assert_eq!(script.machine.ended(), Some(End::Close));
}

#[test]
fn before_the_magic_there_are_no_deadlines() {
    let mut script = Script::new();
    assert_eq!(script.machine.next_deadline(), None);
    script.advance(Duration::from_secs(3600));
    assert_eq!((script.take_frames(), script.machine.ended()), (vec![], None));
    script.send(MAGIC_V2);
    assert_eq!(
        script.machine.next_deadline(),
        Some(script.now + Duration::from_secs(30))
    );
}

#[test]
fn everything_at_once_is_the_same_as_byte_by_byte() {
    let mut bytes = BytesMut::from(&MAGIC_V2[..]);
    bytes.extend_from_slice(&identify("{\"client_id\":\"x\",\"feature_negotiation\":true}"));
    bytes.extend_from_slice(b"NOP\nSUB t c\n");
    let run = |step: usize| {
        let mut script = Script::new();
        let mut requests = Vec::new();
        for piece in bytes.chunks(step) {
            requests.extend(script.send(piece));
        }
        (requests, script.take_frames())
    };
    let whole = run(bytes.len());
    assert_eq!(whole.0.len(), 1);
    assert_eq!(whole.1.len(), 1);
    for step in [1, 2, 3, 7] {
        assert_eq!(run(step), whole, "step {step}");
    }
}

#[test]
fn identify_changes_who_the_client_is() {
    let mut script = Script::open();
    assert_eq!(script.record.view().client.client_id, "10.0.0.1");
    let json =
        "{\"client_id\":\"id\",\"hostname\":\"h\",\"user_agent\":\"a\",\"sample_rate\":7,\"topology_zone\":\"z\"}";
    script.send(&identify(json));
    assert_eq!(script.take_frames(), [ok()]);
    let client = script.record.view().client;
    let seen = (
        &*client.client_id,
        &*client.hostname,
        &*client.user_agent,
        client.sample_rate,
        &*client.topology_zone,
    );
    assert_eq!(seen, ("id", "h", "a", 7, "z"));
}

#[test]
fn identify_errors_end_the_connection() {
    let mut script = Script::open();
    script.send(&identify("{\"heartbeat_interval\":999}"));
    script.assert_ends_with_error("E_BAD_BODY IDENTIFY heartbeat interval (999) is invalid");
}

#[test]
fn auth_is_disabled() {
    let mut script = Script::open();
    let mut bytes = BytesMut::new();
    encode::auth(&mut bytes, b"secret");
    script.send(&bytes);
    script.assert_ends_with_error("E_AUTH_DISABLED AUTH disabled");
}

#[test]
fn sub_waits_for_the_broker_and_what_follows_waits_for_sub() {
    let mut script = Script::open();
    let request = script.send(b"SUB t c\nRDY 5\n").expect("a request");
    let expected = Request::Subscribe {
        topic: topic(),
        channel: channel(),
        msg_timeout: Duration::from_secs(60),
    };
    assert_eq!(request, expected);
    assert_eq!(script.next(), None);
    assert!(!script.machine.wants_input());
    assert_eq!(script.take_frames(), []);

    script.machine.subscribed(Ok::<(), String>(()), script.now);
    assert_eq!(script.next(), None);
    assert_eq!(script.take_frames(), [ok()]);
    assert_eq!(script.machine.take_to_leader().ready, Some(5));
    assert_eq!(script.record.view().state.number(), 3);

    script.send(b"SUB t c\n");
    script.assert_ends_with_error("E_INVALID cannot SUB in current state");
}

#[test]
fn a_refused_sub_ends_the_connection_and_the_pipelined_rdy_is_dropped() {
    let mut script = Script::open();
    script.send(b"SUB t c\nRDY 5\n");
    script.machine.subscribed(Err("to deleted topic/channel"), script.now);
    assert_eq!(script.next(), None);
    script.assert_ends_with_error("E_SUB_FAILED SUB failed to deleted topic/channel");
}

#[test]
fn a_sub_without_a_result_fails_in_time() {
    let mut script = Script::open();
    script.send(b"SUB t c\n");
    script.advance(Duration::from_millis(4_999));
    assert!(script.machine.is_subscribing());
    script.advance(Duration::from_millis(1));
    assert!(!script.machine.is_subscribing());
    script.assert_ends_with_error("E_SUB_FAILED SUB failed timed out");
}

#[test]
fn sub_uses_the_first_identifys_message_timeout() {
    let mut script = Script::open();
    script.send(&identify("{\"msg_timeout\":2000}"));
    script.send(&identify("{\"msg_timeout\":9000}"));
    let request = script.send(b"SUB t c\n");
    let expected = Duration::from_secs(2);
    assert!(
        matches!(request, Some(Request::Subscribe { msg_timeout, .. }) if msg_timeout == expected),
        "{request:?}"
    );
}

#[test]
fn a_line_that_is_too_long_ends_the_connection_without_a_word() {
    let mut script = Script::open();
    script.send(&vec![b'x'; 17 * 1024]);
    assert_eq!(script.take_frames(), []);
    assert_eq!(script.machine.ended(), Some(End::Linger));
}

#[test]
fn an_end_within_a_body_is_answered_an_end_between_commands_is_not() {
    let mut script = Script::open();
    script.send(b"PUB t\n\0\0\0\x05ab");
    script.end_input();
    script.assert_ends_with_error("E_BAD_MESSAGE PUB failed to read message body");

    let mut script = Script::open();
    script.send(b"NOP\n");
    script.end_input();
    assert_eq!(
        (script.take_frames(), script.machine.ended()),
        (vec![], Some(End::Close))
    );
}
