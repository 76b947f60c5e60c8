//! What this side says in IDENTIFY, and what the server answers.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::error::{ClientError, ServerError};

/// How often the server sends a heartbeat. NSQ drops a connection that answers none for two intervals; this client
/// answers all by itself, and in turn gives up a server that has been silent for two intervals.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Heartbeat {
    /// The server's default, which is 30 s in nsqd.
    #[default]
    ServerDefault,
    /// An own interval: nsqd takes 1 s to 60 s.
    Every(Duration),
    /// None: no end of a silent connection is noticed, and SUB is refused.
    Off,
}

/// nsqd's default heartbeat interval, half of its client timeout of 60 s.
const DEFAULT_INTERVAL: Duration = Duration::from_secs(30);

impl Heartbeat {
    /// The field of IDENTIFY in milliseconds: 0 asks for the default, -1 for none.
    fn field_ms(self) -> i64 {
        match self {
            Self::ServerDefault => 0,
            Self::Every(interval) => i64::try_from(interval.as_millis()).unwrap_or(i64::MAX),
            Self::Off => -1,
        }
    }

    /// The interval to expect; `None` without heartbeats.
    pub(crate) fn interval(self) -> Option<Duration> {
        match self {
            Self::ServerDefault => Some(DEFAULT_INTERVAL),
            Self::Every(interval) => Some(interval),
            Self::Off => None,
        }
    }
}

/// What to tell the server, and the limits of this side.
#[derive(Clone, Debug)]
pub struct IdentifyOptions {
    /// Shown in the server's statistics.
    pub client_id: String,
    /// Shown in the server's statistics.
    pub user_agent: String,
    /// See [`Heartbeat`].
    pub heartbeat: Heartbeat,
    /// Time until an unanswered delivery counts as timed out; `None` for the server's default (60 s in nsqd).
    pub msg_timeout: Option<Duration>,
    /// The server's output buffer in bytes; `None` for its default, `Some(0)` for no buffering.
    pub output_buffer_bytes: Option<u32>,
    /// How long the server may hold back buffered messages; `None` for its default (250 ms in nsqd).
    pub output_buffer_timeout: Option<Duration>,
    /// The time allowed for connecting and the handshake together.
    pub connect_timeout: Duration,
    /// How many commands may await an answer; the next one waits for room. At least 1.
    pub in_flight_max: u32,
    /// How many bytes of such commands may be held here. A single larger command is let through alone.
    pub in_flight_bytes_max: u32,
    /// The largest frame taken from the server, in bytes.
    pub frame_bytes_max: u32,
}

impl Default for IdentifyOptions {
    fn default() -> Self {
        Self {
            client_id: "nsquorum".to_owned(),
            user_agent: concat!("nsquorum-client/", env!("CARGO_PKG_VERSION")).to_owned(),
            heartbeat: Heartbeat::default(),
            msg_timeout: None,
            output_buffer_bytes: None,
            output_buffer_timeout: None,
            connect_timeout: Duration::from_secs(5),
            in_flight_max: 1024,
            in_flight_bytes_max: 16 << 20,
            frame_bytes_max: 16 << 20,
        }
    }
}

/// The JSON body; NSQ leaves out what should stay at the server's default.
#[derive(Serialize)]
struct Body<'a> {
    client_id: &'a str,
    hostname: &'a str,
    user_agent: &'a str,
    feature_negotiation: bool,
    heartbeat_interval: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    msg_timeout: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    output_buffer_size: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    output_buffer_timeout: Option<i64>,
}

