//! What a server makes of an IDENTIFY.
//!
//! A client may send IDENTIFY several times before it subscribes; a 0 then means "as it is", not "the default". So a
//! negotiation starts from the session's present settings, and the first one from [`SessionSettings::new`].

use bytes::Bytes;
use serde::Serialize;

use crate::error::{ErrorCode, ProtocolError};
use crate::frame;
use crate::identify::IdentifyRequest;
use crate::limits::Limits;

/// nsqd's deflate level for clients that name none.
const DEFAULT_DEFLATE_LEVEL: u32 = 6;

/// What the server has to offer, apart from its [`Limits`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerFeatures {
    /// The version of nsqd that clients shall take this for. Some compare it (0.3.0 changed RDY, and nsqadmin marks
    /// the older of several), so it must be three numbers with dots.
    pub version: String,
    /// Whether clients must AUTH.
    pub auth_required: bool,
    /// Whether there is a certificate for TLS.
    pub tls_v1: bool,
    /// Whether deflate may be used.
    pub deflate: bool,
    /// Whether snappy may be used.
    pub snappy: bool,
    /// The region of this node, or nothing.
    pub topology_region: String,
    /// The zone of this node, or nothing.
    pub topology_zone: String,
}

impl Default for ServerFeatures {
    /// The nsqd whose behaviour this project follows, with nothing optional.
    fn default() -> Self {
        Self {
            version: "1.3.0".to_owned(),
            auth_required: false,
            tls_v1: false,
            deflate: false,
            snappy: false,
            topology_region: String::new(),
            topology_zone: String::new(),
        }
    }
}

/// What holds for one connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionSettings {
    /// Milliseconds between heartbeats; `None` is without heartbeats, without deadlines and without SUB.
    pub heartbeat_interval_ms: Option<u64>,
    /// Bytes of output buffer; 1 is unbuffered.
    pub output_buffer_size: usize,
    /// Milliseconds until buffered output is flushed; 0 is never by time.
    pub output_buffer_timeout_ms: u64,
    /// Percentage of messages to deliver, 1 to 99; 0 is all.
    pub sample_rate: u8,
    /// Milliseconds that a message may stay in flight.
    pub msg_timeout_ms: u64,
}

impl SessionSettings {
    /// What holds before any IDENTIFY.
    pub fn new(limits: &Limits) -> Self {
        Self {
            heartbeat_interval_ms: Some(limits.heartbeat_interval_ms),
            output_buffer_size: limits.output_buffer_size,
            output_buffer_timeout_ms: limits.output_buffer_timeout_ms,
            sample_rate: 0,
            msg_timeout_ms: limits.msg_timeout_ms,
        }
    }
}

/// The compression of a connection that has one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// Snappy in its framing format.
    Snappy,
    /// Deflate without a zlib header.
    Deflate {
        /// The server's level, 1 to 9; the client may use another.
        level: u32,
    },
}

/// The outcome of an IDENTIFY: settings, the upgrades that follow the answer, and the answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Negotiated {
    /// What now holds for the connection.
    pub settings: SessionSettings,
    /// Whether TLS starts right after the answer, before any compression.
    pub tls_v1: bool,
    /// The compression that starts after that.
    pub compression: Option<Compression>,
    response: Bytes,
}

impl Negotiated {
    /// The data of the response frame: JSON, or `OK` for a client without feature negotiation.
    pub fn response(&self) -> &Bytes {
        &self.response
    }
}

/// The answer, in nsqd's order of keys.
#[derive(Serialize)]
struct Answer<'a> {
    max_rdy_count: u32,
    version: &'a str,
    max_msg_timeout: u64,
    msg_timeout: u64,
    tls_v1: bool,
    deflate: bool,
    deflate_level: u32,
    max_deflate_level: u32,
    snappy: bool,
    sample_rate: u8,
    auth_required: bool,
    output_buffer_size: usize,
    output_buffer_timeout: u64,
    topology_region: &'a str,
    topology_zone: &'a str,
}

impl IdentifyRequest {
    /// Grants what can be granted on a connection's first IDENTIFY.
    ///
    /// # Errors
    /// As [`IdentifyRequest::negotiate_again`].
    pub fn negotiate(&self, limits: &Limits, features: &ServerFeatures) -> Result<Negotiated, ProtocolError> {
        self.negotiate_again(&SessionSettings::new(limits), limits, features)
    }

