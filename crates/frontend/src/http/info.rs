//! GET /info.

use nsquorum_http::{HttpError, Reply};
use serde::Serialize;

use super::{Answer, HttpFrontend};

/// nsqd's keys in nsqd's order. Durations are in nanoseconds; the ports are those that the node listens on, not the broadcast ones.
#[derive(Serialize)]
struct Info<'a> {
    version: &'a str,
    broadcast_address: &'a str,
    hostname: &'a str,
    http_port: i32,
    tcp_port: i32,
    start_time: u64,
    max_heartbeat_interval: u64,
    max_output_buffer_size: usize,
    max_output_buffer_timeout: u64,
    max_deflate_level: u32,
    topology_zone: &'a str,
    topology_region: &'a str,
}

const NANOS_PER_MS: u64 = 1_000_000;

impl HttpFrontend {
    pub(super) fn info(&self) -> Answer {
        let (limits, features) = (&self.config.limits, &self.config.features);
        to_json(&Info {
            version: &features.version,
            broadcast_address: &self.config.broadcast_address,
            hostname: &self.config.hostname,
            http_port: or_minus_one(self.http_port),
            tcp_port: or_minus_one(self.tcp_port),
            start_time: self.config.started_at.as_secs(),
            max_heartbeat_interval: limits.max_heartbeat_interval_ms * NANOS_PER_MS,
            max_output_buffer_size: limits.max_output_buffer_size,
            max_output_buffer_timeout: limits.max_output_buffer_timeout_ms * NANOS_PER_MS,
            max_deflate_level: limits.max_deflate_level,
            topology_zone: &features.topology_zone,
            topology_region: &features.topology_region,
        })
    }
}

/// What nsqd says of a socket in the file system.
fn or_minus_one(port: Option<u16>) -> i32 {
    port.map_or(-1, i32::from)
}

/// The order of keys is that of the fields.
pub(super) fn to_json(value: &impl Serialize) -> Answer {
    serde_json::to_vec(value)
        .map(Reply::RawJson)
        .map_err(|_| HttpError::internal("INTERNAL_ERROR"))
}