impl IdentifyOptions {
    /// The body of IDENTIFY. TLS and compression are never asked for, so the stream stays as it is.
    pub(crate) fn body(&self) -> Vec<u8> {
        // In these two fields 0 means "default" and -1 means "none".
        let or_none = |value: i64| if value == 0 { -1 } else { value };
        let body = Body {
            client_id: &self.client_id,
            hostname: &self.client_id,
            user_agent: &self.user_agent,
            feature_negotiation: true,
            heartbeat_interval: self.heartbeat.field_ms(),
            msg_timeout: self.msg_timeout.map(millis),
            output_buffer_size: self.output_buffer_bytes.map(|bytes| or_none(i64::from(bytes))),
            output_buffer_timeout: self
                .output_buffer_timeout
                .map(|timeout| or_none(i64::try_from(timeout.as_millis()).unwrap_or(i64::MAX))),
        };
        serde_json::to_vec(&body).expect("strings and numbers always have a JSON form")
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// What the server answered to IDENTIFY. Fields that it left out have nsqd's defaults.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(default)]
pub struct ServerSettings {
    /// The server's version, which is nsqd's version in nsquorum too.
    pub version: String,
    /// The largest RDY that the server takes.
    pub max_rdy_count: u32,
    /// The message timeout of this connection, in milliseconds.
    pub msg_timeout: u64,
    /// The longest that TOUCH can extend a message timeout to, in milliseconds.
    pub max_msg_timeout: u64,
    /// Whether AUTH is needed first; this client has none, so SUB and PUB would fail.
    pub auth_required: bool,
    /// The output buffer of this connection, in bytes.
    pub output_buffer_size: i64,
    /// How long buffered messages may be held back, in milliseconds.
    pub output_buffer_timeout: i64,
}

impl Default for ServerSettings {
    fn default() -> Self {
        Self {
            version: String::new(),
            max_rdy_count: 2500,
            msg_timeout: 60_000,
            max_msg_timeout: 900_000,
            auth_required: false,
            output_buffer_size: 16_384,
            output_buffer_timeout: 250,
        }
    }
}

impl ServerSettings {
    /// Reads the answer; a plain `OK` (a server without feature negotiation) means the defaults.
    pub(crate) fn parse(payload: &[u8]) -> Result<Self, ClientError> {
        if payload == b"OK" {
            return Ok(Self::default());
        }
        // Serde would also take an array, field by field.
        let object = if payload.starts_with(b"{") { payload } else { b"" };
        serde_json::from_slice(object)
            .map_err(|error| ClientError::Handshake(format!("{error} in {}", ServerError::new(payload))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(options: &IdentifyOptions) -> serde_json::Value {
        serde_json::from_slice(&options.body()).unwrap()
    }

    #[test]
    fn zero_buffering_is_asked_for_with_minus_one() {
        let options = IdentifyOptions {
            output_buffer_bytes: Some(0),
            output_buffer_timeout: Some(Duration::ZERO),
            heartbeat: Heartbeat::Off,
            ..IdentifyOptions::default()
        };
        let body = json(&options);
        assert_eq!(body["output_buffer_size"], -1);
        assert_eq!(body["output_buffer_timeout"], -1);
        assert_eq!(body["heartbeat_interval"], -1);
    }

    #[test]
    fn defaults_are_left_to_the_server() {
        let body = json(&IdentifyOptions::default());
        assert_eq!(body["heartbeat_interval"], 0);
        assert_eq!(body["feature_negotiation"], true);
        assert!(body.get("msg_timeout").is_none() && body.get("output_buffer_size").is_none());
        assert!(body.get("tls_v1").is_none());
    }

    #[test]
    fn settings_come_from_the_json_and_default_to_nsqd() {
        let settings = ServerSettings::parse(br#"{"max_rdy_count":7,"version":"1.3.0","topology_zone":""}"#).unwrap();
        assert_eq!(
            (settings.max_rdy_count, settings.version.as_str(), settings.msg_timeout),
            (7, "1.3.0", 60_000)
        );
        assert_eq!(ServerSettings::parse(b"OK").unwrap(), ServerSettings::default());
        assert!(matches!(
            ServerSettings::parse(b"HTTP/1.1"),
            Err(ClientError::Handshake(_))
        ));
    }
}
