use nsquorum_protocol::Compression;

use super::super::upgrade::Upgrade;
use super::*;

/// A machine that may grant TLS; nobody shakes hands here.
fn config_with_tls() -> FrontendConfig {
    let key = rcgen::generate_simple_self_signed(["node".to_owned()]).expect("a certificate");
    let directory = tempfile::tempdir().expect("a directory");
    let (certificate, key_file) = (directory.path().join("cert.pem"), directory.path().join("key.pem"));
    std::fs::write(&certificate, key.cert.pem()).expect("written");
    std::fs::write(&key_file, key.signing_key.serialize_pem()).expect("written");
    let settings = TlsSettings {
        certificate,
        key: key_file,
        root_ca: None,
        client_auth: ClientAuth::NotAsked,
        min_version: MinVersion::Tls12,
    };
    let features = ServerFeatures {
        snappy: true,
        deflate: true,
        ..ServerFeatures::default()
    };
    FrontendConfig {
        features,
        tls: Some(ServerTls::load(&settings).expect("good files")),
        ..config()
    }
}

fn open(config: FrontendConfig) -> Script {
    let mut script = Script::with(config);
    assert_eq!(script.send(MAGIC_V2), None);
    script
}

const BOTH: &str = r#"{"feature_negotiation":true,"tls_v1":true,"snappy":true}"#;

#[test]
fn layers_come_one_by_one_when_everything_before_them_is_written() {
    let mut script = open(config_with_tls());
    script.send(&identify(BOTH));
    assert_eq!(
        script.machine.upgrade_due(),
        None,
        "the answer has to leave in the old form"
    );
    let frames = script.take_frames();
    assert!(matches!(&frames[..], [Frame::Response(json)] if json.starts_with(b"{")));
    assert_eq!(script.machine.upgrade_due(), Some(Upgrade::Tls));

    // What comes behind the command belongs to the layer.
    script.send(b"\x16\x03\x01");
    assert_eq!(&script.input[..], b"\x16\x03\x01");
    assert!(!script.machine.wants_input());
    script.input.clear();

    script.machine.upgraded(Upgrade::Tls, Ok::<(), &str>(()), script.now);
    assert_eq!(script.machine.upgrade_due(), None, "the OK has to leave through TLS");
    assert_eq!(script.take_frames(), [ok()]);
    let snappy = Upgrade::Compress(Compression::Snappy);
    assert_eq!(script.machine.upgrade_due(), Some(snappy));
    script.machine.upgraded(snappy, Ok::<(), &str>(()), script.now);
    assert_eq!(script.take_frames(), [ok()]);
    assert_eq!(script.machine.upgrade_due(), None);

    assert_eq!(script.send_publishes(&publish(b"x")), 1);
}

#[test]
fn a_heartbeat_waits_until_the_last_layer_is_there() {
    let mut script = open(config_with_tls());
    let json = r#"{"feature_negotiation":true,"tls_v1":true,"snappy":true,"heartbeat_interval":1000}"#;
    script.send(&identify(json));
    script.take_frames();
    for upgrade in [Upgrade::Tls, Upgrade::Compress(Compression::Snappy)] {
        script.advance(Duration::from_millis(2_500));
        assert_eq!((script.take_frames(), script.machine.ended()), (vec![], None));
        script.machine.upgraded(upgrade, Ok::<(), &str>(()), script.now);
        assert_eq!(script.take_frames(), [ok()]);
    }
    script.advance(Duration::from_millis(1_000));
    assert_eq!(script.take_frames(), [heartbeat()]);
}

#[test]
fn a_failed_handshake_is_told_in_plain_and_ends_the_connection() {
    let mut script = open(config_with_tls());
    script.send(&identify(BOTH));
    script.take_frames();
    script.machine.upgraded(Upgrade::Tls, Err("no certificate"), script.now);
    script.assert_ends_with_error("E_IDENTIFY_FAILED IDENTIFY failed no certificate");
    assert_eq!(script.machine.upgrade_due(), None);
}

#[test]
fn a_layer_is_granted_once() {
    let mut script = open(config_with_tls());
    let answer = |script: &mut Script, json: &str| {
        script.send(&identify(json));
        match &script.take_frames()[..] {
            [Frame::Response(json)] => serde_json::from_slice::<serde_json::Value>(json).expect("JSON"),
            other => panic!("{other:?}"),
        }
    };
    let first = answer(&mut script, r#"{"feature_negotiation":true,"tls_v1":true}"#);
    assert_eq!(
        (&first["tls_v1"], &first["snappy"]),
        (&serde_json::json!(true), &serde_json::json!(false))
    );
    script.machine.upgraded(Upgrade::Tls, Ok::<(), &str>(()), script.now);
    script.take_frames();
    let second = answer(&mut script, BOTH);
    assert_eq!(
        (&second["tls_v1"], &second["snappy"]),
        (&serde_json::json!(false), &serde_json::json!(true))
    );
    let snappy = Upgrade::Compress(Compression::Snappy);
    assert_eq!(script.machine.upgrade_due(), Some(snappy));
    script.machine.upgraded(snappy, Ok::<(), &str>(()), script.now);
    script.take_frames();
    let json = r#"{"feature_negotiation":true,"tls_v1":true,"deflate":true}"#;
    let third = answer(&mut script, json);
    assert_eq!(
        (&third["tls_v1"], &third["deflate"]),
        (&serde_json::json!(false), &serde_json::json!(false))
    );
    assert_eq!(script.machine.upgrade_due(), None);
}

#[test]
fn without_required_tls_only_identify_is_legal() {
    let required = || FrontendConfig {
        tls_required: true,
        ..config_with_tls()
    };
    let mut script = open(required());
    script.send(b"PUB t\n");
    script.assert_ends_with_error("E_INVALID cannot PUB in current state (TLS required)");

    let mut script = open(required());
    script.send(&identify(r#"{"feature_negotiation":true}"#));
    script.take_frames();
    script.send(b"NOP\n");
    script.assert_ends_with_error("E_INVALID cannot NOP in current state (TLS required)");

    let mut script = open(required());
    script.send(&identify(r#"{"feature_negotiation":true,"tls_v1":true}"#));
    script.take_frames();
    script.machine.upgraded(Upgrade::Tls, Ok::<(), &str>(()), script.now);
    script.take_frames();
    assert_eq!(script.send_publishes(&publish(b"x")), 1);
}
