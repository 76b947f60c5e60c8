//! The bodies of IDENTIFY, of clients and of nsqds that register.
#![no_main]

use libfuzzer_sys::fuzz_target;
use nsquorum_fuzz_parsers::bounded;
use nsquorum_protocol::{Compression, IdentifyRequest, Limits, LookupIdentify, ServerFeatures, SessionSettings};
use serde_json::{Value, json};

/// Deeper JSON may be refused.
const DEPTH_MAX: usize = 100;

fuzz_target!(|body: &[u8]| {
    let (request, lookup) = bounded(32 * body.len() + 4096, || {
        (IdentifyRequest::parse(body).ok(), LookupIdentify::parse(body).ok())
    });
    let is_json = request.is_some() || lookup.is_some();
    if is_json && body.iter().filter(|byte| matches!(byte, b'[' | b'{')).count() < DEPTH_MAX {
        // Nobody looks into the value of an unknown key, but JSON it must be.
        let nested = [br#"{"unknown":"#, body, br#","client_id":"me"}"#].concat();
        let read = IdentifyRequest::parse(&nested).expect("JSON within JSON");
        let expected = IdentifyRequest {
            client_id: "me".to_owned(),
            ..IdentifyRequest::default()
        };
        assert_eq!(read, expected, "an unknown key counts");
        assert!(LookupIdentify::parse(&nested).is_ok());
    }
    if let Some(request) = request {
        let plain = serde_json::to_vec(&written(&request)).expect("texts and numbers");
        assert_eq!(
            IdentifyRequest::parse(&plain).as_ref(),
            Ok(&request),
            "written plainly it is another request"
        );
        negotiated(&request);
    }
    if let Some(lookup) = lookup {
        let plain = serde_json::to_vec(&written_to_lookup(&lookup)).expect("texts and numbers");
        assert_eq!(
            LookupIdentify::parse(&plain).as_ref(),
            Ok(&lookup),
            "written plainly it is another body"
        );
        let _ = lookup.is_complete();
    }
});

fn written(request: &IdentifyRequest) -> Value {
    json!({
        "client_id": request.client_id, "hostname": request.hostname, "user_agent": request.user_agent,
        "feature_negotiation": request.feature_negotiation, "heartbeat_interval": request.heartbeat_interval,
        "output_buffer_size": request.output_buffer_size, "output_buffer_timeout": request.output_buffer_timeout,
        "sample_rate": request.sample_rate, "msg_timeout": request.msg_timeout, "tls_v1": request.tls_v1,
        "snappy": request.snappy, "deflate": request.deflate, "deflate_level": request.deflate_level,
        "topology_region": request.topology_region, "topology_zone": request.topology_zone,
    })
}

fn written_to_lookup(body: &LookupIdentify) -> Value {
    json!({
        "hostname": body.hostname, "broadcast_address": body.broadcast_address, "tcp_port": body.tcp_port,
        "http_port": body.http_port, "version": body.version, "topology_zone": body.topology_zone,
        "topology_region": body.topology_region,
    })
}

/// Whatever is granted lies within the limits, and asking for it again grants the same.
fn negotiated(request: &IdentifyRequest) {
    let limits = Limits::default();
    let features = ServerFeatures {
        tls_v1: true,
        deflate: true,
        snappy: true,
        ..ServerFeatures::default()
    };
    let Ok(granted) = request.negotiate(&limits, &features) else {
        return;
    };
    let SessionSettings {
        heartbeat_interval_ms,
        output_buffer_size,
        output_buffer_timeout_ms,
        sample_rate,
        msg_timeout_ms,
    } = granted.settings;
    assert!(heartbeat_interval_ms.is_none_or(|ms| (1_000..=60_000).contains(&ms)));
    assert!(output_buffer_size == 1 || (64..=64 << 10).contains(&output_buffer_size));
    assert!(output_buffer_timeout_ms == 0 || (25..=30_000).contains(&output_buffer_timeout_ms));
    assert!(sample_rate <= 99);
    assert!((1_000..=15 * 60_000).contains(&msg_timeout_ms));
    if let Some(Compression::Deflate { level }) = granted.compression {
        assert!((1..=6).contains(&level));
    }
    if request.feature_negotiation {
        let answer: Value = serde_json::from_slice(granted.response()).expect("the answer is JSON");
        assert_eq!(answer["tls_v1"], granted.tls_v1);
    }
    let again = request.negotiate_again(&granted.settings, &limits, &features);
    assert_eq!(again.as_ref(), Ok(&granted), "asked again");
}
