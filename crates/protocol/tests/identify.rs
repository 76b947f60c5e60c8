//! IDENTIFY: what is read, what is refused, what is granted, and the answer's bytes.

use nsquorum_protocol::{Compression, ErrorCode, Fatality, IdentifyRequest, Limits, ServerFeatures, SessionSettings};

fn parse(json: &str) -> IdentifyRequest {
    IdentifyRequest::parse(json.as_bytes()).expect(json)
}

fn everything() -> ServerFeatures {
    ServerFeatures {
        tls_v1: true,
        deflate: true,
        snappy: true,
        ..ServerFeatures::default()
    }
}

#[test]
fn reads_every_field() {
    let request = parse(
        r#"{"client_id":"c","hostname":"h","user_agent":"u","feature_negotiation":true,"heartbeat_interval":-1,
            "output_buffer_size":64,"output_buffer_timeout":25,"sample_rate":42,"msg_timeout":1000,"tls_v1":true,
            "snappy":true,"deflate":true,"deflate_level":3,"topology_region":"r","topology_zone":"z",
            "short_id":"s","long_id":"l"}"#,
    );
    let expected = IdentifyRequest {
        client_id: "c".to_owned(),
        hostname: "h".to_owned(),
        user_agent: "u".to_owned(),
        feature_negotiation: true,
        heartbeat_interval: -1,
        output_buffer_size: 64,
        output_buffer_timeout: 25,
        sample_rate: 42,
        msg_timeout: 1000,
        tls_v1: true,
        snappy: true,
        deflate: true,
        deflate_level: 3,
        topology_region: "r".to_owned(),
        topology_zone: "z".to_owned(),
    };
    assert_eq!(request, expected);
}