    /// Grants what can be granted on a connection that has `current` settings.
    ///
    /// # Errors
    /// `E_BAD_BODY IDENTIFY … is invalid` for the first number out of range in nsqd's order, and
    /// `E_IDENTIFY_FAILED` if both compressions would be granted. Both end the connection.
    pub fn negotiate_again(
        &self,
        current: &SessionSettings,
        limits: &Limits,
        features: &ServerFeatures,
    ) -> Result<Negotiated, ProtocolError> {
        let settings = self.settings(current, limits)?;
        if !self.feature_negotiation {
            let response = Bytes::from_static(frame::OK);
            return Ok(Negotiated {
                settings,
                tls_v1: false,
                compression: None,
                response,
            });
        }
        let tls_v1 = features.tls_v1 && self.tls_v1;
        let deflate = features.deflate && self.deflate;
        let snappy = features.snappy && self.snappy;
        let wish = match self.deflate_level {
            level if deflate && level > 0 => u32::try_from(level).unwrap_or(u32::MAX),
            _ => DEFAULT_DEFLATE_LEVEL,
        };
        let deflate_level = wish.min(limits.max_deflate_level);
        let compression = match (snappy, deflate) {
            (true, true) => {
                let text = "cannot enable both deflate and snappy compression";
                return Err(ProtocolError::new(ErrorCode::IdentifyFailed, text));
            }
            (true, false) => Some(Compression::Snappy),
            (false, true) => Some(Compression::Deflate { level: deflate_level }),
            (false, false) => None,
        };
        let answer = Answer {
            max_rdy_count: limits.max_rdy_count,
            version: &features.version,
            max_msg_timeout: limits.max_msg_timeout_ms,
            msg_timeout: settings.msg_timeout_ms,
            tls_v1,
            deflate,
            deflate_level,
            max_deflate_level: limits.max_deflate_level,
            snappy,
            sample_rate: settings.sample_rate,
            auth_required: features.auth_required,
            output_buffer_size: settings.output_buffer_size,
            output_buffer_timeout: settings.output_buffer_timeout_ms,
            topology_region: &features.topology_region,
            topology_zone: &features.topology_zone,
        };
        let response = serde_json::to_vec(&answer).expect("numbers and texts always serialise");
        Ok(Negotiated {
            settings,
            tls_v1,
            compression,
            response: response.into(),
        })
    }

    fn settings(&self, current: &SessionSettings, limits: &Limits) -> Result<SessionSettings, ProtocolError> {
        let mut settings = *current;
        match self.heartbeat_interval {
            0 => {}
            -1 => settings.heartbeat_interval_ms = None,
            wish => {
                let range = limits.min_heartbeat_interval_ms..=limits.max_heartbeat_interval_ms;
                settings.heartbeat_interval_ms = Some(checked("heartbeat interval", wish, range)?);
            }
        }
        match self.output_buffer_timeout {
            0 => {}
            -1 => settings.output_buffer_timeout_ms = 0,
            wish => {
                let range = limits.min_output_buffer_timeout_ms..=limits.max_output_buffer_timeout_ms;
                settings.output_buffer_timeout_ms = checked("output buffer timeout", wish, range)?;
            }
        }
        match self.output_buffer_size {
            0 => {}
            -1 => {
                settings.output_buffer_size = 1;
                settings.output_buffer_timeout_ms = 0;
            }
            wish => {
                let range = limits.min_output_buffer_size..=limits.max_output_buffer_size;
                settings.output_buffer_size = checked("output buffer size", wish, range)?;
            }
        }
        settings.sample_rate = checked("sample rate", i64::from(self.sample_rate), 0..=99)?;
        if self.msg_timeout != 0 {
            let range = limits.min_msg_timeout_ms..=limits.max_msg_timeout_ms;
            settings.msg_timeout_ms = checked("msg timeout", self.msg_timeout, range)?;
        }
        Ok(settings)
    }
}

fn checked<N>(what: &str, wish: i64, range: std::ops::RangeInclusive<N>) -> Result<N, ProtocolError>
where
    N: TryFrom<i64> + PartialOrd,
{
    match N::try_from(wish) {
        Ok(value) if range.contains(&value) => Ok(value),
        _ => Err(ProtocolError::new(
            ErrorCode::BadBody,
            format!("IDENTIFY {what} ({wish}) is invalid"),
        )),
    }
}
