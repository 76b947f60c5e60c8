use super::super::machine::Awaited;
use super::*;
use crate::auth::{AuthError, AuthMethod, AuthSettings, Grants};
use crate::tls::ClientTls;

fn open() -> Script {
    let auth = AuthSettings {
        addresses: vec!["nowhere:1".to_owned()],
        method: AuthMethod::Get,
        connect_timeout: Duration::from_secs(2),
        request_timeout: Duration::from_secs(5),
        tls: ClientTls::load(None, MinVersion::Tls12).expect("no file to miss"),
    };
    let mut script = Script::with(FrontendConfig {
        auth: Some(auth),
        ..config()
    });
    assert_eq!(script.send(MAGIC_V2), None);
    script
}

fn auth(secret: &[u8]) -> BytesMut {
    let mut bytes = BytesMut::new();
    encode::auth(&mut bytes, secret);
    bytes
}

fn grants(authorizations: &str) -> Grants {
    let json = format!(r#"{{"ttl":10,"identity":"me","identity_url":"http://me","authorizations":{authorizations}}}"#);
    Grants::parse(json.as_bytes()).expect("an answer")
}

const TOPIC_T: &str = r#"[{"topic":"^t$","channels":[".*"],"permissions":["subscribe","publish"]}]"#;

fn question(secret: &'static [u8]) -> Option<Request> {
    let secret = Bytes::from_static(secret);
    Some(Request::Authenticate { secret })
}

fn known() -> Script {
    let mut script = open();
    assert_eq!(script.send(&auth(b"s")), question(b"s"));
    script.machine.authenticated(Ok(grants(TOPIC_T)), script.now);
    script.take_frames();
    script
}

#[test]
fn identify_says_that_auth_is_required() {
    let mut script = open();
    script.send(&identify(r#"{"feature_negotiation":true}"#));
    match &script.take_frames()[..] {
        [Frame::Response(json)] => {
            assert!(String::from_utf8_lossy(json).contains(r#""auth_required":true"#));
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn auth_waits_for_the_server_and_what_follows_waits_for_auth() {
    let mut script = open();
    let mut bytes = auth(b"secret");
    bytes.extend_from_slice(&publish(b"x"));
    assert_eq!(script.send(&bytes), question(b"secret"));
    assert_eq!((script.next(), script.machine.wants_input()), (None, false));
    assert_eq!(script.take_frames(), []);
    script.machine.authenticated(Ok(grants(TOPIC_T)), script.now);
    let json = r#"{"identity":"me","identity_url":"http://me","permission_count":1}"#;
    assert_eq!(
        script.take_frames(),
        [Frame::Response(Bytes::from_static(json.as_bytes()))]
    );
    assert!(matches!(script.next(), Some(Request::Publish(_))));
    let identity = script.record.view().identity.expect("known");
    assert_eq!((&*identity.name, &*identity.url), ("me", "http://me"));
}

#[test]
fn without_auth_nothing_is_published_or_subscribed_and_the_rest_is_allowed() {
    let mpub = b"MPUB t\n\0\0\0\x09\0\0\0\x01\0\0\0\x01x";
    let dpub = b"DPUB t 0\n\0\0\0\x01x";
    for (bytes, verb) in [
        (&publish(b"x")[..], "PUB"),
        (mpub, "MPUB"),
        (dpub, "DPUB"),
        (b"SUB t c\n", "SUB"),
    ] {
        let mut script = open();
        assert_eq!(script.send(b"NOP\n"), None);
        assert_eq!(script.send(bytes), None);
        script.assert_ends_with_error(&format!("E_AUTH_FIRST AUTH required before {verb}"));
    }
}

#[test]
fn what_is_not_granted_is_refused() {
    for (bytes, rest) in [
        (&b"PUB u\n\0\0\0\x01x"[..], r#"PUB on "u" """#),
        (b"DPUB u 5\n\0\0\0\x01x", r#"DPUB on "u" """#),
        (b"MPUB u\n\0\0\0\x09\0\0\0\x01\0\0\0\x01x", r#"MPUB on "u" """#),
        (b"SUB u c\n", r#"SUB on "u" "c""#),
    ] {
        let mut script = known();
        assert_eq!(script.send(bytes), None);
        script.assert_ends_with_error(&format!("E_UNAUTHORIZED AUTH failed for {rest}"));
    }
    assert!(matches!(known().send(b"SUB t c\n"), Some(Request::Subscribe { .. })));
}

#[test]
fn a_refusal_keeps_its_place_among_the_answers() {
    let mut script = known();
    assert_eq!(script.send_publishes(&publish(b"x")), 1);
    script.send(b"PUB u\n\0\0\0\x01x");
    assert_eq!(script.take_frames(), []);
    assert_eq!(script.machine.awaited(), Awaited::Publish);
    script.machine.published(Ok(()), script.now);
    let refusal = error(r#"E_UNAUTHORIZED AUTH failed for PUB on "u" """#);
    assert_eq!(script.take_frames(), [ok(), refusal]);
    assert_eq!(script.machine.ended(), Some(End::Linger));
}

#[test]
fn what_has_expired_is_asked_for_again_when_it_is_needed() {
    let mut script = known();
    script.advance(Duration::from_millis(9_999));
    assert_eq!(script.send_publishes(&publish(b"x")), 1);
    script.advance(Duration::from_millis(1));
    assert_eq!(script.send(b"NOP\n"), None, "needs no permission");
    assert_eq!(script.send(&publish(b"y")), question(b"s"));
    assert_eq!(script.next(), None);
    script.machine.authenticated(Ok(grants(TOPIC_T)), script.now);
    assert!(
        matches!(script.next(), Some(Request::Publish(_))),
        "the one that waited"
    );

    let mut script = known();
    script.advance(Duration::from_secs(10));
    assert_eq!(script.send(b"SUB t c\n"), question(b"s"));
    script.machine.authenticated(Ok(grants("[]")), script.now);
    assert_eq!(script.next(), None);
    script.assert_ends_with_error(r#"E_UNAUTHORIZED AUTH failed for SUB on "t" "c""#);

    let mut script = known();
    script.advance(Duration::from_secs(10));
    script.send(b"SUB t c\n");
    script.machine.authenticated(Err(AuthError::TimedOut), script.now);
    script.assert_ends_with_error("E_AUTH_FAILED AUTH failed");
}

#[test]
fn a_subscription_outlives_its_permission() {
    let mut script = known();
    script.subscribe();
    script.send(b"RDY 1\n");
    script.advance(Duration::from_secs(11));
    script.deliver(1, b"x");
    script.send(b"FIN 0000000000000001\n");
    assert_eq!(script.machine.ended(), None);
}

#[test]
fn an_auth_that_fails_ends_the_connection() {
    for (result, text) in [
        (Err(AuthError::TimedOut), "E_AUTH_FAILED AUTH failed"),
        (Ok(grants("[]")), "E_UNAUTHORIZED AUTH no authorizations found"),
    ] {
        let mut script = open();
        script.send(&auth(b"s"));
        script.machine.authenticated(result, script.now);
        script.assert_ends_with_error(text);
    }
    let mut script = known();
    assert_eq!(script.send(&auth(b"again")), None);
    script.assert_ends_with_error("E_INVALID AUTH already set");
}

#[test]
fn permission_is_judged_behind_names_sizes_and_bodies() {
    // Nothing of this is permitted either.
    for (bytes, text) in [
        (
            &b"PUB u$\n\0\0\0\x01x"[..],
            r#"E_BAD_TOPIC PUB topic name "u$" is not valid"#,
        ),
        (b"PUB u\n\0\0\0\0", "E_BAD_MESSAGE PUB invalid message body size 0"),
        (b"DPUB u x\n\0\0\0\x01x", "E_INVALID DPUB could not parse timeout x"),
        (b"DPUB u 1\n\0\0\0\0", "E_BAD_MESSAGE DPUB invalid message body size 0"),
        // nsqd judges this one before the body.
        (b"MPUB u\n\0\0\0\0", "E_BAD_BODY MPUB invalid body size 0"),
        (b"SUB u$ c\n", r#"E_BAD_TOPIC SUB topic name "u$" is not valid"#),
        (b"SUB u c$\n", r#"E_BAD_CHANNEL SUB channel name "c$" is not valid"#),
    ] {
        let mut script = known();
        assert_eq!(script.send(bytes), None);
        script.assert_ends_with_error(text);
    }
    // Before the last byte of the body nothing is judged.
    let mut script = known();
    assert_eq!(script.send(b"PUB u\n\0\0\0\x02x"), None);
    assert_eq!((script.take_frames(), script.machine.ended()), (vec![], None));
    assert_eq!(script.send(b"y"), None);
    script.assert_ends_with_error(r#"E_UNAUTHORIZED AUTH failed for PUB on "u" """#);
}