/// Found by comparing what the fuzzer found with Go.
#[test]
fn minus_nothing_is_nothing_where_it_is_an_integer() {
    let read = |body: &str| IdentifyRequest::parse(body.as_bytes()).ok();
    let request =
        read(r#"{"output_buffer_timeout":-0,"sample_rate" : -0 ,"x":[-0,1e-0,-0.5,"-0"],"client_id":"-0:-0"}"#);
    let request = request.expect("as Go");
    assert_eq!((request.output_buffer_timeout, request.sample_rate), (0, 0));
    assert_eq!(request.client_id, "-0:-0");
    for body in ["-0.0", "-00", "--0", "1-0", "-0e1", "- 0"] {
        assert_eq!(read(&format!(r#"{{"msg_timeout":{body}}}"#)), None, "{body}");
    }
}

#[test]
fn is_as_lenient_as_go() {
    let nested = format!(
        r#"{{"unknown":{}{}, "hostname":"h"}}"#,
        "[".repeat(5000),
        "]".repeat(5000)
    );
    let host = IdentifyRequest {
        hostname: "h".to_owned(),
        ..IdentifyRequest::default()
    };
    let table = [
        ("null", IdentifyRequest::default()),
        ("{}", IdentifyRequest::default()),
        (" \r\n\t{ } \n", IdentifyRequest::default()),
        (r#"{"HostName":"h"}"#, host.clone()),
        (r#"{"hostname":"first","hostname":"h"}"#, host.clone()),
        (r#"{"hostname":"h","HOSTNAME":null}"#, host.clone()),
        (
            r#"{"hostname":"\u0068","client_id":null,"heartbeat_interval":null,"snappy":null}"#,
            host.clone(),
        ),
        (
            r#"{"unknown":{"hostname":1e999,"a":[{}]},"hostname":"h","x":-0.5e3}"#,
            host.clone(),
        ),
        (&nested, host),
    ];
    for (json, request) in table {
        assert_eq!(IdentifyRequest::parse(json.as_bytes()), Ok(request), "{json:.80}");
    }
    let halves =
        r#"{"hostname":"a\ud800b\udc00\ud83d\ude00\ud800A","\ud800":1,"u\u017fer_agent":"folded","TOPOLOGY_ZONE":"z"}"#;
    let halves = parse(halves);
    assert_eq!(halves.hostname, "a\u{fffd}b\u{fffd}\u{1f600}\u{fffd}A");
    assert_eq!((&*halves.user_agent, &*halves.topology_zone), ("folded", "z"));
    let not_utf8 = IdentifyRequest::parse(b"{\"hostname\":\"\xff\"}").unwrap();
    assert_eq!(not_utf8.hostname, "\u{fffd}");
    // Found by comparing what the fuzzer found with Go: a character that is cut off is as many as it has bytes.
    let cut_off = IdentifyRequest::parse(b"{\"hostname\":\"a\xe2\x82\"}").unwrap();
    assert_eq!(cut_off.hostname, "a\u{fffd}\u{fffd}");
}

#[test]
fn is_as_strict_as_go() {
    let table = [
        "",
        "[]",
        "[{}]",
        "1",
        "true",
        r#""text""#,
        "{",
        "{}x",
        "{} {}",
        r#"{"hostname":"h",}"#,
        "{'hostname':'h'}",
        r#"{"hostname":1}"#,
        r#"{"hostname":["h"]}"#,
        r#"{"heartbeat_interval":"30000"}"#,
        r#"{"heartbeat_interval":30000.0}"#,
        r#"{"heartbeat_interval":3e4}"#,
        r#"{"heartbeat_interval":true}"#,
        r#"{"heartbeat_interval":9223372036854775808}"#,
        r#"{"sample_rate":2147483648}"#,
        r#"{"feature_negotiation":1}"#,
        r#"{"feature_negotiation":"true"}"#,
        r#"{"snappy":{}}"#,
        "{\"hostname\":\"\n\"}",
        "nulL",
    ];
    for json in table {
        let error = IdentifyRequest::parse(json.as_bytes()).expect_err(json);
        assert_eq!(
            error.to_string(),
            "E_BAD_BODY IDENTIFY failed to decode JSON body",
            "{json}"
        );
        assert_eq!(error.fatality(), Fatality::Close);
    }
}

#[test]
fn refuses_what_is_out_of_range() {
    let table = [
        (r#"{"heartbeat_interval":999}"#, "heartbeat interval (999)"),
        (r#"{"heartbeat_interval":60001}"#, "heartbeat interval (60001)"),
        (r#"{"heartbeat_interval":-2}"#, "heartbeat interval (-2)"),
        (r#"{"output_buffer_timeout":24}"#, "output buffer timeout (24)"),
        (r#"{"output_buffer_timeout":30001}"#, "output buffer timeout (30001)"),
        (r#"{"output_buffer_timeout":-2}"#, "output buffer timeout (-2)"),
        (r#"{"output_buffer_size":63}"#, "output buffer size (63)"),
        (r#"{"output_buffer_size":65537}"#, "output buffer size (65537)"),
        (r#"{"output_buffer_size":-2}"#, "output buffer size (-2)"),
        (r#"{"sample_rate":100}"#, "sample rate (100)"),
        (r#"{"sample_rate":-1}"#, "sample rate (-1)"),
        (r#"{"sample_rate":256}"#, "sample rate (256)"),
        (r#"{"msg_timeout":999}"#, "msg timeout (999)"),
        (r#"{"msg_timeout":900001}"#, "msg timeout (900001)"),
        (r#"{"msg_timeout":-1}"#, "msg timeout (-1)"),
        (
            r#"{"msg_timeout":9223372036854775807}"#,
            "msg timeout (9223372036854775807)",
        ),
    ];
    for (json, what) in table {
        let error = parse(json)
            .negotiate(&Limits::default(), &ServerFeatures::default())
            .unwrap_err();
        assert_eq!(error.to_string(), format!("E_BAD_BODY IDENTIFY {what} is invalid"));
        assert_eq!(error.fatality(), Fatality::Close);
    }
}

#[test]
fn the_first_fault_in_nsqds_order_is_told() {
    let faults = [
        (r#""heartbeat_interval":1"#, "heartbeat interval (1)"),
        (r#""output_buffer_timeout":2"#, "output buffer timeout (2)"),
        (r#""output_buffer_size":3"#, "output buffer size (3)"),
        (r#""sample_rate":104"#, "sample rate (104)"),
        (r#""msg_timeout":5"#, "msg timeout (5)"),
    ];
    for first in 0..faults.len() {
        let fields: Vec<&str> = faults[first..].iter().rev().map(|(field, _)| *field).collect();
        let json = format!(
            r#"{{"feature_negotiation":true,"snappy":true,"deflate":true,{}}}"#,
            fields.join(",")
        );
        let error = parse(&json).negotiate(&Limits::default(), &everything()).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("E_BAD_BODY IDENTIFY {} is invalid", faults[first].1)
        );
    }
}

#[test]
fn the_answer_has_nsqds_bytes() {
    let negotiated = parse(r#"{"feature_negotiation":true}"#)
        .negotiate(&Limits::default(), &ServerFeatures::default())
        .unwrap();
    let expected = concat!(
        r#"{"max_rdy_count":2500,"version":"1.3.0","max_msg_timeout":900000,"msg_timeout":60000,"tls_v1":false,"#,
        r#""deflate":false,"deflate_level":6,"max_deflate_level":6,"snappy":false,"sample_rate":0,"#,
        r#""auth_required":false,"output_buffer_size":16384,"output_buffer_timeout":250,"topology_region":"","#,
        r#""topology_zone":""}"#
    );
    assert_eq!(std::str::from_utf8(negotiated.response()).unwrap(), expected);
    assert_eq!(negotiated.settings, SessionSettings::new(&Limits::default()));
}

#[test]
fn the_answer_tells_what_was_granted() {
    let request = parse(
        r#"{"feature_negotiation":true,"tls_v1":true,"deflate":true,"deflate_level":4,"sample_rate":42,
            "msg_timeout":1000,"output_buffer_size":65536,"output_buffer_timeout":30000,"topology_zone":"client's"}"#,
    );
    let features = ServerFeatures {
        auth_required: true,
        topology_region: "eu".to_owned(),
        topology_zone: "eu-1".to_owned(),
        ..everything()
    };
    let negotiated = request.negotiate(&Limits::default(), &features).unwrap();
    let expected = concat!(
        r#"{"max_rdy_count":2500,"version":"1.3.0","max_msg_timeout":900000,"msg_timeout":1000,"tls_v1":true,"#,
        r#""deflate":true,"deflate_level":4,"max_deflate_level":6,"snappy":false,"sample_rate":42,"#,
        r#""auth_required":true,"output_buffer_size":65536,"output_buffer_timeout":30000,"topology_region":"eu","#,
        r#""topology_zone":"eu-1"}"#
    );
    assert_eq!(std::str::from_utf8(negotiated.response()).unwrap(), expected);
    assert!(negotiated.tls_v1);
    assert_eq!(negotiated.compression, Some(Compression::Deflate { level: 4 }));
}

#[test]
fn without_feature_negotiation_the_answer_is_ok_and_nothing_is_upgraded() {
    let request = parse(r#"{"tls_v1":true,"snappy":true,"deflate":true,"heartbeat_interval":5000}"#);
    let negotiated = request.negotiate(&Limits::default(), &everything()).unwrap();
    assert_eq!(&negotiated.response()[..], b"OK");
    assert!(!negotiated.tls_v1);
    assert_eq!(negotiated.compression, None);
    assert_eq!(
        negotiated.settings.heartbeat_interval_ms,
        Some(5000),
        "settings hold all the same"
    );
}

#[test]
fn features_are_granted_only_if_both_sides_have_them() {
    let wish = parse(r#"{"feature_negotiation":true,"tls_v1":true,"snappy":true}"#);
    let negotiated = wish.negotiate(&Limits::default(), &ServerFeatures::default()).unwrap();
    assert_eq!((negotiated.tls_v1, negotiated.compression), (false, None));
    let negotiated = wish.negotiate(&Limits::default(), &everything()).unwrap();
    assert_eq!(
        (negotiated.tls_v1, negotiated.compression),
        (true, Some(Compression::Snappy))
    );
    let none = parse(r#"{"feature_negotiation":true}"#)
        .negotiate(&Limits::default(), &everything())
        .unwrap();
    assert_eq!((none.tls_v1, none.compression), (false, None));
}

#[test]
fn two_compressions_are_refused_only_if_both_would_be_granted() {
    let both = parse(r#"{"feature_negotiation":true,"snappy":true,"deflate":true}"#);
    let error = both.negotiate(&Limits::default(), &everything()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "E_IDENTIFY_FAILED cannot enable both deflate and snappy compression"
    );
    assert_eq!(error.code(), Some(ErrorCode::IdentifyFailed));
    let features = ServerFeatures {
        deflate: false,
        ..everything()
    };
    assert_eq!(
        both.negotiate(&Limits::default(), &features).unwrap().compression,
        Some(Compression::Snappy)
    );
}

#[test]
fn the_deflate_level_is_lowered_not_refused() {
    for (wish, level) in [(-1, 6), (0, 6), (1, 1), (6, 6), (7, 6), (99, 6)] {
        let request = parse(&format!(
            r#"{{"feature_negotiation":true,"deflate":true,"deflate_level":{wish}}}"#
        ));
        let negotiated = request.negotiate(&Limits::default(), &everything()).unwrap();
        assert_eq!(
            negotiated.compression,
            Some(Compression::Deflate { level }),
            "level {wish}"
        );
    }
    let limits = Limits {
        max_deflate_level: 3,
        ..Limits::default()
    };
    let request = parse(r#"{"feature_negotiation":true,"deflate":true}"#);
    let negotiated = request.negotiate(&limits, &everything()).unwrap();
    assert_eq!(negotiated.compression, Some(Compression::Deflate { level: 3 }));
}

#[test]
fn numbers_at_the_edges_and_special_ones() {
    let initial = SessionSettings::new(&Limits::default());
    let table = [
        (
            r#"{"heartbeat_interval":1000}"#,
            SessionSettings {
                heartbeat_interval_ms: Some(1000),
                ..initial
            },
        ),
        (
            r#"{"heartbeat_interval":60000}"#,
            SessionSettings {
                heartbeat_interval_ms: Some(60_000),
                ..initial
            },
        ),
        (
            r#"{"heartbeat_interval":-1}"#,
            SessionSettings {
                heartbeat_interval_ms: None,
                ..initial
            },
        ),
        (
            r#"{"output_buffer_timeout":25}"#,
            SessionSettings {
                output_buffer_timeout_ms: 25,
                ..initial
            },
        ),
        (
            r#"{"output_buffer_timeout":-1}"#,
            SessionSettings {
                output_buffer_timeout_ms: 0,
                ..initial
            },
        ),
        (
            r#"{"output_buffer_size":64}"#,
            SessionSettings {
                output_buffer_size: 64,
                ..initial
            },
        ),
        (
            r#"{"output_buffer_size":-1,"output_buffer_timeout":1000}"#,
            SessionSettings {
                output_buffer_size: 1,
                output_buffer_timeout_ms: 0,
                ..initial
            },
        ),
        (
            r#"{"sample_rate":99}"#,
            SessionSettings {
                sample_rate: 99,
                ..initial
            },
        ),
        (
            r#"{"msg_timeout":900000}"#,
            SessionSettings {
                msg_timeout_ms: 900_000,
                ..initial
            },
        ),
        (
            r#"{"heartbeat_interval":0,"output_buffer_size":0,"output_buffer_timeout":0,"sample_rate":0,"msg_timeout":0}"#,
            initial,
        ),
    ];
    for (json, settings) in table {
        let negotiated = parse(json)
            .negotiate(&Limits::default(), &ServerFeatures::default())
            .unwrap();
        assert_eq!(negotiated.settings, settings, "{json}");
    }
}

#[test]
fn a_second_identify_starts_from_what_the_first_one_set() {
    let limits = Limits::default();
    let features = ServerFeatures::default();
    let first = parse(r#"{"heartbeat_interval":-1,"output_buffer_size":-1,"sample_rate":5,"msg_timeout":2000}"#);
    let first = first.negotiate(&limits, &features).unwrap().settings;
    let second = parse(r#"{"output_buffer_timeout":100}"#)
        .negotiate_again(&first, &limits, &features)
        .unwrap();
    let expected = SessionSettings {
        output_buffer_timeout_ms: 100,
        sample_rate: 0,
        ..first
    };
    assert_eq!(
        second.settings, expected,
        "a sample rate of 0 is all messages, every other 0 is no change"
    );
}
